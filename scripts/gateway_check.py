"""Talks to the gateway as its users do; run by gateway_check.sh. Usage: gateway_check.py FOLDER_OF_PROGRAMS"""

import asyncio
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import tritonclient.http as sync_http
import tritonclient.http.aio as aio_http
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

PROGRAMS = sys.argv[1]
FEATURES = 16
PATIENCE = 30
RANDOM = np.random.default_rng(17)


class Process:
    """A program that is ended when the block ends; its stderr is read until it says that it listens."""

    def __init__(self, program, *flags):
        self.log = tempfile.NamedTemporaryFile("w+", prefix="disrust-gateway-check-")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DISRUST_")}
        command = [os.path.join(PROGRAMS, program), *flags]
        self.child = subprocess.Popen(command, stderr=self.log, stdin=subprocess.DEVNULL, env=environment)
        found = wait_until(f"{program} listens", lambda: re.search(r"listening on (?:http://)?([0-9.]+:[0-9]+)", self.text()))
        self.address = found.group(1)

    def text(self):
        with open(self.log.name, encoding="utf-8") as log:
            return log.read()

    def end(self, how=signal.SIGTERM):
        self.child.send_signal(how)
        return self.child.wait(PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()


def wait_until(what, holds):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if found := holds():
            return found
        time.sleep(0.01)
    raise AssertionError(f"waited in vain: {what}")


def server(*flags):
    return Process("disrust", "--pin", "none", "--port", "0", *flags)


def gateway(*servers, flags=()):
    started = Process("disrust-gateway", "--listen", "127.0.0.1:0", "--server", ",".join(servers), *flags)
    with sync_http.InferenceServerClient(started.address) as client:
        wait_until("the gateway is ready", lambda: client.is_server_ready())
    return started


def rows_of(count, features=FEATURES):
    """Whole numbers, whose sums are exact in any order."""
    return RANDOM.integers(-1000, 1000, (count, features)).astype(np.float32)


def tensors(http, rows, binary_in=True, name="input"):
    tensor = http.InferInput(name, list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary_in)
    return [tensor]


def outputs(http, binary_out):
    return None if binary_out is None else [http.InferRequestedOutput("output", binary_data=binary_out)]


def assert_sums(rows, scores):
    expected = rows.sum(axis=1, dtype=np.float32)
    assert scores.dtype == np.float32 and np.array_equal(scores, expected, equal_nan=True), (scores, expected)


def refused(status, said, call):
    try:
        call()
    except InferenceServerException as error:
        assert error.status() == status and said in error.message(), (error.status(), error.message())
        return
    raise AssertionError(f"{said}: it was not refused")


# Each way to send and to ask, among them those that tritonclient takes by itself (None).
FORMS = [(binary_in, binary_out) for binary_in in (True, False) for binary_out in (True, False, None)]


def check_sync(address):
    with sync_http.InferenceServerClient(address, concurrency=4) as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("sum")
        assert client.is_model_ready("sum", "0000000000000000") and not client.is_model_ready("other")
        assert not client.is_model_ready("sum", "1")
        assert client.get_server_metadata()["name"] == "disrust-gateway"
        metadata = client.get_model_metadata("sum")
        assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, FEATURES]}], metadata
        assert metadata["outputs"] == [{"name": "output", "datatype": "FP32", "shape": [-1]}], metadata
        for binary_in, binary_out in FORMS:
            for count in (1, 2, 64, 65, 10_000):
                rows = rows_of(count)
                result = client.infer("sum", tensors(sync_http, rows, binary_in), outputs=outputs(sync_http, binary_out), request_id=f"r{count}")
                assert_sums(rows, result.as_numpy("output"))
                assert result.get_response()["id"] == f"r{count}"
            rows = rows_of(3)
            rows[1, 5], rows[2, 0] = np.nan, np.inf
            scores = client.infer("sum", tensors(sync_http, rows, binary_in), outputs=outputs(sync_http, binary_out)).as_numpy("output")
            assert scores[0] == rows[0].sum() and math.isnan(scores[1]), scores
            # JSON has no infinity.
            assert math.isinf(scores[2]) or (binary_out is False and math.isnan(scores[2])), (binary_out, scores)
        pending = [(rows, client.async_infer("sum", tensors(sync_http, rows))) for rows in (rows_of(n) for n in range(1, 40))]
        for rows, call in pending:
            assert_sums(rows, call.get_result().as_numpy("output"))
        assert_sums(rows_of(0), client.infer("sum", tensors(sync_http, rows_of(0))).as_numpy("output"))
        one = rows_of(1)
        refused("400", "the model takes [rows, 16]", lambda: client.infer("sum", tensors(sync_http, one[:, :15])))
        refused("400", 'no input "x"', lambda: client.infer("sum", tensors(sync_http, one, name="x")))
        refused("400", 'no output "y"', lambda: client.infer("sum", tensors(sync_http, one), outputs=[sync_http.InferRequestedOutput("y")]))
        wide = sync_http.InferInput("input", [1, FEATURES], "FP64")
        wide.set_data_from_numpy(one.astype(np.float64))
        refused("400", "datatype FP64", lambda: client.infer("sum", [wide]))
        refused("400", "several inputs", lambda: client.infer("sum", tensors(sync_http, one) * 2))
        refused("404", 'no model "other"', lambda: client.infer("other", tensors(sync_http, one)))
        refused("404", "no version", lambda: client.infer("sum", tensors(sync_http, one), model_version="7"))
        refused("415", "compressed", lambda: client.infer("sum", tensors(sync_http, one), request_compression_algorithm="gzip"))
        assert_sums(one, client.infer("sum", tensors(sync_http, one), timeout=PATIENCE * 1_000_000).as_numpy("output"))


