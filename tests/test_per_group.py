"""TRAIN ... PER: each group's model is the one that training the group alone gives, whatever the sizes and options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

import mlsql
from mlsql.autodiff.gradient import gradients
from mlsql.autodiff.per_group import Blocks, gathered, per_group
from mlsql.executor.run import evaluate
from mlsql.optimizer.stages import optimize
from mlsql.planner.node import Node, walk
from mlsql.planner.ops import (
    Argmax,
    Broadcast,
    Column,
    Count,
    Max,
    Min,
    Parameter,
    Pick,
    Place,
    Positions,
    Reshape,
    Segment,
    Softmax,
    State,
    Sum,
    Take,
    Where,
    contract,
    mean,
)
from mlsql.planner.ops.map import Add, Greater, Multiply
from mlsql.planner.plan import Plan
from mlsql.types import BIGINT, DOUBLE, UNIT, RowSet, Type

Array = Any
LINE = (
    "CREATE MODEL m INPUT (a FLOAT, b FLOAT) TARGET (y FLOAT) AS SELECT LINEAR([a, b], 1) AS prediction "
    "MINIMIZE AVG((prediction - y) ** 2)"
)
NETWORK = (
    "CREATE MODEL m INPUT (a FLOAT, b FLOAT) TARGET (k VARCHAR) AS SELECT RELU(LINEAR([a, b], 8)) AS hidden, "
    "LINEAR(hidden, CLASSES(k)) AS scores, LABEL(scores, k) AS prediction "
    "MINIMIZE AVG(CROSS_ENTROPY(scores, k)) + 0.01 * L2(hidden.weight)"
)
SIZES = (40, 1, 17, 8, 23)


def table(sizes: Sequence[int], seed: int = 0) -> pa.Table:
    """Rows of groups of the given sizes, mixed: g is the group, y and k depend on a and b by group."""
    rng = np.random.default_rng(seed)
    g = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    a, b = rng.uniform(-1, 1, (2, len(g))).astype(np.float32)
    slopes = rng.normal(0, 1, (len(sizes), 3))
    y = slopes[g, 0] * a + slopes[g, 1] * b + slopes[g, 2] + rng.normal(0, 0.1, len(g))
    k = np.array(["x", "y", "z"])[(np.abs(y) * 2).astype(int) % 3]
    return pa.table({"row": np.arange(len(g)), "g": g, "a": a, "b": b, "y": y, "k": k})


def connected(model: str, rows: pa.Table) -> mlsql.Connection:
    con = mlsql.connect(progress=False)
    con.register("given", rows)
    con.execute("CREATE TABLE t AS SELECT * FROM given ORDER BY row")
    con.execute(model)
    return con


def learned(con: mlsql.Connection) -> dict[str, Array]:
    """The parameters of the newest version."""
    newest = "version = (SELECT max(version) FROM mlsql.model_versions)"
    rows = con.execute(f"SELECT name, element, shape, data FROM mlsql.parameters WHERE {newest}").fetchall()
    kinds = {"FLOAT": "<f4", "DOUBLE": "<f8"}
    return {name: np.frombuffer(data, kinds[element]).reshape(shape) for name, element, shape, data in rows}


def compare(con: mlsql.Connection, clauses: str, groups: int, tolerance: float = 1e-5) -> None:
    """Every group's parameters beside those of a TRAIN of its rows alone."""
    con.execute(f"TRAIN m ON t PER (g) FROM SCRATCH {clauses}")
    together = learned(con)
    for g in range(groups):
        con.execute(f"TRAIN m ON (SELECT * FROM t WHERE g = {g}) FROM SCRATCH {clauses}")
        for name, alone in learned(con).items():
            np.testing.assert_allclose(together[name][g], alone, rtol=tolerance, atol=tolerance, err_msg=f"{name}, {g}")


# -- a group trained with others is trained as if it were alone --------------------------------------------------------


