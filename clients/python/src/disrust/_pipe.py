"""One connection of the asyncio client: all calls go through it in order, and their answers come back in order.

A call that was cancelled, or whose time is over, keeps its place in the line: its late answer is read and dropped, so
that the answers behind it reach their own calls.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from ._errors import ConnectionLost, DisrustError, ModelFailed, Overloaded, ProtocolError, ServerClosing
from ._rows import Rows
from ._wire import (
    ERROR_ANSWER_BYTES,
    FLOAT_BYTES,
    HEADER_BYTES,
    HEADERS,
    HELLO,
    HELLO_ANSWER_BYTES_MAX,
    ROWS_MAX,
    WIRE,
    Model,
    error_of,
    read_hello,
)

#: Requests of one call in the line at once, fewer where they are large. More come when half of them are answered,
#: behind those of other calls.
WINDOW: Final = 32
#: Bytes of one call's requests, or of their answers, in the line at once, unless one alone is larger.
WINDOW_BYTES: Final = 1 << 19
#: Whole requests, or answers, of one call from which on they are made, or looked at, together.
TOGETHER_MIN: Final = 4
#: Bytes that are put together in one turn of the loop; then the transport is asked whether it takes more.
TOGETHER_BYTES_MAX: Final = 1 << 16


class Call:
    """A call of `predict`: its rows, which of them were sent and answered, and who waits for it."""

    __slots__ = ("answered", "count", "future", "is_waiting", "result", "rows", "sent")

    def __init__(self, rows: Rows, count: int) -> None:
        self.rows = rows
        self.count = count
        self.sent = 0
        self.answered = 0
        self.is_waiting = False
        self.result: npt.NDArray[np.float32] | None = None
        self.future: asyncio.Future[Any]

    def join(self, pipe: Pipe) -> asyncio.Future[Any]:
        """Joins a connection's line; what comes of it are its scores, one after the other."""
        self.future = pipe.lost.get_loop().create_future()
        pipe.submit(self)
        return self.future


class HelloCall:
    """A hello, and who waits for its answer."""

    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[Model | None]) -> None:
        self.future = future


