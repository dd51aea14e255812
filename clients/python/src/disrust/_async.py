"""The asyncio client: one connection for each address, shared by all calls."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from ._errors import ClientClosed, ConnectionFailed, ConnectionLost, DisrustError, ServerClosing, TimeoutError
from ._pipe import Call, Pipe
from ._servers import Directory, Endpoint, Family, SocketAddress, next_try, pick
from ._settings import Settings, Shape, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    import numpy.typing as npt

    from ._wire import Model

#: A connection is given up when a call's time is over and nothing was heard for half of the client's timeout, and for
#: this at least. Shorter: a server that is slow for a moment loses it, and answers again what it has just answered.
SILENCE_SECONDS_MIN: Final = 0.5


class _SharedEndpoint(Endpoint):
    """An address, and the connection to it, or the task that makes one."""

    __slots__ = ("connecting", "pipe")

    def __init__(self, text: str, family: Family, address: SocketAddress) -> None:
        super().__init__(text, family, address)
        self.pipe: Pipe | None = None
        self.connecting: asyncio.Task[Pipe] | None = None


def _in_flight(endpoint: _SharedEndpoint) -> int:
    if endpoint.connecting is not None:
        # It may be silent: who is connected is better, and it is enough that one call waits for it.
        return sys.maxsize
    return 0 if endpoint.pipe is None else endpoint.pipe.in_flight()


class AsyncClient:
    """A client for asyncio: scores rows, with all calls pipelined over one connection for each address.

    It belongs to the event loop that uses it first, and to another one once that is closed. A child after ``os.fork``
    makes connections of its own. Its arguments are those of `Client`. Use ``async with``, or ``await client.close()``
    at the end.

    A call may be cancelled at any time; what the server answers to it is dropped, and the calls behind it get their own
    answers. `X` must not change while a call is under way.
    """

    def __init__(
        self,
        servers: str | Sequence[str],
        *,
        features: int | None = None,
        outputs: int | None = None,
        columns: Sequence[str] | None = None,
        admin: str | None = None,
        timeout: float = 5.0,
        connect_timeout: float = 2.0,
        retries: int = 3,
    ) -> None:
        self._settings = Settings(servers, features, outputs, columns, admin, timeout, connect_timeout, retries)
        self._silence = max(self._settings.timeout / 2, SILENCE_SECONDS_MIN)
        self._shape = Shape(self._settings)
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._directory: Directory[_SharedEndpoint] = Directory(self._settings.servers, _SharedEndpoint)
        _clients.add(self)

    async def predict(self, X: Any, *, timeout: float | None = None) -> npt.NDArray[np.float32]:
        """Scores rows, as `Client.predict` does: the same arguments, results and errors.

        Rows are put together with their headers, and so copied once, on their way to the transport.

        Raises:
            RuntimeError: The client is in use by another event loop.
        """
        loop = self._bind()
        deadline = loop.time() + (self._settings.timeout if timeout is None else seconds(timeout, "timeout"))
        shape = self._shape
        if not shape.is_known:
            await self._call(loop, _nothing, deadline)
        rows = X if shape.is_ready(X) else shape.rows(X)
        count = len(rows)
        outputs = shape.outputs
        if count:
            scores = cast("npt.NDArray[np.float32]", await self._call(loop, Call(rows, count).join, deadline))
        else:
            scores = np.empty(0, np.float32)
        return scores if outputs == 1 else scores.reshape(count, outputs)

    async def connect(self, *, timeout: float | None = None) -> Model | None:
        """Connects, if nothing is connected yet; returns what the server says of its model, None if it is too old to.

        Raises:
            As `predict` does.
        """
        loop = self._bind()
        if not self._shape.is_known:
            limit = self._settings.timeout if timeout is None else seconds(timeout, "timeout")
            await self._call(loop, _nothing, loop.time() + limit)
        return self._shape.model

    async def hello(self, *, timeout: float | None = None) -> Model | None:
        """Asks a server which model it has now, after a reload for instance; None if it is too old to say.

        Raises:
            As `predict` does.
        """
        loop = self._bind()
        deadline = loop.time() + (self._settings.timeout if timeout is None else seconds(timeout, "timeout"))
        model = cast("Model | None", await self._call(loop, _ask, deadline))
        if model is not None:
            await self._check_names(loop, model, deadline)
            self._shape.learn(model, "the server")
        return model

    @property
    def model(self) -> Model | None:
        """What the server said of its model when a connection was made, or `hello` called, last.

        None before that, and if the server is too old to say.
        """
        return self._shape.model

    async def close(self) -> None:
        """Closes the connections. Calls that are under way end with ClientClosed, and no call begins after it."""
        self._is_closed = True
        if self._loop is not asyncio.get_running_loop():
            return
        ending: list[asyncio.Future[Any]] = []
        for endpoint in self._directory.endpoints:
            if endpoint.connecting is not None:
                endpoint.connecting.cancel()
                ending.append(endpoint.connecting)
            if endpoint.pipe is not None:
                endpoint.pipe.fail(ClientClosed("the client was closed"))
                ending.append(endpoint.pipe.lost)
        if ending:
            await asyncio.wait(ending)

    async def __aenter__(self) -> AsyncClient:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _bind(self) -> asyncio.AbstractEventLoop:
        """The running loop, to which this client belongs."""
        loop = asyncio.get_running_loop()
        if self._is_closed:
            raise ClientClosed("the client was closed")
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                raise RuntimeError("this AsyncClient is in use by another event loop; make one for each")
            self._loop = loop
            self._directory = Directory(self._settings.servers, _SharedEndpoint)
        return loop

    async def _call(
        self, loop: asyncio.AbstractEventLoop, use: Callable[[Pipe], asyncio.Future[Any]], deadline: float
    ) -> object:
        """What comes of putting something into a connection's line, and into others if need be, until the deadline."""
        tries = 0
        while True:
            try:
                endpoint = await self._pick(loop, deadline)
                pipe = endpoint.pipe
                if pipe is None or not pipe.is_open():
                    pipe = await self._connected(loop, endpoint, deadline)
                try:
                    result = await self._until(loop, pipe, use(pipe), deadline)
                except (ConnectionLost, ServerClosing):
                    self._give_up(endpoint, pipe)
                    raise
                except TimeoutError:
                    endpoint.failed()
                    raise
            except (ConnectionFailed, ConnectionLost, ServerClosing) as error:
                tries += 1
                await self._wait_to_try_again(error, tries, deadline)
            else:
                if endpoint.failures:
                    endpoint.answered()
                return result

    def _give_up(self, endpoint: _SharedEndpoint, pipe: Pipe) -> None:
        """The server closes, or has gone. All calls that were in the line come here, and the first of them tells."""
        if endpoint.pipe is pipe:
            endpoint.pipe = None
            endpoint.failed()
            self._directory.look_again()

    async def _until(
        self, loop: asyncio.AbstractEventLoop, pipe: Pipe, future: asyncio.Future[Any], deadline: float
    ) -> object:
        """Waits for an answer, or for the deadline."""
        timer = loop.call_at(deadline, self._time_is_over, pipe, future)
        try:
            return await future
        finally:
            timer.cancel()

    def _time_is_over(self, pipe: Pipe, future: asyncio.Future[Any]) -> None:
        if future.done():
            return
        future.set_exception(TimeoutError(f"{pipe.server} did not answer in time"))
        if asyncio.get_running_loop().time() - pipe.heard_at >= self._silence:
            pipe.fail(ConnectionLost(f"nothing was heard from {pipe.server}"))

    async def _pick(self, loop: asyncio.AbstractEventLoop, deadline: float) -> _SharedEndpoint:
        """The server that is to be asked next."""
        directory = self._directory
        if not directory.endpoints:
            search = directory.begin()
            if not search.is_done.is_set():
                await loop.run_in_executor(None, search.wait, deadline)
        if directory.search is not None:
            for endpoint in directory.take_over():
                if endpoint.pipe is not None:
                    # Calls that are under way there are tried again.
                    endpoint.pipe.fail(ConnectionLost(f"{endpoint.text} is no address of the servers any more"))
        return pick(directory.endpoints, _in_flight)

    async def _connected(self, loop: asyncio.AbstractEventLoop, endpoint: _SharedEndpoint, deadline: float) -> Pipe:
        """A new connection; all who need it wait for the same task."""
        if endpoint.connecting is None:
            if endpoint.pipe is not None:
                # The server has ended it.
                self._directory.look_again()
            endpoint.connecting = loop.create_task(self._connect(loop, endpoint))
            endpoint.connecting.add_done_callback(lambda task: _is_connected(endpoint, task))
        task = endpoint.connecting
        await asyncio.wait({task}, timeout=max(0.0, deadline - loop.time()))
        if not task.done():
            raise TimeoutError(f"{endpoint.text} could not be connected to in time")
        if task.cancelled():
            raise ClientClosed("the client was closed")
        return task.result()

    async def _connect(self, loop: asyncio.AbstractEventLoop, endpoint: _SharedEndpoint) -> Pipe:
        deadline = loop.time() + self._settings.connect_timeout
        # Also those that are made just as the time is over.
        made: list[Pipe] = []
        try:
            try:
                model = await asyncio.wait_for(self._greet(loop, endpoint, made), self._settings.connect_timeout)
            except asyncio.TimeoutError as error:
                raise ConnectionFailed(f"{endpoint.text} could not be connected to in time") from error
            await self._check_names(loop, model, deadline)
            outputs, rows = self._shape.learn(model, endpoint.text)
        except BaseException as error:
            for pipe in made:
                pipe.fail(ConnectionLost("given up"))
            if isinstance(error, DisrustError):
                endpoint.failed()
                self._directory.look_again()
            raise
        made[-1].set_widths(model, outputs, rows)
        endpoint.pipe = made[-1]
        endpoint.answered()
        return made[-1]

    async def _greet(
        self, loop: asyncio.AbstractEventLoop, endpoint: _SharedEndpoint, made: list[Pipe]
    ) -> Model | None:
        """Connects, and says hello; connects again, and goes without, if the server does not know it."""
        await self._open(loop, endpoint, made)
        model = await made[-1].hello()
        if model is None:
            await self._open(loop, endpoint, made)
        return model

    async def _open(self, loop: asyncio.AbstractEventLoop, endpoint: _SharedEndpoint, made: list[Pipe]) -> None:
        def make() -> Pipe:
            made.append(Pipe(loop, endpoint.text))
            return made[-1]

        connecting = socket.socket(endpoint.family, socket.SOCK_STREAM)
        try:
            connecting.setblocking(False)
            await loop.sock_connect(connecting, cast("Any", endpoint.address))
            if endpoint.family != socket.AF_UNIX:
                connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.create_connection(make, sock=connecting)
        except OSError as error:
            connecting.close()
            raise ConnectionFailed(
                f"{endpoint.text} could not be connected to: {error}; does a server listen there?"
            ) from error
        except BaseException:
            connecting.close()
            raise

    async def _check_names(self, loop: asyncio.AbstractEventLoop, model: Model | None, deadline: float) -> None:
        if self._shape.needs_names(model):
            await loop.run_in_executor(None, self._shape.compare_names, deadline)

    async def _wait_to_try_again(self, error: DisrustError, tries: int, deadline: float) -> None:
        pause = next_try(error, tries, self._settings.retries, self._directory.endpoints, deadline)
        if pause > 0:
            await asyncio.sleep(pause)

    def _forget_parent(self) -> None:
        """In the child of a fork: loop, connections and their sockets are the parent's."""
        self._loop = None
        self._directory = Directory(self._settings.servers, _SharedEndpoint)


def _is_connected(endpoint: _SharedEndpoint, task: asyncio.Task[Pipe]) -> None:
    endpoint.connecting = None
    if not task.cancelled():
        # It was seen by who waited for it, if they still did.
        task.exception()


def _ask(pipe: Pipe) -> asyncio.Future[Any]:
    """A hello, unless the server is known not to know it."""
    return _nothing(pipe) if pipe.model is None else pipe.hello()


def _nothing(pipe: Pipe) -> asyncio.Future[Any]:
    """To have been connected is all."""
    future = pipe.lost.get_loop().create_future()
    future.set_result(None)
    return future


_clients: weakref.WeakSet[AsyncClient] = weakref.WeakSet()


def _forget_parents() -> None:
    for client in list(_clients):
        client._forget_parent()


os.register_at_fork(after_in_child=_forget_parents)
