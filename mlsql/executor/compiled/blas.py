"""Matrix products from compiled code: the CBLAS of a library that is loaded, called by pointer.

By default it is NumPy's own OpenBLAS, so that compiled and interpreted steps share one pool of threads. Numba's
``np.dot`` would call SciPy's, a second pool, and copy operands that do not lie in one piece.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from numba import njit, types
from numba.extending import intrinsic, overload

from .library import Library, library

ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112


def declare() -> Library:
    """Let compiled code call ``mlsql_sgemm`` and ``mlsql_dgemm``."""
    found = library()
    assert found is not None
    llvm.add_symbol("mlsql_sgemm", found.sgemm)
    llvm.add_symbol("mlsql_dgemm", found.dgemm)
    return found


INTEGER = types.int64 if declare().integer == 8 else types.int32


def external(name: str, number: Any) -> Any:
    """The signature of CBLAS's matrix product."""
    array = types.CPointer(number)
    flags, sizes = (types.int32,) * 3, (INTEGER,) * 3
    operands = (number, array, INTEGER, array, INTEGER, number, array, INTEGER)
    return types.ExternalFunction(name, types.void(*flags, *sizes, *operands))


_sgemm = external("mlsql_sgemm", types.float32)
_dgemm = external("mlsql_dgemm", types.float64)


@intrinsic
def _data(typing: Any, array: Any) -> Any:
    """The address of an array's first number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.make_array(array)(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), generate


@njit(nogil=True)
def _leading(x: Any) -> Any:
    """Whether BLAS has to read a matrix as transposed, and how far its rows are apart in memory."""
    if x.strides[1] == x.itemsize:
        return PLAIN, max(x.strides[0] // x.itemsize, x.shape[1])
    return TRANSPOSED, max(x.strides[1] // x.itemsize, x.shape[0])


def _gemm(*arguments: Any) -> None:
    """CBLAS's product of the element type of ``out``."""


@overload(_gemm, inline="always")
def _typed_gemm(
    turn_x: Any, turn_y: Any, m: Any, n: Any, k: Any, x: Any, a: Any, y: Any, b: Any, out: Any, c: Any
) -> Any:
    gemm = {types.float32: _sgemm, types.float64: _dgemm}[out.dtype]

    def call(
        turn_x: Any, turn_y: Any, m: Any, n: Any, k: Any, x: Any, a: Any, y: Any, b: Any, out: Any, c: Any
    ) -> None:
        gemm(ROW_MAJOR, turn_x, turn_y, m, n, k, 1, _data(x), a, _data(y), b, 0, _data(out), c)

    return call


@njit(nogil=True)
def matmul(x: Any, y: Any, out: Any) -> None:
    """The product of two matrices into ``out``, whose rows lie in one piece each; both may be transposed views."""
    turn_x, lead_x = _leading(x)
    turn_y, lead_y = _leading(y)
    lead = max(out.strides[0] // out.itemsize, out.shape[1])
    _gemm(turn_x, turn_y, out.shape[0], out.shape[1], x.shape[1], x, lead_x, y, lead_y, out, lead)


@njit(nogil=True)
def nearest(position: Any, count: Any) -> Any:
    """A position, or the nearest one of so many."""
    return min(max(position, 0), count - 1)


@njit(nogil=True, fastmath={"reassoc", "contract"})
def plus(total: Any, value: Any) -> Any:
    """A sum's next value; the order of a loop's additions is the compiler's, so that it can use vector registers."""
    return total + value
