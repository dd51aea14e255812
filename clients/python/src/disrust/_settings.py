"""What both clients are told, checked; and what they know of the model that they score with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ._admin import feature_names, parse_admin
from ._errors import ModelMismatch, ShapeError
from ._rows import Rows, compare_columns, rows_of
from ._servers import parse_servers
from ._wire import OUTPUTS_MAX, ROWS_MAX, WIRE, Model

#: The longest time that there is: 23 days, which is what `poll` can wait for. `math.inf` stands for it.
SECONDS_MAX: Final = 2_000_000.0


def seconds(value: float, what: str) -> float:
    """A time that is one.

    Raises:
        ValueError: It is not above 0.
    """
    if not value > 0:
        raise ValueError(f"{what} is a time in seconds above 0, not {value!r}")
    return min(float(value), SECONDS_MAX)


class Settings:
    """A client's arguments."""

    def __init__(
        self,
        servers: str | Sequence[str],
        features: int | None,
        outputs: int | None,
        columns: Sequence[str] | None,
        admin: str | None,
        timeout: float,
        connect_timeout: float,
        retries: int,
    ) -> None:
        self.servers = parse_servers(servers)
        if features is not None and features < 1:
            raise ValueError(f"a row has at least one feature, not {features}")
        if outputs is not None and not 1 <= outputs <= OUTPUTS_MAX:
            raise ValueError(f"a model has 1 to {OUTPUTS_MAX} outputs, not {outputs}")
        if isinstance(columns, str):
            raise TypeError("columns is a list of names")
        if retries < 0:
            raise ValueError(f"retries is at least 0, not {retries}")
        self.columns = None if columns is None else list(columns)
        if self.columns is not None:
            if features is not None and features != len(self.columns):
                raise ValueError(f"there are {len(self.columns)} columns for {features} features")
            features = len(self.columns)
        self.features = features
        self.outputs = outputs
        self.admin = None if admin is None else parse_admin(admin)
        self.timeout = seconds(timeout, "timeout")
        self.connect_timeout = seconds(connect_timeout, "connect_timeout")
        self.retries = retries


class Shape:
    """What a client began with: the width of rows and of their answers. It stays so for the client's life."""

    __slots__ = ("columns", "features", "is_known", "model", "outputs", "settings")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.is_known = False
        self.features = settings.features
        self.outputs = settings.outputs or 1
        self.columns = settings.columns
        self.model: Model | None = None

    def learn(self, model: Model | None, server: str) -> tuple[int, int]:
        """Takes what a connection's hello said, or None if there was none: its outputs and the rows of a request.

        Raises:
            ModelMismatch: It is another model than this client's.
        """
        if model is None:
            self.is_known = True
            return self.outputs, ROWS_MAX
        outputs = self.outputs if self.is_known else self.settings.outputs
        if (self.features is not None and self.features != model.features) or (
            outputs is not None and outputs != model.outputs
        ):
            began = f"{self.features or 'any number of'} features and {outputs or 'any number of'} outputs"
            raise ModelMismatch(
                f"{server} serves the model {model.name!r} with {model.features} features and {model.outputs} outputs, "
                f"and this client began with {began}; if the new model is meant, make a new client"
            )
        self.features, self.outputs, self.model = model.features, model.outputs, model
        self.is_known = True
        # More than the protocol has are of no use.
        return model.outputs, min(model.max_vectors, ROWS_MAX)

    def needs_names(self, model: Model | None) -> bool:
        """Whether the names of the model's features are to be compared before it is used."""
        if self.settings.admin is None:
            return False
        known = self.model
        return not self.is_known or (model is not None and known is not None and known.version != model.version)

    def compare_names(self, deadline: float) -> None:
        """Reads the names of the model's features from the admin port, and compares them; blocks.

        Raises:
            ColumnMismatch: They are not this client's.
            ConnectionFailed, TimeoutError, ProtocolError: They could not be read.
        """
        admin = self.settings.admin
        if admin is None:
            return
        names = feature_names(admin, min(deadline, time.monotonic() + self.settings.connect_timeout))
        if names is None:
            return
        if self.columns is None:
            self.columns = names
        compare_columns(self.columns, names, "the model's features", "this client's columns")

    def rows(self, X: Any) -> Rows:
        """The rows as they travel."""
        return rows_of(X, self.features, self.columns)

    def is_ready(self, X: Any) -> bool:
        """Whether these are rows as they travel already."""
        return (
            type(X) is np.ndarray
            and X.dtype == WIRE
            and X.ndim == 2
            and X.flags.c_contiguous
            and X.shape[1] == self.features
        )


__all__ = ["Settings", "Shape", "ShapeError", "seconds"]
