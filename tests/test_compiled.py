"""Compiled training: the generated module does what interpreted steps do, for random models and every solver.

Most tests run the module's text as plain Python, number by number, with NumPy's functions in place of the compiled
ones: that shows whether the text is right. Some compile it.
"""

from __future__ import annotations

import math
import random
import threading
from typing import Any

import numpy as np
import pytest
from random_models import bound, model_text, value

from mlsql.errors import ProgrammingError
from mlsql.executor.compiled.source import compiled
from mlsql.executor.compiled.team import share
from mlsql.executor.compiled.trainer import CompiledTrainer
from mlsql.executor.initialize import draw
from mlsql.executor.train import Limits, LoopPlan, Trainer
from mlsql.optimizer.cost import Machine
from mlsql.parser import parse
from mlsql.planner.model import Model
from mlsql.planner.node import Node, walk
from mlsql.planner.ops import Column, Positions
from mlsql.session.training_plan import check_learnable, plan_training, read_settings
from mlsql.types import TypeProblem

Array = Any
SOLVERS = (
    "SGD (learning_rate = 0.01, batch_size = {b})",
    "SGD (learning_rate = 0.01, momentum = 0.9, nesterov = true, batch_size = {b})",
    "ADAM (batch_size = {b}, weight_decay = 0.01)",
    "ADAMW (batch_size = {b}, schedule = 'cosine', warmup_steps = 2)",
    "RMSPROP (batch_size = {b}, momentum = 0.5)",
    "ADAGRAD (batch_size = {b}, clip_norm = 0.1)",
    "GD (momentum = 0.9)",
)


# -- the module as plain Python ----------------------------------------------------------------------------------------


def unchanged(*arguments: Any, **options: Any) -> Any:
    """A decorator that leaves a function as it is."""
    return lambda function: function


def product(x: Array, y: Array, out: Array) -> None:
    out[...] = x @ y


def meet(gate: Any, threads: int) -> None:
    """Threads that meet without spinning: one barrier a gate."""
    if threads == 1:
        return
    with LOCK:
        barrier = BARRIERS.setdefault(id(gate), threading.Barrier(threads))
    barrier.wait(60)


LOCK = threading.Lock()
BARRIERS: dict[int, threading.Barrier] = {}
PLAIN: dict[str, Any] = {
    "matmul": product,
    "fetch": lambda x, order, position: None,
    "share": share.py_func,
    "meet": lambda gate, threads: meet(gate, threads),
    "nearest": lambda i, n: min(max(i, 0), n - 1),
    "plus": lambda total, x: total + x,
    "abs": np.abs,
    "where": lambda c, a, b: a if c else b,
    "power": np.power,
    "erf": lambda x: type(x)(math.erf(x)),
    **{f: getattr(np, f) for f in "exp log log1p tanh sin cos sqrt sign maximum minimum".split()},
}


class Plain:
    """A module whose functions are not compiled."""

    def __init__(self, source: str) -> None:
        text = source.partition("@njit(")
        names: dict[str, Any] = {}
        exec(text[0], names)
        names |= PLAIN | {
            "njit": unchanged,
            "float32": np.float32,
            "float64": np.float64,
            "int32": np.int32,
            "uint16": np.uint16,
        }
        names |= {"Array": lambda *a, **k: None, "int64": Int64()}
        exec("@njit(" + text[2], names)
        self.prepare = names["prepare"]


class Int64:
    """The type that in a signature is called with the types of arguments."""

    def __call__(self, *arguments: Any) -> Any:
        return np.int64(arguments[0]) if len(arguments) == 1 else None


class PlainTrainer(CompiledTrainer):
    """Runs the text of a module from the first step on."""

    def run(self, limits: Limits) -> Any:
        self.functions = Plain(self.module.source)
        return Trainer.run(self, limits)


# -- random models -----------------------------------------------------------------------------------------------------


def loop_of(seed: int) -> tuple[Model, LoopPlan, bool, int, int]:
    """A random model's training loop: the model, the plan, whether it is full-batch, its rows, its batch size."""
    rng = random.Random(~seed)
    model = bound(model_text(seed), rng)
    rows = model.rows.rows if model.skeleton is not None else rng.randint(1, 9)
    rows = rows or 9
    size = rng.randint(1, rows)
    solver = rng.choice(SOLVERS).format(b=size)
    (statement,) = parse(f"TRAIN m ON t WITH {solver}")
    settings = read_settings(statement)
    assert model.loss is not None
    check_learnable(model, model.loss, statement.model.place)
    loop = plan_training(model, settings, rows, rows, subset=False, machine=Machine()).loop
    return model, loop, settings.full_batch, rows, size


def trained(kind: type[Trainer], case: tuple[Model, LoopPlan, bool, int, int], seed: int, **options: Any) -> Trainer:
    """The trainer after two epochs."""
    model, loop, full, rows, size = case
    outputs = [loop.loss, loop.rate, *loop.updates.values()]
    columns = {n.name: value(n, seed) for n in walk(outputs) if isinstance(n, (Column, Positions))}
    first = {n: np.asarray(draw(p, seed)) for n, p in model.parameters.items()}
    constants: dict[Node, Array] = {p.node: first[n] for n, p in model.parameters.items()}
    batch = None if full or loop.index is None else size
    trainer = kind(
        loop, columns, first, constants, batch_size=batch, table_rows=rows, seed=seed, stop_on_nan=False, **options
    )
    trainer.run(Limits(epochs=2))
    return trainer


def differences(expected: Trainer, found: Trainer, tolerance: float) -> list[str]:
    """Which states and losses are not close to one another, infinities and NaN being equal to themselves."""
    told = []
    pairs: list[tuple[str, Array, Array]] = [(s.name, a, found.states[s]) for s, a in expected.states.items()]
    losses = zip(expected.log, found.log, strict=True)
    pairs += [(f"loss {a.epoch}", np.array(a.loss), np.array(b.loss)) for a, b in losses]
    for name, a, b in pairs:
        if not np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True):
            told.append(f"{name}: {a} is not {b}")
    return told


def outcome(seed: int, kind: type[CompiledTrainer], tolerance: float = 2e-3, threads: int = 1) -> str:
    """What became of a seed: "the same", what differs, or why it is not compiled."""
    try:
        case = loop_of(seed)
    except (ProgrammingError, TypeProblem):
        return "no model"
    module = compiled(case[1], threads)
    if isinstance(module, str):
        return f"interpreted: {module}"
    expected = trained(Trainer, case, seed)
    found = trained(kind, case, seed, module=module, wait=True, notice=pytest.fail)
    return "\n".join(differences(expected, found, tolerance)) or "the same"


@pytest.mark.parametrize("share", range(10))
def test_the_text_of_random_models_is_right(share: int) -> None:
    found = {seed: outcome(seed, PlainTrainer) for seed in range(share * 30, share * 30 + 30)}
    wrong = {s: told for s, told in found.items() if told != "the same" and not told.startswith(("no model", "interp"))}
    assert not wrong, wrong
