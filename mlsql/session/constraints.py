"""WITHIN and MEMORY: what a training run is planned to stay in, and whether it did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import OperationalError
from ..executor.dataset import Dataset
from ..executor.footprint import peak, resident
from ..executor.train import LoopPlan, Outcome
from ..figures import duration, size
from ..optimizer.solver import DOUBLE_BYTES
from ..types import concrete
from .core import Session
from .training_data import TrainingRows, used_leaves
from .training_plan import Settings

if TYPE_CHECKING:
    from ..executor.solve import Problem

MATRICES = 3  # of second derivatives: the sum, its scaled copy, its factor


def check_columns(session: Session, settings: Settings, rows: TrainingRows) -> None:
    """Raise OperationalError if the columns alone do not fit into MEMORY, before any is read."""
    if settings.memory is None:
        return
    query = rows.source.query
    [(count,)] = session.storage.rows(f"SELECT count(*) FROM {query.text}", query.values)
    types = [leaf.column.type for leaf in used_leaves(rows.model).values()]
    check(settings, count * sum((t.entry_size or 0) * t.element.bytes for t in types), "its columns take")


def check_run(settings: Settings, loop: LoopPlan, dataset: Dataset, problem: Problem | None) -> int | None:
    """The estimated bytes of a run; None where nobody asked. Raises OperationalError if they do not fit into MEMORY."""
    if settings.memory is None:
        return None
    program, fixed = loop.generated()
    columns = sum(a.nbytes for a in dataset.columns.values())
    once = sum(n.nbytes for n in fixed.values())
    states = sum(s.nbytes for s in loop.updates)
    matrices = 0
    if problem is not None and problem.product is not None:
        [weights] = concrete(problem.weights.shape)
        matrices = MATRICES * weights**2 * DOUBLE_BYTES
    estimate = columns + once + program.arena_bytes + states + matrices
    check(settings, estimate, "it takes")
    return int(estimate)


def check(settings: Settings, estimate: int, what: str) -> None:
    """Raise OperationalError if so many bytes are more than MEMORY allows."""
    if settings.memory is None or estimate <= settings.memory:
        return
    hint = "fewer rows or columns" if settings.full_batch else "a smaller batch_size, or fewer rows or columns"
    raise OperationalError(
        f"the run does not fit into {size(settings.memory)}: {what} about {size(estimate)}",
        place=settings.memory_place,
        hint=f"{hint}, or MEMORY '{size(1.05 * estimate).replace(' ', '')}'",
    )


class Watch:
    """What a statement takes, from when this was made."""

    def __init__(self) -> None:
        self.before, self.peak_before = resident(), peak()

    def report(self, session: Session, settings: Settings, estimate: int | None, outcome: Outcome) -> None:
        """Tell whether WITHIN and MEMORY held."""
        limit = settings.limits.seconds
        if limit is not None:
            cut = outcome.stopped_because == "WITHIN"
            held = "the run was cut off after" if cut else "held," if outcome.seconds <= limit else "not held,"
            session.notice(f"WITHIN {limit:g} SECONDS: {held} {duration(outcome.seconds)}")
        if settings.memory is not None and estimate is not None:
            session.notice(
                f"MEMORY '{size(settings.memory).replace(' ', '')}': {self.memory(settings.memory, estimate)}"
            )

    def memory(self, allowed: int, estimate: int) -> str:
        """Whether the process grew by no more than was allowed. Its peak does not tell of growth below an older one."""
        grown, told = max(0, peak() - self.before), f"about {size(estimate)} estimated"
        if grown <= allowed:
            return f"held, {told}, at most {size(grown)} taken"
        if peak() > self.peak_before:
            return f"not held, {told}, {size(grown)} taken"
        return f"{told}; the process had more before, so that what was taken does not show"
