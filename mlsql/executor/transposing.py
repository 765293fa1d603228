"""Columns laid side by side by machine code: squares of numbers are transposed in registers.

LLVM makes the code when it is first called, without Numba, which takes several times longer to load.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from .device import Array
from .matrix import address, numpy_place

SIDE = 4  # of a square of numbers, a line of which fills a register that every processor has
TILE = 64  # rows
WORD = ir.IntType(64)
SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


def place_columns(columns: Sequence[Array], window: Array) -> None:
    """Copy columns of numbers into the rows of a dense row-major matrix of their type."""
    if min(window.shape) < SIDE:
        return numpy_place(columns, window)
    dense = [np.ascontiguousarray(c) for c in columns]
    starts = np.array([address(c) for c in dense], np.uintp)
    place = SIGNATURE(engine(window.itemsize).get_function_address("place"))
    place(address(starts), *window.shape[::-1], address(window))


@cache
def engine(itemsize: int) -> Any:
    """What holds the machine code for numbers of so many bytes."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(str(program(ir.IntType(8 * itemsize))))
    made = llvm.create_mcjit_compiler(module, llvm.Target.from_default_triple().create_target_machine())
    made.finalize_object()
    return made


def program(number: ir.IntType) -> ir.Module:
    """``place(columns, count, rows, window)``: some rows of a few columns at a time.

    Each line of the cache that has been read is used up at once: many columns that lie a power of two apart would drive
    each other out of the cache. Of the rows, all columns are placed before their lines leave it.
    """
    module = ir.Module("transposing")
    pointer = number.as_pointer()
    kind = ir.FunctionType(ir.VoidType(), (pointer.as_pointer(), WORD, WORD, pointer))
    function = ir.Function(module, kind, "place")
    columns, count, rows, window = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    line = ir.VectorType(number, SIDE).as_pointer()
    bytes_ = number.width // 8
    with steps(builder, WORD(0), rows, TILE) as first:
        behind = least(builder, builder.add(first, WORD(TILE)), rows)
        with steps(builder, WORD(0), count, SIDE) as at:
            column = least(builder, at, builder.sub(count, WORD(SIDE)))
            starts = [builder.load(builder.gep(columns, [builder.add(column, WORD(k))])) for k in range(SIDE)]
            with steps(builder, first, behind, SIDE) as at:
                row = least(builder, at, builder.sub(behind, WORD(SIDE)))
                lines = [builder.load(builder.bitcast(builder.gep(s, [row]), line), align=bytes_) for s in starts]
                for i, values in enumerate(transposed(builder, lines)):
                    offset = builder.add(builder.mul(builder.add(row, WORD(i)), count), column)
                    builder.store(values, builder.bitcast(builder.gep(window, [offset]), line), align=bytes_)
    builder.ret_void()
    return module


@contextlib.contextmanager
def steps(builder: ir.IRBuilder, start: Any, stop: Any, step: int) -> Iterator[Any]:
    """The code inside runs for ``start`` and every step-th number behind it that is below ``stop``."""
    before, inside, behind = builder.block, builder.append_basic_block(), builder.append_basic_block()
    builder.branch(inside)
    builder.position_at_end(inside)
    at = builder.phi(WORD)
    yield at
    following = builder.add(at, WORD(step))
    at.add_incoming(start, before)
    at.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_unsigned("<", following, stop), inside, behind)
    builder.position_at_end(behind)


def least(builder: ir.IRBuilder, x: Any, y: Any) -> Any:
    """The smaller one of two numbers."""
    return builder.select(builder.icmp_unsigned("<", x, y), x, y)


def transposed(builder: ir.IRBuilder, lines: Sequence[Any]) -> list[Any]:
    """A square, line by line: blocks off the diagonal change places, of one number, of two by two, and so on."""
    found, half = list(lines), 1
    while half < SIDE:
        is_right = [bool(i & half) for i in range(SIDE)]
        upper = [SIDE + i - half if right else i for i, right in enumerate(is_right)]
        lower = [SIDE + i if right else i + half for i, right in enumerate(is_right)]
        for i in range(SIDE):
            if not is_right[i]:
                pair = found[i], found[i + half]
                found[i], found[i + half] = (
                    builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(ir.IntType(32), SIDE), mask))
                    for mask in (upper, lower)
                )
        half *= 2
    return found
