"""The blocking client: a pool of connections, each used by one call at a time."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from ._connection import Connection, PooledEndpoint, Progress, connect
from ._errors import ClientClosed, ConnectionFailed, ConnectionLost, DisrustError, ServerClosing, TimeoutError
from ._rows import Rows
from ._servers import Directory, next_try, pick
from ._settings import Settings, Shape, seconds
from ._wire import WIRE, Model

#: Connections that wait for the next call, for each address; beyond it they are closed after their call.
IDLE_MAX: Final = 64


T = TypeVar("T")


def _in_flight(endpoint: PooledEndpoint) -> int:
    return endpoint.in_flight


class Client:
    """A client for threads: scores rows, over one connection for each call that is under way.

    It may be used by any number of threads at once. Each call takes an idle connection or makes one, and puts it back,
    so that calls never wait for each other. A child after ``os.fork`` makes connections of its own. Nothing is
    connected before the first call, ``connect()`` or ``with``.

    Args:
        servers: ``"127.0.0.1:9900"``, ``"[::1]:9900"``, ``"unix:/run/disrust.sock"``, or several of them. All addresses
            of their names are used: each call goes to the better of two random ones by how much is in flight there.
        features: Numbers in a row, if they are to be checked against what the server says. Needed only for servers that
            are too old to say it (``model`` is None then): they score rows of another width wrongly.
        outputs: Numbers in the answer to a row, likewise. Default: what the server says, or else 1.
        columns: The names of the features in their order. The columns of a DataFrame must be these.
        admin: ``"127.0.0.1:9901"``, the server's admin port. The names that its model has for its features must be
            `columns`, or stand for them if there are none; they are read before the first call, and when the model has
            changed. A model without names is compared with nothing.
        timeout: Seconds for a call, with all that is connected and tried again; at most 23 days, for which ``math.inf``
            stands.
        connect_timeout: Seconds for one connection to be made, hello included, within the call's.
        retries: How often a call is tried again at most when a connection fails or the server is closing (error 4).

    Raises:
        ValueError: An argument is wrong.
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
        self._timeout = self._settings.timeout
        self._shape = Shape(self._settings)
        self._is_closed = False
        self._lock = threading.Lock()
        self._directory: Directory[PooledEndpoint] = Directory(self._settings.servers, PooledEndpoint)
        self._connections: set[Connection] = set()
        _clients.add(self)

    def predict(self, X: Any, *, timeout: float | None = None) -> npt.NDArray[np.float32]:
        """Scores rows.

        A float32 array that is C-contiguous is sent from where it lies. Everything else is converted first, which
        copies it: other types of numbers become float32 as numpy rounds them (float64 loses digits, integers above
        2**24 too), missing and masked values become NaN. Of a DataFrame the columns are taken in their order, whatever
        they are called, unless `columns` or `admin` of the client check that. More rows than a request takes (64) are
        sent as several requests; after a reload in their midst, the later ones are scored by the newer model.

        Args:
            X: Numbers of shape [n, features], for any n, also 0; or [features] for one row (for a model of one feature,
                [n] is n rows). An array, a list of lists, a pandas DataFrame.
            timeout: Seconds for this call; default: the client's.

        Returns:
            float32 of shape [n], one score a row in their order, or [n, outputs] if the model has several outputs. One
            row given as [features] makes n = 1.

        Raises:
            ShapeError: The model takes another number of features. Nothing was sent.
            ColumnMismatch: A DataFrame's columns are not the client's. Nothing was sent.
            Overloaded: The server shed a request (error 3). It was not tried again.
            ModelFailed: The model failed on these rows (error 2).
            ServerClosing, ConnectionFailed: So it was at each try.
            TimeoutError: The time was over; a builtin TimeoutError too.
            ModelMismatch: The servers have a model of another shape now.
            ProtocolError: The peer does not speak the protocol.
            ClientClosed: ``close()`` was called.
            TypeError, ValueError: `X` are no numbers.
        """
        deadline = time.monotonic() + (self._timeout if timeout is None else seconds(timeout, "timeout"))
        shape = self._shape
        if not shape.is_known:
            self._call(0, deadline, _nothing)
        # This is Shape.is_ready, without a call.
        if (
            type(X) is np.ndarray
            and X.dtype == WIRE
            and X.ndim == 2
            and X.shape[1] == shape.features
            and X.flags.c_contiguous
        ):
            rows = X
        else:
            rows = shape.rows(X)
        count = len(rows)
        outputs = shape.outputs
        scores = self._call(count, deadline, _Scoring(rows, count, outputs)) if count else np.empty(0, np.float32)
        return scores if outputs == 1 else scores.reshape(count, outputs)

    def connect(self, *, timeout: float | None = None) -> Model | None:
        """Connects, if nothing is connected yet; returns what the server says of its model, None if it is too old to.

        Raises:
            As `predict` does.
        """
        deadline = time.monotonic() + (self._timeout if timeout is None else seconds(timeout, "timeout"))
        if not self._shape.is_known:
            self._call(0, deadline, _nothing)
        return self._shape.model

    def hello(self, *, timeout: float | None = None) -> Model | None:
        """Asks a server which model it has now, after a reload for instance; None if it is too old to say.

        Raises:
            As `predict` does.
        """
        deadline = time.monotonic() + (self._timeout if timeout is None else seconds(timeout, "timeout"))
        return self._call(1, deadline, self._hello_over)

    def _hello_over(self, connection: Connection, deadline: float) -> Model | None:
        if connection.model is None:
            return None
        model = connection.hello(deadline)
        if model is not None:
            self._check_names(model, deadline)
            with self._lock:
                self._shape.learn(model, connection.endpoint.text)
        return model

    @property
    def model(self) -> Model | None:
        """What the server said of its model when a connection was made, or `hello` called, last.

        Connects if nothing was connected yet. None if the server is too old to say.
        """
        return self.connect()

    def close(self) -> None:
        """Closes the connections; those of calls that are under way, when these end. No call begins after it."""
        with self._lock:
            self._is_closed = True
            for endpoint in self._directory.endpoints:
                self._close_idle(endpoint)

    def __enter__(self) -> Client:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, weight: int, deadline: float, use: Callable[[Connection, float], T]) -> T:
        """Uses a connection, and others if need be, until the deadline; `weight` is how much that is for a server."""
        tries = 0
        while True:
            try:
                connection = self._take(weight, deadline)
                try:
                    result = use(connection, deadline)
                except (ConnectionLost, ServerClosing):
                    self._give_up(connection.endpoint)
                    raise
                except TimeoutError:
                    connection.endpoint.failed()
                    raise
                finally:
                    self._put_back(connection, weight)
            except (ConnectionFailed, ConnectionLost, ServerClosing) as error:
                tries += 1
                self._wait_to_try_again(error, tries, deadline)
            else:
                return result

    def _take(self, weight: int, deadline: float) -> Connection:
        """An idle connection to the server that is to be asked next, or a new one."""
        directory = self._directory
        if directory.search is not None or not directory.endpoints:
            self._look_up(deadline)
        while True:
            with self._lock:
                if self._is_closed:
                    raise ClientClosed("the client was closed")
                endpoint = pick(directory.endpoints, _in_flight)
                endpoint.in_flight += weight
                connection = endpoint.idle.pop() if endpoint.idle else None
            if connection is None:
                break
            if not connection.poll(0):
                return connection
            # The server has ended it, or said what nobody asked for.
            with self._lock:
                endpoint.in_flight -= weight
                self._drop(connection)
                directory.look_again()
        try:
            return self._connect(endpoint, deadline)
        except BaseException:
            with self._lock:
                endpoint.in_flight -= weight
                endpoint.failed()
                directory.look_again()
            raise

    def _look_up(self, deadline: float) -> None:
        """Takes what was looked up, and waits for it if nothing is known yet."""
        with self._lock:
            search = None if self._directory.endpoints else self._directory.begin()
        if search is not None:
            search.wait(deadline)
        with self._lock:
            for endpoint in self._directory.take_over():
                self._close_idle(endpoint)

    def _connect(self, endpoint: PooledEndpoint, deadline: float) -> Connection:
        try:
            connected, model = connect(endpoint, min(deadline, time.monotonic() + self._settings.connect_timeout))
        except TimeoutError as error:
            if time.monotonic() < deadline:
                raise ConnectionFailed(str(error)) from error
            raise
        try:
            self._check_names(model, deadline)
            with self._lock:
                if self._is_closed:
                    raise ClientClosed("the client was closed")
                outputs, rows = self._shape.learn(model, endpoint.text)
                connection = Connection(endpoint, connected, model, outputs, rows)
                self._connections.add(connection)
                endpoint.answered()
        except BaseException:
            connected.close()
            raise
        return connection

    def _check_names(self, model: Model | None, deadline: float) -> None:
        if self._shape.needs_names(model):
            self._shape.compare_names(deadline)

    def _put_back(self, connection: Connection, weight: int) -> None:
        endpoint = connection.endpoint
        with self._lock:
            endpoint.in_flight -= weight
            if connection.is_clean and not endpoint.is_gone and not self._is_closed and len(endpoint.idle) < IDLE_MAX:
                endpoint.idle.append(connection)
                if endpoint.failures:
                    endpoint.answered()
            else:
                self._drop(connection)

    def _give_up(self, endpoint: PooledEndpoint) -> None:
        """The server closes, or has gone: its other connections have the same before them."""
        with self._lock:
            endpoint.failed()
            self._close_idle(endpoint)
            self._directory.look_again()

    def _wait_to_try_again(self, error: DisrustError, tries: int, deadline: float) -> None:
        pause = next_try(error, tries, self._settings.retries, self._directory.endpoints, deadline)
        if pause > 0:
            time.sleep(pause)

    def _close_idle(self, endpoint: PooledEndpoint) -> None:
        for connection in endpoint.idle:
            self._drop(connection)
        endpoint.idle.clear()

    def _drop(self, connection: Connection) -> None:
        self._connections.discard(connection)
        connection.close()

    def _forget_parent(self) -> None:
        """In the child of a fork: the sockets are the parent's, and threads that may hold the lock are not here."""
        self._lock = threading.Lock()
        for connection in self._connections:
            connection.close()
        self._connections = set()
        self._directory = Directory(self._settings.servers, PooledEndpoint)


def _nothing(_connection: Connection, _deadline: float) -> None:
    """To have been connected is all."""


class _Scoring:
    """A call of `predict`: what is done with a connection, and with another one if that fails."""

    __slots__ = ("count", "outputs", "progress", "rows")

    def __init__(self, rows: Rows, count: int, outputs: int) -> None:
        self.rows = rows
        self.count = count
        self.outputs = outputs
        self.progress: Progress | None = None

    def __call__(self, connection: Connection, deadline: float) -> npt.NDArray[np.float32]:
        if self.count <= connection.max_vectors and self.progress is None:
            return connection.score(self.rows, deadline)
        if self.progress is None:
            self.progress = Progress(self.rows, self.outputs)
        connection.score_many(self.progress, deadline)
        return self.progress.result.astype(np.float32, copy=False)


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _forget_parents() -> None:
    for client in list(_clients):
        client._forget_parent()


os.register_at_fork(after_in_child=_forget_parents)
