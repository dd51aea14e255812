"""What tests share: both clients, and a server."""

from __future__ import annotations

import faulthandler
from typing import TYPE_CHECKING, Any

import pytest
from support import BOTH, Server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=BOTH, ids=lambda kind: kind.kind)
def client_of(request: pytest.FixtureRequest) -> Any:
    """Makes a client, of each kind in turn."""
    return request.param


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The real server with its model `sum`."""
    with Server("--admin", "127.0.0.1:0") as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_hangs() -> Iterator[None]:
    """A test that hangs ends the run, with every thread's stack."""
    faulthandler.dump_traceback_later(120, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
