"""Tables of parameters: a step changes the rows that its batch reads, as PyTorch's sparse embeddings do.

The model is a factorization of ratings: the dot product of a user's and an item's row, and one number for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_text import PlainTrainer, turns_of
from support import run

import mlsql
from mlsql.autodiff.gradient import gradients
from mlsql.autodiff.sparse import table_reads
from mlsql.autodiff.training import STEP, training_plan
from mlsql.autodiff.updates import SOLVERS
from mlsql.executor.compiled.source import compiled
from mlsql.executor.compiled.trainer import CompiledTrainer
from mlsql.executor.train import Limits, LoopPlan, Outcome, Trainer
from mlsql.optimizer.stages import optimize, simplify
from mlsql.planner.node import Node
from mlsql.planner.ops import (
    Add,
    Argmax,
    Column,
    Index,
    Multiply,
    Parameter,
    Pick,
    Put,
    Reshape,
    ScatterAdd,
    Segment,
    Subtract,
    Sum,
    Take,
    constant,
    dot,
    mean,
)
from mlsql.planner.plan import Plan
from mlsql.types import DOUBLE, FLOAT, INTEGER, UNIT, Element, RowSet, category

__all__ = ["turns_of"]  # a fixture
ROWS, BATCH, STEPS = 43, 8, 100  # the last batch of an epoch has 3 rows
USERS, ITEMS, RANK = 50, 20, 3

Loss = Callable[[Callable[[str], Node], Element], Node]


def table(name: str, rows: int, element: Element) -> Parameter:
    return Parameter(name, element, (rows, RANK))


def factorization(column: Callable[[str], Node], element: Element) -> Node:
    """The mean squared error of dot(user, item) + offset."""
    user = Take(table("users", USERS, element), column("user"))
    item = Take(table("items", ITEMS, element), column("item"))
    error = Subtract(Add(dot(user, item), Parameter("offset", element)), column("rating"))
    return mean(Multiply(error, error))


def friends(column: Callable[[str], Node], element: Element) -> Node:
    """One table that is read by two indexes."""
    users = table("users", USERS, element)
    error = Subtract(dot(Take(users, column("user")), Take(users, column("item"))), column("rating"))
    return mean(Multiply(error, error))


def offsets(column: Callable[[str], Node], element: Element) -> Node:
    """A table of single numbers, read as PICK reads it."""
    error = Subtract(Pick(Parameter("users", element, (USERS,)), column("user")), column("rating"))
    return mean(Multiply(error, error))


@dataclass(frozen=True)
class Setting:
    """A solver with its options, and what WITH says beside."""

    solver: str
    options: dict[str, Any]
    clip_norm: float | None = None
    skip_nan: bool = False

    @property
    def all(self) -> dict[str, Any]:
        return {o.name: o.default for o in SOLVERS[self.solver].options} | self.options

    def __str__(self) -> str:
        extra = {k: v for k, v in (("clip_norm", self.clip_norm), ("skip_nan", self.skip_nan)) if v}
        return f"{self.solver} {self.options | extra}"


def loop_of(loss: Loss, setting: Setting, element: Element = FLOAT, *, whole: bool = False) -> LoopPlan:
    """The plan of training; with ``whole`` every step reads all rows."""
    rows = RowSet("table", ROWS)
    batch = rows if whole else RowSet("batch", BATCH)
    index = None if whole else Index(batch, rows)

    def column(name: str) -> Node:
        kind = {"user": INTEGER, "item": category("item")}.get(name, element)
        leaf = Column(name, rows, kind)
        return leaf if index is None else Take(leaf, index)

    plan = simplify(Plan({"loss": loss(column, element)})).plan
    parameters = [n for n in plan.nodes() if isinstance(n, Parameter)]
    rate = constant(setting.all["learning_rate"])
    training = training_plan(
        plan, parameters, SOLVERS[setting.solver].build(setting.all), rate, solver=setting.solver, epochs=0, steps=1,
        clip_norm=setting.clip_norm, skip_nan=setting.skip_nan,
    )  # fmt: skip
    iterate = training.iterate
    outputs = {"loss": iterate.loss, "rate": rate, **{str(i): n for i, n in enumerate(iterate.updates)}}
    best = optimize(Plan(outputs, training.names)).plan
    first, rate, *updates = best.outputs.values()
    states: Any = dict(zip(iterate.states, updates, strict=True))
    return LoopPlan(first, rate, states, rows, batch, index, training.spans, STEP, best.names)


def data(element: Element = FLOAT, seed: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """Columns, with keys that occur several times in a batch, and first values."""
    rng = np.random.default_rng(seed)
    kind = element.storage
    columns = {
        "user": (rng.integers(0, 8, ROWS) ** 2).astype("int32"),
        "item": rng.integers(0, 6, ROWS).astype("int64"),
        "rating": rng.normal(size=ROWS).astype(kind),
    }
    first = {"users": rng.normal(0, 0.5, (USERS, RANK)), "items": rng.normal(0, 0.5, (ITEMS, RANK)), "offset": 0.1}
    return columns, {n: np.asarray(v, kind) for n, v in first.items()}


def trainer(
    loop: LoopPlan, columns: dict[str, Any], first: dict[str, Any], *, kind: type[Trainer] = Trainer, **options: Any
) -> Trainer:
    batch = None if loop.index is None else BATCH
    return kind(
        loop, columns, first, {}, **{"batch_size": batch, "shuffle": False, "table_rows": ROWS, **options}
    )  # fmt: skip


def trained(loss: Loss, setting: Setting, element: Element = FLOAT, *, steps: int = STEPS, whole: bool = False) -> Any:
    columns, first = data(element)
    return trainer(loop_of(loss, setting, element, whole=whole), columns, first).run(Limits(steps=steps)).parameters


def batches(steps: int = STEPS, whole: bool = False) -> Iterator[slice]:
    """The rows of every step."""
    size = ROWS if whole else BATCH
    starts = range(0, ROWS, size)
    for i in range(steps):
        start = starts[i % len(starts)]
        yield slice(start, min(start + size, ROWS))


def close(found: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-5) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


# -- PyTorch -----------------------------------------------------------------------------------------------------------


def by_torch(make: Callable[..., Any], element: Element, *, sparse: bool, clip: float | None = None) -> dict[str, Any]:
    """The factorization with embeddings; the offset, which is no table, stays where it is."""
    torch = pytest.importorskip("torch")
    columns, first = data(element)
    tables = {
        n: torch.nn.Embedding.from_pretrained(torch.tensor(first[n]), freeze=False, sparse=sparse)
        for n in ("users", "items")
    }
    optimizer = make(torch.optim, [t.weight for t in tables.values()])
    user, item, rating = (torch.tensor(columns[n]) for n in ("user", "item", "rating"))
    for at in batches():
        optimizer.zero_grad()
        error = (tables["users"](user[at]) * tables["items"](item[at])).sum(1) - rating[at]
        error.square().mean().backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_([t.weight for t in tables.values()], clip)
        optimizer.step()
    return {n: t.weight.detach().numpy() for n, t in tables.items()}


def without_offset(column: Callable[[str], Node], element: Element) -> Node:
    """The factorization as PyTorch has it above."""
    user = Take(table("users", USERS, element), column("user"))
    item = Take(table("items", ITEMS, element), column("item"))
    error = Subtract(Sum(Multiply(user, item), False, (0,)), column("rating"))
    return mean(Multiply(Reshape(error, ()), Reshape(error, ())))


TINY = 1e-16  # SparseAdam adds epsilon before it corrects the moment, Adam, here and there, after it


@pytest.mark.parametrize("element", [FLOAT, DOUBLE], ids=str)
@pytest.mark.parametrize(
    ("setting", "make"),
    [
        (Setting("SGD", {"learning_rate": 0.2}), lambda o, w: o.SGD(w, lr=0.2)),
        (
            Setting("ADAM", {"learning_rate": 0.01, "epsilon": TINY}),
            lambda o, w: o.SparseAdam(w, lr=0.01, eps=TINY),
        ),
        (
            Setting("ADAM", {"learning_rate": 0.02, "beta1": 0.8, "beta2": 0.99, "epsilon": TINY}),
            lambda o, w: o.SparseAdam(w, lr=0.02, betas=(0.8, 0.99), eps=TINY),
        ),
    ],
    ids=str,
)
def test_a_hundred_steps_end_where_sparse_embeddings_end(setting: Setting, make: Any, element: Element) -> None:
    expected = by_torch(make, element, sparse=True)
    close(trained(without_offset, setting, element), expected, 1e-5 if element == FLOAT else 1e-10)


def test_plain_sgd_and_clipping_are_those_of_dense_embeddings() -> None:
    """Where the update rule carries nothing, laziness changes nothing; a key counts once in the norm."""
    for clip in (None, 0.05):
        expected = by_torch(lambda o, w: o.SGD(w, lr=0.3), DOUBLE, sparse=False, clip=clip)
        close(trained(without_offset, Setting("SGD", {"learning_rate": 0.3}, clip), DOUBLE), expected, 1e-7)


# -- the lazy rule, row by row -----------------------------------------------------------------------------------------


def lazy_row(o: dict[str, Any], solver: str, w: Any, g: Any, slots: dict[str, Any], step: int) -> Any:
    """The new weights of one row from its whole gradient; ``slots`` is what the rule keeps for the row."""
    decay, rate = o["weight_decay"], o["learning_rate"]
    if solver != "ADAMW":
        g = g + decay * w
    match solver:
        case "SGD" | "GD":
            slots["v"] = o["momentum"] * slots.get("v", 0) + g
            direction = g + o["momentum"] * slots["v"] if o["nesterov"] else slots["v"]
        case "ADAM" | "ADAMW":
            slots["m"] = o["beta1"] * slots.get("m", 0) + (1 - o["beta1"]) * g
            slots["s"] = o["beta2"] * slots.get("s", 0) + (1 - o["beta2"]) * g * g
            m, s = slots["m"] / (1 - o["beta1"] ** step), slots["s"] / (1 - o["beta2"] ** step)
            direction = m / (np.sqrt(s) + o["epsilon"]) + (decay * w if solver == "ADAMW" else 0)
        case "RMSPROP":
            slots["s"] = o["decay"] * slots.get("s", 0) + (1 - o["decay"]) * g * g
            slots["v"] = o["momentum"] * slots.get("v", 0) + g / (np.sqrt(slots["s"]) + o["epsilon"])
            direction = slots["v"]
        case "ADAGRAD":
            slots["s"] = slots.get("s", 0) + g * g
            direction = g / (np.sqrt(slots["s"]) + o["epsilon"])
    return w - rate * direction


def slopes(loss: Loss, at: slice, columns: dict[str, Any], w: dict[str, Any]) -> dict[tuple[str, int], Any]:
    """The gradient of every key that a batch reads, written out by hand."""
    user, item, rating = columns["user"][at], columns["item"][at], columns["rating"][at]
    total: dict[tuple[str, int], Any] = {}

    def add(name: str, key: int, g: Any) -> None:
        total[name, key] = total.get((name, key), 0) + g

    for u, i, r in zip(user, item, rating, strict=True):
        if loss is offsets:
            add("users", u, 2 * (w["users"][u] - r) / len(user))
            continue
        other = "users" if loss is friends else "items"
        offset = 0 if loss is friends else w["offset"][0]
        slope = 2 * (w["users"][u] @ w[other][i] + offset - r) / len(user)
        add("users", u, slope * w[other][i])
        add(other, i, slope * w["users"][u])
        if loss is not friends:
            add("offset", 0, slope)
    return total


def by_hand(loss: Loss, setting: Setting, *, steps: int = STEPS, whole: bool = False) -> dict[str, Any]:
    """The lazy rule with a dictionary of what is kept for each row."""
    columns, first = values_for(loss)
    w = {n: np.atleast_1d(v).astype(float) for n, v in first.items()}
    kept: dict[tuple[str, int], dict[str, Any]] = {}
    for step, at in enumerate(batches(steps, whole), 1):
        total = slopes(loss, at, columns, w)
        norm = math.sqrt(sum(float(np.sum(g * g)) for g in total.values()))
        factor = min(1, setting.clip_norm / (norm + 1e-6)) if setting.clip_norm else 1
        new = {
            (n, k): lazy_row(setting.all, setting.solver, w[n][k], g * factor, kept.setdefault((n, k), {}), step)
            for (n, k), g in total.items()
        }
        for (n, k), value in new.items():
            w[n][k] = value
    return {n: v.reshape(np.shape(first[n])) for n, v in w.items()}


def values_for(loss: Loss) -> tuple[dict[str, Any], dict[str, Any]]:
    columns, first = data(DOUBLE)
    names = {factorization: ("users", "items", "offset")}.get(loss, ("users",))
    first = {n: first[n] for n in names}
    return columns, {"users": first["users"][:, 0]} if loss is offsets else first


SETTINGS = [
    Setting("SGD", {"learning_rate": 0.2}),
    Setting("SGD", {"learning_rate": 0.2, "weight_decay": 0.1}),
    Setting("SGD", {"learning_rate": 0.1, "momentum": 0.9}),
    Setting("SGD", {"learning_rate": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.05}),
    Setting("ADAM", {"learning_rate": 0.02, "weight_decay": 0.1}),
    Setting("ADAMW", {"learning_rate": 0.02, "weight_decay": 0.1}),
    Setting("RMSPROP", {"learning_rate": 0.01, "momentum": 0.5, "weight_decay": 0.01}),
    Setting("ADAGRAD", {"learning_rate": 0.1}),
    Setting("SGD", {"learning_rate": 0.5}, clip_norm=0.2),
    Setting("ADAM", {"learning_rate": 0.02}, clip_norm=0.2, skip_nan=True),
]


@pytest.mark.parametrize("whole", [False, True], ids=["batches", "all rows"])
@pytest.mark.parametrize("loss", [factorization, friends, offsets])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_every_solver_follows_the_lazy_rule(setting: Setting, loss: Loss, whole: bool) -> None:
    columns, first = values_for(loss)
    found = trainer(loop_of(loss, setting, DOUBLE, whole=whole), columns, first).run(Limits(steps=STEPS)).parameters
    close(found, by_hand(loss, setting, whole=whole), 1e-7)


@pytest.mark.usefixtures("turns_of")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("whole", [False, True], ids=["batches", "all rows"])
@pytest.mark.parametrize("loss", [factorization, friends, offsets])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_loops_follow_the_lazy_rule(setting: Setting, loss: Loss, whole: bool, threads: int) -> None:
    found = in_loops(PlainTrainer, loss, setting, whole, threads, steps=12)
    close(found, by_hand(loss, setting, whole=whole, steps=12), 1e-9)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("loss", [factorization, friends])
def test_compiled_loops_follow_the_lazy_rule(loss: Loss, threads: int) -> None:
    setting = Setting("ADAM", {"learning_rate": 0.02, "weight_decay": 0.1})
    close(in_loops(CompiledTrainer, loss, setting, False, threads, steps=STEPS), by_hand(loss, setting), 1e-7)


def in_loops(
    kind: type[CompiledTrainer], loss: Loss, setting: Setting, whole: bool, threads: int, steps: int
) -> dict[str, Any]:
    """The parameters after some steps of a module for so many threads."""
    columns, first = values_for(loss)
    loop = loop_of(loss, setting, DOUBLE, whole=whole)
    module = compiled(loop, threads)
    assert not isinstance(module, str), module
    run_ = trainer(loop, columns, first, kind=kind, module=module, wait=True, notice=pytest.fail)
    return dict(run_.run(Limits(steps=steps)).parameters)


def test_every_solver_is_held_against_the_lazy_rule() -> None:
    assert {s.solver for s in SETTINGS} | {"GD"} == {name for name, s in SOLVERS.items() if s.needs is None}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1)), min_size=BATCH, max_size=BATCH))
def test_a_sparse_step_is_the_dense_step(keys: list[tuple[int, int]]) -> None:
    """Whatever the batch reads: the table moves against its whole gradient."""
    columns, first = data(DOUBLE)
    columns = {**columns, "user": columns["user"].copy(), "item": columns["item"].copy()}
    columns["user"][:BATCH], columns["item"][:BATCH] = np.array(keys).T
    found = trainer(SGD_LOOP, columns, first).run(Limits(steps=1)).parameters
    rows = RowSet("batch", BATCH)
    leaves = {n: Column(n, rows, DOUBLE if n == "rating" else INTEGER) for n in columns}
    sources = [table("users", USERS, DOUBLE), table("items", ITEMS, DOUBLE)]
    loss = factorization(leaves.__getitem__, DOUBLE)
    plan = optimize(Plan({p.name: g for p, g in zip(sources, gradients(loss, sources), strict=True)})).plan
    arrays: dict[Node, Any] = {n: columns[n.name][:BATCH] for n in leaves.values()}
    arrays |= {p: first[p.name] for p in [*sources, Parameter("offset", DOUBLE)]}
    close(found, {n: first[n] - 0.2 * g for n, g in run(plan, arrays).items()}, 1e-12)


SGD_LOOP = loop_of(factorization, SETTINGS[0], DOUBLE)


# -- steps that are left out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [factorization, friends])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_a_step_without_a_finite_loss_changes_nothing(setting: Setting, loss: Loss) -> None:
    """Neither the tables nor what the update rule keeps: the steps after it are those of a run without it."""
    skipping = Setting(setting.solver, setting.options, setting.clip_norm, skip_nan=True)
    columns, first = data()
    first = {n: v for n, v in first.items() if loss is factorization or n == "users"}
    broken = {**columns, "rating": columns["rating"].copy()}
    broken["rating"][BATCH + 1] = np.nan
    run_ = trainer(loop_of(loss, skipping), broken, first, stop_on_nan=False)
    run_.run(Limits(steps=1))
    before = {s: v.copy() for s, v in run_.states.items()}
    run_.frame(BATCH)(np.arange(BATCH, 2 * BATCH), 2)
    for state, value in run_.states.items():
        np.testing.assert_array_equal(value, before[state], err_msg=state.name)


# -- plans -------------------------------------------------------------------------------------------------------------


def test_rows_that_no_batch_reads_stay_as_they_are() -> None:
    for setting in SETTINGS:
        columns, first = data()
        found = trained(factorization, setting)
        unread = np.setdiff1d(np.arange(USERS), columns["user"])
        np.testing.assert_array_equal(found["users"][unread], first["users"][unread])
        assert not np.array_equal(found["users"], first["users"])


@pytest.mark.parametrize("loss", [factorization, friends])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_a_step_touches_no_more_than_its_rows(setting: Setting, loss: Loss) -> None:
    """Every table is written in its own array, no copy is made, and the arena holds no array of a table's size."""
    loop = loop_of(loss, setting)
    program, _ = loop.generated()
    tables = {s for s in loop.updates if len(s.shape) == 2}
    layout = program.layout
    assert {layout.overwrites[loop.updates[s]] for s in tables} == tables  # type: ignore[index]
    assert not tables & layout.copied_at_end.keys()
    assert all(isinstance(loop.updates[s], (ScatterAdd, Put)) for s in tables)
    assert not any(program.arrays[s] in line for s in tables for line in program.source.split("\n") if "copyto" in line)
    assert max(layout.slots) <= BATCH * RANK * FLOAT.bytes
    assert all(n.type.size == 1 for n in layout.slot if n.type.rows == UNIT)


