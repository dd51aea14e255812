"""What scripts/scale_out.sh does: replicas of disrust on loopback behind HAProxy with deploy/haproxy/haproxy.cfg as it is, under the
client's open loop, whose every answer is verified. Loopback only; it ends what it starts, and nothing else.

Usage: scale_out.py FOLDER_OF_PROGRAMS [--quick] [--rate RATE] [--table FILE]
"""

import argparse
import contextlib
import csv
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

TOP = pathlib.Path(__file__).resolve().parent.parent
CONFIG = TOP / "deploy/haproxy/haproxy.cfg"
NAMES = ["a", "b", "c"]
CONNECTIONS = 12
# From the fault to the state in which nothing is sent there; the checks of haproxy.cfg are made for it.
OUT_OF_ROTATION_MAX = 2.0
TICKS = os.sysconf("SC_CLK_TCK")


def fail(what):
    raise SystemExit(f"scale_out: {what}")


def free_ports(count):
    """Ports that were free at once; whoever takes one before us makes a start fail in words."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def wait_until(what, is_so, seconds=30.0):
    """How long it took."""
    begun = time.monotonic()
    while not is_so():
        if time.monotonic() - begun > seconds:
            fail(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)
    return time.monotonic() - begun


class Replica:
    """One server, which may be started again on its ports."""

    def __init__(self, stack, name, port, admin):
        self.stack, self.name, self.port, self.admin = stack, name, port, admin
        self.process = None

    def start(self):
        log = open(self.stack.folder / f"{self.name}.log", "ab")
        command = [self.stack.programs / "disrust", "--port", self.port, "--admin", f"127.0.0.1:{self.admin}", "--pin", "none",
                   "--io-threads", 1, "--shutdown-delay", "1500ms", "--max-connection-age", f"{self.stack.age}s"]
        self.process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
        log.close()
        wait_until(f"replica {self.name} starts", lambda: self.is_up() or self.process.poll() is not None)
        if self.process.poll() is not None:
            fail(f"replica {self.name} ended: {(self.stack.folder / (self.name + '.log')).read_text()}")

    def is_up(self):
        return self.metric("disrust_state", 'state="ready"') == 1

    def metric(self, name, label=None):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=2) as answer:
                text = answer.read().decode()
        except OSError:
            return None
        labels = r"\{[^}]*" + label + r"[^}]*\}" if label else ""
        found = re.search(rf"^{name}{labels} (\S+)$", text, re.M)
        return float(found[1]) if found else None

    def stop(self):
        """In order, as it promises."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        if status != 0:
            fail(f"replica {self.name} ended with {status}, not 0")

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


class Stack:
    def __init__(self, programs, folder, age):
        self.programs, self.folder, self.age = programs, folder, age
        ports = free_ports(7)
        self.port = ports[0]
        self.replicas = [Replica(self, *each) for each in zip(NAMES, ports[1:4], ports[4:7])]
        self.haproxy, self.loads = None, []

    def start_balancer(self):
        environment = os.environ | {"DISRUST_BALANCER": f"127.0.0.1:{self.port}", "DISRUST_BALANCER_SOCKET": str(self.folder / "haproxy.sock")}
        for replica in self.replicas:
            name = f"DISRUST_{replica.name.upper()}"
            environment |= {name: f"127.0.0.1:{replica.port}", f"{name}_ADMIN_PORT": str(replica.admin)}
        with open(self.folder / "haproxy.log", "ab") as log:
            # In the foreground, one process: its CPU time is the balancer's.
            self.haproxy = subprocess.Popen(["haproxy", "-db", "-f", str(CONFIG)], env=environment, stdout=log, stderr=log)
        wait_until("HAProxy starts", lambda: self.haproxy.poll() is not None or (self.folder / "haproxy.sock").exists())
        if self.haproxy.poll() is not None:
            fail(f"HAProxy ended: {(self.folder / 'haproxy.log').read_text()}")

    def balancer(self):
        """What HAProxy says of each replica."""
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(5)
            asked.connect(str(self.folder / "haproxy.sock"))
            asked.sendall(b"show stat\n")
            text = b"".join(iter(lambda: asked.recv(65536), b"")).decode()
        rows = csv.DictReader(text.removeprefix("# ").splitlines())
        return {row["svname"]: row for row in rows if row["pxname"] == "replicas" and row["svname"] in NAMES}

    def status(self, name):
        return self.balancer()[name]["status"]

    def wait_for(self, *up):
        def is_so():
            states = {name: row["status"] for name, row in self.balancer().items()}
            return all((states[name] == "UP") == (name in up) for name in NAMES)
        wait_until(f"HAProxy sees {', '.join(up)} and no other", is_so)

    def load(self, name, rate, seconds, port=None, server=None):
        """An open loop through the balancer, which counts what it is refused, and connects again."""
        path = self.folder / f"{name}.json"
        command = [self.programs / "client", port or self.port, "run", "--rate", rate, "--duration", f"{seconds}s", "--warmup", "500ms",
                   "--connections", CONNECTIONS, "--lag-limit", "1h", "--reconnect-on-close", "--json", path]
        if server:
            command += ["--server-pid", server]
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
        self.loads.append(process)
        return Load(name, process, path, self.folder / f"{name}.log")

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.haproxy.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def end(self):
        for process in self.loads + ([self.haproxy] if self.haproxy else []):
            if process.poll() is None:
                process.kill()
                process.wait()
        for replica in self.replicas:
            replica.end()


