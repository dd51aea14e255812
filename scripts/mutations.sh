#!/usr/bin/env bash
# Does the checking bite? Plants the defects of tests/mutations/list one after the other in a copy of the tree, and sees
# who catches each: the simulation (in how many of its seeds), the conformance scripts, the models of memory orderings,
# or another test. Prints a table in Markdown, and with --json writes the same to a file.
# A defect that nobody catches, or that the source has outgrown, makes the exit status 1.
# Usage: scripts/mutations.sh [--seeds N] [--only WORDS] [--json FILE]
set -euo pipefail
cd "$(dirname "$0")/.."

seeds=2000 only='' json=''
while [ $# -gt 0 ]; do
    case $1 in
    --seeds) seeds=${2:?a number} ;;
    --only) only=${2:?words of a name} ;;
    --json) json=$(realpath "${2:?a file}") ;;
    *) sed -n 's/^# \{0,1\}//p' "$0" | tail -n 1; exit 2 ;;
    esac
    shift 2
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$work"
export CARGO_TARGET_DIR=${MUTATIONS_TARGET_DIR:-$work/target}
# Many builds of little use each: quick ones.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_INCREMENTAL=1
cd "$work"
cp -r src pristine-src && mkdir pristine && mv pristine-src pristine/src
# Bytes, not characters: faster, and the same here.
export LC_ALL=C

die() { echo "mutations: $*" >&2; exit 1; }
log=$work/log

# A defect can loop for ever or eat all memory: both end.
limited() { (ulimit -v 16000000; exec timeout --kill-after=10 "$@") >"$log" 2>&1; }

# Replaces the one place of $old in $path by $new.
plant() {
    local before rest
    before=$(<"$path")
    rest=${before#*"$old"}
    [ "$rest" != "$before" ] || die "'$name' is stale: $path has no longer what it replaces"
    [ "${rest#*"$old"}" = "$rest" ] || die "'$name' is stale: $path has what it replaces more than once"
    printf '%s%s%s\n' "${before:0:${#before}-${#rest}-${#old}}" "$new" "$rest" >"$path"
}

# Tells who catches what is planted: sets `who` and `count`.
judge() {
    local status=0
    who='' count=''
    cargo test --release --locked --quiet --test simulation --no-run >"$log" 2>&1 ||
        { tail -n 40 "$log"; die "'$name' does not compile"; }
    SIMULATION_SEEDS=$seeds limited 120 cargo test --release --locked --quiet --test simulation -- \
        --ignored --exact --nocapture long_run || status=$?
    count=$(sed -n "s/^$seeds of $seeds seeds, \([0-9]*\) failed.*/\1/p" "$log")
    if [ "$status" -eq 124 ]; then
        who=simulation count='hangs'
    elif [ "$status" -ne 0 ]; then
        who=simulation count=${count:-ends the process}
    elif ! limited 120 cargo test --release --locked --quiet --test simulation conformance; then
        who=$(blame conformance) count=''
    elif ! limited 300 cargo test --release --locked --quiet --test models; then
        who=$(blame models) count=''
    elif ! limited 600 cargo test --release --locked --quiet --package disrust --lib --bins --tests; then
        who=$(blame tests) count=''
    else
        count=''
    fi
}

# The first test that failed, of those named so.
blame() {
    local test
    test=$(sed -n 's/^    \([a-z_:0-9]*\)$/\1/p' "$log" | head -n 1)
    printf '%s: %s' "$1" "${test:-the run did not end}"
}

name='the source as it is'
judge
[ -z "$who" ] || { tail -n 40 "$log"; die "the source as it is fails: $who"; }

names=() catchers=() counts=()
finish_hunk() {
    [ -z "${old+set}" ] || plant
    unset old new
}
finish_mutation() {
    finish_hunk
    [ -n "$name" ] || return 0
    judge
    names+=("$name") catchers+=("$who") counts+=("$count")
    printf '%-70s %s %s\n' "$name" "${who:-NOBODY}" "${count:+($count of $seeds)}" >&2
    for path in "${changed[@]}"; do cp "pristine/$path" "$path"; done
}

name='' path='' changed=() in_new=''
while IFS= read -r line <&3 || [ -n "$line" ]; do
    case $line in
    '== '*)
        finish_mutation
        name=${line#== } changed=()
        case $name in *"$only"*) ;; *) name='' ;; esac
        ;;
    'file '*)
        finish_hunk
        path=${line#file }
        changed+=("$path")
        ;;
    -*)
        [ -n "$name" ] || continue
        [ -z "$in_new" ] || finish_hunk
        in_new=''
        old=${old+$old$'\n'}${line#-}
        new=''
        ;;
    +*)
        [ -n "$name" ] || continue
        new=${in_new:+$new$'\n'}${line#+}
        in_new=yes
        continue
        ;;
    *) ;;
    esac
    in_new=''
done 3<tests/mutations/list
finish_mutation

missed=0
echo "| defect | caught by | in seeds of $seeds |"
echo "|---|---|---|"
for index in "${!names[@]}"; do
    [ -n "${catchers[index]}" ] || missed=$((missed + 1))
    echo "| ${names[index]} | ${catchers[index]:-**nobody**} | ${counts[index]:-–} |"
done
echo
echo "${#names[@]} defects, $missed that nobody catches."

if [ -n "$json" ]; then
    {
        echo '['
        for index in "${!names[@]}"; do
            [ "$index" -eq 0 ] || echo ','
            printf '  {"defect": "%s", "caught_by": "%s", "seeds_failed": "%s", "seeds": %d}' \
                "${names[index]}" "${catchers[index]}" "${counts[index]}" "$seeds"
        done
        printf '\n]\n'
    } >"$json"
fi
[ "$missed" -eq 0 ]
