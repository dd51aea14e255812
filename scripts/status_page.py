"""What scripts/status_page.sh looks at: the status page of a server of its own, in headless Chromium.

Nothing here measures a time: a deadline is only where it gives up.
"""

import argparse
import json
import pathlib
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import axe_core_python
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

PATIENCE = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(what, holds):
    """Waits until something holds, and returns what that gave."""
    give_up_at = time.monotonic() + PATIENCE
    while not (held := holds()):
        if time.monotonic() > give_up_at:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(0.1)
    return held


class Server:
    """A server with a load on it that lasts for as long as it is looked at."""

    def __init__(self, programs, *flags):
        self.programs, self.log = programs, tempfile.TemporaryFile("w+")
        self.port, admin = free_port(), free_port()
        self.url = f"http://127.0.0.1:{admin}/"
        words = ["--port", str(self.port), "--admin", f"127.0.0.1:{admin}", *flags]
        self.process = subprocess.Popen([programs / "disrust", *words], stdin=subprocess.DEVNULL, stderr=self.log)
        wait_until("it serves", lambda: "timeouts: " in self.said() or self.process.poll() is not None)
        assert self.process.poll() is None, self.said()

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def load(self, seconds, rate="20k", connections=40, *flags):
        words = [str(self.port), "run", "--rate", rate, "--connections", str(connections), "--warmup", "0s"]
        words += ["--duration", f"{seconds}s", *(flags or ["--vectors", "1:80,16:20"])]
        return subprocess.Popen([self.programs / "client", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class Browser:
    """A window that notes what its page complains about and asks for."""

    def __init__(self, width, height, dark=False, script=True):
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for flag in ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.driver.quit()

    def open(self, url):
        self.driver.get(url)
        return self

    def text(self, selector):
        """What can be seen of an element."""
        script = "const node = document.querySelector(arguments[0]); return node.checkVisibility() ? node.innerText : ''"
        return self.driver.execute_script(script, selector)

    def cells(self, table):
        """A table's body, as text."""
        rows = "return [...document.querySelectorAll(arguments[0] + ' tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"
        return self.driver.execute_script(rows, table)

    def value(self, chart):
        """The value that stands beside a chart's title."""
        script = """return [...document.querySelectorAll('figure')].find(figure => figure.querySelector('h2').innerText === arguments[0])
            .querySelector('output').innerText"""
        return self.driver.execute_script(script, chart)

    def complaints(self):
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def asked_for(self):
        events = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        return {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}

    def width(self):
        """How wide the page is, and how wide the window."""
        return self.driver.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")

    def violations(self):
        """What axe-core, which knows the Web Content Accessibility Guidelines, has against the page: contrast among it."""
        axe = pathlib.Path(axe_core_python.__file__).with_name("axe.min.js").read_text()
        self.driver.execute_script(axe)
        found = self.driver.execute_async_script("axe.run().then(arguments[0])")
        return [f"{each['id']}: {each['help']}: {each['nodes'][0]['html']}" for each in found["violations"]]

    def picture(self, path):
        self.driver.save_screenshot(str(path))


def takes_the_picture(programs, pictures):
    """That of the documents: five minutes of a model's life."""
    model = "model/tests/data/lightgbm/binary.txt"
    rows, scores = pictures / "rows.csv", pictures / "scores.csv"
    rows.write_text("".join(",".join(f"{random.gauss(0, 1):.3f}" for _ in range(6)) + "\n" for _ in range(10_000)))
    verify = [programs / "disrust", "verify", "--model", model, "--inputs", rows, "--scores", scores]
    subprocess.run(verify, check=True, stdout=subprocess.DEVNULL)
    with Server(programs, "--model", model, "--model-name", "credit-risk") as server, Browser(1200, 1500) as browser:
        browser.open(server.url)
        for part, rate in enumerate(["8k", "12k", "10k", "16k", "24k", "20k", "14k", "12k", "10k", "12k"]):
            if part == 6:
                server.process.send_signal(signal.SIGHUP)
            if part == 7:
                with socket.create_connection(("127.0.0.1", server.port)) as stranger:
                    stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    stranger.recv(1)
            flags = ["--features", "6", "--expect", str(rows), str(scores), "--vectors", "1:60,8:30,64:10"]
            load = server.load(30, rate, 40 + 8 * part, *flags)
            if part < 9:
                load.wait()
        time.sleep(10)
        browser.picture(pictures / "status-page.png")
        load.kill()
        load.wait()


def number(text):
    """Such as 12.3 k; in its first second a server has no figure yet, and there is a dash."""
    if text.strip() == "–":
        return 0.0
    match = re.fullmatch(r"([0-9.]+)\s*([kMG]?).*", text.strip())
    assert match, text
    return float(match[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[match[2]]


def looks_right_under_load(programs, pictures):
    with Server(programs) as server, Browser(1200, 1500) as browser:
        browser.open(server.url)
        wait_until("figures are shown", lambda: browser.text("#facts"))
        assert browser.text("#badges").strip() == "ready", browser.text("#badges")
        idle = browser.value("Requests")
        load = server.load(2 * PATIENCE)
        try:
            wait_until(f"requests move from {idle}", lambda: number(browser.value("Requests")) > 1000)
            wait_until("response times are shown", lambda: browser.value("Response time").count("s") >= 3)
            wait_until("connections are shown", lambda: number(browser.value("Connections")) >= 40)
            first = browser.cells("#totals")
            wait_until("counters move", lambda: browser.cells("#totals") != first)
            assert any("io-0" in row[0] and "%" in row[2] for row in browser.cells("#threads")), browser.cells("#threads")
            wait_until("top connections are shown", lambda: any("127.0.0.1" in row[0] for row in browser.cells("#top")))
            lines = "return [...document.querySelectorAll('.plot path.line')].filter(path => path.getAttribute('d').includes('L')).length"
            wait_until("lines are drawn", lambda: browser.driver.execute_script(lines) >= 7)
            assert (found := browser.violations()) == [], "\n".join(found)
            looks_right_in_other_windows(server, pictures)
        finally:
            load.kill()
            load.wait()
        assert browser.complaints() == [], browser.complaints()
        others = {url for url in browser.asked_for() if not url.startswith((server.url, "chrome:", "data:"))}
        assert not others, others


def looks_right_in_other_windows(server, pictures):
    backgrounds = set()
    for name, width, height, dark in [("dark", 1200, 1500, True), ("phone", 320, 1200, False), ("tablet", 768, 1200, False)]:
        with Browser(width, height, dark) as browser:
            browser.open(server.url)
            wait_until("figures are shown", lambda: browser.text("#facts"))
            page, window = browser.width()
            assert page <= window == width, f"{name}: the page is {page} wide, the window {window}"
            backgrounds.add((dark, browser.driver.execute_script("return getComputedStyle(document.body).backgroundColor")))
            assert (found := browser.violations()) == [], name + ": " + "\n".join(found)
            assert browser.complaints() == [], browser.complaints()
            if pictures:
                browser.picture(pictures / f"{name}.png")
    assert len({color for _, color in backgrounds}) == 2, backgrounds


def is_readable_without_script(programs, pictures):
    with Server(programs, "--model-name", "<b>sum</b>") as server, Browser(320, 1200, script=False) as browser:
        browser.open(server.url)
        text = browser.driver.find_element("tag name", "main").text
        for said in ["Without script", "State ready", "Model <b>sum</b>", "Open connections 0", "disrust_requests_total"]:
            assert said in text, f"{said}: {text}"
        page, window = browser.width()
        assert page <= window, f"the page is {page} wide, the window {window}"
        if pictures:
            browser.picture(pictures / "no_script.png")


def deaf_peer(port):
    """One that asks and does not read: a drain waits for it, until it goes."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect(("127.0.0.1", port))
    peer.settimeout(1)
    request = struct.pack("<I64f", 64, *[1.0] * 64)
    try:
        while True:
            peer.sendall(100 * request)
    except TimeoutError:
        return peer


def says_when_the_server_ends(programs, pictures):
    flags = ["--features", "1", "--shutdown-delay", "10s", "--drain-timeout", "1h"]
    with Server(programs, *flags) as server, Browser(1200, 900) as browser:
        browser.open(server.url)
        wait_until("it is ready", lambda: browser.text("#badges").strip() == "ready")
        peer = deaf_peer(server.port)
        server.process.send_signal(signal.SIGTERM)
        wait_until("leaving shows", lambda: browser.text("#badges").strip() == "leaving")
        wait_until("draining shows", lambda: browser.text("#badges").strip() == "draining")
        if pictures:
            browser.picture(pictures / "draining.png")
        assert browser.complaints() == [], browser.complaints()
        peer.close()
        assert server.process.wait(PATIENCE) == 0, server.said()
        wait_until("the page says so", lambda: "No answer from the server since" in browser.text("#lost"))
        assert re.search(r"since \d\d:\d\d:\d\d \(", browser.text("#lost")), browser.text("#lost")
        if pictures:
            browser.picture(pictures / "gone.png")


def says_when_the_server_hangs(programs, _pictures):
    with Server(programs) as server, Browser(1200, 900) as browser:
        browser.open(server.url)
        wait_until("it is ready", lambda: browser.text("#badges").strip() == "ready")
        server.process.send_signal(signal.SIGSTOP)
        wait_until("the page says so", lambda: "No answer from the server since" in browser.text("#lost"))
        server.process.send_signal(signal.SIGCONT)
        wait_until("it is over", lambda: browser.text("#lost") == "" and browser.text("#badges").strip() == "ready")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", type=pathlib.Path)
    parser.add_argument("--pictures", type=pathlib.Path, metavar="FOLDER", help="keep pictures of the page there, for people")
    options = parser.parse_args()
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    if options.pictures:
        takes_the_picture(options.programs, options.pictures)
    for check in [looks_right_under_load, is_readable_without_script, says_when_the_server_ends, says_when_the_server_hangs]:
        check(options.programs, options.pictures)
        print("status page:", check.__name__.replace("_", " "), flush=True)


if __name__ == "__main__":
    sys.exit(main())
