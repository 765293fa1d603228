"""A clock for EXPLAIN ANALYZE: how long each operator of generated code ran, how often, over how many rows.

Code that is generated with ``timed=True`` calls ``begin()`` where it starts and ``clock(i)`` behind operator ``i``. Any
other code has no trace of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..planner.node import Node, substitute
from ..planner.ops import Column
from ..planner.plan import Plan


@dataclass
class Timed:
    """The operators of one program that is loaded in one thread, and what was measured of each in all its runs."""

    nodes: Sequence[Node]
    seconds: list[float] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    last: float = 0.0

    def __post_init__(self) -> None:
        count = len(self.nodes)
        self.seconds, self.runs, self.rows = [0.0] * count, [0] * count, [0] * count

    def begin(self) -> None:
        """The next operator starts now."""
        self.last = time.perf_counter()

    def clock(self, i: int, rows: int = 1) -> None:
        """Operator ``i`` ends now, having made so many rows."""
        now = time.perf_counter()
        self.seconds[i] += now - self.last
        self.runs[i] += 1
        self.rows[i] += rows
        self.last = time.perf_counter()


@dataclass(frozen=True)
class Measured:
    """What all runs of an operator came to: seconds, how many they were, rows."""

    seconds: float
    runs: int
    rows: int


@dataclass
class Clock:
    """Collects what the programs of a statement measure.

    ``plans`` are those that ran, each with a title. ``fixed`` says what was computed once for the columns that stand
    for it in a loop.
    """

    timed: list[Timed] = field(default_factory=list)
    fixed: dict[Node, Node] = field(default_factory=dict)
    plans: list[tuple[str, Plan]] = field(default_factory=list)

    def functions(self, nodes: Sequence[Node]) -> dict[str, Callable[..., None]]:
        """What timed code calls, for the operators of one program."""
        timed = Timed(nodes)
        self.timed.append(timed)
        return {"begin": timed.begin, "clock": timed.clock}

    def hoisted(self, fixed: Mapping[Column, Node]) -> None:
        """Operators over these columns are to be known by what the columns stand for."""
        self.fixed |= dict(fixed.items())

    def measured(self) -> dict[Node, Measured]:
        """The sums by operator, over all programs and threads."""
        found: dict[Node, Measured] = {}
        for timed in list(self.timed):
            nodes = substitute(timed.nodes, self.fixed)
            for node, seconds, runs, rows in zip(nodes, timed.seconds, timed.runs, timed.rows, strict=True):
                before = found.get(node, Measured(0.0, 0, 0))
                found[node] = Measured(before.seconds + seconds, before.runs + runs, before.rows + rows)
        return found
