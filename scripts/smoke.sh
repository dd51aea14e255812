#!/usr/bin/env bash
# Starts the release server on a free port and at a Unix socket, checks answers over both with the client, puts it under load,
# and stops it with SIGTERM: it must exit with status 0 and have answered everything. Builds what it needs, or takes the
# programs from the folder PROGRAMS.
# Usage: [PROGRAMS=FOLDER] scripts/smoke.sh [flags of the server]
set -euo pipefail
cd "$(dirname "$0")/.."

target=${PROGRAMS:-${CARGO_TARGET_DIR:-target}/release}
[ -n "${PROGRAMS:-}" ] || cargo build --release --workspace --locked
folder=$(mktemp -d)
log=$folder/log path=$folder/disrust.sock
"$target/disrust" --port 0 --unix "$path" "$@" 2>"$log" &
server=$!
trap 'kill "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT

port=
for _ in $(seq 100); do
    port=$(sed -n 's/^listening on .*:\([0-9]*\).*$/\1/p' "$log")
    [ -n "$port" ] && break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
done
[ -n "$port" ] || { cat "$log"; echo "smoke: the server did not start"; exit 1; }

for address in "$port" "unix:$path"; do
    "$target/client" "$address"
    "$target/client" "$address" pipeline
    "$target/client" "$address" bench 64 200000 --window 16
done

kill -TERM "$server"
status=0
wait "$server" || status=$?
cat "$log"
[ "$status" -eq 0 ] || { echo "smoke: exit status $status, not 0"; exit 1; }
grep -q 'drained: .* 0 cut at the end' "$log" || { echo "smoke: the server did not say that it drained"; exit 1; }
[ ! -e "$path" ] || { echo "smoke: the Unix socket's file is still there"; exit 1; }
echo "smoke: all right"
