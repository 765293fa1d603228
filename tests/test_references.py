"""Models trained and judged through SQL beside the libraries that people trust: NumPy, scikit-learn, PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sklearn.linear_model
import sklearn.metrics
import torch

import mlsql

Table = dict[str, np.ndarray]


@pytest.fixture
def db() -> Iterator[mlsql.dbapi.Connection]:  # type: ignore[name-defined]
    connection = mlsql.connect(progress=False)
    yield connection
    connection.close()


def arrow(columns: Table) -> pa.Table:
    """Columns as an Arrow table; an array of two or more axes becomes a nested list a row."""
    return pa.table({name: list_array(np.asarray(values)) for name, values in columns.items()})


def list_array(values: np.ndarray) -> pa.Array:
    out = pa.array(values.reshape(-1))
    for size in reversed(values.shape[1:]):
        out = pa.FixedSizeListArray.from_arrays(out, size)
    return out


def one(cursor: Any) -> dict[str, Any]:
    """The only row of a result by column name."""
    names = [d[0] for d in cursor.description]
    [row] = cursor.fetchall()
    return dict(zip(names, row, strict=True))


def parameters(db: Any, model: str) -> dict[str, np.ndarray]:
    """The parameters of the current version, from the catalog."""
    rows = db.execute(
        "SELECT p.name, p.element, p.shape, p.data FROM mlsql.parameters p JOIN mlsql.models m "
        "ON p.model = m.name AND p.version = m.current_version WHERE m.name = ?",
        [model],
    ).fetchall()
    dtypes = {"FLOAT": "<f4", "DOUBLE": "<f8"}
    return {name: np.frombuffer(data, dtypes[element]).reshape(shape) for name, element, shape, data in rows}


def literal(values: Any) -> str:
    """Numbers as INIT takes them."""
    return str(np.asarray(values, dtype=float).tolist())


# -- linear models -----------------------------------------------------------------------------------------------------


def test_gradient_descent_finds_the_least_squares_of_numpy_and_scikit_learn(db):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 4)).astype(np.float32)
    y = (x @ [2.0, -1.0, 0.5, 3.0] + 4 + rng.normal(scale=0.3, size=200)).astype(np.float32)
    db.register("points", arrow({"x": x, "y": y}))
    db.execute(
        """CREATE MODEL line INPUT (x FLOAT[4]) TARGET (y FLOAT)
        AS SELECT LINEAR(x, 1) AS prediction MINIMIZE AVG((prediction - y) ** 2)"""
    )
    summary = one(db.execute("TRAIN line ON points WITH GD (learning_rate = 0.2, epochs = 300)"))

    reference = sklearn.linear_model.LinearRegression().fit(x, y)
    solution, *_ = np.linalg.lstsq(np.c_[x, np.ones(200)], y, rcond=None)
    learned = parameters(db, "line")
    assert learned["prediction.weight"].ravel() == pytest.approx(reference.coef_, abs=1e-4)
    assert learned["prediction.weight"].ravel() == pytest.approx(solution[:4], abs=1e-4)
    assert learned["prediction.bias"] == pytest.approx([reference.intercept_], abs=1e-4)
    assert summary["loss"] == pytest.approx(np.mean((reference.predict(x) - y) ** 2), rel=1e-4)


def test_logistic_regression_reaches_scikit_learns_optimum(db):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(300, 3)).astype(np.float32)
    y = rng.random(300) < 1 / (1 + np.exp(-(x @ [1.5, -2.0, 0.5] + 0.7)))
    db.register("points", arrow({"x": x, "y": y}))
    db.execute(
        """CREATE MODEL yes INPUT (x FLOAT[3]) TARGET (y BOOLEAN)
        AS SELECT LINEAR(x, 1) AS score, SIGMOID(score) AS prediction
        MINIMIZE AVG(BINARY_CROSS_ENTROPY(score, y)) + 0.01 * L2(score.weight)"""
    )
    summary = one(db.execute("TRAIN yes ON points WITH GD (learning_rate = 0.5, momentum = 0.9, epochs = 600)"))

    # scikit-learn minimizes sum(loss) + |w|^2 / (2 C), which is 300 * (avg(loss) + 0.01 * |w|^2) for C = 1 / 6
    reference = sklearn.linear_model.LogisticRegression(C=1 / (2 * 0.01 * 300), tol=1e-8, max_iter=1000).fit(x, y)
    learned = parameters(db, "yes")
    assert learned["score.weight"].ravel() == pytest.approx(reference.coef_.ravel(), abs=1e-3)
    assert learned["score.bias"] == pytest.approx(reference.intercept_, abs=1e-3)
    best = sklearn.metrics.log_loss(y, reference.predict_proba(x)) + 0.01 * np.sum(reference.coef_**2)
    assert summary["loss"] == pytest.approx(best, rel=1e-4)
    predicted = np.array([p for (p,) in db.execute("SELECT PREDICT(yes, x) FROM points").fetchall()])
    assert predicted == pytest.approx(reference.predict_proba(x)[:, 1], abs=1e-3)


def test_softmax_regression_reaches_scikit_learns_optimum(db):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 4)).astype(np.float32)
    k = np.argmax(x @ rng.normal(size=(4, 3)) + rng.gumbel(size=(300, 3)), axis=1)
    labels = np.array(["blue", "green", "red"])[k]
    db.register("points", arrow({"x": x, "colour": labels}))
    db.execute(
        """CREATE MODEL colours INPUT (x FLOAT[4]) TARGET (colour VARCHAR)
        AS SELECT LINEAR(x, CLASSES(colour)) AS z, LABEL(z, colour) AS prediction, SOFTMAX(z) AS probability
        MINIMIZE AVG(CROSS_ENTROPY(z, colour)) + 0.01 * L2(z.weight)"""
    )
    summary = one(db.execute("TRAIN colours ON points WITH GD (learning_rate = 0.5, momentum = 0.9, epochs = 600)"))

    reference = sklearn.linear_model.LogisticRegression(C=1 / (2 * 0.01 * 300), tol=1e-8, max_iter=1000).fit(x, labels)
    learned = parameters(db, "colours")
    assert learned["z.weight"] == pytest.approx(reference.coef_.T, abs=1e-3)
    best = sklearn.metrics.log_loss(labels, reference.predict_proba(x)) + 0.01 * np.sum(reference.coef_**2)
    assert summary["loss"] == pytest.approx(best, rel=1e-4)
    rows = db.execute("SELECT PREDICT(colours, x), PREDICT(colours, x).probability FROM points").fetchall()
    assert [label for label, _ in rows] == list(reference.predict(x))
    assert np.array([p for _, p in rows]) == pytest.approx(reference.predict_proba(x), abs=1e-3)


# -- EVALUATE ----------------------------------------------------------------------------------------------------------


def test_metrics_of_numbers_are_scikit_learns(db):
    rng = np.random.default_rng(4)
    y = rng.normal(size=500)
    p = y + rng.normal(scale=0.5, size=500)
    db.register("rows", arrow({"p": p, "y": y}))
    db.execute("CREATE MODEL m INPUT (p DOUBLE) TARGET (y DOUBLE) AS SELECT p AS prediction")
    found = one(db.execute("EVALUATE m ON rows"))
    assert found["mae"] == pytest.approx(sklearn.metrics.mean_absolute_error(y, p), rel=1e-9)
    assert found["mse"] == pytest.approx(sklearn.metrics.mean_squared_error(y, p), rel=1e-9)
    assert found["rmse"] == pytest.approx(math.sqrt(sklearn.metrics.mean_squared_error(y, p)), rel=1e-9)
    assert found["r2"] == pytest.approx(sklearn.metrics.r2_score(y, p), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_metrics_of_yes_and_no_are_scikit_learns(db, seed):
    rng = np.random.default_rng(seed)
    y = rng.random(400) < 0.3
    score = np.round(rng.normal(size=400) + y, 1).astype(np.float32)  # rounded, so that there are ties
    db.register("rows", arrow({"score": score, "y": y}))
    db.execute(
        """CREATE MODEL m INPUT (score FLOAT) TARGET (y BOOLEAN) AS SELECT score AS s, SIGMOID(s) AS prediction
        MINIMIZE AVG(BINARY_CROSS_ENTROPY(s, y))"""
    )
    found = one(db.execute("EVALUATE m ON rows"))
    probability = 1 / (1 + np.exp(-score.astype(float)))
    compare_classification(found, y, probability >= 0.5, average="binary")
    assert found["auc"] == pytest.approx(sklearn.metrics.roc_auc_score(y, score), rel=1e-9)
    assert found["log_loss"] == pytest.approx(sklearn.metrics.log_loss(y, probability), rel=1e-5)


@pytest.mark.parametrize(
    ("seed", "present"), [(0, (0, 1, 2, 3)), (1, (0, 1, 2, 3)), (2, (1, 3))], ids=["all", "all again", "some missing"]
)
def test_metrics_of_classes_are_scikit_learns(db, seed, present):
    """``present`` are the classes that occur; others are predicted all the same."""
    rng = np.random.default_rng(seed)
    k = rng.choice(present, size=400)
    z = np.round(rng.normal(size=(400, 4)) + 1.5 * np.eye(4)[k], 1).astype(np.float32)
    db.register("rows", arrow({"z": z, "k": k.astype(np.int32)}))
    db.execute(
        """CREATE MODEL m INPUT (z FLOAT[4]) TARGET (k INTEGER) AS SELECT ARGMAX(z) AS prediction
        MINIMIZE AVG(CROSS_ENTROPY(z, k))"""
    )
    found = one(db.execute("EVALUATE m ON rows"))
    compare_classification(found, k, np.argmax(z, axis=1), average="macro")
    probability = np.exp(z.astype(float)) / np.exp(z.astype(float)).sum(axis=1, keepdims=True)
    # the area under the curve of each class that occurs against the rest
    areas = [sklearn.metrics.roc_auc_score(k == c, probability[:, c].astype(np.float32)) for c in present]
    assert found["auc"] == pytest.approx(np.mean(areas), rel=1e-3)
    assert found["log_loss"] == pytest.approx(sklearn.metrics.log_loss(k, probability, labels=range(4)), rel=1e-5)


def compare_classification(found: dict[str, Any], actual: np.ndarray, predicted: np.ndarray, average: str) -> None:
    options: dict[str, Any] = {"average": average, "zero_division": 0}
    assert found["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(actual, predicted), rel=1e-9)
    assert found["precision"] == pytest.approx(sklearn.metrics.precision_score(actual, predicted, **options), rel=1e-9)
    assert found["recall"] == pytest.approx(sklearn.metrics.recall_score(actual, predicted, **options), rel=1e-9)
    assert found["f1"] == pytest.approx(sklearn.metrics.f1_score(actual, predicted, **options), rel=1e-9)


def test_the_confusion_matrix_is_scikit_learns(db):
    rng = np.random.default_rng(6)
    names = np.array(["ant", "bee", "cat"])
    actual, predicted = rng.integers(0, 3, 100), rng.integers(0, 3, 100)
    # a model that has learned to tell the names apart, so that it can be handed any prediction
    db.register("letters", arrow({"z": np.eye(3, dtype=np.float32), "name": names}))
    db.execute(
        """CREATE MODEL m INPUT (z FLOAT[3]) TARGET (name VARCHAR)
        AS SELECT LINEAR(z, CLASSES(name)) AS s, LABEL(s, name) AS prediction MINIMIZE AVG(CROSS_ENTROPY(s, name))"""
    )
    db.execute("TRAIN m ON letters WITH GD (learning_rate = 1, epochs = 200)")
    db.register("rows", arrow({"z": np.eye(3, dtype=np.float32)[predicted], "name": names[actual]}))
    cells = one(db.execute("EVALUATE m ON rows WITH (confusion)"))["confusion"]
    found = {(c["actual"], c["predicted"]): c["rows"] for c in cells}
    matrix = sklearn.metrics.confusion_matrix(names[actual], names[predicted], labels=names)
    assert found == {(a, p): matrix[i, j] for i, a in enumerate(names) for j, p in enumerate(names) if matrix[i, j]}


# -- an LSTM cell ------------------------------------------------------------------------------------------------------

CELL = """
CREATE MODEL cell
PARAMETERS (w_x FLOAT[16][3] INIT {w_x}, w_h FLOAT[16][4] INIT {w_h}, b FLOAT[16] INIT {b})
INPUT (x FLOAT[3], h FLOAT[4], c FLOAT[4]) TARGET (y FLOAT[4])
AS SELECT MATMUL(x, w_x) + h @ w_h + b AS gates,
          SIGMOID(gates[1:4]) AS input_gate,
          SIGMOID(gates[5:8]) AS forget_gate,
          TANH(gates[9:12]) AS candidate,
          SIGMOID(gates[13:]) AS output_gate,
          forget_gate * c + input_gate * candidate AS c_next,
          output_gate * TANH(c_next) AS h_next
