"""One connection of the blocking client: whoever holds it owns it, so that it needs no lock.

The socket never blocks; `poll` waits, until a deadline. A connection is clean while nothing is owed on it: one that was
left in the midst of a call is closed by its owner, so that a late answer can never be taken for another call's.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ._errors import (
    ConnectionFailed,
    ConnectionLost,
    DisrustError,
    ModelFailed,
    Overloaded,
    ProtocolError,
    TimeoutError,
)
from ._rows import Rows
from ._servers import Endpoint, Family, SocketAddress
from ._wire import (
    ERROR_ANSWER_BYTES,
    FLOAT_BYTES,
    HEADER_BYTES,
    HEADERS,
    HELLO,
    HELLO_ANSWER_BYTES_MAX,
    WIRE,
    Model,
    error_of,
    read_hello,
)

#: Requests of one call that are under way at once: enough that neither side waits for the other, and no more than the
#: server takes from one connection. Fewer where they are large.
WINDOW: Final = 64
#: Bytes of the requests, or of the answers, that are under way at once, unless one alone is larger.
WINDOW_BYTES: Final = 1 << 20
#: Requests in one system call: two buffers each, and the kernel takes 1024.
SEND_TOGETHER: Final = 64
#: Whole answers from which on they are looked at together.
TOGETHER_MIN: Final = 4
#: The answer's count of rows stands here, so that the scores after it are aligned.
ANSWER_AT: Final = 3

# macOS has no such flag in all versions; there SIGPIPE is ignored by Python itself.
NO_SIGNAL: Final[int] = getattr(socket, "MSG_NOSIGNAL", 0)


class PooledEndpoint(Endpoint):
    """An address of a server, and the connections to it."""

    __slots__ = ("idle", "in_flight")

    def __init__(self, text: str, family: Family, address: SocketAddress) -> None:
        super().__init__(text, family, address)
        self.idle: list[Connection] = []
        # Rows of the calls that are under way.
        self.in_flight = 0


class Progress:
    """A call of many rows: what it has of its scores, whichever connections they came over."""

    __slots__ = ("done", "result", "rows")

    def __init__(self, rows: Rows, outputs: int) -> None:
        self.rows = rows
        self.result = np.empty(len(rows) * outputs, WIRE)
        self.done = 0


class Connection:
    """A connection and its buffers."""

    __slots__ = (
        "_answer_bytes",
        "_buffer",
        "_floats",
        "_poll",
        "_socket",
        "_tail",
        "endpoint",
        "is_clean",
        "max_vectors",
        "model",
        "outputs",
        "poll",
    )

    def __init__(
        self, endpoint: PooledEndpoint, connected: socket.socket, model: Model | None, outputs: int, rows: int
    ) -> None:
        self.endpoint = endpoint
        self.model = model
        self.outputs = outputs
        self.max_vectors = rows
        self.is_clean = True
        self._socket = connected
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)
        self.poll = self._poll.poll
        # Room for the longest answer and for more, so that bytes that nobody asked for are seen.
        self._buffer = bytearray(ANSWER_AT + 1 + (self.max_vectors * outputs + 1) * FLOAT_BYTES)
        self._tail = memoryview(self._buffer)[ANSWER_AT:]
        self._floats = np.frombuffer(self._buffer, WIRE)
        self._answer_bytes = 1 + outputs * FLOAT_BYTES * np.arange(self.max_vectors + 1)

    def close(self) -> None:
        """Closes the socket; what is owed on it is lost."""
        self.is_clean = False
        self._socket.close()

    def score(self, rows: Any, deadline: float) -> npt.NDArray[np.float32]:
        """The scores of 1 to `max_vectors` rows, one after the other: one send and one receive, if all goes well.

        Raises:
            ConnectionLost, TimeoutError, and what an error answer says.
        """
        count = len(rows)
        scores = count * self.outputs
        self.is_clean = False
        try:
            sent = self._socket.sendmsg((HEADERS[count], rows), (), NO_SIGNAL)
        except OSError:
            sent = 0
        received = 0
        if sent == HEADER_BYTES + rows.nbytes:
            if not self.poll(max(0.0, deadline - time.monotonic()) * 1000.0):
                raise self._timed_out()
            received = self._receive(self._tail)
            if received == 1 + scores * FLOAT_BYTES and self._buffer[ANSWER_AT] == count:
                self.is_clean = True
                return self._floats[1 : scores + 1].astype(np.float32)
        progress = Progress(rows, self.outputs)
        _Exchange(self, progress, sent, bytes(self._tail[:received])).run(deadline)
        return progress.result.astype(np.float32, copy=False)

    def score_many(self, progress: Progress, deadline: float) -> None:
        """Scores the rows that are left, in requests of `max_vectors`, several of them under way at once."""
        self.is_clean = False
        _Exchange(self, progress, 0, b"").run(deadline)

    def hello(self, deadline: float) -> Model | None:
        """Asks for the model that is in force now; None if the server has no hello (the connection is lost then).

        Raises:
            ConnectionLost, TimeoutError, ProtocolError, and what an error answer says.
        """
        self.is_clean = False
        answer = say_hello(self._socket, self.endpoint.text, deadline)
        self.is_clean = answer is not None
        return answer

    def _timed_out(self) -> TimeoutError:
        return TimeoutError(f"{self.endpoint.text} did not answer in time")

    def _receive(self, into: memoryview) -> int:
        """Bytes that were there; 0 if there are none after all."""
        try:
            received = self._socket.recv_into(into)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ConnectionLost(f"the connection to {self.endpoint.text} broke: {error}") from error
        if received == 0:
            raise ConnectionLost(f"{self.endpoint.text} closed the connection")
        return received


class _Exchange:
    """What is left of a call, over one connection: reads while it writes, so that full buffers stop neither side."""

    def __init__(self, connection: Connection, progress: Progress, sent: int, received: bytes) -> None:
        self.connection = connection
        self.socket: socket.socket = connection._socket
        self.progress = progress
        rows = progress.rows[progress.done :]
        self.bytes_of_rows = rows.reshape(-1).view(np.uint8).data
        self.first = progress.done
        self.row_bytes = rows.shape[1] * FLOAT_BYTES
        self.score_bytes = connection.outputs * FLOAT_BYTES
        # All requests have as many rows but the last one, which has the rest.
        self.each = min(connection.max_vectors, len(rows))
        self.requests = -(-len(rows) // self.each)
        self.last = len(rows) - (self.requests - 1) * self.each
        self.request_bytes: int = HEADER_BYTES + self.each * self.row_bytes
        self.answer_bytes = 1 + self.each * self.score_bytes
        largest = max(self.request_bytes, self.answer_bytes)
        self.window: int = max(1, min(WINDOW, WINDOW_BYTES // largest))
        self.end: int = len(self.bytes_of_rows) + HEADER_BYTES * self.requests
        self.sent: int = sent
        self.answered = 0
        self.is_send_broken = False
        self.failure: DisrustError | None = None
        self.result = progress.result.view(np.uint8).data[progress.done * self.score_bytes :]
        under_way = min(self.window, self.requests)
        self.buffer = bytearray(under_way * self.answer_bytes + 1)
        self.buffer[: len(received)] = received
        self.filled = len(received)

    def run(self, deadline: float) -> None:
        """Until all is answered.

        Raises:
            ConnectionLost, TimeoutError, ProtocolError, and what an error answer says. After ModelFailed and Overloaded
            the connection is clean.
        """
        self._take_answers()
        into = memoryview(self.buffer)
        wants_write = False
        while self.answered < self.requests:
            must_wait = self._send()
            if must_wait != wants_write:
                wants_write = must_wait
                events = select.POLLIN | select.POLLOUT if must_wait else select.POLLIN
                self.connection._poll.modify(self.socket, events)
            ready = self.connection.poll(max(0.0, deadline - time.monotonic()) * 1000.0)
            if not ready:
                raise self.connection._timed_out()
            if ready[0][1] != select.POLLOUT:
                self.filled += self.connection._receive(into[self.filled :])
                self._take_answers()
        if self.filled != 0:
            raise self._nonsense("sent more than it was asked for")
        if wants_write:
            self.connection._poll.modify(self.socket, select.POLLIN)
        # A request that was refused before all of it was sent leaves the server in its midst.
        self.connection.is_clean = self.sent == self.end
        if self.failure is not None:
            raise self.failure

    def _send(self) -> bool:
        """Sends what the window has room for; whether some of it must wait until the kernel takes more."""
        if self.is_send_broken:
            return False
        limit = self._limit()
        while self.sent < limit:
            try:
                self.sent += self.socket.sendmsg(self._buffers(limit), (), NO_SIGNAL)
            except BlockingIOError:
                return True
            except OSError:
                # What the server said before it closed is still to be read.
                self.is_send_broken = True
                return False
        return False

    def _limit(self) -> int:
        """Up to which byte to send now: what the window has room for, once half of it is free."""
        limit: int = min(self.end, (self.answered + self.window) * self.request_bytes)
        if limit < self.end and limit - self.sent < self.window // 2 * self.request_bytes:
            # What was begun is sent to its end.
            limit = min(self.end, -(-self.sent // self.request_bytes) * self.request_bytes)
        return limit

    def _buffers(self, limit: int) -> list[bytes | memoryview]:
        """Headers and rows from the byte `sent` on."""
        index, offset = divmod(self.sent, self.request_bytes)
        until = min(-(-limit // self.request_bytes), index + SEND_TOGETHER)
        rows_bytes = self.request_bytes - HEADER_BYTES
        rows = self.bytes_of_rows
        buffers: list[bytes | memoryview] = [HEADERS[self.each]] * (2 * (until - index))
        buffers[1::2] = [
            rows[start : start + rows_bytes] for start in range(index * rows_bytes, until * rows_bytes, rows_bytes)
        ]
        if until == self.requests:
            buffers[-2] = HEADERS[self.last]
        if offset >= HEADER_BYTES:
            start = index * rows_bytes
            buffers[0] = b""
            buffers[1] = rows[start + offset - HEADER_BYTES : start + rows_bytes]
        elif offset > 0:
            header: bytes = HEADERS[self.last if index + 1 == self.requests else self.each]
            buffers[0] = header[offset:]
        return buffers

    def _take_answers(self) -> None:
        """Takes what is whole of the answers in the buffer, and moves the rest to its front."""
        at = 0
        while self.answered < self.requests and at < self.filled:
            whole = min((self.filled - at) // self.answer_bytes, self.requests - self.answered)
            if whole >= TOGETHER_MIN and self.failure is None:
                taken = self._take_together(at, whole if self.last == self.each else whole - 1)
                at += taken * self.answer_bytes
                if taken > 0:
                    continue
            taken = self._take_one(at)
            if taken == 0:
                break
            at += taken
        if at > 0:
            rest = self.filled - at
            self.buffer[:rest] = self.buffer[at : self.filled]
            self.filled = rest
        elif self.filled == len(self.buffer):
            raise self._nonsense("sent more than it was asked for")

    def _take_together(self, at: int, count: int) -> int:
        """Takes `count` whole answers if all of them are scores; how many it took."""
        if count > self._requests_sent() - self.answered:
            return 0
        answers = np.frombuffer(self.buffer, np.uint8, count * self.answer_bytes, at).reshape(count, self.answer_bytes)
        if (answers[:, 0] != self.each).any():
            return 0
        start = self.answered * (self.answer_bytes - 1)
        into = np.frombuffer(self.result, np.uint8, count * (self.answer_bytes - 1), start)
        into.reshape(count, self.answer_bytes - 1)[...] = answers[:, 1:]
        self._answered(count)
        return count

    def _take_one(self, at: int) -> int:
        """Takes the answer at a byte of the buffer; its length, or 0 if it is not whole yet."""
        count = self.last if self.answered + 1 == self.requests else self.each
        if self.buffer[at] == 0:
            if self.filled - at < ERROR_ANSWER_BYTES:
                return 0
            self._error_answer(self.buffer[at + 1])
            return ERROR_ANSWER_BYTES
        if self.buffer[at] != count:
            raise self._nonsense(f"answered {count} rows with {self.buffer[at]} scores")
        if self.answered >= self._requests_sent():
            raise self._nonsense("answered a request that it cannot have read")
        size = 1 + count * self.score_bytes
        if self.filled - at < size:
            return 0
        start = self.answered * (self.answer_bytes - 1)
        self.result[start : start + size - 1] = memoryview(self.buffer)[at + 1 : at + size]
        self._answered(1)
        return size

    def _error_answer(self, code: int) -> None:
        failure = error_of(code, self.connection.endpoint.text)
        if not isinstance(failure, (ModelFailed, Overloaded)):
            raise failure
        if self.answered * self.request_bytes >= self.sent:
            raise self._nonsense("answered a request that it cannot have read")
        if self.failure is None:
            self.failure = failure
            # Nothing more is begun; what was begun is still answered, and not for the next call.
            begun = -(-self.sent // self.request_bytes)
            if begun < self.requests:
                self.requests, self.last = begun, self.each
                self.end = begun * self.request_bytes
        self.answered += 1

    def _answered(self, count: int) -> None:
        self.answered += count
        if self.failure is None:
            rows = len(self.progress.rows)
            self.progress.done = min(self.first + self.answered * self.each, rows)

    def _requests_sent(self) -> int:
        """Requests whose last byte was sent."""
        return self.requests if self.sent == self.end else self.sent // self.request_bytes

    def _nonsense(self, what: str) -> ProtocolError:
        return ProtocolError(
            f"{self.connection.endpoint.text} {what}; is it a disrust server, with this number of outputs?"
        )


def connect(endpoint: Endpoint, deadline: float) -> tuple[socket.socket, Model | None]:
    """Connects and says hello, until the deadline; where the server has no hello, connects again and goes without.

    Raises:
        ConnectionFailed, ConnectionLost, TimeoutError, ProtocolError, and what an error answer says.
    """
    connected = _connect(endpoint, deadline)
    try:
        model = say_hello(connected, endpoint.text, deadline)
    except BaseException:
        connected.close()
        raise
    if model is not None:
        return connected, model
    connected.close()
    return _connect(endpoint, deadline), None


def _connect(endpoint: Endpoint, deadline: float) -> socket.socket:
    connecting = socket.socket(endpoint.family, socket.SOCK_STREAM)
    try:
        connecting.settimeout(max(1e-3, deadline - time.monotonic()))
        connecting.connect(endpoint.address)
        connecting.setblocking(False)
        if endpoint.family != socket.AF_UNIX:
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except socket.timeout as error:
        connecting.close()
        raise TimeoutError(f"{endpoint.text} could not be connected to in time") from error
    except OSError as error:
        connecting.close()
        raise ConnectionFailed(
            f"{endpoint.text} could not be connected to: {error}; does a server listen there?"
        ) from error
    except BaseException:
        connecting.close()
        raise
    return connecting


def say_hello(connected: socket.socket, server: str, deadline: float) -> Model | None:
    """Asks for the model; None if the server does not know a hello."""
    poll = select.poll()
    poll.register(connected, select.POLLIN)
    with contextlib.suppress(OSError):
        # 8 bytes fit, or the peer has closed, and what it has said is read first.
        connected.sendmsg((HELLO,), (), NO_SIGNAL)
    answer = b""
    while True:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000.0):
            raise TimeoutError(f"{server} did not answer a hello in time")
        try:
            received = connected.recv(HELLO_ANSWER_BYTES_MAX + 1 - len(answer))
        except BlockingIOError:
            continue
        except OSError as error:
            raise ConnectionLost(f"the connection to {server} broke: {error}") from error
        if not received:
            raise ConnectionLost(f"{server} closed the connection")
        answer += received
        read = read_hello(answer)
        if read is None:
            continue
        model, length = read
        if isinstance(model, int):
            if model == 1:
                return None
            raise error_of(model, server)
        if len(answer) > length:
            raise ProtocolError(f"{server} sent more than it was asked for")
        return model
