"""What scripts/deploy_check.sh asks of deploy/ beyond the checkers of others: that every metric exists which a rule, a panel or the
autoscaler names; that every alert has its place in the runbook; that the lists of system calls have no misspelt key or call, which engines
pass over in silence; and that each query of the dashboard finds something in a Prometheus that scrapes a server under load. Loopback only;
it ends what it starts.

Usage: deploy_check.py names | deploy_check.py calls | deploy_check.py dashboard FOLDER_OF_PROGRAMS
"""

import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

TOP = pathlib.Path(__file__).resolve().parent.parent
DASHBOARD = TOP / "deploy/grafana/dashboards/disrust.json"
RULES = [TOP / "deploy/prometheus/rules.yml", TOP / "deploy/prometheus/alerts.yml"]
AUTOSCALER = TOP / "deploy/kubernetes/autoscaler.yaml"
RUNBOOK = TOP / "docs/OPERATIONS.md"

# Panels that have nothing to show while all is well, and why.
NOTHING_WHILE_WELL = {"Firing alerts": "no alert fires on a server that is well"}


def panels():
    """The panels that ask something."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel.get("targets")]


def check_names():
    text = RUNBOOK.read_text()
    table = text.split("<!-- metrics:prometheus -->")[1].split("<!-- /metrics:prometheus -->")[0]
    kinds = dict(re.findall(r"^\| `([a-z0-9_]+)` \| (\w+) ", table, re.M))
    known = set(kinds) | {f"{name}_{end}" for name, kind in kinds.items() if kind == "histogram" for end in ("bucket", "sum", "count")}
    rules = "\n".join(path.read_text() for path in RULES)
    recorded = set(re.findall(r"- record: (\S+)", rules))
    asked = "\n".join(target["expr"] for panel in panels() for target in panel["targets"])
    asked += "\n" + "\n".join(note["expr"] for note in json.loads(DASHBOARD.read_text())["annotations"]["list"])
    rules_code = "\n".join(line for line in rules.splitlines() if not line.lstrip().startswith(("#", "runbook:")))
    faults = []
    for where, what in (("the rules", rules_code), ("the dashboard", asked), ("the autoscaler", AUTOSCALER.read_text())):
        for name in sorted(set(re.findall(r"(?:instance:)?(?:disrust|process)_[a-z0-9_]+(?::[a-z0-9_]+)?", what))):
            # The last one is what the autoscaler calls its metric.
            if name not in known | recorded | {"disrust_busy_ratio"}:
                faults.append(f"{where} name {name}, which does not exist")
    alerts = re.findall(r"- alert: (\w+)", rules)
    for alert in alerts:
        if f"runbook: docs/OPERATIONS.md#{alert.lower()}\n" not in rules or f"\n### {alert}\n" not in text:
            faults.append(f"{alert} has no place in the runbook")
    for heading in re.findall(r"^### (Disrust\w+)$", text, re.M):
        if heading not in alerts:
            faults.append(f"the runbook has {heading}, which is no alert")
    if faults:
        sys.exit("deploy: " + "\ndeploy: ".join(faults))
    print(f"deploy: {len(recorded)} recorded metrics, {len(alerts)} alerts and {len(panels())} panels name what there is")


def check_calls():
    headers = [path for name in ("asm/unistd_64.h", "asm-generic/unistd.h") for path in pathlib.Path("/usr/include").glob(f"**/{name}")]
    known = set(re.findall(r"^#define __NR_(\w+)", "\n".join(path.read_text() for path in headers), re.M))
    keys = {"comment", "names", "action", "args", "errnoRet"}
    lists = sorted((TOP / "deploy/seccomp").glob("*.json"))
    faults = []
    for path in lists:
        profile = json.loads(path.read_text())
        faults += [f"{path.name}: what is {key}?" for key in profile.keys() - {"comment", "defaultAction", "architectures", "syscalls"}]
        for group in profile["syscalls"]:
            faults += [f"{path.name}: what is {key}?" for key in group.keys() - keys]
            faults += [f"{path.name}: an argument is not whole" for each in group.get("args", []) if not {"index", "value", "op"} <= each.keys()]
            faults += [f"{path.name}: there is no call {name}" for name in group["names"] if headers and name not in known]
            if group["names"] != sorted(set(group["names"])):
                faults.append(f"{path.name}: not in order: {group['names']}")
    if faults or not lists:
        sys.exit("deploy: " + "\ndeploy: ".join(faults or ["no list is found"]))
    print(f"deploy: {len(lists)} lists of system calls name what there is" + ("" if headers else ", as far as can be seen without Linux' headers"))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Stack:
    """A server, a load and a Prometheus, which end with it."""

    def __init__(self, programs, folder):
        self.folder, self.running = folder, []
        self.log = folder / "server.log"
        self.server = self.start([programs / "disrust", "--port", "0", "--admin", "127.0.0.1:0", "--pin", "none", "--io-threads", "2"], self.log)
        port = self.said(r"^listening on .*:(\d+)")
        admin = self.said(r"^admin on http://(\S+)/$")
        self.start([programs / "client", port, "run", "--rate", "2k", "--duration", "10m", "--warmup", "0s", "--lag-limit", "1h"], folder / "load.log")
        config = folder / "prometheus"
        shutil.copytree(TOP / "deploy/prometheus", config)
        (config / "targets.yml").write_text(f"- targets: ['{admin}']\n")
        # The files that users run, at another pace: a minute's rate needs a minute.
        path = config / "prometheus.yml"
        path.write_text(re.sub(r"(scrape|evaluation)_interval: \w+", r"\1_interval: 1s", path.read_text()))
        path = config / "rules.yml"
        path.write_text(re.sub(r"\[[15]m\]", "[10s]", path.read_text()))
        self.port = free_port()
        self.start(["prometheus", f"--config.file={config}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"], folder / "prometheus.log")

    def start(self, command, log):
        with open(log, "wb") as file:
            process = subprocess.Popen([str(word) for word in command], stdout=file, stderr=file, cwd=self.folder)
        self.running.append(process)
        return process

    def said(self, pattern):
        for _ in range(400):
            found = re.search(pattern, self.log.read_text(), re.M)
            if found:
                return found[1]
            time.sleep(0.05)
        sys.exit(f"deploy: the server did not start:\n{self.log.read_text()}")

    def ask(self, expression):
        for name, value in (("$job", "disrust"), ("$instance", ".*"), ("$__rate_interval", "10s")):
            expression = expression.replace(name, value)
        address = f"http://127.0.0.1:{self.port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            sys.exit(f"deploy: Prometheus refuses {expression}: {error.read().decode()}")
        except OSError:
            return []

    def end(self):
        for process in reversed(self.running):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def check_dashboard(programs):
    folder = pathlib.Path(tempfile.mkdtemp())
    stack = Stack(programs, folder)
    try:
        missing = {(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]
                   if panel["title"] not in NOTHING_WHILE_WELL}
        count = len(missing)
        # What is found later counts: the first rate takes two scrapes, a rule one more turn.
        until = time.monotonic() + 60
        while missing and time.monotonic() < until:
            time.sleep(1)
            # NaN is a value too, but one that shows nothing.
            missing = {(title, expr) for title, expr in missing
                       if not any(sample["value"][1] not in ("NaN", "+Inf") for sample in stack.ask(expr))}
        for title in NOTHING_WHILE_WELL:
            for panel in panels():
                if panel["title"] == title:
                    for target in panel["targets"]:
                        if found := stack.ask(target["expr"]):
                            sys.exit(f"deploy: panel {title!r} should show nothing, and shows {found}")
        if missing:
            log = (folder / "load.log").read_text() + (folder / "prometheus.log").read_text()
            sys.exit(log + "".join(f"deploy: panel {title!r} shows nothing: {expr}\n" for title, expr in sorted(missing)))
        print(f"deploy: {count} queries of the dashboard find something in a Prometheus that scrapes a server under load")
    finally:
        stack.end()
        shutil.rmtree(folder)


match sys.argv[1:]:
    case ["names"]:
        check_names()
    case ["calls"]:
        check_calls()
    case ["dashboard", programs]:
        check_dashboard(pathlib.Path(programs).resolve())
    case _:
        sys.exit(__doc__)
