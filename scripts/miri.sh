#!/usr/bin/env bash
# Runs the unit tests of the modules that make no system call under Miri, which finds undefined behaviour in the buffer
# pool's unsafe code and data races in what threads share. Needs a nightly toolchain with Miri; where there is none, it
# says so and does nothing.
# Usage: scripts/miri.sh
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo +nightly miri --version >/dev/null 2>&1; then
    echo "miri: skipped: there is no nightly toolchain with Miri (rustup +nightly component add miri rust-src)"
    exit 0
fi
cargo +nightly miri setup
export MIRIFLAGS=-Zmiri-disable-isolation
echo "== miri: protocol"
cargo +nightly miri test --package disrust-protocol --lib --locked
for module in buffer_pool blocks connections response_queue wake event cpu_list control metrics; do
    echo "== miri: $module"
    cargo +nightly miri test --package disrust --lib --locked -- "$module::"
done
