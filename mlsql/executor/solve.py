"""Solvers that decide by themselves where to look next: the loss and its gradient as a function of flat weights.

A step of such a solver's plan leaves the weights alone; what calls it is a *drive*: normal equations, Newton, L-BFGS.
Each of its iterations is an epoch in the log, and each evaluation of loss and gradient is a step.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..planner.node import Node
from ..planner.ops import State
from ..record import record
from .chunks import Chunked
from .codegen import generate
from .device import Array
from .hoist import hoist
from .run import Executable
from .train import Diverged, EpochLog, Limits, Outcome, Tally, Trainer

LEAST_CHUNK, CHUNK_NUMBERS = 512, 1 << 18  # rows, and numbers of slopes, that are worked on in the cache


@record
class Slopes:
    """The slopes of one affine value of each row: entry i is that by the weight at ``positions[i]``."""

    values: Node
    positions: tuple[int, ...]


@record
class Gram:
    """A Hessian as a sum over rows: of the slopes of each pair of scores, times the second derivative by both.

    ``curvature[i]`` has those by score i and each score; ``rest`` is the Hessian of the rest, times the direction.
    """

    slopes: tuple[Slopes, ...]
    curvature: tuple[Node, ...]
    rest: Node | None


@record
class Square:
    """The square of an affine residual, how much it counts, and its slopes or its Jacobian times the direction."""

    residual: Node
    weight: Node
    product: Node
    slopes: tuple[Slopes, ...]


@record
class Problem:
    """What is known of a loss beside its value and gradient.

    ``weights`` and ``gradient`` are the states of the loop. The Hessian is ``gram``, or ``product``: the Hessian times
    ``direction``, a flat vector. ``squares`` are what a sum of squares is made of (None: it is none).
    """

    weights: State
    gradient: State
    direction: State | None = None
    product: Node | None = None
    gram: Gram | None = None
    squares: tuple[Square, ...] | None = None


class Stopped(Exception):
    """A limit is met; ``reason`` is what TRAIN tells."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotSquares(Exception):
    """A loss that looks like a sum of squares has one that counts negatively."""


