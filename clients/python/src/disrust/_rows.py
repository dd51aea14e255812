"""From what a user hands in to rows as they travel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ._errors import ColumnMismatch, ShapeError
from ._wire import WIRE

Rows = npt.NDArray[np.float32]

#: What numpy makes a number of, if it is in an array of objects, and which is none.
_NO_NUMBERS: Final = (str, bytes, complex, np.character, np.complexfloating, np.datetime64, np.timedelta64)


def rows_of(X: Any, features: int | None, columns: Sequence[str] | None) -> Rows:
    """The rows of `X`, of shape [n, features], C-contiguous, as they travel; `X` itself where it is that already.

    Raises:
        ShapeError: It has another number of features, or more than two dimensions.
        ColumnMismatch: It is a DataFrame whose columns are not `columns`.
        TypeError, ValueError: It cannot be converted to float32.
    """
    named = getattr(X, "columns", None)
    if columns is not None and named is not None:
        compare_columns(columns, list(named), "the DataFrame's columns", "this client's")
    rows = _floats(X, is_frame=named is not None)
    if rows.ndim == 1:
        rows = _rows_of_one_dimension(rows, features)
    elif rows.ndim != 2:
        raise ShapeError(f"rows have the shape [n, features], or [features] for one; this is {list(rows.shape)}")
    if features is not None and rows.shape[1] != features:
        raise ShapeError(f"the model takes {features} features, and these rows have {rows.shape[1]}")
    if rows.shape[1] == 0:
        raise ShapeError("rows have at least one feature")
    return rows


def _rows_of_one_dimension(values: Rows, features: int | None) -> Rows:
    if features == 1:
        return values.reshape(-1, 1)
    if len(values) == 0:
        return values.reshape(0, features or 1)
    return values.reshape(1, -1)


def _floats(X: Any, is_frame: bool) -> Rows:
    """C-contiguous float32, little-endian, of as many dimensions as `X` has (a number alone counts as one)."""
    if is_frame and hasattr(X, "to_numpy"):
        X = _values_of_frame(X)
    values = np.asanyarray(X) if hasattr(X, "dtype") or hasattr(X, "__array__") else np.asarray(X)
    _refuse_unless_numbers(values)
    floats: Any = values.astype(WIRE, order="C", copy=False)
    if hasattr(floats, "filled"):
        # It is masked.
        floats = floats.filled(np.nan)
    return np.asarray(floats, WIRE, order="C")


def _refuse_unless_numbers(values: npt.NDArray[Any]) -> None:
    """Raises TypeError if numpy would make numbers of what is none: of text its digits, of a date its days."""
    if values.dtype.kind not in "fiubO":
        raise TypeError(f"features are numbers that become float32; this is {values.dtype}")
    if values.dtype.kind == "O":
        for kind in set(map(type, values.flat)):
            if issubclass(kind, _NO_NUMBERS):
                raise TypeError(f"features are numbers that become float32; among these there is a {kind.__name__}")


def _values_of_frame(frame: Any) -> Any:
    """A DataFrame's values. Missing ones of pandas' nullable types become NaN; other libraries do so by themselves."""
    # Asked for float32, pandas makes numbers of text, dates and complex numbers, too. 'O' is also what a column of
    # categories says: what is in it is looked at.
    kinds = {getattr(dtype, "kind", "O"): dtype for dtype in getattr(frame, "dtypes", ())}
    for kind, dtype in kinds.items():
        if kind not in "fiubO":
            raise TypeError(f"features are numbers that become float32; the DataFrame has a column of {dtype}")
    try:
        if "O" in kinds:
            return frame.to_numpy(dtype=object, na_value=np.nan)
        return frame.to_numpy(dtype=WIRE, na_value=np.nan)
    except TypeError:
        return frame.to_numpy()


def compare_columns(expected: Sequence[str], found: Sequence[object], whose: str, whose_expected: str) -> None:
    """Raises ColumnMismatch unless the names are the same in the same order."""
    if len(expected) != len(found):
        raise ColumnMismatch(f"{whose} are {len(found)}, {whose_expected} {len(expected)}")
    for index, (right, name) in enumerate(zip(expected, found)):
        if right != name:
            raise ColumnMismatch(
                f"of {whose}, number {index} is {name!r}, and of {whose_expected} it is {right!r}; "
                "columns are taken in their order, not by name"
            )