def test_a_table_that_is_read_twice_is_written_in_place_too() -> None:
    loop = loop_of(friends, SETTINGS[0])
    program, _ = loop.generated()
    assert [n.operator_name() for n in program.layout.overwrites] == ["scatter_add"]
    assert program.source.count("add_scaled_rows(") == 2
    assert "copyto" not in program.source


def reads(loss: Node) -> set[str]:
    found = table_reads(loss, [n for n in Plan({"loss": loss}).nodes() if isinstance(n, Parameter)])
    return {p.name for p in found if isinstance(p, Parameter)}


def test_what_is_a_table() -> None:
    rows = RowSet("rows", 9)
    t, other = table("t", USERS, FLOAT), table("other", RANK, FLOAT)
    k, x = Column("k", rows, INTEGER), Column("x", rows, FLOAT, (RANK,))
    length = Sum(Multiply(t, t), False, (0, 1))
    read = Sum(Take(t, k), True, (0,))
    assert reads(read) == {"t"}
    assert reads(Add(read, Sum(Take(t, Column("l", rows, category("c"))), True, (0,)))) == {"t"}
    assert reads(Add(read, Reshape(length, (1,)))) == set(), "it is read as a whole too"
    assert reads(Sum(Take(t, Argmax(Take(other, k))), True, (0,))) == {"other"}, "a parameter chooses the rows of t"
    assert reads(Sum(Multiply(x, Take(t, Parameter("k", INTEGER))), True, (0,))) == set(), "one row for all"
    assert reads(Sum(Segment(x, k, UNIT, 3), False, (0, 1))) == set()


