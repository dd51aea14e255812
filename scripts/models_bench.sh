#!/usr/bin/env bash
# Measures how fast models are scored, beside what people use today, and puts two tables into PERFORMANCE.md (or another file), and
# a picture of the second into docs/plots:
# - in process, one thread, fresh rows, interleaved: `disrust verify` on each CPU path, onnxruntime, LightGBM, lleaves,
#   Treelite compiled by tl2cgen;
# - over the network, the same model and one row a request: disrust under `client run`, FastAPI with onnxruntime and MLServer with
#   LightGBM under wrk, one after the other in each round.
# Installs the Python packages in a folder of its own, target/models_bench; trains the models there. What cannot be installed is
# skipped with the reason. Takes about 15 minutes; nothing else should run meanwhile.
# Usage: scripts/models_bench.sh [FILE [ROUNDS [in_process|network]]]
set -euo pipefail
cd "$(dirname "$0")/.."

file=${1:-PERFORMANCE.md} rounds=${2:-5} half=${3:-both}
here=$PWD/scripts/models_bench
folder=${CARGO_TARGET_DIR:-$PWD/target}/models_bench
models=$folder/models
cargo build --release --workspace --locked
release=${CARGO_TARGET_DIR:-$PWD/target}/release
mkdir -p "$folder"

if ! command -v python3 >/dev/null; then
    echo "models_bench: skipped: there is no python3"
    exit 0
fi
[ -x "$folder/venv/bin/python" ] || python3 -m venv "$folder/venv"
python=$folder/venv/bin/python
# One by one: what one of them does not install on does not keep the others out.
for packages in "numpy onnxruntime lightgbm onnxmltools scikit-learn" "lleaves llvmlite<0.44" "treelite tl2cgen" "fastapi uvicorn" \
    "mlserver mlserver-lightgbm"; do
    # shellcheck disable=SC2086
    "$python" -m pip install --quiet $packages || echo "models_bench: skipped: cannot install $packages"
done
if ! command -v wrk >/dev/null; then
    { [ "$(id -u)" -eq 0 ] && apt-get install --yes --quiet wrk >/dev/null; } || echo "models_bench: there is no wrk"
fi
"$python" "$here/train.py" "$models"

versions() { "$python" -m pip list --format freeze | grep -E "^($1)==" | tr '\n' ' ' | sed 's/==/ /g; s/ $//'; }

if [ "$half" != network ]; then
    "$python" "$here/in_process.py" "$release/disrust" "$models" --rounds "$rounds" --json "$folder/in_process.json" |
        grep '^|' | tee "$folder/in_process.md" >&2
    "$release/client" table "$file" models:in_process <"$folder/in_process.md" --note \
        "one thread, ns a row, median (smallest..largest) of $rounds interleaved rounds, fresh rows; × is against onnxruntime in the same rounds; $(versions 'onnxruntime|lightgbm|lleaves|treelite|tl2cgen'). Again: \`scripts/models_bench.sh\`"
fi
[ "$half" != in_process ] || exit 0

# Over the network. Each server has the first CPU, the load the last one; each is ended by its own process id.
model=100_trees_63_leaves
first_cpu=0 last_cpu=$(($(nproc) - 1))
log=$folder/server.log
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true' EXIT

ended() {
    kill -TERM "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
}

# Waits until something answers at the URL.
answers() {
    for _ in $(seq 300); do
        "$python" -c "import urllib.request, sys; urllib.request.urlopen(sys.argv[1])" "$1" 2>/dev/null && return
        kill -0 "$server" || break
        sleep 0.2
    done
    tail -5 "$log" >&2
    return 1
}

free_port() { "$python" -c "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"; }

# Prints: requests/s, p50, p99 and p99.9 in µs, failures.
of_disrust() {
    taskset -c "$first_cpu" "$release/disrust" --port 0 --model "$models/$model.txt" 2>"$log" &
    server=$!
    local port=
    for _ in $(seq 200); do
        port=$(sed -n 's/^listening on .*:\([0-9]*\).*$/\1/p' "$log")
        [ -n "$port" ] && break
        sleep 0.05
    done
    "$release/client" "$port" run --closed --window 1 --connections "$1" --duration 4s --warmup 1s --pin "$last_cpu" \
        --expect "$folder/inputs.csv" "$folder/expected.csv" --csv "$folder/run.csv" >"$folder/run.out" ||
        { cat "$folder/run.out" >&2; exit 1; }
    ended
    awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
             NR == 2 { print $at["achieved_per_second"], $at["service_ns_p50"] / 1e3, $at["service_ns_p99"] / 1e3, $at["service_ns_p99_9"] / 1e3, 0 }' \
        "$folder/run.csv"
}

# As of_disrust, with wrk: kind, connections, port.
of_wrk() {
    KIND=$1 FEATURES=16 taskset -c "$last_cpu" wrk --threads 1 --connections "$2" --duration 4s --latency \
        --script "$here/post.lua" "http://127.0.0.1:$3" | sed -n 's/^RESULT //p'
}

of_fastapi() {
    local port
    port=$(free_port)
    MODEL=$models/$model.onnx taskset -c "$first_cpu" "$python" -m uvicorn --app-dir "$here" fastapi_app:app \
        --host 127.0.0.1 --port "$port" --no-access-log >"$log" 2>&1 &
    server=$!
    answers "http://127.0.0.1:$port/docs" && of_wrk fastapi "$1" "$port"
    ended
}

of_mlserver() {
    local port place=$folder/mlserver
    port=$(free_port)
    mkdir -p "$place"
    cat >"$place/model-settings.json" <<JSON
{"name": "model", "implementation": "mlserver_lightgbm.LightGBMModel", "parameters": {"uri": "$models/$model.txt"}}
JSON
    cat >"$place/settings.json" <<JSON
{"host": "127.0.0.1", "http_port": $port, "grpc_port": $(free_port), "metrics_port": $(free_port), "parallel_workers": 0, "debug": false}
JSON
    taskset -c "$first_cpu" "$folder/venv/bin/mlserver" start "$place" >"$log" 2>&1 &
    server=$!
    answers "http://127.0.0.1:$port/v2/health/ready" && of_wrk mlserver "$1" "$port"
    ended
}

"$python" "$here/expected.py" "$models/$model.txt" "$folder/inputs.csv" "$folder/expected.csv"
: >"$folder/network"
for round in $(seq "$rounds"); do
    for connections in 1 16 64; do
        for kind in disrust fastapi mlserver; do
            if [ "$kind" != disrust ] && ! command -v wrk >/dev/null; then
                continue
            fi
            if result=$("of_$kind" "$connections") && [ -n "$result" ]; then
                echo "$kind $connections $result" | tee -a "$folder/network" >&2
            else
                echo "models_bench: skipped: $kind, $connections connections, round $round" >&2
            fi
        done
    done
done
"$python" "$here/network_table.py" "$folder/network" | "$release/client" table "$file" models:network --note \
    "one row of 16 features a request, 100 trees of 63 leaves, closed loop with one request under way on each connection, server and load on a CPU each; median (smallest..largest) of $rounds interleaved rounds; $(versions 'onnxruntime|lightgbm|fastapi|uvicorn|mlserver'). Again: \`scripts/models_bench.sh\`"
# The picture goes beside the tables of this project; other files get none.
[ "$file" != PERFORMANCE.md ] || "$python" "$here/picture.py" "$folder/network" \
    "closed loop, one request under way on each connection, $(uname -sr), $(nproc) CPUs, $(date +%F), $rounds rounds" >docs/plots/models.svg
