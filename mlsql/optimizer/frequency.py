"""How often a node of a plan runs: once, or in every step of the training loop."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from enum import IntEnum

from ..planner.node import Node, walk
from ..planner.ops import Counter, Index, Parameter, State


class Frequency(IntEnum):
    """How often a value changes; what changes with another one changes at least as often."""

    ONCE = 0  # data and frozen parameters: computed before the loop
    STEP = 1  # weights, the step's number, the rows of a batch

    def __str__(self) -> str:
        return self.name.lower()


Runs = Mapping[Frequency, float]  # how many times each happens in a whole run
SINGLE: Runs = {Frequency.ONCE: 1, Frequency.STEP: 1}  # a plan outside of any loop


def changes_each_step(node: Node) -> bool:
    """Whether a leaf may have another value in every step. What is frozen, such as a column's average, has not."""
    return isinstance(node, (Index, Counter, State)) or (isinstance(node, Parameter) and not node.frozen)


_KNOWN: weakref.WeakKeyDictionary[Node, bool] = weakref.WeakKeyDictionary()


def is_learned(*nodes: Node) -> bool:
    """Whether the values of nodes may change from step to step: because of what is learned, or of the batch."""
    for n in walk(nodes, _KNOWN):
        _KNOWN[n] = changes_each_step(n) or any(_KNOWN[i] for i in n.inputs)
    return any(_KNOWN[n] for n in nodes)


def frequencies(outputs: Iterable[Node]) -> dict[Node, Frequency]:
    """How often each node of a plan has to run."""
    return {n: Frequency.STEP if is_learned(n) else Frequency.ONCE for n in walk(outputs)}