def test_a_read_that_cannot_change_the_loss_changes_nothing() -> None:
    def loss(column: Callable[[str], Node], element: Element) -> Node:
        """A table that is read by a comparison alone."""
        best = Argmax(Take(table("items", ITEMS, element), column("item")))
        picked = Pick(Take(table("users", USERS, element), column("user")), best)
        error = Subtract(picked, column("rating"))
        return mean(Multiply(error, error))

    _, first = data()
    for setting in SETTINGS:
        found = trained(loss, setting, steps=3)
        np.testing.assert_array_equal(found["items"], first["items"])
        assert not np.array_equal(found["users"], first["users"])


def test_the_same_seed_gives_the_same_bits() -> None:
    columns, first = data()

    def result(seed: int) -> Outcome:
        return trainer(loop_of(factorization, SETTINGS[4]), columns, first, shuffle=True, seed=seed).run(
            Limits(epochs=3)
        )

    one, two, other = result(1), result(1), result(2)
    assert all(np.array_equal(one.parameters[n], two.parameters[n]) for n in first)
    assert not np.array_equal(one.parameters["users"], other.parameters["users"])


def test_states_of_tables_have_names_of_their_own() -> None:
    """A table that is called weights is not the flat vector."""

    def loss(column: Callable[[str], Node], element: Element) -> Node:
        picked = Pick(Parameter("weights", element, (2,)), column("item"))
        error = Subtract(Multiply(picked, Sum(Parameter("v", element, (2,)), False, (0,))), column("rating"))
        return mean(Multiply(Reshape(error, ()), Reshape(error, ())))

    names = {s.name for s in loop_of(loss, SETTINGS[2]).updates}
    assert names == {"weights", "velocity", "table weights", "velocity of table weights"}


