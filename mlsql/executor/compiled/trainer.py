"""Training by compiled steps: interpreted ones until the compiled ones are there, with the same states."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from ...planner.node import Node, walk
from ...planner.ops import Column, Parameter, Positions, State
from ...planner.plan import Plan
from .. import blas
from ..device import Array, on_lines
from ..run import evaluate
from ..threads import pool
from ..train import Limits, Outcome, Stride, Trainer
from .pace import Pace
from .shared import LINE, TURNS
from .source import Compiled, Team

NO_ORDER = np.zeros(0, np.int64)


def together(runs: Sequence[Callable[..., int]], team: Team, threads: int, *arguments: Any) -> int:
    """Run the function on some threads at the same time; they meet at a common gate."""
    gate, parts = np.zeros(team.shares * LINE, np.int64), np.zeros((max(1, team.parts), TURNS * team.shares * LINE))
    common = threads, team.shares, gate, parts
    submit = pool("steps", team.shares - 1).submit
    others = [submit(on_core, i, runs[i], *arguments, i, *common) for i in range(1, threads)]
    done = on_core(0, runs[0], *arguments, 0, *common)
    for other in others:
        other.result()
    return done


@contextmanager
def core(number: int) -> Iterator[None]:
    """Inside, this thread stays on one of the process's cores: threads that meet are else woken on the same one."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    with suppress(OSError):
        os.sched_setaffinity(0, {sorted(before)[number % len(before)]})
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, before)


def on_core(number: int, run: Callable[..., int], *arguments: Any) -> int:
    """The function, on a core of its own."""
    with core(number):
        return run(*arguments)


class CompiledTrainer(Trainer):
    """Runs a loop plan by its compiled module, many steps a call.

    With ``wait`` the module is there before the first step; else another process compiles it while interpreted steps
    go on, and the compiled ones take over between two batches. Where that comes to nothing, ``notice`` is told why and
    all steps are interpreted.
    """

    def __init__(
        self, *arguments: Any, module: Compiled, wait: bool, notice: Callable[[str], None], **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.module, self.wait, self.notice = module, wait, notice
        self.compiling: Any = None  # the process that compiles, while it does
        self.functions: Any = None  # the module's functions, once they are there
        self.compiled: Any = None  # the function that runs steps over the present columns
        self.arenas = module.allocate(on_lines)
        self.pace = Pace([1] if module.team.shares == 1 else [module.team.shares, 1])
        self.compiled_from: int | None = None  # the first step that was compiled

    def run(self, limits: Limits) -> Outcome:
        with blas.threads():
            return self.run_held(limits)

    def run_held(self, limits: Limits) -> Outcome:
        """The run, while no library has more threads than there are cores."""
        from . import modules
        from .background import background, finished

        source = self.module.source
        try:
            self.functions = finished(source) if self.wait else modules.kept(source)
        except OSError as error:
            self.notice(f"steps are interpreted: there is no place to keep compiled code: {error}")
            return super().run(limits)
        if self.functions is None:
            self.compiling = background(source)
        return super().run(limits)

    def strides(self, limits: Limits) -> Iterator[Stride]:
        if self.plan.index is None:
            yield self.run_compiled(NO_ORDER, 1) if self.is_compiled() else self.stride(())
            return
        size = self.feed.batch_size
        for block in self.feed.blocks():
            self.attach(block.columns)
            order, at = block.order, 0
            while at < len(order):
                if self.is_compiled():
                    left = -(-(len(order) - at) // size)
                    if limits.steps is not None:
                        left = min(left, limits.steps - self.step_count)
                    stride = self.run_compiled(order[at:], left)
                else:
                    stride = self.stride((order[at : at + size],))
                at += size * len(stride.losses)
                yield stride

    def attach(self, columns: Mapping[str, Array]) -> None:
        if columns is not self.columns:
            self.compiled = None
        super().attach(columns)

    def is_compiled(self) -> bool:
        """Whether the next step can be a compiled one."""
        if self.functions is None and not self.switched():
            return False
        if self.compiled is None:
            self.compiled = self.bound()
        return True

    def switched(self) -> bool:
        """Whether the process that compiles has ended well; if it has failed, nobody waits for it any more."""
        if self.compiling is None or not self.compiling.is_done():
            return False
        self.functions = self.compiling.module()
        if self.functions is None:
            self.notice(f"steps are interpreted: {self.compiling.failure}")
        self.compiling = None
        return self.functions is not None

    def bound(self) -> Callable[..., int]:
        """The compiled function over the present columns and states, given the number of threads."""
        module = self.module
        counts = self.row_counts(module.row_counts, self.feed.batch_size)
        leaves = [*(counts[r] for r in module.row_counts), *(self.array(n) for n in module.arrays)]
        runs = [self.functions.prepare(arena, *leaves) for arena in self.arenas]
        if module.team.shares == 1:
            return lambda threads, *arguments: int(runs[0](*arguments))
        return functools.partial(together, runs, module.team)

    def array(self, node: Node) -> Array:
        """What an argument of prepare() stands for."""
        if isinstance(node, State):
            return self.states[node]
        if isinstance(node, (Column, Positions, Parameter)):
            return np.asarray(self.column(node), node.type.element.storage, order="C")
        leaves: dict[Node, Array] = {n: self.array(n) for n in walk(node.inputs) if isinstance(n, (Column, Parameter))}
        row_sets = {r for n in walk([node]) for r in n.row_sets()}
        value = evaluate(Plan({"value": node}), leaves, self.row_counts(row_sets, 1))["value"]
        return np.asarray(value, node.type.element.storage, order="C")

    def run_compiled(self, order: Array, most: int) -> Stride:
        """Some steps, at most so many, over the first rows of an order."""
        if self.compiled_from is None:
            self.compiled_from = self.step_count + 1
        threads, count = self.pace.next()
        count = min(count, most)
        losses, rates = np.empty(count), np.empty(count)
        began = time.perf_counter()
        size = self.feed.batch_size
        with blas.threads(1):  # each of our threads calls BLAS by itself
            done = self.compiled(threads, order, size, count, self.step_count + 1, self.stop_on_nan, losses, rates)
        self.pace.took(threads, done, time.perf_counter() - began)
        rows = np.full(done, self.feed.rows if self.plan.index is None else size)
        if self.plan.index is not None and done * size > len(order):
            rows[-1] = len(order) - (done - 1) * size
        return Stride(losses[:done], rows, float(rates[done - 1]))
