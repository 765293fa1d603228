"""Columns that grow as rows arrive: every row is copied once, and nothing is held twice."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..types import Type
from .device import Array


class Growing:
    """Columns by name, to which batches of rows are added.

    Room is made for the rows that are expected, and for twice as many as there are where that was too little; memory
    that is never written to takes no space. A single batch stays as it came.
    """

    def __init__(self, types: Mapping[str, Type], expected: int) -> None:
        self.types, self.expected = types, expected
        self.arrays: dict[str, Array] = {}
        self.rows = 0

    def add(self, batch: Mapping[str, Array], rows: int) -> None:
        """Add some rows of every column."""
        stop = self.rows + rows
        if not self.rows:
            self.arrays = dict(batch)
        else:
            for name, part in batch.items():
                room = self.room(name, stop)
                room[self.rows : stop] = part
        self.rows = stop

    def room(self, name: str, rows: int) -> Array:
        """The array of a column, made larger if it is too short for so many rows."""
        array = self.arrays[name]
        if len(array) < rows:
            larger = np.empty((max(rows, self.expected, 2 * len(array)), *array.shape[1:]), array.dtype)
            larger[: self.rows] = array[: self.rows]
            self.arrays[name] = array = larger
        return array

    def columns(self) -> dict[str, Array]:
        """What has arrived."""
        if not self.arrays:
            return {n: np.empty((0, *t.shape), t.element.storage) for n, t in self.types.items()}  # type: ignore[arg-type]
        return {name: array[: self.rows] for name, array in self.arrays.items()}
