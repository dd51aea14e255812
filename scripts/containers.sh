#!/usr/bin/env bash
# Runs Dockerfile and docker-compose.yml as their users do, from a copy of what git tracks: the image is built and answers, healthy
# within a minute; its list of system calls refuses what it should, and nothing that the server needs; a stop under load loses nothing;
# replicas behind HAProxy live through the death of one; Prometheus scrapes; the units start under systemd. What is not here and cannot be had is "skipped".
# Takes two minutes, and another two to three for the image if it is not in the engine's cache. Cleans up after itself, but for the
# images. Takes the client from the folder PROGRAMS, or builds it. Ports that are taken are exchanged for others.
# With --faults, rows of the fault matrix too, whose servers run under the list that a container gives them; for that their tests are built,
# in minutes.
# Usage: [PROGRAMS=FOLDER] scripts/containers.sh [--faults]
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "containers: $*"; }
skip() { say "skipped: $*"; exit 0; }
fail() { say "failed: $*"; exit 1; }

case ${1:-} in
'' | --faults) ;;
*) sed -n 's/^# Usage: //p' "$0" >&2 && exit 2 ;;
esac
command -v docker >/dev/null || skip "there is no docker"
docker info >/dev/null 2>&1 || skip "no engine answers, or not to this user"
if docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
elif command -v docker-compose >/dev/null; then
    compose=(docker-compose)
else
    skip "there is no Compose"
fi
command -v python3 >/dev/null || skip "there is no python3"
programs=${PROGRAMS:-${CARGO_TARGET_DIR:-$PWD/target}/release}
[ -n "${PROGRAMS:-}" ] || cargo build --release --workspace --locked
client=$programs/client
scripts/base_images.sh || skip "the images that it builds on are not here and cannot be made"

