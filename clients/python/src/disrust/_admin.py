"""The names of the model's features, from the server's admin port."""

from __future__ import annotations

import http.client
import json
import time
from typing import Final

from ._errors import ConnectionFailed, ProtocolError, TimeoutError
from ._servers import Server, parse_servers

#: Longer than any status is; the server leaves out names that are too many for a page.
_STATUS_BYTES_MAX: Final = 16 << 20


def parse_admin(admin: str) -> Server:
    """Reads "HOST:PORT", with or without "http://" before it.

    Raises:
        ValueError: It is no such address.
    """
    (server,) = parse_servers(admin[len("http://") :].rstrip("/") if admin.startswith("http://") else admin)
    if server.path is not None:
        raise ValueError(f"{admin!r}: the admin port is HTTP over TCP, as in '127.0.0.1:9901'")
    return server


def feature_names(admin: Server, deadline: float) -> list[str] | None:
    """The names that the model in force has, in their order; None if it has none.

    Raises:
        ConnectionFailed, TimeoutError, ProtocolError: They could not be read.
    """
    timeout = max(1e-3, deadline - time.monotonic())
    connection = http.client.HTTPConnection(admin.host, admin.port, timeout=timeout)
    try:
        connection.request("GET", "/status.json")
        answer = connection.getresponse()
        body = bytearray()
        # In pieces, so that whoever sends them slowly is left at the deadline.
        while len(body) <= _STATUS_BYTES_MAX:
            piece = answer.read1(1 << 16)
            if not piece:
                break
            body += piece
            if time.monotonic() > deadline:
                raise TimeoutError(f"the admin port {admin.text} did not answer in time")
    except TimeoutError:
        raise
    except OSError as error:
        if time.monotonic() >= deadline:
            raise TimeoutError(f"the admin port {admin.text} did not answer in time") from error
        raise ConnectionFailed(f"the names of the features could not be read from {admin.text}: {error}") from error
    except http.client.HTTPException as error:
        raise ProtocolError(f"{admin.text} is no admin port of a disrust server: {error!r}") from error
    finally:
        connection.close()
    return _names(admin, answer.status, bytes(body))


def _names(admin: Server, status: int, body: bytes) -> list[str] | None:
    try:
        names = json.loads(body)["model"]["feature_names"] if status == 200 else 0
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ProtocolError(
            f"{admin.text} is no admin port of a disrust server: its /status.json has no model"
        ) from error
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ProtocolError(f"{admin.text} is no admin port of a disrust server: its /status.json names no features")
    return names
