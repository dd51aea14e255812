"""Where servers are: addresses as users write them, what they resolve to, and which of them is to be asked next."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Final, Generic, TypeVar, Union

from ._errors import ConnectionFailed, ConnectionLost, DisrustError, TimeoutError

Family = int
SocketAddress = Union[str, tuple[Any, ...]]

#: For how long a server that failed is not asked if another one is there: doubled at each failure in a row.
AVOID_SECONDS_MIN: Final = 0.1
AVOID_SECONDS_MAX: Final = 5.0
#: Names are looked up again at most so often.
LOOK_UP_SECONDS_MIN: Final = 0.5
#: Before a call is tried again: doubled each time, a half to the whole of it at random.
RETRY_SECONDS_MIN: Final = 0.01
RETRY_SECONDS_MAX: Final = 0.25


@dataclass(frozen=True)
class Server:
    """A server as the user named it: a host and a port, or the path of a Unix socket."""

    text: str
    host: str
    port: int
    path: str | None

    @staticmethod
    def parse(text: str) -> Server:
        """Reads "HOST:PORT", "[IPv6]:PORT" or "unix:PATH".

        Raises:
            ValueError: It is neither.
        """
        if text.startswith("unix:"):
            path = text[len("unix:") :]
            if not path or "\0" in path:
                raise ValueError(f"{text!r} has no path; a Unix socket is named as in 'unix:/run/disrust.sock'")
            return Server(text, "", 0, path)
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            host = ""
        if not colon or not host or not (port.isascii() and port.isdigit()) or not 1 <= int(port) <= 65_535:
            raise ValueError(f"{text!r} is no server; one is named as in '127.0.0.1:9900' or 'unix:/run/disrust.sock'")
        return Server(text, host, int(port), None)


def parse_servers(servers: str | Sequence[str]) -> list[Server]:
    """One server or several.

    Raises:
        ValueError: There is none, or one is not named as they are.
    """
    texts = [servers] if isinstance(servers, str) else list(servers)
    if not texts:
        raise ValueError("at least one server is needed")
    return [Server.parse(text) for text in dict.fromkeys(texts)]


class Endpoint:
    """One address of one server. What is under way there is counted by the client that owns it."""

    __slots__ = ("address", "avoid_until", "failures", "family", "is_gone", "text")

    def __init__(self, text: str, family: Family, address: SocketAddress) -> None:
        self.text = text
        self.family = family
        self.address = address
        self.failures = 0
        self.avoid_until = 0.0
        self.is_gone = False

    def failed(self) -> None:
        """Others are to be asked for a while; many calls that fail together count as one."""
        now = time.monotonic()
        if self.avoid_until > now:
            return
        seconds = min(AVOID_SECONDS_MIN * 2.0**self.failures, AVOID_SECONDS_MAX)
        self.failures = min(self.failures + 1, 10)
        self.avoid_until = now + seconds * random.uniform(0.5, 1.0)

    def answered(self) -> None:
        """It is as good as any other again."""
        self.failures = 0
        self.avoid_until = 0.0


E = TypeVar("E", bound=Endpoint)


def pick(endpoints: Sequence[E], load: Callable[[E], int]) -> E:
    """The better of two random ones by what is in flight, among those that did not fail lately, if there are any."""
    if len(endpoints) == 1:
        return endpoints[0]
    now = time.monotonic()
    good = [endpoint for endpoint in endpoints if endpoint.avoid_until <= now]
    if not good:
        return min(endpoints, key=lambda endpoint: endpoint.avoid_until)
    if len(good) == 1:
        return good[0]
    one, other = random.sample(good, 2)
    return one if load(one) <= load(other) else other


def next_try(error: DisrustError, tries: int, retries: int, endpoints: Sequence[Endpoint], deadline: float) -> float:
    """After how many seconds a call may be tried again, which failed for the `tries`-th time; no time for the first.

    Raises:
        ConnectionFailed, ServerClosing: It was tried often enough.
        TimeoutError: The deadline, by the monotonic clock, is too near.
    """
    # An address that is not reached costs a try, and the others are to have one, too.
    if tries > retries + max(0, len(endpoints) - 1):
        if isinstance(error, ConnectionLost):
            raise ConnectionFailed(str(error)) from error
        raise error
    now = time.monotonic()
    pause = 0.0
    if tries > 1 and all(endpoint.avoid_until > now for endpoint in endpoints):
        pause = min(RETRY_SECONDS_MIN * 2.0 ** (tries - 1), RETRY_SECONDS_MAX) * random.uniform(0.5, 1.0)
    if now + pause >= deadline:
        raise TimeoutError(f"the call's time is over after {tries} tries, the last of which failed: {error}") from error
    return pause


Found = tuple[str, Family, SocketAddress]


def look_up(server: Server) -> list[Found]:
    """All addresses of a server, each with its name for messages. Blocks while names are asked for.

    Raises:
        OSError: There is no such host.
    """
    if server.path is not None:
        return [(server.text, int(socket.AF_UNIX), server.path)]
    found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    return [_named(server, int(family), address) for family, _, _, _, address in found]


def _named(server: Server, family: Family, address: SocketAddress) -> Found:
    return (server.text if address[0] == server.host else f"{server.text} ({address[0]})", family, address)


def look_up_all(servers: Sequence[Server]) -> list[Found]:
    """The addresses of all servers that have any, without repetition.

    Raises:
        ConnectionFailed: None has.
    """
    found: dict[tuple[Family, SocketAddress], Found] = {}
    failures: list[str] = []
    for server in servers:
        try:
            for one in look_up(server):
                found.setdefault((one[1], one[2]), one)
        except (OSError, UnicodeError) as error:
            failures.append(f"{server.text}: {error}")
    if not found:
        raise ConnectionFailed(f"no server's name could be looked up: {'; '.join(failures)}")
    return list(found.values())


class Directory(Generic[E]):
    """The endpoints that the servers' names stand for now.

    Names are looked up by a thread of their own, so that nobody waits for longer than their deadline; there is at most
    one at a time. Not thread-safe: the owner has a lock.
    """

    def __init__(self, servers: Sequence[Server], make: Callable[[str, Family, SocketAddress], E]) -> None:
        self.servers = servers
        self.endpoints: list[E] = []
        self._make = make
        self.search: _Search | None = None
        self._looked_up_at = float("-inf")

    def take_over(self) -> list[E]:
        """Takes what was found since, if anything was; returns the endpoints that are no more.

        Raises:
            ConnectionFailed: Nothing was found, and nothing was known before.
        """
        search = self.search
        if search is None or not search.is_done.is_set():
            return []
        self.search = None
        if search.error is not None:
            if self.endpoints:
                return []
            raise ConnectionFailed(str(search.error)) from search.error
        known = {(endpoint.family, endpoint.address): endpoint for endpoint in self.endpoints}
        now = [known.pop((one[1], one[2]), None) or self._make(*one) for one in search.found]
        self.endpoints = now
        for endpoint in known.values():
            endpoint.is_gone = True
        return list(known.values())

    def look_again(self) -> None:
        """Names may have other addresses now: looks them up in the background, unless that was just done."""
        now = time.monotonic()
        if self.search is None and now - self._looked_up_at >= LOOK_UP_SECONDS_MIN:
            self._looked_up_at = now
            self.search = _Search(self.servers)

    def begin(self) -> _Search:
        """The first look-up, for its waiters."""
        if self.search is None:
            self._looked_up_at = time.monotonic()
            self.search = _Search(self.servers)
        return self.search


class _Search:
    """One look-up of all names, on a thread of its own unless there are only Unix sockets and numbers."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self.is_done = threading.Event()
        self.found: list[Found] = []
        self.error: ConnectionFailed | None = None
        self._servers = servers
        if all(server.path is not None or _is_number(server.host) for server in servers):
            self._run()
        else:
            threading.Thread(target=self._run, name="disrust-look-up", daemon=True).start()

    def _run(self) -> None:
        try:
            self.found = look_up_all(self._servers)
        except ConnectionFailed as error:
            self.error = error
        finally:
            self.is_done.set()

    def wait(self, deadline: float) -> None:
        """Returns once it is done.

        Raises:
            TimeoutError: The deadline, by the monotonic clock, came first.
        """
        if not self.is_done.wait(max(0.0, deadline - time.monotonic())):
            raise TimeoutError("the servers' names could not be looked up in time")


def _is_number(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False