async def check_asyncio(address):
    async with aio_http.InferenceServerClient(address) as client:
        assert await client.is_server_live() and await client.is_server_ready() and await client.is_model_ready("sum")
        assert (await client.get_model_metadata("sum"))["name"] == "sum"

        async def call(count, binary_in, binary_out):
            rows = rows_of(count)
            asked = outputs(aio_http, binary_out)
            result = await client.infer("sum", tensors(aio_http, rows, binary_in), outputs=asked)
            assert_sums(rows, result.as_numpy("output"))

        await asyncio.gather(*(call(count, *form) for form in FORMS for count in (1, 3, 64, 200)))
        await call(10_000, True, None)
        try:
            await client.infer("sum", tensors(aio_http, rows_of(1)[:, :15]))
            raise AssertionError("it was not refused")
        except InferenceServerException as error:
            assert error.status() == "400" and "[rows, 16]" in error.message(), error


def check_curl(address):
    def curl(*words, body=None):
        sent = subprocess.run(
            ["curl", "-s", "-w", "\n%{http_code} %{content_type}", *words], input=body, capture_output=True, check=True, timeout=PATIENCE
        )
        text, about = sent.stdout.decode().rsplit("\n", 1)
        status, media_type = about.split(" ", 1)
        return int(status), media_type, text

    assert curl(f"http://{address}/v2/health/ready")[:2] == (200, "application/json")
    assert curl("-I", f"http://{address}/v2/health/live")[0] == 200
    for count in (2, 50_000):  # The larger one is sent when it is asked for: Expect: 100-continue.
        rows = rows_of(count)
        body = {"inputs": [{"name": "input", "shape": list(rows.shape), "datatype": "FP32", "data": rows.tolist()}]}
        status, _, text = curl(f"http://{address}/v2/models/sum/infer", "--data-binary", "@-", body=json.dumps(body).encode())
        assert status == 200, text
        assert_sums(rows, np.array(json.loads(text)["outputs"][0]["data"], dtype=np.float32))
    status, media_type, text = curl(f"http://{address}/v2/models/sum/infer", "-d", "{}")
    assert (status, media_type) == (400, "application/json") and "no inputs" in json.loads(text)["error"]
    status, _, text = curl(f"http://{address}/v2/models/sum/infer", "--data-binary", "@-", body=b" " * (17 * 1024 * 1024))
    assert status == 413, (status, text)
    families = {family.name for family in text_string_to_metric_families(curl(f"http://{address}/metrics")[2])}
    assert {"disrust_gateway_requests", "disrust_gateway_request_duration_seconds"} <= families, families


