"""A clock for EXPLAIN ANALYZE: how long each operator of generated code ran, how often, over how many rows.

Code that is generated with ``timed=True`` calls ``begin()`` where it starts and ``clock(i)`` behind operator ``i``. Any
other code has no trace of it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..planner.node import Node, substitute
from ..planner.ops import Column, constant
from ..planner.plan import Plan
from ..record import record


@dataclass
class Timed:
    """The operators of one program that is loaded in one thread, and what was measured of each in all its runs."""

    nodes: Sequence[Node]
    seconds: list[float] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        count = len(self.nodes)
        self.seconds, self.runs, self.rows = [0.0] * count, [0] * count, [0] * count

    def functions(self) -> dict[str, Callable[..., None]]:
        """What timed code calls: ``begin()`` where an operator starts, ``clock(i, rows)`` where operator i ends."""
        now, seconds, runs, rows = time.perf_counter, self.seconds, self.runs, self.rows
        last = 0.0

        def begin() -> None:
            nonlocal last
            last = now()

        def clock(i: int, count: int = 1) -> None:
            nonlocal last
            seconds[i] += now() - last
            runs[i] += 1
            rows[i] += count
            last = now()

        return {"begin": begin, "clock": clock}


@functools.cache
def overhead() -> float:
    """The seconds that the clock shows for an operator that does nothing: the least of some averages."""
    rounds, calls = 20, 200
    averages = []
    for _ in range(rounds):
        timed = Timed([constant(0.0)])
        functions = timed.functions()
        clock = functions["clock"]
        functions["begin"]()
        for _ in range(calls):
            clock(0)
        averages.append(timed.seconds[0] / calls)
    return min(averages)


@record
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
        return timed.functions()

    def hoisted(self, fixed: Mapping[Column, Node]) -> None:
        """Operators over these columns are to be known by what the columns stand for."""
        self.fixed |= dict(fixed.items())

    def measured(self) -> dict[Node, Measured]:
        """The sums by operator, over all programs and threads, without what the clock itself takes."""
        found: dict[Node, Measured] = {}
        for timed in list(self.timed):
            nodes = substitute(timed.nodes, self.fixed)
            for node, seconds, runs, rows in zip(nodes, timed.seconds, timed.runs, timed.rows, strict=True):
                before = found.get(node, Measured(0.0, 0, 0))
                net = max(0.0, seconds - runs * overhead())
                found[node] = Measured(before.seconds + net, before.runs + runs, before.rows + rows)
        return found
