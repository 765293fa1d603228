"""Rows on disk: packed, in a file without a name, read back into arrays that are there already."""

from __future__ import annotations

import errno
import os
import tempfile
import weakref
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import OperationalError
from ..record import record
from ..types import Type, concrete
from .device import Array

Columns = Mapping[str, Array]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what the system says where there is no more room
MOST_VIEWS = 1000  # the arrays that one call to the system takes; POSIX grants 1024


@record
class Layout:
    """The columns of a row: storage type and shape of its entry in each, by name."""

    columns: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]

    @classmethod
    def of(cls, types: Mapping[str, Type]) -> Layout:
        """Rows with entries of these types."""
        return cls({name: (np.dtype(t.element.storage), concrete(t.shape)) for name, t in types.items()})

    @property
    def row_bytes(self) -> int:
        """The bytes of a row."""
        return sum(dtype.itemsize * int(np.prod(shape, dtype=int)) for dtype, shape in self.columns.values())

    def allocate(self, rows: int) -> dict[str, Array]:
        """Arrays for so many rows. What is never written to takes no memory."""
        return {name: np.empty((rows, *shape), dtype) for name, (dtype, shape) in self.columns.items()}


class Spill:
    """Rows in a file that no folder names.

    Its disk space is free again when it is closed and when the process ends, in whatever way. Rows are written in
    pieces, each of which lies column by column and is read as one. Raises OperationalError where the file cannot be
    made, and where the disk is full.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.starts = array("q", [0])  # the first row of each piece, and the row behind the last one
        try:
            file = tempfile.TemporaryFile(prefix="mlsql-", buffering=0)  # noqa: SIM115
        except OSError as problem:
            raise self.failed(problem) from problem
        self.number = file.fileno()
        self.close = weakref.finalize(self, file.close)

    @property
    def rows(self) -> int:
        """The rows that have been written."""
        return self.starts[-1]

    @property
    def bytes(self) -> int:
        """The bytes that have been written."""
        return self.rows * self.layout.row_bytes

    def append(self, columns: Columns, start: int, stop: int) -> None:
        """Write the rows from start to stop as one piece."""
        try:
            transfer(os.pwritev, self.number, self.views(columns, start, stop), self.bytes)
        except OSError as problem:
            raise self.failed(problem) from problem
        self.starts.append(self.rows + stop - start)

    def read(self, piece: int, columns: Columns, start: int) -> int:
        """Read a piece into the rows of some columns from ``start`` on; how many rows it has."""
        first, behind = self.starts[piece : piece + 2]
        views = self.views(columns, start, start + behind - first)
        try:
            transfer(os.preadv, self.number, views, first * self.layout.row_bytes)
        except OSError as problem:
            raise self.failed(problem) from problem
        return behind - first

    def views(self, columns: Columns, start: int, stop: int) -> list[Array]:
        """The bytes of the rows from start to stop, column by column."""
        return [columns[name][start:stop].reshape(-1).view(np.uint8) for name in self.layout.columns]

    def failed(self, problem: OSError) -> OperationalError:
        """What is told of an error of the system's."""
        folder = tempfile.gettempdir()
        if problem.errno in FULL:
            return OperationalError(
                f"no room is left in {folder} for the rows that do not fit into memory: "
                f"{self.bytes / 1e6:,.0f} MB are there",
                hint="TMPDIR in the environment names another folder; a larger MEMORY needs none",
            )
        return OperationalError(f"the rows in {folder} cannot be written or read: {problem.strerror or problem}")


def transfer(call: Callable[..., int], file: int, views: Sequence[Array], offset: int) -> None:
    """Write or read arrays of bytes end to end, however few the system takes at a time. Raises OSError."""
    waiting = [v for v in views if len(v)][::-1]
    while waiting:
        done = call(file, waiting[: -MOST_VIEWS - 1 : -1], offset)
        if done == 0:
            raise OSError("the file is shorter than what was written")
        offset += done
        while waiting and done >= len(waiting[-1]):
            done -= len(waiting.pop())
        if done:
            waiting[-1] = waiting[-1][done:]