@pytest.mark.parametrize(
    "clauses",
    [
        "WITH GD (learning_rate = 0.1, epochs = 30, seed = 3)",
        "WITH GD (learning_rate = 0.1, epochs = 30, momentum = 0.9, weight_decay = 0.1)",
        "WITH GD (learning_rate = 0.5, epochs = 30, clip_norm = 0.1, schedule = cosine)",
        "WITH SGD (learning_rate = 0.05, batch_size = 4, epochs = 4, momentum = 0.9, nesterov = true)",
        "WITH SGD (learning_rate = 0.05, batch_size = 100, epochs = 4)",
        "WITH SGD (learning_rate = 0.05, batch_size = 4, epochs = 4, shuffle = false, clip_norm = 0.1)",
        "WITH ADAM (learning_rate = 0.05, batch_size = 8, epochs = 4, weight_decay = 0.1)",
        "WITH ADAMW (learning_rate = 0.05, batch_size = 8, epochs = 4)",
        "WITH RMSPROP (learning_rate = 0.05, batch_size = ALL, epochs = 9)",
        "WITH ADAGRAD (learning_rate = 0.05, batch_size = 8, epochs = 4)",
        "WEIGHT BY 1 + a * a WITH GD (learning_rate = 0.1, epochs = 20)",
        "MINIMIZE SUM(ABS(prediction - y)) / COUNT(*) + 0.1 * L1(prediction.weight) WITH GD (epochs = 9)",
        "MINIMIZE MAX((prediction - y) ** 2) - 0.1 * MIN(prediction) WITH GD (epochs = 9)",
    ],
)
def test_a_linear_model_of_every_group(clauses: str) -> None:
    compare(connected(LINE, table(SIZES)), clauses, len(SIZES))


@pytest.mark.parametrize(
    "clauses",
    [
        "WITH GD (learning_rate = 0.3, epochs = 30)",
        "WITH ADAM (learning_rate = 0.01, batch_size = 8, epochs = 5)",
        "WITH GD (learning_rate = 0.1, epochs = 9, class_weight = balanced)",
    ],
)
def test_a_network_of_every_group(clauses: str) -> None:
    con = connected(NETWORK, table(SIZES))
    con.execute(f"TRAIN m ON t PER (g) {clauses}")
    together = learned(con)
    start = "MINIMIZE AVG(CROSS_ENTROPY(scores, k)) + 0.01 * L2(hidden.weight)"
    for g in range(len(SIZES)):
        # alone the group might not have all classes, so it starts from a version of all rows that did not move
        con.execute(f"TRAIN m ON t FROM SCRATCH {start} WITH GD (learning_rate = 0, epochs = 1)")
        con.execute(f"TRAIN m ON (SELECT * FROM t WHERE g = {g}) {clauses}")
        for name, alone in learned(con).items():
            np.testing.assert_allclose(together[name][g], alone, rtol=1e-4, atol=1e-5, err_msg=f"{name}, {g}")


def test_two_hundred_groups_find_their_least_squares() -> None:
    sizes = np.random.default_rng(1).integers(4, 60, 200)
    rows = table(list(sizes))
    con = connected(LINE, rows)
    con.execute("TRAIN m ON t PER (g) WITH GD (learning_rate = 0.5, epochs = 4000)")
    found = learned(con)
    g, a, b, y = (rows.column(n).to_numpy() for n in ("g", "a", "b", "y"))
    predicted = np.array(con.execute("SELECT PREDICT(m, a, b) FROM t ORDER BY row").fetchall())[:, 0]
    for k in range(200):
        mine = g == k
        fit = LinearRegression().fit(np.stack([a, b], 1)[mine], y[mine])
        np.testing.assert_allclose(predicted[mine], fit.predict(np.stack([a, b], 1)[mine]), atol=2e-3)
    assert found["prediction.weight"].shape == (200, 2, 1)


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    batch=st.sampled_from(["ALL", "1", "2", "3", "7"]),
    solver=st.sampled_from(["SGD", "ADAM", "RMSPROP"]),
    seed=st.integers(0, 5),
)
def test_any_sizes_and_any_batch(sizes: list[int], batch: str, solver: str, seed: int) -> None:
    con = connected(LINE, table(sizes, seed))
    compare(con, f"WITH {solver} (learning_rate = 0.05, batch_size = {batch}, epochs = 3, seed = {seed})", len(sizes))


