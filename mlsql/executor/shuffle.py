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
import itertools
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir

from .assembly import INT, WORD, engine, least, steps
from .device import Array, cores
from .matrix import address
from .threads import pool

MOST_ROWS = 1 << 31  # places are numbers of 32 bits
ROUNDS = 6
PARTS = 16  # of a table, for threads to share; as many on every machine, so that an order does not depend on it
LANES = 64  # numbers of a vector: so many registers that none waits for another
VECTOR, WIDE, MASK = ir.VectorType(INT, LANES), ir.VectorType(WORD, LANES), ir.IntType(LANES)
FACTORS = (0x9E3779B1, 0x85EBCA77)  # primes of xxHash (Collet, 2012), with whose product every bit depends on others
SHIFTS = (15, 13)
SIGNATURE = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 5, *[ctypes.c_void_p] * 3)


class Orders:
    """Random orders of row numbers from 0 up to a count."""

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        self.count, self.rng = count, rng
        self.b = math.isqrt(max(count, 1) - 1) + 1
        self.a = -(-count // self.b)
        self.memory = np.empty(self.a * self.b, np.int64)

    def draw(self) -> Array:
        """The next order (int64), in the memory of the one before."""
        if not 2 <= self.count < MOST_ROWS:
            return self.rng.permutation(self.count)
        keys = self.rng.integers(0, 1 << 32, ROUNDS, np.uint32)
        bounds = np.unique(np.linspace(0, self.a, PARTS + 1).astype(np.int64)).tolist()
        function = SIGNATURE(code().get_function_address("shuffle"))

        def fill(ends: tuple[int, int]) -> int:
            """Shuffle some rows of the table to their place in memory; how much of it is filled."""
            first, last = ends
            places, out = np.empty(LANES, np.uint32), self.memory[first * self.b :]
            return int(function(first, last, self.count, self.a, self.b, address(keys), address(places), address(out)))

        filled = list(pool("order", cores()).map(fill, itertools.pairwise(bounds)))
        self.close_gaps(bounds, filled)
        return self.memory[: self.count]

    def close_gaps(self, bounds: Sequence[int], filled: Sequence[int]) -> None:
        """Move what lies behind the count to where parts have left out what no row has."""
        free = [
            np.arange(a * self.b + f, b * self.b) for (a, b), f in zip(itertools.pairwise(bounds), filled, strict=True)
        ]
        gaps = np.concatenate(free)
        last = np.setdiff1d(np.arange(self.count, len(self.memory)), gaps)
        self.memory[gaps[gaps < self.count]] = self.memory[last]


@cache
def code() -> Any:
    """What holds the machine code."""
    return engine(program())


def program() -> ir.Module:
    """``shuffle(first, last, count, a, b, keys, places, out)``: from a row of the table to another, some places at a
    time; returns how many row numbers there were."""
    module = ir.Module("shuffle")
    numbers, words = INT.as_pointer(), WORD.as_pointer()
    kind = ir.FunctionType(WORD, [*[WORD] * 5, numbers, numbers, words])
    function = ir.Function(module, kind, "shuffle")
    first, last, count, a, b, keys, places, out = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    key = [splat(builder, builder.load(builder.gep(keys, [WORD(k)]))) for k in range(ROUNDS)]
    sizes = [splat(builder, builder.trunc(size, INT)) for size in (a, b)]
    lanes = ir.Constant(VECTOR, list(range(LANES)))
    with steps(builder, first, last, 1, [WORD(0)]) as rows:
        with steps(builder, WORD(0), b, LANES, rows.values) as columns:
            row, column = (splat(builder, builder.trunc(at, INT)) for at in (rows.at, columns.at))
            place = [row, builder.add(column, lanes)]
            for k in range(ROUNDS):
                move(builder, place, k % 2, sizes, key[k])
            number = builder.add(builder.mul(place[0], sizes[1]), place[1])
            left = least(builder, builder.sub(b, columns.at), WORD(LANES))
            columns.values = [kept(builder, number, left, count, places, out, columns.values[0])]
        rows.values = columns.values
    builder.ret(rows.values[0])
    return module


def kept(builder: ir.IRBuilder, numbers: Any, left: Any, count: Any, places: Any, out: Any, filled: Any) -> Any:
    """Store the first ``left`` numbers, but for those that no row has, behind what is filled; how much is now."""
    are_rows = builder.icmp_unsigned("<", numbers, splat(builder, builder.trunc(count, INT)))
    all_rows = builder.icmp_unsigned("==", builder.bitcast(are_rows, MASK), MASK(-1))
    whole = builder.and_(all_rows, builder.icmp_unsigned("==", left, WORD(LANES)))
    with builder.if_else(whole, likely=True) as (at_once, one_by_one):
        with at_once:
            place = builder.bitcast(builder.gep(out, [filled]), WIDE.as_pointer())
            builder.store(builder.zext(numbers, WIDE), place, align=WORD.width // 8)
            first = builder.add(filled, WORD(LANES)), builder.block
        with one_by_one:
            builder.store(numbers, builder.bitcast(places, VECTOR.as_pointer()), align=INT.width // 8)
            with steps(builder, WORD(0), left, 1, [filled]) as each:
                number = builder.zext(builder.load(builder.gep(places, [each.at])), WORD)
                is_row = builder.icmp_unsigned("<", number, count)
                with builder.if_then(is_row, likely=True):
                    builder.store(number, builder.gep(out, each.values))
                each.values = [builder.add(each.values[0], builder.zext(is_row, WORD))]
            second = each.values[0], builder.block
    now = builder.phi(WORD)
    for value, block in (first, second):
        now.add_incoming(value, block)
    return now


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
