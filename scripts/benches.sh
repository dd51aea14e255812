#!/usr/bin/env bash
# Runs the benches: the stages of a request, the whole pipeline, the buffer pool's sizes, the hand-off between threads; and puts
# their figures into the marked tables of PERFORMANCE.md (or of another file). A bench for whose table the file has no marks
# is skipped. Takes a few minutes; nothing else should run meanwhile.
# Only criterion's lines are turned into a table here; `client table` puts it between its marks, with machine and day.
# Usage: scripts/benches.sh [FILE]
set -euo pipefail
cd "$(dirname "$0")/.."

file=${1:-PERFORMANCE.md}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cargo build --release --package bench-client --locked
client=${CARGO_TARGET_DIR:-target}/release/client

# Puts the figures that criterion prints for one bench, as a table, between the marks of $1: the id may stand on the line
# before its time.
put() {
    local mark=bench:$1
    shift
    if ! grep -q "^<!-- $mark -->$" "$file"; then
        echo "benches: skipped: $file has no marks for $mark" >&2
        return
    fi
    cargo bench --locked --bench "$@" 2>&1 | tee "$folder/printed" >&2
    {
        echo "| what | lower bound | estimate | upper bound |"
        echo "|---|---|---|---|"
        awk '/time: +\[/ && !/%/ {
                 id = $1 == "time:" ? last : $1
                 match($0, /\[.*\]/)
                 split(substr($0, RSTART + 1, RLENGTH - 2), value, " ")
                 printf "| %s | %s %s | %s %s | %s %s |\n", id, value[1], value[2], value[3], value[4], value[5], value[6]
             }
             NF { last = $1 }' "$folder/printed"
    } | "$client" table "$file" "$mark" --note "95 % confidence. Again: \`cargo bench --bench $*\`"
}

put request_flow request_flow
put response_flow response_flow
put pipeline pipeline
put pool_sizes buffer_pool_bench -- --pool-sizes
put alloc_sizes buffer_pool_bench -- --alloc-sizes
put hand_off hand_off
