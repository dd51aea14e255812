"""What can go wrong, as exceptions under DisrustError."""

from __future__ import annotations

import builtins


class DisrustError(Exception):
    """Base of everything that this package raises on its own account."""


class ConnectionFailed(DisrustError, ConnectionError):
    """No server could be connected to, or the connection was lost, and again when it was tried again.

    Scoring changes nothing on a server, so that calling again is safe.
    """


class TimeoutError(DisrustError, builtins.TimeoutError):  # noqa: A001 - it is the builtin one too
    """The call's time was over before all its answers were there. Its late answers reach nobody."""


class Overloaded(DisrustError):
    """Error 3: the server is overloaded and shed a request of this call.

    It is never tried again by itself: whoever calls should call less often, or later, or do without the score.
    """


class ModelFailed(DisrustError):
    """Error 2: the model failed on a request of this call. It may well fail again on the same rows."""


class ServerClosing(DisrustError):
    """Error 4: the server was closing and did not take a request, and so did those that were tried after it."""


class ProtocolError(DisrustError):
    """The peer sent what is no answer to what it was asked. The connection was closed.

    Likely causes: it is no disrust server, or (error 1, without a hello) its rows have another number of features.
    """


class ShapeError(DisrustError, ValueError):
    """The rows do not have the shape that the model takes. Nothing was sent."""


class ColumnMismatch(DisrustError, ValueError):
    """The names of a DataFrame's columns, or of the model's features, are not the expected ones. Nothing was sent."""


class ModelMismatch(DisrustError):
    """The server's model takes another number of features or outputs than this client began with.

    So it is after a server was started again with another model. A new client begins anew.
    """


class ClientClosed(DisrustError):
    """The client was closed."""


class ConnectionLost(DisrustError):
    """The connection ended, or broke, while answers were owed. Never leaves the package."""
