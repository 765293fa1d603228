"""The text of compiled modules, run as plain Python, with NumPy's functions in place of the compiled ones.

That shows whether the text is right, number by number, and threads can take turns that no processor would give them.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mlsql.executor.compiled import replicas, shared, steps
from mlsql.executor.compiled.trainer import CompiledTrainer
from mlsql.executor.train import Limits, Trainer

Array = Any


def njit(*arguments: Any, **options: Any) -> Any:
    """A decorator that compiles nothing."""
    return Interpreted


class Interpreted:
    """A function that is not compiled, with what compiled ones have."""

    def __init__(self, function: Callable[..., int]) -> None:
        self.function = function
        self.names = function.__code__.co_varnames

    def bind(self, *last: Any) -> Callable[..., int]:
        return lambda *first: self.run(*first, *last)

    def run(self, *arguments: Any) -> int:
        """The function; if several threads run it, in turns."""
        given = dict(zip(self.names, arguments, strict=False))
        if "gate" not in given:
            return self.function(*arguments)
        mine = turns(given["gate"], given["threads"])
        mine.wait(given["thread"])
        try:
            return self.function(*arguments)
        finally:
            mine.end()


def product(x: Array, y: Array, out: Array) -> None:
    out[...] = x @ y


def added_product(x: Array, y: Array, out: Array) -> None:
    out += x @ y


def part(count: int, number: int, shares: int, step: int) -> tuple[int, int]:
    """The bounds of a share."""
    each = math.ceil(math.ceil(count / shares) / step) * step
    return min(number * each, count), min((number + 1) * each, count)


def ahead(r: int, rows: int, first: int, last: int, batch: int) -> int:
    """The position of the row that a share reads so many rows after row r."""
    further = r + min(rows, last - first)
    return further if further < last else further + batch - (last - first)


class Turns:
    """Threads that run one after another from each meeting to the next, each time in another order: what one needs of
    another without a meeting between them is then not there, or no longer."""

    seed = 0

    def __init__(self, threads: int) -> None:
        self.order, self.random = list(range(threads)), random.Random(self.seed)
        self.turn, self.changed = 0, threading.Condition()

    def wait(self, thread: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.order[self.turn] == thread, 60)

    def end(self) -> None:
        with self.changed:
            self.turn = (self.turn + 1) % len(self.order)
            if self.turn == 0:
                self.random.shuffle(self.order)
            self.changed.notify_all()

    def meet(self) -> None:
        thread = self.order[self.turn]
        self.end()
        self.wait(thread)


LOCK = threading.Lock()
TURNS: dict[tuple[int, int, int], Turns] = {}


def turns(gate: Any, threads: int) -> Turns:
    """Those of the threads that meet at a gate."""
    with LOCK:
        key = (id(gate), threads, Turns.seed)
        return TURNS[key] if key in TURNS else TURNS.setdefault(key, Turns(threads))


def meet(gate: Any, thread: int, threads: int) -> None:
    turns(gate, threads).meet()


PLAIN: dict[str, Any] = {
    "matmul": product,
    "add_product": added_product,
    "fetch": lambda x, order, position, size: None,
    "ahead": ahead,
    "share": part,
    "meet": meet,
    "nearest": lambda i, n: min(max(i, 0), n - 1),
    "plus": lambda total, x: total + x,
    "abs": np.abs,
    "across": np.arange,
    "total": np.sum,
    "largest": np.max,
    "least": np.min,
    "single": np.float32,
    "double": np.float64,
    "where": lambda c, a, b: np.where(c, a, b)[()],
    "power": np.power,
    "erf": lambda x: np.vectorize(math.erf)(x).astype(np.asarray(x).dtype)[()],
    **{f: getattr(np, f) for f in "exp log log1p tanh sin cos sqrt sign maximum minimum".split()},
}


class Plain:
    """A module whose functions are not compiled."""

    def __init__(self, source: str) -> None:
        text = source.partition("@njit(")
        names: dict[str, Any] = {}
        exec(text[0], names)
        names |= PLAIN | {
            "njit": njit,
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


@pytest.fixture(params=((1, 1), (1, 100), (2, 100)), ids=str)
def turns_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads of a module that is run as plain Python take turns, and have each something to do: they share loops
    over few numbers, or each computes for itself."""
    seed, worth = request.param
    monkeypatch.setattr(Turns, "seed", seed)
    monkeypatch.setattr(replicas, "WORTH_SHARING", worth)
    monkeypatch.setattr(shared, "STEP", 1)
    monkeypatch.setattr(steps, "STEP", 1)
