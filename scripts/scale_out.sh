#!/usr/bin/env bash
# Shows what docs/OPERATIONS.md says of replicas behind a balancer: 1, 2 and 3 of them on loopback behind HAProxy, with
# deploy/haproxy/haproxy.cfg as it is, under the client's open loop, which verifies every answer and connects again when it is told to.
# - Figures: response times with and without the balancer, and the balancer's CPU a request.
# - A rolling restart of all replicas: no wrong answer, no refused connect, neither by HAProxy nor by a replica.
# - One that is killed and one that is frozen are out of rotation within 2 s (--quick says when, and does not judge).
# - One that comes late has half of its fair share of connections within one --max-connection-age.
# Prints its figures, or puts them into PERFORMANCE.md (or another FILE that has the marks) with --table. Takes five minutes once the
# server is built, --quick one to two, for CI; or takes the programs from the folder PROGRAMS. HAProxy is Debian's; where it is not to be
# had, it says "skipped".
# Usage: [PROGRAMS=FOLDER] scripts/scale_out.sh [--quick] [--rate RATE] [--table [FILE]]
set -euo pipefail
cd "$(dirname "$0")/.."

flags=() file=
while [ $# -gt 0 ]; do
    case $1 in
    --quick) flags+=(--quick) ;;
    --rate) flags+=(--rate "$2") && shift ;;
    --table) file=${2:-PERFORMANCE.md} && shift $(($# > 1)) ;;
    *) sed -n 's/^# Usage: //p' "$0" >&2 && exit 2 ;;
    esac
    shift
done

PATH=$PATH:/usr/sbin
command -v python3 >/dev/null || { echo "scale_out: skipped: there is no python3"; exit 0; }
if ! command -v haproxy >/dev/null && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    { timeout 120 apt-get update && RUNLEVEL=1 timeout 300 apt-get install --yes --no-install-recommends haproxy; } >/dev/null 2>&1 || true
fi
command -v haproxy >/dev/null || { echo "scale_out: skipped: Debian's haproxy is not here and cannot be installed"; exit 0; }
programs=${PROGRAMS:-${CARGO_TARGET_DIR:-target}/release}
[ -n "${PROGRAMS:-}" ] || cargo build --release --workspace --locked
if [ -z "$file" ]; then
    python3 scripts/scale_out.py "$programs" ${flags[@]+"${flags[@]}"}
    exit
fi
table=$(mktemp)
trap 'rm -f "$table"' EXIT
python3 scripts/scale_out.py "$programs" --table "$table" ${flags[@]+"${flags[@]}"}
"$programs/client" table "$file" scale_out --note \
    "an open loop over 12 connections; all on one machine, so replicas share its CPUs. Again: \`scripts/scale_out.sh --table\`" <"$table"
