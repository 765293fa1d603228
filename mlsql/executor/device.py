"""The names that generated array code may use, for a NumPy processor."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..planner.ops.contract import ROW, as_matrix_product
from ..planner.scalar import FUNCTIONS
from ..record import record

Array = NDArray[Any]

LINE_BYTES = 64  # of the cache
BLOCK_BYTES = 1 << 20  # rows are copied in blocks that stay in the second-level cache


def on_lines(size: int, dtype: str = "uint8") -> Array:
    """A fresh array that shares no line of the cache with any other, so that no two threads write to the same one."""
    bytes_ = size * np.dtype(dtype).itemsize
    memory = np.empty(-(-bytes_ // LINE_BYTES) * LINE_BYTES + LINE_BYTES, np.uint8)
    start = -memory.ctypes.data % LINE_BYTES
    return memory[start : start + bytes_].view(dtype)


def array(arena: Sequence[Array], slot: int, shape: tuple[int, ...], dtype: str) -> Array:
    """The front of an arena slot as an array."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    return arena[slot][:size].view(kind).reshape(shape)


def fill(value: Any, out: Array) -> None:
    """Set every number of ``out``."""
    np.copyto(out, value)


def cast(x: Array, out: Array) -> None:
    """Copy with conversion of the element type."""
    np.copyto(out, x, casting="unsafe")


def where(condition: Array, x: Array, y: Array, out: Array) -> None:
    """x where the condition holds, else y."""
    np.copyto(out, y)
    np.copyto(out, x, where=condition)


def einsum(spec: str, x: Array, y: Array, out: Array) -> None:
    """Einstein summation in the order that costs least."""
    np.einsum(spec, x, y, out=out, optimize=True)


def rounded_bf16(x: Array) -> Array:
    """Every FLOAT rounded to the nearest bfloat16, of two as near to the one whose last bit is 0; NaN stays NaN."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    half = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)
    return np.where(np.isnan(x), np.float32(np.nan), half)


def bf16_matmul(x: Array, y: Array, out: Array) -> None:
    """The matrix product of two operands that are rounded to bfloat16, summed in 32 bits."""
    np.matmul(rounded_bf16(x), rounded_bf16(y), out)


def moment(spec: str, x: Array, y: Array, out: Array) -> None:
    """Einstein summation over all rows ("r") in 64 bits, a block of rows at a time."""
    folded = [ROW in letters for letters in spec.partition("->")[0].split(",")]
    rows, widest = max((len(a), a[:1].size) for a, has_rows in zip((x, y), folded, strict=True) if has_rows)
    block = max(1, BLOCK_BYTES // (8 * max(1, widest)))
    product = matrix_product(spec)
    out[...] = 0
    for start in range(0, rows, block):
        parts = [a[start : start + block] if has_rows else a for a, has_rows in zip((x, y), folded, strict=True)]
        first = parts[0].astype(np.float64, copy=False)
        second = first if y is x else parts[1].astype(np.float64, copy=False)
        out += product(first, second)


def matrix_product(spec: str) -> Callable[[Array, Array], Any]:
    """A contraction of two arrays, by a matrix product where it is one; so is a sum of rows times a number."""
    operands, out = spec.split("->")
    a, b = operands.split(",")
    if not b and out == a.removeprefix(ROW):
        return sum_of_rows
    if not a and out == b.removeprefix(ROW):
        return lambda x, y: sum_of_rows(y, x)
    form = as_matrix_product(spec)
    if form is None:
        return lambda x, y: np.einsum(spec, x, y, optimize=True)
    swapped, *turned = form
    first, second = (bool(t) for t in turned)

    def product(x: Array, y: Array) -> Any:
        a, b = x.T if first else x, y.T if second else y
        return b @ a if swapped else a @ b

    return product


def sum_of_rows(x: Array, number: Array) -> Any:
    """The rows of x, added up by a matrix product, times a number."""
    return (np.ones(len(x)) @ x.reshape(len(x), -1)).reshape(x.shape[1:]) * number


def place_parts(parts: Sequence[Array], windows: Sequence[Array]) -> None:
    """Copy each part into its window of one array, a block of rows at a time.

    Columns copied one after another into a row-major matrix touch every cache line of it once a column; copied
    block by block the lines stay in the cache until they are full.
    """
    rows = windows[0].shape[0] if windows[0].ndim > 1 else 0
    row_bytes = sum(w[:1].nbytes for w in windows) if rows else 0
    block = max(1, BLOCK_BYTES // max(1, row_bytes))
    if rows <= block:
        for part, window in zip(parts, windows, strict=True):
            window[...] = part
        return
    sources = [np.broadcast_to(p, w.shape) for p, w in zip(parts, windows, strict=True)]
    for start in range(0, rows, block):
        for source, window in zip(sources, windows, strict=True):
            window[start : start + block] = source[start : start + block]


def erf(x: Array, out: Array, dtype: str | None = None) -> None:
    """The error function; SciPy's, loaded when a plan first needs it."""
    from scipy.special import erf as special_erf

    special_erf(x, out, dtype=dtype)


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@record
class Identity:
    """What a measurement is valid for."""

    processor: str
    cores: int
    numpy: str


