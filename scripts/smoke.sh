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
server=
trap 'kill "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT

# Starts a server with these flags, and sets `port`.
start() {
    "$target/disrust" --port 0 "$@" 2>"$log" &
    server=$!
    port=
    for _ in $(seq 100); do
        port=$(sed -n 's/^listening on .*:\([0-9]*\).*$/\1/p' "$log")
        [ -n "$port" ] && break
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    [ -n "$port" ] || { cat "$log"; echo "smoke: the server did not start"; exit 1; }
}

stop() {
    local status=0
    kill -TERM "$server"
    wait "$server" || status=$?
    cat "$log"
    [ "$status" -eq 0 ] || { echo "smoke: exit status $status, not 0"; exit 1; }
    grep -q 'drained: .* 0 cut at the end' "$log" || { echo "smoke: the server did not say that it drained"; exit 1; }
}

start --unix "$path" "$@"
for address in "$port" "unix:$path"; do
    "$target/client" "$address"
    "$target/client" "$address" pipeline --hello
    "$target/client" "$address" bench 64 200000 --window 16
done
stop
[ ! -e "$path" ] || { echo "smoke: the Unix socket's file is still there"; exit 1; }

# Connections that the server closes for their age, in words, and a client that makes them again.
start --max-connection-age 300ms "$@"
"$target/client" "$port" run --rate 1k --duration 2s --lag-limit 1h --reconnect-on-close --hello | tee "$log.client"
stop
closed=$(sed -n 's/^.*reconnects: \([0-9]*\) connections closed by the server.*$/\1/p' "$log.client")
[ "${closed:-0}" -gt 1 ] || { echo "smoke: no connection was closed for its age"; exit 1; }
echo "smoke: all right"
