#!/usr/bin/env bash
# Runs the fault matrix on the release server: one test a row, a table at the end, and a JSON file. Builds what it needs.
# Some rows want root, for network namespaces and another user; what cannot be done here is skipped with the reason.
# --write FILE puts the table between the marks of FILE, as in RELIABILITY.md.
# A row such as "A4 trees" is A4 with trees of a model file, which is read again meanwhile, in place of the sum.
# Usage: scripts/faults.sh [ROW...] [--quick] [--json FILE] [--write FILE] [--list]
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${CARGO_TARGET_DIR:-target}/faults
mkdir -p "$folder"
ulimit -n "$(ulimit -Hn)"
json=(--json "$folder/faults.json")
for word in "$@"; do
    case $word in --json | --list) json=() ;; esac
done
# Into a folder of its own: the features differ from those of the server that is served otherwise.
cargo test --release --locked --features metrics --target-dir "$folder/build" --test faults -- "$@" "${json[@]}"
