"""The rates of a machine: what ``CALIBRATE`` measures and every estimate stands on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field, fields, replace
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from ..planner import scalar
from ..planner.node import Node
from ..planner.work import PRODUCT_SIZES
from ..record import record

NEAR_TABLE = float(1 << 18)
DOUBLE = "_double"  # ends the name of a rate for numbers of 64 bits
COMPARED = ("abs", "equal", "greater", "greater_equal", "less", "less_equal", "negative", "not_equal")
PLAIN = dict.fromkeys(COMPARED, 1.3e10) | {"logical_and": 5e10, "logical_not": 6e10, "logical_or": 5e10}
SLOW = {
    "cos": 1.8e9, "erf": 1.2e8, "exp": 2e9, "log": 2.5e9, "log1p": 2e9, "power": 1.4e9, "sign": 2.3e9, "sin": 1.8e9,
    "sqrt": 2.7e9, "tanh": 2.6e9, "where": 5e8,
}  # fmt: skip
SLOW_DOUBLE = {
    "cos": 1.2e8, "erf": 1.2e8, "exp": 1.2e9, "log": 1.3e9, "log1p": 9e8, "power": 4e8, "sign": 1.7e9, "sin": 1.2e8,
    "sqrt": 8e8, "tanh": 6e8, "where": 5e8,
}  # fmt: skip
NAMES = sorted({*scalar.OPERATORS.values(), *scalar.FUNCTIONS})


def function_defaults() -> tuple[tuple[str, float], ...]:
    """Numbers a second of every scalar function in 32 and in 64 bits, arrays in the cache."""
    single = {name: SLOW.get(name, PLAIN.get(name, 8e9)) for name in NAMES}
    double = {name + DOUBLE: SLOW_DOUBLE.get(name, PLAIN.get(name, 8e9) / 2) for name in NAMES}
    return tuple((single | double).items())


# what is not measured, and the figure of its kind that it goes with
LIKE = {
    "compiled_call": "call", "compile_line": "call",
    "gemm_medium": "gemm_small", "gemm": "gemm_small", "gemm_double": "gemm_small",
    "gemv": "cache_bandwidth", "far_gemv": "bandwidth", "pack": "bandwidth", "mid_scatter_row": "again_gather_row",
    "mid_scatter": "again_gather", "scatter_row": "gather_row", "scatter": "gather",
    "far_scatter_row": "far_gather_row", "far_scatter": "far_gather", "group_loop": "gather_row", "erf": "tanh",
    "erf_double": "tanh_double", "udf_row": "call", "statement": "call", "scan": "cache_bandwidth",
    "join": "cache_bandwidth", "group_by": "cache_bandwidth", "sql": "cache_bandwidth",
}  # fmt: skip


def rate(default: float, unit: str, description: str, *, telling: bool = False) -> Any:
    """A figure of a machine, with what it is on an ordinary core of 2024; EXPLAIN prints the most telling ones."""
    return field(default=default, metadata={"unit": unit, "description": description, "telling": telling})


LIBRARIES = ("openblas", "mkl", "bf16")  # NumPy's BLAS, whatever it is; MKL; MKL's products of bfloat16


def library_defaults() -> tuple[tuple[str, float], ...]:
    """Flops a second of each way to multiply matrices at each of the sizes; 0: not measured, or it is not there."""
    return tuple((f"{library}_{size}", 0.0) for library in LIBRARIES for size in PRODUCT_SIZES)


@record
class Machine:
    """What a machine can do. The defaults are those of two ordinary cores; ``measured_at`` is empty for them.

    Rates in the cache are those of arrays that fit into it, ``far_`` ones those of memory behind it. A time is that of
    one occurrence.
    """

    call: float = rate(3.5e-7, "s", "a call of an elementwise function", telling=True)
    number_call: float = rate(6e-7, "s", "a call of an elementwise function with a plain number")
    stretched_call: float = rate(9e-7, "s", "a call of an elementwise function that stretches or converts an operand")
    fold_call: float = rate(1.5e-6, "s", "a call of a reduction")
    product_call: float = rate(9e-7, "s", "a call of a matrix product")
    einsum_call: float = rate(1.4e-5, "s", "a call of einsum")
    compiled_call: float = rate(2e-6, "s", "a call of a compiled loop")
    number: float = rate(1e-8, "s", "an operation on plain numbers")
    number_function: float = rate(9e-7, "s", "a function of plain numbers")
    step: float = rate(1e-6, "s", "a step of the training loop besides its kernels")
    chunk: float = rate(1e-6, "s", "a chunk of rows that a prediction computes, besides its kernels")
    bind: float = rate(4e-6, "s", "an array that a chunk of a prediction lays out")
    compile_line: float = rate(4e-3, "s", "a line of generated code that is compiled")
    loop: float = rate(4.5e-9, "s", "an inner loop of an elementwise function over stretched operands")
    fold_loop: float = rate(1.7e-8, "s", "an inner loop of a sum")
    best_loop: float = rate(4.3e-8, "s", "an inner loop of a maximum")
    stack_item: float = rate(3e-8, "s", "a product in a stack of matrix products")
    fold: float = rate(7e9, "numbers/s", "a sum of a vector")
    cast: float = rate(7e9, "numbers/s", "conversion of an operand to another element type")
    gemm_small: float = rate(1e11, "flops/s", "a product of 32x32 matrices")
    gemm_medium: float = rate(1e11, "flops/s", "a product of 128x128 matrices")
    gemm: float = rate(1.6e11, "flops/s", "a product of 512x512 matrices", telling=True)
    gemm_double: float = rate(8e10, "flops/s", "a product of 512x512 matrices of 64 bits")
    pack: float = rate(2.5e10, "bytes/s", "operands and result of a matrix product, besides its flops")
    gemv: float = rate(8e10, "bytes/s", "a matrix times a vector, in the cache")
    far_gemv: float = rate(4e10, "bytes/s", "a matrix times a vector, out of memory")
    outer: float = rate(1e9, "numbers/s", "an outer product of two vectors")
    einsum: float = rate(1.2e10, "flops/s", "a sum of products that is no matrix product")
    cache: float = rate(3.2e7, "bytes", "the last level of cache")
    bandwidth: float = rate(3.5e10, "bytes/s", "memory read and written by one core", telling=True)
    cache_bandwidth: float = rate(9e10, "bytes/s", "cache read and written by one core", telling=True)
    gather_row: float = rate(7e-10, "s", "a row that is taken by an index, in the cache", telling=True)
    gather: float = rate(4.5e10, "bytes/s", "rows that are taken by an index, in the cache")
    mid_gather_row: float = rate(7e-9, "s", "a row that is first taken from a table that the last cache could hold")
    mid_gather: float = rate(1e10, "bytes/s", "rows that are first taken from a table that the last cache could hold")
    again_gather_row: float = rate(2e-9, "s", "a row that is taken once more, out of the last level of cache")
    again_gather: float = rate(3e10, "bytes/s", "rows that are taken once more, out of the last level of cache")
    far_gather_row: float = rate(8e-9, "s", "a row that is taken by an index, out of memory")
    far_gather: float = rate(7e9, "bytes/s", "rows that are taken by an index, out of memory")
    scatter_row: float = rate(2e-9, "s", "a row that is added to by an index, in the cache")
    scatter: float = rate(3e10, "bytes/s", "rows that are added to by an index, in the cache")
    mid_scatter_row: float = rate(6e-9, "s", "a row that is added to by an index, in the last level of cache")
    mid_scatter: float = rate(3e10, "bytes/s", "rows that are added to by an index, in the last level of cache")
    far_scatter_row: float = rate(2e-8, "s", "a row that is added to by an index, out of memory")
    far_scatter: float = rate(1e10, "bytes/s", "rows that are added to by an index, out of memory")
    group_loop: float = rate(3e-9, "s", "a group of a GROUP BY")
    scan: float = rate(3e8, "numbers/s", "a column read from DuckDB into an array")
    join: float = rate(1.5e8, "rows/s", "rows joined by DuckDB")
    group_by: float = rate(1e8, "rows/s", "rows grouped by DuckDB")
    sql: float = rate(4e9, "operations/s", "arithmetic in DuckDB's SQL")
    udf_row: float = rate(4e-8, "s", "a row passed to a function of ours by DuckDB, besides the function")
    statement: float = rate(2e-4, "s", "a statement of DuckDB's")
    functions: tuple[tuple[str, float], ...] = field(default_factory=function_defaults)
    libraries: tuple[tuple[str, float], ...] = field(default_factory=library_defaults)
    processor: str = ""
    cores: int = 2
    numpy: str = ""
    measured_at: str = ""

    def rates(self) -> Iterator[tuple[str, float, str, str]]:
        """Name, value, unit and description of every figure."""
        for f in fields(self):
            if f.metadata:
                yield f.name, getattr(self, f.name), f.metadata["unit"], f.metadata["description"]
        for name, value in self.functions:
            bits = "64" if name.endswith(DOUBLE) else "32"
            yield name, value, "numbers/s", f"the function {name.removesuffix(DOUBLE)} of {bits} bits, in the cache"
        for name, value in self.libraries:
            if value:
                m, n, k = PRODUCT_SIZES[name.partition("_")[2]]
                yield name, value, "flops/s", f"a product of {m}x{k} and {k}x{n} matrices"

    @cached_property
    def function(self) -> Mapping[str, float]:
        """Numbers a second by the name of a scalar function; "product" and the like are priced by their sizes."""
        return dict(self.functions)

    def blas_rate(self, library: str, size: str) -> float:
        """The rate of a library at one of the sizes of products; 0: not measured."""
        return dict(self.libraries)[f"{library}_{size}"]

    @property
    def flops(self) -> float:
        """Additions a second of arrays in the cache."""
        return self.function["add"]

    @property
    def table_bytes(self) -> tuple[float, float, float]:
        """The sizes of the tables that rows are taken from when it is measured: near, mid and far."""
        return NEAR_TABLE, max(self.cache / 4, 2 * NEAR_TABLE), 2 * self.cache

    @cached_property
    def prices(self) -> WeakKeyDictionary[Node, float]:
        """The estimates made so far: a search asks for them thousands of times."""
        return WeakKeyDictionary()

    @classmethod
    def measured(cls, rates: Mapping[str, float], processor: str, cores: int, numpy: str, measured_at: str) -> Machine:
        """The machine with these rates. What was not measured is as much faster or slower as what it is most like."""
        usual = {name: value for name, value, _, _ in cls().rates()}
        values, function_names = dict(rates), {name for name, _ in function_defaults()}
        for name, value in usual.items():
            model = LIKE.get(name, "add")
            if name not in rates and model in rates and (name in LIKE or name in function_names):
                values[name] = float(f"{value * rates[model] / usual[model]:.2g}")
        return replace(cls().with_rates(values), processor=processor, cores=cores, numpy=numpy, measured_at=measured_at)

    def with_rates(self, values: Mapping[str, float]) -> Machine:
        """This machine with some figures replaced; names that it does not have are left out."""
        known: dict[str, Any] = {f.name: values[f.name] for f in fields(self) if f.metadata and f.name in values}
        functions = tuple((name, values.get(name, value)) for name, value in self.functions)
        libraries = tuple((name, values.get(name, value)) for name, value in self.libraries)
        return replace(self, functions=functions, libraries=libraries, **known)
