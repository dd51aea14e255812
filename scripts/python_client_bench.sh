#!/usr/bin/env bash
# What the Python client costs over one connection to the release server, beside a loop of send and recv in C
# (clients/python/benchmarks/loop.c) and, for 10,000 rows in one call, beside `client run` over one connection. The kinds take turns;
# the figures are medians of the rounds. Wants a machine that does nothing else. Takes a minute and a half.
# Usage: [ROUNDS=5] [PYTHON=python with numpy] scripts/python_client_bench.sh
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${ROUNDS:-5}
target=${CARGO_TARGET_DIR:-target}
programs=${PROGRAMS:-$target/release}
[ -n "${PROGRAMS:-}" ] || cargo build --release --workspace --locked
python=${PYTHON:-$target/python_client_bench/bin/python}
if ! "$python" -c 'import numpy' 2>/dev/null; then
    python3 -m venv "$target/python_client_bench"
    "$python" -m pip install --quiet numpy
fi
export PYTHONPATH=clients/python/src PYTHONDONTWRITEBYTECODE=1

folder=$(mktemp -d)
server=
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
cc -O2 -Wall -o "$folder/loop" clients/python/benchmarks/loop.c
"$programs/disrust" --port 0 2>"$folder/log" &
server=$!
for _ in $(seq 100); do
    port=$(sed -n 's/^listening on .*:\([0-9]*\).*$/\1/p' "$folder/log")
    [ -n "$port" ] && break
    sleep 0.1
done
[ -n "$port" ] || { cat "$folder/log"; echo "python client: the server did not start"; exit 1; }

calls() { "$python" clients/python/benchmarks/calls.py "$1" "$port" "$2" "$3" >>"$folder/$1-$2"; }
for _ in $(seq "$rounds"); do
    for rows in 1 64; do
        "$folder/loop" "$port" "$rows" 20000 >>"$folder/loop-$rows"
        calls blocking "$rows" 20000
        calls asyncio "$rows" 10000
    done
    calls threads 1 16000
    calls lock 1 16000
    "$programs/client" "$port" run --closed --connections 1 --window 64 --vectors 64 --duration 2s --warmup 500ms \
        --json "$folder/run.json" >/dev/null
    grep -o '"vectors_per_second": [0-9.]*' "$folder/run.json" >>"$folder/run"
    calls blocking 10000 500
    calls asyncio 10000 500
done

"$python" - "$folder" <<'END'
import pathlib, statistics, sys

folder = pathlib.Path(sys.argv[1])


def column(name, index):
    values = [float(line.split()[index]) for line in (folder / name).read_text().splitlines()]
    return statistics.median(values), min(values), max(values)


def shown(values):
    return f"{values[0]:8.2f} ({values[1]:.2f} to {values[2]:.2f})"


print("median (least to most) of the rounds; us a call")
for rows in (1, 64):
    least = column(f"loop-{rows}", 0)[0]
    for kind in ("loop", "blocking", "asyncio"):
        cpu, wall = column(f"{kind}-{rows}", 0), column(f"{kind}-{rows}", 1)
        print(f"{rows:5} rows  {kind:8}  CPU {shown(cpu)}, {cpu[0] - least:+6.2f} to the loop's;  time {shown(wall)}")
for kind in ("threads", "lock"):
    print(f"    1 row   8 threads, {kind:8}  CPU {shown(column(f'{kind}-1', 0))};  time {shown(column(f'{kind}-1', 1))}")
run = column("run", 1)
print(f"client run, one connection, 64 rows a request: {run[0] / 1e6:.2f} ({run[1] / 1e6:.2f} to {run[2] / 1e6:.2f}) million rows/s")
for kind in ("blocking", "asyncio"):
    wall = column(f"{kind}-10000", 1)
    rate = 10000 / wall[0]
    print(f"10000 rows  {kind:8}  time {shown(wall)}: {rate:.2f} million rows/s, {rate * 1e6 / run[0]:.2f} x of client run's")
END
