#!/usr/bin/env bash
# Measures what the gateway costs, and what it is beside what people put models behind today: one row a request over HTTP, closed loop, from
# wrk with a fixed body, of one LightGBM model: disrust under its own client, the gateway in front of it with JSON and with binary tensors,
# FastAPI with onnxruntime, MLServer with LightGBM. All servers run for the whole time, on the first CPU; the load is on the last one; each
# round asks one after the other. Puts a table into PERFORMANCE.md or another FILE, at its end if it has no marks for it.
# The Python packages and the model are those of models_bench.sh, in its folder, target/models_bench. What cannot be installed is skipped
# with the reason. Takes four minutes once all is installed and built; nothing else should run meanwhile.
# Usage: scripts/gateway_bench.sh [FILE [ROUNDS]]
set -euo pipefail
cd "$(dirname "$0")/.."

file=${1:-PERFORMANCE.md} rounds=${2:-5}
here=$PWD/scripts/gateway_bench models_here=$PWD/scripts/models_bench
target=${CARGO_TARGET_DIR:-$PWD/target}
folder=$target/models_bench
models=$folder/models
release=$target/release
cargo build --release --workspace --locked
mkdir -p "$folder"

command -v python3 >/dev/null || { echo "gateway_bench: skipped: there is no python3"; exit 0; }
if ! command -v wrk >/dev/null; then
    { [ "$(id -u)" -eq 0 ] && apt-get install --yes --quiet wrk >/dev/null; } || true
    command -v wrk >/dev/null || { echo "gateway_bench: skipped: Debian's wrk is not here and cannot be installed"; exit 0; }
fi
[ -x "$folder/venv/bin/python" ] || python3 -m venv "$folder/venv"
python=$folder/venv/bin/python
for packages in "numpy onnxruntime lightgbm onnxmltools scikit-learn" "fastapi uvicorn" "mlserver mlserver-lightgbm"; do
    # shellcheck disable=SC2086
    "$python" -m pip install --quiet $packages || echo "gateway_bench: skipped: cannot install $packages"
done
model=100_trees_63_leaves features=16
[ -f "$models/$model.txt" ] && [ -f "$models/$model.onnx" ] || "$python" "$models_here/train.py" "$models"
versions() { "$python" -m pip list --format freeze | grep -E "^($1)==" | tr '\n' ' ' | sed 's/==/ /g; s/ $//'; }

first_cpu=0 last_cpu=$(($(nproc) - 1))
logs=$(mktemp -d)
servers=()
ended() {
    for server in "${servers[@]}"; do
        kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true
    done
    rm -rf "$logs"
}
trap ended EXIT

# Starts a server on the first CPU, with its words in a file of this name.
start() {
    local name=$1
    shift
    taskset -c "$first_cpu" "$@" >"$logs/$name" 2>&1 &
    servers+=($!)
}

# The port that a program of ours says that it listens on.
port_of() {
    for _ in $(seq 200); do
        sed -n 's/^.*listening on \(http:\/\/\)\?[0-9.]*:\([0-9]*\).*$/\2/p' "$logs/$1" | grep . && return
        sleep 0.05
    done
    cat "$logs/$1" >&2
    return 1
}

# Waits until something answers at the URL.
answers() {
    for _ in $(seq 300); do
        "$python" -c "import urllib.request, sys; urllib.request.urlopen(sys.argv[1])" "$1" 2>/dev/null && return
        sleep 0.2
    done
    return 1
}

free_port() { "$python" -c "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"; }

"$python" "$here/bodies.py" "$logs" "$features"
"$python" "$models_here/expected.py" "$models/$model.txt" "$folder/inputs.csv" "$folder/expected.csv"
start native "$release/disrust" --port 0 --model "$models/$model.txt" --model-name model
native=$(port_of native)
start gateway "$release/disrust-gateway" --listen 127.0.0.1:0 --server "127.0.0.1:$native"
gateway=$(port_of gateway)
answers "http://127.0.0.1:$gateway/v2/health/ready"
kinds="native json binary"
fastapi=$(free_port)
if "$python" -c 'import fastapi, uvicorn, onnxruntime' 2>/dev/null; then
    MODEL=$models/$model.onnx start fastapi "$python" -m uvicorn --app-dir "$models_here" fastapi_app:app \
        --host 127.0.0.1 --port "$fastapi" --no-access-log
    if answers "http://127.0.0.1:$fastapi/docs"; then kinds="$kinds fastapi"; else tail -3 "$logs/fastapi" >&2; fi
