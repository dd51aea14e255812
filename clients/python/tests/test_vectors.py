"""The clients send and read the bytes of clients/vectors.json, to which the server and all other clients are held."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from typing import Any, cast

import numpy as np
import pytest
from stub import Gone, Peer, Stub, hello_answer
from support import TOP

import disrust
from disrust import DisrustError, Model
from disrust._errors import ConnectionLost
from disrust._pipe import Call, Pipe
from disrust._wire import HELLO, error_of, read_hello

VECTORS: dict[str, list[dict[str, Any]]] = json.loads((TOP / "clients/vectors.json").read_text())
CONVERSATIONS = {conversation["name"]: conversation for conversation in VECTORS["conversations"]}
ERRORS = {
    1: disrust.ProtocolError,
    2: disrust.ModelFailed,
    3: disrust.Overloaded,
    4: disrust.ServerClosing,
    5: disrust.ModelMismatch,
}


def named(entry: object) -> str:
    return str(entry["name"]) if isinstance(entry, dict) else str(entry)


def floats(lists: list[list[Any]]) -> Any:
    return np.array([[float(number) for number in one] for one in lists]).astype(np.float32)


def model_of(entry: dict[str, Any]) -> Model:
    version = int(entry["model_version"], 16)
    return Model(entry["model_name"], version, entry["feature_dim"], entry["outputs"], entry["max_vectors"])


def same_bits(found: Any, expected: Any) -> bool:
    """NaN counts as NaN, and zeros have signs."""
    nan = np.isnan(expected)
    bits = (found.astype(np.float32).view(np.uint32), expected.astype(np.float32).view(np.uint32))
    return bool(np.array_equal(np.isnan(found), nan) and np.array_equal(bits[0][~nan], bits[1][~nan]))


def wait_for_end(peer: Peer) -> None:
    with contextlib.suppress(Gone, OSError):
        while True:
            peer.read(1)


@pytest.mark.parametrize("entry", VECTORS["requests"], ids=named)
def test_requests(client_of: Any, entry: dict[str, Any]) -> None:
    expected = bytes.fromhex(entry["hex"])
    rows = floats(entry["rows"])
    got: list[bytes] = []

    def serve(peer: Peer) -> None:
        peer.greet(hello_answer(entry["feature_dim"]))
        got.append(peer.read(len(expected)))
        peer.send(bytes([len(rows)]) + bytes(4 * len(rows)))
        wait_for_end(peer)

    with Stub(serve) as stub, client_of(stub.address) as client:
        assert client.predict(rows).tolist() == [0.0] * len(rows)
        assert got == [expected]


@pytest.mark.parametrize("entry", VECTORS["answers"], ids=named)
def test_answers(client_of: Any, entry: dict[str, Any]) -> None:
    def serve(peer: Peer) -> None:
        peer.greet(hello_answer(1, entry["outputs"]))
        peer.read_rows(1)
        peer.send(bytes.fromhex(entry["hex"]))
        wait_for_end(peer)

    with Stub(serve) as stub, client_of(stub.address) as client:
        scores = client.predict(np.zeros((entry["num_vectors"], 1)))
        assert same_bits(scores.reshape(-1, entry["outputs"]), floats(entry["scores"]))


@pytest.mark.parametrize("entry", VECTORS["errors"], ids=named)
def test_errors(client_of: Any, entry: dict[str, Any]) -> None:
    def serve(peer: Peer) -> None:
        peer.greet(hello_answer(1))
        while True:
            peer.read_rows(1)
            peer.send(bytes.fromhex(entry["hex"]))

    with Stub(serve) as stub, client_of(stub.address, retries=1) as client:
        for _ in range(2):
            with pytest.raises(ERRORS[entry["code"]]):
                client.predict([[1.0]])
        tried = {"never": 1, "later": 1, "elsewhere": 2}[entry["retry"]]
        assert stub.connections == (2 * tried if entry["closes"] else 1)


def test_hello() -> None:
    assert [entry["hex"] for entry in VECTORS["hello_requests"] if entry["feature_dim"] == 0] == [HELLO.hex()]


@pytest.mark.parametrize("entry", VECTORS["hello_answers"], ids=named)
def test_hello_answers(client_of: Any, entry: dict[str, Any]) -> None:
    expected = model_of(entry)
    answer = bytes.fromhex(entry["hex"])
    assert read_hello(answer) == (expected, len(answer))
    assert read_hello(answer + b"\1") == (expected, len(answer)) or entry["model_name"] == ""

    def serve(peer: Peer) -> None:
        peer.greet(answer)
        peer.serve(entry["feature_dim"], entry["outputs"])

    with Stub(serve) as stub, client_of(stub.address) as client:
        assert client.connect() == expected
        assert len(client.predict(np.zeros((100, entry["feature_dim"])))) == 100


@pytest.mark.parametrize(
    "entry", [entry for entry in VECTORS["truncations"] if entry["kind"] in ("answer", "hello_answer")], ids=named
)
def test_truncations(client_of: Any, entry: dict[str, Any]) -> None:
    """Every prefix is the beginning of an answer: no error yet, but one if the connection ends there."""
    whole = bytes.fromhex(entry["hex"])
    assert entry["prefixes"] == "all"
    is_hello = entry["kind"] == "hello_answer"
    for end in range(len(whole)):
        if is_hello:
            assert read_hello(whole[:end]) is None
            continue

        def serve(peer: Peer, prefix: bytes = whole[:end]) -> None:
            peer.greet(hello_answer(1, entry["outputs"]))
            peer.read_rows(1)
            peer.send(prefix)

        with Stub(serve) as stub, client_of(stub.address, retries=0) as client:
            with pytest.raises(disrust.ConnectionFailed, match="closed the connection"):
                client.predict(np.zeros((whole[0] or 1, 1)))
    if is_hello:
        read = read_hello(whole)
        assert read is not None
        assert read[1] == len(whole)


@pytest.mark.parametrize(
    "entry", [entry for entry in VECTORS["malformed"] if entry["kind"] in ("answer", "hello_answer")], ids=named
)
def test_malformed(client_of: Any, entry: dict[str, Any]) -> None:
    def serve(peer: Peer) -> None:
        if entry["kind"] == "hello_answer":
            peer.read(8)
        else:
            peer.greet(hello_answer(1, entry["outputs"]))
            peer.read_rows(1)
        peer.send(bytes.fromhex(entry["hex"]))
        wait_for_end(peer)

    with Stub(serve) as stub, client_of(stub.address) as client:
        with pytest.raises(disrust.ProtocolError):
            client.predict(np.zeros((entry["num_vectors"] or 1, 1)))
        assert stub.connections == 1


class Transport:
    """Takes what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.is_aborted = True

    def get_extra_info(self, _: str) -> int:
        # Something that can be polled.
        return 0


