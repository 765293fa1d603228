"""Loops that several threads share: a share is some of the rows, or of the numbers where there are no rows.

What is folded over a loop is folded for each share, and then put together in the order of the shares. How many shares
there are is fixed when the module is made, and threads that are fewer take several: so any number of threads gives the
same bits. Of a loop that writes wherever an index says, the first share is all. For few numbers shares have two places,
which steps use by ``turn``: so no thread has to wait until the others have read.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...planner.node import At, Node
from ...planner.ops import Argmax, Concat, Put, Reduce, ScatterAdd, Segment, Sum
from ...types import FLOAT, UNIT, RowSet, Type
from .fusion import Loop, is_single
from .loops import LoopWriter
from .meetings import InTurns, Place, Section
from .reader import SharingModule
from .replicas import is_few
from .tasks import key_of
from .texts import Nest, combined, indented, index

STEP = 16  # shares begin at multiples of it: a register full of numbers
MINE = "first, last"
SHARES = "for p in range(thread, shares, threads):"
PADDING = 16  # numbers: at least a line of the cache
LINE = 8  # numbers of 64 bits of a line of cache
TURNS = 2  # places that steps use by turns


class SharedLoopWriter(LoopWriter):
    """Writes a loop of which each thread runs its share."""

    module: SharingModule

    def __init__(self, module: SharingModule, loop: Loop, scalars: dict[Node, str]) -> None:
        super().__init__(module, loop, scalars)
        self.partials: list[tuple[Node, str]] = []  # arrays in which each share folds rows
        self.numbers: list[tuple[Reduce, str]] = []  # numbers that each share folds
        self.kept: list[str] = []  # lines that store single numbers
        self.is_alone = True  # only the first thread reads and writes arrays

    def sections(self) -> list[Section]:
        """The loop, and what puts together what the shares have folded."""
        nests = [self.inner_loop(tasks) for tasks in self.inner]
        lines = self.over_rows(nests) if self.row else self.over_entry(nests)
        reads = self.module.places_read(self.loop.nodes)
        loop = Section([*self.comments(), *lines], reads, self.writes(), self.is_alone)
        return [loop, *ends(self.module, [self])]

    def writes(self) -> frozenset[Place]:
        """The places that the loop itself writes to."""
        folded = {n for n, _ in (*self.partials, *self.numbers)}
        stored = [n for n in self.loop.nodes if n in self.fusion.arrays and n not in folded]
        places = {p for n in stored for p in self.module.places(n)}
        return frozenset(places.union(place_of(*partial) for partial in self.partials)) | self.places_of_numbers()

    def places_of_numbers(self) -> frozenset[Place]:
        """Where the shares leave the numbers that they fold."""
        return frozenset(InTurns(f"parts {self.module.part(n)}") for n, _ in self.numbers)

    def places_of_singles(self) -> frozenset[Place]:
        """Where single numbers are stored."""
        singles = [n for n in self.loop.nodes if is_single(n) and n in self.fusion.arrays]
        return frozenset(p for n in singles for p in self.module.places(n))

    def ahead(self, rows: int) -> str:
        return f"start + ahead(r, {rows}, {MINE}, batch)"

    def scatters(self) -> bool:
        """Whether rows write to places that other rows may write to as well."""
        return any(isinstance(n, (Segment, ScatterAdd, Put)) for n in self.loop.nodes)

    def over_rows(self, nests: list[Nest]) -> list[str]:
        """Shares of the rows; the first share is all of them where rows write to the same places."""
        body = [line for nest in nests for line in nest.lines()]
        if not body:
            return []
        loop = [f"for r in range({MINE}):", *indented([*self.fetched(), *self.top_lines, *body])]
        before = once(self.before) if self.scatters() else self.before
        behind = once(self.behind) if self.scatters() else self.behind
        return self.shares(self.module.rows(self.loop.rows), not self.scatters(), 1, [*before, *loop, *behind])

    def over_entry(self, nests: list[Nest]) -> list[str]:
        """Shares of the numbers of an entry, if they are many; single numbers, and where the best of an entry is, are
        computed by every thread."""
        lines: list[str] = []
        for tasks, nest in zip(self.inner, nests, strict=True):
            parts = isinstance(tasks[0].node, Concat)
            is_place = any(isinstance(t.node, Argmax) and is_single(t.node) for t in tasks)
            if is_place or (not nest.sizes and not parts):
                lines += [*self.starts, *nest.lines()]
                reads = [s for t in tasks for s in self.fusion.sources(t.node) if self.module.places(s)]
                self.is_alone = self.is_alone and not reads
            elif parts or any(isinstance(t.node, (Reduce, Argmax)) and not is_single(t.node) for t in tasks):
                lines += self.shares("1", False, 1, once(nest.lines()))
            else:
                many = not is_few(tasks[0].shape) and tasks[0].key[0] >= STEP
                lines += self.shares(nest.sizes[0], many, STEP, nest.lines(MINE))
        return lines

    def shares(self, count: str, is_divided: bool, step: int, lines: list[str]) -> list[str]:
        """Lines that a thread runs for each of its shares of so many positions; else the first share is all of them."""
        self.is_alone = self.is_alone and not (is_divided or self.numbers)
        share = f"first, last = share({count}, p, {'shares' if is_divided else 1}, {step})"
        return [SHARES, *indented([share, *self.starts, *lines, *self.keep()])]

    def keep(self) -> list[str]:
        """Lines that leave the numbers of a share to be put together."""
        return [f"parts[{self.module.part(n)}, (turn + p) * {LINE}] = {name}" for n, name in self.numbers]

    # -- what is folded over the loop ----------------------------------------------------------------------------------

    def accumulator(self, node: Reduce) -> tuple[str, str]:
        if self.scatters():
            return self.module.array(node), ""  # the first share is all of the loop
        name = self.module.partial(node.type, self.module.name(node))
        self.partials.append((node, name))
        return name, share_of(node, "p")

    def added(self, node: Node, partial: str, bounds: str | None = None) -> list[str]:
        """Lines that put together the entries that the threads have folded, or some rows of them."""
        target = self.module.array(node)
        nest = self.nest(node.type.shape)
        entry = self.entry(node.type.shape)
        place = f"{target}{index(At('', entry), node.type)}"
        nest.body.append(f"{place} = {partial}{index(At(share_of(node, '0'), entry), node.type)}")
        rest = self.nest(node.type.shape)
        other = f"{partial}{index(At(share_of(node, 't'), entry), node.type)}"
        rest.body.append(f"{place} = {combined(node, place, other)}")
        return [*nest.lines(bounds), "for t in range(1, shares):", *indented(rest.lines(bounds))]

    def folded(self, node: Reduce, name: str) -> None:
        if self.row or node.x.type.entry_size != 1:
            self.numbers.append((node, name))

    def put_together(self, node: Reduce, name: str) -> list[str]:
        """Lines that make one number of those of all threads."""
        row = self.module.part(node)
        is_total = bool(self.row) and isinstance(node, Sum)
        cast = "float32" if node.type.element == FLOAT and not is_total else ""
        first, other = f"parts[{row}, turn * {LINE}]", f"parts[{row}, (turn + t) * {LINE}]"
        if cast:
            first, other = f"{cast}({first})", f"{cast}({other})"
        return [f"{name} = {first}", "for t in range(1, shares):", f"    {name} = {combined(node, name, other)}"]

    def store(self, line: str, nest: Nest) -> None:
        self.kept.append(line)


def ends(
    module: SharingModule, loops: Sequence[SharedLoopWriter], products: Sequence[tuple[Node, str]] = ()
) -> list[Section]:
    """What puts together what the shares of loops and products have folded; ``products`` are given with their sums."""
    writer = SharedLoopWriter(module, Loop(UNIT, ()), {})
    lines = [line for w in loops for n, name in w.numbers for line in w.put_together(n, name)]
    lines += [line for w in loops for line in w.after]
    numbers = frozenset(p for w in loops for p in w.places_of_numbers())
    singles = frozenset(p for w in loops for p in w.places_of_singles())
    found = [Section(lines, numbers, singles)] if lines else []
    small, read, written = [line for w in loops for line in w.kept], set[Place](), set(singles)
    for node, name in [*(partial for w in loops for partial in w.partials), *products]:
        place = place_of(node, name)
        if module.is_own(node):
            found.append(Section(writer.added(node, name), frozenset([place])))
        elif is_few(node.type.shape):
            small += writer.added(node, name)
            read.add(place)
            written |= module.places(node)
        else:
            rows = writer.nest(node.type.shape).sizes[0]
            large = writer.shares(rows, True, STEP, writer.added(node, name, MINE))
            found.append(Section(large, frozenset([place]), frozenset(module.places(node))))
    if small:
        found.append(Section(["if thread == 0:", *indented(small)], frozenset(read), frozenset(written), True))
    return found


def once(lines: list[str]) -> list[str]:
    """Lines that only the first share runs."""
    return ["if p == 0:", *indented(lines)] if lines else []


def of_shares(type: Type, count: int) -> Type:
    """An entry of a type for each share, and for each turn if it is small. Its last axis is made longer, so that no two
    shares write to the same line of the cache."""
    *others, last = key_of(type.shape)
    rows = RowSet("shares of turns", TURNS * count) if is_few(type.shape) else RowSet("shares", count)
    return type.with_(rows=rows, shape=(*others, (last // PADDING + 2) * PADDING))


def share_of(node: Node, share: str) -> str:
    """Where a share's part of what is folded lies."""
    if not is_few(node.type.shape):
        return share
    return "turn" if share == "0" else f"turn + {share}"


def place_of(node: Node, partial: str) -> Place:
    """The place of what shares have folded."""
    return InTurns(partial) if is_few(node.type.shape) else partial


def shares_rows(node: Node) -> bool:
    """Whether threads share the rows of a product's result, and not its columns."""
    sizes = node.type.shape
    return node.type.rows != UNIT or (isinstance(sizes[0], int) and isinstance(sizes[1], int) and sizes[0] >= sizes[1])
