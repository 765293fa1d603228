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

from ..device import LINE_BYTES
from .blas import SIZE
from .number import declared
from .shared import LINE

SPINS = 4000  # looks at the gate before a thread lets others run: about ten microseconds
SECOND_LEVEL = 2  # of the caches, as LLVM counts them
POSITIVE = (1 << 62) - 1  # a mask without the sign
ON_X86, ON_ARM = ("llvm.x86.sse2.pause", ()), ("llvm.aarch64.hint", (1,))
PAUSE = {"x86_64": ON_X86, "AMD64": ON_X86, "aarch64": ON_ARM, "arm64": ON_ARM}.get(platform.machine())

_yield = types.ExternalFunction("sched_yield", types.int32())


def _place(context: Any, builder: Any, array: Any, value: Any, position: Any) -> Any:
    return builder.gep(context.make_array(array)(context, builder, value).data, [position])


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


_load: Any = intrinsic(_load_code)
_store: Any = intrinsic(_store_code)
_pause: Any = intrinsic(_pause_code)


@njit(nogil=True)
def meet(gate: Any, thread: Any, threads: Any) -> None:
    """Wait until all threads are here. A gate has a line of the cache for each of them, where it tells how often it has
    been there: one line on its way to each of the others, where a common counter would come and go for each thread."""
    number: Any = _load(gate, thread * LINE) + 1
    _store(gate, thread * LINE, number)
    spins = 0
    for t in range(threads):
        while _load(gate, t * LINE) < number:
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


def _fetch(typing: Any, x: Any, order: Any, position: Any, size: Any) -> Any:
    """Ask for the first bytes, a constant number, of the row of ``x`` at a position of an order: it will be read soon.

    Its lines go to the second-level cache: as many as there are would wait for room in the first-level cache, which
    takes few at a time. Of an order that ends before the position the last row is asked for.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made, places = (context.make_array(k)(context, builder, v) for k, v in zip((x, order), arguments, strict=False))
        last = builder.sub(builder.extract_value(places.shape, 0), SIZE(1))
        at = builder.select(builder.icmp_signed("<", arguments[2], last), arguments[2], last)
        row = builder.load(builder.gep(places.data, [at]))
        pointer, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        offset = builder.mul(row, builder.extract_value(made.strides, 0))
        start = builder.gep(builder.bitcast(made.data, pointer), [offset])
        kind = ir.FunctionType(ir.VoidType(), [pointer, flag, flag, flag])
        function = declared(builder.module, kind, "llvm.prefetch.p0")
        last_byte = size.literal_value - 1
        for byte in sorted({*range(0, last_byte, LINE_BYTES), last_byte}):
            builder.call(function, [builder.gep(start, [SIZE(byte)]), flag(0), flag(SECOND_LEVEL), flag(1)])
        return context.get_dummy_value()

    return types.void(x, order, types.int64, size), generate


def _ahead(typing: Any, r: Any, rows: Any, first: Any, last: Any, batch: Any) -> Any:
    """Where in an order, from the batch's start on, the row lies that a share from ``first`` to ``last`` reads so many
    rows after its row ``r``: if no longer in this batch, in the next one, at most as many rows ahead as the share has.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        r, rows, first, last, batch = arguments
        each = builder.sub(last, first)
        further = builder.add(r, builder.select(builder.icmp_signed("<", rows, each), rows, each))
        next_batch = builder.add(further, builder.sub(batch, each))
        return builder.select(builder.icmp_signed("<", further, last), further, next_batch)

    return types.int64(*[types.int64] * 5), generate


fetch: Any = intrinsic(prefer_literal=True)(_fetch)
ahead: Any = intrinsic(_ahead)
