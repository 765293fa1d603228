"""FLOAT rounded to bfloat16 in compiled code: a sign, the eight bits of the exponent, and seven of the fraction."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic


def _upper(typing: Any, x: Any) -> Any:
    """The upper half of the bits of a FLOAT, rounded to the nearest, of two as near to the even one; NaN stays NaN.

    In arithmetic of 32 bits, so that a loop of it fills the vector registers.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, half = ir.IntType(32), ir.IntType(16)
        [value] = arguments
        bits = builder.bitcast(value, word)
        upper = builder.lshr(bits, word(16))
        up = builder.add(builder.add(bits, word(0x7FFF)), builder.and_(upper, word(1)))
        quiet = builder.or_(upper, word(0x40))
        is_nan = builder.fcmp_unordered("uno", value, value)
        return builder.trunc(builder.select(is_nan, quiet, builder.lshr(up, word(16))), half)

    return types.uint16(types.float32), generate


_rounded: Any = intrinsic(_upper)


@njit(nogil=True)
def round_bf16(x: Any, out: Any) -> None:
    """The numbers of a matrix of FLOAT as bfloat16, by their bits."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = _rounded(x[i, j])


def missing() -> str | None:
    """What this processor lacks for products of bfloat16; None if it has their instructions."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512bf16") or features.get("amx-bf16"):
        return None
    return "this processor has neither AVX512-BF16 nor AMX-BF16"
