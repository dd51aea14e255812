#!/usr/bin/env bash
# Counts what the request path executes: instructions of an I/O thread and of the batch processor's role for a request, by callgrind, of
# the bench `instructions`, which is all of it but io_uring; with nothing switched on, with what --admin switches on (stage times), and
# with everything; and what it takes to make the text of a scrape, which is another thread's work. Between many turns and few the
# difference is taken, so that what is done once counts for nothing. Instructions are repeatable, so it is run once, and what else runs
# does not matter. Puts a table into PERFORMANCE.md (or another file); takes about a minute, and the build before it.
# Usage: scripts/instructions.sh [FILE]
set -euo pipefail
cd "$(dirname "$0")/.."

file=$(realpath -e "${1:-PERFORMANCE.md}")
grep -q '<!-- instructions -->' "$file" || { echo "instructions: $file has no <!-- instructions --> and <!-- /instructions --> to write between" >&2; exit 2; }
command -v valgrind >/dev/null || { echo "instructions: skipped: there is no valgrind"; exit 0; }
cargo build --release --package bench-client --locked
client=${CARGO_TARGET_DIR:-target}/release/client
bench=$(cargo bench --locked --bench instructions --no-run 2>&1 | tee /dev/stderr | sed -n 's/.*Executable.*(\(.*\))$/\1/p')
[ -x "$bench" ] || { echo "instructions: the bench was not built" >&2; exit 1; }

collected() { valgrind --tool=callgrind --callgrind-out-file=/dev/null "$bench" "$@" 2>&1 | sed -n 's/^.*Collected : \([0-9]*\)$/\1/p'; }

# What one more takes, of so many that come together: a request, or a scrape.
each() {
    local together=$1 few=$2 many=$3
    shift 3
    awk "BEGIN { printf \"%.0f\", ($(collected "$together" "$many" "$@") - $(collected "$together" "$few" "$@")) / ($together * ($many - $few)) }"
}

ratio() { awk "BEGIN { printf \"%.3f\", $1 / $2 }"; }

{
    echo '| flags | a request that comes alone | to the first line | one of 16 that come together | to the first line | one of 64 | to the first line |'
    echo '|---|---|---|---|---|---|---|'
    first=()
    while IFS='|' read -r name words; do
        cells=''
        for together in 1 16 64; do
            # shellcheck disable=SC2086
            count=$(each "$together" 2000 10000 $words)
            [ -n "${first[together]:-}" ] || first[together]=$count
            cells+=" $count | $(ratio "$count" "${first[together]}") |"
        done
        echo "| $name |$cells"
    done <<'ROWS'
none|
`--admin`|admin
`--max-queue-delay`|delay
`--max-connection-age`|age
all three|admin delay age
ROWS
} | tee /dev/stderr | "$client" table "$file" instructions --note \
    "by callgrind ($(valgrind --version)), which knows no AVX-512 and reads the clock by a system call; sum model, one row a request, one connection; without io_uring and the kernel. Making the text of a scrape takes $(each 1 10 110 scrape) instructions, of the admin's thread, and none of the request path. Again: \`scripts/instructions.sh\`"
