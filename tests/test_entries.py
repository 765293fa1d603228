"""Short entries in compiled code: reads, writes, arithmetic and folds as by NumPy, and nothing beside them touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit

from mlsql.executor.compiled.blas import plus
from mlsql.executor.compiled.entries import double, largest, least, single, total
from mlsql.executor.compiled.entry_memory import across
from mlsql.executor.compiled.functions import exp, maximum, where

COUNTS = (2, 5, 16, 35, 64)
compiled = njit(error_model="numpy")


def tables(count: int, dtype: str) -> tuple[Any, Any, Any]:
    """Two tables of six rows, and one for results that is full of sevens; one column more than an entry has."""
    rng = np.random.default_rng(count)
    x, y = (rng.normal(size=(6, count + 1)).astype(dtype) for _ in range(2))
    return x, y, np.full((6, count + 1), 7, dtype)


@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize("count", COUNTS)
def test_arithmetic_is_numpys_and_stays_inside_the_entry(count: int, dtype: str) -> None:
    @compiled
    def run(x: Any, y: Any, out: Any) -> None:
        every = across(count)
        for r in range(len(x)):
            a, b = x[r, every], y[r, every]
            out[r, every] = where(a < b, a * b - 2.0 / (a + 3.0), maximum(-a, b)) + where(every == r, 1.0, 0.0) + exp(b)
            out[r, every] += a

    x, y, out = tables(count, dtype)
    run(x, y, out)
    a, b = x[:, :count], y[:, :count]
    expected = np.where(a < b, a * b - 2.0 / (a + 3.0), np.maximum(-a, b)) + np.eye(6, count) + np.exp(b) + a
    np.testing.assert_allclose(out[:, :count], expected, rtol=1e-5, atol=1e-6)
    assert (out[:, count] == 7).all()


@pytest.mark.parametrize("count", COUNTS)
def test_folds_leave_out_what_is_beside_the_entry(count: int) -> None:
    @compiled
    def run(x: Any, out: Any) -> None:
        every = across(count)
        for r in range(len(x)):
            a = x[r, every]
            out[r, 0], out[r, 1], out[r, 2] = total(a), largest(a), least(a)
            out[r, 3] = total(single(a > 0))
            out[r, 4] = total(double(a) * double(a))

    x, _, _ = tables(count, "float32")
    x[:, count] = np.nan
    x[1, 0], x[2, 1], x[3, count - 1] = np.inf, -np.inf, np.nan
    out = np.empty((6, 5))
    run(x, out)
    a = x[:, :count]
    squares = (a.astype(float) ** 2).sum(1)
    expected = np.stack([a.sum(1), a.max(1), a.min(1), (a > 0).sum(1), squares], 1)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_entries_are_added_up_over_rows() -> None:
    @compiled
    def run(x: Any, out: Any) -> None:
        every = across(35)
        sums = out[every]
        for r in range(len(x)):
            sums = plus(sums, x[r, every] * x[r, 0])
        out[every] = sums

    x, _, _ = tables(35, "float32")
    out = np.zeros(35, np.float32)
    run(x, out)
    np.testing.assert_allclose(out, x[:, :35].T @ x[:, 0], rtol=1e-5, atol=1e-6)
