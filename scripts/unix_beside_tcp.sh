#!/usr/bin/env bash
# Says what a Unix socket brings beside TCP over loopback: one server listens at both, and the same client puts the same closed loop over
# one and over the other, one after the other in each round, the first one first in every other round; each round has a server of its
# own. Puts a table into PERFORMANCE.md (or another file): of the ratios of the Unix socket to TCP the median, and an interval that
# covers it with at least 95 % (`client pairs`). Nothing else should run meanwhile; 15 rounds take about three minutes.
# Usage: scripts/unix_beside_tcp.sh [FILE [ROUNDS]]
set -euo pipefail
cd "$(dirname "$0")/.."

file=$(realpath -e "${1:-PERFORMANCE.md}") rounds=${2:-15}
grep -q '<!-- unix -->' "$file" || { echo "unix_beside_tcp: $file has no <!-- unix --> and <!-- /unix --> to write between" >&2; exit 2; }
cargo build --release --workspace --locked
release=${CARGO_TARGET_DIR:-target}/release
last_cpu=$(($(nproc) - 1))
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT

# Prints requests/s, the median service time and the server's CPU time a request, both in nanoseconds.
measure() {
    "$release/client" "$1" run --closed --connections "$2" --window "$3" --duration 1s --warmup 300ms --pin "$last_cpu" \
        --server-pid "$server" --csv "$folder/run.csv" >"$folder/out" || { cat "$folder/out" >&2; exit 1; }
    awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
             NR == 2 { print $at["achieved_per_second"], $at["service_ns_p50"], $at["server_cpu_ns_per_request"] }' "$folder/run.csv"
}

shapes='1:1 16:16 64:64'
for round in $(seq "$rounds"); do
    : >"$folder/log"
    "$release/disrust" --port 0 --unix "$folder/socket" 2>"$folder/log" &
    server=$! port=
    for _ in $(seq 200); do
        port=$(sed -n 's/^listening on .*:\([0-9]*\).*$/\1/p' "$folder/log")
        [ -n "$port" ] && break
        sleep 0.05
    done
    [ -n "$port" ] || { cat "$folder/log" >&2; echo "unix_beside_tcp: the server did not start" >&2; exit 1; }
    for shape in $shapes; do
        IFS=: read -r connections window <<<"$shape"
        if ((round % 2)); then
            tcp=$(measure "$port" "$connections" "$window")
            unix=$(measure "unix:$folder/socket" "$connections" "$window")
        else
            unix=$(measure "unix:$folder/socket" "$connections" "$window")
            tcp=$(measure "$port" "$connections" "$window")
        fi
        echo "$tcp $unix" | tee -a "$folder/$shape" | sed "s/^/$shape /" >&2
    done
    kill -TERM "$server"
    wait "$server" || { cat "$folder/log" >&2; exit 1; }
    server=
done

# Of one shape and figure (a column), as it is printed over TCP: its median there, and the ratio.
told() {
    local middle
    middle=$(awk -v column="$2" -v scale="$3" '{ print $column / scale }' "$folder/$1" | sort -g |
        awk -v form="$4" '{ all[NR] = $1 } END { printf form, (all[int((NR + 1) / 2)] + all[int(NR / 2) + 1]) / 2 }')
    awk -v column="$2" '{ print $column, $(column + 3) }' "$folder/$1" | "$release/client" pairs figure |
        sed -n "s/.*median \([0-9.]*\), \([0-9.]*\) to \([0-9.]*\) (.*/$middle | \1 (\2..\3)/p"
}
{
    echo '| connections × window | requests/s over TCP | Unix to TCP | service p50 over TCP, µs | Unix to TCP | server CPU a request over TCP, µs | Unix to TCP |'
    echo '|---|---|---|---|---|---|---|'
    for shape in $shapes; do
        echo "| ${shape/:/ × } | $(told "$shape" 1 1 %.0f) | $(told "$shape" 2 1000 %.1f) | $(told "$shape" 3 1000 %.3f) |"
    done
} | tee "$folder/table" >&2
"$release/client" table "$file" unix <"$folder/table" --note \
    "ratios: the median of $rounds interleaved rounds and an interval that covers it with at least 95 %; closed loop, one vector a request, the client has the last CPU. Again: \`scripts/unix_beside_tcp.sh\`"