def test_put_replaces_rows_and_keeps_the_rest() -> None:
    rows = RowSet("rows", 4)
    base, x = Parameter("base", DOUBLE, (6, 2)), Column("x", rows, DOUBLE, (2,))
    values = np.arange(12.0).reshape(6, 2)
    index = np.array([5, 0, 5, 2])
    new = np.array([[1.0, 2], [3, 4], [1, 2], [5, 6]])
    node = Put(base, (x,), (Column("k", rows, INTEGER),))
    found = run(Plan({"y": node}), {base: values, x: new, node.index[0]: index.astype("int32")})["y"]
    np.testing.assert_array_equal(found, [[3, 4], [2, 3], [5, 6], [6, 7], [8, 9], [1, 2]])
    np.testing.assert_array_equal(values, np.arange(12.0).reshape(6, 2))


def test_an_index_out_of_range_reaches_no_other_row() -> None:
    """Such an index is refused where it is made; a kernel that gets one takes the nearest row, as Take does."""
    rows = RowSet("rows", 2)
    base, x, k = Parameter("base", FLOAT, (3,)), Column("x", rows, FLOAT), Column("k", rows, INTEGER)
    node = ScatterAdd(base, (x,), (k,), (constant(2.0),))
    arrays: dict[Node, Any] = {base: np.zeros(3, "f4"), x: np.ones(2, "f4"), k: np.array([-7, 99], "int32")}
    np.testing.assert_array_equal(run(Plan({"y": node}), arrays)["y"], [2, 0, 2])


