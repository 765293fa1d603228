"""How often a node of a plan runs: once, or in every step of the training loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from ..planner.node import Node, depends_on, walk
from ..planner.ops import Counter, Index, State


class Frequency(Enum):
    """What a node's value changes with. The value of a member is what EXPLAIN prints."""

    ONCE = "once"  # data and frozen parameters: computed before the loop
    STEP = "step"  # weights, the step's number, the rows of a batch

    def __str__(self) -> str:
        return self.value


Runs = Mapping[Frequency, float]  # how many times each happens in a whole run
SINGLE: Runs = {Frequency.ONCE: 1, Frequency.STEP: 1}  # a plan outside of any loop


def changes_each_step(node: Node) -> bool:
    """Whether a leaf has another value in every step."""
    return isinstance(node, (Index, Counter, State))


def frequencies(outputs: Iterable[Node]) -> dict[Node, Frequency]:
    """How often each node of a plan has to run."""
    nodes = list(walk(outputs))
    moving = depends_on(nodes, [n for n in nodes if changes_each_step(n)])
    return {n: Frequency.STEP if n in moving else Frequency.ONCE for n in nodes}
