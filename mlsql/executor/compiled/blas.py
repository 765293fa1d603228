"""Matrix products from compiled code: the CBLAS of a library that is loaded, called by pointer.

By default it is NumPy's own. Numba's ``np.dot`` would call SciPy's, a second pool of threads, and copy operands that do
not lie in one piece. What compiled code calls here are intrinsics: they become instructions of their caller, while a
function of its own takes Numba a tenth of a second to compile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..blas import Library, numpys, symbol
from .entries import IN_ANY_ORDER, Entry, added, number_by_number
from .number import declared

ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112
FLAG, SIZE = ir.IntType(32), ir.IntType(64)


class Gemm(NamedTuple):
    """CBLAS's product of matrices: its symbol, the type of its whole numbers, and that of its factors."""

    symbol: str
    integer: ir.IntType
    number: ir.Type


def external(library: Library, whose: str, name: str, number: ir.Type) -> Gemm:
    """A product of a library, which Numba is to find under the name that compiled code has for it."""
    called = symbol(whose, name)
    llvm.add_symbol(called, library.products[name])
    return Gemm(called, ir.IntType(8 * library.integer), number)


class Matrix:
    """A matrix as BLAS sees it: its address, its sizes, whether it is transposed, how far its rows are apart."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        array = context.make_array(kind)(context, builder, value)
        self.data = array.data
        self.rows, self.columns = (builder.extract_value(array.shape, i) for i in (0, 1))
        item = SIZE(kind.dtype.bitwidth // 8)
        down, along = (builder.extract_value(array.strides, i) for i in (0, 1))
        plain = builder.icmp_signed("==", along, item)
        apart = builder.sdiv(builder.select(plain, down, along), item)
        least = builder.select(plain, self.columns, self.rows)
        self.lead = builder.select(builder.icmp_signed(">", apart, least), apart, least)
        self.turn = builder.select(plain, FLAG(PLAIN), FLAG(TRANSPOSED))


def product(functions: Mapping[Any, Gemm], adds: bool = False) -> Any:
    """A function ``matmul(x, y, out)`` for compiled code that calls the product of its operands' element type.

    It puts the product of two matrices into ``out``, or ``adds`` it there. The rows of ``out`` lie in one piece each;
    both operands may be transposed views.
    """

    def matmul(typing: Any, x: Any, y: Any, out: Any) -> Any:
        gemm = functions[x.dtype]

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kinds = zip((x, y, out), arguments, strict=True)
            a, b, c = (Matrix(context, builder, kind, value) for kind, value in kinds)
            sizes = (c.rows, c.columns, a.columns, a.lead, b.lead, c.lead)
            narrow = gemm.integer.width < SIZE.width
            m, n, k, *leads = (builder.trunc(s, gemm.integer) if narrow else s for s in sizes)
            one, kept = ir.Constant(gemm.number, 1.0), ir.Constant(gemm.number, float(adds))
            values = [FLAG(ROW_MAJOR), a.turn, b.turn, m, n, k]
            values += [one, a.data, leads[0], b.data, leads[1], kept, c.data, leads[2]]
            kind = ir.FunctionType(ir.VoidType(), [v.type for v in values])
            builder.call(declared(builder.module, kind, gemm.symbol), values)
            return context.get_dummy_value()

        return types.void(x, y, out), generate

    return intrinsic(matmul)


def products_of(library: Library, whose: str) -> tuple[Any, Any]:
    """``matmul(x, y, out)`` of a library for FLOAT and for DOUBLE, and the function that adds to ``out`` instead."""
    functions = {
        types.float32: external(library, whose, "sgemm", ir.FloatType()),
        types.float64: external(library, whose, "dgemm", ir.DoubleType()),
    }
    return product(functions), product(functions, adds=True)


matmul, add_product = products_of(numpys(), "numpy")


def _nearest(typing: Any, position: Any, count: Any) -> Any:
    """A position, or the nearest one of so many."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = zip(arguments, signature.args, strict=True)
        at, most = (context.cast(builder, value, kind, types.int64) for value, kind in kinds)
        at = builder.select(builder.icmp_signed("<", at, SIZE(0)), SIZE(0), at)
        last = builder.sub(most, SIZE(1))
        return builder.select(builder.icmp_signed(">", at, last), last, at)

    return types.int64(position, count), generate


def _plus(typing: Any, total: Any, value: Any) -> Any:
    """A sum's next value; the order of a loop's additions is the compiler's, so that it can use vector registers."""
    if isinstance(total, Entry):
        return total(total, value), number_by_number(added, total)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = context.cast(builder, arguments[1], value, total)
        if isinstance(total, types.Integer):
            return builder.add(arguments[0], number)
        return builder.fadd(arguments[0], number, flags=IN_ANY_ORDER)

    return total(total, value), generate


nearest: Any = intrinsic(_nearest)
plus: Any = intrinsic(_plus)
