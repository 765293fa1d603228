"""The training loop: batches of a row set through one generated step, until something says stop."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import OperationalError
from ..planner.node import Node, walk
from ..planner.ops import Column, Counter, Index, Parameter, Positions, State
from ..planner.plan import Plan
from ..progress import Progress, Standing
from ..record import record
from ..types import UNIT, RowSet, concrete
from .clock import Clock
from .codegen import Program, generate
from .device import Array, on_lines
from .feed import Feed, InMemory
from .hoist import hoist
from .matrix import without_joins
from .run import Executable, Folding, evaluate


@record
class LoopPlan:
    """An optimized training plan, ready to run.

    ``outputs`` are the loss and the learning rate; ``updates`` the new value of every state. ``index`` picks the rows
    of a batch from ``table``; None means that every step reads the whole table. ``beside`` are the indexes that a step
    takes besides, ``steps`` is the number of steps of an epoch. ``spans`` says in which state a parameter lies, from
    where to where along its first axis.
    """

    loss: Node
    rate: Node
    updates: Mapping[State, Node]
    table: RowSet
    batch: RowSet
    index: Index | None
    spans: Mapping[Parameter, tuple[State, int, int]]
    step: Counter
    names: Mapping[Node, str] = field(default_factory=dict)
    beside: tuple[Index, ...] = ()
    steps: int = 1
    multiples: Mapping[RowSet, int] = field(default_factory=dict)  # row sets with so many rows a row of the batch

    def row_counts(self, row_sets: Iterable[RowSet], batch_rows: int) -> dict[RowSet, int]:
        """The rows of each row set in a step over so many rows."""
        found = {}
        for r in row_sets:
            found[r] = batch_rows * self.multiples.get(r, 1) if r == self.batch or r in self.multiples else r.rows or 1
        return found

    def generated(self, timed: bool = False) -> tuple[Program, dict[Column, Node]]:
        """The step's program, and the plans of what is computed once before the loop."""
        outputs, fixed = hoist([self.loss, self.rate, *self.updates.values()])
        updates = dict(zip(self.updates, outputs[2:], strict=True))
        arguments = [self.step] if self.index is None else [self.index, *self.beside, self.step]
        program = generate(outputs[:2], updates=updates, names=self.names, arguments=arguments, timed=timed)
        return program, fixed


@record
class Limits:
    """When training stops. ``until`` is asked after every epoch, given what the log's row holds."""

    epochs: int | None = None
    steps: int | None = None
    seconds: float | None = None
    patience: int | None = None
    until: Callable[[Mapping[str, float]], bool] | None = None


@record
class Stride:
    """Some steps that were run without a look around: the loss and the rows of each, the last one's learning rate."""

    losses: Sequence[float] | Array
    rows: Sequence[int] | Array
    rate: float


@dataclass
class Tally:
    """The finite losses of an epoch so far, summed by rows: step by step, however many run without a look around."""

    total: float = 0.0
    rows: int = 0

    def add(self, stride: Stride) -> None:
        """Add the losses of some steps."""
        if len(stride.losses) == 1:  # an interpreted step, to which calls of NumPy would add a tenth
            [loss], [rows] = stride.losses, stride.rows
            if math.isfinite(loss):
                self.total += float(loss * rows)
                self.rows += int(rows)
            return
        losses, rows = np.asarray(stride.losses), np.asarray(stride.rows)
        finite = np.isfinite(losses)
        self.total = float(np.cumsum(np.append(self.total, (losses * rows)[finite]))[-1])
        self.rows += int(rows[finite].sum())

    def loss(self) -> float:
        """The average over the rows."""
        return self.total / self.rows if self.rows else math.nan


@record
class EpochLog:
    """What one epoch came to."""

    epoch: int
    step: int
    loss: float
    validation_loss: float | None
    learning_rate: float
    rows_per_second: float
    seconds: float


@dataclass
class Outcome:
    """What training gave: the weights by parameter name, and how it went."""

    parameters: dict[str, Array]
    epochs: int
    steps: int
    rows: int
    loss: float | None
    validation_loss: float | None
    seconds: float
    stopped_because: str
    log: list[EpochLog]


