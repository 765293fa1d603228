"""Losses over joins, group-bys and unions: gradients beside differences, batches beside the whole, joins beside tables.

The plans are those of CREATE MODEL, over random positions, in DOUBLE.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import (
    ALL_BUT_EXPAND,
    batched,
    bind,
    bind_rows,
    differences,
    expanded,
    in_double,
    parameters,
    random_leaves,
    run,
    with_gradients,
)

import mlsql
from mlsql.autodiff.gradient import gradients
from mlsql.planner.ops import Index, Positions
from mlsql.planner.plan import Plan

INPUT = "INPUT a (k BIGINT, x FLOAT, v FLOAT[2]), b (k BIGINT, y FLOAT), c (j BIGINT, z FLOAT) TARGET a (t FLOAT)"

MODELS = {
    "inner join": "SELECT LINEAR(v, 2) AS h, w * y AS g FROM a JOIN b ON a.k = b.k MINIMIZE AVG(L2(h) * g - t)",
    "left join": "SELECT TANH(w * x + COALESCE(u * y, 0.5)) AS h FROM a LEFT JOIN b ON a.k = b.k "
    "MINIMIZE AVG((h - t) ** 2)",
    "left join and NULL": "SELECT TANH(w * x + u * y) AS h FROM a LEFT JOIN b ON a.k = b.k MINIMIZE AVG(h ** 2)",
    "self join": "WITH e AS (SELECT k, TANH(LINEAR(v, 2)) AS e FROM a) "
    "SELECT DOT(p.e, q.e) AS d FROM e p JOIN e q ON p.k = q.k MINIMIZE AVG((d - 0.3) ** 2)",
    "three relations": "SELECT w * x + TANH(u * y) * z AS h FROM a JOIN b ON a.k = b.k JOIN c ON c.j = b.k "
    "MINIMIZE AVG((h - t) ** 2)",
    "filter": "SELECT EXP(w * x) AS h FROM a WHERE x > 0 MINIMIZE AVG(h)",
    "group by": "SELECT k, SUM(TANH(w * x)) AS s, AVG(LINEAR(v, 2)) AS m, MIN(u * x) AS l, MAX(u * v) AS h FROM a "
    "GROUP BY k MINIMIZE AVG(s * l + L2(m) + L2(h))",
    "group by with a filter": "SELECT k, SUM(TANH(w * x)) FILTER (WHERE x > 0) AS s, "
    "AVG(u * x) FILTER (WHERE x < 1) AS m, MAX(w * x) FILTER (WHERE x > -1) AS h FROM a GROUP BY k "
    "MINIMIZE AVG(COALESCE(s, 0.1) ** 2 + COALESCE(m, 0.2) ** 2 + COALESCE(h, 0.3) ** 2)",
    "groups of a left join": "SELECT a.k, SUM(w * y) AS s, AVG(x * u * y) AS m, COUNT(y) AS n FROM a "
    "LEFT JOIN b ON a.k = b.k GROUP BY a.k MINIMIZE AVG(COALESCE(s * m, 0.5) ** 2)",
    "messages": "WITH h AS (SELECT k, LINEAR(v, 2) AS h FROM a) SELECT b.k, SUM(h.h) AS s FROM b JOIN h ON h.k = b.k "
    "GROUP BY b.k MINIMIZE AVG(L2(s))",
    "messages with weights": "WITH h AS (SELECT k, LINEAR(v, 2) AS h FROM a) "
    "SELECT b.k, SUM(b.y * h.h) AS s, AVG(h.h) AS m FROM b JOIN h ON h.k = b.k GROUP BY b.k MINIMIZE AVG(DOT(s, m))",
    "groups joined back": "WITH m AS (SELECT k, AVG(TANH(w * x)) AS m FROM a GROUP BY k) "
    "SELECT (u * a.x - m.m) ** 2 AS d FROM a JOIN m ON a.k = m.k MINIMIZE AVG(d * t)",
    "groups of groups": "WITH m AS (SELECT k, x % 2 AS odd, SUM(w * x) AS s FROM a GROUP BY k, x % 2) "
    "SELECT k, MAX(TANH(s)) AS h, AVG(u * s) AS m FROM m GROUP BY k MINIMIZE AVG(h * m)",
    "two hops": "WITH one AS (SELECT b.k, RELU(SUM(LINEAR(a.v, 3))) AS h FROM a JOIN b ON a.k = b.k GROUP BY b.k), "
    "two AS (SELECT c.j, AVG(c.z * LINEAR(one.h, 2)) AS h FROM one JOIN c ON one.k = c.j GROUP BY c.j) "
    "SELECT j, h FROM two MINIMIZE AVG(L2(h))",
    "union all": "SELECT k, w * x AS h FROM a UNION ALL SELECT k, TANH(u * y) FROM b MINIMIZE AVG((h - 0.3) ** 2)",
    "groups of a union": "SELECT k, SUM(h) AS s FROM "
    "(SELECT k, w * x AS h FROM a UNION ALL SELECT k, TANH(u * y) FROM b) GROUP BY k MINIMIZE AVG(s ** 2)",
    "scalar query": "SELECT w * x - (SELECT AVG(TANH(u * x)) FROM a) AS d FROM a MINIMIZE AVG((d - t) ** 2)",
    "a choice between tensors of targets": "SELECT w * x AS h FROM a "
    "MINIMIZE AVG(SUM_OF(CASE WHEN [t, h] > [0, 0] OR [h, h] > [1, 1] THEN [h, 2 * h] ELSE [t, h] END))",
    "embedding over a join": "SELECT EMBED(b.k, 3) AS e, LINEAR(v, 3) AS l FROM a JOIN b ON a.k = b.k "
    "MINIMIZE AVG(DOT(e, l) ** 2)",
}  # fmt: skip
every_model = pytest.mark.parametrize("name", MODELS)


def model_of(name: str) -> Any:
    text = f"CREATE MODEL m PARAMETERS (w FLOAT, u FLOAT) {INPUT} AS {MODELS[name]}"
    counts = {"a": 6, "b": 8, "c": 4}
    return bind_rows(text, counts, sizes={v.symbol: 3 for v in bind(text).vocabularies.values()})


def losses(name: str) -> Iterator[tuple[str, Plan]]:
    """The loss of a model over all rows of its select, and over a batch of them."""
    model = model_of(name)
    assert model.loss is not None
    yield "all rows", in_double(Plan({"loss": model.loss}))
    yield "a batch", in_double(Plan({"loss": batched(model, 2)}))
    yield "a sampled batch", in_double(Plan({"loss": batched(model, 2, fan_out=(1, 2))}))


def arrays_for(plan: Plan) -> dict[Any, Any]:
    """Values for the leaves: every group has rows, and no row of a union comes from two sides."""
    arrays = random_leaves(list(plan.outputs.values()), seed=4)
    for n in arrays:
        if isinstance(n, Positions) and " in grouped" in n.name:
            arrays[n] = np.arange(n.rows.rows) * 2 % n.over.rows
        elif isinstance(n, Positions) and n.name.startswith("union"):
            start = 0 if n.name.endswith(".0") else n.over.rows - n.rows.rows
            arrays[n] = np.arange(start, start + n.rows.rows)
    return arrays


@every_model
def test_the_gradient_is_the_slope(name: str) -> None:
    for label, plan in losses(name):
        loss, sources, arrays = plan.outputs["loss"], parameters(plan), arrays_for(plan)
        assert sources
        found = run(expanded(Plan({str(i): g for i, g in enumerate(gradients(loss, sources))})), arrays)
        for source, g, slope in zip(sources, found.values(), differences(loss, sources, arrays), strict=True):
            np.testing.assert_allclose(g, slope, 1e-5, 1e-7, err_msg=f"{source.name}, {label}")
        assert label != "all rows" or any(np.any(g) for g in found.values())


@every_model
@pytest.mark.parametrize("simple", [False, True], ids=["as it stands", "simplified"])
@pytest.mark.parametrize("fan_out", [(), (9, 9)], ids=["whole groups", "samples larger than groups"])
def test_a_batch_of_all_rows_is_the_whole(name: str, simple: bool, fan_out: tuple[int, ...]) -> None:
    model = model_of(name)
    assert model.loss is not None
    whole = in_double(Plan({"loss": model.loss}))
    batch = in_double(Plan({"loss": batched(model, model.rows.rows, simple=simple, fan_out=fan_out)}))
    arrays = arrays_for(whole)
    index = next(n for n in batch.nodes() if isinstance(n, Index))
    in_order = {**arrays, index: np.arange(model.rows.rows)}
    found, expected = (with_gradients(plan, ALL_BUT_EXPAND).plan for plan in (batch, whole))
    values, wanted = run(found, in_order), run(expected, arrays)
    for output, value in wanted.items():
        np.testing.assert_allclose(values[output], value, 1e-9, 1e-9, err_msg=output)


@every_model
def test_the_optimizer_changes_no_value(name: str) -> None:
    for label, plan in losses(name):
        arrays = arrays_for(plan)
        best, plain = (run(with_gradients(plan, without).plan, arrays) for without in ((), ALL_BUT_EXPAND))
        assert best.keys() == plain.keys()
        for output, value in best.items():
            np.testing.assert_allclose(value, plain[output], 1e-9, 1e-9, err_msg=f"{output}, {label}")


@every_model
def test_a_batch_of_a_simplified_loss_is_the_same(name: str) -> None:
    model = model_of(name)
    plans = [in_double(Plan({"loss": batched(model, 2, simple=simple)})) for simple in (False, True)]
    arrays = arrays_for(plans[0])
    found, expected = (run(with_gradients(plan, ALL_BUT_EXPAND).plan, arrays) for plan in plans)
    for output, value in expected.items():
        np.testing.assert_allclose(found[output], value, 1e-9, 1e-9, err_msg=output)


# -- a join is the table of its rows -----------------------------------------------------------------------------------

JOINED = (
    "CREATE MODEL joined PARAMETERS (w FLOAT INIT 0.5, u FLOAT INIT -0.3, c FLOAT INIT 0.1) "
    "INPUT a (k BIGINT, x FLOAT), b (k BIGINT, y FLOAT) TARGET a (t FLOAT) "
    "AS SELECT TANH(w * x) + u * y + c AS prediction FROM a JOIN b ON a.k = b.k MINIMIZE AVG((prediction - t) ** 2)"
)
FLAT = (
    "CREATE MODEL flat PARAMETERS (w FLOAT INIT 0.5, u FLOAT INIT -0.3, c FLOAT INIT 0.1) "
    "INPUT (x FLOAT, y FLOAT) TARGET (t FLOAT) "
    "AS SELECT TANH(w * x) + u * y + c AS prediction MINIMIZE AVG((prediction - t) ** 2)"
)
# The rows of a join come in the order of the first relation's rows, then of the second's.
ROWS = (
    "(SELECT x, y, t FROM (SELECT *, row_number() OVER () AS i FROM a) AS a "
    "JOIN (SELECT *, row_number() OVER () AS i FROM b) AS b ON a.k = b.k ORDER BY a.i, b.i)"
)
OPTIONS = {
    "the whole": "SGD (learning_rate = 0.1, batch_size = ALL, epochs = 5)",
    "batches in order": "SGD (learning_rate = 0.1, batch_size = 3, epochs = 3, shuffle = false)",
    "shuffled batches": "ADAM (learning_rate = 0.05, batch_size = 2, epochs = 3, seed = 7)",
    "batches and a share aside": "SGD (learning_rate = 0.1, batch_size = 2, epochs = 2, seed = 3) VALIDATE 40 PERCENT",
}

numbers = st.floats(-2, 2, width=16)
rows = st.lists(st.tuples(st.integers(0, 3), numbers, numbers), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def db() -> Iterator[Any]:
    with mlsql.connect(progress=False) as connection:
        connection.execute(JOINED)
        connection.execute(FLAT)
        yield connection


def outcome(db: Any, model: str, relations: str, options: str) -> tuple[list[Any], list[Any]]:
    """The log of a run from scratch, and the parameters."""
    db.execute(f"TRAIN {model} ON {relations} FROM SCRATCH WITH {options}")
    log = "SELECT loss, validation_loss FROM mlsql.training_log WHERE run_id = (FROM last) ORDER BY epoch"
    found = db.execute(f"WITH last AS (SELECT max(run_id) FROM mlsql.training_log) {log}").fetchall()
    values = db.execute(f"SELECT x, y, t, prediction FROM PREDICT({model}, {relations})") if model == "flat" else None
    return found, [] if values is None else values.fetchall()


@pytest.mark.parametrize("options", OPTIONS)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(left=rows, right=rows)
def test_training_over_a_join_is_training_over_its_rows(db: Any, options: str, left: Any, right: Any) -> None:
    right = [*right, *((k, 0.5, 0.0) for k in (0, 1)), (left[0][0], 1.0, 0.0)]
    left = [*left, (0, 1.0, 1.0), (0, 0.5, 1.0), (1, -1.0, 0.0)]
    k, x, t = zip(*left, strict=True)
    db.register("a", pa.table({"k": k, "x": x, "t": t}))
    k, y, _ = zip(*right, strict=True)
    db.register("b", pa.table({"k": k, "y": y}))
    joined, _ = outcome(db, "joined", "a, b", OPTIONS[options])
    flat, predicted = outcome(db, "flat", ROWS, OPTIONS[options])
    np.testing.assert_allclose(np.array(joined, float), np.array(flat, float), 1e-5, 1e-7)
    found = db.execute("SELECT prediction FROM PREDICT(joined, a, b)").fetchall()
    np.testing.assert_allclose([p for (p,) in found], [p for *_, p in predicted], 1e-5, 1e-6)
