"""NORMAL_EQUATIONS, NEWTON and LBFGS beside scikit-learn, NumPy, SciPy and certified values; degrees and Hessians."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import sklearn.linear_model
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Array, bind, expanded, loss_of, random_array, run
from test_references import arrow, one, parameters

import mlsql
from mlsql.autodiff.curvature import direction_of, hessian_product, linear_part, sum_of_squares
from mlsql.autodiff.degree import bent, degrees, kinks
from mlsql.autodiff.exact import InDouble
from mlsql.autodiff.features import gram
from mlsql.autodiff.training import Training, training_plan
from mlsql.autodiff.updates import GRADIENT
from mlsql.optimizer.solver import Candidate, rank
from mlsql.optimizer.stages import simplify
from mlsql.planner.node import Node, walk
from mlsql.planner.ops import Add, Column, Divide, Multiply, Parameter, Power, State, constant
from mlsql.planner.plan import Plan
from mlsql.types import DOUBLE

RNG = np.random.default_rng(11)


@pytest.fixture
def db() -> Iterator[Any]:
    connection = mlsql.connect(progress=False)
    yield connection
    connection.close()


def line(db: Any, width: int, loss: str = "AVG((prediction - y) ** 2)", name: str = "line") -> None:
    """A linear model of DOUBLE numbers."""
    db.execute(
        f"CREATE OR REPLACE MODEL {name} PARAMETERS (w DOUBLE[{width}], b DOUBLE) INPUT (x DOUBLE[{width}]) "
        f"TARGET (y DOUBLE) AS SELECT DOT(x, w) + b AS prediction MINIMIZE {loss}"
    )


def learned(db: Any, name: str = "line") -> Array:
    """The weights and, last, the intercept."""
    found = parameters(db, name)
    return np.concatenate([found["w"].ravel(), found["b"].ravel()])


def notices(cursor: Any) -> str:
    return "\n".join(text for _, text in cursor.messages)


# -- NORMAL_EQUATIONS --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [50, 20_000], ids=["one chunk", "three chunks"])
def test_least_squares_are_those_of_scikit_learn(db, rows):
    x, noise = RNG.normal(size=(rows, 5)), RNG.normal(size=rows)
    y = x @ [1.0, -2.0, 0.5, 0.0, 3.0] + 4 + noise
    db.register("rows", arrow({"x": x, "y": y}))
    line(db, 5)
    summary = one(db.execute("TRAIN line ON rows WITH NORMAL_EQUATIONS"))
    reference = sklearn.linear_model.LinearRegression().fit(x, y)
    np.testing.assert_allclose(learned(db), [*reference.coef_, reference.intercept_], rtol=1e-9)
    assert summary["loss"] == pytest.approx(np.mean((reference.predict(x) - y) ** 2), rel=1e-9)
    assert (summary["epochs"], summary["stopped_because"]) == (1, "converged")


def test_ridge_and_weights_are_those_of_scikit_learn(db):
    x = RNG.normal(size=(300, 4))
    y, n = x @ [1.0, 2.0, 3.0, 4.0] + RNG.normal(size=300), RNG.integers(1, 5, 300)
    db.register("rows", arrow({"x": x, "y": y, "n": n}))
    line(db, 4, "SUM((prediction - y) ** 2) + 7 * L2(w)")
    db.execute("TRAIN line ON rows WEIGHT BY n WITH NORMAL_EQUATIONS")
    reference = sklearn.linear_model.Ridge(alpha=7).fit(x, y, sample_weight=n)
    np.testing.assert_allclose(learned(db), [*reference.coef_, reference.intercept_], rtol=1e-9)


LONGLEY = """
60323 83 234289 2356 1590 107608 1947   61122 88.5 259426 2325 1456 108632 1948
60171 88.2 258054 3682 1616 109773 1949   61187 89.5 284599 3351 1650 110929 1950
63221 96.2 328975 2099 3099 112075 1951   63639 98.1 346999 1932 3594 113270 1952
64989 99 365385 1870 3547 115094 1953   63761 100 363112 3578 3350 116219 1954
66019 101.2 397469 2904 3048 117388 1955   67857 104.6 419180 2822 2857 118734 1956
68169 108.4 442769 2936 2798 120445 1957   66513 110.8 444546 4681 2637 121950 1958
68655 112.6 482704 3813 2552 123366 1959   69564 114.2 502601 3931 2514 125368 1960
69331 115.7 518173 4806 2572 127852 1961   70551 116.9 554894 4007 2827 130081 1962
"""
CERTIFIED = [
    *(15.0618722713733, -0.0358191792925910, -2.02022980381683, -1.03322686717359, -0.0511041056535807),
    *(1829.15146461355, -3482258.63459582),
]


def test_longleys_data_give_the_values_that_nist_certifies(db):
    """Statistical Reference Datasets, Longley: the columns nearly depend on each other and differ in scale."""
    table = np.array(LONGLEY.split(), float).reshape(-1, 7)
    db.register("rows", arrow({"x": table[:, 1:], "y": table[:, 0]}))
    line(db, 6)
    db.execute("TRAIN line ON rows WITH NORMAL_EQUATIONS")
    np.testing.assert_allclose(learned(db), CERTIFIED, rtol=1e-9)


def test_ill_conditioned_equations_are_solved_by_qr(db):
    powers = np.vander(np.linspace(0, 1, 60), 13)[:, :-1]
    y = np.sin(5 * powers[:, -1])
    db.register("rows", arrow({"x": powers, "y": y}))
    line(db, 12)
    told = notices(db.execute("TRAIN line ON rows WITH NORMAL_EQUATIONS"))
    assert "QR (the equations are ill-conditioned" in told
    matrix = np.c_[powers, np.ones(60)]
    reference, *_ = np.linalg.lstsq(matrix, y, rcond=None)
    np.testing.assert_allclose(learned(db), reference, rtol=1e-6, atol=1e-12)
    assert np.linalg.cond(matrix) > 1e8


@pytest.mark.parametrize("rows", [40, 18_000], ids=["one chunk", "three chunks"])
def test_of_many_solutions_the_shortest_is_taken(db, rows):
    x = RNG.normal(size=(rows, 4))
    x = np.c_[x, x[:, 0] + x[:, 1]]
    y = x @ np.arange(5.0) + 1 + RNG.normal(size=rows)
    db.register("rows", arrow({"x": x, "y": y}))
    reference, *_ = np.linalg.lstsq(np.c_[x, np.ones(rows)], y, rcond=None)
    line(db, 5)
    told = notices(db.execute("TRAIN line ON rows WITH NORMAL_EQUATIONS"))
    assert "QR and SVD (rank 5 of 6: the shortest of many solutions)" in told
    np.testing.assert_allclose(learned(db), reference, rtol=1e-8)
    # the same loss, but written so that it is no sum of squares
    line(db, 5, "AVG(prediction * prediction - 2 * prediction * y)")
    told = notices(db.execute("TRAIN line ON rows WITH NORMAL_EQUATIONS"))
    assert "eigenvalues (rank 5 of 6: the shortest of many solutions)" in told
    np.testing.assert_allclose(learned(db), reference, rtol=1e-6)


def test_a_model_over_a_join_is_solved(db):
    shop, price = RNG.integers(0, 6, 500), RNG.normal(size=500)
    size = np.arange(6.0) ** 2
    y = 2 * price + 0.3 * size[shop] + 1 + RNG.normal(size=500)
    db.register("sales", arrow({"id": np.arange(500), "shop": shop, "price": price, "y": y}))
    db.register("shops", arrow({"id": np.arange(6), "size": size}))
    db.execute(
        """CREATE MODEL m PARAMETERS (w DOUBLE[2], b DOUBLE)
        INPUT sales (id BIGINT, shop BIGINT, price DOUBLE), shops (id BIGINT, size DOUBLE) TARGET sales (y DOUBLE)
        AS SELECT sales.id, w[1] * price + w[2] * size + b AS prediction FROM sales JOIN shops ON shops.id = sales.shop
        MINIMIZE AVG((prediction - y) ** 2)"""
    )
    reference = sklearn.linear_model.LinearRegression().fit(np.c_[price, size[shop]], y)
    for solver in ("NORMAL_EQUATIONS", "NEWTON"):
        db.execute(f"TRAIN m ON sales AS sales, shops AS shops FROM SCRATCH WITH {solver}")
        np.testing.assert_allclose(learned(db, "m"), [*reference.coef_, reference.intercept_], rtol=1e-7)


# -- NEWTON ------------------------------------------------------------------------------------------------------------


def logistic(db: Any, width: int, penalty: float) -> None:
    db.execute(
        f"CREATE OR REPLACE MODEL line PARAMETERS (w DOUBLE[{width}], b DOUBLE) INPUT (x DOUBLE[{width}]) "
        "TARGET (y BOOLEAN) AS SELECT DOT(x, w) + b AS z, SIGMOID(z) AS prediction "
        f"MINIMIZE SUM(BINARY_CROSS_ENTROPY(z, y)) + {penalty} * L2(w)"
    )


@pytest.mark.parametrize("solver", ["NEWTON", "LBFGS (tolerance = 1e-10)"])
@pytest.mark.parametrize("balanced", [False, True], ids=["", "balanced"])
def test_logistic_regression_is_that_of_scikit_learn(db, solver, balanced):
    x = RNG.normal(size=(9000, 4)) * [1, 10, 0.1, 1]
    y = RNG.random(9000) < 1 / (1 + np.exp(-(x @ [1.0, -0.2, 5.0, 0.0] + 1)))
    db.register("rows", arrow({"x": x, "y": y}))
    logistic(db, 4, 0.5)
    if balanced:
        options = "class_weight = 'balanced'"
        solver = f"{solver[:-1]}, {options})" if "(" in solver else f"{solver} ({options})"
    summary = one(db.execute(f"TRAIN line ON rows WITH {solver}"))
    weight = "balanced" if balanced else None
    reference = sklearn.linear_model.LogisticRegression(C=1, class_weight=weight, solver="newton-cholesky", tol=1e-12)
    reference.fit(x, y)
    expected = [*reference.coef_.ravel(), reference.intercept_[0]]
    np.testing.assert_allclose(learned(db), expected, rtol=1e-6 if solver.startswith("NEWTON") else 1e-4, atol=1e-6)
    assert summary["stopped_because"] == "converged"


def test_poisson_regression_is_that_of_scikit_learn(db):
    x = RNG.normal(size=(2000, 3))
    y = RNG.poisson(np.exp(x @ [0.5, -0.3, 0.2] + 1)).astype(float)
    db.register("rows", arrow({"x": x, "y": y}))
    line(db, 3, "AVG(EXP(prediction) - y * prediction)")
    summary = one(db.execute("TRAIN line ON rows WITH NEWTON"))
    reference = sklearn.linear_model.PoissonRegressor(alpha=0, tol=1e-12, solver="newton-cholesky").fit(x, y)
    np.testing.assert_allclose(learned(db), [*reference.coef_, reference.intercept_], rtol=1e-7)
    assert summary["epochs"] < 15


def test_softmax_regression_is_that_of_scikit_learn(db):
    x = RNG.normal(size=(400, 3))
    k = np.argmax(x @ RNG.normal(size=(3, 4)) + RNG.gumbel(size=(400, 4)), axis=1)
    db.register("rows", arrow({"x": x, "k": k}))
    db.execute(
        """CREATE MODEL m PARAMETERS (w DOUBLE[4][3], b DOUBLE[4]) INPUT (x DOUBLE[3]) TARGET (k INTEGER)
        AS SELECT x @ w + b AS z, ARGMAX(z) AS prediction MINIMIZE SUM(CROSS_ENTROPY(z, k)) + 0.5 * L2(w)"""
    )
    db.execute("TRAIN m ON rows WITH NEWTON")
    reference = sklearn.linear_model.LogisticRegression(C=1, tol=1e-12, solver="newton-cholesky").fit(x, k)
    found = parameters(db, "m")
    np.testing.assert_allclose(found["w"], reference.coef_.T, rtol=1e-6, atol=1e-8)
    shift = reference.intercept_ - reference.intercept_.mean()
    np.testing.assert_allclose(found["b"] - found["b"].mean(), shift, atol=1e-6)


def test_the_loss_never_rises(db):
    """From far away the whole step is too long for this loss."""
    x = RNG.normal(size=(200, 2)) * 3
    db.register("rows", arrow({"x": x, "y": RNG.random(200) < 0.5 + 0.4 * np.sign(x[:, 0])}))
    db.execute(
        """CREATE MODEL far PARAMETERS (w DOUBLE[2] INIT 10, b DOUBLE INIT -20) INPUT (x DOUBLE[2]) TARGET (y BOOLEAN)
        AS SELECT DOT(x, w) + b AS z, SIGMOID(z) AS prediction MINIMIZE AVG(BINARY_CROSS_ENTROPY(z, y))"""
    )
    db.execute("TRAIN far ON rows WITH NEWTON")
    log = [loss for (loss,) in db.execute("SELECT loss FROM mlsql.training_log ORDER BY epoch").fetchall()]
    assert len(log) > 3 and all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(log))


# -- LBFGS -------------------------------------------------------------------------------------------------------------


def test_lbfgs_lowers_the_loss_of_a_network_as_far_as_scipy(db):
    x = RNG.normal(size=(200, 3))
    y = np.sin(x[:, 0]) + x[:, 1] * x[:, 2]
    w1, w2 = RNG.normal(size=(3, 6)), RNG.normal(size=6)
    db.register("rows", arrow({"x": x, "y": y}))
    db.execute(
        f"CREATE MODEL net PARAMETERS (w1 DOUBLE[6][3] INIT {w1.tolist()}, b1 DOUBLE[6] INIT 0, "
        f"w2 DOUBLE[6] INIT {w2.tolist()}) INPUT (x DOUBLE[3]) TARGET (y DOUBLE) "
        "AS SELECT DOT(TANH(x @ w1 + b1), w2) AS prediction MINIMIZE AVG((prediction - y) ** 2)"
    )

    def loss(flat: Array) -> float:
        hidden = np.tanh(x @ flat[:18].reshape(3, 6) + flat[18:24])
        return float(np.mean((hidden @ flat[24:] - y) ** 2))

    start = np.r_[w1.ravel(), np.zeros(6), w2]
    reference = scipy.optimize.minimize(loss, start, method="L-BFGS-B", options={"maxiter": 60, "maxcor": 10})
    summary = one(db.execute("TRAIN net ON rows WITH LBFGS (epochs = 60)"))
    assert summary["epochs"] == 60 and summary["stopped_because"] == "epochs"
    assert summary["loss"] < 0.2 * loss(start)
    assert summary["loss"] == pytest.approx(reference.fun, rel=0.2)  # their slopes are differences
    found = parameters(db, "net")
    assert summary["loss"] == pytest.approx(loss(np.r_[found["w1"].ravel(), found["b1"], found["w2"]]), rel=1e-9)


def test_a_second_run_goes_on_from_the_first_and_seeds_draw_the_same(db):
    x = RNG.normal(size=(100, 2))
    db.register("rows", arrow({"x": x, "y": np.tanh(x[:, 0])}))
    db.execute(
        "CREATE MODEL net INPUT (x FLOAT[2]) TARGET (y FLOAT) "
        "AS SELECT LINEAR(TANH(LINEAR(x, 4)), 1) AS prediction MINIMIZE AVG((prediction - y) ** 2)"
    )
    whole = one(db.execute("TRAIN net ON rows WITH LBFGS (epochs = 5, seed = 3)"))
    again = one(db.execute("TRAIN net ON rows FROM SCRATCH WITH LBFGS (epochs = 5, seed = 3)"))
    further = one(db.execute("TRAIN net ON rows WITH LBFGS (epochs = 5, seed = 3)"))
    other = one(db.execute("TRAIN net ON rows FROM SCRATCH WITH LBFGS (epochs = 5, seed = 4)"))
    assert whole["loss"] == again["loss"] != other["loss"]
    assert further["loss"] < whole["loss"]


class Impatient:
    """A user who presses Ctrl-C at the third step."""

    steps = 0

    def start(self, **_: Any) -> None: ...
    def stop(self) -> None: ...
    def update(self, _: Any) -> None:
        self.steps += 1
        if self.steps == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("solver", ["NEWTON", "LBFGS"])
def test_a_run_that_is_interrupted_is_on_record_and_makes_no_version(solver):
    db = mlsql.connect(progress=Impatient())
    x = RNG.normal(size=(100, 2))
    db.register("rows", arrow({"x": x, "y": RNG.random(100) < 0.5}))
    logistic(db, 2, 0.1)
    with pytest.raises(KeyboardInterrupt):
        db.execute(f"TRAIN line ON rows WITH {solver}")
    runs = db.execute("SELECT version, stopped_because FROM mlsql.training_runs").fetchall()
    assert runs == [(None, "interrupted")]
    db.close()


@pytest.mark.parametrize("solver", ["NORMAL_EQUATIONS", "NEWTON", "LBFGS"])
def test_a_loss_that_is_not_finite_is_an_error_of_ours(db, solver):
    db.register("rows", arrow({"x": np.array([[1e200], [1.0]]), "y": np.array([1.0, 2.0])}))
    line(db, 1)
    with pytest.raises(mlsql.OperationalError, match="not finite"):
        db.execute(f"TRAIN line ON rows WITH {solver}")


# -- degrees, squares, Hessians ----------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["add", "mul", "square", "const", "divide"]), min_size=1, max_size=5), st.data())
@settings(max_examples=60, deadline=None)
def test_a_loss_of_degree_n_is_a_polynomial_of_degree_n_along_a_line(steps, data):
    """The n-th differences of a polynomial of degree n are constant, and those after it are 0."""
    a, b = (Parameter(n, DOUBLE) for n in "ab")
    node: Node = data.draw(st.sampled_from([a, b]))
    for step in steps:
        other = data.draw(st.sampled_from([a, b]))
        node = combined(step, node, other)
    found = degrees([node], {a, b})[node]
    assert found is not None
    start, way = np.array([0.3, -0.7]), np.array([1.1, 0.4])
    points = [start + t * way for t in range(found + 3)]
    values = [float(run(Plan({"v": node}), {a: np.array(p[0]), b: np.array(p[1])})["v"]) for p in points]
    scale = max(map(abs, values)) + 1
    assert np.abs(np.diff(values, n=found + 1)).max() <= 1e-9 * scale * 2 ** (found + 1)


def combined(step: str, node: Node, other: Node) -> Node:
    """One more operator on top of a polynomial."""
    two = constant(2.0, DOUBLE)
    operators = {"add": Add(node, other), "mul": Multiply(node, other), "square": Power(node, two)}
    return {**operators, "const": Multiply(two, node), "divide": Divide(node, two)}[step]


DEGREES = {
    "AVG((DOT(x, w) - y) ** 2)": 2,
    "AVG((DOT(x, w) - y) ** 2) + 0.1 * L2(w)": 2,
    "AVG((DOT(x, w) - y) ** 3)": 3,
    "AVG(DOT(x, w))": 1,
    "AVG(ABS(DOT(x, w) - y))": None,
    "AVG(SOFTPLUS(DOT(x, w)))": None,
    "AVG((CASE WHEN y > 0 THEN DOT(x, w) ELSE 0 END - y) ** 2)": 2,
    "AVG((CASE WHEN DOT(x, w) > 0 THEN DOT(x, w) ELSE 0 END - y) ** 2)": None,
    "AVG(DOT(x, w) / (1 + y * y))": 1,
    "AVG(y / DOT(x, w))": None,
}


def of_loss(loss: str, parameters: str = "w DOUBLE[3]") -> Any:
    """The simplified loss, and its parameters."""
    text = f"CREATE MODEL m PARAMETERS ({parameters}) INPUT (x DOUBLE[3]) TARGET (y DOUBLE, k INTEGER) "
    text += "AS SELECT 1 AS a MINIMIZE "
    node = simplify(loss_of(bind(text + loss))).plan.outputs["loss"]
    return node, [n for n in walk([node]) if isinstance(n, Parameter)]


@pytest.mark.parametrize("loss", DEGREES)
def test_degrees(loss):
    node, learnable = of_loss(loss)
    assert degrees([node], learnable)[node] == DEGREES[loss]


@pytest.mark.parametrize(
    ("loss", "kinky", "is_bent"),
    [
        ("AVG(SOFTPLUS(DOT(x, w)) - y * DOT(x, w))", False, False),
        ("AVG(ABS(DOT(x, w) - y))", True, False),
        ("AVG(HUBER(DOT(x, w), y, 1))", True, False),
        ("AVG((w[1] * w[2] * y - 1) ** 2)", False, True),
        ("AVG((EXP(w[1]) * y - 1) ** 2)", False, True),
        ("AVG(SOFTPLUS(DOT(x, w))) + EXP(w[1])", False, False),
    ],
)
def test_kinks_and_what_is_no_function_of_affine_scores(loss, kinky, is_bent):
    node, learnable = of_loss(loss)
    assert bool(kinks([node], learnable)) == kinky
    assert (bent(node, learnable) is not None) == is_bent


def trained(loss: str, parameters: str) -> tuple[Training, State]:
    """The plan of the gradient of a loss, and the vector of its weights."""
    node, learnable = of_loss(loss, parameters)
    training = training_plan(
        Plan({"loss": node}), learnable, GRADIENT, constant(1.0), solver="NEWTON", epochs=1, steps=1, layout=InDouble()
    )
    [weights] = dict.fromkeys(state for state, _, _ in training.spans.values())
    return training, weights


CURVED = {
    "scalar scores": ("AVG(SOFTPLUS(DOT(x, w) + b) - y * DOT(x, w)) + 0.3 * L2(w)", "w DOUBLE[3], b DOUBLE"),
    "numbers as parameters": ("AVG(EXP(a * x[1] + b * y + c))", "a DOUBLE, b DOUBLE, c DOUBLE"),
    "a score of several numbers": ("AVG(CROSS_ENTROPY(x @ w + b, k)) + L2(b)", "w DOUBLE[2][3], b DOUBLE[2]"),
    "two scores": ("AVG(EXP(DOT(x, w) - a) + EXP(DOT(x, w) + 2 * a))", "w DOUBLE[3], a DOUBLE"),
    "a quadratic": ("AVG((DOT(x, w) - y) ** 2) / 2", "w DOUBLE[3]"),
}


@pytest.mark.parametrize("name", CURVED)
def test_the_hessian_by_rows_is_that_by_products_and_by_differences(name):
    training, weights = trained(*CURVED[name])
    loss, direction = training.iterate.loss, direction_of(weights)
    gradient = dict(zip(training.iterate.states, training.iterate.updates, strict=True))
    [slope] = [n for s, n in gradient.items() if s is not weights]
    product = hessian_product(slope, weights, training.spans)
    closed = gram(loss, weights, training.spans, direction)
    assert closed is not None
    size = weights.shape[0]
    rng = np.random.default_rng(0)
    at = rng.normal(size=size)
    data = {
        n: random_array(n, rng) % 2 if n.element.kind == "integer" else random_array(n, rng)
        for n in walk([loss])
        if isinstance(n, Column)
    }

    def value(node: Any, w: Array = at, v: Array | None = None) -> Array:
        leaves = {**data, weights: w, direction: np.zeros(size) if v is None else v}
        return run(expanded(Plan({"v": node})), leaves)["v"]

    columns = [value(product, v=unit) for unit in np.eye(size)]
    step = 1e-5
    differences = [(value(slope, at + step * u) - value(slope, at - step * u)) / (2 * step) for u in np.eye(size)]
    np.testing.assert_allclose(columns, differences, atol=1e-7)
    total = np.zeros((size, size))
    if closed.rest is not None:
        total += [value(closed.rest, v=unit) for unit in np.eye(size)]
    for i, f in enumerate(closed.features):
        second = value(closed.curvature[i])
        for j, g in enumerate(closed.features):
            block = np.broadcast_to(value(f.slopes), (7, len(f.positions))).T @ (
                second[:, j : j + 1] * np.broadcast_to(value(g.slopes), (7, len(g.positions)))
            )
            total[np.ix_(f.positions, g.positions)] += block
    np.testing.assert_allclose(total, columns, atol=1e-12)


@pytest.mark.parametrize("loss", ["AVG((DOT(x, w) - y) ** 2)", "2 * AVG((DOT(x, w) - y) ** 2) + 0.3 * L2(w)"])
def test_a_quadratic_loss_is_the_sum_of_its_squares(loss):
    training, weights = trained(loss, "w DOUBLE[3]")
    squares = sum_of_squares(training.iterate.loss, weights, training.spans)
    assert squares is not None
    rng = np.random.default_rng(1)
    direction = direction_of(weights)
    leaves = {n: rng.normal(size=(7, *n.shape)) for n in walk([training.iterate.loss]) if isinstance(n, Column)}
    leaves |= {weights: rng.normal(size=3), direction: rng.normal(size=3)}
    plan = {f"{i} {k}": getattr(s, k) for i, s in enumerate(squares) for k in ("residual", "weight", "product")}
    found = run(expanded(Plan({"loss": training.iterate.loss, **plan})), leaves)
    total = sum(np.sum(found[f"{i} weight"] * found[f"{i} residual"] ** 2) for i in range(len(squares)))
    assert total == pytest.approx(found["loss"])
    # the residuals are affine: what the product says a step changes is what it changes
    leaves[weights] = leaves[weights] + leaves[direction]
    after = run(expanded(Plan({**plan})), leaves)
    for i in range(len(squares)):
        np.testing.assert_allclose(after[f"{i} residual"] - found[f"{i} residual"], found[f"{i} product"], atol=1e-12)


def test_the_linear_part_has_no_constant():
    training, weights = trained("AVG((DOT(x, w) + 3 - y) ** 2)", "w DOUBLE[3]")
    squares = sum_of_squares(training.iterate.loss, weights, training.spans)
    assert squares is not None
    part = linear_part(squares[0].residual, weights)
    leaves = {n: np.ones((7, *n.shape)) for n in walk([part]) if isinstance(n, Column)}
    np.testing.assert_array_equal(run(Plan({"v": part}), {**leaves, direction_of(weights): np.zeros(3)})["v"], 0)


# -- the choice --------------------------------------------------------------------------------------------------------


def candidate(name: str, seconds: float, size: int = 1, unfit: str | None = None, risk: float = 1) -> Candidate:
    return Candidate(name, unfit, 0.0, seconds, 1, size, risk)


def test_the_fastest_that_fits_is_chosen():
    fast, slow, other = candidate("A", 1, 10), candidate("B", 5, 2), candidate("C", 0.1, unfit="it is another loss")
    ranking = rank([fast, slow, other])
    assert ranking.chosen is fast
    assert [(a.name, a.seconds, a.chosen_seconds) for a in ranking.others] == [("B", 5, 1), ("C", 0.1, 1)]
    assert ranking.others[1].reason == "it is another loss"
    small = rank([fast, slow, other], memory=5)
    assert small.chosen is slow and "more than 5 bytes" in small.others[0].reason
    assert rank([slow, fast], within=2).chosen is fast
    assert rank([slow, fast], within=0.5).chosen is fast  # neither holds it; this one comes nearest
    assert rank([slow, fast], memory=1).chosen is slow


def test_a_solver_whose_way_may_be_longer_must_promise_more():
    sure, daring = candidate("SURE", 3), candidate("DARING", 1, risk=10)
    assert rank([sure, daring]).chosen is sure
    assert rank([candidate("SURE", 30), daring]).chosen is daring


LOSSES = {
    "AVG((z - y) ** 2)": "NORMAL_EQUATIONS",
    "AVG(BINARY_CROSS_ENTROPY(z, y > 0))": "NEWTON",
    "AVG(ABS(z - y))": "ADAM",
}


@pytest.mark.parametrize("loss", LOSSES)
def test_the_solver_that_suits_a_loss_is_chosen_and_told_of(db, loss):
    x = RNG.normal(size=(500, 3))
    db.register("rows", arrow({"x": x, "y": x[:, 0] + RNG.normal(size=500)}))
    db.execute(
        "CREATE MODEL m INPUT (x FLOAT[3]) TARGET (y FLOAT) "
        f"AS SELECT LINEAR(x, 1) AS z, z AS prediction MINIMIZE {loss}"
    )
    cursor = db.execute("TRAIN m ON rows")
    assert f"{LOSSES[loss]} was chosen" in notices(cursor)
    assert one(cursor)["solver"] == LOSSES[loss]
    # options alone are ADAM's
    assert one(db.execute("TRAIN m ON rows WITH (epochs = 1)"))["solver"] == "ADAM"


def test_memory_and_time_are_kept_and_told_of(db):
    x = RNG.normal(size=(4000, 20)).astype("f4")
    db.register("rows", arrow({"x": x, "y": x[:, 0]}))
    db.execute(
        "CREATE MODEL m INPUT (x FLOAT[20]) TARGET (y FLOAT) "
        "AS SELECT LINEAR(x, 1) AS prediction MINIMIZE AVG((prediction - y) ** 2)"
    )
    with pytest.raises(mlsql.OperationalError, match="does not fit into 2 KB: to stream its rows takes about") as e:
        db.execute("TRAIN m ON rows MEMORY '2KB'")
    assert "smaller batch_size" in str(e.value)
    cursor = db.execute("TRAIN m ON rows MEMORY '100KB'")
    assert one(cursor)["solver"] == "ADAM"
    assert "ADAM was chosen: the others read all rows at once" in notices(cursor)
    assert "the rows are streamed" in notices(cursor)
    cursor = db.execute("TRAIN m ON rows MEMORY '600KB'")
    assert one(cursor)["solver"] == "ADAM"  # solvers in DOUBLE copy the rows
    assert "ADAM was chosen: NORMAL_EQUATIONS comes first but does not fit" in notices(cursor)
    assert "MEMORY '600KB': " in notices(cursor)
    cursor = db.execute("TRAIN m ON rows WITHIN 60 SECONDS")
    assert one(cursor)["solver"] == "NORMAL_EQUATIONS"
    assert "WITHIN 60 SECONDS: held" in notices(cursor)
    cursor = db.execute("TRAIN m ON rows WITHIN 0.05 SECONDS WITH SGD")
    assert one(cursor)["stopped_because"] == "WITHIN"
    assert "the run was cut off" in notices(cursor)
    assert db.execute("SELECT 1").messages == []
