"""Generated code: what it computes, where it puts things, how it reads.

Random plans are run in the arena that ``memory`` laid out, and node by node in NumPy with an array for each node; both
must give the same numbers, step after step.
"""

from __future__ import annotations

import ast
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import bind, bound_step, loss_of, moved, random_array, random_leaves, run
from test_operators import K, R, col, par, reference

from mlsql.autodiff.training import STEP, training_plan
from mlsql.autodiff.updates import SOLVERS
from mlsql.executor.codegen import generate
from mlsql.executor.hoist import hoist
from mlsql.executor.run import leaves
from mlsql.optimizer.stages import optimize, simplify
from mlsql.planner import ops
from mlsql.planner.node import Node, walk
from mlsql.planner.ops import (
    Add,
    Broadcast,
    Column,
    Concat,
    Contract,
    Index,
    Max,
    Min,
    Multiply,
    Negate,
    Pad,
    Pick,
    Place,
    Reshape,
    ScatterAdd,
    Segment,
    Slice,
    State,
    Subtract,
    Sum,
    Take,
    Tanh,
    Transpose,
    Where,
)
from mlsql.planner.plan import Plan
from mlsql.types import DOUBLE, FLOAT, UNIT, RowSet, TypeProblem

# -- random plans ----------------------------------------------------------------------------------------------------

STATES = [State("u", DOUBLE, (3,)), State("v", DOUBLE, (3,)), State("w", DOUBLE, (2, 3)), State("z", DOUBLE)]
ROOTS: list[Node] = [
    col("a", 3),
    col("b", 2, 3),
    col("c"),
    par("p", 3),
    par("q", 2, 3),
    *STATES,
    ops.constant(2.0, DOUBLE),
]


def chosen(draw: Any, pool: list[Node]) -> Node:
    return pool[draw(st.integers(0, len(pool) - 1))]


KINDS = (
    "add mul sub tanh neg where sum fold max reshape turn slice pad concat flat contract broadcast pick place put "
    "segment take scale scatter replace join"
).split()


def grown(draw: Any, pool: list[Node]) -> Node:
    """One more node over nodes of the pool. Raises TypeProblem where they do not fit."""
    x, y, z = (chosen(draw, pool) for _ in range(3))
    t = x.type
    axes = tuple(range(t.rank))
    match draw(st.sampled_from(KINDS)):
        case "add":
            return Add(x, y)
        case "mul":
            return Multiply(Tanh(x), y)
        case "sub":
            return Subtract(x, y)
        case "tanh":
            return Tanh(x)
        case "neg":
            return Negate(x)
        case "where":
            return Where(ops.Greater(x, y), y, z)
        case "sum":
            return Tanh(Sum(x, t.rows != UNIT, draw(st.sampled_from([(), axes[:1], axes]))))
        case "fold":
            return Reshape(Sum(x, t.rows != UNIT, axes), ())
        case "max":
            return (Max if draw(st.booleans()) else Min)(x, False, axes[-1:])
        case "reshape":
            size = t.entry_size or 1
            return Reshape(x, draw(st.sampled_from([(size,), (1, size), (size, 1)])))
        case "turn":
            return Transpose(x, tuple(reversed(axes)))
        case "slice" if axes:
            axis = draw(st.sampled_from(axes))
            return Slice(x, axis, draw(st.integers(0, 1)), draw(st.integers(1, 3)))
        case "pad" if axes:
            return Pad(x, draw(st.sampled_from(axes)), 1, 4)
        case "concat":
            return Concat((x, y, x), max(0, t.rank - 1))
        case "flat":
            return Concat(tuple(Reshape(n, (n.type.entry_size or 1,)) for n in (x, y, z)), 0)
        case "contract":
            return ops.matmul(x, y)
        case "broadcast":
            return Broadcast(x, y.type)
        case "pick" if t.shape == (3,):  # K is below 3
            return Pick(x, K)
        case "place":
            return Place(x, K, 3)
        case "put":
            return Place(x, K, 3, y)
        case "segment":
            return Segment(x, K, UNIT, 3)
        case "scatter" if t.shape[:1] == (3,):
            rows = Take(y, K) if y.type == t else y
            return ScatterAdd(x, (rows, rows), (K, K), (z, ops.constant(0.5, DOUBLE)))
        case "replace" if t.shape[:1] == (3,):
            return ops.Put(x, (Take(Tanh(y if y.type == t else x), K),), (K,))  # rows of one key are equal
        case "join":
            return ops.KeySum((x, Tanh(x)), (K, K), K, 3)
        case "take" if t.rows != UNIT or t.shape[:1] == (3,):
            return Take(x, K)
        case "scale":
            return Multiply(x, Reshape(Sum(y, y.type.rows != UNIT, tuple(range(y.type.rank))), ()))
    raise TypeProblem("does not fit")


