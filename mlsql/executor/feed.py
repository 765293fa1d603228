"""What feeds the training loop: the rows of an epoch, block by block, each with the order in which they are taken."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np

from ..record import record
from .device import Array

WORTH_A_THREAD = 1 << 16  # rows from which on an order is drawn beside the epoch before it
MANY_ROWS = 1 << 18  # from which on an order is computed by machine code, which takes a moment to load


@record
class Block:
    """Columns that lie in memory, and the positions of the rows that an epoch takes from them, in order."""

    columns: Mapping[str, Array]
    order: Array


class Feed(Protocol):
    """The rows of a training run.

    A batch never spans two blocks: every block but an epoch's last holds whole batches.
    """

    rows: int  # of an epoch
    batch_size: int

    def blocks(self) -> Iterator[Block]:
        """The blocks of the next epoch. What a block holds is gone once the next one is asked for."""

    def close(self) -> None:
        """Bring no more, and hold nothing."""


class InMemory:
    """All rows as one block; ``rows`` are the positions of those that are trained on."""

    def __init__(
        self, columns: Mapping[str, Array], rows: Array, batch_size: int | None, *, shuffle: bool, seed: int
    ) -> None:
        self.columns, self.positions, self.rows = columns, rows, len(rows)
        self.batch_size = min(batch_size or self.rows, self.rows)
        self.shuffle, self.rng = shuffle, np.random.default_rng([seed, 1])
        self.drawing: Future[Array] | None = None  # the order of the next epoch
        self.spare: list[Array] = []  # memory of orders that are used up

    def blocks(self) -> Iterator[Block]:
        order = self.order() if self.shuffle else self.positions
        yield Block(self.columns, order)
        if self.shuffle and self.rows >= MANY_ROWS:
            self.spare.append(order)

    def order(self) -> Array:
        """A random order. That of a large table is drawn by another thread while the epoch before it runs."""
        if self.rows < WORTH_A_THREAD:
            return self.draw()
        drawn = self.draw() if self.drawing is None else self.drawing.result()
        self.drawing = drawer(os.getpid()).submit(self.draw)
        return drawn

    def draw(self) -> Array:
        if self.rows < MANY_ROWS:
            return self.rng.permutation(self.positions)
        from .shuffle import shuffled

        order = self.spare.pop() if self.spare else np.empty(self.rows, np.int64)
        shuffled(order, self.rng)
        if self.positions[-1] != self.rows - 1:  # they ascend, so these are not all rows from the first one on
            return self.positions[order]
        return order

    def close(self) -> None:
        """Wait for what is being drawn."""
        if self.drawing is not None:
            self.drawing.cancel()
            self.drawing = None


@functools.cache
def drawer(process: int) -> ThreadPoolExecutor:
    """The thread that draws orders; a forked process gets its own."""
    return ThreadPoolExecutor(1, thread_name_prefix="mlsql-order")
