"""Random orders of many rows, computed rather than drawn one by one.

Row numbers are laid out as a table of a by b, no larger than need be, and a Feistel network shuffles its places: in
each round the row of a place moves on by a random function of its column, or the column by one of its row. Every round
can be undone, so no two places become the same, and what lies behind the last row number is left out (Black and
Rogaway, "Ciphers with arbitrary finite domains", 2002; for shuffling: Mitchell, Stokes, Frank and Holmes,
"Bandwidth-optimal random shuffling for GPUs", 2021). One swap after another all over memory takes several times as
long.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir

from .assembly import INT, NOTHING, WORD, engine, least, steps
from .device import Array
from .matrix import address

MOST_ROWS = 1 << 31  # places are numbers of 32 bits
ROUNDS = 6
LANES = 16  # numbers of a vector: LLVM makes several registers of it where they are shorter
VECTOR, WIDE = ir.VectorType(INT, LANES), ir.VectorType(WORD, LANES)
FACTORS = (0x9E3779B1, 0x85EBCA77)  # primes of xxHash (Collet, 2012), with whose product every bit depends on others
SHIFTS = (15, 13)
SIGNATURE = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3, *[ctypes.c_void_p] * 3)


def shuffled(out: Array, rng: np.random.Generator) -> None:
    """Fill ``out`` (int64) with the numbers from 0 up to its length in a random order."""
    count = len(out)
    if not 2 <= count < MOST_ROWS:
        out[:] = rng.permutation(count)
        return
    b = math.isqrt(count - 1) + 1
    a = -(-count // b)
    keys = rng.integers(0, 1 << 32, ROUNDS, np.uint32)
    column = np.empty(b + LANES, np.uint32)
    SIGNATURE(code().get_function_address("shuffle"))(count, a, b, address(keys), address(column), address(out))


@cache
def code() -> Any:
    """What holds the machine code."""
    return engine(program())


def program() -> ir.Module:
    """``shuffle(count, a, b, keys, column, out)``: the places of a row of the table at a time."""
    module = ir.Module("shuffle")
    numbers, words = INT.as_pointer(), WORD.as_pointer()
    kind = ir.FunctionType(NOTHING, [WORD, WORD, WORD, numbers, numbers, words])
    function = ir.Function(module, kind, "shuffle")
    count, a, b, keys, places, out = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    key = [splat(builder, builder.load(builder.gep(keys, [WORD(k)]))) for k in range(ROUNDS)]
    sizes = [splat(builder, builder.trunc(size, INT)) for size in (a, b)]
    lanes = ir.Constant(VECTOR, list(range(LANES)))
    with steps(builder, WORD(0), a, 1, [WORD(0)]) as rows:
        with steps(builder, WORD(0), b, LANES) as columns:
            row, column = (splat(builder, builder.trunc(at, INT)) for at in (rows.at, columns.at))
            place = [row, builder.add(column, lanes)]
            for k in range(ROUNDS):
                move(builder, place, k % 2, sizes, key[k])
            number = builder.add(builder.mul(place[0], sizes[1]), place[1])
            builder.store(number, builder.bitcast(builder.gep(places, [columns.at]), VECTOR.as_pointer()), align=4)
        with steps(builder, WORD(0), b, 1, rows.values) as columns:
            number = builder.zext(builder.load(builder.gep(places, [columns.at])), WORD)
            [filled] = columns.values
            with builder.if_then(builder.icmp_unsigned("<", filled, count), likely=True):
                builder.store(number, builder.gep(out, [filled]))
            columns.values = [builder.add(filled, builder.zext(builder.icmp_unsigned("<", number, count), WORD))]
        rows.values = columns.values
    builder.ret_void()
    return module


def move(builder: ir.IRBuilder, place: list[Any], side: int, sizes: Sequence[Any], key: Any) -> None:
    """A round: one side of the places moves on, around the end, by a random function of the other side."""
    far = scaled(builder, mixed(builder, builder.xor(place[1 - side], key)), sizes[side])
    moved = builder.add(place[side], far)
    place[side] = least(builder, moved, builder.sub(moved, sizes[side]))  # below 0 is beyond every size


def mixed(builder: ir.IRBuilder, x: Any) -> Any:
    """Numbers of which every bit depends on many of x."""
    for factor, shift in zip(FACTORS, SHIFTS, strict=True):
        x = builder.mul(x, constant(factor))
        x = builder.xor(x, builder.lshr(x, constant(shift)))
    return x


def scaled(builder: ir.IRBuilder, x: Any, size: Any) -> Any:
    """Numbers of 32 bits scaled to those below a size, without a division (Lemire, 2019)."""
    product = builder.mul(builder.zext(x, WIDE), builder.zext(size, WIDE))
    return builder.trunc(builder.lshr(product, ir.Constant(WIDE, [32] * LANES)), VECTOR)


def splat(builder: ir.IRBuilder, number: Any) -> Any:
    """A vector of one number."""
    first = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), number, INT(0))
    return builder.shuffle_vector(first, ir.Constant(VECTOR, ir.Undefined), constant(0))


def constant(value: int) -> ir.Constant:
    """A vector of one number that is known."""
    return ir.Constant(VECTOR, [value] * LANES)
