"""Columns that grow: whatever was expected and however they lie, they hold what NumPy makes of the batches."""

from __future__ import annotations

import numpy as np
from arriving import TABLE, arrived
from hypothesis import given, settings
from hypothesis import strategies as st

from mlsql.executor.growing import Growing
from mlsql.types import BIGINT, FLOAT, Type

TYPES = {"x": Type(TABLE, FLOAT, (2,)), "k": Type(TABLE, BIGINT), "a": Type(TABLE, FLOAT), "b": Type(TABLE, FLOAT)}


@settings(deadline=None)  # the first example loads libraries
@given(st.lists(st.integers(0, 7), max_size=6), st.integers(0, 50), st.sampled_from([[], [("b", "a")]]))
def test_batches_end_to_end(sizes: list[int], expected: int, together: list[tuple[str, ...]]) -> None:
    growing, batches, start = Growing(TYPES, expected, together), [], 0
    for size in sizes:
        numbers = np.arange(start, start + size)
        single = numbers.astype("float32")
        batches.append({"x": np.stack([single, -single], 1), "k": numbers, "a": single + 1, "b": single + 2})
        growing.add(arrived(batches[-1]))
        start += size
    found = growing.columns()
    assert growing.rows == start
    for name, type in TYPES.items():
        whole = np.concatenate([np.empty((0, *type.shape), type.element.storage), *(b[name] for b in batches)])
        np.testing.assert_array_equal(found[name], whole)
        assert found[name].dtype == type.element.storage
