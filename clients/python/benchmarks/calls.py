"""What calls of `predict` cost: prints the CPU time and the time of a call in microseconds.

Usage: calls.py KIND PORT ROWS CALLS, where KIND is `blocking`, `asyncio`, `threads` (8 threads share a client) or
`lock` (8 threads share one connection of a client behind a lock, which is what the client does not do).
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from typing import Any, Callable

import numpy as np

from disrust import AsyncClient, Client

FEATURES = 16
THREADS = 8


def rows_of(count: int) -> Any:
    """Rows as they travel."""
    return np.arange(count * FEATURES, dtype=np.float32).reshape(count, FEATURES)


def report(calls: int, cpu: float, begun: float) -> None:
    """Since then, for each call."""
    print(f"{(time.process_time() - cpu) / calls * 1e6:.3f} {(time.perf_counter() - begun) / calls * 1e6:.3f}")


def measured(calls: int, run: Callable[[int], None]) -> None:
    """Runs so many calls, after a tenth of them to warm up."""
    run(calls // 10)
    cpu, begun = time.process_time(), time.perf_counter()
    run(calls)
    report(calls, cpu, begun)


def blocking(client: Client, rows: int, calls: int) -> None:
    """One call after the other."""
    X = rows_of(rows)

    def run(calls: int) -> None:
        for _ in range(calls):
            client.predict(X)

    measured(calls, run)


def threaded(client: Client, rows: int, calls: int, lock: contextlib.AbstractContextManager[Any]) -> None:
    """The calls of several threads."""
    X = rows_of(rows)

    def share(calls: int) -> None:
        for _ in range(calls):
            with lock:
                client.predict(X)

    def run(calls: int) -> None:
        threads = [threading.Thread(target=share, args=(calls // THREADS,)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    measured(calls, run)


async def asynchronous(address: str, rows: int, calls: int) -> None:
    """One call after the other."""
    X = rows_of(rows)
    async with AsyncClient(address) as client:
        for _ in range(calls // 10):
            await client.predict(X)
        cpu, begun = time.process_time(), time.perf_counter()
        for _ in range(calls):
            await client.predict(X)
        report(calls, cpu, begun)


def main() -> None:
    """See above."""
    kind, port, rows, calls = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    address = f"127.0.0.1:{port}"
    if kind == "asyncio":
        asyncio.run(asynchronous(address, rows, calls))
        return
    with Client(address) as client:
        if kind == "blocking":
            blocking(client, rows, calls)
        else:
            threaded(client, rows, calls, threading.Lock() if kind == "lock" else contextlib.nullcontext())


main()
