#!/usr/bin/env bash
# Has each file of deploy/ checked by the checker of its own kind: HAProxy's and Prometheus' by Debian's haproxy and promtool, those of
# Kubernetes by PyPI's kubernetes-validate, for 1.34 and the newest it knows, the Compose file and the lists of system calls by the engine,
# the units by systemd-analyze; asks the dashboard's queries of a Prometheus that scrapes a server under load. What is not here and cannot be installed is "skipped". Takes half a minute once the server is built; or takes the
# programs from the folder PROGRAMS.
# Usage: [PROGRAMS=FOLDER] scripts/deploy_check.sh
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
venv=$target/deploy_check
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# Runs a checker, whose words are of interest only if it finds something.
quietly() {
    "$@" >"$folder/said" 2>&1 || { cat "$folder/said"; echo "deploy: failed: $*"; exit 1; }
}
# A program of one of Debian's packages, installed if it is not here and can be; nothing of it is started.
debian() {
    command -v "$1" >/dev/null && return
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || return 1
    { timeout 120 apt-get update && RUNLEVEL=1 timeout 300 apt-get install --yes --no-install-recommends "$2"; } >/dev/null 2>&1 || true
    command -v "$1" >/dev/null
}

PATH=$PATH:/usr/sbin
if debian haproxy haproxy; then
    quietly haproxy -c -f deploy/haproxy/haproxy.cfg
    echo "deploy: haproxy takes deploy/haproxy/haproxy.cfg"
else
    echo "deploy: HAProxy's file skipped: Debian's haproxy is not here and cannot be installed"
fi

