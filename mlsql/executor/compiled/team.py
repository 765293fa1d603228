"""What compiled code needs to run on several threads at once: shares of a loop, and a place to meet.

Every thread runs the whole function. It takes its share of each loop and product, and meets the others before the next
one (the single program, multiple data of Darema et al., 1988): that costs a fraction of a microsecond, where a pool
that is given work anew takes several. BLAS runs with one thread in each of them.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from .blas import SIZE, declared

SPINS = 4000  # looks at the gate before a thread lets others run: about ten microseconds
ARRIVED, ROUND = 0, 8  # where a gate keeps how many have arrived and the number of the round, on lines of their own
FETCHED, LINE_BYTES = 512, 64  # what is asked for of a row at most, and at a time
POSITIVE = (1 << 62) - 1  # a mask without the sign
LINE = 8  # numbers of 64 bits of a line of cache
ON_X86, ON_ARM = ("llvm.x86.sse2.pause", ()), ("llvm.aarch64.hint", (1,))
PAUSE = {"x86_64": ON_X86, "AMD64": ON_X86, "aarch64": ON_ARM, "arm64": ON_ARM}.get(platform.machine())

_yield = types.ExternalFunction("sched_yield", types.int32())


def _place(context: Any, builder: Any, array: Any, value: Any, position: Any) -> Any:
    return builder.gep(context.make_array(array)(context, builder, value).data, [position])


def _add_code(typing: Any, array: Any, position: Any, value: Any) -> Any:
    """Add to a number at once for all threads; what it was before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, array, *arguments[:2])
        return builder.atomic_rmw("add", place, arguments[2], "acq_rel")

    return types.int64(array, types.int64, types.int64), generate


def _load_code(typing: Any, array: Any, position: Any) -> Any:
    """A number as another thread has stored it last."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_place(context, builder, array, *arguments), "acquire", 8)

    return types.int64(array, types.int64), generate


def _store_code(typing: Any, array: Any, position: Any, value: Any) -> Any:
    """Store a number, all that was stored before being seen by whoever loads it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store_atomic(arguments[2], _place(context, builder, array, *arguments[:2]), "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), generate


def _pause_code(typing: Any) -> Any:
    """Tell the processor that a loop waits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if PAUSE is not None:
            name, values = PAUSE
            numbers = [ir.Constant(ir.IntType(32), v) for v in values]
            kind = ir.FunctionType(ir.VoidType(), [n.type for n in numbers])
            builder.call(declared(builder.module, kind, name), numbers)
        return context.get_dummy_value()

    return types.void(), generate


_add: Any = intrinsic(_add_code)
_load: Any = intrinsic(_load_code)
_store: Any = intrinsic(_store_code)
_pause: Any = intrinsic(_pause_code)


@njit(nogil=True)
def meet(gate: Any, threads: Any) -> None:
    """Wait until all threads are here."""
    number: Any = _load(gate, ROUND)
    if _add(gate, ARRIVED, 1) == threads - 1:
        _store(gate, ARRIVED, 0)
        _store(gate, ROUND, number + 1)
        return
    spins = 0
    while _load(gate, ROUND) == number:
        spins += 1
        _pause()
        if spins > SPINS:
            _yield()


def _share(typing: Any, count: Any, number: Any, shares: Any, step: Any) -> Any:
    """Where a share of so many positions begins and ends; all but the last begin at multiples of ``step``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = zip(arguments, signature.args, strict=True)
        count, number, shares, step = (context.cast(builder, v, kind, types.int64) for v, kind in kinds)

        def parts(whole: Any, part: Any) -> Any:
            return builder.sdiv(builder.sub(builder.add(whole, part), SIZE(1)), part)

        def bound(place: Any) -> Any:
            within = builder.select(builder.icmp_signed("<", place, count), place, count)
            return builder.and_(within, SIZE(POSITIVE))  # or LLVM sees no use of vector registers in a loop over them

        each = builder.mul(parts(parts(count, shares), step), step)
        first = builder.mul(number, each)
        ends = [bound(first), bound(builder.add(first, each))]
        return context.make_tuple(builder, signature.return_type, ends)

    two: Any = types.UniTuple(types.int64, 2)  # type: ignore[no-untyped-call]
    return two(count, number, shares, step), generate


share: Any = intrinsic(_share)


def _fetch_code(typing: Any, array: Any, row: Any, offset: Any) -> Any:
    """Ask for the line of cache that is so many bytes behind the start of a row."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = context.make_array(array)(context, builder, arguments[0])
        strides = builder.extract_value(made.strides, 0)
        bytes_ = ir.IntType(8).as_pointer()
        start = builder.bitcast(made.data, bytes_)
        place = builder.gep(start, [builder.add(builder.mul(arguments[1], strides), arguments[2])])
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [bytes_, flag, flag, flag])
        function = declared(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [place, flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), generate


_fetch: Any = intrinsic(_fetch_code)


@njit(nogil=True)
def fetch(x: Any, order: Any, position: Any) -> None:
    """Ask for the row of ``x`` at a position of an order: it will be read soon, and rows in no order come from afar."""
    if position < order.shape[0]:
        for line in range(0, min(x.strides[0], FETCHED), LINE_BYTES):
            _fetch(x, order[position], line)