# -- rows that are held out --------------------------------------------------------------------------------------------


def test_a_share_of_every_group_is_held_out() -> None:
    """Of each group the rows that would be held out if it were alone; the loss is the average by held-out rows."""
    con = connected(LINE, table((40, 10, 30)))
    clauses = "VALIDATE 20 PERCENT FROM SCRATCH WITH GD (learning_rate = 0.1, epochs = 5)"
    [together] = con.execute(f"TRAIN m ON t PER (g) {clauses}").fetchall()
    whole = learned(con)
    losses = []
    for g in range(3):
        [alone] = con.execute(f"TRAIN m ON (SELECT * FROM t WHERE g = {g}) {clauses}").fetchall()
        losses.append(alone[6:8])
        np.testing.assert_allclose(whole["prediction.weight"][g], learned(con)["prediction.weight"], rtol=1e-5)
    np.testing.assert_allclose(together[6:8], np.average(losses, 0, (40, 10, 30)), rtol=1e-5)
    assert together[5] == 64


def test_other_rows_validate_the_groups_that_they_have() -> None:
    con = connected(LINE, table(SIZES))
    other = "(SELECT * FROM t WHERE g IN (0, 2))"
    [row] = con.execute(f"TRAIN m ON t PER (g) VALIDATE ON {other} WITH GD (epochs = 5)").fetchall()
    squared = con.execute(f"SELECT avg((PREDICT(m, a, b) - y) ** 2) FROM {other}").fetchone()
    assert row[7] == pytest.approx(squared[0], rel=1e-5)


def test_patience_and_until_watch_all_groups_together() -> None:
    con = connected(LINE, table(SIZES))
    [row] = con.execute("TRAIN m ON t PER (g) UNTIL loss < 0.1 WITH GD (learning_rate = 0.3, epochs = 900)").fetchall()
    assert row[-1] == "UNTIL" and row[6] < 0.1
    options = "WITH GD (learning_rate = 1, epochs = 900, patience = 3)"
    [row] = con.execute(f"TRAIN m ON t PER (g) FROM SCRATCH {options}").fetchall()
    assert row[-1] == "patience"


def test_a_group_that_diverges_can_be_left_where_it_was() -> None:
    """With on_nan = 'skip' a group whose loss is not finite keeps its weights, and the others go on."""
    rows = table((20, 20))
    far = np.where(rows.column("g").to_numpy() == 1, np.float32(1e30), rows.column("a").to_numpy())
    con = connected(LINE, rows.set_column(2, "a", pa.array(far.astype(np.float32))))
    with pytest.raises(mlsql.OperationalError, match="the loss became"):
        con.execute("TRAIN m ON t PER (g) WITH GD (epochs = 3)")
    con.execute("TRAIN m ON t PER (g) WITH GD (epochs = 3, on_nan = 'skip')")
    found = learned(con)
    assert all(np.isfinite(a).all() for a in found.values())
    assert np.any(found["prediction.bias"][0] != 0) and np.all(found["prediction.bias"][1] == 0)


def test_one_large_group_does_not_fill_the_memory() -> None:
    con = connected(LINE, table((9000,)))
    con.execute("UPDATE t SET g = row + 1 WHERE row < 6000")
    with pytest.raises(mlsql.NotSupportedError, match="6001 groups 3000 slots") as problem:
        con.execute("TRAIN m ON t PER (g) WITH GD (epochs = 1)")
    assert problem.value.place is not None
    [row] = con.execute("TRAIN m ON t PER (g) WITH SGD (batch_size = 500, epochs = 1)").fetchall()
    assert row[4:6] == (6, 9000)


# -- going on ----------------------------------------------------------------------------------------------------------


