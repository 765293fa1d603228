"""Our own small tables become Arrow's as pyarrow itself would make them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mlsql.executor.arrow import from_list

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
KINDS = [TEXTS, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.booleans(), st.dates()]
COLUMNS = st.one_of([st.lists(st.none() | kind, max_size=20) for kind in KINDS])


@given(COLUMNS)
def test_a_list_of_values_is_as_arrow_makes_it(values: list[Any]) -> None:
    made = from_list(values)
    made.validate(full=True)
    assert made.equals(pa.array(values))


@given(COLUMNS.filter(any))
def test_a_list_of_values_gets_the_type_that_is_asked_for(values: list[Any]) -> None:
    kind = pa.array(values).type
    assert from_list([None, *values], kind).equals(pa.array([None, *values], kind))


def test_numbers_of_another_type_are_converted() -> None:
    assert from_list([1, None, 2], pa.float64()).equals(pa.array([1.0, None, 2.0]))