def identity() -> Identity:
    """This machine."""
    return Identity(processor(), cores(), np.__version__)


def processor() -> str:
    """The processor's name, from /proc/cpuinfo where there is one."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@functools.cache
def loaded(module: str, name: str) -> Callable[..., Any]:
    """A compiled loop of a module of this room."""
    return getattr(import_module(f".{module}", __package__), name)  # type: ignore[no-any-return]


def later(module: str, name: str) -> Callable[..., Any]:
    """A compiled loop that is loaded when a plan first runs it."""
    return lambda *arguments: loaded(module, name)(*arguments)


COMPILED = {
    "kernels": "group_rows join_rows add_rows sum_groups best_of_groups add_joined sum_joined pair_dots joined_dots",
    "sampling": "group_sample sample_there sample_slots",
    "table_kernels": "add_scaled_rows put_rows find_first add_to_first copy_first",
}

ELSEWHERE = {name: "Numba" for listed in COMPILED.values() for name in listed.split()}
ELSEWHERE |= {"matmul": "BLAS", "bf16_matmul": "BLAS", "moment": "BLAS", "erf": "SciPy"}


def library(functions: Iterable[str]) -> str:
    """Where a kernel that calls these functions spends its time: in NumPy, unless one of them is another library's."""
    return next((ELSEWHERE[f] for f in functions if f in ELSEWHERE), "NumPy")


def on_number(ufunc: Any) -> Callable[..., float]:
    """A function on plain numbers that gives infinity or NaN where ``math`` would raise: one rule for both."""
    return lambda *numbers: ufunc(*map(np.float64, numbers)).item()


UFUNCS = (
    "add subtract multiply divide power negative exp log log1p sqrt sin cos tanh sign maximum minimum "
    "less less_equal greater greater_equal equal not_equal logical_and logical_or logical_not"
).split()


PARTIAL = "divide power exp log log1p sqrt sin cos maximum minimum".split()  # Python's own raise, or drop a NaN


def namespace() -> dict[str, Any]:
    """What generated code is run in: ufuncs under their NumPy names, and the helpers above."""
    names: dict[str, Any] = {name: getattr(np, name) for name in UFUNCS}
    names.update(abs=np.absolute, matmul=np.matmul, copyto=np.copyto, arange=np.arange, empty=np.empty)
    names.update({f"number_{name}": function for name, function in FUNCTIONS.items()})
    names.update({f"number_{name}": on_number(getattr(np, name)) for name in PARTIAL})
    for helper in (array, fill, cast, where, einsum, moment, bf16_matmul, place_parts, erf):
        names[helper.__name__] = helper
    names.update({name: later(module, name) for module, listed in COMPILED.items() for name in listed.split()})
    return names
