"""The text of kernels that run together over tiles of rows.

Threads take the tiles of a share of the rows. What is summed over rows is summed for each share, tile by tile, and put
together in the order of the shares, as in ``shared``.
"""

from __future__ import annotations

from ...planner.node import Node
from ...planner.ops import Contraction, Reduce
from ...types import UNIT
from .fusion import Loop, Product
from .loops import LoopWriter
from .meetings import Place, Section
from .reader import TilingModule
from .shared import MINE, SHARES, SharedLoopWriter, ends, place_of, share_of
from .texts import indented
from .tiles import Tiles


class TileLoopWriter(SharedLoopWriter):
    """Writes a loop over the rows of a tile, whose folds go on from tile to tile."""

    def lines(self) -> list[str]:
        body = [line for tasks in self.inner for line in self.inner_loop(tasks).lines()]
        loop = ["for r in range(n_tile):", *indented([*self.fetched(), *self.top_lines, *body])] if body else []
        return [*self.comments(), *loop]

    def ahead(self, rows: int) -> str:
        if self.fusion.is_shared:
            return f"start + ahead(tile + r, {rows}, {MINE}, batch)"
        return LoopWriter.ahead(self, rows)

    def accumulator(self, node: Reduce) -> tuple[str, str]:
        return super().accumulator(node) if self.fusion.is_shared else LoopWriter.accumulator(self, node)

    def folded(self, node: Reduce, name: str) -> None:
        if self.fusion.is_shared:
            super().folded(node, name)


class TileWriter:
    """Writes the kernels of some tiles."""

    def __init__(self, module: TilingModule, tiles: Tiles, scalars: dict[Node, str]) -> None:
        self.module, self.tiles, self.scalars = module, tiles, scalars
        self.is_shared = module.fusion.is_shared
        self.outside = SharedLoopWriter(module, Loop(UNIT, ()), scalars)
        self.loops: list[TileLoopWriter] = []
        self.sums: list[tuple[Contraction, str]] = []  # products that are summed over tiles, and where

    def lines(self) -> list[str]:
        """The text for one thread."""
        loop = self.loop("0", self.module.rows(self.tiles.rows))
        return [*loop, *(line for w in self.loops for line in w.after)]

    def sections(self) -> list[Section]:
        """The loop as each thread runs it for its shares, and what puts together what these have summed."""
        loop = self.loop("first", "last")
        keep = [line for w in self.loops for line in w.keep()]
        share = f"first, last = share({self.module.rows(self.tiles.rows)}, p, shares, 1)"
        lines = [SHARES, *indented([share, *loop, *keep])]
        return [Section(lines, self.reads(), self.writes()), *ends(self.module, self.loops, self.sums)]

    def loop(self, first: str, last: str) -> list[str]:
        """The loop over tiles."""
        with self.module.inside(self.tiles) as views:
            body = [line for k in self.kernels() for line in self.kernel(k)]
        size = self.tiles.size
        inner = [f"n_tile = min({size}, {last} - tile)", *views, *body]
        lines = [f"# {size} rows at a time:", *self.starts(), f"for tile in range({first}, {last}, {size}):"]
        return [*lines, *indented(inner), *(line for w in self.loops for line in w.behind)]

    def reads(self) -> frozenset[Place]:
        """The places that the kernels read."""
        nodes = [n for k in self.kernels() for n in ([k.node] if isinstance(k, Product) else k.nodes)]
        return self.module.places_read(nodes)

    def writes(self) -> frozenset[Place]:
        """The places that the kernels write to; sums are put together behind them."""
        products = [k.node for k in self.kernels() if isinstance(k, Product) and k.node.type.rows != UNIT]
        places = {p for n in products for p in self.module.places(n)}
        return frozenset(places.union(place_of(*total) for total in self.sums)).union(*(w.writes() for w in self.loops))

    def kernels(self) -> list[Loop | Product]:
        return self.module.fusion.kernels[self.tiles.first : self.tiles.last + 1]

    def kernel(self, kernel: Loop | Product) -> list[str]:
        if isinstance(kernel, Loop):
            self.loops.append(TileLoopWriter(self.module, kernel, self.scalars))
            return self.loops[-1].lines()
        if kernel.node.type.rows != UNIT:
            return self.module.product(kernel.node)
        return self.module.product(kernel.node, self.sum_of(kernel.node))

    def sum_of(self, node: Contraction) -> str:
        """Where the rows of a share are summed."""
        if not self.is_shared:
            self.sums.append((node, self.module.array(node)))
            return self.module.array(node)
        name = self.module.partial(node.type, self.module.name(node))
        self.sums.append((node, name))
        return f"{name}[{share_of(node, 'p')}, :, :{node.type.shape[-1]}]"

    def starts(self) -> list[str]:
        """Lines that clear what is summed."""
        lines = list(dict.fromkeys(line for w in self.loops for line in w.starts))
        lines += [line for w in self.loops for line in w.before]
        for node, name in self.sums:
            lines += self.outside.filled(node, name, share_of(node, "p") if self.is_shared else "")
        return lines
