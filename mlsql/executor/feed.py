"""What feeds the training loop: the rows of an epoch, block by block, each with the order in which they are taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..record import record
from .device import Array
from .threads import pool

if TYPE_CHECKING:
    from .shuffle import Orders

WORTH_A_THREAD = 1 << 16  # rows from which on an order is drawn beside the epoch before it
MANY_ROWS = 1 << 18  # from which on an order is computed by all cores, with machine code that takes a moment to load


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

    def blocks(self) -> Iterator[Block]:
        yield Block(self.columns, self.order() if self.shuffle else self.positions)

    def order(self) -> Array:
        """A random order. For a large table it is drawn by another thread while the epoch before it runs; for a larger
        one all cores compute it between epochs: steps that they share would lose more by a thread beside them."""
        if self.rows >= MANY_ROWS:
            order = self.orders.draw()
            ascending_from_0 = self.positions[-1] == self.rows - 1  # then they are all rows from the first one on
            return order if ascending_from_0 else self.positions[order]
        if self.rows < WORTH_A_THREAD:
            return self.draw()
        drawn = self.draw() if self.drawing is None else self.drawing.result()
        self.drawing = pool("order", 1).submit(self.draw)
        return drawn

    def draw(self) -> Array:
        return self.rng.permutation(self.positions)

    @cached_property
    def orders(self) -> Orders:
        """What computes orders of many rows."""
        from .shuffle import Orders

        return Orders(self.rows, self.rng)

    def close(self) -> None:
        """Wait for what is being drawn."""
        if self.drawing is not None:
            self.drawing.cancel()
            self.drawing = None