def check_documents(address):
    """The blocks of docs/GATEWAY.md that ask for scores, as they stand but for the port."""
    with open("docs/GATEWAY.md", encoding="utf-8") as file:
        text = file.read().replace("127.0.0.1:8000", address)
    blocks = dict((language, code) for language, code in re.findall(r"```(\w+)\n(.*?)```", text, re.S) if language != "sh" or "curl" in code)
    if shutil.which("curl"):
        heard = subprocess.run(["bash", "-c", blocks["sh"]], capture_output=True, check=True, timeout=PATIENCE).stdout
        assert heard.decode().strip() == blocks["json"].strip(), heard
    printed = subprocess.run([sys.executable, "-c", blocks["python"]], capture_output=True, check=True, timeout=PATIENCE).stdout
    expected = blocks["python"].rsplit("# ", 1)[1].strip()
    assert printed.decode().strip() == expected, printed


def three_classes():
    """A LightGBM model of two features and three classes, each of which has a tree of one split."""
    tree = (
        "Tree={}\nnum_leaves=2\nnum_cat=0\nsplit_feature={}\nsplit_gain=1\nthreshold={}\ndecision_type=8\nleft_child=-1\nright_child=-2\n"
        "leaf_value={} {}\nleaf_weight=1 1\nleaf_count=1 1\ninternal_value=0\ninternal_weight=2\ninternal_count=2\nis_linear=0\n"
        "shrinkage=1\n\n\n"
    )
    trees = [tree.format(i, *t) for i, t in enumerate([(0, 0.5, 1, -1), (1, 0.5, 0.5, 0), (0, -0.5, -1, 1)])]
    return (
        "tree\nversion=v4\nnum_class=3\nnum_tree_per_iteration=3\nlabel_index=0\nmax_feature_idx=1\nobjective=multiclass num_class:3\n"
        f"feature_names=age income\nfeature_infos=[-10:10] [-10:10]\ntree_sizes={' '.join(str(len(t)) for t in trees)}\n\n"
        + "".join(trees)
        + "end of trees\n"
    )


def check_several_outputs():
    with tempfile.NamedTemporaryFile("w", prefix="disrust-", suffix=".txt") as file:
        file.write(three_classes())
        file.flush()
        with server("--model", file.name, "--output", "all", "--model-name", "classes") as scorer, gateway(scorer.address) as front:
            with sync_http.InferenceServerClient(front.address) as client:
                assert client.get_model_metadata("classes")["outputs"][0]["shape"] == [-1, 3]
                rows = np.array([[0, 0], [1, 1], [-1, 0.5]], dtype=np.float32)
                margins = np.array([[1, 0.5, 1], [-1, 0, 1], [1, 0.5, -1]])
                expected = np.exp(margins) / np.exp(margins).sum(axis=1, keepdims=True)
                for binary_in, binary_out in FORMS:
                    result = client.infer("classes", tensors(sync_http, rows, binary_in), outputs=outputs(sync_http, binary_out))
                    scores = result.as_numpy("output")
                    assert scores.shape == (3, 3) and np.allclose(scores, expected, atol=1e-6), scores