def test_training_goes_on_group_by_group() -> None:
    """A group that the version before knows goes on from there, a new one starts anew, one that is gone is gone."""
    con = connected(LINE, table((9, 9, 9)))
    clauses = "WITH GD (learning_rate = 0.1, epochs = 4)"
    con.execute(f"TRAIN m ON t PER (g) {clauses}")
    con.execute(f"TRAIN m ON t PER (g) {clauses}")
    twice = learned(con)
    con.execute(f"TRAIN m ON (SELECT * FROM t WHERE g < 2) PER (g) FROM SCRATCH {clauses}")
    con.execute(f"TRAIN m ON (SELECT * FROM t WHERE g > 0) PER (g) {clauses}")
    found = learned(con)
    np.testing.assert_array_equal(found["prediction.weight"][0], twice["prediction.weight"][1])
    con.execute(f"TRAIN m ON (SELECT * FROM t WHERE g = 2) FROM SCRATCH {clauses}")
    np.testing.assert_allclose(found["prediction.weight"][1], learned(con)["prediction.weight"], rtol=1e-5)


def test_keys_tell_values_apart() -> None:
    """NULL and 'NULL', texts with brackets and commas, other columns' values: each combination is a group."""
    con = mlsql.connect(progress=False)
    texts = "(NULL, 1), ('NULL', 2), ('', 3), ('a, b', 4), ('(a', 5), ('it''s', 6), (' a', 7), ('a', 8)"
    days = "(DATE '2026-01-01', 0), (NULL, 100)"
    con.execute(f"CREATE TABLE t AS SELECT g, day, y + m AS y FROM (VALUES {texts}) v(g, y), (VALUES {days}) w(day, m)")
    con.execute(
        "CREATE MODEL m PARAMETERS (level FLOAT INIT 0) TARGET (y FLOAT) AS SELECT level AS prediction "
        "MINIMIZE AVG((prediction - y) ** 2)"
    )
    con.execute("TRAIN m ON t PER (g, day) WITH GD (learning_rate = 0.5, epochs = 1)")
    found = con.execute("SELECT PREDICT(m), y FROM t").fetchall()
    assert len(found) == 16
    assert all(p == pytest.approx(y) for p, y in found)


def test_groups_start_from_a_version_of_all_rows() -> None:
    con = connected(LINE, table((9, 9)))
    con.execute("TRAIN m ON t WITH GD (learning_rate = 0.1, epochs = 50)")
    pooled = learned(con)
    con.execute("TRAIN m ON t PER (g) WITH GD (learning_rate = 0, epochs = 1)")
    for name, value in learned(con).items():
        np.testing.assert_array_equal(value, np.stack([pooled[name]] * 2))


def test_what_is_frozen_is_shared() -> None:
    model = (
        "CREATE MODEL m PARAMETERS (r FLOAT[3][2] INIT XAVIER FROZEN, w FLOAT[3]) INPUT (a FLOAT, b FLOAT) "
        "TARGET (y FLOAT) AS SELECT DOT(TANH([a, b] @ r), w) AS prediction MINIMIZE AVG((prediction - y) ** 2)"
    )
    con = connected(model, table((9, 14)))
    con.execute("TRAIN m ON t PER (g) WITH GD (learning_rate = 0.1, epochs = 9)")
    first = learned(con)
    assert first["r"].shape == (2, 3) and first["w"].shape == (2, 3)
    con.execute("TRAIN m ON t PER (g) WITH GD (learning_rate = 0.1, epochs = 9, seed = 8)")
    np.testing.assert_array_equal(learned(con)["r"], first["r"])
    features = np.tanh(np.stack([con_column(con, "a"), con_column(con, "b")], 1) @ first["r"])
    expected = (features * learned(con)["w"][con_column(con, "g")]).sum(1)
    np.testing.assert_allclose(con_column(con, "PREDICT(m, a, b)"), expected, rtol=1e-4, atol=1e-6)


def con_column(con: mlsql.Connection, expression: str) -> Array:
    return np.array(con.execute(f"SELECT {expression} FROM t ORDER BY row").fetchall())[:, 0]


# -- prediction --------------------------------------------------------------------------------------------------------