class Load:
    def __init__(self, name, process, path, log):
        self.name, self.process, self.path, self.log = name, process, path, log

    def is_running(self):
        return self.process.poll() is None

    def finish(self):
        """Its figures. The client ends with another status than 0 at a wrong or a missing answer."""
        status = self.process.wait(300)
        if status != 0:
            fail(f"{self.name}: the client ended with {status}:\n{self.log.read_text()}")
        figures = json.loads(self.path.read_text())["repeats"][0]
        if figures["answered"] == 0:
            fail(f"{self.name}: nothing was answered")
        return figures


def started(stack, count):
    for replica in stack.replicas[:count]:
        replica.start()
    stack.start_balancer()
    stack.wait_for(*NAMES[:count])


def milliseconds(figures, statistic):
    return f"{figures['response_ns'][statistic] / 1e6:.2f}"


def measure(stack, plan):
    """The table: without the balancer, and 1, 2, 3 replicas behind it."""
    print("| replicas | by | requests/s | p50 ms | p99 ms | p99.9 ms | HAProxy's CPU a request, µs |\n|---|---|---|---|---|---|---|", file=plan.out)
    stack.replicas[0].start()
    figures = stack.load("direct", plan.rate, plan.seconds, stack.replicas[0].port).finish()
    row(plan, 1, "themselves", figures, "")
    stack.start_balancer()
    for count in (1, 2, 3):
        if count > 1:
            stack.replicas[count - 1].start()
        stack.wait_for(*NAMES[:count])
        # A new one has its whole weight only after `slowstart`: leastconn spreads new connections by it.
        time.sleep(plan.settle)
        before = stack.cpu_seconds()
        figures = stack.load(f"{count}", plan.rate, plan.seconds).finish()
        spent = stack.cpu_seconds() - before
        row(plan, count, "HAProxy", figures, f"{spent * 1e6 / (figures['answered'] * (1 + 0.5 / plan.seconds)):.1f}")


def row(plan, count, by, figures, cpu):
    times = " | ".join(milliseconds(figures, statistic) for statistic in ("p50", "p99", "p99_9"))
    print(f"| {count} | {by} | {figures['achieved_per_second']:.0f} | {times} | {cpu} |", file=plan.out)


