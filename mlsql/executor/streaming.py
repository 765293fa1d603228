"""Rows that do not fit into memory: spilled once, and brought back block by block in an order that is new each epoch.

The first pass takes rows in *stages* that fit into memory. A stage is shuffled, cut into as many pieces as an epoch has
blocks, and written. A block of an epoch is one piece of every stage, chosen at random, shuffled once more. Without a
shuffle a stage is one piece, and a block is one stage.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np

from ..errors import OperationalError
from ..planner.node import Node
from ..planner.plan import Plan
from ..record import record
from ..types import RowSet
from .dataset import HeldShare
from .device import Array
from .feed import Block
from .run import CHUNK_ROWS, Folding
from .spill import Layout, Spill

ORDER_BYTES = 16  # of a row of a block: its place in the order, and as much while this is drawn
PAUSE = 0.05  # seconds after which a thread that waits looks for Ctrl-C


@record
class Cut:
    """How rows are cut: into stages of ``stage`` rows, each into so many pieces; 0 pieces: they keep their order."""

    rows: int
    batch_size: int
    stage: int
    pieces: int

    @property
    def stages(self) -> int:
        return -(-self.rows // self.stage)

    @property
    def blocks(self) -> int:
        """The blocks of an epoch."""
        return self.pieces or self.stages

    @property
    def capacity(self) -> int:
        """The most rows of a block: what is left of the block before it may be in it."""
        if not self.pieces:
            return self.stage
        return max(self.stage, self.stages * -(-self.stage // self.pieces) + self.batch_size - 1)


def cut(rows: int, batch_size: int, most: int, shuffle: bool) -> Cut | None:
    """Stages and blocks of at most ``most`` rows; None where these are too few."""
    if not shuffle:
        whole = most // batch_size * batch_size
        return Cut(rows, batch_size, whole, 0) if whole else None
    stage = min(most, rows)
    a_piece = (most - batch_size + 1) // -(-rows // stage) if stage else 0
    return Cut(rows, batch_size, stage, -(-stage // a_piece)) if a_piece > 0 else None


class Staging:
    """Takes rows as they come and spills them stage by stage.

    ``columns`` and ``beside`` have room for a stage each; ``beside`` is written to only where there is a shuffle.
    """

    def __init__(self, layout: Layout, cut: Cut, seed: int = 0) -> None:
        self.cut, self.spill = cut, Spill(layout)
        self.columns, self.beside = layout.allocate(cut.stage), layout.allocate(cut.stage if cut.pieces else 0)
        self.rng = np.random.default_rng([seed, 3])
        self.filled = 0

    def add(self, arrays: Mapping[str, Array], rows: int) -> None:
        """Take some rows."""
        start = 0
        while start < rows:
            count = min(rows - start, self.cut.stage - self.filled)
            for name, column in self.columns.items():
                column[self.filled : self.filled + count] = arrays[name][start : start + count]
            start, self.filled = start + count, self.filled + count
            if self.filled == self.cut.stage:
                self.flush()

    def flush(self) -> None:
        """Spill the rows that are here."""
        columns, rows = self.columns, self.filled
        if self.cut.pieces and rows:
            order = self.rng.permutation(rows)
            for name, column in columns.items():
                np.take(column[:rows], order, 0, self.beside[name][:rows], "clip")
            columns = self.beside
        pieces = self.cut.pieces or 1
        for i in range(pieces if rows else 0):
            self.spill.append(columns, rows * i // pieces, rows * (i + 1) // pieces)
        self.filled = 0

    def done(self) -> Spill:
        """Spill what is left; the rows, once all have come."""
        self.flush()
        self.columns, self.beside = {}, {}
        return self.spill


class HeldOut:
    """Rows that lie on disk to be gone through in order, a chunk at a time."""

    def __init__(self, layout: Layout) -> None:
        self.staging = Staging(layout, Cut(0, 1, CHUNK_ROWS, 0))
        self.rows = 0

    @staticmethod
    def bytes(layout: Layout) -> int:
        """The memory that it takes."""
        return CHUNK_ROWS * layout.row_bytes

    def add(self, arrays: Mapping[str, Array], rows: int) -> None:
        """Take some rows."""
        self.staging.add(arrays, rows)
        self.rows += rows

    def done(self) -> None:
        """Spill what is left, once all rows have come."""
        spill = self.staging.done()
        self.buffer = spill.layout.allocate(min(CHUNK_ROWS, self.rows))

    def close(self) -> None:
        """Give the disk space back."""
        self.staging.spill.close()

    def chunks(self) -> Iterator[tuple[Mapping[str, Array], int]]:
        """The rows, in chunks of CHUNK_ROWS; a chunk is gone once the next one is asked for."""
        spill = self.staging.spill
        for piece in range(len(spill.starts) - 1):
            rows = spill.read(piece, self.buffer, 0)
            yield {n: a[:rows] for n, a in self.buffer.items()}, rows


def take_in(
    batches: Iterable[tuple[Mapping[str, Array], int]],
    staging: Staging | HeldOut,
    held: HeldOut | None = None,
    share: HeldShare | None = None,
) -> None:
    """Spill the rows of all batches; those of a share go to ``held``."""
    first = 0
    for arrays, rows in batches:
        if share is None or held is None:
            staging.add(arrays, rows)
        else:
            out = share(np.arange(first, first + rows))
            for target, chosen in ((staging, np.flatnonzero(~out)), (held, np.flatnonzero(out))):
                target.add({name: array[chosen] for name, array in arrays.items()}, len(chosen))
        first += rows
    if share is not None and first != share.rows:
        raise OperationalError(f"the rows changed as they were read: {share.rows} were counted, {first} came")


class Streamed:
    """A Feed of rows that were spilled: two buffers, one of which is read into while the other one is in use.

    The same rows, cut and seed give the same blocks. ``epochs`` is how many there will be, if that is known: nothing is
    read after them. ``waited`` are the seconds for which a block was not there yet when it was asked for.
    """

    def __init__(self, spill: Spill, cut: Cut, *, seed: int, epochs: int | None = None) -> None:
        self.spill, self.cut, self.seed, self.epochs = spill, cut, seed, epochs
        self.rows, self.batch_size = cut.rows, cut.batch_size
        self.waited = 0.0
        self.ahead = self.read_ahead()

    def blocks(self) -> Iterator[Block]:
        """The blocks of the next epoch."""
        for block, is_last in self.ahead:
            yield block
            if is_last:
                return

    def close(self) -> None:
        """Read no more. The rows stay where they are, for another feed."""
        self.ahead.close()

    def read_ahead(self) -> Generator[tuple[Block, bool], None, None]:
        """The blocks of all epochs, each with whether it is the last one of its epoch, read by another thread."""
        reads = self.reads()
        with ThreadPoolExecutor(1, "mlsql-rows") as thread:
            coming = thread.submit(next, reads, None)
            while (found := self.awaited(coming)) is not None:
                coming = thread.submit(next, reads, None)
                yield found

    def awaited(self, coming: Future[tuple[Block, bool] | None]) -> tuple[Block, bool] | None:
        """What another thread gives, in short waits: a signal does not end a long one everywhere."""
        began = time.perf_counter()
        while not wait([coming], PAUSE).done:
            pass
        self.waited += time.perf_counter() - began
        return coming.result()

    def reads(self) -> Iterator[tuple[Block, bool]]:
        """The blocks of all epochs, read when they are asked for. What a block leaves over goes into the next one."""
        rng, size = np.random.default_rng([self.seed, 1]), self.batch_size
        buffers = itertools.cycle([self.spill.layout.allocate(self.cut.capacity) for _ in range(2)])
        before: Mapping[str, Array] = {}
        for _ in itertools.count() if self.epochs is None else range(self.epochs):
            left: Array = np.empty(0, np.intp)
            for number, pieces in enumerate(self.draw(rng)):
                columns, rows = next(buffers), len(left)
                for name in columns if rows else ():
                    np.take(before[name], left, 0, columns[name][:rows], "clip")
                for piece in pieces:
                    rows += self.spill.read(piece, columns, rows)
                is_last = number == self.cut.blocks - 1
                order = rng.permutation(rows) if self.cut.pieces else np.arange(rows)
                whole = rows if is_last else rows // size * size
                left, before = order[whole:], columns
                yield Block({n: a[:rows] for n, a in columns.items()}, order[:whole]), is_last

    def draw(self, rng: np.random.Generator) -> list[Array]:
        """The pieces of each block of an epoch."""
        stages, pieces = self.cut.stages, self.cut.pieces
        if not pieces:
            return list(np.arange(stages)[:, None])
        chosen = np.stack([rng.permutation(pieces) + k * pieces for k in range(stages)])
        return list(chosen.T)


def validation_of(plan: Plan, rows: RowSet, held: HeldOut) -> Callable[[Mapping[Node, Array]], float] | None:
    """The loss on held-out rows as a function of the states; None where it needs all rows at once."""
    fold = Folding(plan, rows)
    if fold.chunk > CHUNK_ROWS:
        return None
    return lambda states: float(next(iter(fold.over(held.chunks(), states).values())))