def test_both_ways_of_predicting_agree() -> None:
    """Group by group, and every row with its own parameters: the same numbers, for few groups and for many."""
    con = connected(NETWORK, table([5] * 900))
    con.execute("TRAIN m ON t PER (g) WITH GD (learning_rate = 0.3, epochs = 5)")
    found = learned(con)
    g, a, b = (con_column(con, n) for n in "gab")
    x = np.stack([a, b], 1).astype(np.float32)
    hidden = np.maximum(np.einsum("rk,rko->ro", x, found["hidden.weight"][g]) + found["hidden.bias"][g], 0)
    scores = np.einsum("rk,rko->ro", hidden, found["scores.weight"][g]) + found["scores.bias"][g]
    everything = con.execute("SELECT PREDICT(m, a, b).scores FROM t ORDER BY row").fetchall()
    np.testing.assert_allclose(np.array(everything)[:, 0], scores, rtol=1e-4, atol=1e-5)
    # few groups in many rows: all of them get the parameters of group 0 or 1
    few = con.execute("SELECT PREDICT(m, a, b, g => g % 2).scores FROM t ORDER BY row").fetchall()
    hidden = np.maximum(np.einsum("rk,rko->ro", x, found["hidden.weight"][g % 2]) + found["hidden.bias"][g % 2], 0)
    scores = np.einsum("rk,rko->ro", hidden, found["scores.weight"][g % 2]) + found["scores.bias"][g % 2]
    np.testing.assert_allclose(np.array(few)[:, 0], scores, rtol=1e-4, atol=1e-5)


def test_a_model_without_inputs_predicts_the_level_of_each_group() -> None:
    rows = table(SIZES)
    con = connected(
        "CREATE MODEL m PARAMETERS (level FLOAT INIT 0) TARGET (y FLOAT) AS SELECT level AS prediction "
        "MINIMIZE AVG((prediction - y) ** 2)",
        rows,
    )
    con.execute("TRAIN m ON t PER (g) WITH GD (learning_rate = 0.5, epochs = 1)")
    expected = con.execute("SELECT avg(y) FROM t GROUP BY g ORDER BY g").fetchall()
    found = con.execute("SELECT DISTINCT PREDICT(m), g FROM t ORDER BY g").fetchall()
    np.testing.assert_allclose([p for p, _ in found], [p for (p,) in expected], rtol=1e-4, atol=1e-6)


# -- the transformation, operator by operator --------------------------------------------------------------------------

ROWS, TABLE, GROUPS, WIDTH = RowSet("input"), RowSet("table", 9), RowSet("groups", 3), 4
REAL_ROWS = ([0, 3, 4, 8], [1, 2], [5, 6, 7])
SLOTS = RowSet("batch", 12)


def column(name: str, *shape: int) -> Column:
    return Column(name, ROWS, DOUBLE, shape)


X, Y, K = column("x", 3), column("y"), Column("k", ROWS, BIGINT)
P, Q, W = Parameter("p", DOUBLE), Parameter("q", DOUBLE, (3,)), Parameter("w", DOUBLE, (3, 2))
T = Parameter("table", DOUBLE, (3, 2))
LOSSES: dict[str, Node] = {
    "map of rows and groups": Sum(Sum(Multiply(Multiply(X, Y), Multiply(Q, P)), False, (0,)), True),
    "a vector beside a number a row": Sum(Sum(Multiply(Multiply(Y, Q), X), False, (0,)), True),
    "matrix product": Sum(Sum(Multiply(contract("rk,ko->ro", X, W), Y), False, (0,)), True),
    "matrix product from the left": Sum(Sum(contract("ko,rk->ro", W, X), False, (0,)), True),
    "dot product": mean(Multiply(contract("rk,k->r", X, Q), Y)),
    "dot product from the left": mean(Multiply(contract("k,rk->r", Q, X), Y)),
    "outer product": Sum(Sum(Multiply(contract("ri,o->rio", X, Q), P), False, (0, 1)), True),
    "contraction over rows": Sum(Multiply(contract("rk,r->k", Multiply(X, Q), Multiply(Y, P)), Q), False, (0,)),
    "contraction over rows of products": Sum(
        Multiply(contract("rk,ro->ko", X, contract("rk,ko->ro", X, W)), W), False, (0, 1)
    ),
    "sum of parameters": Add(mean(Multiply(Y, P)), Multiply(P, Sum(Q, False, (0,)))),
    "largest": Max(Multiply(contract("rk,k->r", X, Q), Y), True),
    "smallest": Min(Multiply(X, Q), True, (0,)),
    "softmax": mean(Pick(Softmax(Multiply(X, Q)), K)),
    "pick from a parameter": mean(Multiply(Pick(Q, K), Y)),
    "take from a parameter": Sum(Sum(Multiply(Take(T, K), Y), False, (0,)), True),
    "place": Sum(Sum(Multiply(Place(Multiply(Y, P), K, 3), Q), False, (0,)), True),
    "place a parameter": Sum(Sum(Multiply(Place(P, K, 3), X), False, (0,)), True),
    "where": mean(Where(Greater(Multiply(Y, P), Y), Multiply(Y, P), P)),
    "broadcast": Sum(Broadcast(Multiply(P, P), Type(ROWS, DOUBLE)), True),
    "pick by a parameter": mean(Multiply(Pick(X, Argmax(Q)), P)),
    "count": Multiply(Sum(Multiply(Y, P), True), Count(ROWS)),
}  # fmt: skip