def test_a_row_of_scale_0_is_not_read() -> None:
    """As in BLAS: so a step that is left out changes nothing, whatever the gradient is."""
    rows = RowSet("rows", 2)
    base, x, k = Parameter("base", FLOAT, (3,)), Column("x", rows, FLOAT), Column("k", rows, INTEGER)
    scale = Column("scale", rows, FLOAT)
    arrays: dict[Node, Any] = {base: np.ones(3, "f4"), k: np.array([0, 1], "int32")}
    arrays |= {x: np.array([np.nan, 5], "f4"), scale: np.array([0, 2], "f4")}
    found = run(Plan({"y": ScatterAdd(base, (x,), (k,), (scale,))}), arrays)["y"]
    np.testing.assert_array_equal(found, [1, 11, 1])


# -- in SQL ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["SGD (learning_rate = 0.3", "ADAM (learning_rate = 0.05", "SGD (momentum = 0.5"])
def test_a_vector_that_is_picked_from_is_trained_validated_and_used(solver: str) -> None:
    con = mlsql.connect(progress=False)
    con.execute("CREATE TABLE visits AS SELECT (i * i) % 7 AS k, ((i * i) % 7)::FLOAT * 0.1 AS y FROM range(100) t(i)")
    con.execute(
        "CREATE MODEL m INPUT (k INTEGER) TARGET (y FLOAT) PARAMETERS (level FLOAT[40] INIT ZEROS) "
        "AS SELECT PICK(level, k) AS guess MINIMIZE AVG(SQUARED_ERROR(guess, y))"
    )
    con.execute(f"TRAIN m ON visits VALIDATE 20 PERCENT WITH {solver}, batch_size = 16, epochs = 200)")
    worst = con.execute("SELECT max(abs(PREDICT(m, k) - y)) FROM visits").fetchone()[0]
    assert worst < 0.02
    code = con.execute(f"EXPLAIN (CODE) TRAIN m ON visits WITH {solver})").fetchall()
    assert any("add_scaled_rows" in line or "put_rows" in line for (line,) in code)


@pytest.mark.parametrize("batch", ["16", "ALL"])
def test_explain_lists_the_update_of_tables_and_vectors(batch: str) -> None:
    """Clipping makes the update read sums of gradients: they stand in its section, before what reads them."""
    con = mlsql.connect(progress=False)
    con.execute("CREATE TABLE visits AS SELECT i % 7 AS k, i * 0.1 AS x, i * 0.2 AS y FROM range(100) t(i)")
    con.execute(
        "CREATE MODEL m INPUT (k INTEGER, x FLOAT) TARGET (y FLOAT) PARAMETERS (level FLOAT[40] INIT ZEROS) "
        "AS SELECT PICK(level, k) + LINEAR(x, 1) AS guess MINIMIZE AVG(SQUARED_ERROR(guess, y))"
    )
    plan = [
        line
        for (line,) in con.execute(
            f"EXPLAIN TRAIN m ON visits WITH ADAM (clip_norm = 1, batch_size = {batch})"
        ).fetchall()
    ]
    update = "\n".join(line for line in plan if " update " in line)
    assert ("put(table level" in update) == (batch == "16")
    assert "weights - " in update
