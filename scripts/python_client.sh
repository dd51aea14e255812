#!/usr/bin/env bash
# Builds the wheel of clients/python, installs it into a fresh environment, and holds it to ruff, mypy --strict and its test
# suite, which starts the release server. Takes one to two minutes; what cannot be done here is "skipped", and why.
# Usage: [PROGRAMS=FOLDER] [PYTHON=python3] scripts/python_client.sh [options of pytest]
set -euo pipefail
cd "$(dirname "$0")/.."

skip() { echo "python client: skipped: $*"; exit 0; }

base=${PYTHON:-python3}
if ! "$base" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
    skip "there is no $base of version 3.9 or newer"
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# Nothing is left in the source tree.
export PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY=$folder/hypothesis RUFF_CACHE_DIR=$folder/ruff
export MYPY_CACHE_DIR=$folder/mypy

"$base" -m venv "$folder/venv" >/dev/null 2>&1 || skip "$base cannot make an environment (Debian's package is python3-venv)"
python=$folder/venv/bin/python
if ! timeout 300 "$python" -m pip install --quiet build "flit_core >= 3.11, < 5" numpy hypothesis mypy pandas pytest ruff; then
    skip "PyPI's packages cannot be installed"
fi
"$python" -m build --wheel --no-isolation --outdir "$folder/dist" clients/python >/dev/null
# All that it needs is numpy, which is there.
"$python" -m pip install --quiet --no-deps --no-index "$folder"/dist/disrust-*-py3-none-any.whl
"$python" -m pip check
echo "python client: $(basename "$folder"/dist/*.whl) is installed into a fresh environment"

cd clients/python
"$python" -m ruff check
"$python" -m ruff format --check
"$python" -m mypy --python-version "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
# The last mypy and numpy that know the oldest Python that the package is for.
if "$base" -m venv "$folder/oldest" && timeout 300 "$folder/oldest/bin/python" -m pip install --quiet --only-binary :all: \
    'mypy < 2' 'numpy == 2.0.*'; then
    "$folder/oldest/bin/python" -m mypy --python-version 3.9 src
else
    echo "python client: mypy for Python 3.9 skipped: no numpy 2.0 for this Python"
fi
cd ../..

if [ -z "${PROGRAMS:-}" ]; then
    cargo build --release --locked --package disrust
fi
DISRUST_SERVER=$(realpath "${PROGRAMS:-${CARGO_TARGET_DIR:-target}/release}/disrust")
export DISRUST_SERVER
# Not the sources that lie beside the tests, but what was installed.
(cd clients/python && "$python" -m pytest -p no:cacheprovider --quiet "$@")