def values(rows: Sequence[int] | None = None) -> dict[str, Array]:
    """Columns by name, of all rows or some."""
    rng = np.random.default_rng(4)
    every = {"x": rng.normal(size=(9, 3)), "y": rng.normal(size=9), "k": rng.integers(0, 3, 9)}
    return every if rows is None else {n: a[rows] for n, a in every.items()}


def weights(groups: int) -> dict[str, Array]:
    rng = np.random.default_rng(7)
    shapes = {p.name: p.shape for p in (P, Q, W, T)}
    return {n: rng.normal(size=(groups, *shape)) for n, shape in shapes.items()}  # type: ignore[misc]


def scalar(node: Node) -> Node:
    """A single number, whatever axes of size 1 it has kept."""
    return Reshape(node if node.type.entry_size == 1 else Sum(node, False, tuple(range(node.type.rank))), ())


def batched(
    loss: Node, parameters: Sequence[Parameter], groups: Sequence[Sequence[int]], width: int
) -> dict[str, Array]:
    """The losses of all groups and their gradients, from the plan by groups."""
    slots = RowSet("batch", len(groups) * width)
    places = {
        "slots": [[*g, *[g[0]] * (width - len(g))] for g in groups],
        "real": [[*[1] * len(g), *[0] * (width - len(g))] for g in groups],
        "numbers": list(range(len(groups))),
    }
    real = Positions("real", slots, RowSet("padding", 2)) if np.min(places["real"]) == 0 else None
    blocks = Blocks(GROUPS, slots, width, real, Positions("numbers", GROUPS, GROUPS))
    states = {p: State(p.name, DOUBLE, p.shape, GROUPS) for p in parameters}
    leaves: dict[Node, Node] = {Count(ROWS): blocks.count, **states}
    for n in walk([loss]):
        if isinstance(n, Column):
            leaves[n] = Take(Column(n.name, TABLE, n.element, n.shape), Positions("slots", slots, TABLE))
    lifted = per_group(Plan({"loss": loss}), leaves, blocks).outputs["loss"]
    assert (lifted.type.rows, lifted.type.shape) == (GROUPS, ())
    by_group = gradients(Sum(lifted, True), states.values())
    plan = optimize(Plan({"loss": lifted, **dict(zip(map(str, parameters), by_group, strict=True))})).plan
    arrays: dict[Node, Array] = {}
    for n in walk(plan.outputs.values()):
        if isinstance(n, (Column, State)):
            arrays[n] = (values() if isinstance(n, Column) else weights(len(groups)))[n.name]
        elif isinstance(n, Positions):
            arrays[n] = np.array(places[n.name], np.int64).reshape(-1)
    return evaluate(plan, arrays, {n.type.rows: n.type.rows.rows or 0 for n in walk(plan.outputs.values())})


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("groups", "width"), [(REAL_ROWS, 4), (([0, 3], [1, 2], [6, 7]), 2)], ids=["padded", "full"])
def test_losses_and_gradients_are_those_of_the_group(name: str, groups: Sequence[list[int]], width: int) -> None:
    """Every kind of operator between rows and parameters: the plan by groups beside the plain one of each group."""
    loss = scalar(LOSSES[name])
    parameters = [p for p in (P, Q, W, T) if p in set(walk([loss]))]
    found = batched(loss, parameters, groups, width)
    for g, rows in enumerate(groups):
        for key, expected in of_one_group(loss, parameters, rows, g).items():
            # the counts of groups are arrays of FLOAT
            np.testing.assert_allclose(found[key][g], expected, rtol=1e-6, atol=1e-7, err_msg=f"{key}, group {g}")


