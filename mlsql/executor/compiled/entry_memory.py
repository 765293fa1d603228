"""How short entries come from memory and go there: ``x[row, across(35)]`` in compiled code, read or assigned."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .entries import (
    BYTE,
    FLAG,
    Across,
    Entry,
    Place,
    array_of,
    declare,
    lower_cast,
    mask,
    packed,
    parts,
    signature,
    struct,
    vectors,
)  # fmt: skip
from .number import declared


@intrinsic(prefer_literal=True)
def across(typing: Any, count: Any) -> Any:
    """All positions of an axis, by its size."""
    kind = Across(count.literal_value)
    return kind(count), lambda context, builder, sig, operands: context.get_dummy_value()


def _placed(array: Any, index: Any) -> Place | None:
    if isinstance(index, Place):  # Numba asks again for what it was told
        return index
    places: list[Any] = [*index] if isinstance(index, types.BaseTuple) else [index]  # type: ignore[misc]
    if not isinstance(array, types.Array) or array.layout != "C" or len(places) != array.ndim:
        return None
    *others, last = places
    fits = isinstance(last, Across) and all(isinstance(p, types.Integer) for p in others)
    return Place(len(others), last.count) if fits and isinstance(array.dtype, types.Float) else None


def _to_place(context: Any, builder: Any, given: Any, wanted: Any, value: Any) -> Any:
    if not wanted.axes:
        return ir.Constant(ir.ArrayType(ir.IntType(64), 0), ir.Undefined)
    numbers = zip(parts(builder, value), list(given)[:-1], strict=False)
    return array_of(builder, [context.cast(builder, v, kind, types.int64) for v, kind in numbers])


def _to_entry(context: Any, builder: Any, given: Any, wanted: Any, value: Any) -> Any:
    return packed(builder, wanted, vectors(context, builder, value, given, wanted))


for _given, _wanted, _write_cast in (
    (types.BaseTuple, Place, _to_place),
    (Across, Place, _to_place),
    (types.Number, Entry, _to_entry),
    (Entry, Entry, _to_entry),
):
    lower_cast(_given, _wanted)(_write_cast)


def _pieces(context: Any, builder: Any, kind: Any, array: Any, place: Any, entry: Entry) -> list[tuple[Any, int, Any]]:
    """Where each vector lies, how many numbers it has room for, and which of them are there if not all are."""
    made = context.make_array(kind)(context, builder, array)
    row = builder.bitcast(made.data, BYTE.as_pointer())
    for axis in range(kind.ndim - 1):
        stride = builder.extract_value(made.strides, axis)
        row = builder.gep(row, [builder.mul(builder.extract_value(place, axis), stride)])
    first = builder.bitcast(row, entry.element.as_pointer())
    pieces = []
    for start, size in zip(entry.starts, entry.sizes, strict=True):
        vector = ir.VectorType(entry.element, size).as_pointer()
        there = mask(size, 0, entry.count) if entry.count < size else None
        pieces.append((builder.bitcast(builder.gep(first, [FLAG(start)]), vector), size, there))
    return pieces


def _masked(builder: Any, name: str, result: Any, vector: Any, operands: Sequence[Any]) -> Any:
    """Call LLVM's load or store of some of a vector's numbers."""
    kind = ir.FunctionType(result, [o.type for o in operands])
    function = declared(builder.module, kind, f"llvm.masked.{name}.v{vector.count}{vector.element.intrinsic_name}.p0")
    return builder.call(function, operands)


def _read_type(array: Any, index: Any) -> Any:
    place = _placed(array, index)
    return place and signature(Entry(array.dtype, place.count), array, place)


def _write_type(array: Any, index: Any, value: Any) -> Any:
    place = _placed(array, index)
    if place is None or not array.mutable:
        return None
    return signature(types.none, array, place, Entry(array.dtype, place.count))


def _read(context: Any, builder: Any, sig: Any, operands: Any) -> Any:
    entry, align = sig.return_type, sig.args[0].dtype.bitwidth // 8
    found = []
    array, place = operands
    for pointer, size, there in _pieces(context, builder, sig.args[0], array, place, entry):
        vector = ir.VectorType(entry.element, size)
        if there is None:
            found.append(builder.load(pointer, align=align))
            continue
        zeros = ir.Constant(vector, None)
        operands_ = [pointer, FLAG(align), there, zeros]
        found.append(_masked(builder, "load", vector, vector, operands_))
    return struct(builder, found)


def _write(context: Any, builder: Any, sig: Any, operands: Any) -> Any:
    array, place, value = operands
    entry, align = sig.args[2], sig.args[0].dtype.bitwidth // 8
    pieces = _pieces(context, builder, sig.args[0], array, place, entry)
    for (pointer, _, there), vector in zip(pieces, parts(builder, value), strict=True):
        if there is None:
            builder.store(vector, pointer, align=align)
        else:
            operands_ = [vector, pointer, FLAG(align), there]
            _masked(builder, "store", ir.VoidType(), vector.type, operands_)
    return context.get_dummy_value()


declare(operator.getitem, _read_type, _read, (types.Array, Place))
declare(operator.setitem, _write_type, _write, (types.Array, Place, Entry))
