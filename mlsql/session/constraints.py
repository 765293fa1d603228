"""WITHIN and MEMORY: what a training run is planned to stay in, and whether it did."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..autodiff.options import DEFAULT_SOLVER
from ..errors import OperationalError
from ..executor.footprint import peak, resident
from ..executor.run import arena_bytes
from ..executor.train import LoopPlan, Outcome
from ..figures import duration, size
from ..optimizer.solver import DOUBLE_BYTES
from ..parser.statements import Train
from ..types import concrete
from .choosing import is_free
from .compiling import may_compile, module_of
from .core import Session
from .training_plan import Planned, Settings

if TYPE_CHECKING:
    from ..executor.compiled.source import Compiled
    from ..executor.solve import Problem

DUCKDB_LEAST = 64 << 20  # bytes that DuckDB needs to read a wide table at all, beside MEMORY if this is less
PARTS = 3  # of what MEMORY leaves to streamed rows: a block each for two buffers, and DuckDB's
MATRICES = 3  # of second derivatives: the sum, its scaled copy, its factor


def why_not_streamed(statement: Train, settings: Settings) -> str | None:
    """What to change so that rows which do not fit into MEMORY can be streamed; None: they can."""
    if statement.per:
        return "PER needs all rows in memory: TRAIN a model for some of the groups at a time"
    if settings.options["class_weight"]:
        return "without class_weight the rows are streamed; WEIGHT BY takes a column of weights"
    if (settings.full_batch or settings.solver.needs is not None) and not is_free(statement):
        return f"WITH {DEFAULT_SOLVER} (batch_size = 512) the rows are streamed, block by block"
    return None


def duckdb_share(room: int) -> int:
    """The bytes that DuckDB may take while it reads rows that are streamed, where there is so much room for them."""
    return max(room // PARTS, DUCKDB_LEAST)


def resident_bytes(loop: LoopPlan, module: Compiled | None = None) -> int:
    """The bytes of the states and of what a step computes, interpreted or by a compiled module."""
    program = module or loop.generated()[0]
    return int(program.arena_bytes + sum(s.nbytes for s in loop.updates))


def once_bytes(loop: LoopPlan) -> float:
    """The bytes that what is computed once takes for each row of the table, on the way to it included."""
    _, fixed = loop.generated()
    by_row = [n for n in fixed.values() if n.type.rows == loop.table]
    if not by_row:
        return 0.0
    return (sum(n.nbytes for n in by_row) + arena_bytes(by_row)) / (loop.table.rows or 1)


def fitted(
    session: Session, settings: Settings, planned: Planned, columns: int, problem: Problem | None = None
) -> tuple[Settings, int | None]:
    """The settings of a run over so many bytes of columns, and its estimated bytes where MEMORY is given.

    Interpreted steps keep what they compute of all their rows. Where that does not fit into MEMORY, and a compiled step
    that runs in tiles does, steps are compiled from the first one on.
    """
    if settings.memory is None:
        return settings, None
    estimate = run_bytes(planned.loop, columns, problem)
    if estimate <= settings.memory or not may_compile(session, settings):
        return settings, estimate
    module = module_of(session, planned, settings)
    tiled = estimate if isinstance(module, str) else run_bytes(planned.loop, columns, module=module)
    return (replace(settings, in_tiles=True), tiled) if tiled <= settings.memory else (settings, estimate)


def check_run(settings: Settings, estimate: int | None, hint: str | None = None) -> None:
    """Raise OperationalError if a run does not fit into MEMORY."""
    if settings.memory is None or estimate is None:
        return
    check(settings, estimate, "it takes", hint)


def run_bytes(loop: LoopPlan, columns: int, problem: Problem | None = None, module: Compiled | None = None) -> int:
    """The estimated bytes of a run over so many bytes of columns."""
    _, fixed = loop.generated()
    once = sum(n.nbytes for n in fixed.values())
    matrices = 0
    if problem is not None and problem.product is not None:
        [weights] = concrete(problem.weights.shape)
        matrices = MATRICES * weights**2 * DOUBLE_BYTES
    return int(columns + once + resident_bytes(loop, module) + matrices)


def overflows(statement: Train, settings: Settings, estimate: int | None) -> bool:
    """Whether a run does not fit into MEMORY, but would if its rows were streamed."""
    if settings.memory is None or estimate is None or why_not_streamed(statement, settings) is not None:
        return False
    return estimate > settings.memory


def check(settings: Settings, estimate: int, what: str, hint: str | None = None) -> None:
    """Raise OperationalError if so many bytes are more than MEMORY allows."""
    if settings.memory is None or estimate <= settings.memory:
        return
    hint = hint or (
        "fewer rows or columns" if settings.full_batch else "a smaller batch_size, or fewer rows or columns"
    )
    raise OperationalError(
        f"the run does not fit into {size(settings.memory)}: {what} about {size(estimate)}",
        place=settings.memory_place,
        hint=f"{hint}, or MEMORY '{size(1.05 * estimate).replace(' ', '')}'",
    )


class Watch:
    """What a statement takes, from when this was made."""

    def __init__(self) -> None:
        self.before, self.peak_before = resident(), peak()

    def report(
        self, session: Session, settings: Settings, estimate: int | None, outcome: Outcome, streaming: str | None = None
    ) -> None:
        """Tell whether WITHIN and MEMORY held, and how rows were streamed, if they were."""
        limit = settings.limits.seconds
        if limit is not None:
            cut = outcome.stopped_because == "WITHIN"
            held = "the run was cut off after" if cut else "held," if outcome.seconds <= limit else "not held,"
            session.notice(f"WITHIN {limit:g} SECONDS: {held} {duration(outcome.seconds)}")
        if settings.memory is not None and estimate is not None:
            told = f"{self.memory(settings.memory, estimate)}{'; ' + streaming if streaming else ''}"
            session.notice(f"MEMORY '{size(settings.memory).replace(' ', '')}': {told}")

    def memory(self, allowed: int, estimate: int) -> str:
        """Whether the process grew by no more than was allowed. Its peak does not tell of growth below an older one."""
        grown, told = max(0, peak() - self.before), f"about {size(estimate)} estimated"
        if grown <= allowed:
            return f"held, {told}, at most {size(grown)} taken"
        if peak() > self.peak_before:
            return f"not held, {told}, {size(grown)} taken"
        return f"{told}; the process had more before, so that what was taken does not show"
