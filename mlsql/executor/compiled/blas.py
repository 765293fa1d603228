"""Matrix products from compiled code: the CBLAS of a library that is loaded, called by pointer.

By default it is NumPy's own. Numba's ``np.dot`` would call SciPy's, a second pool of threads, and copy operands that do
not lie in one piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import llvmlite.binding as llvm
from numba import njit, types
from numba.extending import intrinsic, overload

from ..blas import Library, numpys

ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112


def external(library: Library, whose: str, name: str, operand: Any, number: Any) -> Any:
    """CBLAS's product of matrices of ``operand``, summed in ``number``; compiled code knows it as ``mlsql_mkl_sgemm``
    and the like."""
    symbol = f"mlsql_{whose}_{name}"
    llvm.add_symbol(symbol, library.products[name])
    integer = types.int64 if library.integer == 8 else types.int32
    array, out = (types.CPointer(n) for n in (operand, number))  # type: ignore[no-untyped-call]
    flags, sizes = (types.int32,) * 3, (integer,) * 3
    operands = (number, array, integer, array, integer, number, out, integer)
    return types.ExternalFunction(symbol, types.void(*flags, *sizes, *operands))


def _address(typing: Any, array: Any) -> Any:
    """The address of an array's first number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.make_array(array)(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), generate  # type: ignore[no-untyped-call]


_data: Any = intrinsic(_address)


@njit(nogil=True)
def _leading(x: Any) -> Any:
    """Whether BLAS has to read a matrix as transposed, and how far its rows are apart in memory."""
    if x.strides[1] == x.itemsize:
        return PLAIN, max(x.strides[0] // x.itemsize, x.shape[1])
    return TRANSPOSED, max(x.strides[1] // x.itemsize, x.shape[0])


def product(functions: Mapping[Any, Any]) -> Any:
    """A compiled function ``matmul(x, y, out)`` that calls the product of its operands' element type.

    It puts the product of two matrices into ``out``, whose rows lie in one piece each; both operands may be transposed
    views.
    """

    def gemm(*arguments: Any) -> None:
        """CBLAS's product of the element type of ``x``."""

    @overload(gemm, inline="always")
    def typed(
        turn_x: Any, turn_y: Any, m: Any, n: Any, k: Any, x: Any, a: Any, y: Any, b: Any, out: Any, c: Any
    ) -> Any:
        function = functions[x.dtype]

        def call(
            turn_x: Any, turn_y: Any, m: Any, n: Any, k: Any, x: Any, a: Any, y: Any, b: Any, out: Any, c: Any
        ) -> None:
            function(ROW_MAJOR, turn_x, turn_y, m, n, k, 1, _data(x), a, _data(y), b, 0, _data(out), c)

        return call

    @njit(nogil=True)
    def matmul(x: Any, y: Any, out: Any) -> None:
        turn_x, lead_x = _leading(x)
        turn_y, lead_y = _leading(y)
        lead = max(out.strides[0] // out.itemsize, out.shape[1])
        gemm(turn_x, turn_y, out.shape[0], out.shape[1], x.shape[1], x, lead_x, y, lead_y, out, lead)

    return matmul


def products_of(library: Library, whose: str) -> Any:
    """``matmul(x, y, out)`` of a library, for FLOAT and for DOUBLE."""
    names = {types.float32: "sgemm", types.float64: "dgemm"}
    return product({number: external(library, whose, name, number, number) for number, name in names.items()})


matmul = products_of(numpys(), "numpy")


@njit(nogil=True)
def nearest(position: Any, count: Any) -> Any:
    """A position, or the nearest one of so many."""
    return min(max(position, 0), count - 1)


@njit(nogil=True, fastmath={"reassoc", "contract"})
def plus(total: Any, value: Any) -> Any:
    """A sum's next value; the order of a loop's additions is the compiler's, so that it can use vector registers."""
    return total + value
