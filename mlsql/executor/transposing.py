"""Columns laid side by side by machine code: squares of numbers are transposed in registers.

LLVM makes the code when it is first called, without Numba, which takes several times longer to load.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

from llvmlite import ir

from .assembly import BYTES, INT, NOTHING, WORD, engine, least, steps
from .batch import Batch
from .device import LINE_BYTES, Array
from .matrix import address, numpy_place

SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)

SIDE = 4  # of a square of numbers: four FLOATs fill a register that every processor has
EXCHANGES = [  # which lines of a square exchange numbers, and what each becomes: numbers 0 to 3 are the first line's
    (pairs, [ir.Constant(ir.VectorType(INT, SIDE), mask) for mask in masks])
    for pairs, masks in (
        (((0, 1), (2, 3)), ((0, 4, 2, 6), (1, 5, 3, 7))),
        (((0, 2), (1, 3)), ((0, 1, 4, 5), (2, 3, 6, 7))),
    )
]
AHEAD = 8  # lines of the cache of a column, fetched before they are needed
TO_READ_IN_SECOND_LEVEL = (INT(0), INT(2), INT(1))  # what is fetched: not to be written, into which cache, data


def place_columns(batch: Batch, names: Sequence[str], window: Array) -> None:
    """Copy columns of numbers into the rows of a dense row-major matrix of their type."""
    if min(window.shape) < SIDE:
        numpy_place(batch, names, window)
        return
    starts = batch.starts(names)
    place = SIGNATURE(code(window.itemsize).get_function_address("place"))
    place(address(starts), len(names), len(window), address(window))


@cache
def code(itemsize: int) -> Any:
    """What holds the machine code for numbers of so many bytes."""
    return engine(program(ir.IntType(8 * itemsize)))


def program(number: ir.IntType) -> ir.Module:
    """``place(columns, count, rows, window)``: of each column a line of the cache at a time.

    A line that is read is used up at once, since columns that lie a power of two apart drive each other out of the
    cache. The processor alone fetches too little ahead from so many places.
    """
    module = ir.Module("transposing")
    pointer, bytes_ = number.as_pointer(), number.width // 8
    function = ir.Function(module, ir.FunctionType(NOTHING, (pointer.as_pointer(), WORD, WORD, pointer)), "place")
    prefetch = ir.Function(module, ir.FunctionType(NOTHING, (BYTES, INT, INT, INT)), "llvm.prefetch.p0")
    columns, count, rows, window = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    numbers = ir.VectorType(number, SIDE).as_pointer()
    with steps(builder, WORD(0), rows, LINE_BYTES // bytes_) as lines:
        first = lines.at
        behind = least(builder, builder.add(first, WORD(LINE_BYTES // bytes_)), rows)
        with steps(builder, WORD(0), count, SIDE) as columns_:
            column = least(builder, columns_.at, builder.sub(count, WORD(SIDE)))
            starts = [builder.load(builder.gep(columns, [builder.add(column, WORD(k))])) for k in range(SIDE)]
            for start in starts:
                later = builder.gep(start, [builder.add(first, WORD(AHEAD * LINE_BYTES // bytes_))])
                builder.call(prefetch, (builder.bitcast(later, BYTES), *TO_READ_IN_SECOND_LEVEL))
            with steps(builder, first, behind, SIDE) as rows_:
                row = least(builder, rows_.at, builder.sub(behind, WORD(SIDE)))
                square = [builder.load(builder.bitcast(builder.gep(s, [row]), numbers), align=bytes_) for s in starts]
                for i, values in enumerate(transposed(builder, square)):
                    offset = builder.add(builder.mul(builder.add(row, WORD(i)), count), column)
                    builder.store(values, builder.bitcast(builder.gep(window, [offset]), numbers), align=bytes_)
    builder.ret_void()
    return module


def transposed(builder: ir.IRBuilder, lines: Sequence[Any]) -> list[Any]:
    """The columns of a square, line by line."""
    found = list(lines)
    for pairs, masks in EXCHANGES:
        for i, j in pairs:
            found[i], found[j] = [builder.shuffle_vector(found[i], found[j], mask) for mask in masks]
    return found
