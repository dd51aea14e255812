#!/usr/bin/env bash
# Says what clients/rust gets of a server beside bench-client, which has no callers, only bytes: requests/s of callers that each
# wait for their answer, in one thread, over the same connections and with as many requests under way; round by round, the first
# one first in every other round, half a second each. Of the ratios of clients/rust to bench-client it prints the median, an interval that
# covers it with at least 95 %, and the verdict of `client pairs`. Fewer than six rounds decide nothing.
# One server serves all rounds. Both clients run on the last CPU.
# Usage: [PROGRAMS=folder with disrust, client and examples/load] scripts/rust_client_bench.sh [ROUNDS [CALLERS [CONNECTIONS [ROWS]]]]; without CALLERS: 64 over one connection, over
# two, and beside bench-client with a connection a caller; and one caller.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${1:-10}
programs=${PROGRAMS:-${CARGO_TARGET_DIR:-target}/release}
if [ -z "${PROGRAMS:-}" ]; then
    cargo build --release --locked --package disrust --package bench-client
    cargo build --release --locked --package disrust-client --example load
fi
last_cpu=$(($(nproc) - 1))
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$programs/disrust" --port 0 2>"$folder/log" >"$folder/stdout" &
server=$!
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true; rm -rf "$folder"' EXIT
port=
for _ in $(seq 200); do
    port=$(sed -n 's/^listening on .*:\([0-9]*\).*$/\1/p' "$folder/log")
    [ -n "$port" ] && break
    sleep 0.05
done
[ -n "$port" ] || { cat "$folder/log" >&2; echo "the server did not start" >&2; exit 1; }

# Requests/s of bench-client: connections, window, rows.
bench() {
    "$programs/client" "$port" run --closed --connections "$1" --window "$2" --vectors "$3" --duration 500ms --warmup 200ms \
        --pin "$last_cpu" --csv "$folder/run.csv" >"$folder/out" || { cat "$folder/out" >&2; exit 1; }
    awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i } NR == 2 { print $at["achieved_per_second"] }' "$folder/run.csv"
}

# Requests/s of clients/rust: callers, connections, rows.
load() {
    taskset --cpu-list "$last_cpu" "$programs/examples/load" "127.0.0.1:$port" "$1" 0.5 "$2" "$3" | cut -d ' ' -f 1
}

# Callers and connections of clients/rust, connections and window of bench-client, rows of both.
compare() {
    echo "== $1 callers over $2 connections, beside $3 connections of window $4; $5 rows a request"
    : >"$folder/rounds"
    for round in $(seq "$rounds"); do
        if ((round % 2)); then
            a=$(bench "$3" "$4" "$5")
            b=$(load "$1" "$2" "$5")
        else
            b=$(load "$1" "$2" "$5")
            a=$(bench "$3" "$4" "$5")
        fi
        printf 'round %d: bench-client %.0f, clients/rust %.0f requests/s\n' "$round" "$a" "$b"
        echo "$a $b" >>"$folder/rounds"
    done
    "$programs/client" pairs requests/s <"$folder/rounds"
}

if [ $# -gt 1 ]; then
    callers=$2 connections=${3:-1} rows=${4:-1}
    compare "$callers" "$connections" "$connections" "$((callers / connections))" "$rows"
else
    compare 64 1 1 64 1
    compare 64 2 2 32 1
    compare 64 1 64 1 1
    compare 1 1 1 1 1
fi
