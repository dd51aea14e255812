#!/usr/bin/env bash
# Tests the feature `onnxruntime`, with the library that ORT_DYLIB_PATH names, else with that of PyPI's onnxruntime, for
# which it has a folder of its own, target/onnxruntime. Without either, what needs none is tested, and the rest says
# "skipped". Takes a minute or two, most of it for building.
# Usage: [ORT_DYLIB_PATH=FILE] scripts/onnxruntime.sh [flags of the tests]
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${CARGO_TARGET_DIR:-$PWD/target}/onnxruntime
library() { find "$venv" -name 'libonnxruntime.so*' -print -quit 2>/dev/null; }

if [ -z "${ORT_DYLIB_PATH:-}" ] && [ -z "$(library)" ]; then
    if ! command -v python3 >/dev/null; then
        echo "onnxruntime: skipped for the most part: there is no python3, and ORT_DYLIB_PATH names no library"
    elif ! { python3 -m venv "$venv" && timeout 120 "$venv/bin/python" -m pip install --quiet onnxruntime; }; then
        echo "onnxruntime: skipped for the most part: PyPI's onnxruntime cannot be installed"
    fi
fi
ORT_DYLIB_PATH=${ORT_DYLIB_PATH:-$(library)}
export ORT_DYLIB_PATH
echo "onnxruntime: ${ORT_DYLIB_PATH:-no library}"
cargo test --package disrust-model --features onnxruntime --locked --lib onnx
cargo test --package disrust --features onnxruntime --locked --test onnxruntime -- --nocapture "$@"
