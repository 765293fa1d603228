"""One view of a plan: plain values that every renderer reads, and nothing else does.

Text, JSON, Mermaid, DOT and the page are functions of a PlanView; none of them looks at a plan.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from ..record import record

ONCE, FORWARD, BACKWARD, UPDATE = "once", "forward", "backward", "update"  # when an operator of training runs
FACTOR, SHARE = 2.0, 0.01  # an estimate is marked if it is off by more than this, and more than this of all time


@record
class Actual:
    """What was measured of an operator in all its runs."""

    runs: int
    rows: float  # a run
    seconds: float
    flops: float
    bytes: float


@record
class Operator:
    """One operator of a plan; ``inputs`` are the operators that it reads, through views.

    ``seconds`` is the estimated time of one run; None while sizes are unknown. ``place`` is the library that runs it.
    """

    id: int
    name: str
    formula: str
    operator: str
    kind: str
    database: str  # what a database calls it
    network: str  # what machine learning calls it
    doc: str
    inputs: tuple[int, ...]
    has_rows: bool  # whether there is one value a row, not one in all
    rows: int | None  # how many, if that is known
    type: str
    when: str
    runs: float
    flops: int
    bytes: int
    seconds: float | None
    place: str
    actual: Actual | None = None

    @property
    def text(self) -> str:
        """The line of a tree: a leaf is what it is, an operator is its name and its formula."""
        said = self.formula in (self.name, f"{self.kind} {self.name}")
        return self.formula if said else f"{self.name} = {self.formula}"

    @property
    def total_seconds(self) -> float | None:
        """The estimated time of all runs."""
        return None if self.seconds is None else self.seconds * self.runs

    def is_misestimated(self, whole: float) -> bool:
        """Whether a run takes more than twice or less than half of the estimate, and that matters to the whole time."""
        if self.actual is None or self.seconds is None or not self.actual.runs:
            return False
        estimate, real = self.seconds * self.actual.runs, self.actual.seconds
        matters = max(estimate, real) > SHARE * whole
        return matters and max(estimate, real) > FACTOR * min(estimate, real)


@record
class Root:
    """What a plan is asked for: ``loss``, the next value of a state, an output."""

    label: str
    operator: int


@record
class StepView:
    """One rewriting. Costs are estimated seconds of the whole run; for a rule that always helps, of all runs of the
    operators that go, and of those that come."""

    number: int
    stage: str
    rule: str
    law: str
    before: str
    after: str
    cost_before: float | None
    cost_after: float | None
    why: str
    difference: float | None  # the largest relative difference of both sides on random rows
    plan_difference: float | None = None  # of loss and new weights, with the rule and without it


@record
class AlternativeView:
    """Something that was considered and lost."""

    kind: str
    name: str
    what: str
    seconds: float | None
    chosen_seconds: float | None
    reason: str

    @property
    def factor(self) -> float | None:
        """How many times longer it would take."""
        known = self.seconds is not None and self.chosen_seconds
        return self.seconds / self.chosen_seconds if known else None  # type: ignore[operator]


@record
class GraphNode:
    """A node of a plan on its way: a box, and what is said of it. A quiet one is drawn only if a step is about it."""

    name: str
    text: str
    operator: str
    kind: str
    database: str
    network: str
    doc: str
    has_rows: bool
    rows: int | None
    type: str
    frequency: str
    runs: float
    flops: int
    bytes: int
    seconds: float | None
    place: str
    quiet: bool
    actual: Actual | None = None


@record
class GraphChange:
    """What a step does to the graph. ``set`` has places that are new or read others: place, node, inputs' places."""

    set: tuple[tuple[int, int, tuple[int, ...]], ...]
    gone: tuple[int, ...]
    before: int | None
    after: int | None


@record
class TraceView:
    """The graph at the start of each phase, by the number of its first step from 0, and what every step changes.

    With ``is_local`` a step is shown without the plan around it, which is too large to follow through all steps.
    """

    nodes: tuple[GraphNode, ...]
    starts: tuple[tuple[int, GraphChange], ...]
    changes: tuple[GraphChange, ...]
    is_local: bool


@record
class Lines:
    """A titled list of lines below the tree: what DuckDB computes, its own plan."""

    title: str
    lines: tuple[str, ...]


@record
class PlanView:
    """A plan, how it came about and, after ANALYZE, what it took.

    ``title`` is the statement and what it runs under in a line, ``top`` what stands above the roots. ``seconds`` is
    the estimated time of the whole run, None while sizes are unknown; ``actual_seconds`` what it took.
    """

    title: str
    top: str
    roots: tuple[Root, ...]
    operators: tuple[Operator, ...]
    seconds: float | None
    machine: tuple[tuple[str, str], ...] = ()
    arena_bytes: int | None = None
    actual_seconds: float | None = None
    above: tuple[Lines, ...] = ()
    below: tuple[Lines, ...] = ()
    steps: tuple[StepView, ...] = ()
    alternatives: tuple[AlternativeView, ...] = ()
    notes: tuple[str, ...] = ()
    trace: TraceView | None = None

    @cached_property
    def whole(self) -> float:
        """The time that shares refer to: that of all operators, measured if it was."""
        actual = [o.actual.seconds for o in self.operators if o.actual is not None]
        return sum(actual) if actual else sum(o.total_seconds or 0.0 for o in self.operators)

    def by_id(self) -> dict[int, Operator]:
        """The operators by number."""
        return {o.id: o for o in self.operators}


Json = dict[str, Any]