def rolling_restart(stack, plan):
    load = stack.load("rolling", plan.rate, plan.rolling_seconds)
    time.sleep(1)
    for replica in stack.replicas:
        if not load.is_running():
            fail("the load ended before the last replica was restarted")
        replica.stop()
        replica.start()
        wait_until(f"{replica.name} is back", lambda: stack.status(replica.name) == "UP")
    errors = {name: int(row["econ"]) for name, row in stack.balancer().items()}
    figures = load.finish()
    again = figures["reconnects"]
    if any(errors.values()):
        fail(f"connects to replicas failed: {errors}")
    if again["attempts_failed"]:
        fail(f"{again['attempts_failed']} connects were refused")
    if again["closed"] == 0:
        fail("no connection was closed: nothing was restarted under load")
    say(f"rolling restart of {len(stack.replicas)} replicas: {figures['answered']} answers, all right; {again['closed']} connections made again, "
        f"{again['refused']} requests refused (error 4), {again['lost']} lost with a connection, no connect refused")


def fault(stack, plan, name, replica, number):
    """A replica that is killed or frozen; how long HAProxy went on with it."""
    load = stack.load(name, plan.rate, 6)
    wait_until(f"{replica.name} serves connections", lambda: (replica.metric("disrust_connections") or 0) > 0)
    replica.process.send_signal(number)
    seconds = wait_until(f"{replica.name} is out of rotation", lambda: stack.status(replica.name).startswith("DOWN"), 10)
    if seconds > OUT_OF_ROTATION_MAX and not plan.quick:
        fail(f"{name}: out of rotation after {seconds:.2f} s")
    figures = load.finish()
    again = figures["reconnects"]
    if again["closed"] == 0:
        fail(f"{name}: no connection noticed it")
    say(f"{name}: out of rotation after {seconds:.2f} s; {figures['answered']} answers, all right; {again['lost']} requests lost with their connections")
    if number == signal.SIGSTOP:
        replica.process.send_signal(signal.SIGCONT)
    else:
        replica.process.wait()
        replica.start()
    wait_until(f"{replica.name} is back", lambda: stack.status(replica.name) == "UP")


def late_replica(stack, plan):
    """It comes when all connections are with the others; they come to it as they grow old."""
    late, others = stack.replicas[2], stack.replicas[:2]
    late.stop()
    stack.wait_for("a", "b")
    load = stack.load("late", plan.rate, 0.5 + stack.age * 2.6)
    wait_until("the others have all connections", lambda: sum(each.metric("disrust_connections") or 0 for each in others) >= CONNECTIONS)
    late.start()
    wait_until("the late one is in rotation", lambda: stack.status("c") == "UP")
    # One age and its tenth of jitter after that, at least every connection has been made again once. Its fair share is a third; while
    # it starts slowly it gets less, so half of that must be there.
    seconds = wait_until("the late replica has its share", lambda: (late.metric("disrust_connections") or 0) * 6 >= CONNECTIONS, stack.age * 1.2 + 1)
    wait_until("the load ends", lambda: not load.is_running(), 60 + stack.age * 3)
    figures = load.finish()
    say(f"a late replica: half of its fair share of {CONNECTIONS} connections after {seconds:.1f} s, with connections of at most {stack.age} s; "
        f"{figures['answered']} answers, all right; {figures['reconnects']['refused']} requests refused (error 4)")


def say(words):
    print(f"scale_out: {words}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("programs", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rate", default=None)
    parser.add_argument("--table", type=pathlib.Path)
    plan = parser.parse_args()
    plan.rate = plan.rate or ("500" if plan.quick else "5k")
    plan.seconds, plan.settle, plan.rolling_seconds = (2, 0, 30) if plan.quick else (10, 11, 45)
    plan.out = open(plan.table, "w") if plan.table else sys.stdout
    for name, scene, age in (("figures", measure, 600), ("rolling", rolling_restart, 600), ("faults", None, 600), ("late", late_replica, 6 if plan.quick else 15)):
        folder = pathlib.Path(tempfile.mkdtemp())
        stack = Stack(plan.programs.resolve(), folder, age)
        try:
            if name == "figures":
                measure(stack, plan)
            elif name == "faults":
                started(stack, 3)
                fault(stack, plan, "kill -9", stack.replicas[0], signal.SIGKILL)
                fault(stack, plan, "SIGSTOP", stack.replicas[1], signal.SIGSTOP)
            else:
                started(stack, 3)
                scene(stack, plan)
        finally:
            stack.end()
            shutil.rmtree(folder)
        plan.out.flush()
    say("all right")


main()
