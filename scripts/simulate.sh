#!/usr/bin/env bash
# Plays runs of the whole server on a simulated, misbehaving machine, each decided by its seed (tests/simulation).
# A seed that fails is told with the way to replay it; the exit status is 1 then. A replay prints everything it does.
# Usage: scripts/simulate.sh SEEDS [FIRST]     e.g. scripts/simulate.sh 100000, on all CPUs (SIMULATION_JOBS=N: on N)
#        scripts/simulate.sh --replay SEED
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n 's/^# \{0,1\}//p' "$0" | tail -n 4; exit 2; }
simulation() { cargo test --release --locked --quiet --test simulation -- --ignored --exact --nocapture "$1"; }

case ${1:-} in
--replay) SIMULATION_REPLAY=${2:?a seed} simulation replay ;;
'' | *[!0-9]*) usage ;;
*) SIMULATION_SEEDS=$1 SIMULATION_FIRST=${2:-0} simulation long_run ;;
esac
