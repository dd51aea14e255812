"""Whatever a user hands in is scored as the numbers that it says, or refused before a byte is sent."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from stub import Peer, Stub, hello_answer, sums

from disrust import ColumnMismatch, ShapeError
from disrust._rows import rows_of

GENERATOR = np.random.default_rng(17)


def rows(count: int, features: int = 16) -> Any:
    return GENERATOR.standard_normal((count, features), dtype=np.float32)


def test_what_is_ready_is_not_copied() -> None:
    for X in (rows(5), rows(1), rows(300)):
        assert rows_of(X, 16, None) is X
    X = rows(1)[0]
    assert np.shares_memory(rows_of(X, 16, None), X)
    X.flags.writeable = False
    assert np.shares_memory(rows_of(X, 16, None), X)


F = rows(6)
WITH_NAN = np.where(F > 1, np.float32(np.nan), F)


@pytest.mark.parametrize(
    ("X", "expected"),
    [
        (F.astype(np.float64), F),
        (F.astype(">f4"), F),
        (np.asfortranarray(F), F),
        (F[::-2], F[::-2]),
        (np.hstack([F, F])[:, ::2], np.hstack([F, F])[:, ::2]),
        (F.tolist(), F),
        (tuple(map(tuple, F.tolist())), F),
        (list(F), F),
        (pd.DataFrame(F), F),
        (pd.DataFrame({f"c{i}": F[:, i].astype(np.float64) for i in range(16)}), F),
        (pd.DataFrame(F).astype("Float64"), F),
        (pd.DataFrame(WITH_NAN).astype("Float32"), WITH_NAN),
        (pd.DataFrame(np.arange(32).reshape(2, 16)), np.arange(32).reshape(2, 16)),
        (pd.Series(F[0]), F[:1]),
        (np.ma.masked_greater(F, 1), WITH_NAN),
        (
            np.ma.masked_greater((F * 100).astype(np.int64), 1000),
            np.where(np.trunc(F * 100) > 1000, np.nan, np.trunc(F * 100)),
        ),
        (np.arange(16, dtype=np.int64), np.arange(16)[None]),
        (np.eye(16, dtype=bool), np.eye(16)),
        (pd.DataFrame(F).astype(object), F),
        (pd.DataFrame({i: pd.Categorical([5, 7]) for i in range(16)}), np.array([[5] * 16, [7] * 16])),
        (
            pd.DataFrame({i: [1.5, None] if i else pd.Series([2, pd.NA], dtype=object) for i in range(16)}),
            np.array([[2] + [1.5] * 15, [np.nan] * 16]),
        ),
        (np.array([[1, 2.5, None] + [0] * 13], dtype=object), np.array([[1, 2.5, np.nan] + [0] * 13])),
        (memoryview(F), F),
        (F[0], F[:1]),
        (F[:0], F[:0]),
        ([], F[:0]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_numbers_of_all_kinds(X: Any, expected: Any) -> None:
    found = rows_of(X, 16, None)
    assert type(found) is np.ndarray
    assert found.flags.c_contiguous
    assert found.dtype == np.dtype("<f4")
    assert found.shape == expected.shape
    assert np.array_equal(found, expected.astype(np.float32), equal_nan=True)


@pytest.mark.parametrize(
    "X", [rows(2, 15), rows(2, 17), rows(0, 15), rows(1, 15)[0], rows(2)[None], np.float32(1), [[1.0]]]
)
def test_other_shapes_are_refused(X: Any) -> None:
    with pytest.raises(ShapeError):
        rows_of(X, 16, None)


def test_a_model_of_one_feature_takes_n_rows_in_one_dimension() -> None:
    assert rows_of([1.0, 2.0, 3.0], 1, None).shape == (3, 1)


@pytest.mark.parametrize(
    "X",
    [
        np.full((1, 16), "1.5"),
        [["1.5"] * 16],
        np.full((1, 16), 1 + 2j),
        np.zeros((1, 16), "M8[s]"),
        pd.DataFrame([["a"] * 16]),
        [[object()] * 16],
        # Of these, numpy and pandas make numbers if they are asked for float32.
        np.full((1, 16), "1.5", dtype=object),
        np.full((1, 16), b"1.5", dtype=object),
        np.full((1, 16), np.complex128(1 + 2j), dtype=object),
        np.full((1, 16), np.datetime64("2020-01-01"), dtype=object),
        np.full((1, 16), np.timedelta64(5, "s"), dtype=object),
        pd.Series([1.0] * 15 + ["1.5"]),
        pd.DataFrame([["1.5"] * 16]),
        pd.DataFrame([["1.5"] * 16], dtype=object),
        pd.DataFrame([[1.0] * 15 + ["1.5"]]),
        pd.DataFrame({f"c{i}": pd.Categorical(["1.5"]) for i in range(16)}),
        pd.DataFrame({f"c{i}": [pd.Timestamp("2020-01-01") if i == 3 else 1.0] for i in range(16)}),
        pd.DataFrame({f"c{i}": [pd.Timestamp("2020-01-01", tz="UTC")] for i in range(16)}),
        pd.DataFrame({f"c{i}": [pd.Timedelta(5)] for i in range(16)}),
        pd.DataFrame(np.full((1, 16), 1 + 2j)),
    ],
    ids=str,
)
def test_what_is_no_number_is_refused(X: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        rows_of(X, 16, None)


def test_ragged_lists_are_refused() -> None:
    with pytest.raises(ValueError):
        rows_of([[1.0] * 16, [1.0] * 15], 16, None)


def test_a_wrong_width_sends_nothing_and_the_next_call_is_served(client_of: Any) -> None:
    with Stub() as stub, client_of(stub.address) as client:
        X = rows(3)
        assert np.array_equal(client.predict(X), sums(X))
        received = stub.peers[0].received
        for wrong in (rows(3, 15), rows(100, 17), rows(1, 15)[0], rows(0, 3)):
            with pytest.raises(ShapeError, match="16 features"):
                client.predict(wrong)
        assert np.array_equal(client.predict(X), sums(X))
        assert stub.connections == 1
        assert stub.peers[0].received == received + 4 + X.nbytes


def test_the_first_call_of_a_wrong_width_sends_a_hello_and_nothing_else(client_of: Any) -> None:
    with Stub() as stub, client_of(stub.address) as client:
        with pytest.raises(ShapeError):
            client.predict(rows(3, 15))
        assert [peer.received for peer in stub.peers] == [8]


def test_columns_are_compared_by_name_and_order(client_of: Any) -> None:
    def serve(peer: Peer) -> None:
        peer.greet(hello_answer(features=3))
        peer.serve(features=3)

    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0], "c": [5.0, 6.0]})
    with Stub(serve) as stub, client_of(stub.address, columns=["a", "b", "c"]) as client:
        assert client.predict(frame).tolist() == [9.0, 12.0]
        assert client.predict(frame.to_numpy()).tolist() == [9.0, 12.0]
        for wrong in (frame[["b", "a", "c"]], frame[["a", "b"]], frame.rename(columns={"c": "d"})):
            with pytest.raises(ColumnMismatch):
                client.predict(wrong)
        assert client.predict(frame).tolist() == [9.0, 12.0]


def test_pandas_is_not_imported() -> None:
    code = "import disrust, sys; assert 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
