"""Short entries of rows as single values of compiled code: all numbers of a vector at once, in vector registers.

``across(35)`` stands for the positions 0 to 34 of an axis: ``x[row, across(35)]`` is an entry of 35 numbers, on which
arithmetic and the functions of ``functions.py`` work number by number, and ``total`` adds up. A loop over as few
numbers would run mostly outside the vector registers, since LLVM lets it take four of them at a time; and what such
loops fold over rows would go through memory for each row.

An entry is kept as LLVM vectors of 16 numbers and a shorter one for the rest, which begins as early as it has to for
ending where the entry does: its first numbers are those of the vector before once more, and are not folded twice. To
read only some numbers of a vector would take as long as to wait for the next line of memory, if it reaches there. An
entry of fewer numbers than its only vector has room for is read so; its last numbers may be anything, and are neither
stored nor folded.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, imputils
from numba.core.typing import templates
from numba.extending import intrinsic, models, register_model

from .number import Number, where

LANES = 16  # numbers of a vector: LLVM makes several registers of it where they are shorter
LEAST = 4  # numbers of the vector for the rest
BYTE, FLAG = ir.IntType(8), ir.IntType(32)
IN_ANY_ORDER = ("reassoc", "contract")

signature: Any = templates.signature
infer_global: Any = templates.infer_global
lower_builtin: Any = imputils.lower_builtin
lower_cast: Any = imputils.lower_cast
array_of: Any = cgutils.pack_array
struct: Any = cgutils.pack_struct
parts: Any = cgutils.unpack_tuple


class Across(types.Type):
    """All positions of an axis of so many."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(name=f"across({count})")


class Place(types.Type):
    """An entry's place in an array: positions on the other axes, and all of the last one's."""

    def __init__(self, axes: int, count: int) -> None:
        self.axes, self.count = axes, count
        super().__init__(name=f"place({axes}, {count})")


class Entry(types.Type):
    """So many numbers, or truth values, which are bytes."""

    def __init__(self, dtype: Any, count: int) -> None:
        self.dtype, self.count = dtype, count
        super().__init__(name=f"entry({dtype}, {count})")

    @property
    def element(self) -> ir.Type:
        """The LLVM type of a number."""
        return {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}.get(self.dtype, BYTE)

    @property
    def sizes(self) -> list[int]:
        """How many numbers each vector has room for."""
        rest = self.count % LANES
        return [LANES] * (self.count // LANES) + ([max(LEAST, 1 << (rest - 1).bit_length())] if rest else [])

    @property
    def starts(self) -> list[int]:
        """The position of each vector's first number."""
        sizes = self.sizes
        ends = [min(self.count, end) for end in itertools.accumulate(sizes)]
        return [max(0, end - size) for end, size in zip(ends, sizes, strict=True)]

    @property
    def own(self) -> list[tuple[int, int]]:
        """Which numbers of each vector are the entry's and in no vector before: from the first to behind the last."""
        starts, sizes = self.starts, self.sizes
        ends = [0, *(min(self.count, start + size) for start, size in zip(starts, sizes, strict=True))]
        return [(ends[i] - start, ends[i + 1] - start) for i, start in enumerate(starts)]


@register_model(Across)
class _AcrossModel(models.OpaqueModel):
    pass


@register_model(Place)
class _PlaceModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Place) -> None:
        super().__init__(manager, kind, ir.ArrayType(ir.IntType(64), kind.axes))  # type: ignore[no-untyped-call]


@register_model(Entry)
class _EntryModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Entry) -> None:
        vectors = [ir.VectorType(kind.element, n) for n in kind.sizes]
        super().__init__(manager, kind, ir.LiteralStructType(vectors))  # type: ignore[no-untyped-call]


# -- numbers of an entry -----------------------------------------------------------------------------------------------


def spread(builder: Any, value: Any, size: int) -> Any:
    """A number as a vector of so many times it."""
    kind = ir.VectorType(value.type, size)
    nothing = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(nothing, value, FLAG(0))
    return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(FLAG, size), [0] * size))


