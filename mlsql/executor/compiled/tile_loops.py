"""The text of kernels that run together over tiles of rows.

Threads take the tiles of a share of the rows. What is summed over rows is summed for each share, tile by tile, and put
together in the order of the shares, as in ``shared``.
"""

from __future__ import annotations

import math

from ...planner.node import Node
from ...planner.ops import Contraction, Reduce
from ...types import UNIT
from .fusion import Loop, Product
from .loops import LoopWriter
from .meetings import MEET
from .reader import TilingModule
from .shared import MINE, SHARES, STEP, WORTH_SHARING, SharedLoopWriter
from .tasks import key_of
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
        with self.module.inside(self.tiles) as views:
            body = [line for k in self.kernels() for line in self.kernel(k)]
        rows, size = self.module.rows(self.tiles.rows), self.tiles.size
        first, last = ("first", "last") if self.is_shared else ("0", rows)
        inner = [f"n_tile = min({size}, {last} - tile)", *views, *body]
        loop = [*self.starts(), f"for tile in range({first}, {last}, {size}):", *indented(inner)]
        loop += [line for w in self.loops for line in w.behind]
        return [f"# {size} rows at a time:", *(self.shared(rows, loop) if self.is_shared else loop), *self.ends()]

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
        return f"{name}[p, :, :{node.type.shape[-1]}]"

    def starts(self) -> list[str]:
        """Lines that clear what is summed."""
        lines = list(dict.fromkeys(line for w in self.loops for line in w.starts))
        lines += [line for w in self.loops for line in w.before]
        for node, name in self.sums:
            lines += self.outside.filled(node, name, "p" if self.is_shared else "")
        return lines

    def shared(self, rows: str, loop: list[str]) -> list[str]:
        """The loop over tiles as each thread runs it for its shares."""
        keep = [line for w in self.loops for line in w.keep()]
        share = f"first, last = share({rows}, p, shares, 1)"
        return [SHARES, *indented([share, *loop, *keep]), MEET]

    def ends(self) -> list[str]:
        """Lines that put together what the shares have summed."""
        lines = [line for w in self.loops for n, name in w.numbers for line in w.put_together(n, name)]
        lines += [line for w in self.loops for line in w.after]
        partials = [(n, name) for w in self.loops for n, name in w.partials]
        partials += self.sums if self.is_shared else []
        small: list[str] = []
        for node, name in partials:
            if math.prod(key_of(node.type.shape)) < WORTH_SHARING:
                small += self.outside.added(node, name)
            else:
                rows = self.outside.nest(node.type.shape).sizes[0]
                lines += self.outside.shares(rows, True, STEP, self.outside.added(node, name, MINE))
        if small:
            lines += ["if thread == 0:", *indented(small)]
        return [*lines, *([MEET] if partials else [])]
