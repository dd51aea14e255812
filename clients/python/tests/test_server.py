"""Both clients with the real server."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import pathlib
import shutil
import signal
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from stub import sums
from support import PATIENCE, TOP, Server

from disrust import (
    AsyncClient,
    Client,
    ColumnMismatch,
    ConnectionFailed,
    DisrustError,
    Model,
    ModelMismatch,
    ProtocolError,
    ShapeError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS = TOP / "model/tests/data/lightgbm"


def rows(count: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal((count, 16), dtype=np.float32)


def table(name: str) -> Any:
    """A file of numbers, in which nothing stands for a missing one."""
    with (MODELS / name).open(newline="") as file:
        lines = [line for line in csv.reader(file) if line]
    return np.array([[float(cell) if cell else np.nan for cell in line] for line in lines])


def version_of(path: pathlib.Path) -> int:
    return int(hashlib.sha256(path.read_bytes()).hexdigest()[:16], 16)


def test_what_it_says_of_its_model(client_of: Any, server: Server) -> None:
    with client_of(server.address) as client:
        assert client.connect() == client.model == client.hello() == Model("sum", 0, 16, 1, 64)
        for wrong in (15, 17):
            with pytest.raises(ShapeError, match=f"16 features, and these rows have {wrong}"):
                client.predict(np.ones((2, wrong)))
    with client_of(server.address, features=15) as client, pytest.raises(ModelMismatch):
        client.predict(np.ones((2, 15)))


def test_a_reload_is_told(client_of: Any, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "scores.txt"
    shutil.copy(MODELS / "binary.txt", path)
    X = np.ones((3, 6))
    with Server("--model", str(path)) as server, client_of(server.address) as client:
        before = client.predict(X)
        assert client.hello().version == version_of(path)
        shutil.copy(MODELS / "regression.txt", path)
        server.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE
        while client.hello().version != version_of(path):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert client.model.version == version_of(path)
        assert not np.array_equal(client.predict(X), before)


@pytest.mark.parametrize(
    "flags", [["--features", "17"], ["--model", str(MODELS / "multiclass.txt"), "--output", "all"]]
)
def test_another_model_after_a_restart_is_an_error(client_of: Any, flags: list[str]) -> None:
    with Server() as server, client_of(server.address) as client:
        X = rows(3)
        assert np.array_equal(client.predict(X), sums(X))
        server.stop()
        with Server(*flags, port=server.port), pytest.raises(ModelMismatch, match="make a new client"):
            client.predict(X)


@pytest.mark.parametrize("features", [1, 2, 3, 16])
def test_conversations_of_all_clients(client_of: Any, features: int) -> None:
    """The rows that clients/vectors.json has for the model `sum`."""
    conversations = json.loads((TOP / "clients/vectors.json").read_text())["conversations"]
    with Server("--features", str(features)) as server, client_of(server.address) as client:
        asked = 0
        for conversation in conversations:
            if conversation["server"] != "sum" or conversation["feature_dim"] != features:
                continue
            for sent, received in zip(conversation["sent"], conversation["received"]):
                request, answer = bytes.fromhex(sent), bytes.fromhex(received)
                if answer[0] == 0:
                    continue
                X = np.frombuffer(request[4:], "<f4").reshape(-1, features)
                expected = np.frombuffer(answer[1:], "<f4")
                assert np.array_equal(client.predict(X), expected, equal_nan=True)
                asked += 1
        assert asked > 0


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 5000, 60_000])
def test_rows(client_of: Any, server: Server, count: int) -> None:
    with client_of(server.address) as client:
        for seed in range(3):
            X = rows(count, seed)
            assert np.array_equal(client.predict(X), sums(X))


def test_a_unix_socket(client_of: Any, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "socket"
    with Server("--unix", str(path)), client_of(f"unix:{path}") as client:
        for count in (1, 64, 700):
            X = rows(count)
            assert np.array_equal(client.predict(X), sums(X))


def test_not_a_number_comes_through(client_of: Any, server: Server) -> None:
    X = rows(3)
    X[0, 3], X[1, 5] = np.nan, np.inf
    with client_of(server.address) as client:
        scores = client.predict(X)
    assert np.isnan(scores[0])
    assert scores[1] == np.inf
    assert scores[2] == sums(X)[2]


def test_several_outputs(client_of: Any) -> None:
    inputs, expected = table("multiclass.inputs.csv"), table("multiclass.expected.csv")
    assert expected.shape[1] > 1
    path, expected_shape = MODELS / "multiclass.txt", (inputs.shape[1], expected.shape[1])
    with Server("--model", str(path), "--output", "all") as server:
        with client_of(server.address) as client:
            assert client.connect() == Model("multiclass", version_of(path), *expected_shape, 64)
            scores = client.predict(inputs)
            assert scores.shape == expected.shape
            assert np.allclose(scores, expected, rtol=1e-5, atol=1e-6)


def test_names_of_the_features(client_of: Any) -> None:
    with Server("--model", str(MODELS / "binary.txt"), "--admin", "127.0.0.1:0") as server:
        names = [f"Column_{index}" for index in range(6)]
        frame = pd.DataFrame(np.ones((3, 6)), columns=names)
        turned = frame[names[::-1]]
        with client_of(server.address, admin=server.admin) as client:
            scores = client.predict(frame)
            assert np.array_equal(client.predict(frame.to_numpy()), scores)
            with pytest.raises(ColumnMismatch, match="Column_5"):
                client.predict(turned)
        with client_of(server.address, columns=names, admin=f"http://{server.admin}/") as client:
            assert np.array_equal(client.predict(frame), scores)
        for wrong in (names[::-1], names[:5], ["a"] * 6):
            with client_of(server.address, columns=wrong, admin=server.admin) as client, pytest.raises(DisrustError):
                client.predict(np.ones((3, len(wrong))))
        with client_of(server.address, admin="127.0.0.1:1") as client, pytest.raises(ConnectionFailed):
            client.predict(frame)
        with client_of(server.address, admin=server.address) as client, pytest.raises(DisrustError):
            client.predict(frame)


def test_a_model_without_names_is_compared_with_nothing(client_of: Any, server: Server) -> None:
    columns = [f"c{index}" for index in range(16)]
    with client_of(server.address, columns=columns, admin=server.admin) as client:
        assert client.predict(pd.DataFrame(np.ones((1, 16)), columns=columns)).tolist() == [16.0]


def test_threads_and_tasks(server: Server) -> None:
    def threads() -> None:
        with Client(server.address, timeout=PATIENCE) as client:
            run_all([partial(calls, client, seed) for seed in range(6)])

    def calls(client: Client, seed: int) -> None:
        for count in np.random.default_rng(seed).integers(1, 300, 100):
            X = rows(int(count), seed)
            assert np.array_equal(client.predict(X), sums(X))

    async def tasks() -> None:
        async with AsyncClient(server.address, timeout=PATIENCE) as client:

            async def task(seed: int) -> None:
                for count in np.random.default_rng(seed).integers(1, 300, 20):
                    X = rows(int(count), seed)
                    assert np.array_equal(await client.predict(X), sums(X))

            await asyncio.gather(*(task(seed) for seed in range(40)))

    threads()
    asyncio.run(tasks())


def run_all(works: list[Callable[[], None]]) -> None:
    """Each on a thread of its own; none may fail or last."""
    failures: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
        assert not thread.is_alive(), "a client hangs"
    if failures:
        raise failures[0]


def test_a_rolling_restart_of_two_servers() -> None:
    """Five clients of each kind: every call has its own numbers, or a typed error, and none hangs."""
    servers = [Server("--reuse-port"), Server("--reuse-port")]
    addresses = [server.address for server in servers]
    is_over = threading.Event()
    right: list[int] = []
    failed: list[DisrustError] = []

    def blocking(seed: int) -> None:
        generator = np.random.default_rng(seed)
        with Client(addresses, timeout=PATIENCE) as client:
            while not is_over.is_set():
                X = rows(int(generator.integers(1, 400)), seed)
                try:
                    assert np.array_equal(client.predict(X), sums(X))
                    right.append(len(X))
                except DisrustError as error:
                    failed.append(error)

    async def asynchronous(seed: int) -> None:
        async with AsyncClient(addresses, timeout=PATIENCE) as client:

            async def caller(number: int) -> None:
                generator = np.random.default_rng([seed, number])
                while not is_over.is_set():
                    X = rows(int(generator.integers(1, 400)), seed)
                    try:
                        assert np.array_equal(await client.predict(X), sums(X))
                        right.append(len(X))
                    except DisrustError as error:
                        failed.append(error)

            await asyncio.gather(*(caller(number) for number in range(4)))

    def in_a_loop(seed: int) -> None:
        asyncio.run(asynchronous(seed))

    def restarts() -> None:
        try:
            for index, old in enumerate(list(servers)):
                servers[index] = Server("--reuse-port", port=old.port)
                before = len(right)
                old.stop()
                assert len(right) > before, "calls go on while a server drains"
        finally:
            is_over.set()

    works: list[Callable[[], None]] = [partial(blocking, seed) for seed in range(5)]
    works += [partial(in_a_loop, seed) for seed in range(5)]
    try:
        run_all([*works, restarts])
    finally:
        for server in servers:
            server.stop()
    assert len(failed) * 100 <= len(right), failed[:3]


def test_what_is_no_server(client_of: Any, server: Server) -> None:
    """The admin port speaks HTTP."""
    with client_of(server.admin) as client, pytest.raises((ProtocolError, ConnectionFailed)):
        client.predict(rows(1))


@pytest.mark.parametrize(
    ("document", "printed"), [("README.md", "[120.   8.]\n"), ("docs/PROTOCOL.md", "(120.0, 8.0)\n")]
)
def test_blocks_in_documents(server: Server, capsys: pytest.CaptureFixture[str], document: str, printed: str) -> None:
    """As they stand, but for the port."""
    block = (TOP / document).read_text().split("```python\n")[1].split("```")[0]
    assert "127.0.0.1" in block
    assert "9900" in block
    exec(compile(block.replace("9900", str(server.port)), document, "exec"), {})
    assert capsys.readouterr().out == printed
