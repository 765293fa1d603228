"""Update rules against PyTorch's: the same weights, batches and options give the same weights after 100 steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from support import bind, moved

from mlsql.autodiff.options import COMMON, find_solver, read_options
from mlsql.autodiff.schedules import SCHEDULES, learning_rate
from mlsql.autodiff.training import STEP, training_plan
from mlsql.autodiff.updates import SOLVERS
from mlsql.errors import Place, ProgrammingError
from mlsql.executor.run import evaluate
from mlsql.executor.train import Diverged, Limits, LoopPlan, Outcome, Trainer
from mlsql.optimizer.stages import optimize, simplify
from mlsql.planner.ops import Counter, Index
from mlsql.planner.plan import Plan
from mlsql.types import RowSet, TypeProblem

ROWS, BATCH, STEPS = 40, 8, 100

MLP = """CREATE MODEL m INPUT (x FLOAT[4]) TARGET (k INTEGER)
AS SELECT TANH(LINEAR(x, 6)) AS hidden, LINEAR(hidden, 3) AS scores MINIMIZE AVG(CROSS_ENTROPY(scores, k))"""
SOFTMAX = (
    "CREATE MODEL m INPUT (x FLOAT[4]) TARGET (k INTEGER) AS SELECT LINEAR(x, 3) AS s MINIMIZE AVG(CROSS_ENTROPY(s, k))"
)
EXACT = """CREATE MODEL m INPUT (x DOUBLE[4]) TARGET (k INTEGER) PARAMETERS (a DOUBLE[6][4], b DOUBLE[3][6])
AS SELECT TANH(x @ a) @ b AS scores MINIMIZE AVG(CROSS_ENTROPY(scores, k))"""


NOWHERE = Place("", 0, 0)


@dataclass(frozen=True)
class Given:
    """An option as a statement would have it."""

    name: str
    value: Any
    place: Place = NOWHERE
    value_place: Place = NOWHERE


def options_of(solver: str, **given: Any) -> dict[str, Any]:
    return read_options(SOLVERS[solver], [Given(k, v) for k, v in given.items()])


def data(text: str, seed: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """Columns and first weights of a model."""
    rng = np.random.default_rng(seed)
    model = bind(text)
    exact = next(iter(model.inputs.values())).element.storage
    columns = {"x": rng.normal(size=(ROWS, 4)).astype(exact), "k": rng.integers(0, 3, ROWS).astype("int32")}
    parameters = {
        n: rng.normal(0, 0.5, p.node.shape).astype(p.node.element.storage) for n, p in model.parameters.items()
    }
    return columns, parameters


def trained(
    text: str, solver: str, columns: dict[str, Any], first: dict[str, Any], steps: int = STEPS, **given: Any
) -> Outcome:
    """A model trained by the loop, batches in the order of the rows."""
    model, o = bind(text), options_of(solver, **given)
    assert model.loss is not None
    whole = SOLVERS[solver].full_batch
    table = RowSet("table", ROWS)
    batch = table if whole else RowSet("batch", BATCH)
    index = None if whole else Index(batch, table)
    plan = simplify(Plan({"loss": model.loss}, model.names)).plan
    plan = moved(model, plan, table, index)
    rate = learning_rate(o["learning_rate"], o["schedule"], o["warmup_steps"], steps, STEP)
    training = training_plan(
        plan, [p.node for p in model.parameters.values()], SOLVERS[solver].build(o), rate, solver=solver, epochs=0,
        steps=1, clip_norm=o["clip_norm"], skip_nan=o["on_nan"] == "skip",
    )  # fmt: skip
    iterate = training.iterate
    outputs = {"loss": iterate.loss, "rate": rate, **{str(i): n for i, n in enumerate(iterate.updates)}}
    best = optimize(Plan(outputs, training.names)).plan
    loss, rate, *updates = best.outputs.values()
    states: Any = dict(zip(iterate.states, updates, strict=True))
    loop = LoopPlan(loss, rate, states, table, batch, index, training.spans, STEP, best.names)
    trainer = Trainer(
        loop, columns, first, {}, batch_size=None if whole else BATCH, shuffle=False, table_rows=ROWS,
        stop_on_nan=o["on_nan"] == "stop",
    )  # fmt: skip
    return trainer.run(Limits(steps=steps))


# -- parity ------------------------------------------------------------------------------------------------------------


def by_torch(
    text: str, make: Callable[..., Any], columns: Any, first: Any, whole: bool, clip: float | None
) -> dict[str, Any]:
    """The same in PyTorch. Its layers hold the transpose of ours; here the formula is written out instead."""
    torch = pytest.importorskip("torch")
    w = {n: torch.tensor(a, requires_grad=True) for n, a in first.items()}
    optimizer = make(torch.optim, list(w.values()))
    x, k = torch.tensor(columns["x"]), torch.tensor(columns["k"].astype("int64"))
    for i in range(STEPS):
        at = slice(None) if whole else slice(i * BATCH % ROWS, i * BATCH % ROWS + BATCH)
        if text is MLP:
            hidden = torch.tanh(torch.nn.functional.linear(x[at], w["hidden.weight"].T, w["hidden.bias"]))
            scores = torch.nn.functional.linear(hidden, w["scores.weight"].T, w["scores.bias"])
        elif text is SOFTMAX:
            scores = torch.nn.functional.linear(x[at], w["s.weight"].T, w["s.bias"])
        else:
            scores = torch.tanh(x[at] @ w["a"]) @ w["b"]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(scores, k[at]).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(list(w.values()), clip)
        optimizer.step()
    return {n: v.detach().numpy() for n, v in w.items()}


STEPPING = [name for name, s in SOLVERS.items() if s.needs is None]  # the others have test_second_order.py
PARITY: list[tuple[str, dict[str, Any], Callable[..., Any]]] = [
    ("SGD", {"learning_rate": 0.1}, lambda o, w: o.SGD(w, lr=0.1)),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9}, lambda o, w: o.SGD(w, lr=0.1, momentum=0.9)),
    ("SGD", {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True},
     lambda o, w: o.SGD(w, lr=0.05, momentum=0.9, nesterov=True)),
    ("SGD", {"learning_rate": 0.1, "weight_decay": 0.01, "momentum": 0.5},
     lambda o, w: o.SGD(w, lr=0.1, weight_decay=0.01, momentum=0.5)),
    ("SGD", {"learning_rate": 0.5, "clip_norm": 0.3}, lambda o, w: o.SGD(w, lr=0.5)),
    ("GD", {"learning_rate": 0.3}, lambda o, w: o.SGD(w, lr=0.3)),
    ("GD", {"learning_rate": 0.1, "momentum": 0.9}, lambda o, w: o.SGD(w, lr=0.1, momentum=0.9)),
    ("ADAM", {"learning_rate": 0.01}, lambda o, w: o.Adam(w, lr=0.01)),
    ("ADAM", {"learning_rate": 0.01, "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6, "weight_decay": 0.1},
     lambda o, w: o.Adam(w, lr=0.01, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1)),
    ("ADAM", {"learning_rate": 0.02, "clip_norm": 0.5}, lambda o, w: o.Adam(w, lr=0.02)),
    ("ADAMW", {"learning_rate": 0.01}, lambda o, w: o.AdamW(w, lr=0.01)),
    ("ADAMW", {"learning_rate": 0.01, "weight_decay": 0.2}, lambda o, w: o.AdamW(w, lr=0.01, weight_decay=0.2)),
    ("RMSPROP", {"learning_rate": 0.01}, lambda o, w: o.RMSprop(w, lr=0.01)),
    ("RMSPROP", {"learning_rate": 0.002, "decay": 0.9, "momentum": 0.9, "weight_decay": 0.01},
     lambda o, w: o.RMSprop(w, lr=0.002, alpha=0.9, momentum=0.9, weight_decay=0.01)),
    ("ADAGRAD", {"learning_rate": 0.05}, lambda o, w: o.Adagrad(w, lr=0.05)),
    ("ADAGRAD", {"learning_rate": 0.05, "weight_decay": 0.01}, lambda o, w: o.Adagrad(w, lr=0.05, weight_decay=0.01)),
]  # fmt: skip


@pytest.mark.parametrize("text", [MLP, SOFTMAX, EXACT], ids=["MLP", "softmax regression", "MLP in DOUBLE"])
@pytest.mark.parametrize(
    ("solver", "given", "make"), PARITY, ids=lambda v: str(v) if isinstance(v, (str, dict)) else ""
)
def test_a_hundred_steps_end_where_pytorch_ends(text: str, solver: str, given: dict[str, Any], make: Any) -> None:
    columns, first = data(text)
    outcome = trained(text, solver, columns, first, **given)
    expected = by_torch(text, make, columns, first, SOLVERS[solver].full_batch, given.get("clip_norm"))
    assert outcome.steps == STEPS
    for name, value in expected.items():
        scale = np.abs(value).max()
        tolerance = 1e-10 if text is EXACT else 1e-5
        np.testing.assert_allclose(
            outcome.parameters[name], value, rtol=tolerance, atol=tolerance * scale, err_msg=name
        )


def test_every_solver_is_held_against_pytorch() -> None:
    assert {solver for solver, _, _ in PARITY} == set(STEPPING)


# -- on_nan ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", STEPPING)
def test_a_step_without_a_finite_loss_leaves_everything_as_it_was(solver: str) -> None:
    columns, first = data(SOFTMAX)
    columns["x"][: BATCH // 2] = np.nan
    outcome = trained(SOFTMAX, solver, columns, first, steps=1, on_nan="skip")
    assert all(np.array_equal(outcome.parameters[n], v) for n, v in first.items())


@pytest.mark.parametrize("solver", STEPPING)
def test_skipping_changes_nothing_where_all_is_finite(solver: str) -> None:
    columns, first = data(MLP)
    plain, skipping = trained(MLP, solver, columns, first), trained(MLP, solver, columns, first, on_nan="skip")
    for n, value in plain.parameters.items():
        np.testing.assert_allclose(skipping.parameters[n], value, rtol=1e-5, atol=1e-6)


def test_a_loss_that_is_not_finite_stops_training() -> None:
    columns, first = data(SOFTMAX)
    columns["x"][:] = np.nan
    with pytest.raises(Diverged, match="the loss became nan at step 1; there was no finite loss before it"):
        trained(SOFTMAX, "SGD", columns, first)


# -- learning rates ----------------------------------------------------------------------------------------------------

CLOSED_FORMS: dict[str, Callable[[float], float]] = {
    "constant": lambda p: 1.0,
    "cosine": lambda p: 0.5 * (1 + math.cos(math.pi * p)),
    "linear": lambda p: 1 - p,
    "step": lambda p: 1.0 if p < 0.5 else 0.1 if p < 0.75 else 0.01,
}


def rate_at(step: int, name: str, base: float = 0.4, warmup: int = 0, total: int = 100) -> float:
    counter = Counter("step")
    plan = Plan({"rate": learning_rate(base, name, warmup, total, counter)})
    return float(evaluate(optimize(plan).plan, {counter: step}, {})["rate"])


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_follows_its_formula(name: str) -> None:
    for step in (1, 2, 26, 50, 51, 76, 100, 101, 250):
        progress = min((step - 1) / 100, 1)
        assert rate_at(step, name) == pytest.approx(0.4 * CLOSED_FORMS[name](progress), abs=1e-12)


def test_cosine_and_linear_are_pytorch_s() -> None:
    torch = pytest.importorskip("torch")
    schedulers = torch.optim.lr_scheduler
    for name, make in {
        "cosine": lambda o: schedulers.CosineAnnealingLR(o, T_max=100),
        "linear": lambda o: schedulers.LinearLR(o, start_factor=1.0, end_factor=0.0, total_iters=100),
    }.items():
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
        scheduler = make(optimizer)
        for step in range(1, 101):
            assert rate_at(step, name) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
            optimizer.step()
            scheduler.step()


def test_the_rate_rises_over_the_warm_up() -> None:
    assert [rate_at(s, "constant", 1.0, warmup=4) for s in (1, 2, 4, 5)] == [0.25, 0.5, 1, 1]
    assert rate_at(2, "linear", 1.0, warmup=4) == pytest.approx(0.5 * 0.99)


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
def test_defaults_are_of_the_declared_type(solver: str) -> None:
    options = options_of(solver)
    for o in (*SOLVERS[solver].options, *COMMON):
        assert o.doc
        assert options[o.name] is None or o.name == "batch_size" or isinstance(options[o.name], o.type), o.name


@pytest.mark.parametrize(
    ("solver", "given", "message"),
    [
        ("SGD", {"lerning_rate": 1}, 'SGD has no option lerning_rate\nhint: did you mean "learning_rate"?'),
        ("SGD", {"beta1": 0.5}, "SGD has no option beta1"),
        ("ADAM", {"learning_rate": "fast"}, "learning_rate must be a number, not 'fast'"),
        ("ADAM", {"learning_rate": True}, "learning_rate must be a number, not True"),
        ("ADAM", {"learning_rate": -1}, "learning_rate must be at least 0"),
        ("SGD", {"nesterov": 1}, "nesterov must be TRUE or FALSE, not 1"),
        ("SGD", {"epochs": 2.5}, "epochs must be a whole number, not 2.5"),
        ("SGD", {"epochs": math.inf}, "epochs must be a whole number, not inf"),
        ("SGD", {"epochs": 0}, "epochs must be at least 1"),
        ("SGD", {"batch_size": 0}, "batch_size must be at least 1"),
        ("SGD", {"batch_size": "some"}, "batch_size must be a whole number, not 'some'"),
        ("SGD", {"schedule": "cosin"}, "schedule must be 'constant' or 'cosine' or 'linear' or 'step', not 'cosin'\n"
         'hint: did you mean "cosine"?'),
        ("SGD", {"on_nan": "ignore"}, "on_nan must be 'stop' or 'skip', not 'ignore'"),
        ("SGD", {"steps": 5, "epochs": 5}, "steps and epochs cannot both be given"),
        ("GD", {"batch_size": 10}, "GD takes the whole table a step\nhint: SGD takes batches"),
        ("ADAM", {"learning_rate": math.nan}, "learning_rate must be a number, not nan"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_options_are_named(solver: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ProgrammingError) as caught:
        options_of(solver, **given)
    shown = caught.value.message + (f"\nhint: {caught.value.hint}" if caught.value.hint else "")
    assert shown.startswith(message)


def test_options_that_are_right() -> None:
    assert options_of("SGD", batch_size="all")["batch_size"] == "ALL"
    assert options_of("SGD", epochs=3.0)["epochs"] == 3
    assert options_of("SGD", schedule="COSINE")["schedule"] == "cosine"
    assert options_of("GD", batch_size="ALL")["batch_size"] == "ALL"


def test_an_option_given_twice_is_named() -> None:
    with pytest.raises(ProgrammingError, match="the option momentum is given twice"):
        read_options(SOLVERS["SGD"], [Given("momentum", 0.5), Given("MOMENTUM", 0.9)])


def test_an_unknown_solver_is_named() -> None:
    assert find_solver("adamw", None) is SOLVERS["ADAMW"]
    with pytest.raises(ProgrammingError, match="unknown solver ADAMS") as caught:
        find_solver("ADAMS", None)
    assert caught.value.hint == 'did you mean "ADAM"?'


def test_a_model_without_learnable_parameters_cannot_be_trained() -> None:
    with pytest.raises(TypeProblem, match="no parameter that could be trained"):
        training_plan(Plan({}), [], SOLVERS["SGD"].build(options_of("SGD")), STEP, solver="SGD", epochs=1, steps=1)
