"""The libraries of matrix products: which there are, where their functions lie, and how many threads they may use.

The one that is always there is NumPy's own (OpenBLAS, in its wheels); MKL comes with ``pip install mlsql[mkl]``, and is
loaded by ``mkl()`` alone.

MKL's threads are TBB's. With Intel's OpenMP, which is its default, its products are twice too large and the like once
another OpenMP is loaded for all to see, as PyTorch loads GNU's: each thread seems to ask the other library for its
number, and to be told that it is the first. TBB's threads also sleep when they have nothing to do, and so leave their
cores to OpenBLAS.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from threadpoolctl import ThreadpoolController, threadpool_info

from ..errors import NotSupportedError
from ..record import record
from .device import Array, cores

NAMES = (("scipy_cblas_{}64_", 8), ("cblas_{}64_", 8), ("cblas_{}_64", 8), ("scipy_cblas_{}", 4), ("cblas_{}", 4))
ROW_MAJOR = (101, 111, 111)  # CBLAS's numbers of the layout, and of operands that are not transposed
PRODUCTS = ("sgemm", "dgemm")
BF16_PRODUCT = "gemm_bf16bf16f32"
SEQUENTIAL, TBB_THREADS = 1, 4  # MKL_Set_Threading_Layer's numbers
TITLES = {"openblas": "OpenBLAS", "mkl": "MKL", "blis": "BLIS"}  # by threadpoolctl's names
INSTALL = "pip install mlsql[mkl]"


@record
class Library:
    """A BLAS: its name, its version, the bytes of its whole numbers, and the addresses of its products by name."""

    name: str
    version: str
    integer: int
    products: dict[str, int]


def found_in(path: str, name: str, version: str) -> Library | None:
    """The products of a library file, under whatever name it has them."""
    library = ctypes.CDLL(path)
    for pattern, integer in NAMES:
        found = {f: address(library, pattern.format(f)) for f in (*PRODUCTS, BF16_PRODUCT)}
        if all(found[f] for f in PRODUCTS):
            return Library(name, version, integer, {f: a for f, a in found.items() if a})
    return None


def address(library: ctypes.CDLL, name: str) -> int:
    """Where a function of a library lies; 0 if it has none of that name."""
    try:
        return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
    except AttributeError:
        return 0


def symbol(whose: str, name: str) -> str:
    """What compiled code calls a product of a library: ``mlsql_mkl_sgemm`` and the like."""
    return f"mlsql_{whose}_{name}"


def symbols(library: Library, whose: str) -> dict[str, int]:
    """The addresses of a library's products, by what compiled code calls them."""
    return {symbol(whose, name): place for name, place in library.products.items()}


@cache
def numpys() -> Library:
    """The BLAS that NumPy calls, so that compiled and interpreted steps share one pool of threads; where none can be
    told to be NumPy's, another one that is loaded."""
    loaded = [i for i in threadpool_info() if i["user_api"] == "blas"]
    for info in sorted(loaded, key=lambda i: "numpy" not in Path(i["filepath"]).parent.name):
        found = found_in(info["filepath"], info["internal_api"], str(info["version"]))
        if found is not None:
            return found
    raise NotSupportedError("no library that NumPy has loaded has CBLAS", hint="SET mlsql_compile = 'never'")


def caller(library: Library, product: str = "sgemm") -> Callable[[Array, Array, Array], None]:
    """``multiply(x, y, out)`` by a product of a library that sums in FLOAT, for matrices that lie row by row: for
    measuring, not for work."""
    integer = ctypes.c_int64 if library.integer == 8 else ctypes.c_int32
    pointer, number = ctypes.c_void_p, ctypes.c_float
    kinds = [
        *(ctypes.c_int32,) * 3,
        *(integer,) * 3,
        number,
        pointer,
        integer,
        pointer,
        integer,
        number,
        pointer,
        integer,
    ]
    gemm = ctypes.CFUNCTYPE(None, *kinds)(library.products[product])

    def multiply(x: Array, y: Array, out: Array) -> None:
        (m, k), n = x.shape, y.shape[1]
        gemm(*ROW_MAJOR, m, n, k, 1.0, x.ctypes.data, k, y.ctypes.data, n, 0.0, out.ctypes.data, n)

    return multiply


# -- MKL ---------------------------------------------------------------------------------------------------------------


