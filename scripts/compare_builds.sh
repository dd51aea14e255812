#!/usr/bin/env bash
# Says what one build of the server costs beside another: both are started anew in every round, the first one first in
# every other round, and put under the same closed loop by the same client for a second. Prints each round; then, of the
# ratios of the second to the first, the median, an interval that covers it with at least 95 % (and how much that is), and
# the verdict: same (the interval is inside 2 % around 1), faster, slower (server CPU: cheaper, dearer) or not decided.
# `client pairs` computes that. Fewer than six rounds decide nothing.
# Usage: scripts/compare_builds.sh FIRST SECOND [ROUNDS [the load, as `client run --closed` takes it]]
# The load is `--connections 64 --window 64` if none is given.
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -ge 2 ] || { sed -n '2,8s/^# //p' "$0" >&2; exit 2; }
first=$1 second=$2 rounds=${3:-10}
shift $(($# < 3 ? $# : 3))
[ $# -gt 0 ] || set -- --connections 64 --window 64
cargo build --release --package bench-client --locked
client=${CARGO_TARGET_DIR:-target}/release/client
last_cpu=$(($(nproc) - 1))
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Measures one build once and prints requests/s and server CPU nanoseconds a request. Runs in a shell of its own, which
# ends the server however it ends.
measure() {
    : >"$folder/log"
    "$1" --port 0 2>"$folder/log" >"$folder/stdout" &
    local server=$! port=
    # shellcheck disable=SC2064
    trap "kill $server 2>/dev/null || true" EXIT
    for _ in $(seq 200); do
        port=$(sed -n 's/^listening on .*:\([0-9]*\).*$/\1/p' "$folder/log")
        [ -n "$port" ] && break
        sleep 0.05
    done
    [ -n "$port" ] || { cat "$folder/log" >&2; echo "the server $1 did not start" >&2; exit 1; }
    "$client" "$port" run --closed --duration 1s --warmup 300ms --pin "$last_cpu" \
        --server-pid "$server" --csv "$folder/run.csv" "${@:2}" >"$folder/out" || { cat "$folder/out" >&2; exit 1; }
    kill -TERM "$server"
    wait "$server" || true
    trap - EXIT
    awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
             NR == 2 { print $at["achieved_per_second"], $at["server_cpu_ns_per_request"] }' "$folder/run.csv"
}

for round in $(seq "$rounds"); do
    if ((round % 2)); then
        a=$(measure "$first" "$@")
        b=$(measure "$second" "$@")
    else
        b=$(measure "$second" "$@")
        a=$(measure "$first" "$@")
    fi
    echo "$a $b" | awk -v round="$round" '{
        printf "round %d: %.0f and %.0f requests/s, %.1f and %.1f ns of server CPU a request\n", round, $1, $3, $2, $4
    }'
    echo "$a $b" >>"$folder/rounds"
done

awk '{ print $1, $3 }' "$folder/rounds" | "$client" pairs requests/s
awk '{ print $2, $4 }' "$folder/rounds" | "$client" pairs 'server CPU a request' --less-is-better
