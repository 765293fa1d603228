"""The whole chain on random models: text, parser, binder, rules, gradient, rules again, generated code.

Models are written in the dialect, with random columns over random inputs. The gradients of the optimized plan must be
the slopes of the loss that the binder gave, and the rules must not change them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support import (
    ALL_BUT_EXPAND,
    TABLE,
    bind,
    differences,
    in_double,
    moved,
    parameters,
    random_leaves,
    run,
    with_gradients,
)

from mlsql.planner.ops import Index
from mlsql.planner.plan import Plan
from mlsql.types import RowSet

# Every expression is text with the size of its value: 0 for a number, n for a vector of n.
Typed = tuple[str, int]
UNARY = ("TANH({})", "SIGMOID({})", "SOFTPLUS({})", "SIN({})", "COS({})", "ERF({})", "GELU({})", "SILU({})", "-({})",
         "EXP(TANH({}))", "LN(1.5 + TANH({}))", "SQRT(2 + SIN({}))", "({}) ** 2", "(2 + TANH({})) ** -1",
         "(2 + TANH({})) ** 1.5", "LN(SIGMOID({}))", "LN(1 - SIGMOID({}))", "0.5 * ({})", "2 - ({})",
         "CAST({} AS DOUBLE)", "LOG_SIGMOID({})")  # fmt: skip
KINKED = (
    "RELU({})",
    "ABS({})",
    "CLIP({}, -0.9, 0.9)",
    "LEAKY_RELU({}, 0.1)",
    "CASE WHEN {} > 0.1 THEN 2.0 ELSE 0.5 END",
)
BINARY = ("({}) + ({})", "({}) - ({})", "({}) * ({})", "({}) / (3 + TANH({}))", "GREATEST({}, {})", "LEAST({}, {})",
          "CASE WHEN {} > 0.2 THEN TANH({}) ELSE 0.3 END", "HUBER({}, {})")  # fmt: skip
TO_NUMBER = ("SUM_OF({})", "MEAN_OF({})", "MAX_OF({})", "MIN_OF({})", "DOT({}, {})", "LOG_SUM_EXP({})", "({})[1]",
             "({})[-1]", "NORM({})", "PICK({}, k)", "L1({})", "KL(SOFTMAX({}), SOFTMAX({}))")  # fmt: skip
TO_VECTOR = ("SOFTMAX({})", "LOG_SOFTMAX({})", "({}) * SUM_OF({})")


def filled(pattern: str, *texts: str) -> str:
    return pattern.format(*texts[: pattern.count("{}")]) if pattern.count("{}") <= len(texts) else ""


@st.composite
def expressions(draw: Any, atoms: list[Typed], depth: int) -> Typed:
    """An expression over atoms."""
    if depth == 0 or draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(atoms))  # type: ignore[no-any-return]
    text, size = draw(expressions(atoms, depth - 1))
    other, other_size = draw(expressions(atoms, depth - 1))
    if size and other_size not in (0, size):
        other, other_size = text, size
    choice = draw(
        st.sampled_from(
            "unary unary kinked binary binary vector number linear concat one_hot matmul slice table".split()
        )
    )
    match choice:
        case "unary":
            return filled(draw(st.sampled_from(UNARY)), text), size
        case "kinked":
            return filled(draw(st.sampled_from(KINKED)), text), size
        case "binary":
            return filled(draw(st.sampled_from(BINARY)), text, other), max(size, other_size)
        case "vector" if size:
            return filled(draw(st.sampled_from(TO_VECTOR)), text, text), size
        case "number" if size:
            pattern = draw(st.sampled_from(TO_NUMBER if size >= 3 else [p for p in TO_NUMBER if "PICK" not in p]))
            return filled(pattern, text, other if other_size == size else text), 0
        case "linear":
            width = draw(st.integers(1, 3))
            return f"LINEAR({text}, {width})", 0 if width == 1 else width
        case "concat":
            return f"CONCAT({text}, {other})", (size or 1) + (other_size or 1)
        case "one_hot":
            parts = draw(st.permutations([text, "ONE_HOT(k, 3)", "ONE_HOT(k, 4)"]))
            return f"LINEAR(CONCAT({', '.join(parts)}), 2)", 2
        case "matmul" if size == 2:
            return f"({text}) @ m", 3
        case "matmul" if size == 3:
            return draw(st.sampled_from([f"({text}) @ TRANSPOSE(m)", f"m @ ({text})"])), 2
        case "slice" if size >= 2:
            start = draw(st.integers(1, size - 1))
            return f"({text})[{start}:{size}]", size - start + 1
        case "table":
            return draw(
                st.sampled_from([("PICK(v, k)", 0), ("PICK(v, ARGMAX(m[1]))", 0), ("v + ONE_HOT(k, 3) * x", 3)])
            )  # type: ignore[no-any-return]
    return text, size


INPUTS = [("x", 0), ("y", 2), ("z", 3)]
PARAMETERS = [("w", 0), ("u", 2), ("v", 3)]
LOSSES = {
    0: ("AVG(SQUARED_ERROR({}, t))", "AVG(BINARY_CROSS_ENTROPY({}, 0.3))", "SUM({}) / COUNT(*)",
        "SQRT(1 + AVG(({}) ** 2))",
        "MAX({}) + AVG({})", "-AVG(LN(SIGMOID({})))", "AVG({}) + 0.1 * L2(v) + w * w", "MIN(TANH({})) * SUM(t)"),
    1: ("AVG(SUM_OF({} * {}))", "SUM(LOG_SUM_EXP({}))", "AVG(MAX_OF({}) - t)", "SUM_OF(AVG({}))"),
    3: ("AVG(CROSS_ENTROPY({}, k))", "-AVG(PICK(LN(SOFTMAX({})), k))", "SUM(PICK(SOFTMAX({}), k))"),
}  # fmt: skip


@st.composite
def models(draw: Any) -> str:
    """A CREATE MODEL with one to three columns and a loss over the last."""
    atoms: list[Typed] = [*INPUTS, *PARAMETERS, *PARAMETERS, ("0.7", 0)]
    columns: list[str] = []
    for i in range(draw(st.integers(1, 3))):
        text, size = draw(expressions(atoms, draw(st.integers(1, 3))))
        columns.append(f"{text} AS c{i}")
        atoms += [(f"c{i}", size)] * 4
    last, size = f"c{len(columns) - 1}", atoms[-1][1]
    patterns = LOSSES[0] if size == 0 else LOSSES[1] + (LOSSES[3] if size >= 3 else ())
    loss = draw(st.sampled_from(patterns)).replace("{}", f"({last} + x)")  # x, so that it has rows
    return (
        (
            "CREATE MODEL m INPUT (x FLOAT, y FLOAT[2], z FLOAT[3]) TARGET (k INTEGER, t FLOAT) "
            "PARAMETERS (w FLOAT, u FLOAT[2], v FLOAT[3], m FLOAT[3][2]) "
            f"AS SELECT {', '.join(columns)} MINIMIZE {loss}"
        )
        .replace("TARGET (k INTEGER, t FLOAT)", "TARGET (t FLOAT)")
        .replace("z FLOAT[3])", "z FLOAT[3], k INTEGER)")
    )


@settings(max_examples=200, deadline=None, report_multiple_bugs=False, suppress_health_check=list(HealthCheck))
@given(models(), st.integers(0, 3), st.booleans())
def test_gradients_are_slopes_and_rules_keep_them(text: str, seed: int, batched: bool) -> None:
    model = bind(text)
    assert model.loss is not None
    index = Index(RowSet("batch", 4), TABLE) if batched else None
    plain = Plan({"loss": model.loss}, model.names)
    plain = in_double(moved(model, plain, TABLE, index))
    sources = parameters(plain)
    assume(sources)
    arrays = random_leaves(list(plain.outputs.values()), seed)
    best = run(with_gradients(plain).plan, arrays)
    without_rules = run(with_gradients(plain, ALL_BUT_EXPAND).plan, arrays)
    assume(np.isfinite(best["loss"]) and abs(best["loss"]) < 1e4)
    for name, value in without_rules.items():
        np.testing.assert_allclose(best[name], value, rtol=1e-7, atol=1e-9, err_msg=f"{name} with and without rules")
    coarse = differences(plain.outputs["loss"], sources, arrays, 1e-5)
    fine = differences(plain.outputs["loss"], sources, arrays, 1e-6)
    for p, a, b in zip(sources, coarse, fine, strict=True):
        assume(np.allclose(a, b, rtol=1e-4, atol=1e-5))  # else a kink is too near
        np.testing.assert_allclose(best[f"by {p.name}"], b, rtol=1e-4, atol=1e-5, err_msg=p.name)


@settings(max_examples=50, deadline=None, report_multiple_bugs=False, suppress_health_check=list(HealthCheck))
@given(models(), st.integers(0, 3))
def test_in_float_the_rules_change_no_more_than_rounding(text: str, seed: int) -> None:
    model = bind(text)
    assert model.loss is not None
    plain = Plan({"loss": model.loss}, model.names)
    plain = moved(model, plain, TABLE)
    arrays = random_leaves(list(plain.outputs.values()), seed)
    best = run(with_gradients(plain).plan, arrays)
    without_rules = run(with_gradients(plain, ALL_BUT_EXPAND).plan, arrays)
    exact = in_double(plain)
    wanted = run(with_gradients(exact).plan, random_leaves(list(exact.outputs.values()), seed))
    assume(np.isfinite(wanted["loss"]) and abs(wanted["loss"]) < 1e4)
    for name, value in wanted.items():
        scale = 1e-3 * (1 + np.abs(value).max(initial=0))
        assume(np.allclose(without_rules[name], value, rtol=1e-3, atol=scale))  # else FLOAT is too coarse for it
        np.testing.assert_allclose(best[name], value, rtol=1e-2, atol=10 * scale, err_msg=name)


def test_the_length_of_a_zero_vector_has_slope_0() -> None:
    """As in PyTorch: the root's infinite slope at 0 must not make the gradient NaN."""
    model = bind("CREATE MODEL m PARAMETERS (u FLOAT[2]) AS SELECT NORM(u - u) AS length MINIMIZE length")
    assert model.loss is not None
    plan = in_double(Plan({"loss": model.loss}, model.names))
    values = run(with_gradients(plan).plan, random_leaves(list(plan.outputs.values()), 0))
    np.testing.assert_array_equal(values["by u"], [0, 0])