def check_closed_and_overloaded():
    with server() as scorer, gateway(scorer.address) as front:
        with sync_http.InferenceServerClient(front.address) as client:
            rows = rows_of(5)
            scorer.end()
            wait_until("it is not ready", lambda: not client.is_server_ready())
            assert client.is_server_live() and not client.is_model_ready("sum")
            refused("503", "", lambda: client.infer("sum", tensors(sync_http, rows)))
            with Process("disrust", "--pin", "none", "--port", scorer.address.rsplit(":", 1)[1]):
                wait_until("it is ready again", client.is_server_ready)
                assert_sums(rows, client.infer("sum", tensors(sync_http, rows)).as_numpy("output"))
    with server("--max-queue-delay", "1us") as scorer, gateway(scorer.address) as front:
        with sync_http.InferenceServerClient(front.address, concurrency=8) as client:
            shed = 0

            def ask():
                nonlocal shed
                rows = rows_of(10_000)
                try:
                    assert_sums(rows, client.infer("sum", tensors(sync_http, rows)).as_numpy("output"))
                except InferenceServerException as error:
                    assert error.status() == "429" and "overloaded" in error.message(), error
                    shed += 1
                return shed

            wait_until("a request is shed", ask)


def check_rolling_restart():
    """Five clients of each kind beside a restart of two servers, one after the other: right scores, or an error with a status."""
    with server() as one, server() as other, gateway(one.address, other.address) as front:
        stop, counts, wrong = threading.Event(), {"right": 0, "refused": 0}, []

        def sync_client():
            with sync_http.InferenceServerClient(front.address, network_timeout=PATIENCE) as client:
                while not stop.is_set():
                    rows = rows_of(int(RANDOM.integers(1, 300)))
                    try:
                        assert_sums(rows, client.infer("sum", tensors(sync_http, rows)).as_numpy("output"))
                        counts["right"] += 1
                    except InferenceServerException as error:
                        assert error.status() in ("429", "503"), error
                        counts["refused"] += 1

        async def aio_client():
            async with aio_http.InferenceServerClient(front.address) as client:
                while not stop.is_set():
                    rows = rows_of(int(RANDOM.integers(1, 300)))
                    try:
                        result = await asyncio.wait_for(client.infer("sum", tensors(aio_http, rows)), PATIENCE)
                        assert_sums(rows, result.as_numpy("output"))
                        counts["right"] += 1
                    except InferenceServerException as error:
                        assert error.status() in ("429", "503"), error
                        counts["refused"] += 1

        def keep(run):
            try:
                run()
            except BaseException as error:  # It is told at the end.
                wrong.append(error)

        async def five():
            await asyncio.gather(*(aio_client() for _ in range(5)))

        threads = [threading.Thread(target=keep, args=(sync_client,)) for _ in range(5)]
        threads.append(threading.Thread(target=keep, args=(lambda: asyncio.run(five()),)))
        for thread in threads:
            thread.start()
        new = []
        for old in (one, other):
            time.sleep(0.5)
            port = old.address.rsplit(":", 1)[1]
            assert old.end() == 0
            new.append(Process("disrust", "--pin", "none", "--port", port))
            with sync_http.InferenceServerClient(front.address) as client:
                wait_until("it is up again", lambda: front.text().count(f"server {old.address}: ready") == 2 and client.is_server_ready())
        time.sleep(0.5)
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a client hangs"
        for process in new:
            with process:
                pass
        assert not wrong, wrong
        assert counts["right"] > 100 and counts["refused"] == 0, counts
        return counts["right"]


def main():
    with server() as scorer, gateway(scorer.address) as front:
        check_sync(front.address)
        print("gateway: tritonclient, sync: health, metadata, each form of tensors, errors")
        asyncio.run(check_asyncio(front.address))
        print("gateway: tritonclient, asyncio: the same")
        if shutil.which("curl"):
            check_curl(front.address)
            print("gateway: curl, with and without Expect: 100-continue; metrics are read by prometheus_client")
        check_documents(front.address)
        print("gateway: the blocks of docs/GATEWAY.md do what they say")
        assert front.end() == 0, front.text()
    check_several_outputs()
    print("gateway: a model with several outputs")
    check_closed_and_overloaded()
    print("gateway: servers that are closed, and overloaded")
    right = check_rolling_restart()
    print(f"gateway: ten clients beside a rolling restart of two servers: {right} calls, all right")


main()
