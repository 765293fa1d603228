"""Every function and layer of the model language against PyTorch's or NumPy's on random rows.

What the language has and this file does not know fails: give it a row in CALLS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special
from support import TABLE, bind, in_double, moved, random_leaves, run
from support import expanded as with_kernels

from mlsql.planner.functions import FUNCTIONS
from mlsql.planner.layers import standard_layers
from mlsql.planner.ops import Column, Parameter
from mlsql.planner.plan import Plan

torch = pytest.importorskip("torch")
F = torch.nn.functional

# In every call: x, y FLOAT; v, u FLOAT[3]; a FLOAT[3][2] (2 rows of 3); b FLOAT[2][3]; k INTEGER below 3.
INPUTS = "x FLOAT, y FLOAT, v FLOAT[3], u FLOAT[3], a FLOAT[3][2], b FLOAT[2][3], k INTEGER"
Call = tuple[str, Callable[[dict[str, Any]], Any]]


def t(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of PyTorch on NumPy arrays."""
    return lambda *arrays, **options: function(*map(torch.as_tensor, arrays), **options).numpy()


def softmax(v: Any) -> Any:
    return scipy.special.softmax(v, -1)


CALLS: dict[str, list[Call]] = {
    # elementwise
    "ABS": [("ABS(v)", lambda c: np.abs(c["v"]))],
    "SIGN": [("SIGN(v)", lambda c: np.sign(c["v"]))],
    "EXP": [("EXP(v)", lambda c: np.exp(c["v"]))],
    "LN": [("LN(ABS(v))", lambda c: np.log(np.abs(c["v"])))],
    "LOG": [("LOG(ABS(x))", lambda c: np.log10(np.abs(c["x"])))],
    "SQRT": [("SQRT(ABS(x))", lambda c: np.sqrt(np.abs(c["x"])))],
    "SIN": [("SIN(x)", lambda c: np.sin(c["x"]))],
    "COS": [("COS(x)", lambda c: np.cos(c["x"]))],
    "TANH": [("TANH(v)", lambda c: t(torch.tanh)(c["v"]))],
    "ERF": [("ERF(v)", lambda c: t(torch.erf)(c["v"]))],
    "SIGMOID": [("SIGMOID(v)", lambda c: t(torch.sigmoid)(c["v"]))],
    "SOFTPLUS": [
        ("SOFTPLUS(v)", lambda c: t(F.softplus)(c["v"])),
        ("SOFTPLUS(100 * v)", lambda c: np.logaddexp(0, 100 * c["v"])),
    ],
    "POW": [("POW(ABS(x), y)", lambda c: np.abs(c["x"]) ** c["y"])],
    "POWER": [("POWER(x, 3)", lambda c: c["x"] ** 3)],
    "GREATEST": [
        ("GREATEST(x, y)", lambda c: np.maximum(c["x"], c["y"])),
        ("GREATEST(x, y, 0.1)", lambda c: np.maximum(np.maximum(c["x"], c["y"]), 0.1)),
    ],
    "LEAST": [("LEAST(v, u, 0.1)", lambda c: np.minimum(np.minimum(c["v"], c["u"]), 0.1))],
    "RELU": [("RELU(v)", lambda c: t(F.relu)(c["v"]))],
    "LEAKY_RELU": [
        ("LEAKY_RELU(v)", lambda c: t(F.leaky_relu)(c["v"])),
        ("LEAKY_RELU(v, 0.2)", lambda c: t(F.leaky_relu)(c["v"], negative_slope=0.2)),
    ],
    "GELU": [("GELU(v)", lambda c: t(F.gelu)(c["v"]))],
    "SILU": [("SILU(v)", lambda c: t(F.silu)(c["v"]))],
    "LOG_SIGMOID": [
        ("LOG_SIGMOID(v)", lambda c: t(F.logsigmoid)(c["v"])),
        ("LOG_SIGMOID(200 * v)", lambda c: t(F.logsigmoid)(200 * c["v"])),
    ],
    "COALESCE": [("COALESCE(x, y)", lambda c: c["x"]), ("COALESCE(v, 0)", lambda c: c["v"])],
    "IFNULL": [("IFNULL(x, y)", lambda c: c["x"])],
    "CLIP": [("CLIP(v, -0.5, 0.6)", lambda c: np.clip(c["v"], -0.5, 0.6))],
    # inside a row
    "SOFTMAX": [
        ("SOFTMAX(v)", lambda c: t(F.softmax)(c["v"], dim=-1)),
        ("SOFTMAX(a)", lambda c: softmax(c["a"])),
        ("SOFTMAX(1000 * v)", lambda c: softmax(1000 * c["v"])),
    ],
    "LOG_SOFTMAX": [("LOG_SOFTMAX(v)", lambda c: t(F.log_softmax)(c["v"], dim=-1))],
    "LOG_SUM_EXP": [
        ("LOG_SUM_EXP(v)", lambda c: t(torch.logsumexp)(c["v"], dim=-1)),
        ("LOG_SUM_EXP(a)", lambda c: t(torch.logsumexp)(c["a"], dim=-1)),
        ("LOG_SUM_EXP(1000 * v)", lambda c: scipy.special.logsumexp(1000 * c["v"], -1)),
    ],
    "ARGMAX": [("ARGMAX(v)", lambda c: c["v"].argmax(-1))],
    "PICK": [("PICK(v, k)", lambda c: np.take_along_axis(c["v"], c["k"][:, None], 1)[:, 0])],
    "ONE_HOT": [("ONE_HOT(k, 4)", lambda c: t(F.one_hot)(c["k"].astype("int64"), num_classes=4))],
    "MATMUL": [
        ("MATMUL(a, v)", lambda c: np.einsum("rij,rj->ri", c["a"], c["v"])),
        ("MATMUL(a, b)", lambda c: c["a"] @ c["b"]),
        ("MATMUL(v, b)", lambda c: np.einsum("ri,rij->rj", c["v"], c["b"])),
        ("v @ u", lambda c: (c["v"] * c["u"]).sum(-1)),
    ],
    "DOT": [
        ("DOT(v, u)", lambda c: (c["v"] * c["u"]).sum(-1)),
        ("DOT(a, TRANSPOSE(b))", lambda c: (c["a"] * c["b"].swapaxes(1, 2)).sum((1, 2))),
    ],
    "EINSUM": [
        ("EINSUM('ij,jk->ki', a, b)", lambda c: np.einsum("nij,njk->nki", c["a"], c["b"])),
        ("EINSUM('i,j->ij', v, u)", lambda c: np.einsum("ni,nj->nij", c["v"], c["u"])),
        ("EINSUM('ij,jk->k', a, b)", lambda c: np.einsum("nij,njk->nk", c["a"], c["b"])),
        ("EINSUM('r,r->', v, u)", lambda c: (c["v"] * c["u"]).sum(-1)),
    ],
    "TRANSPOSE": [("TRANSPOSE(a)", lambda c: c["a"].swapaxes(1, 2))],
    "RESHAPE": [("RESHAPE(a, 3, 2)", lambda c: c["a"].reshape(-1, 3, 2))],
    "CONCAT": [("CONCAT(x, v, y)", lambda c: np.hstack([c["x"][:, None], c["v"], c["y"][:, None]]))],
    "SLICE": [("SLICE(v, 2, 3)", lambda c: c["v"][:, 1:3]), ("v[-1]", lambda c: c["v"][:, -1])],
    "SUM_OF": [
        ("SUM_OF(a)", lambda c: c["a"].sum((1, 2))),
        ("SUM_OF(a, 1)", lambda c: c["a"].sum(1)),
        ("SUM_OF(a, 2)", lambda c: c["a"].sum(2)),
        ("SUM_OF(x)", lambda c: c["x"]),
    ],
    "MAX_OF": [("MAX_OF(v)", lambda c: c["v"].max(-1)), ("MAX_OF(a, 1)", lambda c: c["a"].max(1))],
    "MIN_OF": [("MIN_OF(v)", lambda c: c["v"].min(-1)), ("MIN_OF(a, 2)", lambda c: c["a"].min(2))],
    "MEAN_OF": [("MEAN_OF(a)", lambda c: c["a"].mean((1, 2)))],
    "NORM": [("NORM(v)", lambda c: np.linalg.norm(c["v"], axis=-1))],
    "L1": [("L1(v)", lambda c: np.abs(c["v"]).sum(-1))],
    "L2": [("L2(v)", lambda c: (c["v"] ** 2).sum(-1))],
    # learned
    "LINEAR": [
        ("LINEAR(v, 4)", lambda c: t(F.linear)(c["v"], c["z.weight"].T, c["z.bias"])),
        ("LINEAR(v, 1)", lambda c: t(F.linear)(c["v"], c["z.weight"].T, c["z.bias"])[:, 0]),
        ("LINEAR(x, 2)", lambda c: t(F.linear)(c["x"][:, None], c["z.weight"].T, c["z.bias"])),
        ("LINEAR(a, 2)", lambda c: t(F.linear)(c["a"], c["z.weight"].T, c["z.bias"])),
    ],
    # losses of one row
    "CROSS_ENTROPY": [
        ("CROSS_ENTROPY(v, k)", lambda c: t(F.cross_entropy)(c["v"], c["k"].astype("int64"), reduction="none"))
    ],
    "BINARY_CROSS_ENTROPY": [
        (
            "BINARY_CROSS_ENTROPY(x, SIGMOID(y))",
            lambda c: t(F.binary_cross_entropy_with_logits)(c["x"], scipy.special.expit(c["y"]), reduction="none"),
        )
    ],
    "SQUARED_ERROR": [("SQUARED_ERROR(x, y)", lambda c: t(F.mse_loss)(c["x"], c["y"], reduction="none"))],
    "ABSOLUTE_ERROR": [("ABSOLUTE_ERROR(x, y)", lambda c: t(F.l1_loss)(c["x"], c["y"], reduction="none"))],
    "HUBER": [
        ("HUBER(x, y)", lambda c: t(F.huber_loss)(c["x"], c["y"], reduction="none")),
        ("HUBER(x, y, 0.5)", lambda c: t(F.huber_loss)(c["x"], c["y"], reduction="none", delta=0.5)),
    ],
    "HINGE": [("HINGE(x, SIGN(y))", lambda c: np.maximum(0, 1 - np.sign(c["y"]) * c["x"]))],
    "KL": [("KL(SOFTMAX(v), SOFTMAX(u))", lambda c: scipy.special.rel_entr(softmax(c["v"]), softmax(c["u"])).sum(-1))],
    # of what is learned from the data, which stands in parameters and in columns that DuckDB computes
    "STANDARD_SCALER": [
        ("STANDARD_SCALER(x)", lambda c: (c["x"] - c["avg(x)"]) / c["stddev(x)"]),
        ("STANDARD_SCALER(v)", lambda c: (c["v"] - c["avg(v)"]) / c["stddev(v)"]),
    ],
    "MIN_MAX_SCALER": [("MIN_MAX_SCALER(x)", lambda c: (c["x"] - c["min(x)"]) / c["range(x)"])],
    "ROBUST_SCALER": [("ROBUST_SCALER(x)", lambda c: (c["x"] - c["median(x)"]) / c["interquartile_range(x)"])],
    "IMPUTE": [
        ("IMPUTE(x, 'mean')", lambda c: c["coalesce(x, avg(x))"]),
        ("IMPUTE(x, 2)", lambda c: c["coalesce(x, 2.0)"]),
    ],
    "HASH_BUCKET": [
        (
            "HASH_BUCKET(x, 4)",
            lambda c: (np.eye(4)[c["coalesce(HASH_BUCKET(x, 4), 0)"]].T * c["HASH_BUCKET(x, 4) IS NOT NULL"]).T,
        )
    ],
    "BUCKETIZE": [
        (
            "BUCKETIZE(x, [1, 2])",
            lambda c: (np.eye(3)[c["coalesce(BUCKETIZE(x, [1, 2]), 0)"]].T * c["BUCKETIZE(x, [1, 2]) IS NOT NULL"]).T,
        )
    ],
    "QUANTILE_BUCKETIZE": [
        (
            "QUANTILE_BUCKETIZE(x, 3)",
            lambda c: np.eye(3)[(c["x"][:, None] >= c["quantiles_3(x)"]).sum(1)],
        )
    ],
    "FEATURE_CROSS": [
        (
            "EMBED(FEATURE_CROSS(x, y), 2)",
            lambda c: c["KNOWN(FEATURE_CROSS(x, y))"][:, None] * c["z.embedding"][c["KEY(FEATURE_CROSS(x, y))"]],
        )
    ],
    "EMBED": [
        (
            "EMBED(HASH_BUCKET(x, 4), 2)",
            lambda c: (
                c["HASH_BUCKET(x, 4) IS NOT NULL"][:, None] * c["z.embedding"][c["coalesce(HASH_BUCKET(x, 4), 4)"]]
            ),
        ),
        ("EMBED(x, 2, UNKNOWN MEAN)", lambda c: c["z.embedding"][c["KEY(x)"]]),
        ("EMBED(x, 2, UNKNOWN ERROR)", lambda c: c["z.embedding"][c["KEY(x)!"]]),
    ],
    "FEATURES": [
        ("FEATURES(v, x * 2)", lambda c: np.hstack([(c["v"] - c["avg(v)"]) / c["stddev(v)"], 2 * c["x"][:, None]]))
    ],
    # of a class label
    "LABEL": [("LABEL(LINEAR(v, CLASSES(label)), label)", lambda c: (c["v"] @ c["z.weight"] + c["z.bias"]).argmax(-1))],
}

