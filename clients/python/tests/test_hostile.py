"""Whatever a server sends, a client gives the numbers that stand in the answer's place, or a DisrustError, in time."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from stub import Gone, Peer, Stub, answer, hello_answer, sums
from support import BOTH, PATIENCE

import disrust
from disrust import DisrustError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: For a server that falls silent; the others are heard to the end at once.
SHORT = 0.1

property_of = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    with Stub() as stub:
        yield stub


def rows(count: int, features: int = 2) -> Any:
    return np.arange(count * features, dtype=np.float32).reshape(count, features) / 4


def wait_for_end(peer: Peer) -> None:
    """Reads on until the client goes."""
    with contextlib.suppress(Gone, OSError):
        while True:
            peer.read(1)


def answers_in(stream: bytes, counts: list[int], outputs: int) -> list[float] | None:
    """The scores in a stream, read as simply as can be; None if it does not have them."""
    scores: list[float] = []
    for count in counts:
        size = count * outputs
        if stream[:1] != bytes([count]) or len(stream) < 1 + 4 * size:
            return None
        scores += struct.unpack_from(f"<{size}f", stream, 1)
        stream = stream[1 + 4 * size :]
    return scores


def same(found: Any, expected: list[float]) -> bool:
    return bool(np.array_equal(found.reshape(-1), np.array(expected, np.float32), equal_nan=True))


pieces = st.one_of(
    st.integers(1, 3).flatmap(
        lambda count: st.binary(min_size=4 * count, max_size=4 * count).map(lambda b: bytes([count]) + b)
    ),
    st.tuples(st.integers(1, 255), st.integers(1, 3)).map(lambda both: bytes([both[0]]) + bytes(4 * both[1])),
    st.just(answer(np.array([1, 2, 3], np.float32))),
    st.just(answer(np.array([4, 5], np.float32))),
    st.integers(0, 255).map(lambda code: bytes([0, code])),
    st.just(hello_answer(2, 1, 3)),
    st.binary(max_size=20),
)


@property_of
@given(
    kind=st.sampled_from(BOTH),
    count=st.sampled_from([1, 2, 3, 5, 9, 40]),
    parts=st.lists(pieces, max_size=14),
    cut=st.integers(0, 3),
    is_silent=st.booleans(),
)
def test_any_bytes_for_answers(
    stub: Stub, kind: Any, count: int, parts: list[bytes], cut: int, is_silent: bool
) -> None:
    stream = b"".join(parts)
    stream = stream[: max(0, len(stream) - cut)]

    counts = [3] * (count // 3) + ([count % 3] if count % 3 else [])

    def serve(peer: Peer) -> None:
        peer.greet(hello_answer(2, 1, 3))
        peer.read(4 * len(counts) + 8 * count)
        peer.send(stream)
        if is_silent:
            wait_for_end(peer)

    stub.script = serve
    expected = answers_in(stream, counts, 1)
    with kind(stub.address, retries=0) as client:
        client.connect()
        try:
            scores = client.predict(rows(count), timeout=SHORT if is_silent else PATIENCE)
        except DisrustError:
            assert expected is None or len(stream) > len(counts) + 4 * count
        else:
            assert expected is not None
            assert same(scores, expected)


@property_of
@given(
    kind=st.sampled_from(BOTH),
    parts=st.lists(st.one_of(pieces, st.just(hello_answer(2, 1, 3)), st.just(hello_answer(2, 2, 64))), max_size=3),
    cut=st.integers(0, 30),
    is_silent=st.booleans(),
)
@example(kind=BOTH[0], parts=[hello_answer(2, 1, 3, name=b"n" * 255)], cut=0, is_silent=True)
@example(kind=BOTH[0], parts=[hello_answer(2, 1, 3, name=b"n" * 256)], cut=0, is_silent=True)
@example(kind=BOTH[1], parts=[hello_answer(2, 1, 3, name=b"n" * 256)], cut=0, is_silent=True)
@example(kind=BOTH[1], parts=[struct.pack("<BBH", 0, 128, 65_535)], cut=0, is_silent=False)
@example(kind=BOTH[0], parts=[struct.pack("<BBH", 0, 128, 19) + bytes(19)], cut=0, is_silent=False)
@example(kind=BOTH[0], parts=[hello_answer(2**32 - 1, 1, 64)], cut=0, is_silent=True)
@example(kind=BOTH[0], parts=[hello_answer(2, 2**32 - 1, 64)], cut=0, is_silent=True)
@example(kind=BOTH[1], parts=[hello_answer(2, 65_536, 64)], cut=0, is_silent=True)
def test_any_bytes_for_a_hello(stub: Stub, kind: Any, parts: list[bytes], cut: int, is_silent: bool) -> None:
    stream = b"".join(parts)
    stream = stream[: max(0, len(stream) - cut)]

    def serve(peer: Peer) -> None:
        peer.read(8)
        peer.send(stream)
        if is_silent:
            wait_for_end(peer)

    stub.script = serve
    with kind(stub.address, retries=0, connect_timeout=SHORT) as client, contextlib.suppress(DisrustError):
        model = client.connect()
        if model is not None:
            assert stream.startswith(
                hello_answer(model.features, model.outputs, model.max_vectors, model.version, model.name.encode())
            )
        # Whatever it has said, it does not answer any more.
        with pytest.raises(DisrustError):
            client.predict(rows(3), timeout=SHORT)


def test_a_server_that_closes_at_any_byte(client_of: Any, stub: Stub) -> None:
    X = rows(8)
    greeting = hello_answer(2, 2, 3)
    whole = greeting + b"".join(answer(sums(part, 2).reshape(-1), 2) for part in (X[:3], X[3:6], X[6:]))
    for cut in range(len(whole) + 1):

        def serve(peer: Peer, stream: bytes = whole[:cut]) -> None:
            peer.read(8)
            peer.send(stream[: len(greeting)])
            if len(stream) >= len(greeting):
                # All of it, so that closing is an end and no reset, which may overtake what was sent.
                peer.read(3 * 4 + X.nbytes)
                peer.send(stream[len(greeting) :])

        stub.script = serve
        with client_of(stub.address, retries=0) as client:
            try:
                scores = client.predict(X)
            except DisrustError as error:
                assert cut < len(whole), error
            else:
                assert cut == len(whole)
                assert np.array_equal(scores, sums(X, 2))


def test_a_server_that_closes_at_any_byte_of_one_answer_is_left_for_the_next(client_of: Any, stub: Stub) -> None:
    """With a try more, every call gets its own numbers."""
    X = rows(8)
    whole = answer(sums(X[:3]))
    for cut in range(len(whole)):
        peers = 0

        def serve(peer: Peer, cut: int = cut) -> None:
            nonlocal peers
            peers += 1
            peer.greet(hello_answer(2, 1, 3))
            if peers == 1:
                peer.read_rows(2)
                peer.send(whole[:cut])
            else:
                peer.serve(2)

        stub.script = serve
        with client_of(stub.address) as client:
            assert np.array_equal(client.predict(X), sums(X))


@pytest.mark.parametrize(
    "piece",
    [b"\0", b"\1", b"\xff", b"\1\0\0\x80\x3f", b"\0\2", b"\0\3", hello_answer()],
    ids=lambda piece: piece[:5].hex(),
)
@pytest.mark.parametrize("when", ["at once", "after the hello", "after a request"])
def test_data_without_end(client_of: Any, stub: Stub, piece: bytes, when: str) -> None:
    def serve(peer: Peer) -> None:
        if when != "at once":
            peer.greet(hello_answer(2))
        if when == "after a request":
            peer.read_rows(2)
        while True:
            peer.send(piece * 5000)

    stub.script = serve
    begun = time.monotonic()
    with client_of(stub.address, retries=1, timeout=2.0) as client:
        for count in (1, 100):
            # An answer that was sent before it was asked for stands in its place, too.
            with contextlib.suppress(DisrustError):
                assert set(client.predict(rows(count))) <= {0.0, 1.0}
                assert piece[0] == 1
    assert time.monotonic() - begun < PATIENCE


def test_one_byte_now_and_then_does_not_put_the_deadline_off(client_of: Any, stub: Stub) -> None:
    def serve(peer: Peer) -> None:
        peer.greet(hello_answer(2))
        for byte in answer(np.zeros(64, np.float32)):
            time.sleep(0.05)
            peer.send(bytes([byte]))

    stub.script = serve
    with client_of(stub.address) as client:
        client.connect()
        begun = time.monotonic()
        with pytest.raises(disrust.TimeoutError):
            client.predict(rows(64), timeout=0.3)
        assert time.monotonic() - begun < 6


def test_answers_that_nobody_asked_for_are_not_taken_for_others(client_of: Any, stub: Stub) -> None:
    """A second answer to the same request, at once or a moment later, is not the answer to the next."""
    for pause in (0.0, 0.05):
        follow = threading.Event()

        def serve(peer: Peer, pause: float = pause, follow: threading.Event = follow) -> None:
            peer.greet(hello_answer(2))
            asked = peer.read_rows(2)
            if not follow.is_set():
                peer.send(answer(sums(asked)))
                time.sleep(pause)
                peer.send(answer(sums(asked) + 100))
                follow.set()
                wait_for_end(peer)
            peer.send(answer(sums(asked)))
            peer.serve(2)

        stub.script = serve
        with client_of(stub.address) as client:
            X = rows(3)
            with contextlib.suppress(DisrustError):
                assert np.array_equal(client.predict(X), sums(X))
            assert follow.wait(PATIENCE)
            # It is on its way through the kernel.
            time.sleep(0.05)
            for _ in range(3):
                X = X + 1
                with contextlib.suppress(DisrustError):
                    assert np.array_equal(client.predict(X), sums(X))


@pytest.mark.parametrize(
    ("count", "wrong"), [(1, 0), (64, 0), (65, 0), (65, 1), (64 * 20, 0), (64 * 20, 13), (64 * 20 + 9, 20)]
)
def test_an_answer_of_the_right_length_with_another_count(client_of: Any, stub: Stub, count: int, wrong: int) -> None:
    def serve(peer: Peer) -> None:
        peer.greet(hello_answer(2))
        # All of them first, so that the answers come together.
        requests = [peer.read_rows(2) for _ in range(-(-count // 64))]
        answers = [answer(sums(rows)) for rows in requests]
        answers[wrong] = bytes([answers[wrong][0] % 64 + 1]) + answers[wrong][1:]
        peer.send(b"".join(answers))
        wait_for_end(peer)

    stub.script = serve
    with client_of(stub.address) as client, pytest.raises(disrust.ProtocolError):
        client.predict(rows(count))


def test_answers_to_requests_that_were_not_sent_yet(client_of: Any, stub: Stub) -> None:
    def serve(peer: Peer) -> None:
        peer.greet(hello_answer(2))
        peer.read_rows(2)
        peer.send(answer(np.zeros(64, np.float32)) * 500)
        wait_for_end(peer)

    stub.script = serve
    with client_of(stub.address) as client, pytest.raises(disrust.ProtocolError):
        client.predict(rows(64 * 500))
