"""From a table to arrays: whatever the types and the batches, the numbers are those of the rows, in their order."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from arriving import arrived
from hypothesis import given, settings
from hypothesis import strategies as st

import mlsql
from mlsql.errors import DataError, Place
from mlsql.executor import dataset
from mlsql.executor.dataset import load, match
from mlsql.executor.matrix import as_matrix, numpy_place, side_by_side, without_joins
from mlsql.executor.transposing import place_columns
from mlsql.parser import parse
from mlsql.parser.statements import CreateModel, Query
from mlsql.planner.binder import bind_model
from mlsql.planner.node import walk
from mlsql.planner.ops import Concat

ROWS = 9_000  # several batches, see small_batches


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(dataset, "BATCH_ROWS", dataset.VECTOR_ROWS)


@pytest.fixture
def storage():
    with mlsql.connect(progress=False) as con:
        yield con._session.storage


def model_of(inputs, output):
    [statement] = parse(f"CREATE MODEL m INPUT ({inputs}) AS SELECT {output} AS y MINIMIZE AVG(y * y)")
    assert isinstance(statement, CreateModel)
    return bind_model(statement)


def loaded(storage, model, query):
    source = match(storage, Query(query, Place("", 0, 0)), model, model.declared)
    return load(storage, source, model, {n: model.leaf(c) for n, c in model.declared.items()}, {}, {}).columns


# Arrays


@pytest.mark.parametrize(
    "given", ["FLOAT[3]", "FLOAT[]", "DOUBLE[3]", "INTEGER[3]", "DECIMAL(9, 2)[3]", "BOOLEAN[3]", "DOUBLE[]"]
)
def test_arrays_and_lists_of_any_type_give_the_same_matrix(storage, given):
    storage.run(f"CREATE TABLE t AS SELECT [i % 7, i % 2, i % 5]::{given} AS x FROM range({ROWS}) r(i)")
    numbers = np.arange(ROWS)
    expected = np.stack([numbers % 7, numbers % 2, numbers % 5], 1)
    if given.startswith("BOOLEAN"):
        expected = expected != 0
    x = loaded(storage, model_of("x FLOAT[3]", "LINEAR(x, 1)"), "t")["x"]
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, expected.astype(np.float32))


def test_arrays_of_arrays(storage):
    storage.run(
        f"CREATE TABLE t AS SELECT 0 AS a, [[i, i + 1], [i + 2, i + 3], [i + 4, i + 5]]::FLOAT[2][3] AS x "
        f"FROM range({ROWS}) r(i)"
    )
    x = loaded(storage, model_of("a FLOAT, x FLOAT[2][3]", "a"), "t")["x"]
    np.testing.assert_array_equal(x, np.arange(ROWS)[:, None, None] + np.arange(6.0).reshape(3, 2))


@pytest.mark.parametrize("given", ["FLOAT[2]", "FLOAT[]"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("NULL", 'column "x" has a NULL in row 5001'),
        ("[1, NULL]", 'column "x" has a NULL inside a list in row 5001'),
    ],
)
def test_a_null_is_found_in_its_row_whatever_the_batch(storage, given, value, message):
    storage.run(
        f"CREATE TABLE t AS SELECT CASE WHEN i = 5000 THEN {value} ELSE [i, i] END::{given} AS x "
        f"FROM range({ROWS}) r(i)"
    )
    with pytest.raises(DataError, match=message):
        loaded(storage, model_of("x FLOAT[2]", "LINEAR(x, 1)"), "t")


def test_a_list_of_another_length_is_found_in_its_row(storage):
    storage.run(f"CREATE TABLE t AS SELECT CASE WHEN i = 5000 THEN [i] ELSE [i, i] END AS x FROM range({ROWS}) r(i)")
    with pytest.raises(DataError, match='column "x" has a list of 1 in row 5001; 2 are declared'):
        loaded(storage, model_of("x FLOAT[2]", "LINEAR(x, 1)"), "(SELECT x::FLOAT[] AS x FROM t)")


# Columns that a layer reads together


def concatenation(model):
    return next((n for n in walk([model.loss]) if isinstance(n, Concat)), None)


COLUMNS = (
    "(SELECT i::FLOAT AS a, (i % 3)::FLOAT AS b, -i::FLOAT AS c, i::INTEGER AS k, -i::INTEGER AS j "
    f"FROM range({ROWS}) r(i))"
)


def test_columns_that_are_read_as_one_matrix_lie_as_one(storage):
    model = model_of("c FLOAT, a FLOAT, b FLOAT", "LINEAR([a, b, c], 1)")
    columns = loaded(storage, model, COLUMNS)
    numbers = np.arange(ROWS, dtype=np.float32)
    expected = np.stack([numbers, numbers % 3, -numbers], 1)
    for name, column in zip("abc", expected.T, strict=True):
        np.testing.assert_array_equal(columns[name], column)
    node = concatenation(model)
    [found], matrices, joins = without_joins([node], lambda leaf: columns[leaf.name])
    assert joins == {found: node}
    np.testing.assert_array_equal(matrices[found], expected)
    assert matrices[found].flags.c_contiguous
    assert np.shares_memory(matrices[found], columns["a"])


def test_whole_numbers_are_converted_as_one_matrix(storage):
    model = model_of("k INTEGER, j INTEGER", "LINEAR([k, j], 1)")
    columns = loaded(storage, model, COLUMNS)
    assert columns["k"].dtype == np.int32
    [found], matrices, _ = without_joins([concatenation(model)], lambda leaf: columns[leaf.name])
    np.testing.assert_array_equal(matrices[found], np.stack([np.arange(ROWS), -np.arange(ROWS)], 1))
    assert matrices[found].dtype == np.float32


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        ("a FLOAT, b FLOAT", "LINEAR([a, b], 1) + a"),  # a is read alone as well
        ("a FLOAT, k INTEGER", "LINEAR([a, k], 1)"),  # two types
        ("k INTEGER, j INTEGER", "LINEAR([k, j], 1) + k"),
        ("a FLOAT, b FLOAT", "LINEAR([a, b * 2], 1)"),  # a value that is computed
        ("a FLOAT, b FLOAT", "a + b"),
        ("a FLOAT", "LINEAR([a, a], 1)"),
    ],
)
def test_columns_that_are_read_in_another_way_too_lie_alone(storage, inputs, output):
    model = model_of(inputs, output)
    assert side_by_side([model.loss]) == []
    assert all(column.flags.c_contiguous for column in loaded(storage, model, COLUMNS).values())


@pytest.mark.parametrize("solver", ["SGD (learning_rate = 0.1, batch_size = 500, epochs = 2)", "LBFGS", "NEWTON"])
def test_training_gives_the_same_bits_for_columns_and_for_an_array(solver):
    with mlsql.connect(progress=False) as con:
        con.execute(
            f"CREATE TABLE t AS SELECT *, [a, b, c]::FLOAT[3] AS x, sin(7 * a)::FLOAT AS z FROM "
            f"(SELECT (i / {ROWS})::FLOAT AS a, (i % 3)::FLOAT AS b, cos(i)::FLOAT AS c FROM range({ROWS}) r(i))"
        )
        given = {"wide": ("a FLOAT, b FLOAT, c FLOAT", "[a, b, c]"), "narrow": ("x FLOAT[3]", "x")}
        for name, (inputs, x) in given.items():
            con.execute(
                f"CREATE MODEL {name} INPUT ({inputs}) TARGET (z FLOAT) AS SELECT LINEAR({x}, 1) AS y "
                "MINIMIZE AVG((y - z) ^ 2)"
            )
            con.execute(f"TRAIN {name} ON t WITH {solver}")
        values = "SELECT list(data ORDER BY name) FROM mlsql.parameters WHERE model = ?"
        assert con.execute(values, ["wide"]).fetchall() == con.execute(values, ["narrow"]).fetchall()


@settings(deadline=None)  # the first example compiles
@given(st.integers(2, 9), st.integers(1, 150), st.integers(0, 3), st.sampled_from(["f4", "f8", "i4", "i8", "?"]))
def test_both_ways_of_placing_are_numpys_stack(count, rows, before, dtype):
    columns = {f"x{k}": (np.arange(rows) * (k + 3) % 11 % 2 + k).astype(dtype) for k in range(count)}
    for place in (numpy_place, place_columns):
        whole = np.zeros((before + rows + 1, count), dtype)
        place(arrived(columns), list(columns), whole[before : before + rows])
        np.testing.assert_array_equal(whole[before : before + rows], np.stack(list(columns.values()), 1))
        assert not whole[:before].any()
        assert not whole[before + rows :].any()


@given(st.permutations(range(3)), st.integers(0, 2), st.integers(1, 2))
def test_only_all_columns_in_order_from_the_first_row_are_a_matrix(order, first, step):
    whole = np.stack([np.arange(5.0) + k for k in range(3)], 1)
    found = as_matrix([whole[first::step, k] for k in order])
    if list(order) == [0, 1, 2] and (first, step) == (0, 1):
        assert found is not None
        np.testing.assert_array_equal(found, whole)
    else:
        assert found is None
    assert as_matrix([whole[:, 0], whole[:, 1]]) is None
    assert as_matrix([column.copy() for column in whole.T]) is None


# Streams


def test_batches_come_as_duckdb_makes_them(storage):
    query = f"SELECT i FROM range({ROWS}) r(i) WHERE i % 3 = 0"
    batches = list(storage.read(query, batch_rows=2048))
    assert np.concatenate([b.column(0).to_numpy() for b in batches]).tolist() == list(range(0, ROWS, 3))


def test_ctrl_c_stops_a_stream_that_is_read():
    program = """
import os, signal, threading
from mlsql.executor.storage import Storage
storage = Storage()
endless = "SELECT a.range FROM range(100000000) a, range(100000) b WHERE hash(a.range, b.range) = 1"
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    storage.attend(lambda: [None for _ in storage.read(endless)])
except KeyboardInterrupt:
    assert storage.rows("SELECT 1") == [(1,)]
    print("stopped")
"""
    run = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=60, check=True)
    assert run.stdout == b"stopped\n"
