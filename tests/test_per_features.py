"""TRAIN ... PER of models that learn from data before training: all groups share what is learned so, and a group
learns from there what it would learn alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import mlsql
from mlsql.executor.dataset import split_positions

Array = Any
SIZES = (40, 2, 17, 9)
FEATURES = (
    "CREATE MODEL m INPUT (a DOUBLE, b FLOAT, k VARCHAR, day DATE) TARGET (y FLOAT) "
    "AS SELECT FEATURES(*) AS f, LINEAR(f, 1) AS prediction MINIMIZE AVG((prediction - y) ** 2)"
)
ONE_HOT = (
    "CREATE MODEL m INPUT (a FLOAT, k VARCHAR) TARGET (y FLOAT) "
    "AS SELECT LINEAR(CONCAT(STANDARD_SCALER(a), ONE_HOT(k)), 1) AS prediction MINIMIZE AVG((prediction - y) ** 2)"
)
EMBEDDED = (
    "CREATE MODEL m INPUT (a FLOAT, k VARCHAR) TARGET (y FLOAT) "
    "AS SELECT EMBED(k, 3, UNKNOWN {unknown}) AS e, LINEAR(CONCAT([a], e), 1) AS prediction "
    "MINIMIZE AVG((prediction - y) ** 2)"
)
FACTORS = (
    "CREATE MODEL m INPUT (k VARCHAR, j VARCHAR) TARGET (y FLOAT) "
    "AS SELECT EMBED(k, 3, UNKNOWN ERROR) AS u, EMBED(j, 3) AS v, DOT(u, v) AS prediction "
    "MINIMIZE AVG((prediction - y) ** 2)"
)


def connected(model: str, seed: int = 0) -> mlsql.Connection:
    """A model, and rows of groups that are mixed; a has NULLs, and no group has all values of k."""
    rng = np.random.default_rng(seed)
    g = rng.permutation(np.repeat(np.arange(len(SIZES)), SIZES))
    a, b, y = rng.normal(0.5, 1, (3, len(g)))
    k = np.array(["p", "q", "r", "s", "t", "u", "v", "w"])[(g + rng.integers(0, 4, len(g))) % 8]
    j = np.array(["x", "y", "z"])[rng.integers(0, 3, len(g))]
    null = rng.random(len(g)) < 0.2
    rows = {"row": np.arange(len(g)), "g": g, "a": a, "n": pa.array(a, mask=null), "b": b, "y": y + g, "k": k, "j": j}
    con = mlsql.connect(progress=False)
    con.register("given", pa.table(rows))
    day = "DATE '2026-01-01' + CAST(row % 50 AS INTEGER) AS day"
    con.execute(f"CREATE TABLE t AS SELECT *, {day} FROM given ORDER BY row")
    con.execute(model)
    return con


def learned(con: mlsql.Connection) -> dict[str, Array]:
    """The parameters of the newest version."""
    newest = "version = (SELECT max(version) FROM mlsql.model_versions)"
    rows = con.execute(f"SELECT name, element, shape, data FROM mlsql.parameters WHERE {newest}").fetchall()
    kinds = {"FLOAT": "<f4", "DOUBLE": "<f8"}
    return {name: np.frombuffer(data, kinds[element]).reshape(shape) for name, element, shape, data in rows}


def column(con: mlsql.Connection, expression: str) -> Array:
    return np.array([v for (v,) in con.execute(f"SELECT {expression} FROM t ORDER BY row").fetchall()])


CLAUSES = [
    "WITH GD (learning_rate = 0.05, epochs = 12, seed = 3)",
    "WITH GD (learning_rate = 0.05, epochs = 12, momentum = 0.9, weight_decay = 0.1, clip_norm = 0.5)",
    "WITH SGD (learning_rate = 0.02, batch_size = 4, epochs = 4, momentum = 0.8, nesterov = true)",
    "WITH ADAM (learning_rate = 0.05, batch_size = 4, epochs = 4, weight_decay = 0.1)",
    "WITH ADAMW (learning_rate = 0.05, batch_size = ALL, epochs = 9)",
    "WITH RMSPROP (learning_rate = 0.05, batch_size = 8, epochs = 4)",
]


@pytest.mark.parametrize("clauses", CLAUSES)
@pytest.mark.parametrize(
    "model",
    [
        FEATURES.replace("a DOUBLE", "n DOUBLE"),
        ONE_HOT,
        *(EMBEDDED.format(unknown=u) for u in ("ZEROS", "MEAN", "ERROR")),
        FACTORS,
    ],
    ids=["features", "one-hot", "zeros", "mean", "error", "factors"],
)
def test_a_group_goes_from_what_all_share_where_it_would_go_alone(model: str, clauses: str) -> None:
    """Alone it starts from a version of all rows that did not move: it knows their statistics and their keys."""
    con = connected(model)
    con.execute(f"TRAIN m ON t PER (g) {clauses}")
    together = learned(con)
    start = (
        clauses.split("(")[0] + "(learning_rate = 0, epochs = 1, " + ("seed = 3)" if "seed" in clauses else "seed = 0)")
    )
    for g in range(len(SIZES)):
        con.execute(f"TRAIN m ON t FROM SCRATCH {start}")
        shared = {n for n in learned(con) if learned(con)[n].shape == together[n].shape}
        con.execute(f"TRAIN m ON (SELECT * FROM t WHERE g = {g}) {clauses}")
        for name, alone in learned(con).items():
            mine = together[name] if name in shared else together[name][g]
            np.testing.assert_allclose(mine, alone, rtol=2e-4, atol=2e-5, err_msg=f"{name}, {g}")


def test_groups_find_the_least_squares_of_the_shared_features() -> None:
    model = FEATURES.replace("a DOUBLE", "n DOUBLE").replace(", day DATE", "")
    con = connected(model)
    con.execute("TRAIN m ON t PER (g) WITH GD (learning_rate = 0.2, epochs = 20000)")
    features, y, g = column(con, "PREDICT(m).f"), column(con, "y"), column(con, "g")
    n = column(con, "n").astype(float)
    known = ~np.isnan(n)
    center, width = np.nanmean(n), np.nanstd(n) * np.sqrt(known.mean())  # a NULL counts as the average
    np.testing.assert_allclose(features[:, 0], np.where(known, (n - center) / width, 0), rtol=1e-5, atol=1e-6)
    x = np.column_stack([features, np.ones(len(g))])
    predicted = column(con, "PREDICT(m)")
    for k in range(len(SIZES)):
        mine = g == k
        solution = np.linalg.lstsq(x[mine], y[mine], rcond=None)[0]
        np.testing.assert_allclose(predicted[mine], x[mine] @ solution, atol=5e-3, err_msg=f"group {k}")


def test_what_is_held_out_of_each_group_is_not_learned_from() -> None:
    """The average is that of the rows that are trained on, which are those that each group alone would keep."""
    con = connected(ONE_HOT)
    [row] = con.execute("TRAIN m ON t PER (g) VALIDATE 25 PERCENT WITH GD (epochs = 1, seed = 5)").fetchall()
    a, g = column(con, "a"), column(con, "g")
    kept = [np.flatnonzero(g == k)[split_positions(n, 25, 5)[0]] for k, n in enumerate(SIZES)]
    assert learned(con)["avg(a)"] == pytest.approx(a[np.concatenate(kept)].astype(np.float32).mean(), rel=1e-5)
    assert row[5] == sum(map(len, kept)) < len(g)


def test_a_column_can_be_a_feature_and_make_the_groups() -> None:
    """The keys of the groups are those of the rows, whatever type the model declares for the column."""
    con = connected(
        "CREATE MODEL m INPUT (g FLOAT, k VARCHAR) TARGET (y FLOAT) AS SELECT LINEAR(FEATURES(g, k), 1) AS prediction "
        "MINIMIZE AVG((prediction - y) ** 2)"
    )
    con.execute("UPDATE t SET g = g + 16777216")  # FLOAT does not tell these numbers apart
    con.execute("TRAIN m ON t PER (g) WITH GD (learning_rate = 0.1, epochs = 5)")
    assert learned(con)["prediction.weight"].shape[0] == len(SIZES)
    in_rows = column(con, "PREDICT(m)")
    np.testing.assert_array_equal(in_rows, column(con, "PREDICT(m, g => g, k => k)"))
    table = con.execute("SELECT prediction FROM PREDICT(m, t) ORDER BY row").fetchall()
    np.testing.assert_array_equal(in_rows, [p for (p,) in table])
    mse = con.execute("SELECT avg((PREDICT(m) - y) ** 2) FROM t").fetchone()[0]
    [row] = con.execute("EVALUATE m ON t WITH (mse)").fetchall()
    assert row[-1] == pytest.approx(mse, rel=1e-5)


def test_null_and_what_training_has_not_seen_are_features_like_any_other() -> None:
    con = connected(FEATURES.replace("a DOUBLE", "n DOUBLE"))
    con.execute("TRAIN m ON t PER (g) WITH GD (epochs = 3)")
    con.execute("SET mlsql_null_prediction = true")
    call = "PREDICT(m, n => NULL, b => 1, k => 'new', day => DATE '2026-02-02', g => v)"
    found = con.execute(f"SELECT {call} FROM (VALUES (0), (3), (77)) w(v) ORDER BY v").fetchall()
    assert [p is None for (p,) in found] == [False, False, True]
    assert found[0] != found[1]


def test_the_plan_and_the_model_are_shown() -> None:
    con = connected(ONE_HOT)
    lines = [line for (line,) in con.execute("EXPLAIN TRAIN m ON t PER (g) WITH SGD (batch_size = 8)").fetchall()]
    assert "5 steps an epoch, 8 rows of each of 4 groups a step" in lines[0]
    con.execute("TRAIN m ON t PER (g) WITH GD (epochs = 1)")
    described = con.execute("DESCRIBE MODEL m").fetchall()
    assert ("per", "g", "BIGINT", "4 groups") in described
    assert [row[0] for row in described if row[1] in ("KEYS(k)", "avg(a)")] == ["keys", "statistic"]


def test_other_rows_that_validate_bring_the_columns_of_the_groups() -> None:
    con = connected(ONE_HOT)
    with pytest.raises(mlsql.ProgrammingError, match='no column "g"') as problem:
        con.execute("TRAIN m ON t PER (g) VALIDATE ON (SELECT a, k, y FROM t)")
    assert problem.value.place is not None
    [row] = con.execute("TRAIN m ON t PER (g) VALIDATE ON t WITH GD (epochs = 3)").fetchall()
    squared = con.execute("SELECT avg((PREDICT(m) - y) ** 2) FROM t").fetchone()
    assert row[7] == pytest.approx(squared[0], rel=1e-5)


@pytest.mark.parametrize("statement", ["TRAIN", "EXPLAIN TRAIN"])
def test_a_model_over_several_relations_is_trained_as_a_whole(statement: str) -> None:
    con = connected(
        "CREATE MODEL m INPUT t (k VARCHAR, a FLOAT), u (k VARCHAR, b FLOAT) TARGET t (y FLOAT) "
        "AS SELECT LINEAR([t.a, u.b], 1) AS prediction FROM t JOIN u USING (k) MINIMIZE AVG((prediction - y) ** 2)"
    )
    with pytest.raises(mlsql.NotSupportedError, match="PER is for models over one relation") as problem:
        con.execute(f"{statement} m ON t AS t, t AS u PER (g)")
    assert problem.value.place is not None and "join the relations" in (problem.value.hint or "")
