"""A server whose every byte a test decides. Each connection has a thread, in which the test's function runs."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING, Callable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from types import TracebackType

Floats = npt.NDArray[np.float32]

MAGIC = 0x31525344


def hello_answer(
    features: int = 16, outputs: int = 1, max_vectors: int = 64, version: int = 7, name: bytes = b"stub"
) -> bytes:
    """What a server says to a hello."""
    body = struct.pack("<IIIQ", features, outputs, max_vectors, version) + name
    return struct.pack("<BBH", 0, 128, len(body)) + body


def answer(scores: Floats, outputs: int = 1) -> bytes:
    """An answer with these scores."""
    return bytes([len(scores) // outputs]) + scores.astype("<f4").tobytes()


def sums(rows: Floats, outputs: int = 1) -> Floats:
    """What the model `sum` says, the features added from left to right; with more outputs, that plus 1, 2 and so on."""
    total = np.zeros(len(rows), np.float32)
    for column in range(rows.shape[1]):
        total += rows[:, column]
    both = total[:, None] + np.arange(outputs, dtype=np.float32)[None, :]
    return both[:, 0] if outputs == 1 else both


class Gone(Exception):
    """The peer ended its side."""


class Peer:
    """A connection as a test sees it."""

    def __init__(self, connected: socket.socket, index: int) -> None:
        self.socket = connected
        #: The how-manieth connection it is, from 0.
        self.index = index
        self.received = 0

    def read(self, count: int) -> bytes:
        """So many bytes."""
        got = b""
        while len(got) < count:
            piece = self.socket.recv(count - len(got))
            if not piece:
                raise Gone
            got += piece
            self.received += len(piece)
        return got

    def send(self, data: bytes) -> None:
        """All of it."""
        self.socket.sendall(data)

    def greet(self, hello: bytes | None = None) -> None:
        """Reads a hello and answers it."""
        assert self.read(8) == struct.pack("<II", MAGIC, 0)
        self.send(hello_answer() if hello is None else hello)

    def read_rows(self, features: int = 16) -> Floats:
        """Reads a request."""
        (count,) = struct.unpack("<I", self.read(4))
        if count == MAGIC:
            raise AssertionError("a hello where a request was expected")
        rows = np.frombuffer(self.read(count * features * 4), "<f4").astype(np.float32)
        return rows.reshape(count, features)

    def serve(self, features: int = 16, outputs: int = 1, requests: int | None = None) -> None:
        """Answers requests as they should be, so many or until the peer goes."""
        while requests is None or requests > 0:
            rows = self.read_rows(features)
            self.send(answer(sums(rows, outputs).reshape(-1), outputs))
            if requests is not None:
                requests -= 1


Script = Callable[[Peer], None]


def ordinary(peer: Peer) -> None:
    """What a server does."""
    peer.greet()
    peer.serve()


class Stub:
    """The server. When a script returns, its connection is closed."""

    def __init__(self, script: Script = ordinary, port: int = 0, send_buffer: int | None = None) -> None:
        self.script = script
        self.peers: list[Peer] = []
        #: What went wrong in a script, other than that the client went.
        self.failures: list[BaseException] = []
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if send_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, send_buffer)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(64)
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def connections(self) -> int:
        """How many there have been."""
        return len(self.peers)

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            peer = Peer(connected, len(self.peers))
            self.peers.append(peer)
            thread = threading.Thread(target=self._run, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, peer: Peer) -> None:
        try:
            self.script(peer)
        except (Gone, OSError):
            pass
        except BaseException as failure:
            self.failures.append(failure)
        finally:
            peer.socket.close()

    def stop(self) -> None:
        """Ends it, and every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(10)
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(10)

    def __enter__(self) -> Stub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if error is None:
            assert not self.failures, self.failures
