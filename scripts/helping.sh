#!/usr/bin/env bash
# Says what it brings that an I/O thread scores by itself what it has received (--help-batch auto) instead of waking the batch
# processor (--help-batch off), and how that stands beside servers that do nothing else: by `scripts/compare_builds.sh`, so both
# are started anew in each round and put under the same closed loop by the same client. Puts a table into PERFORMANCE.md
# (or another file). Nothing else should run meanwhile; 9 rounds take about 10 minutes.
# Usage: scripts/helping.sh [FILE [ROUNDS]]
set -euo pipefail
cd "$(dirname "$0")/.."

file=$(realpath -e "${1:-PERFORMANCE.md}") rounds=${2:-9}
cargo build --release --workspace --locked
release=$(realpath "${CARGO_TARGET_DIR:-target}/release")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# A server as compare_builds.sh starts it: a program that takes `--port 0`.
server() {
    local path=$folder/$1
    # The address is looked for in what goes to standard error.
    printf '#!/bin/sh\nexec %s "$@" >&2\n' "$2" >"$path"
    chmod +x "$path"
    echo "$path"
}

# One row: what is compared, and a load.
row() {
    local name=$1 first=$2 second=$3
    shift 3
    scripts/compare_builds.sh "$first" "$second" "$rounds" "$@" >"$folder/out" || { cat "$folder/out" >&2; exit 1; }
    local ratio='s/.*median \([0-9.]*\), \([0-9.]*\) to \([0-9.]*\) (.*/\1 (\2..\3)/p'
    printf '| %s | %s | %s |\n' "$name" "$(sed -n "/^requests/$ratio" "$folder/out")" \
        "$(sed -n "/^server CPU/$ratio" "$folder/out")" | tee -a "$folder/table" >&2
}

# Compares at several shapes: connections, window, and vectors where they are not one.
rows() {
    local name=$1 first=$2 second=$3 shape connections window vectors
    for shape in $4; do
        IFS=: read -r connections window vectors <<<"$shape"
        row "$name, $connections × $window${vectors:+ of $vectors vectors}" "$first" "$second" \
            --connections "$connections" --window "$window" --vectors "${vectors:-1}"
    done
}

printf '| what is compared, second to first; connections × window | requests/s | server CPU a request |\n|---|---|---|\n' >"$folder/table"
for flags in '' '--io-threads 2' '--io-threads 4 --pin 0-4'; do
    off=$(server off "$release/disrust --help-batch off $flags")
    auto=$(server auto "$release/disrust --help-batch auto $flags")
    name="\`disrust${flags:+ $flags}\`"
    if [ -z "$flags" ]; then
        epoll=$(server epoll "$release/client floor --kind epoll --pin 0")
        rows "$name, not helping to helping" "$off" "$auto" '1:1 16:16 64:64 1000:1'
        rows "inline epoll on one CPU to $name" "$epoll" "$auto" '1:1 16:16 64:64 1000:1'
    else
        tokio=$(server tokio "$release/client floor --kind tokio --threads 2")
        rows "$name, not helping to helping" "$off" "$auto" '1:1 16:16 64:16'
        rows "tokio with two threads to $name" "$tokio" "$auto" '16:16 64:16 64:64 16:16:64'
    fi
done
"$release/client" table "$file" helping <"$folder/table" --note \
    "ratios, the median of $rounds interleaved rounds and an interval that covers it with at least 95 %; the client has the last CPU. Again: \`scripts/helping.sh\`"
