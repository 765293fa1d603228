"""Compiled predictions: the generated module gives what interpreted code gives, for random models and any rows.

Most tests run the module's text as plain Python, number by number; some compile it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from random_models import bound, model_text, value
from test_compiled import Plain
from threadpoolctl import ThreadpoolController

import mlsql
from mlsql.errors import DataError, ProgrammingError
from mlsql.executor import blas
from mlsql.executor.compiled import forward as module
from mlsql.executor.compiled import tiles
from mlsql.executor.compiled.forward import Forward, forward
from mlsql.executor.compiled.switch import LOAD_SECONDS, Switch
from mlsql.executor.initialize import draw
from mlsql.executor.predict import Predictor
from mlsql.executor.run import evaluate
from mlsql.planner.model import DataColumn, Model
from mlsql.planner.node import Node, walk
from mlsql.planner.ops import Add, Argmax, Column, Reshape, Subtract, Sum
from mlsql.planner.plan import Plan
from mlsql.session.query.functions import forward_plan
from mlsql.types import FLOAT, UNIT, RowSet, TypeProblem

Array = Any
ROWS = (0, 1, 3, 4, 9)  # of calls, where a tile has four rows


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tiles of four rows."""
    monkeypatch.setattr(module, "MOST_ROWS", 4)
    monkeypatch.setattr(tiles, "FEWEST_ROWS", 1)
    yield


# -- random models -----------------------------------------------------------------------------------------------------


def plan_of(seed: int) -> tuple[Model, Plan]:
    """A random model over one relation, and the plan of those of its columns that rows have."""
    model = bound(model_text(seed), random.Random(~seed))
    if model.skeleton is not None or model.rows == UNIT:
        raise TypeProblem("no model over one relation")
    wanted = [name for name, n in model.columns.items() if n.type.rows == model.rows]
    if not wanted:
        raise TypeProblem("no column has a value a row")
    return model, forward_plan(model, wanted)


def interpreted(
    plan: Plan, rows: RowSet, columns: Mapping[str, Array], parameters: Mapping[Node, Array]
) -> list[Array]:
    """The outputs by NumPy, all rows at once."""
    count = len(next(iter(columns.values())))
    part = RowSet(rows.name, max(1, count))
    sized = plan.over({rows: part}, {})
    leaves = {n: columns[n.name] for n in walk(sized.outputs.values()) if isinstance(n, Column)}
    return list(evaluate(sized, {**parameters, **leaves}, {part: count}).values())


def values_of(plan: Plan, count: int, seed: int) -> dict[str, Array]:
    """Columns of so many rows."""
    found = {}
    for n in walk(plan.outputs.values()):
        if isinstance(n, Column):
            leaf = Column(n.name, RowSet(n.rows.name, count), n.element, n.shape)
            found[n.name] = value(leaf, seed)[:count]
    return found


def outcome(seed: int) -> str:
    """What became of a seed: "the same", what differs, or why it is not compiled."""
    try:
        model, plan = plan_of(seed)
    except (ProgrammingError, TypeProblem):
        return "no model"
    found = forward(plan, model.rows)
    if isinstance(found, str):
        return f"interpreted: {found}"
    parameters: dict[Node, Array] = {p.node: np.asarray(draw(p, seed)) for p in model.parameters.values()}
    switch = Switch(plan, model.rows, 0.0)
    switch.module, switch.functions = found, Plain(found.source)
    run = switch.bound(parameters)
    for count in ROWS:
        columns = values_of(plan, max(1, count), seed)
        expected = interpreted(plan, model.rows, columns, parameters)
        for name, a, b in zip(
            plan.outputs, expected, run(count, {n: c[:count] for n, c in columns.items()}), strict=True
        ):
            if plan.outputs[name].type.rows != UNIT:
                a = a[:count]
            if a.shape != b.shape or not np.allclose(a, b, rtol=1e-3, atol=1e-3, equal_nan=True):
                return f"{name} of {count} rows: {a} is not {b}"
    return "the same"


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("share", range(10))
def test_the_text_of_random_models_is_right(share: int) -> None:
    found = {seed: outcome(seed) for seed in range(share * 30, share * 30 + 30)}
    wrong = {s: told for s, told in found.items() if told != "the same" and not told.startswith(("no model", "interp"))}
    assert not wrong, wrong


