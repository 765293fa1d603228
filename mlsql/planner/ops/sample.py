"""Sampling the members of groups: what a mini-batch over a graph reads of each neighbourhood.

A batch of n groups gets n * count slots. Slot s belongs to group s // count of the batch and stands for one member of
it; a group with fewer members leaves slots empty.
"""

from __future__ import annotations

from typing import ClassVar

from ...types import BIGINT, BOOLEAN, RowSet, Type, TypeProblem
from ..node import Emitter, Node, operator
from ..work import COMPILED, Access, Work
from .leaf import Positions


def _grouping(groups: Node) -> Positions:
    if not isinstance(groups, Positions):
        raise TypeProblem("only groups that DuckDB has computed can be sampled")
    return groups


@operator
class GroupSample(Node):
    """For each slot a member of its group, drawn without replacement anew at every step; 0 for an empty slot.

    ``index`` are the groups of the batch, ``groups`` the group of every row. A group of at most ``count`` members is
    taken whole. The draw depends on the seed, the number of the step and the group alone.
    """

    kind: ClassVar[str] = "take"
    index: Node
    groups: Node
    step: Node
    count: int
    rows: RowSet
    seed: int = 0

    def infer(self) -> Type:
        _grouping(self.groups)
        return Type(self.rows, BIGINT)

    def bytes(self) -> int:
        """Only the members that are taken are read."""
        return self.index.nbytes + 2 * self.nbytes

    def work(self) -> Work:
        """A random number and a look-up for each slot."""
        members = Access(self.rows.rows or 1, BIGINT.bytes, self.groups.nbytes)
        return Work(streamed=self.index.nbytes + self.nbytes, scattered=(members, members), calls=COMPILED)

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        groups = _grouping(self.groups)
        members = e.once(f"group_rows({inputs[1]}, {e.rows(groups.over)})")
        e.line(f"group_sample({inputs[0]}, {members}, {inputs[2]}, {self.seed}, {self.count}, {out})")


@operator
class SampleThere(Node):
    """Whether a slot holds a member: the first min(count, size of the group) slots of each group do."""

    kind: ClassVar[str] = "take"
    index: Node
    groups: Node
    count: int
    rows: RowSet

    def infer(self) -> Type:
        _grouping(self.groups)
        return Type(self.rows, BOOLEAN)

    def bytes(self) -> int:
        """The sizes of the batch's groups are read."""
        return 2 * self.index.nbytes + self.nbytes

    def work(self) -> Work:
        sizes = Access(self.index.type.rows.rows or 1, BIGINT.bytes, self.groups.nbytes)
        return Work(streamed=self.bytes(), gathered=(sizes,), calls=COMPILED)

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        groups = _grouping(self.groups)
        members = e.once(f"group_rows({inputs[1]}, {e.rows(groups.over)})")
        e.line(f"sample_there({inputs[0]}, {members}, {self.count}, {out})")


@operator
class SampleSlot(Node):
    """For each slot the group of the batch that it belongs to."""

    kind: ClassVar[str] = "positions"
    count: int
    rows: RowSet
    over: RowSet

    def infer(self) -> Type:
        return Type(self.rows, BIGINT)

    def work(self) -> Work:
        return Work(streamed=self.bytes(), calls=COMPILED)

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        e.call("sample_slots", self.count, out)