# Aggregates over rows stand in MINIMIZE.
FOLDS: dict[str, list[Call]] = {
    "SUM": [("SUM(x)", lambda c: c["x"].sum())],
    "AVG": [("AVG(x * y)", lambda c: (c["x"] * c["y"]).mean())],
    "MAX": [("MAX(x)", lambda c: c["x"].max())],
    "MIN": [("MIN(x - y)", lambda c: (c["x"] - c["y"]).min())],
    "COUNT": [("SUM(x) / COUNT(*)", lambda c: c["x"].mean())],
}


def values(plan: Plan, model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the language computes in DOUBLE over TABLE, and the values of columns and parameters by name."""
    plan = in_double(moved(model, plan, TABLE))
    arrays = random_leaves(list(plan.outputs.values()), seed=11)
    return run(with_kernels(plan), arrays), {n.name: a for n, a in arrays.items() if isinstance(n, (Column, Parameter))}


@pytest.mark.parametrize("name", [*FUNCTIONS, *standard_layers()])
def test_a_function_or_layer_has_a_reference_and_a_text(name: str) -> None:
    assert name in CALLS or name in FOLDS, f"{name} has no reference: add one to CALLS"
    described: Any = FUNCTIONS.get(name) or standard_layers()[name]
    assert described.doc.strip()
    assert described.usage.startswith(f"{name}(")


def test_every_reference_is_of_something() -> None:
    assert {*CALLS, *FOLDS} == {*FUNCTIONS, *standard_layers()}


@pytest.mark.parametrize(
    ("call", "reference"), [c for calls in CALLS.values() for c in calls], ids=lambda c: c if isinstance(c, str) else ""
)
def test_a_call_gives_what_the_reference_gives(call: str, reference: Callable[..., Any]) -> None:
    text = f"CREATE MODEL m INPUT ({INPUTS}) TARGET (label VARCHAR) AS SELECT {call} AS z"
    keys = {v.symbol: 5 for v in bind(text, label=4).vocabularies.values()}
    model = bind(text, keys, label=4)
    found, columns = values(Plan({"z": model.columns["z"]}), model)
    np.testing.assert_allclose(found["z"], reference(columns), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "reference"), [c for calls in FOLDS.values() for c in calls], ids=lambda c: c if isinstance(c, str) else ""
)
def test_an_aggregate_gives_what_the_reference_gives(call: str, reference: Callable[..., Any]) -> None:
    model = bind(f"CREATE MODEL m INPUT ({INPUTS}) AS SELECT x AS z MINIMIZE {call}")
    assert model.loss is not None
    found, columns = values(Plan({"loss": model.loss}), model)
    np.testing.assert_allclose(found["loss"], reference(columns), rtol=1e-12)


def test_a_weighted_average_is_numpy_s() -> None:
    from mlsql.parser import expression, parse
    from mlsql.planner.binder import bind_model

    (statement,) = parse("CREATE MODEL m INPUT (x FLOAT, y FLOAT) AS SELECT x AS z MINIMIZE AVG(x) + SUM(x)")
    model = bind_model(statement, weight=expression("ABS(y)"))  # type: ignore[arg-type]
    assert model.loss is not None
    found, c = values(Plan({"loss": model.loss}), model)
    w = np.abs(c["y"])
    np.testing.assert_allclose(found["loss"], np.average(c["x"], weights=w) + (c["x"] * w).sum(), rtol=1e-12)
