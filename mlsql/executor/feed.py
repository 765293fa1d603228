"""What feeds the training loop: the rows of an epoch, block by block, each with the order in which they are taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np

from ..record import record
from .device import Array


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

    def blocks(self) -> Iterator[Block]:
        order = self.rng.permutation(self.positions) if self.shuffle else self.positions
        yield Block(self.columns, order)

    def close(self) -> None:
        """Nothing is held."""