@st.composite
def pools(draw: Any) -> list[Node]:
    """A pool of nodes, each made of earlier ones."""
    pool = list(ROOTS)
    for _ in range(draw(st.integers(3, 25))):
        try:
            pool.append(grown(draw, pool))
        except (TypeProblem, ValueError):
            continue
    return pool


@st.composite
def loops(draw: Any) -> tuple[list[Node], dict[State, Node]]:
    """Outputs of a step, and the states' new values: nodes of the right type, old values of other states included."""
    pool = draw(pools())
    outputs = [chosen(draw, pool) for _ in range(draw(st.integers(1, 3)))]
    updates: dict[State, Node] = {}
    for s in STATES:
        fitting = [n for n in pool if n.type == s.type]
        updates[s] = fitting[-1 - draw(st.integers(0, len(fitting) - 1))]
    return outputs, updates


def by_hand(outputs: list[Node], arrays: dict[Node, Any]) -> list[Any]:
    """The outputs, each node computed by NumPy into an array of its own."""
    known = dict(arrays)
    for n in walk(outputs):
        if n not in known:
            with np.errstate(all="ignore"):
                known[n] = reference(n, known)
    return [known[n] for n in outputs]


RANDOM = settings(max_examples=150, deadline=None, report_multiple_bugs=False, suppress_health_check=list(HealthCheck))


def arrays_of(nodes: list[Node]) -> dict[Node, Any]:
    return {**random_leaves(nodes), **{s: random_array(s, np.random.default_rng(9)) for s in STATES}}


@RANDOM
@given(loops(), st.booleans())
def test_the_arena_holds_every_value_as_long_as_it_is_needed(
    loop: tuple[list[Node], dict[State, Node]], whole: bool
) -> None:
    outputs, updates = loop
    nodes = [*outputs, *updates.values()]
    arrays = arrays_of(nodes)
    varying = leaves(nodes) if whole else ()  # else what reads data alone is computed before the loop
    held = {n: np.array(a) for n, a in arrays.items()}
    step = bound_step(outputs, held, updates=updates, varying=varying)
    for _ in range(3):
        expected = by_hand(nodes, arrays)
        found = step()
        for n, value, wanted in zip(outputs, found, expected, strict=False):
            np.testing.assert_allclose(value, wanted, rtol=1e-9, atol=1e-12, err_msg=repr(n))
        arrays |= dict(zip(updates, expected[len(outputs) :], strict=True))
        for s in updates:
            np.testing.assert_allclose(held[s], arrays[s], rtol=1e-9, atol=1e-12, err_msg=repr(s))


@RANDOM
@given(loops())
def test_the_arena_is_no_larger_than_all_values_together(loop: tuple[list[Node], dict[State, Node]]) -> None:
    outputs, updates = loop
    layout = generate(outputs, updates=updates, varying=leaves([*outputs, *updates.values()])).layout
    assert layout.bytes <= sum(n.nbytes for n in walk([*outputs, *updates.values()]))


