#!/usr/bin/env bash
# Has others read what /metrics says, before, during and after load: the parser of PyPI's prometheus_client, which has a folder of
# its own, target/metrics_check, and `promtool check metrics` of Debian's package prometheus, which must have no complaint.
# What is not here and cannot be installed is "skipped". Takes a few seconds once the server and the client are built; or takes the
# programs from the folder PROGRAMS.
# Usage: [PROGRAMS=FOLDER] scripts/metrics_check.sh
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
venv=$target/metrics_check
python=$venv/bin/python
if ! "$python" -c 'import prometheus_client' 2>/dev/null; then
    if ! command -v python3 >/dev/null; then
        echo "metrics: prometheus_client skipped: there is no python3"
        python=
    elif ! { python3 -m venv "$venv" && timeout 120 "$python" -m pip install --quiet prometheus_client; }; then
        echo "metrics: prometheus_client skipped: PyPI's cannot be installed"
        python=
    fi
fi
promtool=$(command -v promtool || true)
if [ -z "$promtool" ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    # Without what Debian recommends beside it; nothing of it is started.
    { timeout 120 apt-get update && timeout 600 apt-get install --yes --no-install-recommends prometheus; } >/dev/null 2>&1 || true
    promtool=$(command -v promtool || true)
fi
[ -n "$promtool" ] || echo "metrics: promtool skipped: Debian's prometheus is not here and cannot be installed"
if [ -z "$python$promtool" ]; then
    exit 0
fi

programs=${PROGRAMS:-$target/release}
[ -n "${PROGRAMS:-}" ] || cargo build --release --workspace --locked
folder=$(mktemp -d)
"$programs/disrust" --port 0 --pin none --io-threads 2 --admin 127.0.0.1:0 --model-name 'a "name" \' 2>"$folder/log" &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; rm -rf "$folder"' EXIT
for _ in $(seq 200); do
    grep -q '^timeouts: ' "$folder/log" && break
    sleep 0.05
done
port=$(sed -n 's/^listening on .*:\([0-9]*\).*$/\1/p' "$folder/log")
admin=$(sed -n 's#^admin on http://\(.*\)/$#\1#p' "$folder/log")

# One scrape, to a file: bash has TCP itself, so that no other program is needed.
scrape() {
    exec 3<>"/dev/tcp/${admin%:*}/${admin##*:}"
    printf 'GET /metrics HTTP/1.1\r\nHost: disrust\r\n\r\n' >&3
    sed '1,/^\r$/d' <&3 >"$folder/$1"
    exec 3>&-
}

check() {
    if [ -n "$promtool" ]; then
        said=$("$promtool" check metrics <"$folder/$1" 2>&1) || { echo "promtool, $1: $said"; exit 1; }
        [ -z "$said" ] || { echo "promtool, $1: $said"; exit 1; }
    fi
    if [ -n "$python" ]; then
        "$python" - "$folder/$1" <<'END'
import math, sys
from prometheus_client.parser import text_string_to_metric_families

families = {family.name: family for family in text_string_to_metric_families(open(sys.argv[1], encoding="utf-8").read())}
assert len(families) > 30, f"{len(families)} families"
for family in families.values():
    assert family.type != "unknown" and family.documentation and family.samples, f"{family.name} is {family.type}"
    assert all(math.isfinite(sample.value) for sample in family.samples), family.name
    if family.type == "histogram":
        buckets = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]
        count = next(sample.value for sample in family.samples if sample.name.endswith("_count"))
        assert buckets == sorted(buckets) and buckets[-1] == count, f"{family.name}: {buckets}, {count}"
name = next(iter(families["disrust_model_info"].samples)).labels["name"]
assert name == 'a "name" \\', name
print(f"metrics: {len(families)} families are read")
END
    fi
}

scrape before
"$programs/client" "$port" bench 16 100000 >"$folder/client" 2>&1 &
client=$!
answered() { sed -n 's/^disrust_requests_total{result="ok"} //p' "$folder/$1"; }
scrape during
for _ in $(seq 200); do
    [ "$(answered during)" -gt 0 ] && break
    scrape during
done
wait "$client" || { cat "$folder/client"; exit 1; }
scrape after
for moment in before during after; do check "$moment"; done
# The load is in it.
if [ "$(answered before)" -ne 0 ] || [ "$(answered during)" -eq 0 ] || [ "$(answered after)" -lt 100000 ]; then
    echo "metrics: $(answered before), $(answered during), $(answered after) requests before, during and after 100000"
    exit 1
fi
echo "metrics: sound before, during and after $(answered after) requests${promtool:+, promtool has no complaint}"