class SolverTrainer(Trainer):
    """A trainer whose epochs are the iterations of ``drive``, which says why it ended.

    ``notice`` is told what a user should know of the way that was taken.
    """

    def __init__(
        self,
        *arguments: Any,
        drive: Callable[[SolverTrainer], str],
        problem: Problem,
        options: Mapping[str, Any],
        notice: Callable[[str], None],
        **rest: Any,
    ) -> None:
        super().__init__(*arguments, **rest)
        self.drive, self.problem, self.options, self.notice = drive, problem, options, notice
        self.at = self.states[problem.weights].copy()  # the weights of the last iteration
        self.last_loss = math.nan
        self.rows_at_once: Chunked | None = None  # of the Hessian

    @property
    def size(self) -> int:
        """The number of weights."""
        return len(self.at)

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self, limits: Limits) -> Outcome:
        """Solve until the drive or a limit says that it is done. Raises Diverged if the loss is not finite."""
        self.limits = limits
        self.started = self.epoch_began = time.perf_counter()
        self.frames, self.epoch_step = {}, 0
        self.executable = self.load()
        with np.errstate(all="ignore"):
            try:
                reason = self.drive(self)
            except Stopped as stopped:
                reason = stopped.reason
                if not self.log:
                    self.enter(0.0)
            self.states[self.problem.weights][...] = self.at
        return self.outcome(self.best or self.parameters(), reason)

    def load(self) -> Executable:
        """The step's code and that of the Hessian's product, over what is computed once for both."""
        gram = self.problem.gram
        updates, product = self.plan.updates, self.problem.product if gram is None else gram.rest
        extra = [] if product is None else [product]
        outputs, fixed = hoist([self.plan.loss, self.plan.rate, *updates.values(), *extra])
        if self.clock is not None:
            self.clock.hoisted(fixed)
        self.fixed = self.computed_once(fixed)
        end = 2 + len(updates)
        after = dict(zip(updates, outputs[2:end], strict=True))
        arguments: list[Node] = [i for i in (self.plan.index,) if i is not None]
        if extra:
            self.product = Executable(generate(outputs[end:], names=self.plan.names, arguments=arguments))
        arguments = [*arguments, self.plan.step]
        timed = self.clock is not None
        step = generate(outputs[:2], updates=after, names=self.plan.names, arguments=arguments, timed=timed)
        return Executable(step, self.clock)

    def batches(self) -> Iterator[tuple[Any, ...]]:
        """All rows, in their order."""
        yield () if self.plan.index is None else (self.rows,)

    # -- what drives call ------------------------------------------------------------------------------------------

    def evaluate(self, weights: Array) -> tuple[float, Array]:
        """The loss and its gradient. Raises Stopped once the time is over."""
        if self.step_count:
            self.check_time()
        if self.limits.steps is not None and self.step_count >= self.limits.steps:
            raise Stopped("steps")
        self.states[self.problem.weights][...] = weights
        self.step_count += 1
        [batch] = self.batches()
        loss, _ = self.frame(len(self.rows))(*batch, self.step_count)
        if self.progress is not None and math.isfinite(loss):
            tally = Tally(loss * len(self.rows), len(self.rows))
            self.report(len(self.log) + 1, tally, self.epoch_began, time.perf_counter(), self.limits)
        return loss, self.states[self.problem.gradient].copy()

    def start(self) -> tuple[Array, float, Array]:
        """The first weights, with their loss and gradient."""
        loss, gradient = self.evaluate(self.at)
        self.check_finite(loss, gradient)
        self.last_loss = loss
        return self.at, loss, gradient

    def accept(self, weights: Array, loss: float, rate: float) -> None:
        """End an iteration at some weights. Raises Stopped where a limit is met."""
        reason = self.finish(weights, loss, rate)
        if reason is None and self.limits.epochs is not None and len(self.log) >= self.limits.epochs:
            reason = "epochs"
        if reason is not None:
            raise Stopped(reason)

    def finish(self, weights: Array, loss: float, rate: float) -> str | None:
        """Log an iteration that ends at some weights; why to stop, if there is a reason."""
        self.at, self.last_loss = weights.copy(), loss
        return self.enter(rate)

    def enter(self, rate: float) -> str | None:
        """Write the log's row of an iteration; why to stop, if there is a reason."""
        self.states[self.problem.weights][...] = self.at
        now = time.perf_counter()
        rows = len(self.rows) * (self.step_count - self.epoch_step)
        speed = rows / max(now - self.epoch_began, 1e-9)
        validation = None if self.validate is None else self.validate(self.states_by_node())
        self.epoch_began, self.epoch_step = time.perf_counter(), self.step_count
        elapsed = self.epoch_began - self.started
        entry = EpochLog(len(self.log) + 1, self.step_count, self.last_loss, validation, rate, speed, elapsed)
        return self.logged(entry, self.limits)

    def check_time(self) -> None:
        """Raise Stopped once WITHIN is over."""
        if self.limits.seconds is not None and time.perf_counter() - self.started > self.limits.seconds:
            raise Stopped("WITHIN")

    def check_finite(self, loss: float, *values: Array) -> None:
        """Raise Diverged unless all numbers are finite."""
        if not math.isfinite(loss) or not all(np.isfinite(v).all() for v in values):
            raise Diverged(
                f"the loss or its slope is not finite (loss {loss}) in iteration {len(self.log) + 1}",
                hint="inputs of one size help, for example STANDARDIZE(x) or FEATURES(x)",
            )

    # -- curvature -------------------------------------------------------------------------------------------------

    def hessian(self, weights: Array) -> Array:
        """The matrix of second derivatives."""
        self.states[self.problem.weights][...] = weights
        out = self.by_products() if self.problem.gram is None else self.by_rows(self.problem.gram)
        return (out + out.T) / 2

    def by_products(self) -> Array:
        """The Hessian, a column a product with a unit vector."""
        assert self.problem.direction is not None
        [batch] = self.batches()
        direction = np.zeros(self.size)
        states: dict[State, Array] = {**self.states, self.problem.direction: direction}
        arrays = {n: states[n] if isinstance(n, State) else self.column(n) for n in self.product.program.arrays}
        counts = self.row_counts(self.product.program.row_counts, len(self.rows))
        product = self.product.bind(arrays, counts)
        return np.stack([product(*batch)[0].copy() for _ in self.unit_vectors(direction)])

    def by_rows(self, gram: Gram) -> Array:
        """The Hessian as a sum over the rows, some rows at a time."""
        out = np.zeros((self.size, self.size)) if gram.rest is None else self.by_products()
        slopes = list(dict.fromkeys(s.values for s in gram.slopes))
        if self.rows_at_once is None:
            self.rows_at_once = self.chunked([*slopes, *gram.curvature])
        sums: dict[tuple[int, int], Array] = {}
        states: dict[Node, Array] = dict(self.states.items())
        for part in self.rows_at_once.parts(states):
            self.check_time()
            found = [np.asarray(v, np.float64) for v in part()]
            by_node = dict(zip(slopes, found, strict=False))
            for i, j in itertools.combinations_with_replacement(range(len(gram.slopes)), 2):
                weight = found[len(slopes) + i][:, j : j + 1]
                block = by_node[gram.slopes[i].values].T @ (weight * by_node[gram.slopes[j].values])
                sums[i, j] = sums[i, j] + block if (i, j) in sums else block
        for (i, j), block in sums.items():
            place = np.ix_(gram.slopes[i].positions, gram.slopes[j].positions)
            out[place] += block
            if i != j:
                out[np.ix_(gram.slopes[j].positions, gram.slopes[i].positions)] += block.T
        return out

    def unit_vectors(self, direction: Array) -> Iterator[int]:
        """Make an array one unit vector after another."""
        for k in range(self.size):
            self.check_time()
            direction[...] = 0
            direction[k] = 1
            yield k

    def jacobian(self) -> Iterator[Array]:
        """Of a sum of squares |A w + b|^2 the matrix [A, b], some rows at a time.

        The rows are scaled by the roots of the squares' weights. Raises NotSquares where one is negative.
        """
        assert self.problem.direction is not None
        direction = np.zeros(self.size)
        states: dict[Node, Array] = {self.problem.weights: np.zeros(self.size), self.problem.direction: direction}
        for s in self.problem.squares or ():
            slopes = [f.values for f in s.slopes] or [s.product]
            for part in self.chunked([s.residual, s.weight, *slopes]).parts(states):
                residual, weight, *found = (np.array(a, np.float64) for a in part())
                if (weight < 0).any():
                    raise NotSquares
                out = np.zeros((residual.size, self.size + 1))
                for i, f in enumerate(s.slopes):
                    out[i :: len(s.slopes), f.positions] = found[i]
                for k in () if s.slopes else self.unit_vectors(direction):
                    out[:, k] = np.ravel(part()[2])
                out[:, -1] = residual.ravel()
                yield out * np.sqrt(np.broadcast_to(weight, residual.shape)).reshape(-1, 1)

    def chunked(self, outputs: Sequence[Node]) -> Chunked:
        """Some nodes over the rows of the table, a chunk at a time."""
        table, rows = self.plan.table, len(self.rows)
        [batch] = self.batches()
        chunk = max(LEAST_CHUNK, CHUNK_NUMBERS // self.size)
        return Chunked(outputs, table, rows, self.column, lambda sets: self.row_counts(sets, rows), batch, chunk)