class Pipe(asyncio.Protocol):
    """The connection. Whoever made it sets its widths before the first call."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: str) -> None:
        self.server = server
        self.model: Model | None = None
        self.max_vectors = ROWS_MAX
        #: Why nothing can be sent any more.
        self.error: DisrustError | None = None
        self.lost: asyncio.Future[None] = loop.create_future()
        #: When something was received, or was first waited for.
        self.heard_at = loop.time()
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._outputs = 1
        #: Each request whose answer is owed.
        self._line: deque[Call | HelloCall] = deque()
        #: Calls that have more to send once the transport takes it.
        self._waiting: deque[Call] = deque()
        self._is_paused = False
        #: What is sent at the end of this turn of the loop.
        self._together: list[bytes | memoryview] = []
        self._together_bytes = 0
        self._is_turn_open = False
        self._partial = bytearray()
        self._needed = 0

    def set_widths(self, model: Model | None, outputs: int, rows: int) -> None:
        """What its requests and answers look like."""
        self.model = model
        self._outputs = outputs
        self.max_vectors = rows

    def in_flight(self) -> int:
        """Requests that are owed an answer, or wait to be sent."""
        return len(self._line) + len(self._waiting)

    def is_open(self) -> bool:
        """Whether it can be used. Ends it if nothing is owed and yet there is something to read: its end, or nonsense.

        The loop sees that by itself, but perhaps only after the next request was written.
        """
        if not self._line and self.error is None and self._poll is not None and self._poll.poll(0):
            self.fail(ConnectionLost(f"{self.server} closed the connection, or sent what it was not asked for"))
        return self.error is None

    def submit(self, call: Call) -> None:
        """Puts a call into the line; its future has its scores, float32 one after the other, or what went wrong."""
        call.sent = call.answered
        call.is_waiting = False
        if self.error is not None:
            call.future.set_exception(_again(self.error))
        elif call.count <= self.max_vectors and not self._is_paused and not call.answered:
            call.sent = call.count
            self._join_line(call)
            self._write(HEADERS[call.count] + call.rows.tobytes())
        else:
            self._send(call)

    def hello(self) -> asyncio.Future[Model | None]:
        """Asks for the model; the answer is None if the server does not know a hello."""
        future: asyncio.Future[Model | None] = self._loop.create_future()
        if self.error is not None:
            future.set_exception(_again(self.error))
        else:
            self._join_line(HelloCall(future))
            self._write(HELLO)
        return future

    def fail(self, error: DisrustError) -> None:
        """Ends the connection; every call in the line and behind it gets this error."""
        if self.error is None:
            self.error = error
            if self._transport is not None:
                self._transport.abort()
        line = [*self._line, *self._waiting]
        self._line.clear()
        self._waiting.clear()
        self._together.clear()
        for call in line:
            if not call.future.done():
                call.future.set_exception(_again(error))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket"), select.POLLIN)
        if self.error is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        why = "closed the connection" if exc is None else f"broke the connection: {exc}"
        self.fail(ConnectionLost(f"{self.server} {why}"))
        self._transport = None
        if not self.lost.done():
            self.lost.set_result(None)

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._is_paused = False
        while self._waiting and not self._is_paused:
            call = self._waiting.popleft()
            call.is_waiting = False
            self._send(call)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self.error is not None:
            return
        self.heard_at = self._loop.time()
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed:
                return
            data = bytes(self._partial)
            self._partial.clear()
        try:
            taken = self._take(data)
        except DisrustError as error:
            self._ended_by(error)
            return
        if taken < len(data):
            self._partial += data[taken:]

    # Reading

    def _take(self, data: bytes) -> int:
        """Takes what is whole of the answers; how many bytes that were."""
        at, end, line = 0, len(data), self._line
        while at < end:
            if not line:
                raise ProtocolError(f"{self.server} sent more than it was asked for")
            call = line[0]
            if isinstance(call, HelloCall):
                taken = self._take_hello(call, data[at : at + HELLO_ANSWER_BYTES_MAX])
            else:
                taken = self._take_answer(call, data, at)
            if taken == 0:
                break
            at += taken
        return at

    def _take_answer(self, call: Call, data: bytes, at: int) -> int:
        rows = min(self.max_vectors, call.count - call.answered)
        if data[at] == 0:
            if len(data) - at < ERROR_ANSWER_BYTES:
                self._needed = ERROR_ANSWER_BYTES
                return 0
            error = error_of(data[at + 1], self.server)
            if not isinstance(error, (ModelFailed, Overloaded)):
                raise error
            self._line.popleft()
            call.answered += rows
            if not call.future.done():
                call.future.set_exception(error)
            return ERROR_ANSWER_BYTES
        if data[at] != rows:
            raise ProtocolError(
                f"{self.server} answered {rows} rows with {data[at]} scores; "
                "is it a disrust server, with this number of outputs?"
            )
        scores = rows * self._outputs
        size = 1 + scores * FLOAT_BYTES
        whole = (len(data) - at) // size
        if whole == 0:
            self._needed = size
            return 0
        if whole >= TOGETHER_MIN:
            together = self._take_together(call, data, at, min(whole, (call.sent - call.answered) // rows), size)
            if together:
                return together
        self._nothing_behind(data, at + size)
        self._line.popleft()
        self._answered(call, rows, np.frombuffer(data, WIRE, scores, at + 1))
        return size

    def _take_together(self, call: Call, data: bytes, at: int, whole: int, size: int) -> int:
        """Takes so many answers to one call at once, if they stand next to each other and are as they should be."""
        for index, other in enumerate(self._line):
            if index == whole:
                break
            if other is not call:
                return 0
        answers = np.frombuffer(data, np.uint8, whole * size, at).reshape(whole, size)
        if whole < TOGETHER_MIN or (answers[:, 0] != data[at]).any():
            return 0
        self._nothing_behind(data, at + whole * size, whole)
        for _ in range(whole):
            self._line.popleft()
        self._answered(call, whole * data[at], answers[:, 1:].reshape(-1).view(WIRE))
        return whole * size

    def _answered(self, call: Call, rows: int, scores: npt.NDArray[np.float32]) -> None:
        first = call.answered
        call.answered = first + rows
        if call.future.done():
            # It was cancelled, or failed: nobody waits for its scores.
            return
        if rows == call.count:
            call.future.set_result(scores.astype(np.float32))
            return
        if call.result is None:
            call.result = np.empty(call.count * self._outputs, np.float32)
        call.result[first * self._outputs : call.answered * self._outputs] = scores
        if call.answered == call.count:
            call.future.set_result(call.result)
        elif call.sent < call.count and (call.sent - call.answered) * 2 <= self._window(call) * self.max_vectors:
            self._send(call)

    def _take_hello(self, call: HelloCall, data: bytes) -> int:
        read = read_hello(data)
        if read is None:
            self._needed = len(data) + 1
            return 0
        model, length = read
        if isinstance(model, int):
            if model != 1:
                raise error_of(model, self.server)
            # A server that knows no hello, and closes now.
            if not call.future.done():
                call.future.set_result(None)
            raise ConnectionLost(f"{self.server} does not know a hello")
        self._nothing_behind(data, length)
        self._line.popleft()
        if not call.future.done():
            call.future.set_result(model)
        return length

    def _nothing_behind(self, data: bytes, end: int, answers: int = 1) -> None:
        """The last of the answers that are owed ends with the last byte; else who knows what it was the answer to."""
        if len(self._line) == answers and end < len(data):
            raise ProtocolError(f"{self.server} sent more than it was asked for")

    def _ended_by(self, error: DisrustError) -> None:
        """The first in the line gets the error; those behind it are not to blame, and are tried again elsewhere."""
        if self._line and not isinstance(error, (ConnectionLost, ServerClosing)):
            first = self._line.popleft()
            if not first.future.done():
                first.future.set_exception(error)
            error = ConnectionLost(f"the connection to {self.server} was given up: {error}")
        self.fail(error)

    # Writing

    def _join_line(self, call: Call | HelloCall, requests: int = 1) -> None:
        if not self._line:
            self.heard_at = self._loop.time()
        if requests == 1:
            self._line.append(call)
        else:
            self._line.extend([call] * requests)

    def _window(self, call: Call) -> int:
        row_bytes: int = max(call.rows.shape[1], self._outputs) * FLOAT_BYTES
        return max(1, min(WINDOW, WINDOW_BYTES // (row_bytes * self.max_vectors)))

    def _send(self, call: Call) -> None:
        """Sends of a call what its window has room for, or has it wait until the transport takes more."""
        limit = min(call.count, call.answered + self._window(call) * self.max_vectors)
        while call.sent < limit and not call.future.done():
            if self._is_paused:
                if not call.is_waiting:
                    call.is_waiting = True
                    self._waiting.append(call)
                return
            first = call.sent
            whole = (limit - first) // self.max_vectors
            if whole >= TOGETHER_MIN:
                call.sent = first + whole * self.max_vectors
                self._join_line(call, whole)
                self._write(_requests(call.rows[first : call.sent], self.max_vectors))
            else:
                call.sent = min(limit, first + self.max_vectors)
                self._join_line(call)
                self._write(HEADERS[call.sent - first] + call.rows[first : call.sent].tobytes())

    def _write(self, request: bytes | memoryview) -> None:
        """Writes what is alone in the line at once, and all else that comes in this turn of the loop together."""
        if len(self._line) == 1 and not self._is_turn_open:
            if self._transport is not None:
                self._transport.write(request)
            return
        self._together.append(request)
        self._together_bytes += len(request)
        if self._together_bytes >= TOGETHER_BYTES_MAX:
            self._write_together()
        elif not self._is_turn_open:
            self._is_turn_open = True
            self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._is_turn_open = False
        self._write_together()

    def _write_together(self) -> None:
        if self._together and self._transport is not None:
            # One that is long enough to go by itself needs no copy.
            together = self._together[0] if len(self._together) == 1 else b"".join(self._together)
            self._together.clear()
            self._together_bytes = 0
            self._transport.write(together)


def _requests(rows: Rows, each: int) -> memoryview:
    """The requests for these rows, with so many rows each."""
    count = len(rows) // each
    requests = np.empty((count, HEADER_BYTES + each * rows.shape[1] * FLOAT_BYTES), np.uint8)
    requests[:, :HEADER_BYTES] = np.frombuffer(HEADERS[each], np.uint8)
    requests[:, HEADER_BYTES:] = rows.view(np.uint8).reshape(count, -1)
    return requests.reshape(-1).data


def _again(error: DisrustError) -> DisrustError:
    """The same error for another call, so that each has its own traceback."""
    return type(error)(*error.args)
