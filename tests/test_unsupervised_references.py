"""Clusters, components and interactions learned by gradient descent in SQL beside scikit-learn, NumPy and PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import sklearn.cluster
import sklearn.datasets
import sklearn.decomposition
import torch
from test_references import arrow, literal, parameters

import mlsql


@pytest.fixture
def db() -> Iterator[Any]:
    with mlsql.connect(progress=False) as connection:
        yield connection


def losses(db: Any) -> list[float]:
    """The losses of the last run, an epoch each."""
    return [loss for (loss,) in db.execute(LOG).fetchall()]


LOG = "SELECT loss FROM mlsql.training_log WHERE run_id = (SELECT max(run_id) FROM mlsql.training_log) ORDER BY epoch"


# -- k-means -----------------------------------------------------------------------------------------------------------

KMEANS = """
CREATE MODEL clusters PARAMETERS (centre FLOAT[{columns}][{clusters}] INIT {first}) INPUT (x FLOAT[{columns}])
AS SELECT SUM_OF((x - centre) ** 2, 2) AS distance, ARGMAX(-distance) AS prediction,
          ONE_HOT(prediction, {clusters}) AS near
MINIMIZE SUM_OF(SUM(near * distance) / GREATEST(SUM(near), 1))
"""


def test_a_step_of_gradient_descent_on_the_k_means_loss_is_a_step_of_lloyd(db):
    """Bottou and Bengio 1995; every iteration from the same centres as scikit-learn's, until nothing moves."""
    x, _ = sklearn.datasets.make_blobs(600, n_features=3, centers=6, cluster_std=1.5, random_state=4)
    x = x.astype(np.float32)
    first = x[:6]
    db.register("points", arrow({"x": x}))
    db.execute(KMEANS.format(columns=3, clusters=6, first=literal(first)))
    moved = np.inf
    for iteration in range(1, 100):
        before = parameters(db, "clusters")["centre"] if iteration > 1 else first
        db.execute("TRAIN clusters ON points WITH GD (learning_rate = 0.5, steps = 1)")
        centre = parameters(db, "clusters")["centre"]
        lloyd = fit_k_means(x, first, iteration)
        np.testing.assert_allclose(centre, lloyd.cluster_centers_, rtol=1e-4, atol=1e-5)
        moved = np.abs(centre - before).max()
        if moved < 1e-5:
            break
    assert 5 < iteration < 50, "a start from which Lloyd has something to do"

    rows = db.execute("SELECT PREDICT(clusters), PREDICT(clusters).distance FROM points").fetchall()
    assert [cluster for cluster, _ in rows] == list(lloyd.predict(x))
    assert sum(min(distance) for _, distance in rows) == pytest.approx(lloyd.inertia_, rel=1e-4)


def test_a_cluster_that_loses_all_its_rows_keeps_its_centre(db):
    x = np.array([[0], [1], [10], [11]], np.float32)
    db.register("points", arrow({"x": x}))
    db.execute(KMEANS.format(columns=1, clusters=3, first=[[0], [10], [99]]))
    db.execute("TRAIN clusters ON points WITH GD (learning_rate = 0.5, steps = 5)")
    assert parameters(db, "clusters")["centre"].ravel() == pytest.approx([0.5, 10.5, 99])


def fit_k_means(x: np.ndarray, first: np.ndarray, iterations: int) -> sklearn.cluster.KMeans:
    """Lloyd's algorithm from given centres, stopped after so many iterations."""
    with warnings.catch_warnings():  # it warns that it was stopped
        warnings.simplefilter("ignore")
        made = sklearn.cluster.KMeans(len(first), init=first, n_init=1, max_iter=iterations, tol=0, algorithm="lloyd")
        return made.fit(x)


# -- principal components ----------------------------------------------------------------------------------------------