def vectors(context: Any, builder: Any, value: Any, kind: Any, like: Entry) -> list[Number]:
    """The vectors of an operand of an operator that gives an entry ``like``: of a number, as often as it takes.

    Truth values are those of LLVM.
    """
    if not isinstance(kind, Entry):
        if not isinstance(kind, types.Boolean):
            value, kind = context.cast(builder, value, kind, like.dtype), like.dtype
        return [Number(builder, spread(builder, value, n)) for n in like.sizes]
    found = [Number(builder, v) for v in parts(builder, value)]
    if kind.dtype == types.boolean:
        return [Number(builder, builder.trunc(v.value, v.to(ir.IntType(1)))) for v in found]
    if kind.dtype != like.dtype and like.dtype != types.boolean:
        return [v.double() if like.dtype == types.float64 else v.single() for v in found]
    return found


def packed(builder: Any, kind: Entry, numbers: Sequence[Number]) -> Any:
    """An entry of these vectors."""
    values = [n.value if n.is_float else builder.zext(n.value, n.to(BYTE)) for n in numbers]
    return struct(builder, values)


def common(*kinds: Any) -> Entry | None:
    """The entry that an operator gives for operands of these types, one of which is an entry: of the wider type."""
    entries = [k for k in kinds if isinstance(k, Entry)]
    floats = [d for d in (getattr(k, "dtype", k) for k in kinds) if isinstance(d, types.Float)]
    if not entries or not floats or any(e.count != entries[0].count for e in entries):
        return None
    return Entry(max(floats, key=lambda d: d.bitwidth), entries[0].count)


def number_by_number(formula: Callable[..., Number], result: Entry, shared: Entry | None = None) -> Any:
    """What writes the instructions of a function of entries and numbers; ``shared`` is what operands are cast to."""

    def write(context: Any, builder: Any, sig: Any, operands: Any) -> Any:
        pairs = zip(operands, sig.args, strict=True)
        columns = [vectors(context, builder, v, kind, shared or result) for v, kind in pairs]
        return packed(builder, result, [formula(*row) for row in zip(*columns, strict=True)])

    return write


# -- arithmetic --------------------------------------------------------------------------------------------------------


def _compared(sign: str) -> Callable[[Number, Number], Number]:
    def formula(a: Number, b: Number) -> Number:
        compare = a.builder.fcmp_unordered if sign == "!=" else a.builder.fcmp_ordered
        return Number(a.builder, compare(sign, a.value, b.value, flags=("contract",)))

    return formula


ARITHMETIC: dict[Any, Callable[[Number, Number], Number]] = {
    operator.add: operator.add, operator.sub: operator.sub, operator.mul: operator.mul,
    operator.truediv: operator.truediv, operator.iadd: operator.add,
}  # fmt: skip
COMPARISON = {
    operator.lt: _compared("<"), operator.le: _compared("<="), operator.gt: _compared(">"),
    operator.ge: _compared(">="), operator.eq: _compared("=="), operator.ne: _compared("!="),
}  # fmt: skip


def declare(function: Any, typing: Callable[..., Any], write: Any, *kinds: tuple[Any, ...]) -> None:
    """Let an operator of Python take operands for which ``typing`` gives a signature; ``write`` writes what it does."""

    class Operator(templates.AbstractTemplate):
        def generic(self, arguments: Any, keywords: Any) -> Any:
            return typing(*arguments)

    infer_global(function)(Operator)
    for operands in kinds:
        lower_builtin(function, *operands)(write)


def _operator(function: Any, formula: Callable[[Number, Number], Number], compares: bool) -> None:
    """Let an operator take two entries, or an entry and a number."""

    def typing(*operands: Any) -> Any:
        shared = common(*operands) if len(operands) == 2 else None
        return shared and signature(Entry(types.boolean, shared.count) if compares else shared, *operands)

    def write(context: Any, builder: Any, sig: Any, operands: Any) -> Any:
        return number_by_number(formula, sig.return_type, common(*sig.args))(context, builder, sig, operands)

    declare(function, typing, write, (Entry, Entry), (Entry, types.Number), (types.Number, Entry))


def _negated(context: Any, builder: Any, sig: Any, operands: Any) -> Any:
    return number_by_number(operator.neg, sig.return_type)(context, builder, sig, operands)