async def hold(conversation: dict[str, Any], pieces: list[bytes]) -> None:
    """The asyncio client's side of a conversation, in which the server's bytes come in these pieces."""
    pipe = Pipe(asyncio.get_running_loop(), "vectors")
    transport = Transport()
    pipe.connection_made(cast("asyncio.Transport", transport))
    pipe.set_widths(None, conversation["outputs"], 64)
    futures: list[asyncio.Future[Any]] = []
    for message in map(bytes.fromhex, conversation["sent"]):
        (count,) = struct.unpack_from("<I", message)
        if message[:4] == HELLO[:4]:
            futures.append(pipe.hello())
            continue
        # What this client would not send is answered as something that it sends.
        rows = np.frombuffer(message[4:], "<f4").astype(np.float32) if 1 <= count <= 64 else np.zeros(1, np.float32)
        rows = rows.reshape(count if 1 <= count <= 64 else 1, -1)
        futures.append(Call(rows, len(rows)).join(pipe))
    for piece in pieces:
        pipe.data_received(piece)
    if conversation["closes"]:
        pipe.connection_lost(None)
    for future, meaning in zip(futures, conversation["meaning"]):
        assert future.done()
        if meaning["kind"] == "hello":
            assert future.result() == model_of(meaning)
        elif meaning["kind"] == "answer":
            assert same_bits(future.result(), floats(meaning["scores"]).reshape(-1))
        elif meaning["code"] == 1 and isinstance(future, asyncio.Future) and future.exception() is None:
            # To a hello: the server does not know it.
            assert future.result() is None
        else:
            assert type(future.exception()) is ERRORS[meaning["code"]]
    for future in futures[len(conversation["meaning"]) :]:
        assert isinstance(future.exception(), (ConnectionLost, disrust.ServerClosing))
    assert transport.is_aborted == (pipe.error is not None)


@pytest.mark.parametrize("conversation", CONVERSATIONS.values(), ids=named)
def test_conversations(conversation: dict[str, Any]) -> None:
    received = [bytes.fromhex(message) for message in conversation["received"]]
    asyncio.run(hold(conversation, received))
    asyncio.run(hold(conversation, [b"".join(received)]))
    asyncio.run(hold(conversation, [bytes([byte]) for byte in b"".join(received)]))


@pytest.mark.parametrize("entry", [entry for entry in VECTORS["splits"] if entry["direction"] == "received"], ids=named)
def test_splits(entry: dict[str, Any]) -> None:
    stream = bytes.fromhex(entry["hex"])
    conversation = CONVERSATIONS[entry["conversation"]]
    cuts = [[at] for at in entry["at"]] + [entry["at"]]
    for cut in cuts:
        ends = [0, *cut, len(stream)]
        asyncio.run(hold(conversation, [stream[start:end] for start, end in zip(ends, ends[1:])]))


@pytest.mark.parametrize("conversation", [one for one in CONVERSATIONS.values() if one["server"] != "stub"], ids=named)
def test_conversations_one_by_one(client_of: Any, conversation: dict[str, Any]) -> None:
    """The rows of a conversation, as calls one after the other."""
    pairs = [
        (bytes.fromhex(sent), meaning, bytes.fromhex(received))
        for sent, meaning, received in zip(conversation["sent"], conversation["meaning"], conversation["received"])
        if meaning["kind"] == "answer"
    ]

    def serve(peer: Peer) -> None:
        peer.greet(hello_answer(conversation["feature_dim"], conversation["outputs"]))
        for sent, _, received in pairs:
            assert peer.read(len(sent)) == sent
            peer.send(received)
        wait_for_end(peer)

    with Stub(serve) as stub, client_of(stub.address) as client:
        for sent, meaning, _ in pairs:
            rows = np.frombuffer(sent[4:], "<f4").reshape(-1, conversation["feature_dim"])
            scores = client.predict(rows)
            assert same_bits(scores.reshape(-1, conversation["outputs"]), floats(meaning["scores"]))


def test_every_error_has_its_exception() -> None:
    for entry in VECTORS["errors"]:
        assert type(error_of(entry["code"], "a server")) is ERRORS[entry["code"]]
    assert issubclass(ConnectionLost, DisrustError)
