"""The right numbers in the right order, whatever else happens on the same client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import threading
import time
from typing import Any, cast

import numpy as np
import pytest
from stub import Gone, Peer, Stub, answer, hello_answer, sums
from support import PATIENCE

import disrust
from disrust import (
    AsyncClient,
    Client,
    ClientClosed,
    ConnectionFailed,
    DisrustError,
    ModelFailed,
    ModelMismatch,
    Overloaded,
    ProtocolError,
    ServerClosing,
)

GENERATOR = np.random.default_rng(23)


def rows(count: int, features: int = 16) -> Any:
    return GENERATOR.standard_normal((count, features), dtype=np.float32)


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 127, 128, 129, 1000, 20_000])
def test_any_number_of_rows(client_of: Any, count: int) -> None:
    with Stub() as stub, client_of(stub.address) as client:
        X = rows(count)
        before = X.copy()
        scores = client.predict(X)
        assert scores.dtype == np.float32
        assert scores.shape == (count,)
        assert np.array_equal(scores, sums(X))
        assert np.array_equal(X, before)
        scores[:] = 0
        assert np.array_equal(client.predict(X), sums(X))


@pytest.mark.parametrize(
    ("features", "outputs", "most"), [(16, 3, 64), (1, 1, 64), (1, 200, 64), (500, 2, 64), (3, 2, 7), (2, 1, 255)]
)
def test_any_shape_of_model(client_of: Any, features: int, outputs: int, most: int) -> None:
    def serve(peer: Peer) -> None:
        peer.greet(hello_answer(features, outputs, most))
        peer.serve(features, outputs)

    with Stub(serve) as stub, client_of(stub.address) as client:
        for count in (0, 1, most, most + 1, 10 * most + 3):
            X = rows(count, features)
            scores = client.predict(X)
            assert scores.shape == ((count,) if outputs == 1 else (count, outputs))
            assert np.array_equal(scores, sums(X, outputs))


def test_one_row_is_one_row(client_of: Any) -> None:
    with Stub() as stub, client_of(stub.address) as client:
        assert client.predict(np.ones(16, np.float32)).tolist() == [16.0]


def test_what_the_server_says_of_its_model(client_of: Any) -> None:
    def serve(peer: Peer) -> None:
        peer.greet(hello_answer(5, 2, 64, 0x0123456789ABCDEF, "Modell ä".encode()))
        peer.greet(hello_answer(5, 2, 64, 9, b"second"))
        peer.serve(5, 2)

    with Stub(serve) as stub, client_of(stub.address) as client:
        assert client.connect() == disrust.Model("Modell ä", 0x0123456789ABCDEF, 5, 2, 64)
        assert client.model == client.connect()
        assert client.hello() == disrust.Model("second", 9, 5, 2, 64)
        assert client.model.name == "second"
        assert client.predict(rows(3, 5)).shape == (3, 2)


def test_scores_that_are_not_numbers_come_through_bit_by_bit(client_of: Any) -> None:
    bits = np.array([0x7FC00001, 0xFFC12345, 0x7F800000, 0xFF800000, 0x80000000, 1], np.uint32)

    def serve(peer: Peer) -> None:
        peer.greet()
        while True:
            asked = len(peer.read_rows())
            peer.send(answer(np.resize(bits, asked).view(np.float32)))

    with Stub(serve) as stub, client_of(stub.address) as client:
        assert np.array_equal(client.predict(rows(6)).view(np.uint32), bits)
        assert np.array_equal(client.predict(rows(64 * 9)).view(np.uint32).reshape(9, 64)[:, :6], np.tile(bits, (9, 1)))


def test_neither_side_waits_for_the_other_when_all_buffers_are_full(client_of: Any) -> None:
    """Answers are larger than requests, and the server answers each before it reads the next."""

    def serve(peer: Peer) -> None:
        peer.greet(hello_answer(2, 50))
        peer.serve(2, 50)

    with Stub(serve, send_buffer=4096) as stub, client_of(stub.address) as client:
        X = rows(30_000, 2)
        assert np.array_equal(client.predict(X), sums(X, 50))


def test_requests_that_the_kernel_takes_in_pieces(client_of: Any) -> None:
    """A server that reads nothing for a while, and then byte after byte."""
    wide = 20_000

    def serve(peer: Peer) -> None:
        peer.greet(hello_answer(wide))
        time.sleep(0.2)
        peer.serve(wide)

    with Stub(serve, send_buffer=4096) as stub, client_of(stub.address) as client:
        for count in (64, 200):
            X = rows(count, wide)
            assert np.array_equal(client.predict(X), sums(X))


def test_answers_that_come_in_pieces(client_of: Any) -> None:
    def serve(peer: Peer) -> None:
        hello = hello_answer()
        peer.read(8)
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(hello)):
            peer.send(hello[at : at + 1])
        cuts = np.random.default_rng(5)
        while True:
            whole = answer(sums(peer.read_rows()))
            while whole:
                cut = int(cuts.integers(1, len(whole) + 1))
                peer.send(whole[:cut])
                whole = whole[cut:]

    with Stub(serve) as stub, client_of(stub.address) as client:
        for count in (1, 64, 65, 700):
            X = rows(count)
            assert np.array_equal(client.predict(X), sums(X))


def late_once(peer: Peer) -> None:
    """The first answer on the first connection comes late, the others at once."""
    peer.greet()
    if peer.index == 0:
        asked = peer.read_rows()
        time.sleep(0.5)
        peer.send(answer(sums(asked)))
    peer.serve()


@pytest.mark.parametrize("count", [1, 300])
def test_a_late_answer_does_not_shift_those_behind_it(client_of: Any, count: int) -> None:
    with Stub(late_once) as stub, client_of(stub.address) as client:
        client.connect()
        with pytest.raises(TimeoutError) as caught:
            client.predict(rows(count), timeout=0.1)
        assert isinstance(caught.value, DisrustError)
        for _ in range(20):
            X = rows(count)
            assert np.array_equal(client.predict(X), sums(X))


def test_a_late_answer_keeps_its_place_in_the_line() -> None:
    """The calls behind one that timed out, or was cancelled, get their own answers over the same connection."""

    async def run(stub: Stub) -> None:
        async with AsyncClient(stub.address, timeout=PATIENCE) as client:
            first = asyncio.ensure_future(client.predict(rows(1), timeout=0.1))
            cancelled = [asyncio.ensure_future(client.predict(rows(count))) for count in (1, 64, 65, 1000)]
            X = [rows(count) for count in (1, 2, 64, 65, 1000)]
            behind = [asyncio.ensure_future(client.predict(one)) for one in X]
            await asyncio.sleep(0.05)
            for call in cancelled:
                call.cancel()
            with pytest.raises(disrust.TimeoutError):
                await first
            for one, scores in zip(X, await asyncio.gather(*behind)):
                assert np.array_equal(scores, sums(one))
            assert all(call.cancelled() for call in cancelled)

    with Stub(late_once) as stub:
        asyncio.run(run(stub))
        assert stub.connections == 1


def test_calls_may_be_cancelled_at_any_moment() -> None:
    async def run(stub: Stub) -> None:
        async def one(client: AsyncClient, index: int) -> None:
            for turn in range(20):
                X = rows(1 + (index * 37 + turn * 11) % 300)
                call = asyncio.ensure_future(client.predict(X))
                for _ in range((index + turn) % 7):
                    await asyncio.sleep(0)
                if turn % 3 == 0:
                    call.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        assert np.array_equal(await call, sums(X))
                else:
                    assert np.array_equal(await call, sums(X))

        async with AsyncClient(stub.address, timeout=PATIENCE) as client:
            await asyncio.gather(*(one(client, index) for index in range(30)))

    with Stub() as stub:
        asyncio.run(run(stub))
        assert stub.connections == 1


def test_a_silent_server_ends_in_a_timeout_and_is_left(client_of: Any) -> None:
    def serve(peer: Peer) -> None:
        peer.greet()
        if peer.index > 0:
            peer.serve()
        peer.read(10**9)

    with Stub(serve) as stub, client_of(stub.address, timeout=1.0) as client:
        with pytest.raises(disrust.TimeoutError):
            client.predict(rows(2))
        X = rows(2)
        assert np.array_equal(client.predict(X, timeout=PATIENCE), sums(X))
        assert stub.connections == 2


def test_a_server_that_accepts_and_says_nothing(client_of: Any) -> None:
    with Stub(listen) as stub, client_of(stub.address, timeout=0.3) as client:
        with pytest.raises(disrust.TimeoutError):
            client.predict(rows(2))
    with Stub(listen) as stub:
        with client_of(stub.address, connect_timeout=0.1, retries=1) as client:
            with pytest.raises(ConnectionFailed):
                client.predict(rows(2))
            assert stub.connections == 2


def test_a_server_that_is_being_connected_to_holds_up_one_call() -> None:
    async def run(addresses: list[str]) -> None:
        client = AsyncClient(addresses, connect_timeout=10 * PATIENCE)
        X = rows(2)
        # One of them comes to the silent server.
        with contextlib.suppress(disrust.TimeoutError):
            while True:
                await client.predict(X, timeout=1.0)
        for _ in range(30):
            assert np.array_equal(await client.predict(X, timeout=PATIENCE), sums(X))
        await client.close()

    with Stub() as stub, Stub(listen) as silent:
        asyncio.run(run([stub.address, silent.address]))


def listen(peer: Peer) -> None:
    peer.read(10**9)


def greet_and_listen(peer: Peer) -> None:
    peer.greet()
    peer.read(10**9)


def test_a_lost_connection_is_made_again(client_of: Any) -> None:
    def serve(peer: Peer) -> None:
        peer.greet()
        peer.serve(requests=2)
        peer.read_rows()

    with Stub(serve) as stub, client_of(stub.address) as client:
        for count in (1, 2, 3, 70, 150, 1, 64):
            X = rows(count)
            assert np.array_equal(client.predict(X), sums(X))
        assert stub.connections > 3


def test_a_long_call_goes_on_where_it_was_lost(client_of: Any) -> None:
    served: list[int] = []

    def serve(peer: Peer) -> None:
        peer.greet()
        for _ in range(50):
            asked = peer.read_rows()
            peer.send(answer(sums(asked)))
            served.append(len(asked))

    with Stub(serve) as stub, client_of(stub.address) as client:
        X = rows(64 * 120)
        assert np.array_equal(client.predict(X), sums(X))
        assert stub.connections == 3


def test_a_closing_server_is_left_and_the_call_tried_again(client_of: Any) -> None:
    def serve(peer: Peer) -> None:
        peer.greet()
        if peer.index < 2:
            peer.serve(requests=1)
            with contextlib.suppress(Gone):
                while True:
                    peer.read_rows()
                    peer.send(b"\0\4")
        peer.serve()

    with Stub(serve) as stub, client_of(stub.address) as client:
        for count in (64, 300, 5):
            X = rows(count)
            assert np.array_equal(client.predict(X), sums(X))
        assert stub.connections == 3


def test_tries_are_few(client_of: Any) -> None:
    def serve(peer: Peer) -> None:
        peer.greet()
        peer.read_rows()
        peer.send(b"\0\4")

    with Stub(serve) as stub, client_of(stub.address, retries=2) as client:
        with pytest.raises(ServerClosing):
            client.predict(rows(1))
        assert stub.connections == 3

    def go(peer: Peer) -> None:
        peer.greet()
        peer.read_rows()

    with Stub(go) as stub, client_of(stub.address, retries=0) as client:
        with pytest.raises(ConnectionFailed, match="closed the connection"):
            client.predict(rows(1))
        assert stub.connections == 1


@pytest.mark.parametrize(("code", "error"), [(2, ModelFailed), (3, Overloaded)])
def test_a_refused_request_is_not_tried_again_and_shifts_nothing(
    client_of: Any, code: int, error: type[Exception]
) -> None:
    refused = {0, 7, 100}
    asked: list[int] = []

    def serve(peer: Peer) -> None:
        peer.greet()
        while True:
            X = peer.read_rows()
            peer.send(bytes([0, code]) if len(asked) in refused else answer(sums(X)))
            asked.append(len(X))

    with Stub(serve) as stub, client_of(stub.address) as client:
        failed = 0
        for count in (3, 3, 300, 300, 64 * 90, 64 * 90, 1):
            X = rows(count)
            try:
                assert np.array_equal(client.predict(X), sums(X))
            except error:
                failed += 1
        assert failed == len(refused)
        assert stub.connections == 1


@pytest.mark.parametrize("code", [1, 5, 6, 77, 128, 255])
def test_other_errors_are_errors_at_once(client_of: Any, code: int) -> None:
    def serve(peer: Peer) -> None:
        peer.greet()
        peer.read_rows()
        peer.send(bytes([0, code]))
        peer.read(10**9)

    with Stub(serve) as stub, client_of(stub.address) as client:
        with pytest.raises(ModelMismatch if code == 5 else ProtocolError):
            client.predict(rows(1))
        assert stub.connections == 1


def test_what_a_server_says_before_it_closes_is_heard(client_of: Any) -> None:
    """It refuses the first request of a long call, and resets while more are sent."""

    def serve(peer: Peer) -> None:
        peer.greet()
        peer.read_rows()
        peer.send(b"\0\1")
        peer.socket.shutdown(socket.SHUT_WR)
        with contextlib.suppress(Gone):
            peer.read(10**9)

    with Stub(serve) as stub, client_of(stub.address) as client, pytest.raises(ProtocolError, match="error 1"):
        client.predict(rows(10_000))


# Servers without a hello


def no_hello(peer: Peer, features: int = 16, outputs: int = 1) -> None:
    first = peer.read(4)
    if struct.unpack("<I", first)[0] > 64:
        peer.send(b"\0\1")
        return
    count = first[0]
    X = np.frombuffer(peer.read(count * features * 4), "<f4").reshape(count, features)
    peer.send(answer(sums(X, outputs).reshape(-1), outputs))
    peer.serve(features, outputs)


def test_a_server_without_a_hello(client_of: Any) -> None:
    with Stub(no_hello) as stub, client_of(stub.address) as client:
        assert client.connect() is None
        assert client.hello() is None
        for count in (1, 64, 200):
            X = rows(count)
            assert np.array_equal(client.predict(X), sums(X))
        assert client.model is None
        assert stub.connections == 2


def test_a_server_without_a_hello_and_what_the_user_knows(client_of: Any) -> None:
    with Stub(lambda peer: no_hello(peer, 5, 3)) as stub, client_of(stub.address, features=5, outputs=3) as client:
        X = rows(70, 5)
        assert np.array_equal(client.predict(X), sums(X, 3))
        with pytest.raises(disrust.ShapeError):
            client.predict(rows(1, 6))


def test_more_outputs_than_the_user_says_are_seen(client_of: Any) -> None:
    with Stub(lambda peer: no_hello(peer, 5, 3)) as stub, client_of(stub.address) as client:
        with pytest.raises(ProtocolError):
            client.predict(rows(2, 5))


def test_what_the_user_says_must_be_what_the_server_says(client_of: Any) -> None:
    for wrong in ({"features": 15}, {"outputs": 2}, {"columns": ["a", "b"]}):
        with Stub() as stub, client_of(stub.address, **wrong) as client:
            with pytest.raises(ModelMismatch, match="16 features and 1 outputs"):
                client.predict(rows(1))
            assert [peer.received for peer in stub.peers] == [8]


@pytest.mark.parametrize("changed", [{"features": 17}, {"outputs": 2}])
def test_another_model_after_a_restart_is_noticed(client_of: Any, changed: dict[str, Any]) -> None:
    def serve(peer: Peer) -> None:
        peer.greet(hello_answer(**changed) if peer.index > 0 else hello_answer())
        peer.serve(requests=1)

    with Stub(serve) as stub, client_of(stub.address) as client:
        X = rows(1)
        assert np.array_equal(client.predict(X), sums(X))
        for _ in range(2):
            with pytest.raises(ModelMismatch, match="make a new client"):
                client.predict(X)


def test_another_version_after_a_restart_is_taken(client_of: Any) -> None:
    def serve(peer: Peer) -> None:
        peer.greet(hello_answer(version=peer.index))
        peer.serve(requests=1)

    with Stub(serve) as stub, client_of(stub.address) as client:
        for version in range(3):
            client.predict(rows(1))
            assert client.model.version == version


# Several servers


def test_calls_are_spread(client_of: Any) -> None:
    with Stub() as one, Stub() as two, client_of([one.address, two.address]) as client:
        for _ in range(60):
            X = rows(2)
            assert np.array_equal(client.predict(X), sums(X))
        assert one.connections == two.connections == 1
        assert min(one.peers[0].received, two.peers[0].received) > 8 + 132 * 5


def test_a_server_that_is_not_there_is_passed_over(client_of: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{unused.getsockname()[1]}"
        with Stub() as stub, client_of([dead, stub.address]) as client:
            for _ in range(30):
                X = rows(1)
                assert np.array_equal(client.predict(X), sums(X))
        with client_of(dead, retries=1) as client, pytest.raises(ConnectionFailed, match="does a server listen there"):
            client.predict(rows(1))


def test_the_busier_server_gets_less() -> None:
    def slow(peer: Peer) -> None:
        peer.greet()
        while True:
            X = peer.read_rows()
            time.sleep(0.05)
            peer.send(answer(sums(X)))

    async def run(addresses: list[str]) -> None:
        async with AsyncClient(addresses, timeout=PATIENCE) as client:

            async def caller() -> None:
                for _ in range(20):
                    X = rows(1)
                    assert np.array_equal(await client.predict(X), sums(X))

            await asyncio.gather(*(caller() for _ in range(20)))

    def threaded(addresses: list[str]) -> None:
        with Client(addresses, timeout=PATIENCE) as client:
            threads = [threading.Thread(target=lambda: [client.predict(rows(1)) for _ in range(20)]) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    for users in (lambda addresses: asyncio.run(run(addresses)), threaded):
        with Stub(slow) as slower, Stub() as faster:
            users([slower.address, faster.address])
            received = [sum(peer.received for peer in stub.peers) for stub in (slower, faster)]
            assert received[0] * 2 < received[1], received


def test_a_server_that_hangs_is_passed_over_for_a_while(client_of: Any) -> None:
    with Stub(greet_and_listen) as hung, Stub() as stub, client_of([hung.address, stub.address]) as client:
        client.connect()
        failed = 0
        for _ in range(200):
            try:
                client.predict(rows(1), timeout=0.1)
            except disrust.TimeoutError:
                failed += 1
        # It is avoided for longer each time; before, each second call went there.
        assert 1 <= failed < 50


def test_names_are_looked_up_again_when_a_server_goes(client_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = socket.getaddrinfo
    target: list[int] = []

    def look_up(host: Any, port: Any, *arguments: Any, **named: Any) -> Any:
        if host != "disrust.test":
            return real(host, port, *arguments, **named)
        asked.append(host)
        return real("127.0.0.1", target[0], *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with Stub() as one, Stub() as two:
        target.append(one.port)
        with client_of("disrust.test:9900", timeout=PATIENCE, retries=50) as client:
            X = rows(1)
            assert np.array_equal(client.predict(X), sums(X))
            assert len(asked) == 1
            time.sleep(0.6)
            target[0] = two.port
            one.stop()
            assert np.array_equal(client.predict(X), sums(X))
            assert two.connections == 1


def test_a_name_that_is_unknown(client_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with client_of("disrust.test:9900", retries=1) as client, pytest.raises(ConnectionFailed, match=r"disrust\.test"):
        client.predict(rows(1))


def test_a_name_service_that_hangs_is_waited_for_until_the_deadline(
    client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()

    def look_up(*_: Any, **__: Any) -> Any:
        goes_on.wait(PATIENCE)
        raise socket.gaierror(socket.EAI_AGAIN, "later")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with client_of("disrust.test:9900", timeout=0.2) as client:
        with pytest.raises(disrust.TimeoutError):
            client.predict(rows(1))
        goes_on.set()


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":9900", "host:0", "host:65536", "host:x", "::1:9900", "unix:", []]
)
def test_addresses_that_are_none(client_of: Any, address: Any) -> None:
    with pytest.raises(ValueError):
        client_of(address)


def test_arguments_that_are_wrong() -> None:
    wrongs: tuple[dict[str, Any], ...] = (
        {"timeout": 0},
        {"timeout": float("nan")},
        {"features": 0},
        {"outputs": 0},
        {"retries": -1},
        {"connect_timeout": -1},
    )
    for wrong in wrongs:
        with pytest.raises(ValueError):
            Client("127.0.0.1:9900", **wrong)
    with pytest.raises(ValueError):
        Client("127.0.0.1:9900", features=3, columns=["a"])
    with Stub() as stub, Client(stub.address, timeout=float("inf")) as client:
        assert client.predict(rows(1)).shape == (1,)
        with pytest.raises(ValueError):
            client.predict(rows(1), timeout=0)


# Threads, processes, signals, the end


def test_threads_share_a_client() -> None:
    failures: list[BaseException] = []

    def caller(client: Client, seed: int) -> None:
        mine = np.random.default_rng(seed)
        try:
            for _ in range(60):
                X = mine.standard_normal((int(mine.integers(1, 200)), 16), dtype=np.float32)
                assert np.array_equal(client.predict(X), sums(X))
        except BaseException as failure:
            failures.append(failure)

    with Stub() as stub, Client(stub.address, timeout=PATIENCE) as client:
        threads = [threading.Thread(target=caller, args=(client, seed)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert stub.connections <= 8


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_does_not_use_its_parents_connections(client_of: Any) -> None:
    with Stub() as stub, client_of(stub.address) as client:
        X = rows(3)
        assert np.array_equal(client.predict(X), sums(X))
        received = stub.peers[0].received
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if client.kind == "asyncio":
                    client.loop = asyncio.new_event_loop()
                for _ in range(5):
                    assert np.array_equal(client.predict(X), sums(X))
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert stub.connections == 2
        assert stub.peers[0].received == received
        assert np.array_equal(client.predict(X), sums(X))
        assert stub.connections == 2


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_lock_that_was_held_in_the_parent_is_free_in_the_child() -> None:
    with Stub() as stub, Client(stub.address, timeout=PATIENCE) as client:
        client.connect()
        client._lock.acquire()
        child = os.fork()
        if child == 0:
            os._exit(0 if client.predict(rows(1)).shape == (1,) else 1)
        client._lock.release()
        assert os.waitpid(child, 0)[1] == 0


def test_an_interrupted_call_does_not_shift_the_next() -> None:
    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Stub(late_once) as stub, Client(stub.address, timeout=PATIENCE) as client:
            client.connect()
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(Interrupted):
                client.predict(rows(1))
            X = rows(1)
            assert np.array_equal(client.predict(X), sums(X))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_signals_do_not_put_the_deadline_off() -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        with Stub(greet_and_listen) as stub, Client(stub.address, timeout=PATIENCE) as client:
            client.connect()
            signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
            with pytest.raises(disrust.TimeoutError):
                client.predict(rows(1), timeout=0.3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_nothing_begins_after_the_end(client_of: Any) -> None:
    with Stub() as stub:
        with client_of(stub.address) as client:
            client.predict(rows(1))
        if client.kind == "asyncio":
            client.loop = asyncio.new_event_loop()
        with pytest.raises(ClientClosed):
            client.predict(rows(1))
        client.close()


def test_calls_that_are_under_way_at_the_end_of_an_asyncio_client_are_told() -> None:
    async def run(stub: Stub) -> None:
        client = AsyncClient(stub.address, timeout=PATIENCE)
        await client.connect()
        call = asyncio.ensure_future(client.predict(rows(1)))
        await asyncio.sleep(0.05)
        await client.close()
        with pytest.raises(ClientClosed):
            await call

    with Stub(greet_and_listen) as stub:
        asyncio.run(run(stub))


def test_an_asyncio_client_outlives_its_loop_and_belongs_to_one() -> None:
    with Stub() as stub:
        client = AsyncClient(stub.address, timeout=PATIENCE)

        async def once(close: bool) -> None:
            X = rows(5)
            assert np.array_equal(await client.predict(X), sums(X))
            for endpoint in client._directory.endpoints:
                assert endpoint.pipe is not None
                if not close:
                    endpoint.pipe.fail(ConnectionFailed("the test ends this loop"))
                    await endpoint.pipe.lost
            if close:
                await client.close()

        asyncio.run(once(close=False))
        asyncio.run(once(close=True))
        assert stub.connections == 2

    with Stub() as stub:

        async def elsewhere(client: AsyncClient) -> None:
            await client.predict(rows(1))

        async def twice() -> None:
            async with AsyncClient(stub.address, timeout=PATIENCE) as client:
                failures: list[BaseException] = []

                def run() -> None:
                    try:
                        asyncio.run(elsewhere(client))
                    except RuntimeError as failure:
                        failures.append(failure)

                thread = threading.Thread(target=run)
                thread.start()
                await asyncio.get_running_loop().run_in_executor(None, thread.join)
                assert "another event loop" in str(failures[0])

        asyncio.run(twice())


def test_a_slow_reader_of_requests_holds_the_asyncio_client_back() -> None:
    """While the transport takes no more, calls wait in their own memory: its buffer does not grow with them."""
    goes_on = threading.Event()

    def serve(peer: Peer) -> None:
        peer.greet(hello_answer(1000))
        goes_on.wait(PATIENCE)
        peer.serve(1000)

    async def run(stub: Stub) -> None:
        async with AsyncClient(stub.address, timeout=PATIENCE) as client:
            X = rows(640, 1000)
            calls = [asyncio.ensure_future(client.predict(X)) for _ in range(20)]
            await asyncio.sleep(0.3)
            pipe = client._directory.endpoints[0].pipe
            assert pipe is not None
            assert pipe._transport is not None
            assert pipe._is_paused
            assert pipe._transport.get_write_buffer_size() < 1 << 20
            calls[3].cancel()
            calls[15].cancel()
            goes_on.set()
            for index, scores in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
                if index in (3, 15):
                    assert isinstance(scores, asyncio.CancelledError)
                else:
                    assert np.array_equal(cast("Any", scores), sums(X))

    with Stub(serve, send_buffer=4096) as stub:
        asyncio.run(run(stub))


def test_every_error_is_one_of_ours() -> None:
    for name in disrust.__all__:
        kind = getattr(disrust, name)
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert issubclass(kind, DisrustError)
    assert issubclass(disrust.TimeoutError, TimeoutError)
    assert issubclass(disrust.ConnectionFailed, ConnectionError)
