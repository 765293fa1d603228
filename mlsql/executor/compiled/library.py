"""Which BLAS compiled code calls: by default the one that NumPy has loaded. Nothing here loads Numba."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import NamedTuple

import numpy  # noqa: F401  (loads its BLAS)
from threadpoolctl import threadpool_info


class Library(NamedTuple):
    """A BLAS: its name, its version, the bytes of its whole numbers, and the addresses of its products."""

    name: str
    version: str
    integer: int
    sgemm: int
    dgemm: int


NAMES = (("scipy_cblas_{}64_", 8), ("cblas_{}64_", 8), ("scipy_cblas_{}", 4), ("cblas_{}", 4))


def found_in(path: str, name: str, version: str) -> Library | None:
    """The products of a library file, under whatever name it has them."""
    library = ctypes.CDLL(path)
    for pattern, integer in NAMES:
        try:
            functions = [getattr(library, pattern.format(f)) for f in ("sgemm", "dgemm")]
        except AttributeError:
            continue
        single, double = (ctypes.cast(f, ctypes.c_void_p).value or 0 for f in functions)
        return Library(name, version, integer, single, double)
    return None


@cache
def library() -> Library | None:
    """The BLAS that compiled code calls; None if no library that is loaded has CBLAS."""
    for info in threadpool_info():
        if info["user_api"] == "blas":
            found = found_in(info["filepath"], info["internal_api"], str(info["version"]))
            if found is not None:
                return found
    return None
