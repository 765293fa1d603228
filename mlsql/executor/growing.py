"""Columns that grow as rows arrive: every row is copied once, and nothing is held twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..types import Type, concrete
from .batch import Batch
from .device import Array
from .matrix import placing


class Growing:
    """Columns by name, to which batches of rows are added.

    Room is made for the rows that are expected, and for twice as many as there are where that was too little; memory
    that is never written to takes no space. A single batch stays as it came. The columns of each group in ``together``,
    which are numbers of one type, lie side by side in one row-major matrix.
    """

    def __init__(self, types: Mapping[str, Type], expected: int, together: Sequence[tuple[str, ...]] = ()) -> None:
        self.types, self.expected = types, expected
        grouped = {name for names in together for name in names}
        self.groups = [*together, *((name,) for name in types if name not in grouped)]
        self.arrays: dict[tuple[str, ...], Array] = {}
        self.first: Batch | None = None  # that is not copied yet
        self.rows = 0
        self.place = placing(expected * sum(types[n].element.bytes for n in grouped))

    def add(self, batch: Batch) -> None:
        """Add some rows of every column."""
        if not self.rows:
            self.first = batch
        else:
            if self.first is not None:
                self.put(self.first, 0)
                self.first = None
            self.put(batch, self.rows)
        self.rows += batch.rows

    def put(self, batch: Batch, start: int) -> None:
        """Copy some rows of every column to their place."""
        for names in self.groups:
            window = self.room(names, start + batch.rows)[start : start + batch.rows]
            if len(names) == 1:
                window[...] = batch[names[0]]
            else:
                self.place(batch, names, window)

    def room(self, names: tuple[str, ...], rows: int) -> Array:
        """The array of a group of columns, made larger if it is too short for so many rows."""
        array = self.arrays.get(names)
        if array is None or len(array) < rows:
            have = 0 if array is None else len(array)
            declared = self.types[names[0]]
            entry = concrete(declared.shape) if len(names) == 1 else (len(names),)
            larger = np.empty((max(rows, self.expected, 2 * have), *entry), declared.element.storage)
            if array is not None:
                larger[: self.rows] = array[: self.rows]
            self.arrays[names] = array = larger
        return array

    def columns(self) -> dict[str, Array]:
        """What has arrived."""
        if not self.rows:
            return {n: np.empty((0, *concrete(t.shape)), t.element.storage) for n, t in self.types.items()}
        if self.first is not None:
            return dict(self.first)
        found: dict[str, Array] = {}
        for names, array in self.arrays.items():
            rows = array[: self.rows]
            found |= {names[0]: rows} if len(names) == 1 else {name: rows[:, k] for k, name in enumerate(names)}
        return {name: found[name] for name in self.types}
