#!/usr/bin/env bash
# Measures what --max-queue-delay is worth in an overload: an open loop at 0.9, 1, 2 and 10 times what the server can answer, with the
# delay and without it, one after the other in each round. The model is a forest that this script makes in a folder of its own,
# whose rows take about 100 µs each however many come together, so that ten times the capacity is what one thread of the client
# still sends on time; every score is checked. Puts a table into PERFORMANCE.md (or another file), and says whether it is as
# promised: none shed at 0.9 times, at least 90 % of the capacity answered at more, p99 of what is answered within the delay and one step.
# Nothing else should run meanwhile; 5 rounds take about three minutes.
# Usage: scripts/overload.sh [FILE [ROUNDS [SECONDS of each run [DELAY in ms]]]]
set -euo pipefail
cd "$(dirname "$0")/.."

file=$(realpath -e "${1:-PERFORMANCE.md}") rounds=${2:-5} seconds=${3:-2} delay_ms=${4:-20}
grep -q '<!-- overload -->' "$file" || { echo "overload: $file has no <!-- overload --> and <!-- /overload --> to write between" >&2; exit 2; }
cargo build --release --workspace --locked
release=${CARGO_TARGET_DIR:-target}/release
last_cpu=$(($(nproc) - 1))
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT

# Trees that are chains: a row between 0 and 1 goes through nearly all splits of each one, so that every row takes as long, alone or
# among others, and the model is small enough for a cache.
awk -v trees=100 -v leaves=512 'BEGIN {
    srand(1)
    print "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx=15\nobjective=regression"
    printf "feature_names="; for (f = 0; f < 16; f++) printf "%sf%d", f ? " " : "", f
    printf "\nfeature_infos="; for (f = 0; f < 16; f++) printf "%s[0:1]", f ? " " : ""
    print "\n"
    for (t = 0; t < trees; t++) {
        feature = threshold = type = left = right = value = rand()
        for (n = 0; n < leaves - 1; n++) {
            separator = n ? " " : ""
            feature = (n ? feature : "") separator int(16 * rand())
            threshold = (n ? threshold : "") separator (n < leaves - 9 ? -1 - rand() : rand())
            type = (n ? type : "") separator "2"
            left = (n ? left : "") separator (-n - 1)
            right = (n ? right : "") separator (n < leaves - 2 ? n + 1 : -leaves)
            value = value " " rand()
        }
        printf "Tree=%d\nnum_leaves=%d\nnum_cat=0\nsplit_feature=%s\nthreshold=%s\ndecision_type=%s\n", t, leaves, feature, threshold, type
        printf "left_child=%s\nright_child=%s\nleaf_value=%s\nis_linear=0\nshrinkage=1\n\n\n", left, right, value
    }
    print "end of trees"
}' >"$folder/model.txt"
awk 'BEGIN { srand(2); for (i = 0; i < 512; i++) { for (f = 0; f < 16; f++) printf "%s%.6f", f ? "," : "", rand(); print "" } }' >"$folder/inputs.csv"
"$release/disrust" verify --model "$folder/model.txt" --inputs "$folder/inputs.csv" --scores "$folder/expected.csv" --rows 1,64 >&2

# Runs the client once against a server of its own, with the flags before `--` for the server and those behind it for the client.
# Prints a line of the fields that are asked for with --fields.
measure() {
    local fields=$1 flags=() port='' status=0
    shift
    while [ "$1" != -- ]; do flags+=("$1"); shift; done
    shift
    "$release/disrust" --port 0 --model "$folder/model.txt" "${flags[@]}" 2>"$folder/log" &
    server=$!
    for _ in $(seq 200); do
        port=$(sed -n 's/^listening on .*:\([0-9]*\).*$/\1/p' "$folder/log")
        [ -n "$port" ] && break
        sleep 0.05
    done
    [ -n "$port" ] || { cat "$folder/log" >&2; echo "overload: the server did not start" >&2; exit 1; }
    rm -f "$folder/run.csv"
    # What a server without a bound has not answered five seconds after the end is lost, and waits that long in the table.
    "$release/client" "$port" run --connections 16 --duration "${seconds}s" --warmup 500ms --timeout 5s --pin "$last_cpu" \
        --expect "$folder/inputs.csv" "$folder/expected.csv" --accept-errors shed --csv "$folder/run.csv" "$@" \
        >"$folder/out" 2>&1 || status=$?
    # It serves nobody any more, and need not drain what nobody waits for.
    kill -KILL "$server"
    wait "$server" 2>/dev/null || true
    server=
    [ -f "$folder/run.csv" ] || { cat "$folder/out" >&2; echo "overload: status $status, and no figures" >&2; exit 1; }
    awk -F, -v fields="$fields" 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
        NR == 2 { n = split(fields, names, " "); for (i = 1; i <= n; i++) printf "%s%s", $at[names[i]], i < n ? " " : "\n" }' "$folder/run.csv"
}

