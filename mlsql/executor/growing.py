"""Columns that grow as rows arrive: every row is copied once, and nothing is held twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..types import Type, concrete
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
        self.first: Mapping[str, Array] = {}  # a batch that is not copied yet
        self.rows = 0
        self.place = placing(expected * sum(types[n].element.bytes for n in grouped))

    def add(self, batch: Mapping[str, Array], rows: int) -> None:
        """Add some rows of every column."""
        if not self.rows:
            self.first = batch
        else:
            if self.first:
                self.put(self.first, 0, self.rows)
                self.first = {}
            self.put(batch, self.rows, self.rows + rows)
        self.rows += rows

    def put(self, batch: Mapping[str, Array], start: int, stop: int) -> None:
        """Copy some rows of every column to their place."""
        for names in self.groups:
            parts = [batch[name] for name in names]
            window = self.room(names, parts[0], stop)[start:stop]
            if len(names) == 1:
                window[...] = parts[0]
            else:
                self.place(parts, window)

    def room(self, names: tuple[str, ...], like: Array, rows: int) -> Array:
        """The array of a group of columns, made larger if it is too short for so many rows."""
        array = self.arrays.get(names)
        if array is None or len(array) < rows:
            have = 0 if array is None else len(array)
            entry = like.shape[1:] if len(names) == 1 else (len(names),)
            larger = np.empty((max(rows, self.expected, 2 * have), *entry), like.dtype)
            if array is not None:
                larger[: self.rows] = array[: self.rows]
            self.arrays[names] = array = larger
        return array

    def columns(self) -> dict[str, Array]:
        """What has arrived."""
        if not self.rows:
            return {n: np.empty((0, *concrete(t.shape)), t.element.storage) for n, t in self.types.items()}
        if self.first:
            return dict(self.first)
        found: dict[str, Array] = {}
        for names, array in self.arrays.items():
            rows = array[: self.rows]
            found |= {names[0]: rows} if len(names) == 1 else {name: rows[:, k] for k, name in enumerate(names)}
        return {name: found[name] for name in self.types}