def test_the_best_of_a_row_is_the_first_of_equal_ones_and_nan_before_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 4)
    monkeypatch.setattr(tiles, "FEWEST_ROWS", 1)
    rows = RowSet("t", 1)
    x = Column("x", rows, FLOAT, (2, 3))
    plan = Plan({"best": Argmax(x), "of_one": Argmax(Reshape(x, (6, 1)))})
    found = forward(plan, rows)
    assert isinstance(found, Forward)
    run = Plain(found.source).prepare(found.allocate(np.empty))
    inf, nan = np.inf, np.nan
    numbers = np.array(
        [[[1, 3, 3], [-inf, -inf, -inf]], [[nan, 1, 2], [1, nan, nan]], [[-1, -2, -0.5], [0, -0.0, 0]]] * 2, np.float32
    )
    best, of_one = run(len(numbers), numbers)
    assert best.tolist() == numbers.argmax(-1).tolist()
    assert not of_one.any() and of_one.shape == (6, 6)


# -- compiled, in SQL --------------------------------------------------------------------------------------------------

MODELS = {
    "line": "SELECT LINEAR(x, 1) AS p, a AS given, 1 + d AS more MINIMIZE AVG((p - a) ** 2)",
    "network": "SELECT SIGMOID(LINEAR(RELU(LINEAR(x, 40)), 1)) AS p MINIMIZE AVG(BINARY_CROSS_ENTROPY(y, p))",
    "classes": "SELECT LINEAR(RELU(LINEAR(x, 32)), CLASSES(c)) AS scores, SOFTMAX(scores) AS shares, "
    "ARGMAX(scores) AS place, LABEL(scores, c) AS prediction MINIMIZE AVG(CROSS_ENTROPY(scores, c))",
    "views": "SELECT x[2:4] AS part, RESHAPE(x, 3, 4) AS matrix, EMBED(k, 5) AS e, "
    "LINEAR(RELU(LINEAR(x[3:10], 16)), 1) + SUM_OF(LINEAR(RESHAPE(x, 3, 4), 8)) * a + SUM_OF(e) + d AS p "
    "MINIMIZE AVG((p - a) ** 2)",
}
COLUMNS = "x FLOAT[12], a FLOAT, d DOUBLE, k INTEGER"


@pytest.fixture(scope="module")
def con() -> Iterator[Any]:
    """5,000 rows, and models of them."""
    con = mlsql.connect(progress=False)
    con.execute(
        "CREATE TABLE t AS SELECT i AS id, list_transform(range(12), lambda e: sin(e * 7 + i * 0.37))::FLOAT[12] AS x, "
        "cos(i)::FLOAT AS a, i * 1e-4 AS d, i % 7 AS k, (['red', 'green', 'blue'])[i % 3 + 1] AS c, i % 2 = 0 AS y "
        "FROM range(5000) r(i)"
    )
    for name, body in MODELS.items():
        target = "c VARCHAR" if name == "classes" else "y BOOLEAN"
        con.execute(f"CREATE MODEL {name} INPUT ({COLUMNS}) TARGET ({target}) AS {body}")
        con.execute(f"TRAIN {name} ON (FROM t LIMIT 500) WITH ADAM (epochs = 2, batch_size = 50)")
    yield con
    con.close()


def both(con: Any, query: str) -> tuple[pa.Table, pa.Table]:
    """What a query gives by interpreted and by compiled code."""
    found = []
    for choice in ("never", "always"):
        con.execute(f"SET mlsql_compile = '{choice}'")
        found.append(con.execute(query).fetch_arrow_table())
    con.execute("SET mlsql_compile = 'auto'")
    return found[0], found[1]


