"""Loops that several threads share: each takes some of the rows, or of the numbers where there are no rows.

What is folded over a loop is folded by each thread for its share, and then put together in the order of the threads, so
that the same number of threads gives the same bits. Loops that write wherever an index says belong to one thread.
"""

from __future__ import annotations

from ...planner.node import At, Node
from ...planner.ops import Concat, Put, Reduce, ScatterAdd, Segment, Sum
from ...types import FLOAT, UNIT, RowSet, Type
from .fusion import is_single
from .loops import LoopWriter, Nest, SharingModule, combined, indented, index

WORTH_SHARING = 4096  # numbers of a loop without rows
STEP = 16  # shares begin at multiples of it: a register full of numbers
LINE = 8  # numbers of 64 bits of a line of cache


class SharedLoopWriter(LoopWriter):
    """Writes a loop of which each thread runs its share."""

    module: SharingModule

    def lines(self) -> list[str]:
        self.partials: list[tuple[Reduce, str]] = []  # arrays in which each thread folds rows
        self.numbers: list[tuple[Reduce, str]] = []  # numbers that each thread folds
        self.kept: list[str] = []  # lines that store single numbers
        nests = [self.inner_loop(tasks) for tasks in self.inner]
        body = self.over_rows(nests) if self.row else self.over_entry(nests)
        lines = [*self.comments(), *self.starts, *body]
        if self.numbers:
            lines += [f"parts[{self.module.part(n)}, thread * {LINE}] = {name}" for n, name in self.numbers]
        if self.numbers or self.partials or self.kept or self.writes_arrays():
            lines.append("meet(gate, threads)")
        for node, name in self.numbers:
            lines += self.put_together(node, name)
        lines += self.after
        one = [*(line for n, name in self.partials for line in self.added(n, name)), *self.kept]
        if one:
            lines += ["if thread == 0:", *indented(one), "meet(gate, threads)"]
        return lines

    def writes_arrays(self) -> bool:
        return any(n in self.fusion.arrays or isinstance(n, Concat) for n in self.loop.nodes)

    def over_rows(self, nests: list[Nest]) -> list[str]:
        """A share of the rows; one thread's, where rows write to others."""
        body = [line for nest in nests for line in nest.lines()]
        if not body:
            return []
        if any(isinstance(n, (Segment, ScatterAdd, Put)) for n in self.loop.nodes):
            loop = [f"for r in range({self.module.rows(self.loop.rows)}):", *indented(body)]
            return ["if thread == 0:", *indented([*self.before, *loop])]
        count = self.module.rows(self.loop.rows)
        share = f"first, last = share({count}, thread, threads, 1)"
        return [*self.before, share, "for r in range(first, last):", *indented(body)]

    def over_entry(self, nests: list[Nest]) -> list[str]:
        """A share of the numbers of an entry; single numbers are computed by every thread."""
        lines: list[str] = []
        for tasks, nest in zip(self.inner, nests, strict=True):
            if not nest.sizes and not isinstance(tasks[0].node, Concat):
                lines += nest.lines()
                continue
            folds = any(isinstance(t.node, Reduce) and not is_single(t.node) for t in tasks)
            size = tasks[0].key[0] if tasks[0].key else 1
            entry = 1
            for d in tasks[0].key:
                entry *= d
            if isinstance(tasks[0].node, Concat) or folds or entry < WORTH_SHARING or size < STEP:
                lines += ["if thread == 0:", *indented(nest.lines())]
            else:
                lines.append(f"first, last = share({nest.sizes[0]}, thread, threads, {STEP})")
                lines += nest.lines("first, last")
        return lines

    # -- what is folded over the loop ----------------------------------------------------------------------------------

    def accumulator(self, node: Reduce) -> tuple[str, str]:
        if any(isinstance(n, (Segment, ScatterAdd, Put)) for n in self.loop.nodes):
            return self.module.array(node), ""  # the loop is one thread's
        name = self.module.partial(node.type, self.module.name(node))
        self.partials.append((node, name))
        return name, "thread"

    def added(self, node: Reduce, partial: str) -> list[str]:
        """Lines that put together the entries that the threads have folded."""
        target = self.module.array(node)
        nest = self.nest(node.type.shape)
        entry = self.entry(node.type.shape)
        place = f"{target}{index(At('', entry), node.type)}"
        nest.body.append(f"{place} = {partial}{index(At('0', entry), node.type)}")
        rest = self.nest(node.type.shape)
        other = f"{partial}{index(At('t', entry), node.type)}"
        rest.body.append(f"{place} = {combined(node, place, other)}")
        return [*nest.lines(), "for t in range(1, threads):", *indented(rest.lines())]

    def folded(self, node: Reduce, name: str) -> None:
        if self.row or node.x.type.entry_size != 1:
            self.numbers.append((node, name))

    def put_together(self, node: Reduce, name: str) -> list[str]:
        """Lines that make one number of those of all threads."""
        row = self.module.part(node)
        is_total = bool(self.row) and isinstance(node, Sum)
        cast = "float32" if node.type.element == FLOAT and not is_total else ""
        first, other = f"parts[{row}, 0]", f"parts[{row}, t * {LINE}]"
        if cast:
            first, other = f"{cast}({first})", f"{cast}({other})"
        return [f"{name} = {first}", "for t in range(1, threads):", f"    {name} = {combined(node, name, other)}"]

    def store(self, line: str, nest: Nest) -> None:
        self.kept.append(line)


def threads_of(count: int) -> RowSet:
    """A row for each thread."""
    return RowSet("threads", count)


def of_threads(type: Type, count: int) -> Type:
    """An entry of a type for each thread."""
    assert type.rows == UNIT
    return type.with_(rows=threads_of(count))


def shares_rows(node: Node) -> bool:
    """Whether threads share the rows of a product's result, and not its columns."""
    sizes = node.type.shape
    return node.type.rows != UNIT or (isinstance(sizes[0], int) and isinstance(sizes[1], int) and sizes[0] >= sizes[1])