def correlated() -> np.ndarray:
    """Centred rows whose covariance has eigenvalues well apart."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(400, 5)) @ np.diag([1.5, 1, 0.7, 0.4, 0.2]) @ rng.normal(size=(5, 5)) / np.sqrt(5)
    return (x - x.mean(axis=0)).astype(np.float32)


def test_what_loses_least_of_the_rows_is_scikit_learns_principal_components(db):
    """A linear autoencoder: its loss adds what one axis loses and what two lose, so its optimum is the ordered axes."""
    x = correlated()
    db.register("points", arrow({"x": x}))
    db.execute(
        """CREATE MODEL axes PARAMETERS (axis_1 FLOAT[5] INIT [1, 0, 0, 0, 0], axis_2 FLOAT[5] INIT [0, 1, 0, 0, 0])
        INPUT (x FLOAT[5])
        AS SELECT DOT(x, axis_1) AS along_1, DOT(x, axis_2) AS along_2,
                  x - along_1 * axis_1 AS rest_1, rest_1 - along_2 * axis_2 AS rest_2
        MINIMIZE AVG(SUM_OF(rest_1 ** 2)) + AVG(SUM_OF(rest_2 ** 2))"""
    )
    db.execute("TRAIN axes ON points WITH GD (learning_rate = 0.02, epochs = 3000)")

    reference = sklearn.decomposition.PCA(2).fit(x)
    learned = parameters(db, "axes")
    along = np.array(db.execute("SELECT PREDICT(axes).along_1, PREDICT(axes).along_2 FROM points").fetchall())
    for number, component in enumerate(reference.components_):
        axis = learned[f"axis_{number + 1}"]
        sign = np.sign(axis @ component)  # an axis has two directions
        np.testing.assert_allclose(sign * axis, component, atol=2e-3)
        np.testing.assert_allclose(sign * along[:, number], reference.transform(x)[:, number], atol=1e-2)
    assert along.var(axis=0, ddof=1) == pytest.approx(reference.explained_variance_, rel=1e-3)
    lost = x.var(axis=0).sum() - np.cumsum(along.var(axis=0))
    assert losses(db)[-1] == pytest.approx(lost.sum(), rel=1e-3)


def test_gradient_descent_with_rate_1_is_the_power_iteration(db):
    """The gradient of |w|^2 / 2 - avg(dot(x, w)^2) / 2 is w - C w, so a step leaves C w."""
    x = correlated()
    covariance = x.T.astype(float) @ x / len(x)
    db.register("points", arrow({"x": x}))
    db.execute(
        """CREATE MODEL power PARAMETERS (w FLOAT[5] INIT [1, 1, 1, 1, 1]) INPUT (x FLOAT[5])
        AS SELECT DOT(x, w) AS along MINIMIZE L2(w) / 2 - AVG(along ** 2) / 2"""
    )
    w = np.ones(5)
    for _ in range(20):
        db.execute("TRAIN power ON points WITH GD (learning_rate = 1, steps = 1)")
        w = covariance @ w
        np.testing.assert_allclose(parameters(db, "power")["w"], w, rtol=1e-4, atol=1e-5 * np.abs(w).max())
    [component] = sklearn.decomposition.PCA(1).fit(x).components_
    assert abs(w @ component) / np.linalg.norm(w) == pytest.approx(1, abs=1e-3)


# -- interactions ------------------------------------------------------------------------------------------------------


def test_a_factorization_machine_of_numbers_goes_the_way_that_torch_goes(db):
    """Rendle 2010: all pairs of columns interact, each pair with the dot product of two learned rows."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(200, 6)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] - 0.5 * x[:, 2] * x[:, 5] + x[:, 3] + 0.1 * rng.normal(size=200)).astype(np.float32)
    w, v = (0.3 * rng.normal(size=shape).astype(np.float32) for shape in ((6,), (6, 3)))
    db.register("rows", arrow({"x": x, "y": y}))
    db.execute(
        f"""CREATE MODEL pairs
        PARAMETERS (height FLOAT, w FLOAT[6] INIT {literal(w)}, v FLOAT[3][6] INIT {literal(v)})
        INPUT (x FLOAT[6]) TARGET (y FLOAT)
        AS SELECT 0.5 * SUM_OF((x @ v) ** 2 - x ** 2 @ v ** 2) AS interactions,
                  height + DOT(w, x) + interactions AS prediction
        MINIMIZE AVG((prediction - y) ** 2)"""
    )
    db.execute("TRAIN pairs ON rows WITH ADAM (learning_rate = 0.02, batch_size = ALL, epochs = 150)")

    w0, w1, v1 = (torch.nn.Parameter(torch.tensor(p)) for p in (np.float32(0), w, v))
    inputs, target, optimizer = torch.tensor(x), torch.tensor(y), torch.optim.Adam([w0, w1, v1], lr=0.02)
    upper = torch.triu(torch.ones(6, 6), diagonal=1)
    curve = []
    for _ in range(150):
        pairs = torch.einsum("ri,rj,ij->r", inputs, inputs, upper * (v1 @ v1.T))  # as the paper defines it
        loss = ((w0 + inputs @ w1 + pairs - target) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    np.testing.assert_allclose(losses(db), curve, rtol=1e-4)
    assert curve[-1] < 0.1 * curve[0]