def hold_equal(expected: pa.Table, found: pa.Table) -> None:
    """AssertionError if numbers differ by more than 1e-5, or anything else differs at all."""
    assert expected.schema == found.schema and len(expected) == len(found)
    for name in expected.column_names:
        a, b = expected[name].combine_chunks(), found[name].combine_chunks()
        while pa.types.is_fixed_size_list(a.type):
            a, b = a.flatten(), b.flatten()
        if pa.types.is_floating(a.type):
            assert a.is_null().equals(b.is_null())
            np.testing.assert_allclose(b.drop_null().to_numpy(), a.drop_null().to_numpy(), rtol=1e-5, atol=1e-6)
        else:
            assert a.equals(b), name


@pytest.mark.parametrize("name", MODELS)
def test_compiled_predictions_are_the_interpreted_ones(con: Any, name: str) -> None:
    for rows in (5000, 2049, 2048, 1, 0):
        hold_equal(*both(con, f"SELECT * FROM PREDICT({name}, (SELECT * FROM t ORDER BY id LIMIT {rows}))"))


@pytest.mark.parametrize("name", MODELS)
def test_what_was_predicted_stays_as_it_is(con: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB keeps the arrays that a function gave it, while other rows are predicted."""
    kept: list[tuple[pa.Array, list[Any]]] = []
    predict = Predictor.__call__

    def watched(predictor: Predictor, *columns: Any) -> dict[str, pa.Array]:
        found = predict(predictor, *columns)
        kept.extend((a, a.to_pylist()) for a in found.values())
        return found

    monkeypatch.setattr(Predictor, "__call__", watched)
    both(con, f"SELECT * FROM PREDICT({name}, t)")
    assert len(kept) > 2
    assert all(a.to_pylist() == was for a, was in kept)


def test_arrays_and_lists_are_read_alike(con: Any) -> None:
    arrays, _ = both(con, "SELECT PREDICT(network, x := x, a := a, d := d, k := k) AS p FROM t ORDER BY id")
    query = "SELECT PREDICT(network, x := l, a := a, d := d, k := k) AS p FROM (SELECT *, x::FLOAT[] AS l FROM t)"
    for lists in both(con, f"{query} ORDER BY id"):
        hold_equal(arrays, lists)
    for column, is_array in (("x::FLOAT[]", False), ("x", True)):
        call = "sum(PREDICT(network, x := l, a := a, d := d, k := k))"
        rows = con.execute(f"EXPLAIN SELECT {call} FROM (SELECT *, {column} AS l FROM t)").fetchall()
        plan = "".join(row[0].replace("│", "").replace(" ", "") for row in rows)
        assert ("ofarrays" in plan) == is_array
    with pytest.raises(DataError, match="has a list of 11; 12 are declared"):
        con.execute(query.replace("x::FLOAT[]", "x[:11]")).fetchall()


def test_rows_with_null_give_null(con: Any) -> None:
    con.execute("SET mlsql_null_prediction = true")
    try:
        some = "SELECT * REPLACE (CASE WHEN id % 3 > 0 THEN x END AS x, CASE WHEN id % 5 > 0 THEN a END AS a) FROM t"
        query = f"SELECT id, PREDICT(views) AS p FROM ({some}) ORDER BY id"
        expected, found = both(con, query)
        hold_equal(expected, found)
        assert found["p"].null_count == sum(i % 3 == 0 or i % 5 == 0 for i in range(5000))
    finally:
        con.execute("SET mlsql_null_prediction = false")


def test_threads_have_arenas_of_their_own(con: Any) -> None:
    con.execute("CREATE OR REPLACE TABLE many AS SELECT t.* REPLACE (t.id + 5000 * r.i AS id) FROM t, range(80) r(i)")
    con.execute("SET threads = 4")
    try:
        query = "SELECT id % 5000 AS id, min(p) AS least, max(p) AS most FROM PREDICT(network, many) GROUP BY ALL"
        expected, _ = both(con, "SELECT id, p AS least, p AS most FROM PREDICT(network, t) ORDER BY id")
        _, found = both(con, f"{query} ORDER BY id")
        hold_equal(expected, found)
    finally:
        con.execute("RESET threads")


def test_evaluate_agrees(con: Any) -> None:
    hold_equal(*both(con, "EVALUATE network ON t"))


def test_a_layer_over_a_part_of_a_column_can_be_trained_compiled(con: Any) -> None:
    losses = []
    for choice in ("never", "always"):
        con.execute(f"SET mlsql_compile = '{choice}'")
        con.execute("TRAIN views ON (FROM t LIMIT 500) FROM SCRATCH WITH SGD (learning_rate = 0.001, epochs = 2)")
        query = "SELECT loss FROM mlsql.training_log WHERE run_id = (SELECT max(run_id) FROM mlsql.training_log)"
        losses.append([loss for (loss,) in con.execute(f"{query} ORDER BY epoch").fetchall()])
    con.execute("SET mlsql_compile = 'auto'")
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_explain_shows_the_compiled_code(con: Any) -> None:
    query = "EXPLAIN (CODE) SELECT PREDICT(network, x, a, d, k) FROM t"
    assert not any("@njit" in row[0] for row in con.execute(query).fetchall())
    con.execute("SET mlsql_compile = 'always'")
    try:
        lines = [row[0] for row in con.execute(query).fetchall()]
        assert "@njit(" in lines and any(line.startswith("def forward(rows") for line in lines)
    finally:
        con.execute("SET mlsql_compile = 'auto'")


# -- the switch --------------------------------------------------------------------------------------------------------


def test_a_chunk_is_interpreted_until_another_process_has_compiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLSQL_CACHE", str(tmp_path))
    rows = RowSet("t", 1)
    x = Column("x", rows, FLOAT, (3,))
    plan, inputs = Plan({"y": Add(x, x)}), [(DataColumn(x, "{0}", ("x",)),)]
    switch = Switch(plan, rows, 1e-3)
    predictor = Predictor(plan, rows, inputs, {}, {}, {}, switch=switch)
    given = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6, dtype=np.float32)), 3)
    expected = [[0, 2, 4], [6, 8, 10]]
    assert predictor(given)["y"].to_pylist() == expected and switch.module is None
    switch.spent = 1.0
    for _ in range(600):
        assert predictor(given)["y"].to_pylist() == expected
        if switch.functions is not None:
            break
        assert switch.compiling is not None
        time.sleep(0.1)
    assert switch.functions is not None
    assert predictor(given)["y"].to_pylist() == expected and predictor.local.compiled is not None


def test_what_is_not_worth_it_is_not_compiled() -> None:
    rows = RowSet("t", 1)
    switch = Switch(Plan({"y": Column("x", rows, FLOAT, ())}), rows, 1.0)
    assert not switch.is_compiled() and switch.module is None
    switch.spent = LOAD_SECONDS + 0.01
    assert not switch.is_compiled() and switch.module is not None and switch.compiling is None


def test_a_plan_that_reads_all_rows_is_interpreted() -> None:
    rows = RowSet("t", 1)
    x = Column("x", rows, FLOAT, ())
    assert forward(Plan({"y": Subtract(x, Sum(x, True))}), rows) == "sum reads all rows"
    switch = Switch(Plan({"y": Subtract(x, Sum(x, True))}), rows, 1.0, wait=True)
    assert not switch.is_compiled() and switch.reason is not None


def test_products_get_their_threads_back() -> None:
    controllers = ThreadpoolController().lib_controllers
    libraries = [library for library in controllers if library.internal_api == "openblas"]  # NumPy's
    before = [library.get_num_threads() for library in libraries]
    with blas.threads(1, look=False), blas.threads(1, look=False):
        assert {library.get_num_threads() for library in libraries} == {1}
    assert [library.get_num_threads() for library in libraries] == before
