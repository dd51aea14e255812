#!/usr/bin/env bash
# Runs the benches of the buffer pool's sizes and of the hand-off between threads, and puts their figures into the marked
# tables of PERFORMANCE.md (or of another file). Takes a few minutes; nothing else should run meanwhile.
# Usage: scripts/benches.sh [FILE]
set -euo pipefail
cd "$(dirname "$0")/.."

file=${1:-PERFORMANCE.md}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
machine="$(uname -r), $(sed -n 's/^model name.*: //p;T;q' /proc/cpuinfo), $(nproc) CPUs, $(date +%F)"

# The figures that criterion prints for one bench, as a table: the id may stand on the line before its time.
run() {
    cargo bench --locked --bench "$@" 2>&1 | tee "$folder/printed" >&2
    echo "| what | lower bound | estimate | upper bound |"
    echo "|---|---|---|---|"
    awk '/time: +\[/ && !/%/ {
             id = $1 == "time:" ? last : $1
             match($0, /\[.*\]/)
             split(substr($0, RSTART + 1, RLENGTH - 2), value, " ")
             printf "| %s | %s %s | %s %s | %s %s |\n", id, value[1], value[2], value[3], value[4], value[5], value[6]
         }
         NF { last = $1 }' "$folder/printed"
    echo
    echo "Linux $machine; 95 % confidence. Again: \`cargo bench --bench $*\`."
}

# Puts the file $2 between the marks of $1.
put() {
    grep -q "^<!-- bench:$1 -->$" "$file" || { echo "benches: $file has no marks for $1" >&2; exit 1; }
    awk -v mark="$1" -v table="$2" '
        $0 == "<!-- /bench:" mark " -->" { skip = 0 }
        !skip { print }
        $0 == "<!-- bench:" mark " -->" { while ((getline line < table) > 0) print line; skip = 1 }' "$file" >"$folder/file"
    cat "$folder/file" >"$file"
}

run buffer_pool_bench -- --pool-sizes >"$folder/pool_sizes"
put pool_sizes "$folder/pool_sizes"
run buffer_pool_bench -- --alloc-sizes >"$folder/alloc_sizes"
put alloc_sizes "$folder/alloc_sizes"
run hand_off >"$folder/hand_off"
put hand_off "$folder/hand_off"