def _is_at(context: Any, builder: Any, sig: Any, operands: Any) -> Any:
    """Truth at one position."""
    found = []
    position = builder.trunc(operands[1], FLAG)
    for start, size in zip(sig.return_type.starts, sig.return_type.sizes, strict=True):
        places = ir.Constant(ir.VectorType(FLAG, size), list(range(start, start + size)))
        found.append(Number(builder, builder.icmp_signed("==", places, spread(builder, position, size))))
    return packed(builder, sig.return_type, found)


def _is_at_type(at: Any, position: Any) -> Any:
    fits = isinstance(at, Across) and isinstance(position, types.Integer)
    return signature(Entry(types.boolean, at.count), at, types.int64) if fits else None


for _function, _formula in ARITHMETIC.items():
    _operator(_function, _formula, False)
for _function, _formula in COMPARISON.items():
    _operator(_function, _formula, True)
declare(operator.neg, lambda x: signature(x, x) if isinstance(x, Entry) else None, _negated, (Entry,))
declare(operator.eq, _is_at_type, _is_at, (Across, types.Integer))


def mask(size: int, first: int, last: int) -> Any:
    """Truth for some numbers of a vector, from the first to behind the last."""
    return ir.Constant(ir.VectorType(ir.IntType(1), size), [int(first <= i < last) for i in range(size)])


# -- casts and folds ---------------------------------------------------------------------------------------------------


def _to(kind: Any) -> Any:
    def typing(context: Any, x: Any) -> Any:
        if not isinstance(x, Entry):
            return kind(x), lambda context, builder, sig, operands: context.cast(builder, operands[0], x, kind)
        result = Entry(kind, x.count)

        def write(context: Any, builder: Any, sig: Any, operands: Any) -> Any:
            if x.dtype != types.boolean:
                return context.cast(builder, operands[0], x, result)
            found = [builder.uitofp(v, ir.VectorType(result.element, v.type.count))
                     for v in parts(builder, operands[0])]  # fmt: skip
            return struct(builder, found)

        return result(x), write

    typing.__name__ = typing.__qualname__ = "single" if kind == types.float32 else "double"
    typing.__doc__ = f"The numbers as {kind}."
    return intrinsic(typing)


single, double = _to(types.float32), _to(types.float64)


def _half(number: Number, first: int, count: int) -> Number:
    builder, kind = number.builder, number.value.type
    places = ir.Constant(ir.VectorType(FLAG, count), list(range(first, first + count)))
    return Number(builder, builder.shuffle_vector(number.value, ir.Constant(kind, ir.Undefined), places))


def _folded(name: str, combine: Callable[[Number, Number], Number], start: float) -> Any:
    """A fold of an entry's numbers: halves are combined until one number is left."""

    def typing(context: Any, x: Any) -> Any:
        def write(context: Any, builder: Any, sig: Any, operands: Any) -> Any:
            total: dict[int, Number] = {}  # of vectors of this size
            numbers = vectors(context, builder, operands[0], x, x)
            for number, size, own in zip(numbers, x.sizes, x.own, strict=True):
                if own != (0, size):
                    number = where(Number(builder, mask(size, *own)), number, start)
                total[size] = combine(total[size], number) if size in total else number
            size = max(total)
            while size > 1:
                whole, size = total[size], size // 2
                half = combine(_half(whole, 0, size), _half(whole, size, size))
                total[size] = combine(half, total[size]) if size in total else half
            return builder.extract_element(total[1].value, FLAG(0))

        return (x.dtype(x), write) if isinstance(x, Entry) else None

    typing.__name__ = typing.__qualname__ = name
    typing.__doc__ = f"The fold of an entry's numbers ({name})."
    return intrinsic(typing)


def added(a: Number, b: Number) -> Number:
    """The sum, in a row of sums whose order is the compiler's."""
    return Number(a.builder, a.builder.fadd(a.value, b.value, flags=IN_ANY_ORDER))


total = _folded("total", added, 0.0)
largest = _folded("largest", lambda a, b: a.call("maximum", b), -math.inf)
least = _folded("least", lambda a, b: a.call("minimum", b), math.inf)
