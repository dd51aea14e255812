#!/usr/bin/env bash
# Measures the server beside the floors on this machine: I/O threads x connections x window x vectors, interleaved.
# Builds what it needs; tables, CSV, JSON and plots go to target/sweep. The full sweep (about 40 minutes on two CPUs)
# also rewrites the tables of PERFORMANCE.md and puts its plots into docs/plots; --quick takes less than two minutes and does not.
# Stopped and started again, it goes on where it was (with --fresh from the start); three lines at the end conclude.
# Usage: scripts/sweep.sh [--quick] [--out DIR] [what else `client sweep --help` lists]
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --workspace --locked
target=${CARGO_TARGET_DIR:-target}/release

write=(--write PERFORMANCE.md) out=target/sweep before=''
for word in "$@"; do
    case $word in
        --quick | --write | --write=* | --help) write=() ;;
        --out=*) out=${word#--out=} ;;
    esac
    [ "$before" != --out ] || out=$word
    before=$word
done
# Not an exec: bash passes Ctrl-C on, and the client stops what it started.
"$target/client" sweep --server "$target/disrust" "${write[@]}" "$@"
if [ ${#write[@]} -gt 0 ]; then
    mkdir -p docs/plots
    cp "$out"/*.svg docs/plots
fi