def of_one_group(loss: Node, parameters: Sequence[Parameter], rows: list[int], g: int) -> dict[str, Array]:
    """The loss and its gradients over the rows of one group, from the plain plan."""
    mine = RowSet("rows", len(rows))
    moved: dict[Node, Node] = {Count(ROWS): Count(mine)}
    for n in walk([loss]):
        if isinstance(n, Column):
            moved[n] = Column(n.name, mine, n.element, n.shape)
        elif isinstance(n, Broadcast) and n.target.rows == ROWS:
            moved[n] = Broadcast(n.x, n.target.with_(rows=mine))
    plain = Plan({"loss": loss}).replaced(moved).outputs["loss"]
    outputs = {"loss": plain} | dict(zip(map(str, parameters), gradients(plain, parameters), strict=True))
    plan = optimize(Plan(outputs)).plan
    given_values = values(rows)
    arrays: dict[Node, Array] = {
        n: given_values[n.name] if isinstance(n, Column) else weights(3)[n.name][g]
        for n in walk(plan.outputs.values())
        if isinstance(n, (Column, Parameter))
    }
    return evaluate(plan, arrays, {mine: len(rows)})


def test_an_operator_that_cannot_be_laid_out_is_named() -> None:
    blocks = Blocks(GROUPS, SLOTS, WIDTH, None, Positions("numbers", GROUPS, GROUPS))
    loss = Sum(Segment(Multiply(Y, P), K, UNIT, 3), False, (0,))
    leaves: dict[Node, Node] = {
        P: State("p", DOUBLE, (), GROUPS),
        Y: Column("y", SLOTS, DOUBLE),
        K: Column("k", SLOTS, BIGINT),
    }
    with pytest.raises(mlsql.NotSupportedError, match="segment"):
        per_group(Plan({"loss": loss}), leaves, blocks)


def test_rows_read_the_parameters_of_their_group() -> None:
    """The forward plan for rows of any groups: tables of parameters are read by group and index at once."""
    number = Column("number", ROWS, BIGINT)
    outputs = {
        "product": contract("rk,ko->ro", X, W),
        "dot": contract("rk,k->r", X, Q),
        "sum": Add(Multiply(Y, P), Sum(Q, False, (0,))),
        "taken": Take(T, K),
        "picked": Pick(Q, K),
    }
    stacks = {p: Parameter(p.name, DOUBLE, (3, *p.shape)) for p in (P, Q, W, T)}
    plan = gathered(Plan(outputs), stacks, number)
    rows = RowSet("rows", 9)
    plan = plan.replaced({n: Column(n.name, rows, n.element, n.shape) for n in (X, Y, K, number)})
    given_values, w = values(), weights(3)
    g = np.random.default_rng(0).integers(0, 3, 9)
    arrays: dict[Node, Array] = {stacks[p]: w[p.name] for p in stacks}
    arrays |= {Column(n.name, rows, n.element, n.shape): given_values[n.name] for n in (X, Y, K)}
    arrays[Column("number", rows, BIGINT)] = g
    found = evaluate(plan, arrays, {rows: 9})
    x, y, k = (given_values[n] for n in "xyk")
    np.testing.assert_allclose(found["product"], np.einsum("rk,rko->ro", x, w["w"][g]))
    np.testing.assert_allclose(found["dot"], (x * w["q"][g]).sum(1))
    np.testing.assert_allclose(found["sum"], (y * w["p"][g])[:, None] + w["q"][g].sum(1, keepdims=True))
    np.testing.assert_allclose(found["taken"], w["table"][g, k])
    np.testing.assert_allclose(found["picked"], w["q"][g, k])