if debian promtool prometheus; then
    quietly promtool check config deploy/prometheus/prometheus.yml
    if ! promtool check config deploy/prometheus/kubernetes.yml >"$folder/said" 2>&1; then
        # Debian builds it without: then all but the discovery is checked.
        grep -q 'field kubernetes_sd_configs not found' "$folder/said" || { cat "$folder/said"; exit 1; }
        cp deploy/prometheus/*.yml "$folder"
        sed -i '/kubernetes_sd_configs:/,/label:/d' "$folder/kubernetes.yml"
        quietly promtool check config "$folder/kubernetes.yml"
        echo "deploy: discovery in deploy/prometheus/kubernetes.yml skipped: this promtool is built without it"
    fi
    quietly promtool check rules deploy/prometheus/rules.yml deploy/prometheus/alerts.yml
    quietly promtool test rules deploy/prometheus/rules_test.yml
    # A test of rules that could not fail would be none.
    cp deploy/prometheus/*.yml "$folder"
    sed -i 's/ > 0.01$/ > 0.5/' "$folder/alerts.yml"
    if promtool test rules "$folder/rules_test.yml" >/dev/null 2>&1; then
        echo "deploy: the tests of the alerts do not notice another threshold"
        exit 1
    fi
    echo "deploy: promtool takes the rules, and their tests pass"
else
    echo "deploy: Prometheus' files skipped: Debian's prometheus is not here and cannot be installed"
fi

if debian systemd-analyze systemd; then
    for unit in disrust disrust@; do
        # It wants to see the program and the manual page.
        sed "s|^ExecStart=/usr/bin/disrust|ExecStart=$(command -v true)|" "deploy/systemd/$unit.service" >"$folder/${unit/@/@1}.service"
        quietly systemd-analyze verify --man=no "$folder/${unit/@/@1}.service"
        [ ! -s "$folder/said" ] || { cat "$folder/said"; echo "deploy: systemd-analyze verify finds something in $unit.service"; exit 1; }
        quietly systemd-analyze security --offline=true --threshold=20 "$folder/${unit/@/@1}.service"
        echo "deploy: systemd-analyze takes deploy/systemd/$unit.service: $(sed -n 's/^.*Overall exposure level for [^ ]* \([0-9.]*\).*$/exposure \1/p' "$folder/said")"
    done
    # What they may is the same.
    may() { sed -n '/^# What it may/,/^\[Install/p' "$1"; }
    if [ "$(may deploy/systemd/disrust.service)" != "$(may deploy/systemd/disrust@.service)" ]; then
        echo "deploy: disrust.service and disrust@.service may not the same"
        exit 1
    fi
else
    echo "deploy: the units skipped: Debian's systemd is not here and cannot be installed"
fi

# An engine that takes a list comes as far as not finding the program.
runs_under() {
    docker run --rm --network none --security-opt no-new-privileges --security-opt seccomp="$1" "$image" /nothing >"$folder/said" 2>&1 || true
    grep -q 'exec: "/nothing"' "$folder/said"
}
if ! command -v docker >/dev/null || ! docker info >/dev/null 2>&1; then
    echo "deploy: the Compose file and the lists of system calls skipped: no engine answers"
else
    compose=(docker compose)
    docker compose version >/dev/null 2>&1 || compose=(docker-compose)
    if "${compose[@]}" version >/dev/null 2>&1; then
        quietly "${compose[@]}" --profile scale --profile observe --profile dev config
        echo "deploy: ${compose[*]} takes docker-compose.yml"
    else
        echo "deploy: the Compose file skipped: there is no Compose"
    fi
    image=disrust-deploy-check:$$
    trap 'docker rmi --force "$image" >/dev/null 2>&1; rm -rf "$folder"' EXIT
    tar -C deploy/seccomp -c . | docker import - "$image" >/dev/null
    for list in deploy/seccomp/*.json; do
        runs_under "$list" || { cat "$folder/said"; echo "deploy: the engine does not take $list"; exit 1; }
    done
    sed 's/"action": "SCMP_ACT_ERRNO"/"action": "SCMP_ACT_ERROR"/' deploy/seccomp/disrust.json >"$folder/typo.json"
    if runs_under "$folder/typo.json"; then
        echo "deploy: a typo in a list of system calls is not noticed"
        exit 1
    fi
    echo "deploy: the engine takes deploy/seccomp"
fi

if ! command -v python3 >/dev/null; then
    echo "deploy: Kubernetes' files, the dashboard and the names in the lists skipped: there is no python3"
    exit 0
fi
if ! [ -x "$venv/bin/kubernetes-validate" ]; then
    { python3 -m venv "$venv" && timeout 120 "$venv/bin/python" -m pip install --quiet kubernetes-validate; } >/dev/null 2>&1 || true
fi
if [ -x "$venv/bin/kubernetes-validate" ]; then
    newest=$("$venv/bin/python" -c 'import kubernetes_validate; print(kubernetes_validate.latest_version())')
    for version in 1.34 "${newest%.*}"; do
        quietly "$venv/bin/kubernetes-validate" --kubernetes-version "$version" --strict deploy/kubernetes/*.yaml
        echo "deploy: Kubernetes $version takes deploy/kubernetes"
    done
    # Strict it must be: a typo is an error.
    sed 's/maxUnavailable/maxUnavailble/' deploy/kubernetes/deployment.yaml >"$folder/typo.yaml"
    if "$venv/bin/kubernetes-validate" --kubernetes-version 1.34 --strict "$folder/typo.yaml" >/dev/null 2>&1; then
        echo "deploy: a typo in a manifest is not noticed"
        exit 1
    fi
else
    echo "deploy: Kubernetes' files skipped: PyPI's kubernetes-validate cannot be installed"
fi

python3 scripts/deploy_check.py names
python3 scripts/deploy_check.py calls
if command -v prometheus >/dev/null; then
    [ -n "${PROGRAMS:-}" ] || cargo build --release --workspace --locked
    python3 scripts/deploy_check.py dashboard "${PROGRAMS:-$target/release}"
else
    echo "deploy: the dashboard's queries skipped: there is no Prometheus"
fi