fi
mlserver=$(free_port)
if [ -x "$folder/venv/bin/mlserver" ]; then
    mkdir -p "$logs/place"
    cat >"$logs/place/model-settings.json" <<JSON
{"name": "model", "implementation": "mlserver_lightgbm.LightGBMModel", "parameters": {"uri": "$models/$model.txt"}}
JSON
    cat >"$logs/place/settings.json" <<JSON
{"host": "127.0.0.1", "http_port": $mlserver, "grpc_port": $(free_port), "metrics_port": $(free_port), "parallel_workers": 0, "debug": false}
JSON
    start mlserver "$folder/venv/bin/mlserver" start "$logs/place"
    if answers "http://127.0.0.1:$mlserver/v2/health/ready"; then kinds="$kinds mlserver"; else tail -3 "$logs/mlserver" >&2; fi
fi

# Prints: requests/s, p50 and p99 in µs, failures. The first is held to the scores of LightGBM.
of_native() {
    "$release/client" "$native" run --closed --window 1 --connections "$1" --duration 2s --warmup 500ms --pin "$last_cpu" \
        --expect "$folder/inputs.csv" "$folder/expected.csv" --csv "$logs/run.csv" >"$logs/run.out" || { cat "$logs/run.out" >&2; exit 1; }
    awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
             NR == 2 { print $at["achieved_per_second"], $at["service_ns_p50"] / 1e3, $at["service_ns_p99"] / 1e3, 0 }' "$logs/run.csv"
}

# As of_native, with wrk: connections, port, path, body, headers.
of_wrk() {
    BODY=$logs/$4 PATH_OF_URL=$3 HEADERS=${5:-Content-Type: application/json} taskset -c "$last_cpu" wrk --threads 1 --connections "$1" \
        --duration 3s --latency --script "$here/post.lua" "http://127.0.0.1:$2" | sed -n 's/^RESULT //p'
}
of_json() { of_wrk "$1" "$gateway" /v2/models/model/infer kserve.body; }
of_binary() { of_wrk "$1" "$gateway" /v2/models/model/infer binary.body "$(cat "$logs/binary.headers")"; }
of_fastapi() { of_wrk "$1" "$fastapi" /predict fastapi.body; }
of_mlserver() { of_wrk "$1" "$mlserver" /v2/models/model/infer kserve.body; }

if ! grep -qF '<!-- gateway -->' "$file"; then
    printf '\n## The gateway\n\n%s\n\n<!-- gateway -->\n<!-- /gateway -->\n' \
        'What HTTP and JSON cost in front of the native protocol, and beside what people put such a model behind today.' >>"$file"
fi
: >"$folder/gateway"
for round in $(seq "$rounds"); do
    for connections in 1 16 64; do
        for kind in $kinds; do
            result=$("of_$kind" "$connections")
            [ -n "$result" ] || { echo "gateway_bench: no figures of $kind in round $round" >&2; exit 1; }
            echo "$kind $connections $result" | tee -a "$folder/gateway" >&2
        done
    done
done
"$python" "$here/table.py" "$folder/gateway" | "$release/client" table "$file" gateway --note \
    "one row of $features features a request, 100 trees of 63 leaves, closed loop with one request under way on each connection; all servers on one CPU, the load on another; median (smallest..largest) of $rounds interleaved rounds; × is of the gateway with JSON against that server in the same rounds; $(versions 'onnxruntime|lightgbm|fastapi|uvicorn|mlserver'). Again: \`scripts/gateway_bench.sh\`"
