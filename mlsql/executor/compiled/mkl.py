"""MKL's matrix products from compiled code. Importing this loads MKL: only a generated module that calls it does."""

from __future__ import annotations

from llvmlite import ir
from numba import types

from ..blas import BF16_PRODUCT, mkl
from .blas import external, product, products_of

matmul_mkl, add_product_mkl = products_of(mkl(), "mkl")
matmul_bf16 = product({types.uint16: external(mkl(), "mkl", BF16_PRODUCT, ir.FloatType())})
