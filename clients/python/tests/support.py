"""The real server, and both clients behind one face, so that one test is for both.

Their calls have more time than is usual, for machines that are busy with other things.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import queue
import re
import subprocess
import threading
from typing import TYPE_CHECKING, Any

from disrust import AsyncClient, Client

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    import numpy.typing as npt

    from disrust import Model

TOP = pathlib.Path(__file__).resolve().parents[3]
SERVER = os.environ.get("DISRUST_SERVER", str(TOP / "target/release/disrust"))
#: No test waits for longer than this for what must come.
PATIENCE = 30.0


class Server:
    """The real one, on a port that the kernel chose."""

    def __init__(self, *flags: str, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [SERVER, "--port", str(port), "--pin", "none", *flags], stderr=subprocess.PIPE, text=True
        )
        self.log: list[str] = []
        self.port = 0
        self.admin = ""
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, args=(lines,), daemon=True)
        self._reader.start()
        while (line := lines.get(timeout=PATIENCE)) is not None:
            if found := re.match(r"listening on .*:(\d+)", line):
                self.port = int(found[1])
            if found := re.match(r"admin on http://(.*)/", line):
                self.admin = found[1]
            if line.startswith("timeouts: "):
                self.address = f"127.0.0.1:{self.port}"
                return
        self.process.wait(PATIENCE)
        raise RuntimeError("the server did not start:\n" + "".join(self.log))

    def _read(self, lines: queue.SimpleQueue[str | None]) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            for line in stderr:
                self.log.append(line)
                lines.put(line)
        lines.put(None)

    def stop(self) -> None:
        """Has it drain, and waits for its end; it may have been stopped before."""
        if self.process.poll() is None:
            self.process.terminate()
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert status == 0, "".join(self.log)

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.process.kill()
            self.process.wait(PATIENCE)
            self._reader.join(PATIENCE)
        else:
            self.stop()


class Blocking:
    """The blocking client."""

    kind = "blocking"

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.client = Client(*arguments, **{"timeout": PATIENCE, **named})

    def predict(self, X: Any, timeout: float | None = None) -> npt.NDArray[np.float32]:
        return self.client.predict(X, timeout=timeout)

    def connect(self) -> Model | None:
        return self.client.connect()

    def hello(self) -> Model | None:
        return self.client.hello()

    @property
    def model(self) -> Model | None:
        return self.client.model

    def close(self) -> None:
        self.client.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Looped:
    """The asyncio client, one call after the other in a loop of its own."""

    kind = "asyncio"

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.client = AsyncClient(*arguments, **{"timeout": PATIENCE, **named})
        self.loop = asyncio.new_event_loop()

    def predict(self, X: Any, timeout: float | None = None) -> npt.NDArray[np.float32]:
        return self.loop.run_until_complete(self.client.predict(X, timeout=timeout))

    def connect(self) -> Model | None:
        return self.loop.run_until_complete(self.client.connect())

    def hello(self) -> Model | None:
        return self.loop.run_until_complete(self.client.hello())

    @property
    def model(self) -> Model | None:
        return self.client.model

    def close(self) -> None:
        if not self.loop.is_closed():
            self.loop.run_until_complete(self.client.close())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


BOTH = [Blocking, Looped]
