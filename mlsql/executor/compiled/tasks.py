"""What an inner loop does for an operator, and through which entry it runs."""

from __future__ import annotations

from ...planner.node import Node
from ...planner.ops import Argmax, Concat, Put, Reduce, ScatterAdd, Segment
from ...planner.ops.segment import SegmentBest
from ...record import record
from ...types import Shape, concrete


def key_of(shape: Shape) -> tuple[int, ...]:
    """The sizes that a loop over entries runs through."""
    return tuple(d for d in concrete(shape) if d != 1)


@record
class Task:
    """What an inner loop does for an operator: all of it, or one part of a concatenation."""

    node: Node
    part: int | None = None

    @property
    def shape(self) -> Shape:
        """The entry that the inner loop runs through."""
        n = self.node
        if isinstance(n, Concat) and self.part is not None:
            return n.parts[self.part].type.shape
        if isinstance(n, (Reduce, Argmax, Segment, SegmentBest)):
            return n.x.type.shape
        if isinstance(n, (ScatterAdd, Put)):
            return n.x[0].type.shape
        return n.type.shape

    @property
    def key(self) -> tuple[int, ...]:
        return key_of(self.shape)
