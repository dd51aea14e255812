#!/usr/bin/env bash
# Soaks the release server: all kinds of misbehaving peers, mixed by a seed, beside clients that check every answer.
# Samples memory, descriptors, counts and latency each second (target/soak/soak.csv) and fails on a wrong or lost answer
# and on a trend. Builds what it needs.
# Usage: scripts/soak.sh MINUTES [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -ge 1 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
folder=${CARGO_TARGET_DIR:-target}/soak
mkdir -p "$folder"
ulimit -n "$(ulimit -Hn)"
# Into a folder of its own: the features differ from those of the server that is served otherwise.
cargo test --release --locked --features metrics --target-dir "$folder/build" --test soak -- "$1" "${2:-}" "$folder"
