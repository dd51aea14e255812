"""Client of the disrust inference server: rows of float32 features in, scores out.

``Client`` is for threads, ``AsyncClient`` for asyncio::

    with disrust.Client("127.0.0.1:9900") as client:
        scores = client.predict(X)   # X of shape [n, features]; scores of shape [n]

Everything that goes wrong is a ``DisrustError``.
"""

from ._async import AsyncClient
from ._client import Client
from ._errors import (
    ClientClosed,
    ColumnMismatch,
    ConnectionFailed,
    DisrustError,
    ModelFailed,
    ModelMismatch,
    Overloaded,
    ProtocolError,
    ServerClosing,
    ShapeError,
    TimeoutError,
)
from ._wire import Model

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "Client",
    "ClientClosed",
    "ColumnMismatch",
    "ConnectionFailed",
    "DisrustError",
    "Model",
    "ModelFailed",
    "ModelMismatch",
    "Overloaded",
    "ProtocolError",
    "ServerClosing",
    "ShapeError",
    "TimeoutError",
    "__version__",
]
