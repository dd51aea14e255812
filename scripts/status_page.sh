#!/usr/bin/env bash
# Looks at the status page in headless Chromium, as someone on call would: under load, in a drain, when the server has gone, in
# light and dark, on a phone, without script. Takes half a minute once the server and the client are built.
# Chromium, its driver and Python are Debian's; what drives them is of PyPI, in a folder of its own, target/status_page. Where one of
# them is not to be had, it says "skipped".
# Usage: scripts/status_page.sh [--pictures FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
venv=$target/status_page
skip() {
    echo "status page: skipped: $*"
    exit 0
}

if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
    { [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; } || skip "there is no chromium or no chromedriver here"
    { timeout 120 apt-get update && timeout 600 apt-get install --yes --no-install-recommends chromium chromium-driver \
        fonts-noto-core; } >/dev/null 2>&1 || skip "chromium and chromium-driver cannot be installed"
fi
command -v python3 >/dev/null || skip "there is no python3"
if ! "$venv/bin/python" -c 'import axe_core_python, selenium' 2>/dev/null; then
    { python3 -m venv "$venv" && timeout 120 "$venv/bin/python" -m pip install --quiet axe-core-python selenium; } ||
        skip "PyPI's selenium and axe-core-python cannot be installed"
fi
cargo build --release --locked --bin disrust --bin client
"$venv/bin/python" scripts/status_page.py "$target/release" "$@"
