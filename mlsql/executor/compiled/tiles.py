"""A step in tiles of rows: kernels that read of one another the same rows only run together, a tile of rows at a time.

Forward pass, loss and backward pass of most models are such kernels: what the gradient of a row needs of the forward
pass is of that row. So a tile runs through all of them while its values lie in the second-level cache, and a sum over
rows, the gradient of a weight among them, is added to tile by tile. These are the vectors of MonetDB/X100 (Boncz et
al., 2005) and the morsels of Leis et al. (2014), with a backward pass. What lies between the kernels is never there
for more rows than a tile has: a step over all rows keeps nothing for its backward pass, and computes nothing twice.
Threads take tiles of their own, and meet once behind all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...planner.node import Node, Reach
from ...planner.ops import Contraction, Reduce
from ...types import UNIT, RowSet, Type
from ..memory import owner
from .fusion import Fusion, Kernel, Product, in_bf16, writes_elsewhere

TILE_BYTES = 128 << 10  # of intermediate values: a part of the second-level cache
LOOP_BYTES = 16 << 10  # of those between loops alone: half of the first-level cache
FEWEST_ROWS = 64
TILE = "rows of a tile"


@dataclass(frozen=True)
class Tiles:
    """Kernels from ``first`` to ``last``, which run together over tiles of ``size`` rows of a row set.

    ``local`` are the arrays that only these kernels read: they have room for the rows of a tile.
    """

    rows: RowSet
    size: int
    first: int
    last: int
    local: frozenset[Node]

    def holds(self, kernel: int) -> bool:
        return self.first <= kernel <= self.last

    def part(self, type: Type) -> Type:
        """The type of an array over the rows that has room for a tile of them."""
        return type.with_(rows=RowSet(TILE, self.size))


def entry_bytes(node: Node) -> int:
    """The bytes of a row."""
    return (node.type.entry_size or 1) * node.type.element.bytes


def tile_rows(width: float, read_bytes: int, most: int, cache: int = TILE_BYTES) -> int:
    """The rows of a tile, a power of two: so many that values of ``width`` bytes a row stay in the cache. Every tile
    reads all parameters, so large ones want larger tiles."""
    rows, room = FEWEST_ROWS, max(cache, 4 * read_bytes)
    while 2 * rows <= most and 2 * rows * width <= room:
        rows *= 2
    return rows


def tiled(fusion: Fusion, rows: RowSet, shares: int) -> list[Tiles]:
    """The tiles of a step over so many rows by so many threads, whose kernels are put side by side."""
    stages = _Stages(fusion, rows)
    order = stages.order()
    found = []
    for group in stages.groups():
        tiles = Group(fusion, rows, group).tiles(order.index(group[0]), shares)
        if tiles is not None:
            found.append(tiles)
    if found:
        fusion.reorder(order)
    return found


class _Stages:
    """In which stage each kernel runs: those over the rows in even ones, the others in odd ones between them."""

    def __init__(self, fusion: Fusion, rows: RowSet) -> None:
        self.fusion, self.rows = fusion, rows
        self.inside = [self.fits(k) for k in fusion.kernels]
        before: dict[int, dict[int, bool]] = {i: {} for i in range(len(fusion.kernels))}
        for reader, source, is_along in self.reads():
            before[reader][source] = before[reader].get(source, True) and is_along
        self.stage: dict[int, int] = {}
        for i in sorted(before):
            start = 0 if self.inside[i] else -1
            self.stage[i] = max([start, *(self.earliest(i, j, along) for j, along in before[i].items())])

    def fits(self, kernel: Kernel) -> bool:
        """Whether a kernel can run over some of the rows, and then over others."""
        if isinstance(kernel, Product):
            return not in_bf16(kernel.node) and any(n.type.rows == self.rows for n in kernel.node.inputs)
        if kernel.rows != self.rows:
            return False
        for n in kernel.nodes:
            far = any(s.type.rows == self.rows and r == Reach.ALL for s, r in self.fusion.sources(n).items())
            if far or (writes_elsewhere(n) and not isinstance(n, Reduce)):
                return False
        return True

    def reads(self) -> Iterator[tuple[int, int, bool]]:
        """Kernels that read what others compute, and whether they do so row by row."""
        kernel_of = self.fusion.kernel_of
        for n in self.fusion.computed:
            for s, reach in self.fusion.sources(n).items():
                if s in kernel_of and kernel_of[s] != kernel_of[n]:
                    same_row = isinstance(n, Contraction) or reach != Reach.ALL
                    yield kernel_of[n], kernel_of[s], s.type.rows == self.rows and same_row
        for writer, readers in self.fusion.after.items():
            for r in readers:
                if kernel_of[r] != kernel_of[writer]:
                    yield kernel_of[writer], kernel_of[r], False

    def earliest(self, kernel: int, source: int, is_along: bool) -> int:
        """The earliest stage of a kernel behind one that it reads."""
        stage, is_inside, was_inside = self.stage[source], self.inside[kernel], self.inside[source]
        if is_inside and was_inside:
            return stage if is_along else stage + 2
        return stage if not is_inside and not was_inside else stage + 1

    def groups(self) -> list[list[int]]:
        """The kernels over the rows, those together that one tile may run through."""
        ordered = self.order()
        stages = sorted({self.stage[i] for i in ordered if self.inside[i]})
        return [[i for i in ordered if self.stage[i] == s] for s in stages]

    def order(self) -> list[int]:
        return sorted(self.stage, key=lambda i: (self.stage[i], i))


class Group:
    """Kernels that one tile may run through, in their order: what they keep, and how many rows suit the cache."""

    def __init__(self, fusion: Fusion, rows: RowSet, kernels: list[int]) -> None:
        self.fusion, self.rows, self.kernels = fusion, rows, kernels
        self.nodes = [n for n in fusion.computed if fusion.kernel_of[n] in kernels]
        self.local = frozenset(n for n in self.nodes if self.is_local(n))

    def is_local(self, node: Node) -> bool:
        """Whether an array over the rows is read by these kernels only."""
        fusion = self.fusion
        kept = {owner(n) for n in (*fusion.outputs, *fusion.updates.values())}
        readers = {fusion.kernel_of[r] for r in fusion.readers[node]}
        is_array = node in fusion.arrays and node not in fusion.placed and node.type.rows == self.rows
        return is_array and node not in kept and readers.issubset(self.kernels)

    def width(self) -> int:
        """The bytes of a row that are there at a time: of data, and of local arrays from the first kernel to the last
        that needs them."""
        read = {s for n in self.nodes for s in self.fusion.sources(n)}
        data = sum(entry_bytes(n) for n in read if n in self.fusion.fixed and n.type.rows != UNIT)
        places = {k: i for i, k in enumerate(self.kernels)}
        live = [0] * len(self.kernels)
        for n in self.local:
            used = [places[self.fusion.kernel_of[m]] for m in (n, *self.fusion.readers[n])]
            for i in range(min(used), max(used) + 1):
                live[i] += entry_bytes(n)
        return data + max(live)

    def sums(self) -> int:
        """The bytes of what is summed over rows."""
        return sum(n.nbytes for n in self.nodes if n.type.rows == UNIT)

    def tiles(self, first: int, shares: int) -> Tiles | None:
        """The tiles, if they pay."""
        share = -(-(self.rows.rows or 1) // shares)
        products = [n for n in self.nodes if isinstance(n, Contraction)]
        parameters = sum(m.nbytes for n in products for m in n.inputs if m.type.rows == UNIT)
        cache = TILE_BYTES if products else LOOP_BYTES
        size = tile_rows(self.width(), max(parameters, self.sums()), share, cache)
        if not self.pays(size, share, shares):
            return None
        return Tiles(self.rows, min(size, share), first, first + len(self.kernels) - 1, self.local)

    def pays(self, size: int, share: int, shares: int) -> bool:
        """Whether what stays in the cache, and threads that do not meet, save more than a sum for each thread costs."""
        gains = len(self.kernels) > 1 and (2 * size <= share or shares > 1)
        return gains and shares * self.sums() <= sum(n.nbytes for n in self.local)
