"""What models learn from data before training: scikit-learn is the reference, DuckDB computes, SQL asks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, OneHotEncoder, RobustScaler, StandardScaler

import mlsql
from mlsql.executor.dataset import split_positions
from mlsql.executor.vocabulary import Lookup

ROWS = 500


def numbers(seed: int = 0) -> Any:
    """A column far from 0, with ties and an outlier."""
    rng = np.random.default_rng(seed)
    x = 1000 + np.round(rng.gamma(2, 3, ROWS), 1)
    x[0] = 5000
    return x


@pytest.fixture
def db() -> Any:
    connection = mlsql.connect(progress=False)
    yield connection
    connection.close()


def transformed(db: Any, expression: str, column: Any, type_text: str = "DOUBLE", extra: str = "") -> Any:
    """What an expression over a column ``x`` gives for every row, once a model with it was trained on them."""
    rows = pa.table({"id": np.arange(len(column)), "x": pa.array(column), "y": np.ones(len(column), np.float32)})
    db.register("given", rows)
    db.execute(f"CREATE OR REPLACE TABLE t AS SELECT id, CAST(x AS {type_text}) AS x, y FROM given ORDER BY id")
    db.execute(
        f"""CREATE OR REPLACE MODEL m PARAMETERS (w FLOAT INIT 0) INPUT (x {type_text}) TARGET (y FLOAT)
        AS SELECT {expression} AS z, w AS prediction MINIMIZE AVG((w - y) ** 2)"""
    )
    db.execute(f"TRAIN m ON t {extra} WITH SGD (epochs = 1)")
    return np.array([r[0] for r in db.execute("SELECT PREDICT(m).z FROM t ORDER BY id").fetchall()])


@pytest.mark.parametrize(
    ("call", "reference"),
    [
        ("STANDARD_SCALER(x)", StandardScaler()),
        ("MIN_MAX_SCALER(x)", MinMaxScaler()),
        ("ROBUST_SCALER(x)", RobustScaler()),
    ],
)
@pytest.mark.parametrize("type_text", ["DOUBLE", "FLOAT", "DECIMAL(10, 1)"])
def test_scalers_are_scikit_learns(db: Any, call: str, reference: Any, type_text: str) -> None:
    x = numbers()
    expected = reference.fit_transform(x[:, None])[:, 0]
    np.testing.assert_allclose(transformed(db, call, x, type_text), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("call", ["STANDARD_SCALER(x)", "MIN_MAX_SCALER(x)", "ROBUST_SCALER(x)"])
def test_a_column_that_never_changes_is_divided_by_one(db: Any, call: str) -> None:
    np.testing.assert_allclose(transformed(db, call, np.full(20, 0.1)), 0, atol=1e-15)


@pytest.mark.parametrize(
    ("call", "reference"),
    [
        ("STANDARD_SCALER(x)", StandardScaler()),
        ("MIN_MAX_SCALER(x)", MinMaxScaler()),
        ("ROBUST_SCALER(x)", RobustScaler()),
        ("FEATURES(x)", StandardScaler()),
    ],
)
def test_a_tensor_is_scaled_position_by_position(db: Any, call: str, reference: Any) -> None:
    x = np.stack([numbers(s) * (s + 1) for s in range(3)], axis=1)
    found = transformed(db, call, x.tolist(), "FLOAT[3]")
    np.testing.assert_allclose(found, reference.fit_transform(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent"])
def test_impute_is_scikit_learns(db: Any, strategy: str) -> None:
    x = numbers()
    x[::7] = np.nan
    expected = SimpleImputer(strategy=strategy).fit_transform(x[:, None])
    given = [None if np.isnan(v) else v for v in x]
    np.testing.assert_allclose(transformed(db, f"IMPUTE(x, '{strategy}')", given), expected[:, 0], rtol=1e-6)
    scaled = StandardScaler().fit_transform(expected)[:, 0]
    found = transformed(db, f"STANDARD_SCALER(IMPUTE(x, '{strategy}'))", given)
    np.testing.assert_allclose(found, scaled, rtol=1e-5, atol=1e-5)


def test_impute_takes_a_constant(db: Any) -> None:
    assert transformed(db, "IMPUTE(x, -1)", [1.0, None, 3.0]).tolist() == [1, -1, 3]


def test_features_fills_with_the_average_scales_and_flags(db: Any) -> None:
    x = numbers()
    x[::7] = np.nan
    filled = StandardScaler().fit_transform(SimpleImputer().fit_transform(x[:, None]))
    found = transformed(db, "FEATURES(x)", [None if np.isnan(v) else v for v in x])
    np.testing.assert_allclose(found, np.hstack([filled, np.isnan(x)[:, None]]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("call", ["ONE_HOT(x)", "FEATURES(x)"])
def test_one_hot_is_scikit_learns(db: Any, call: str) -> None:
    words = np.random.default_rng(3).choice(["red", "Grün", "it's", "[a, b]", "", "10", "9"], 60)
    expected = OneHotEncoder(sparse_output=False).fit_transform(np.array([w.encode() for w in words])[:, None])
    assert (transformed(db, call, words.tolist(), "VARCHAR") == expected).all()


def test_quantile_buckets_are_scikit_learns(db: Any) -> None:
    x = np.random.default_rng(5).normal(size=ROWS)
    reference = KBinsDiscretizer(4, encode="onehot-dense", strategy="quantile", quantile_method="linear")
    assert (transformed(db, "QUANTILE_BUCKETIZE(x, 4)", x) == reference.fit_transform(x[:, None])).all()


def test_buckets_are_numpys(db: Any) -> None:
    x = numbers()
    expected = np.eye(4)[np.digitize(x, [1002, 1005, 1010])]
    assert (transformed(db, "BUCKETIZE(x, [1002, 1005, 1010])", x) == expected).all()


@pytest.mark.parametrize("call", ["STANDARD_SCALER(x)", "ROBUST_SCALER(x)", "QUANTILE_BUCKETIZE(x, 3)", "ONE_HOT(x)"])
def test_only_rows_that_are_trained_on_are_learned_from(db: Any, call: str) -> None:
    """What VALIDATE n PERCENT holds out is not looked at: the same statistics as of the other rows alone."""
    x = numbers()
    kept, _ = split_positions(ROWS, 40, 0)
    found = transformed(db, call, x, extra="VALIDATE 40 PERCENT")
    db.execute("CREATE TABLE everything AS FROM t")
    alone = transformed(db, call, x[kept])
    np.testing.assert_allclose(found[kept], alone, rtol=1e-6, atol=1e-6)


def test_reopening_the_file_gives_the_same_bits(tmp_path: Any) -> None:
    path = str(tmp_path / "features.duckdb")
    ask = "SELECT PREDICT(m).prediction FROM t ORDER BY id"
    with mlsql.connect(path, progress=False) as connection:
        connection.execute(
            """CREATE TABLE t AS
            SELECT range AS id, 'user ' || range * 7 % 90 AS u, ['a', 'b', NULL][range % 3 + 1] AS s,
                   DATE '2020-01-01' + CAST(range * 13 % 500 AS INTEGER) AS d, range % 11 AS n, range % 5 = 0 AS y
            FROM range(400);
            CREATE MODEL m INPUT FROM (SELECT * EXCLUDE (id) FROM t) TARGET (y BOOLEAN)
            AS SELECT LINEAR(FEATURES(*), 1) AS logit, SIGMOID(logit) AS prediction
            MINIMIZE AVG(BINARY_CROSS_ENTROPY(logit, y));
            TRAIN m ON t WITH ADAM (epochs = 3)"""
        )
        before = connection.execute(ask).fetchall()
    with mlsql.connect(path, progress=False) as connection:
        assert connection.execute(ask).fetchall() == before


def test_a_warm_start_keeps_what_was_learned_from_scratch_learns_anew(db: Any) -> None:
    x = numbers()
    transformed(db, "STANDARD_SCALER(x)", x)

    def described() -> list[str]:
        return [r[3] for r in db.execute("DESCRIBE m").fetchall() if r[0] == "statistic"]

    first = described()
    assert first
    db.execute("UPDATE t SET x = 2 * x")
    db.execute("TRAIN m ON t WITH SGD (epochs = 1)")
    assert described() == first
    db.execute("TRAIN m ON t FROM SCRATCH WITH SGD (epochs = 1)")
    assert [float(v) for v in described()] == pytest.approx([2 * float(v) for v in first], rel=1e-4)


# -- laws --------------------------------------------------------------------------------------------------------------

TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=5)), min_size=1, max_size=30)


@settings(max_examples=50, deadline=None)
@given(keys=st.sets(st.text(max_size=5), min_size=1), asked=TEXTS)
def test_a_value_is_found_where_it_stands_and_nowhere_else(keys: set[str], asked: list[str | None]) -> None:
    """Both ways of looking up, for few keys and for many, agree with a plain search."""
    ordered = sorted(keys)
    expected = [ordered.index(v) if v in keys else -1 for v in asked]
    lookup = Lookup(pa.array(ordered))
    assert lookup(pa.array(asked, pa.string())).tolist() == expected
    assert lookup(pa.array([*asked, *ordered, *ordered], pa.string()))[: len(asked)].tolist() == expected


@settings(max_examples=10, deadline=None)
@given(
    words=st.lists(st.text("abc'\"[]{}\\,", max_size=4), min_size=2, max_size=8, unique=True), seed=st.integers(0, 9)
)
def test_one_hot_times_a_matrix_is_a_lookup_and_unknown_is_zero(words: list[str], seed: int) -> None:
    """LINEAR of a one-hot is a row of its weights; of a word that training has not seen, only the bias is left."""
    with mlsql.connect(progress=False) as connection:
        connection.register("given", pa.table({"s": words, "y": np.ones(len(words), np.float32)}))
        connection.execute(
            f"""CREATE TABLE t AS FROM given;
            CREATE MODEL m INPUT (s VARCHAR) TARGET (y FLOAT)
            AS SELECT LINEAR(ONE_HOT(s), 3) AS z, EMBED(s, 3) AS e, SUM_OF(z + e) AS prediction
            MINIMIZE AVG((prediction - y) ** 2);
            TRAIN m ON t WITH SGD (epochs = 2, seed = {seed})"""
        )
        tensors = connection.execute("SELECT name, data FROM mlsql.parameters").fetchall()
        arrays = {name: np.frombuffer(data, np.float32) for name, data in tensors}
        weight, table = (arrays[n].reshape(-1, 3) for n in ("z.weight", "e.embedding"))
        ask = "SELECT PREDICT(m, s).z, PREDICT(m, s).e FROM (SELECT unnest($1) AS s)"
        found = connection.execute(ask, [[*sorted(words, key=str.encode), "unknown", None]]).fetchall()
        z, e = (np.array([r[i] for r in found]) for i in (0, 1))
        np.testing.assert_array_equal(z[:-2], weight + arrays["z.bias"])
        np.testing.assert_array_equal(z[-2:], np.tile(arrays["z.bias"], (2, 1)))
        np.testing.assert_array_equal(e[:-2], table[:-1])
        assert (e[-2:] == 0).all()
        assert (table[-1] == 0).all()


def test_a_null_key_teaches_the_row_of_unknown_keys_nothing(db: Any) -> None:
    """Rows without a key are trained on, and the row that stays zero does so without help at the end."""
    db.execute(
        """CREATE TABLE t AS SELECT CASE WHEN range % 3 > 0 THEN range % 3 END AS k, 1.0 AS y FROM range(60);
        CREATE MODEL m INPUT (k INTEGER) TARGET (y FLOAT) PARAMETERS (w FLOAT[2] INIT 1)
        AS SELECT EMBED(k, 2) AS e, DOT(e + w, w) AS prediction MINIMIZE AVG((prediction - y) ** 2);
        TRAIN m ON t WITH SGD (learning_rate = 0.01, epochs = 20, batch_size = 7)"""
    )
    assert db.execute("SELECT PREDICT(m, NULL).e, PREDICT(m, 77).e").fetchone() == ((0, 0), (0, 0))
    assert db.execute("EVALUATE m ON t WITH (mae)").fetchone()[-1] < 0.2


def test_a_hundred_thousand_keys_are_kept_and_found(tmp_path: Any) -> None:
    path = str(tmp_path / "keys.duckdb")
    with mlsql.connect(path, progress=False) as connection:
        connection.execute(
            """CREATE TABLE t AS SELECT 'key ' || range AS k, range % 2 AS y FROM range(100000);
            CREATE MODEL m INPUT (k VARCHAR) TARGET (y FLOAT)
            AS SELECT EMBED(k, 1) AS e, SUM_OF(e) AS prediction MINIMIZE AVG((prediction - y) ** 2);
            TRAIN m ON t WITH SGD (steps = 1, batch_size = 100)"""
        )
        before = connection.execute("SELECT PREDICT(m) FROM t").fetchall()
        assert connection.execute("SELECT count(*) FROM mlsql.classes").fetchone() == (100_000,)
    with mlsql.connect(path, progress=False) as connection:
        assert connection.execute("SELECT PREDICT(m) FROM t").fetchall() == before
