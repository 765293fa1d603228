"""Columns that lie side by side in one row-major matrix: which ones, how they are put there, how they are recognised.

A layer over many columns reads their concatenation, a matrix with a row for each row. If the rows are laid out like
that as they arrive, the concatenation is there already, and the columns take no space beside it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..planner.node import Node, substitute, walk
from ..planner.ops import Cast, Column, Concat, Reshape
from .device import Array, loaded, place_parts

if TYPE_CHECKING:
    from .batch import Batch

Place = Callable[["Batch", Sequence[str], Array], None]

WORTH_LOADING = 128 << 20  # bytes of columns for which machine code saves the time that loading LLVM takes


def side_by_side(outputs: Iterable[Node]) -> list[tuple[Column, ...]]:
    """The groups of columns that plans read as one concatenation, and in no other way.

    A column that something else reads is better off alone, where its numbers lie without gaps.
    """
    nodes = list(walk(outputs))
    readers = Counter(i for n in nodes for i in n.inputs)
    found = []
    for node in nodes:
        columns = joined(node)
        if columns and all(readers[n] == 1 for n in walk([node]) if n is not node):
            found.append(columns)
    return found


def joined(node: Node) -> tuple[Column, ...]:
    """The columns of numbers of one type that a node puts side by side, as they are or converted to its own type.

    None if it does something else.
    """
    if not isinstance(node, Concat) or node.type.rank != 1:
        return ()
    parts = [p.x for p in node.parts if isinstance(p, Reshape)]
    sources = [p.x if isinstance(p, Cast) else p for p in parts]
    columns = [c for c in sources if isinstance(c, Column)]
    kinds = {(c.type.rows, c.type.element, c.type.shape) for c in columns}
    fits = {(p.type.rows, p.type.element, p.type.shape) for p in parts} == {(node.type.rows, node.type.element, ())}
    return tuple(columns) if fits and len(kinds) == 1 and len(columns) == len(node.parts) > 1 else ()


def without_joins(
    outputs: Sequence[Node], array_of: Callable[[Node], Array]
) -> tuple[list[Node], dict[Column, Array], dict[Column, Node]]:
    """Outputs with a column for each concatenation whose columns lie side by side: the columns' arrays, and what each
    stands for."""
    arrays: dict[Column, Array] = {}
    joins: dict[Column, Node] = {}
    for node in walk(outputs):
        columns = joined(node)
        matrix = as_matrix([array_of(c) for c in columns]) if columns else None
        if matrix is not None:
            stand_in = Column(f"\0joined_{len(joins) + 1}", node.type.rows, node.type.element, node.type.shape)
            arrays[stand_in], joins[stand_in] = matrix.astype(node.type.element.storage, copy=False), node
    return substitute(outputs, {node: column for column, node in joins.items()}), arrays, joins


def as_matrix(columns: Sequence[Array]) -> Array | None:
    """The row-major matrix of which these are all the columns in order; None if they lie otherwise."""
    whole, rows = columns[0].base, len(columns[0])
    if not isinstance(whole, np.ndarray) or whole.ndim != 2 or whole.shape[1] != len(columns):
        return None
    matrix = whole[:rows]
    lies = all(
        c.base is whole and c.dtype == whole.dtype and c.shape == (rows,) and c.strides == (matrix.strides[0],)
        and address(c) == address(whole) + k * whole.itemsize
        for k, c in enumerate(columns)
    )  # fmt: skip
    return matrix if lies and matrix.flags.c_contiguous else None


def placing(nbytes: int) -> Place:
    """What copies columns into the rows of a matrix, where there are about so many bytes of them.

    Machine code takes a third of NumPy's time, but loading LLVM takes longer than that saves unless there is much to
    copy, or something else has loaded it already.
    """
    is_worth_it = nbytes >= WORTH_LOADING or "llvmlite.binding" in sys.modules
    return loaded("transposing", "place_columns") if is_worth_it else numpy_place


def numpy_place(batch: Batch, names: Sequence[str], window: Array) -> None:
    """Copy columns of numbers into the rows of a matrix, by NumPy."""
    place_parts([batch[name] for name in names], [window[:, k] for k in range(len(names))])


def address(array: Array) -> int:
    """Where an array's first number lies."""
    return int(array.__array_interface__["data"][0])
