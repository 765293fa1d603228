"""The loops of operators that read whole arrays again and again, and so have a kernel of their own."""

from __future__ import annotations

from ...planner.node import At, Node
from ...planner.ops import KeySum
from ...planner.ops.segment import SegmentBest
from ...types import BOOLEAN, INTEGER, UNIT, Dim, RowSet, Shape, Type
from .fusion import Loop
from .loops import LoopWriter
from .texts import VARIABLES, indented, index


class SeveralLoopsWriter(LoopWriter):
    """Base of those that write several loops."""

    def over_entry(self, shape: Shape, *lines: str) -> list[str]:
        """Lines for every number of a row."""
        nest = self.nest(shape)
        nest.body += lines
        return nest.lines()


class BestWriter(SeveralLoopsWriter):
    """Writes the largest or the smallest values of groups, number by number; 0 for a group without rows.

    NaN wins and stays, as in NumPy.
    """

    def lines(self) -> list[str]:
        """The text: a comment, a loop over the groups and one over the rows."""
        [node] = self.loop.nodes
        assert isinstance(node, SegmentBest)
        entry, groups = node.x.type.shape, (node.size,) if node.rows == UNIT else ()
        seen = self.module.scratch(Type(node.rows, BOOLEAN, groups), "seen")
        count: Dim | RowSet = node.size if node.rows == UNIT else node.rows
        group, value = self.module.fresh("group"), self.module.fresh("value")
        given = f"{value} = {self.operand(self.value(node.x, At('r', self.entry(entry))), node.x, node.type.element)}"
        best = self.of_group(node, group)
        wins = f"if {value} {'>' if node.is_largest else '<'} {best} or {value} != {value}:"
        rows = [
            f"{group} = {self.position(node.index, At('r'), count)}",
            f"if {seen}[{group}]:",
            *indented(self.over_entry(entry, given, wins, f"    {best} = {value}")),
            "else:",
            f"    {seen}[{group}] = True",
            *indented(self.over_entry(entry, given, f"{best} = {value}")),
        ]
        return [
            *self.comments(),
            f"for g in range({node.size if node.rows == UNIT else self.module.rows(node.rows)}):",
            f"    {seen}[g] = False",
            *indented(self.over_entry(entry, f"{self.of_group(node, 'g')} = 0")),
            f"for r in range({self.module.rows(self.loop.rows)}):",
            *indented(rows),
        ]

    def of_group(self, node: SegmentBest, group: str) -> str:
        """A number of a group."""
        inside = VARIABLES[: len(self.nest(node.x.type.shape).sizes)]
        return f"{self.module.array(node)}[{', '.join((group, *inside))}]"


class KeySumWriter(SeveralLoopsWriter):
    """Writes, for every row, the sum over all rows that have its key, without a table of all keys.

    The first row of a key gathers its sum. Which row that is stands in an array over all keys, which is not cleared: an
    entry that is left from another step names no earlier row of this one with the key (Briggs and Torczon, "An
    Efficient Representation for Sparse Sets", 1993).
    """

    def lines(self) -> list[str]:
        """The text: a comment, a loop that finds first rows, one for each of what is added, and one that copies."""
        [node] = self.loop.nodes
        assert isinstance(node, KeySum)
        self.node, self.count = node, self.module.rows(node.by.type.rows)
        self.out = self.module.array(node)
        self.first_row = self.module.scratch(Type(UNIT, INTEGER, (node.size,)), "first_row")
        self.key, self.found = self.module.fresh("key"), self.module.fresh("found")
        added = [line for x, keys in zip(node.x, node.index, strict=True) for line in self.adding(x, keys)]
        return [*self.comments(), *self.finding(), *added, *self.copying()]

    def finding(self) -> list[str]:
        """Where a key comes first, its sum begins."""
        new = [f"{self.first_row}[{self.key}] = r", *self.over_entry(self.node.type.shape, f"{self.at('r')} = 0")]
        is_new = f"{self.found} < 0 or {self.found} >= r or {self.key_at(self.node.by, self.found)} != {self.key}"
        return self.over_rows(self.node.by, [f"if {is_new}:", *indented(new)])

    def adding(self, x: Node, keys: Node) -> list[str]:
        """A row is added to the first one with its key; a key that no row asks for is left out."""
        entry = At("r", self.entry(self.node.type.shape))
        value = self.operand(self.value(x, entry), x, self.node.type.element)
        lines = self.over_entry(self.node.type.shape, f"{self.at(self.found)} += {value}")
        if keys is not self.node.by:
            there = f"{self.key_at(self.node.by, self.found)} == {self.key}"
            lines = [f"if 0 <= {self.found} < {self.count} and {there}:", *indented(lines)]
        return self.over_rows(keys, lines)

    def copying(self) -> list[str]:
        """The other rows of a key have the sum of the first one."""
        copied = self.over_entry(self.node.type.shape, f"{self.at('r')} = {self.at(self.found)}")
        return self.over_rows(self.node.by, [f"if {self.found} != r:", *indented(copied)])

    def over_rows(self, keys: Node, body: list[str]) -> list[str]:
        """A loop over the rows that have these keys."""
        head = [f"{self.key} = {self.key_at(keys, 'r')}", f"{self.found} = {self.first_row}[{self.key}]"]
        return [f"for r in range({self.module.rows(keys.type.rows)}):", *indented([*head, *body])]

    def at(self, row: str) -> str:
        """A number of a row of the output."""
        return f"{self.out}{index(At(row, self.entry(self.node.type.shape)), self.node.type)}"

    def key_at(self, keys: Node, row: str) -> str:
        """The key of a row."""
        return self.position(keys, At(row), self.node.size)


def writer_of(loop: Loop) -> type[LoopWriter]:
    """What writes a loop."""
    first = loop.nodes[0] if loop.nodes else None
    return KeySumWriter if isinstance(first, KeySum) else BestWriter if isinstance(first, SegmentBest) else LoopWriter