# The middle one of three.
capacity=$(for _ in 1 2 3; do measure achieved_per_second -- --closed --window 1; done | sort -g | sed -n 2p)
# With the delay first in every other round.
for round in $(seq "$rounds"); do
    for load in 0.9 1 2 10; do
        rate=$(awk "BEGIN { printf \"%.0f\", $capacity * $load }")
        bounds=(on off)
        ((round % 2)) || bounds=(off on)
        for bound in "${bounds[@]}"; do
            flags=()
            [ "$bound" = off ] || flags=(--max-queue-delay "${delay_ms}ms")
            figures=$(measure "offered_per_second achieved_per_second shed lost valid response_ns_p50 response_ns_p99 response_ns_p99_9" \
                "${flags[@]}" -- --rate "$rate")
            echo "$load $bound $capacity $figures" | tee -a "$folder/figures" >&2
        done
    done
done

# Of each load and bound: medians, with the smallest and the largest where that tells something.
awk -v seconds="$seconds" -v delay_ms="$delay_ms" '
    function sort(values, n,    i, j, v) {
        for (i = 2; i <= n; i++) { v = values[i]; for (j = i - 1; j > 0 && values[j] > v; j--) values[j + 1] = values[j]; values[j + 1] = v }
    }
    # The median of a figure, and its range if that is asked for.
    function told(key, name, form, range,    values, n, i, middle) {
        n = count[key]
        for (i = 1; i <= n; i++) values[i] = figures[key, name, i]
        sort(values, n)
        middle = (values[int((n + 1) / 2)] + values[int(n / 2) + 1]) / 2
        return sprintf(form, middle) (range ? sprintf(" (" form ".." form ")", values[1], values[n]) : "")
    }
    {
        key = $1 " " $2
        if (!(key in count)) keys[++n] = key
        i = ++count[key]
        figures[key, "capacity", i] = $3
        figures[key, "offered", i] = $4
        figures[key, "answered", i] = $5
        figures[key, "share", i] = 100 * $5 / $3
        figures[key, "shed", i] = 100 * $6 / ($4 * seconds)
        shed[key] += $6
        lost[key] += $7
        valid[key] += $8 == "true"
        if ($9 != "") { figures[key, "p50", i] = $9 / 1e6; figures[key, "p99", i] = $10 / 1e6; figures[key, "p99.9", i] = $11 / 1e6 }
    }
    END {
        print "| offered, × the capacity | longest wait | offered/s | answered/s | of the capacity, % | shed, % | p50, ms | p99, ms | p99.9, ms |"
        print "|---|---|---|---|---|---|---|---|---|"
        for (k = 1; k <= n; k++) {
            key = keys[k]
            split(key, part, " ")
            printf "| %s%s | %s | %s | %s | %s | %s | %s | %s | %s |\n", part[1], valid[key] < count[key] ? " ✗" : "",
                part[2] == "on" ? delay_ms " ms" : "–", told(key, "offered", "%.0f"), told(key, "answered", "%.0f"),
                told(key, "share", "%.1f", 1), told(key, "shed", "%.2f"), told(key, "p50", "%.2f"), told(key, "p99", "%.2f", 1),
                told(key, "p99.9", "%.2f")
            if (part[2] != "on") continue
            split(told(key, "share", "%.1f") " " told(key, "p99", "%.2f"), middle, " ")
            least = part[1] < 1 ? 90 * part[1] : 90
            kept = (part[1] >= 1 || !shed[key]) && middle[1] >= least && middle[2] <= 1.5 * delay_ms && !lost[key]
            printf "%s x: %d shed, %d lost, %s %% of the capacity (at least %.0f), p99 %s ms (at most %.0f): %s\n", part[1], shed[key],
                lost[key], middle[1], least, middle[2], 1.5 * delay_ms, kept ? "as promised" : "NOT as promised" >"/dev/stderr"
        }
    }' <(sort -s -k1,1g -k2,2r "$folder/figures") >"$folder/table"
"$release/client" table "$file" overload <"$folder/table" --note \
    "medians of $rounds interleaved rounds of $seconds s (smallest..largest), 16 connections, Poisson arrivals, one row a request of a forest of about 100 µs a row; the capacity is what a closed loop of 16 × 1 had answered right before (the engine takes 89 µs for a row among few and 77 among 64 or more, so an overload may be answered at more than that), $(printf %.0f "$capacity") requests/s (the middle one of three); times are from when a request was due to its answer, of what was answered with a score; what a server without a bound had not answered five seconds after the end counts with the wait until then; ✗: the client was late in a round. A step takes at most half of the longest wait, so the promise is a p99 of $((delay_ms * 3 / 2)) ms. Again: \`scripts/overload.sh\`"
