#!/usr/bin/env bash
# Does the checking bite? Plants the defects of tests/mutations one after the other in a copy of the tree, and sees who
# catches each: the simulation (in how many of its seeds), the conformance scripts, the models of memory orderings, or
# another test. Prints a table in Markdown; --write FILE puts it between the marks of FILE, as in RELIABILITY.md.
# A defect that nobody catches, or that the source has outgrown, makes the exit status 1.
# Usage: scripts/mutations.sh [--seeds N] [--only WORDS | --write FILE]
set -euo pipefail
cd "$(dirname "$0")/.."

seeds=2000 only='' file=''
while [ $# -gt 0 ]; do
    case $1 in
    --seeds) seeds=${2:?a number} ;;
    --only) only=${2:?words of a name} ;;
    --write) file=$(realpath -e "${2:?a file}") ;;
    *) sed -n 's/^# \{0,1\}//p' "$0" | tail -n 1; exit 2 ;;
    esac
    shift 2
done
[ -z "$only" ] || [ -z "$file" ] || { echo "mutations: a part of the defects is no table to write" >&2; exit 2; }
if [ -n "$file" ]; then
    cargo build --release --package bench-client --locked
    client=$(realpath "${CARGO_TARGET_DIR:-target}/release/client")
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/log table=$work/table tree=$work/tree
mkdir "$tree"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$tree"
export CARGO_TARGET_DIR=${MUTATIONS_TARGET_DIR:-$work/target}
# Many builds of little use each: quick ones. The assertions of the release stay as they are.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=64 CARGO_PROFILE_RELEASE_OPT_LEVEL=1
export CARGO_PROFILE_RELEASE_DEBUG=false CARGO_INCREMENTAL=1
cd "$tree"

die() { echo "mutations: $*" >&2; exit 1; }

# A defect can loop for ever or eat all memory: both end.
limited() { (ulimit -v 16000000; exec timeout --kill-after=10 "$@") >"$log" 2>&1; }
tested() { limited "$1" cargo test --release --locked --quiet --package disrust "${@:2}"; }

# The first test that failed, of those named so.
blame() {
    local test
    test=$(sed -n 's/^    \([a-z_:0-9]*\)$/\1/p' "$log" | head -n 1)
    echo "$1: ${test:-the run did not end}"
}

# Tells who catches what is planted: sets `who`, and `count` where the simulation does. What is planted in the models' crate
# is shown to that crate's own tests first, which take seconds; and what is planted in the client for Rust or in the gateway to that crate's alone.
judge() {
    local status=0
    who='' count=''
    if [ "${1:-}" = clients ]; then
        limited 600 cargo test --release --locked --quiet --package disrust-client || who=$(blame client)
        return
    fi
    if [ "${1:-}" = gateway ]; then
        limited 600 cargo test --release --locked --quiet --package disrust-gateway || who=$(blame gateway)
        return
    fi
    if [ "${1:-}" = model ] && ! limited 600 cargo test --release --locked --quiet --package disrust-model; then
        who=$(blame model)
        return
    fi
    cargo test --release --locked --quiet --package disrust --test simulation --no-run >"$log" 2>&1 ||
        { tail -n 40 "$log"; die "'$name' does not compile"; }
    SIMULATION_SEEDS=$seeds tested 120 --test simulation -- --ignored --exact --nocapture long_run || status=$?
    count=$(sed -n "s/^$seeds of $seeds seeds, \([0-9]*\) failed.*/\1/p" "$log")
    if [ "$status" -eq 124 ]; then
        who=simulation count='hangs'
    elif [ "$status" -ne 0 ]; then
        who=simulation count=${count:-ends the process}
    else
        count=''
        if ! tested 120 --lib; then who=$(blame unit)
        elif ! tested 120 --test simulation conformance; then who=$(blame conformance)
        elif ! tested 300 --test models; then who=$(blame models)
        elif ! tested 600 --bins --tests; then who=$(blame tests)
        fi
    fi
}

name='the source as it is'
judge
[ -z "$who" ] || { tail -n 40 "$log"; die "the source as it is fails: $who"; }

defects=0 missed=0
printf '| defect | caught by | in seeds of %s |\n|---|---|---|\n' "$seeds" >"$table"
for patch in tests/mutations/*.patch; do
    name=$(head -n 1 "$patch")
    case $name in *"$only"*) ;; *) continue ;; esac
    case $name in AVX-512:*)
        grep -qw avx512vbmi /proc/cpuinfo || { echo "$name: skipped: this CPU has no AVX-512 with VBMI" >&2; continue; } ;;
    esac
    git apply "$patch" 2>"$log" || die "'$name' is stale: $(head -n 1 "$log")"
    judge "$(sed -n 's:^+++ b/\([a-z]*\)/.*:\1:p' "$patch" | sort -u)"
    git apply --reverse "$patch"
    defects=$((defects + 1))
    [ -n "$who" ] || missed=$((missed + 1))
    printf '| %s | %s | %s |\n' "$name" "${who:-**nobody**}" "${count:-–}" >>"$table"
    printf '%-70s %s %s\n' "$name" "${who:-NOBODY}" "${count:+($count of $seeds)}" >&2
done
summary="$defects defects, $missed that nobody catches"
cat "$table"
printf '\n%s\n' "$summary"
[ -z "$file" ] || "$client" table "$file" mutations --note "$summary. Again: \`scripts/mutations.sh --seeds $seeds\`" <"$table"
[ "$missed" -eq 0 ]
