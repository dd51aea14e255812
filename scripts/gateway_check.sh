#!/usr/bin/env bash
# Has others talk to the gateway, in front of real servers: Triton's own client from PyPI (tritonclient[http], sync and asyncio), which
# has a folder of its own, target/gateway_check, curl, and the parser of PyPI's prometheus_client. Every score is held to what NumPy says.
# Also what becomes of calls while servers are closed, overloaded, and restarted one after the other under five clients at once; and the
# blocks of docs/GATEWAY.md, as they stand. What is not here and cannot be installed is "skipped". Takes half a minute once the programs are
# built; or takes them from the folder PROGRAMS.
# Usage: [PROGRAMS=FOLDER] scripts/gateway_check.sh
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
venv=$target/gateway_check
if ! command -v python3 >/dev/null; then
    echo "gateway: skipped: there is no python3"
    exit 0
fi
if ! "$venv/bin/python" -c 'import tritonclient.http.aio, prometheus_client' 2>/dev/null &&
    ! { python3 -m venv "$venv" && timeout 300 "$venv/bin/python" -m pip install --quiet 'tritonclient[http]' prometheus_client; }; then
    echo "gateway: skipped: PyPI's tritonclient cannot be installed"
    exit 0
fi
command -v curl >/dev/null || echo "gateway: curl skipped: it is not here"
programs=${PROGRAMS:-$target/release}
[ -n "${PROGRAMS:-}" ] || cargo build --release --workspace --locked
"$venv/bin/python" scripts/gateway_check.py "$programs"