@cache
def mkl_path() -> Path | None:
    """MKL's shared library, if its package is installed."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files("mkl") or ():
            if file.name.startswith(("libmkl_rt.", "mkl_rt.")) and file.name.count(".") < 4:
                path = Path(str(file.locate())).resolve()
                if path.exists() and path.suffix != ".lib":
                    return path
    return None


@cache
def mkl() -> Library:
    """MKL, loaded. Raises NotSupportedError if it is not installed."""
    path = mkl_path()
    if path is None:
        raise NotSupportedError("MKL is not installed", hint=INSTALL)
    library = ctypes.CDLL(str(path))
    library.MKL_Set_Threading_Layer(SEQUENTIAL if tbb() is None else TBB_THREADS)
    found = found_in(str(path), "mkl", metadata.version("mkl"))
    assert found is not None
    with _lock:
        _look_again()
        _hold()
    return found


def versions() -> dict[str, str]:
    """The names and versions of the libraries that can be called, by what a statement calls them; none is loaded."""
    numpy = numpys()
    titles = {"openblas": f"{TITLES.get(numpy.name, numpy.name)} {numpy.version}"}
    if mkl_path() is None:
        return titles
    title = f"MKL {metadata.version('mkl')}"
    return titles | {"mkl": title, "bf16": f"{title}, of operands in bfloat16"}


# -- threads -----------------------------------------------------------------------------------------------------------

_lock = threading.Lock()
_held: list[int] = []  # the most threads that each of the runs that go on allows
_loaded: list[Any] = []  # threadpoolctl's controllers of the libraries
_before: dict[str, int] = {}  # the threads of each library, by its file, before any run


@contextlib.contextmanager
def threads(count: int | None = None, *, look: bool = True) -> Iterator[None]:
    """Hold every BLAS of the process (NumPy's, SciPy's, MKL's) to so many threads; None: to the machine's cores.

    No library gets more than it had. Of runs at the same time in one process, the one that allows least decides.
    Without ``look`` only libraries that are known are held, which takes microseconds.
    """
    mine = cores() if count is None else count
    with _lock:
        if not _held and (look or not _loaded):
            _look_again()
        _held.append(mine)
        _hold()
    try:
        yield
    finally:
        with _lock:
            _held.remove(mine)
            _hold()


class Control(ctypes.Structure):
    """TBB's ``global_control`` of the most threads that work at a time."""

    _fields_ = (("value", ctypes.c_size_t), ("reserved", ctypes.c_ssize_t), ("parameter", ctypes.c_int))


class Tbb:
    """TBB's threads. Several controls may exist, of which the one that allows least decides; one of them is ours."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.create = library._ZN3tbb6detail2r16createERNS0_2d114global_controlE
        self.destroy = library._ZN3tbb6detail2r17destroyERNS0_2d114global_controlE
        self.active = library._ZN3tbb6detail2r127global_control_active_valueEi
        self.active.restype = ctypes.c_size_t
        self.control: Control | None = None

    def threads(self) -> int:
        """How many may work now."""
        return int(self.active(0))

    def hold(self, count: int | None) -> None:
        """Allow so many, but not more than there are cores; None: as many as without us."""
        if self.control is not None:
            self.destroy(ctypes.byref(self.control))
        self.control = None if count is None else Control(min(count, cores()), 0, 0)
        if self.control is not None:
            self.create(ctypes.byref(self.control))


@cache
def tbb() -> Tbb | None:
    """The TBB that is installed with MKL; None if there is none whose threads can be held."""
    path = mkl_path()
    for file in sorted(path.parent.glob("libtbb.so.1?")) if path else ():
        with contextlib.suppress(OSError, AttributeError):
            return Tbb(ctypes.CDLL(str(file)))  # MKL, which asks for it by name, finds it loaded
    return None


def _look_again() -> None:
    """Find the libraries that are loaded by now, which takes a millisecond."""
    _loaded[:] = ThreadpoolController().select(user_api="blas").lib_controllers


def _hold() -> None:
    """Give every library the threads that the runs which go on allow it."""
    for library in _loaded:
        pool = tbb() if library.internal_api == "mkl" else None
        if pool is not None:
            pool.hold(min(_held) if _held else None)
            continue
        usual = _before.setdefault(library.filepath, library.num_threads)
        wanted = min([usual, *_held])
        if library.num_threads != wanted:
            library.set_num_threads(wanted)
    if not _held:
        _before.clear()
