#!/usr/bin/env bash
# Runs each fuzz target for some seconds, beginning with the corpus that is kept in fuzz/corpus. Needs a nightly toolchain;
# installs cargo-fuzz. Where there is no nightly, it says so and does nothing.
# Usage: scripts/fuzz.sh [SECONDS [TARGET...]]
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

seconds=${1:-30}
shift $(($# > 0 ? 1 : 0))
[ $# -gt 0 ] || set -- parser connection config cpu_list model_file kserve
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzz: skipped: there is no nightly toolchain (rustup toolchain install nightly)"
    exit 0
fi
cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked
found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT
for target in "$@"; do
    echo "== fuzz: $target for $seconds s"
    # What it finds on its way goes to the first folder; the kept corpus is only read.
    mkdir -p "$found/$target"
    cargo +nightly fuzz run "$target" "$found/$target" "corpus/$target" -- \
        -max_total_time="$seconds" -timeout=10 -print_final_stats=1
done