class Diverged(OperationalError):
    """The loss became infinite or NaN."""


class Trainer:
    """Runs a loop plan over arrays.

    ``columns`` are the table's columns by name, ``rows`` the rows to train on (None: all), ``initial`` the first
    value of every learnable parameter by name, ``constants`` that of frozen ones by node. ``validate`` gives the
    loss on other rows for the current parameters. A ``clock`` takes the time of every operator. A ``feed`` brings rows
    that do not all lie in memory, and their columns; it is closed at the end of a run.
    """

    def __init__(
        self,
        plan: LoopPlan,
        columns: Mapping[str, Array],
        initial: Mapping[str, Array],
        constants: Mapping[Node, Array],
        *,
        rows: Array | None = None,
        batch_size: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        stop_on_nan: bool = True,
        validate: Callable[[Mapping[Node, Array]], float] | None = None,
        progress: Progress | None = None,
        table_rows: int = 1,
        clock: Clock | None = None,
        feed: Feed | None = None,
    ) -> None:
        self.clock = clock
        self.plan, self.constants = plan, dict(constants)
        self.rows = np.arange(table_rows) if rows is None else rows
        self.is_fed = feed is not None
        self.feed = feed or InMemory(columns, self.rows, batch_size, shuffle=shuffle, seed=seed)
        self.table_rows = table_rows
        self.shuffle, self.stop_on_nan = shuffle, stop_on_nan
        self.validate, self.progress = validate, progress
        self.states = self.first_states(initial)
        self.columns = columns
        self.once: Mapping[Column, Node] = {}  # what is computed once before the loop, and the columns that hold it
        self.fixed: Mapping[Node, Array] = {}
        self.log: list[EpochLog] = []
        self.step_count = 0
        self.best: dict[str, Array] | None = None  # the parameters of the best epoch, if patience asks for them
        self.best_loss, self.stale = math.inf, 0

    def first_states(self, initial: Mapping[str, Array]) -> dict[State, Array]:
        """Flat vectors and tables with the first weights in place, zeros for what the update rule carries."""
        states = {s: zeros((*lead(s), *concrete(s.shape)), s.element.storage) for s in self.plan.updates}
        for parameter, (state, start, stop) in self.plan.spans.items():
            part = part_of(states[state], state, start, stop)
            part[...] = initial[parameter.name].reshape(part.shape)
        return states

    def parameters(self) -> dict[str, Array]:
        """The learnable parameters as they are now, as copies."""
        return {
            p.name: np.array(
                part_of(self.states[state], state, start, stop).reshape((*lead(state), *concrete(p.shape))),
                p.element.storage,
            )
            for p, (state, start, stop) in self.plan.spans.items()
        }

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self, limits: Limits) -> Outcome:
        """Train until a limit is met. Raises Diverged if the loss is not finite and that is to stop training."""
        self.started = time.perf_counter()
        self.frames: dict[int, Any] = {}
        self.executable = self.load()
        reason, epoch = "epochs", 0
        with np.errstate(all="ignore"), contextlib.closing(self.feed):
            while limits.epochs is None or epoch < limits.epochs:
                epoch += 1
                entry, cut_short = self.run_epoch(epoch, limits)
                reason = self.logged(entry, limits, cut_short) or "epochs"
                if reason != "epochs":
                    break
        return self.outcome(self.best or self.parameters(), reason)

    def logged(self, entry: EpochLog, limits: Limits, cut_short: str | None = None) -> str | None:
        """Enter an epoch in the log, keep the best parameters if patience asks for it, and say why to stop, if so."""
        self.log.append(entry)
        watched = entry.loss if entry.validation_loss is None else entry.validation_loss
        self.stale = 0 if watched < self.best_loss else self.stale + 1
        if limits.patience and self.stale == 0:
            self.best = self.parameters()
        self.best_loss = min(self.best_loss, watched)
        return cut_short or self.reason_to_stop(entry, self.stale, limits)

    def load(self) -> Executable:
        """The step's code, with what is computed once before the loop in place."""
        program, self.once = self.plan.generated(timed=self.clock is not None)
        if self.clock is not None:
            self.clock.hoisted(self.once)
        self.fixed = {} if self.is_fed else self.computed_once(self.once)
        return Executable(program, self.clock)

    def computed_once(self, fixed: Mapping[Column, Node]) -> dict[Node, Array]:
        """The values of what no parameter reaches."""
        if not fixed:
            return {}
        outputs, matrices, joins = without_joins(list(fixed.values()), self.column)
        if self.clock is not None:
            self.clock.hoisted(joins)
        plan = Plan({c.name: n for c, n in zip(fixed, outputs, strict=True)})
        read = [n for n in walk(outputs) if isinstance(n, (Column, Positions, Parameter))]
        leaves: dict[Node, Array] = {n: matrices[n] if n in matrices else self.column(n) for n in read}
        row_sets = {r for n in walk(outputs) for r in n.row_sets()}
        counts = self.row_counts(row_sets, self.table_rows)
        if self.is_fed:
            counts[self.plan.table] = len(next(iter(self.columns.values()), ()))
        values = evaluate(plan, leaves, counts, self.clock)
        return {c: values[c.name] for c in fixed}

    def column(self, leaf: Node) -> Array:
        if leaf in self.fixed:
            return self.fixed[leaf]
        return self.constants[leaf] if isinstance(leaf, Parameter) else self.columns[leaf.name]  # type: ignore[attr-defined]

    def frame(self, rows: int) -> Any:
        """step() for batches of a size; the last batch of an epoch may be a smaller one."""
        if rows not in self.frames:
            arrays = {
                leaf: self.states[leaf] if isinstance(leaf, State) else self.column(leaf)
                for leaf in self.executable.program.arrays
            }
            counts = self.row_counts(self.executable.program.row_counts, rows)
            self.frames[rows] = self.executable.bind(arrays, counts)
        return self.frames[rows]

    def row_counts(self, row_sets: Iterable[RowSet], batch_rows: int) -> dict[RowSet, int]:
        """The rows of each row set in a step over so many rows."""
        return self.plan.row_counts(row_sets, batch_rows)

    def rows_of(self, batch: tuple[Any, ...]) -> int:
        """How many rows a step reads."""
        return len(batch[0]) if batch else self.feed.rows

    def batches(self) -> Iterator[tuple[Any, ...]]:
        """The indexes of each batch of an epoch; one empty tuple when the whole table is a batch."""
        if self.plan.index is None:
            yield ()
            return
        size = self.feed.batch_size
        for block in self.feed.blocks():
            self.attach(block.columns)
            for start in range(0, len(block.order), size):
                yield (block.order[start : start + size],)

    def strides(self, limits: Limits) -> Iterator[Stride]:
        """The steps of an epoch, run when they are asked for."""
        for batch in self.batches():
            yield self.stride(batch)

    def stride(self, batch: tuple[Any, ...]) -> Stride:
        """One step of interpreted code."""
        count = self.rows_of(batch)
        loss, rate = self.frame(count)(*batch, self.step_count + 1)
        return Stride([loss], [count], rate)

    def attach(self, columns: Mapping[str, Array]) -> None:
        """Let the next steps read these columns; what is computed once of them is computed anew."""
        if columns is not self.columns:
            self.columns, self.frames, self.fixed = columns, {}, {}
            self.fixed = self.computed_once(self.once)

    @property
    def steps_per_epoch(self) -> int:
        return 1 if self.plan.index is None else -(-self.feed.rows // self.feed.batch_size)

    def run_epoch(self, epoch: int, limits: Limits) -> tuple[EpochLog, str | None]:
        """One pass over the rows; says why it ended early, if it did."""
        began = time.perf_counter()
        tally, rate, cut_short = Tally(), 0.0, None
        deadline = math.inf if limits.seconds is None else self.started + limits.seconds
        for stride in self.strides(limits):
            rate = stride.rate
            tally.add(stride)
            self.step_count += len(stride.losses)
            if self.stop_on_nan and not math.isfinite(stride.losses[-1]):  # no step is run after such a one
                raise self.diverged(stride.losses[-1], tally)
            now = time.perf_counter()
            if self.progress is not None:
                self.report(epoch, tally, began, now, limits)
            if limits.steps is not None and self.step_count >= limits.steps:
                cut_short = "steps"
                break
            if now > deadline:
                cut_short = "WITHIN"
                break
        seconds = time.perf_counter() - began
        validation = None if self.validate is None else self.validate(self.states_by_node())
        elapsed = time.perf_counter() - self.started
        speed = tally.rows / max(seconds, 1e-9)
        return EpochLog(epoch, self.step_count, tally.loss(), validation, rate, speed, elapsed), cut_short

    def states_by_node(self) -> Mapping[Node, Array]:
        """What a validation plan reads: states and frozen parameters."""
        return self.constants | dict(self.states.items())

    def reason_to_stop(self, entry: EpochLog, stale: int, limits: Limits) -> str | None:
        if limits.until is not None and limits.until(
            {
                "epoch": entry.epoch,
                "step": entry.step,
                "loss": entry.loss,
                "validation_loss": math.nan if entry.validation_loss is None else entry.validation_loss,
                "seconds": entry.seconds,
            }
        ):
            return "UNTIL"
        return "patience" if limits.patience and stale >= limits.patience else None

    def diverged(self, loss: float, tally: Tally) -> Diverged:
        good = tally.loss() if tally.rows else (self.log[-1].loss if self.log else None)
        last = "there was no finite loss before it" if good is None else f"the last good loss was {good:.6g}"
        return Diverged(
            f"the loss became {loss} at step {self.step_count}; {last}",
            hint="a smaller learning_rate, clip_norm = 1, or on_nan = 'skip'",
        )

    def report(self, epoch: int, tally: Tally, began: float, now: float, limits: Limits) -> None:
        """Tell the progress display where training stands."""
        assert self.progress is not None
        per_step = (now - self.started) / self.step_count
        steps = limits.steps or (limits.epochs * self.steps_per_epoch if limits.epochs else None)
        left = None if steps is None else (steps - self.step_count) * per_step
        self.progress.update(
            Standing(
                epoch=epoch,
                step=self.step_count,
                steps_per_epoch=self.steps_per_epoch,
                loss=tally.loss(),
                rows_per_second=tally.rows / max(now - began, 1e-9),
                seconds_left=left,
            )
        )

    def outcome(self, parameters: dict[str, Array], reason: str) -> Outcome:
        """How the run went so far: the last epoch, or the best one if patience ended it."""
        last = self.log[-1] if self.log else None
        if reason == "patience":
            last = min(self.log, key=lambda e: e.loss if e.validation_loss is None else e.validation_loss)
        return Outcome(
            parameters,
            len(self.log),
            self.step_count,
            self.feed.rows,
            last.loss if last else None,
            last.validation_loss if last else None,
            time.perf_counter() - self.started,
            reason,
            self.log,
        )


def lead(state: State) -> tuple[int, ...]:
    """The axis of rows of a state that has them."""
    return () if state.rows == UNIT else (state.rows.rows or 0,)


def zeros(shape: tuple[int, ...], dtype: str) -> Array:
    """An array of zeros at the start of a line of the cache."""
    array = on_lines(math.prod(shape), dtype).reshape(shape)
    array.fill(0)
    return array


def part_of(array: Array, state: State, start: int, stop: int) -> Array:
    """The view of a state's array in which a parameter lies."""
    return array[start:stop] if state.rows == UNIT else array[:, start:stop]


def validation(plan: Plan, rows: RowSet, columns: Mapping[str, Array]) -> Callable[[Mapping[Node, Array]], float]:
    """The loss on held-out rows as a function of the states, evaluated in chunks."""
    fold = Folding(plan, rows)
    return lambda states: float(next(iter(fold(columns, states).values())))


def condition(node: Node, counters: Sequence[Counter]) -> Callable[[Mapping[str, float]], bool]:
    """The condition of UNTIL as a function of the log's row."""
    step = Executable(generate([node], arguments=counters)).bind({}, {})
    return lambda values: bool(step(*(values[c.name] for c in counters))[0])