MINIMIZE AVG(SUM_OF((h_next - y) ** 2))
"""


def test_an_lstm_cell_is_torchs_forward_and_through_a_step_of_training(db):
    torch.manual_seed(0)
    cell = torch.nn.LSTMCell(3, 4)
    x, h, c, y = (torch.randn(50, size) for size in (3, 4, 4, 4))
    biases = (cell.bias_ih + cell.bias_hh).detach()
    db.execute(
        CELL.format(w_x=literal(cell.weight_ih.T.detach()), w_h=literal(cell.weight_hh.T.detach()), b=literal(biases))
    )
    db.register("rows", arrow({"x": x.numpy(), "h": h.numpy(), "c": c.numpy(), "y": y.numpy()}))

    h_next, c_next = cell(x, (h, c))
    got = db.execute("SELECT PREDICT(cell).h_next, PREDICT(cell).c_next FROM rows").fetchall()
    assert np.array([r[0] for r in got]) == pytest.approx(h_next.detach().numpy(), abs=1e-5)
    assert np.array([r[1] for r in got]) == pytest.approx(c_next.detach().numpy(), abs=1e-5)

    loss = ((h_next - y) ** 2).sum(axis=1).mean()
    loss.backward()
    summary = one(db.execute("TRAIN cell ON rows WITH GD (learning_rate = 0.1, steps = 1)"))
    learned = parameters(db, "cell")
    assert summary["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, weight in (("w_x", cell.weight_ih), ("w_h", cell.weight_hh)):
        stepped = (weight - 0.1 * weight.grad).detach().numpy().T
        assert learned[name] == pytest.approx(stepped, abs=1e-5)
    bias = cell.bias_ih + cell.bias_hh - 0.1 * cell.bias_ih.grad
    assert learned["b"] == pytest.approx(bias.detach().numpy(), abs=1e-5)


# -- networks ----------------------------------------------------------------------------------------------------------

NETWORK = """
CREATE MODEL net
PARAMETERS (w1 FLOAT[16][5] INIT {w1}, b1 FLOAT[16] INIT 0, w2 FLOAT[3][16] INIT {w2}, b2 FLOAT[3] INIT 0)
INPUT (x FLOAT[5]) TARGET (k INTEGER)
AS SELECT {activation}(x @ w1 + b1) AS hidden, hidden @ w2 + b2 AS z, ARGMAX(z) AS prediction
MINIMIZE AVG(CROSS_ENTROPY(z, k))
"""
SOLVERS = {
    "SGD (learning_rate = 0.1, momentum = 0.9, nesterov = true, weight_decay = 0.01": lambda p: torch.optim.SGD(
        p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01
    ),
    "ADAM (learning_rate = 0.01": lambda p: torch.optim.Adam(p, lr=0.01),
    "ADAMW (learning_rate = 0.01, weight_decay = 0.1": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "RMSPROP (learning_rate = 0.01": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "ADAGRAD (learning_rate = 0.05": lambda p: torch.optim.Adagrad(p, lr=0.05),
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("activation", ["RELU", "TANH", "GELU"])
def test_a_network_goes_the_way_that_torch_goes(db, solver, activation):
    """A hundred steps over batches in the order of the table, from the same weights."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(160, 5)).astype(np.float32)
    k = np.argmax(x[:, :3] + 0.3 * rng.normal(size=(160, 3)), axis=1)
    w1, w2 = (0.4 * rng.normal(size=shape).astype(np.float32) for shape in ((5, 16), (16, 3)))
    db.register("rows", arrow({"x": x, "k": k}))
    db.execute(NETWORK.format(w1=literal(w1), w2=literal(w2), activation=activation))
    db.execute(f"TRAIN net ON rows WITH {solver}, batch_size = 32, steps = 100, shuffle = false)")

    weights = [torch.nn.Parameter(torch.tensor(v)) for v in (w1, np.zeros(16, "f4"), w2, np.zeros(3, "f4"))]
    function = {"RELU": torch.relu, "TANH": torch.tanh, "GELU": torch.nn.functional.gelu}[activation]
    optimizer = SOLVERS[solver](weights)
    for step in range(100):
        batch = slice(step % 5 * 32, step % 5 * 32 + 32)
        scores = function(torch.tensor(x[batch]) @ weights[0] + weights[1]) @ weights[2] + weights[3]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(scores, torch.tensor(k[batch])).backward()
        optimizer.step()
    learned = parameters(db, "net")
    for name, weight in zip(("w1", "b1", "w2", "b2"), weights, strict=True):
        expected = weight.detach().numpy()
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(learned[name], expected, rtol=1e-5, atol=1e-5 * scale, err_msg=name)