# The tests know by its path where the server is that they start, and where they may write.
build=${CARGO_TARGET_DIR:-$PWD/target}/faults/build
faults=
if [ "${1:-}" = --faults ]; then
    faults=$(cargo test --release --locked --features metrics --target-dir "$build" --test faults --no-run 2>&1 | sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
    case $faults in /*) ;; *) faults=$PWD/$faults ;; esac
    [ -x "$faults" ] || fail "the fault matrix cannot be built"
fi

project=disrust-check-$$
folder=$(mktemp -d)
# All that is started here has this label or is the project's.
clean() {
    docker ps --all --quiet --filter "label=$project" | xargs --no-run-if-empty docker rm --force >/dev/null 2>&1 || true
    (cd "$folder/clone" && "${compose[@]}" --project-name "$project" --profile gateway --profile scale --profile observe --profile dev \
        down --volumes --timeout 1) >/dev/null 2>&1 || true
    rm -rf "$folder"
}
trap clean EXIT
mkdir "$folder/clone"
git ls-files -z | tar --null --files-from - --ignore-failed-read -c 2>/dev/null | tar -C "$folder/clone" -x
cd "$folder/clone"

compose() { "${compose[@]}" --project-name "$project" "$@"; }
# Its words are of interest only if it fails.
quietly() { "$@" >"$folder/said" 2>&1 || { cat "$folder/said"; fail "$*"; }; }
# Waits for a command to succeed.
wait_for() {
    local what=$1 seconds=$2 end=$((SECONDS + $2))
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || { compose logs --tail 20; fail "$what: not within $seconds s"; }
        sleep 0.2
    done
}
is_free() { python3 -c 'import socket, sys; socket.create_server(("127.0.0.1", int(sys.argv[1]))).close()' "$1" 2>/dev/null; }
# This port, or a free one if it is taken.
port() {
    if is_free "$1"; then
        echo "$1"
    else
        python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])'
    fi
}
export DISRUST_PORT DISRUST_ADMIN_PORT DISRUST_SCALE_PORT DISRUST_HTTP_PORT PROMETHEUS_PORT
DISRUST_PORT=$(port 9900) DISRUST_ADMIN_PORT=$(port 9901) DISRUST_SCALE_PORT=$(port 9910) DISRUST_HTTP_PORT=$(port 8000) PROMETHEUS_PORT=$(port 9090)
container() { compose ps --quiet "$1"; }
is_healthy() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$(container "$1")")" = healthy ]; }
metric() { python3 -c 'import sys, urllib.request as u; print(sum(float(line.split()[1]) for line in u.urlopen("http://127.0.0.1:" + sys.argv[1] + "/metrics", timeout=5).read().decode().splitlines() if line.startswith(sys.argv[2])))' "$@"; }
# An open loop that checks every answer and connects again when it is told to. Status 3 says that its times are worth nothing, as
# others had the CPUs; nobody asks for times here.
load() {
    local status=0
    "$client" "$1" run --rate "$2" --connections 12 --duration "$3" --warmup 500ms --lag-limit 1h --reconnect-on-close --json "$folder/load.json" \
        >"$folder/load.log" 2>&1 || status=$?
    [ "$status" -eq 0 ] || [ "$status" -eq 3 ] || { cat "$folder/load.log"; return 1; }
}
figure() { python3 -c 'import json, sys; print(eval("repeat" + sys.argv[2], {"repeat": json.load(open(sys.argv[1]))["repeats"][0]}))' "$folder/load.json" "$1"; }

# One server, as from a clean clone.
quietly compose build disrust
compose up --build --detach disrust >"$folder/said" 2>&1 || { cat "$folder/said"; fail "up"; }
begun=$SECONDS
wait_for "healthy" 60 is_healthy disrust
say "up and healthy $((SECONDS - begun)) s after the build, on $DISRUST_PORT; the image has $(docker image inspect --format '{{.Size}}' disrust:0.1.0) bytes"
for check in "" pipeline "bench 16 100000 --window 16"; do
    # shellcheck disable=SC2086 # the words of a check
    quietly "$client" "$DISRUST_PORT" $check
done
say "the client's checks are all right"

# What it may.
process=$(docker inspect --format '{{.State.Pid}}' "$(container disrust)")
for fact in 'Uid:.65532' 'Gid:.65532' 'CapEff:.0000000000000000' 'CapBnd:.0000000000000000' 'NoNewPrivs:.1' 'Seccomp:.2'; do
    grep -q "^$fact" "/proc/$process/status" || fail "/proc/$process/status has no $fact"
done
if docker exec "$(container disrust)" /bin/sh -c true >/dev/null 2>&1; then fail "there is a shell in the image"; fi
if docker run --rm --label "$project" --network none --entrypoint /disrust disrust:0.1.0 health >/dev/null 2>&1; then
    fail "disrust health is content where there is no server"
fi
say "no user, capability or shell"

# Which system calls the list refuses: all that scripts/containers/refused.c tries, though the container has the capabilities for them;
# by the list and nothing else, as the same list with another default allows them all.
list=(--read-only --security-opt no-new-privileges --security-opt seccomp=deploy/seccomp/disrust.json)
if command -v cc >/dev/null && cc -static -O2 -o "$folder/refused" scripts/containers/refused.c 2>/dev/null; then
    capabilities=()
    for name in SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_PTRACE SYS_TIME DAC_READ_SEARCH MKNOD NET_ADMIN NET_RAW SETPCAP SETUID; do
        capabilities+=(--cap-add "$name")
    done
    try=(docker run --rm --label "$project" --user 0 --network host --volume "$folder/refused:/refused:ro" --entrypoint /refused "${capabilities[@]}")
    "${try[@]}" "${list[@]}" disrust:0.1.0 refused >"$folder/said" || { cat "$folder/said"; fail "deploy/seccomp/disrust.json allows too much"; }
    say "deploy/seccomp/disrust.json: $(cat "$folder/said")"
    sed 's/"defaultAction": "SCMP_ACT_ERRNO"/"defaultAction": "SCMP_ACT_ALLOW"/' deploy/seccomp/disrust.json >"$folder/allows.json"
    quietly "${try[@]}" --security-opt no-new-privileges --security-opt seccomp="$folder/allows.json" disrust:0.1.0 allowed
else
    say "what the list refuses: skipped: no C compiler makes static programs here"
fi

# Rows of the fault matrix, with servers that are confined by the same filter as a container's; those that need namespaces or mounts
# cannot be had in a container. scripts/containers/under.c stands where the server is looked for.
if [ -n "$faults" ]; then
    command -v python3 >/dev/null && [ -x /usr/bin/python3 ] && {
        /usr/bin/python3 -c 'import seccomp' 2>/dev/null || timeout 300 apt-get install --yes --no-install-recommends python3-seccomp >/dev/null 2>&1 || true
    }
    if /usr/bin/python3 -c 'import seccomp' 2>/dev/null && cc -static -O2 -o "$folder/under" scripts/containers/under.c 2>/dev/null; then
        # The server of these tests is no static program: its loader calls these two besides.
        /usr/bin/python3 scripts/containers/filter.py deploy/seccomp/disrust.json "$folder/filter" access pread64
        sed 's/, "io_uring_setup"\]/]/' deploy/seccomp/disrust.json >"$folder/less.json"
        /usr/bin/python3 scripts/containers/filter.py "$folder/less.json" "$folder/less" access pread64
        rows() {
            local filter=$1
            shift
            docker run --rm --label "$project" --network none --security-opt seccomp=deploy/seccomp/dev.json --tmpfs "$build/tmp" \
                --volume "$folder/under:$build/release/disrust:ro" --volume "$build/release/disrust:/real/disrust:ro" \
                --volume "$filter:/real/filter:ro" --volume "$faults:/faults:ro" debian:bookworm-slim /faults --quick "$@" >"$folder/said" 2>&1
        }
        rows "$folder/filter" A1 A3 A4 A5 A6 B1 B2 B4 B8 C1 F1 F4 F7 H1 J1 J2 R19 || { cat "$folder/said"; fail "rows of the fault matrix under the list"; }
        say "under the list: $(grep '^faults: ' "$folder/said")"
        # It is the list that they run under.
        if rows "$folder/less" A1; then fail "servers that may make no ring serve: the rows did not run under the list"; fi
    else
        say "rows of the fault matrix skipped: Debian's python3-seccomp or a C compiler is not here"
    fi
fi

# All that the list has to allow: several threads, spinning, a model file and its reload, a Unix socket that a second server takes over, names,
# help, and starts that fail with their own words.
mkdir "$folder/run"
cp model/tests/data/lightgbm/binary.txt "$folder/run/model.txt"
chmod a+rx "$folder"
chmod -R a+rwX "$folder/run"
run=(docker run --label "$project" --network host --cap-drop ALL "${list[@]}" --volume "$folder/run:/run:rw" --env "DISRUST_ADMIN=127.0.0.1:0")
says() { docker logs "$1" 2>&1 | grep "$2" >/dev/null; }
first=$("${run[@]}" --detach disrust:0.1.0 --port 0 --host localhost --unix /run/a.sock --io-threads 2 --wait spin --model /run/model.txt --log-format json)
wait_for "a server of trees" 30 says "$first" 'listening on'
docker kill --signal HUP "$first" >/dev/null
wait_for "a reload" 30 says "$first" 'the model model is replaced'
docker kill --signal USR1 "$first" >/dev/null
second=$("${run[@]}" --detach disrust:0.1.0 --port 0 --unix /run/a.sock --reuse-port --seccomp --wait yield --max-queue-delay 1s --max-connection-age 300ms)
wait_for "a take-over" 30 says "$second" 'listening on'
quietly docker stop --time 20 "$first"
quietly "$client" "unix:$folder/run/a.sock" pipeline
load "unix:$folder/run/a.sock" 500 1500ms || fail "load over the Unix socket"
[ "$(figure '["reconnects"]["closed"]')" -gt 0 ] || fail "no connection was closed for its age"
quietly docker stop --time 20 "$second"
for server in "$first" "$second"; do
    [ "$(docker inspect --format '{{.State.ExitCode}}' "$server")" = 0 ] || { docker logs "$server"; fail "a server in a container did not end with 0"; }
    says "$server" 'drained: .* 0 cut at the end' || { docker logs "$server"; fail "a server in a container did not drain"; }
done
refused() {
    local status=0 wanted=$1 words=$2
    shift 2
    "${run[@]}" --rm disrust:0.1.0 "$@" >"$folder/said" 2>&1 || status=$?
    [ "$status" -eq "$wanted" ] && grep -q "$words" "$folder/said" || { cat "$folder/said"; fail "$*: status $status, not $wanted with '$words'"; }
}
refused 71 'already served by' --port "$DISRUST_PORT" --host 127.0.0.1
refused 71 'cannot resolve the host' --host nobody.invalid
refused 71 'cannot pin' --port 0 --pin 1022,1023 --pin-policy strict
refused 78 'it is none of' --model /disrust
refused 2 'not a whole number' --port 99999
refused 0 'Usage' --help
refused 0 'trees' verify --model /run/model.txt
say "under the list: trees, a reload, a take-over, a Unix socket, connections of an age, and starts that fail, all as without it"

# A stop under load: answered or refused in words, nothing lost, status 0. It is started again, so that the load finds somebody.
server=$(container disrust)
load "$DISRUST_PORT" 2k 8s &
loading=$!
sleep 2
quietly docker stop --time 20 "$server"
[ "$(docker inspect --format '{{.State.ExitCode}}' "$server")" = 0 ] || fail "docker stop: the server did not end with 0"
quietly docker start "$server"
wait "$loading" || fail "a wrong or missing answer in a stop"
lost=$(figure '["reconnects"]["lost"]') closed=$(figure '["reconnects"]["closed"]')
[ "$lost" -eq 0 ] && [ "$closed" -gt 0 ] || { cat "$folder/load.log"; fail "a stop lost $lost requests, and closed $closed connections"; }
says "$server" 'drained: .* 0 cut at the end; .* 0 discarded' || fail "the server did not say that it drained"
say "a stop under load: $(figure '["answered"]') answers, all right, none lost, $(figure '["reconnects"]["refused"]') refused in words (error 4)"

# The gateway in front of it, and its own stop.
quietly compose --profile gateway up --build --detach gateway
wait_for "the gateway is healthy" 60 is_healthy gateway
python3 - "$DISRUST_HTTP_PORT" <<'END' >"$folder/said" || { cat "$folder/said"; fail "the gateway's answer"; }
import json, sys, urllib.request
row = {"name": "input", "shape": [1, 16], "datatype": "FP32", "data": list(range(16))}
url = f"http://127.0.0.1:{sys.argv[1]}/v2/models/sum/infer"
answer = json.load(urllib.request.urlopen(url, json.dumps({"inputs": [row]}).encode(), timeout=5))
print(answer)
sys.exit(answer["outputs"][0]["data"] != [120.0])
END
gateway=$(container gateway)
quietly docker stop --time 20 "$gateway"
[ "$(docker inspect --format '{{.State.ExitCode}}' "$gateway")" = 0 ] && says "$gateway" 'drained: 0 connections were cut' ||
    { docker logs "$gateway"; fail "the gateway did not drain"; }
say "the gateway answers, and drains"

# Prometheus, as it is provisioned. Grafana likewise, where its image can be had.
[ "$DISRUST_ADMIN_PORT" = 9901 ] || sed -i "s/127.0.0.1:9901/127.0.0.1:$DISRUST_ADMIN_PORT/" deploy/prometheus/targets.yml
quietly compose --profile observe up --detach prometheus
scraped() {
    python3 - "$PROMETHEUS_PORT" <<'END'
import json, sys, urllib.parse, urllib.request
query = urllib.parse.quote('disrust_requests_total{result="ok"}')
answer = json.load(urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/api/v1/query?query={query}", timeout=5))
sys.exit(not answer["data"]["result"])
END
}
wait_for "Prometheus scrapes" 60 scraped
say "Prometheus scrapes"
if docker image inspect "$(sed -n 's/^ *image: \(grafana.*\)/\1/p' docker-compose.yml)" >/dev/null 2>&1; then
    quietly compose --profile observe up --detach grafana
    provisioned() { python3 -c 'import json, urllib.request as u, sys; sys.exit(not json.load(u.urlopen("http://127.0.0.1:3000/api/search?query=disrust", timeout=5)))'; }
    wait_for "Grafana has the dashboard" 120 provisioned
    say "Grafana has the dashboard"
else
    say "Grafana skipped: its image is not here"
fi
quietly compose --profile observe rm --stop --force prometheus grafana

# Three replicas behind HAProxy, one of which is killed under load.
if is_free 9921 && is_free 9922 && is_free 9923; then
    quietly compose --profile scale up --build --detach
    for replica in replica-a replica-b replica-c; do
        wait_for "$replica is healthy" 60 is_healthy "$replica"
    done
    wait_for "HAProxy" 30 "$client" "$DISRUST_SCALE_PORT"
    # By a name that only Docker's resolver knows, though the image has no library for that.
    named=$(docker run --detach --label "$project" --network "${project}_scale" --network-alias somebody "${list[@]}" disrust:0.1.0 --host somebody)
    wait_for "a server that listens at a name" 30 says "$named" 'listening on'
    killed=$(container replica-b)
    load "$DISRUST_SCALE_PORT" 1k 8s &
    loading=$!
    sleep 2
    quietly docker kill "$killed"
    before=$(metric 9921 'disrust_requests_total{result="ok"}')
    wait "$loading" || fail "a wrong or missing answer when a replica was killed"
    after=$(metric 9921 'disrust_requests_total{result="ok"}')
    [ "$(figure '["reconnects"]["closed"]')" -gt 0 ] || fail "no connection noticed that a replica was killed"
    [ "${after%.*}" -gt "${before%.*}" ] || fail "the others did not go on"
    quietly "$client" "$DISRUST_SCALE_PORT" pipeline
    quietly docker start "$killed"
    wait_for "the killed replica is back" 60 is_healthy replica-b
    say "a replica killed: $(figure '["answered"]') answers, all right; $(figure '["reconnects"]["lost"]') requests lost with its connections, which were made again"
else
    say "replicas skipped: one of the ports 9921 to 9923 is taken"
fi

# The units, by systemd as the first process of a container of Debian's; it needs rights that the server's own containers have not.
python3 - deploy/seccomp/dev.json "$folder/systemd.json" <<'END'
import json, sys
profile = json.load(open(sys.argv[1]))
allowed = ("File systems", "Other namespaces", "Keys", "A new user namespace")
profile["syscalls"] = [group for group in profile["syscalls"] if not group["comment"].startswith(allowed)]
json.dump(profile, open(sys.argv[2], "w"))
END
mkdir "$folder/systemd"
cat >"$folder/systemd/Dockerfile" <<'END'
FROM debian:bookworm-slim
RUN apt-get update && apt-get install --yes --no-install-recommends systemd dbus && rm -rf /var/lib/apt/lists/* \
    && systemctl mask systemd-networkd-wait-online.service getty.target
STOPSIGNAL SIGRTMIN+3
ENTRYPOINT ["/lib/systemd/systemd"]
END
inside() { docker exec "$project-systemd" "$@"; }
systemd_runs() { inside systemctl is-system-running | grep -E 'running|degraded' >/dev/null; }
property() { inside systemctl show --value --property "$2" "$1"; }
has_status() { property "$1" StatusText | grep "$2" >/dev/null; }
if ! docker build --quiet --network host --tag disrust-check-systemd "$folder/systemd" >"$folder/said" 2>&1; then
    tail -n 3 "$folder/said"
    say "systemd skipped: an image of Debian's systemd cannot be made"
else
    quietly docker run --detach --label "$project" --name "$project-systemd" --cgroupns host --cap-add SYS_ADMIN --security-opt seccomp="$folder/systemd.json" \
        --tmpfs /run --tmpfs /run/lock --tmpfs /tmp --volume /sys/fs/cgroup:/sys/fs/cgroup:rw disrust-check-systemd
    wait_for "systemd" 60 systemd_runs
    docker cp "$(container disrust):/disrust" "$folder/disrust"
    for file in "$folder/disrust:/usr/bin/disrust" "$client:/usr/bin/client" "$folder/clone/model/tests/data/lightgbm/binary.txt:/etc/model.txt" \
        "$folder/clone/deploy/systemd/disrust.service:/etc/systemd/system/" "$folder/clone/deploy/systemd/disrust@.service:/etc/systemd/system/"; do
        docker cp "${file%%:*}" "$project-systemd:${file#*:}"
    done
    quietly inside systemctl daemon-reload
    # One: it starts, with a Unix socket that others may connect to, and its model is read again.
    inside sh -c 'chmod a+r /etc/model.txt; printf "DISRUST_UNIX=/run/disrust/a.sock\nDISRUST_UNIX_MODE=0666\n" >/etc/default/disrust'
    quietly inside systemctl start disrust
    quietly inside setpriv --reuid 4444 --regid 4444 --clear-groups client unix:/run/disrust/a.sock
    inside sh -c 'echo DISRUST_MODEL=/etc/model.txt >/etc/default/disrust'
    quietly inside systemctl restart disrust
    quietly inside systemctl reload disrust
    wait_for "systemctl reload" 30 has_status disrust 'serving the model model of version'
    inside sh -c 'echo nothing >/etc/model.txt'
    quietly inside systemctl reload disrust
    wait_for "systemctl reload of a bad file" 30 has_status disrust 'a new one is not taken'
    quietly inside systemctl stop disrust
    [ "$(property disrust Result) $(property disrust ExecMainStatus)" = "success 0" ] || fail "systemctl stop: $(property disrust Result)"
    # A bad file is not tried again.
    if inside systemctl start disrust >/dev/null 2>&1; then fail "a server with a bad model starts"; fi
    [ "$(property disrust ExecMainStatus) $(property disrust SubState)" = "78 failed" ] || fail "a bad model: $(property disrust SubState)"
    # Two on one port, restarted one after the other under load.
    inside sh -c ': >/etc/default/disrust'
    quietly inside systemctl start disrust@1 disrust@2
    inside client 9900 run --rate 500 --connections 12 --duration 8s --warmup 500ms --lag-limit 1h --reconnect-on-close --json /tmp/load.json \
        >"$folder/load.log" 2>&1 &
    loading=$!
    sleep 2
    quietly inside systemctl restart disrust@1
    quietly inside systemctl restart disrust@2
    wait "$loading" || [ $? -eq 3 ] || { cat "$folder/load.log"; fail "a wrong or missing answer as two servers are restarted"; }
    inside cat /tmp/load.json >"$folder/load.json"
    lost=$(figure '["reconnects"]["lost"]') closed=$(figure '["reconnects"]["closed"]')
    [ "$lost" -eq 0 ] && [ "$closed" -gt 0 ] || { cat "$folder/load.log"; fail "two restarts lost $lost requests, and closed $closed connections"; }
    quietly inside disrust health --admin 127.0.0.1:9922
    quietly inside systemctl stop disrust@1 disrust@2
    say "systemd: a start, reloads, a bad model that is not tried again, and two servers restarted under load: $(figure '["answered"]') answers, none lost"
fi

# Where it is developed: a crate's tests, and a server that has io_uring under that list.
quietly compose --profile dev run --rm --no-deps dev cargo test --locked --package disrust-protocol
docker run --rm --detach --label "$project" --name "$project-dev" --security-opt seccomp=deploy/seccomp/dev.json disrust:0.1.0 >/dev/null
wait_for "a server in the container for development" 30 says "$project-dev" 'listening on'
say "docker compose run dev: tests pass"
say "all right"