# -- cases that random plans found, or that a reader should know -------------------------------------------------------


def stepped(outputs: list[Node], updates: dict[State, Node], **values: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What one step returns, and the states after it."""
    found = {n: values[n.name] for n in walk([*outputs, *updates, *updates.values()]) if isinstance(n, (State, Column))}
    result = bound_step(outputs, found, updates=updates)()
    return result, {s.name: found[s].tolist() for s in updates}


def test_states_swap() -> None:
    u, v = STATES[:2]
    _, after = stepped([], {u: v, v: u}, u=np.array([1.0, 2, 3]), v=np.array([4.0, 5, 6]))
    assert after == {"u": [4, 5, 6], "v": [1, 2, 3]}


def test_a_state_read_late_is_the_old_one() -> None:
    u, v = STATES[:2]
    new = Add(u, u)
    _, after = stepped([], {u: new, v: Add(Tanh(Multiply(new, new)), u)}, u=np.ones(3), v=np.zeros(3))
    assert after["u"] == [2, 2, 2]
    np.testing.assert_allclose(after["v"], np.tanh(4) + 1)


def test_an_output_that_is_a_state_is_the_old_value() -> None:
    z = STATES[3]
    result, after = stepped([z], {z: Add(z, ops.constant(1.0, DOUBLE))}, z=np.array(5.0))
    assert result == (5.0,)
    assert after == {"z": 6}


def test_a_number_is_folded_before_its_array_is_reused() -> None:
    u = STATES[0]
    doubled = Add(u, u)
    reused = Tanh(Multiply(doubled, doubled))
    total = Reshape(Sum(doubled, False, (0,)), ())
    result, _ = stepped([reused, total], {}, u=np.ones(3))
    assert result[1] == 6


def test_one_part_may_stand_twice_in_a_concatenation() -> None:
    u = STATES[0]
    twice = Add(u, u)
    result, _ = stepped([Concat((twice, twice), 0)], {}, u=np.array([1.0, 2, 3]))
    assert result[0].tolist() == [2, 4, 6, 2, 4, 6]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SUM(x) / (SUM(x) - SUM(x))", np.inf),
        ("LN(SUM(x) - SUM(x))", -np.inf),
        ("EXP(1000 * SUM(x))", np.inf),
        ("SQRT(-SUM(x))", np.nan),
        ("(-SUM(x)) ** 0.5", np.nan),
        ("GREATEST(SQRT(-SUM(x)), 0)", np.nan),
        ("CASE WHEN SUM(x) > 0 AND TRUE THEN 1.0 ELSE 2.0 END", 1),
        ("CASE WHEN NOT (SUM(x) > 0 OR FALSE) THEN 1.0 ELSE 2.0 END", 2),
        ("CASE WHEN TRUE AND FALSE THEN SUM(x) ELSE 2 * SUM(x) END", 14),
    ],
)
def test_plain_numbers_follow_the_rules_of_arrays(text: str, expected: float) -> None:
    """A number of Python's overflows to infinity and has NaN where there is no value, as an array has."""
    plan = loss_of(bind(f"CREATE MODEL m INPUT (x FLOAT) AS SELECT x AS y MINIMIZE {text}"))
    (x,) = leaves(list(plan.outputs.values()))
    for p in (plan, optimize(plan).plan):
        assert run(p, {x: np.ones(7, "float32")})["loss"] == pytest.approx(expected, nan_ok=True)


# -- how the code reads ------------------------------------------------------------------------------------------------

MLP = """CREATE MODEL m INPUT (pixels FLOAT[6]) TARGET (digit INTEGER)
AS SELECT RELU(LINEAR(pixels, 5)) AS hidden, LINEAR(hidden, 3) AS scores MINIMIZE AVG(CROSS_ENTROPY(scores, digit))"""


def mlp_step(solver: str = "ADAM") -> Any:
    """The program of a training step of MLP."""
    model = bind(MLP)
    plan = simplify(Plan({"loss": model.loss}, model.names)).plan
    batch = RowSet("batch", 4)
    plan = moved(model, plan, RowSet("table", 20), Index(batch, RowSet("table", 20)))
    options = {o.name: o.default for o in SOLVERS[solver].options}
    training = training_plan(
        plan, [p.node for p in model.parameters.values()], SOLVERS[solver].build(options), ops.constant(0.1),
        solver=solver, epochs=1, steps=5,
    )  # fmt: skip
    iterate = training.iterate
    best = optimize(Plan({"loss": iterate.loss, **{str(i): n for i, n in enumerate(iterate.updates)}}, training.names))
    first, *rest = best.plan.outputs.values()
    updates = dict(zip(iterate.states, rest, strict=True))
    return generate([first], updates=updates, names=best.plan.names, arguments=[STEP])  # type: ignore[arg-type]


@pytest.mark.parametrize("solver", SOLVERS)
def test_nothing_is_allocated_inside_the_loop(solver: str) -> None:
    (prepare,) = ast.parse(mlp_step(solver).source).body
    (step,) = [n for n in ast.walk(prepare) if isinstance(n, ast.FunctionDef) and n.name == "run_step"]
    for line in step.body[:-1]:
        calls = [n for n in ast.walk(line) if isinstance(n, ast.Call)]
        if isinstance(line, ast.Assign):  # a plain number
            continue
        for call in calls:
            assert ast.unparse(call.func) not in ("empty", "array", "arange"), ast.unparse(line)
            assert len(call.args) + len(call.keywords) > 1, f"no output array: {ast.unparse(line)}"


def test_code_has_the_reader_s_names() -> None:
    source = mlp_step("SGD").source
    for name in ("pixels", "digit", "hidden", "scores", "weights"):
        assert re.search(rf"\b{name}\b", source), name


def test_code_is_the_same_for_the_same_plan() -> None:
    assert mlp_step().source == mlp_step().source


def test_every_state_of_an_mlp_is_updated_in_place() -> None:
    program = mlp_step("ADAM")
    assert not program.layout.copied_at_end
    assert len(program.layout.overwrites) == 3


# -- hoisting --------------------------------------------------------------------------------------------------------


def test_what_no_parameter_reaches_is_computed_once() -> None:
    x = Column("x", R, FLOAT, (3,))
    w = State("w", FLOAT, (3,))
    features = Tanh(x)
    score = Contract("rk,k->r", features, w)
    (loop,), fixed = hoist([Reshape(Sum(score, True), ())])
    (column,) = fixed
    assert fixed[column] is features
    assert not any(isinstance(n, Tanh) for n in walk([loop]))


def test_a_batch_is_taken_from_what_was_computed_once() -> None:
    table, batch = RowSet("table", 10), RowSet("batch", 4)
    x = Column("x", table, FLOAT, (3,))
    taken = Take(Tanh(x), Index(batch, table))
    (loop,), fixed = hoist([Reshape(Sum(taken, True, (0,)), ())])
    assert list(fixed.values()) == [Tanh(x)]
    assert not any(isinstance(n, Tanh) for n in walk([loop]))


@RANDOM
@given(loops())
def test_hoisting_changes_no_value(loop: tuple[list[Node], dict[State, Node]]) -> None:
    outputs, _ = loop
    arrays = arrays_of(outputs)
    left, fixed = hoist(outputs)
    before = run(Plan({str(i): n for i, n in enumerate(outputs)}), arrays)
    values = run(Plan({c.name: n for c, n in fixed.items()}), arrays)
    after = run(Plan({str(i): n for i, n in enumerate(left)}), {**arrays, **{c: values[c.name] for c in fixed}})
    for key, value in before.items():
        np.testing.assert_allclose(after[key], value, rtol=1e-9, atol=1e-12)
