"""Measuring what this machine can do: the figures that estimates stand on, by the names that ``Machine`` has for them.

Each figure is the least of several repetitions, because a machine that others use too only ever adds time, and is
rounded to two digits, so that two calibrations of one machine mostly give the same plans. What would first have to be
imported (Numba, SciPy) or takes long is measured by CALIBRATE only.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..planner import scalar
from ..planner.node import Node
from ..planner.ops import Add, Column, Counter, Index, constant
from ..planner.plan import Plan
from ..types import FLOAT, RowSet
from .device import Array, namespace
from .predict import Predictor
from .storage import Storage
from .train import Limits, LoopPlan, Trainer

NUMBERS = 16384  # of an array that fits into the first caches
ROWS = 1024
DUCKDB_ROWS = 200_000
NEAR_TABLE = 1 << 18  # bytes of a table in the first levels of cache
LARGEST = 256 << 20  # bytes of the array that stands for memory

Rates = dict[str, float]


def cache_bytes() -> float:
    """The size of the last level of cache; 8 MB where nothing tells."""
    sizes = [0.0]
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text().strip()
        if text[:-1].isdigit() and text[-1] in "KM":
            sizes.append(float(text[:-1]) * {"K": 1 << 10, "M": 1 << 20}[text[-1]])
    return max(sizes) or float(8 << 20)


def calibrate(*, thorough: bool) -> Rates:
    """Measure this machine: in about 0.3 seconds, or everything, in about 2. What fails to be measured is left out."""
    bench = Bench(9, 3e-4, 0.05, 0.8) if thorough else Bench(4, 1e-4, 0.01, 0.12)
    with np.errstate(all="ignore"):
        for measure in (overheads, overheads, functions, loops, products, memory, gathers, steps):
            measure(bench)
        for measure in (compiled, special, duckdb) if thorough else ():
            measure(bench)
        if thorough:
            from .blas_rates import libraries

            libraries(bench)
    return {name: float(f"{value:.2g}") for name, value in bench.rates.items()}


class Bench:
    """Times calls: the least of ``repeats`` runs, each of at least ``least`` seconds, in about ``limit`` seconds.

    ``patience`` is for how many seconds it tries to get the threads of BLAS to run.
    """

    def __init__(self, repeats: int, least: float, limit: float, patience: float = 0.0) -> None:
        self.repeats, self.least, self.limit, self.patience = repeats, least, limit, patience
        self.rates: Rates = {"cache": cache_bytes()}

    def __getitem__(self, name: str) -> float:
        return self.rates[name]

    def __call__(self, call: Callable[[], Any]) -> float:
        """The seconds of a call."""
        call()
        count, best, ends = 1, once(call, 1), time.perf_counter() + self.limit
        while best * count < self.least:
            count *= 2
            best = once(call, count)
        for run in range(self.repeats - 1):
            if run > 2 and time.perf_counter() > ends:
                break
            best = min(best, once(call, count))
        return best

    @functools.cached_property
    def far(self) -> Array:
        """Numbers that do not fit into the cache."""
        return np.ones(int(min(2 * self["cache"], LARGEST)) // 4, np.float32)


def once(call: Callable[[], Any], count: int) -> float:
    """Seconds of a call, averaged over ``count`` of them."""
    began = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - began) / count


def net(seconds: float, *known: float) -> float:
    """What is left of a time without its known parts, which noise may have made larger than they are."""
    return max(seconds - sum(known), seconds / 20)


def numbers(*shape: int, kind: str = "float32") -> Array:
    """Numbers between 0.5 and 1.5, where every function has a value."""
    values: Array = np.random.default_rng(0).random(shape).astype(kind) + np.dtype(kind).type(0.5)
    return values


# -- NumPy ---------------------------------------------------------------------------------------------------------


def overheads(bench: Bench) -> None:
    """What a call takes before it does anything."""
    names = namespace()
    x, out, small = numbers(8), numbers(8), numbers(4, 4)
    plain = eval(f"lambda x, y: {' + '.join(['x * y'] * 50)}")
    rows, dots = numbers(4, 4), numbers(4)
    found = {
        "call": bench(lambda: np.add(x, x, out)),
        "number_call": bench(lambda: np.multiply(x, 0.5, out)),
        "stretched_call": bench(lambda: np.add(small, dots, rows)),
        "fold_call": bench(lambda: np.add.reduce(x, None).item()),
        "product_call": bench(lambda: np.matmul(small, small, rows)),
        "einsum_call": bench(lambda: names["einsum"]("rk,rk->r", small, small, dots)),
        "number": bench(lambda: plain(0.3, 0.4)) / 99,
        "number_function": bench(lambda: names["number_exp"](0.3)),
    }
    bench.rates |= {name: min(seconds, bench.rates.get(name, seconds)) for name, seconds in found.items()}


def functions(bench: Bench) -> None:
    """Every scalar function on arrays in the cache, but for the one of SciPy's."""
    bench.rates |= {
        name + suffix: NUMBERS / net(bench(call), bench["call"])
        for suffix, kind in (("", "float32"), ("_double", "float64"))
        for name, call in function_calls(kind)
        if name != "erf"
    }


def function_calls(kind: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """A call of every function of the scalar expressions, by name."""
    names = namespace()
    x, y = numbers(NUMBERS, kind=kind), numbers(NUMBERS, kind=kind)[::-1].copy()
    above, out, flags = x > 1, np.empty(NUMBERS, kind), np.empty(NUMBERS, bool)
    for name in sorted({*scalar.OPERATORS.values(), *scalar.FUNCTIONS}):
        function = names[name]
        operands: tuple[Array, ...] = (x, y) if name in BINARY else (x,)
        if name.startswith("logical"):
            operands = (above, above)[: len(operands)]
        elif name == "where":
            operands = (above, x, y)
        target = flags if name.startswith("logical") or name in COMPARISONS else out
        options = {"out": target} if name in ("maximum", "minimum") else {}
        yield name, functools.partial(function, *operands, *(() if options else (target,)), **options)


COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")
BINARY = (*COMPARISONS, *"add subtract multiply divide power maximum minimum logical_and logical_or".split())


def loops(bench: Bench) -> None:
    """What an inner loop costs, and conversion of an operand."""
    x, column, out = numbers(ROWS, 8), numbers(ROWS, 1), numbers(ROWS, 8)
    flat, result, flags = numbers(NUMBERS), numbers(NUMBERS), numbers(NUMBERS) > 1
    fold = NUMBERS / net(bench(lambda: np.add.reduce(flat, None).item()), bench["fold_call"])
    arithmetic, folding = bench["call"] + x.size / bench["add"], bench["fold_call"] + x.size / fold
    same = bench(lambda: np.multiply(flat, flat, result))
    bench.rates |= {
        "fold": fold,
        "loop": net(bench(lambda: np.subtract(x, column, out)), arithmetic) / ROWS,
        "fold_loop": net(bench(lambda: np.add.reduce(x, 1, None, column, keepdims=True)), folding) / ROWS,
        "best_loop": net(bench(lambda: np.maximum.reduce(x, 1, None, column, keepdims=True)), folding) / ROWS,
        "cast": NUMBERS / net(bench(lambda: np.multiply(flat, flags, result)), same),
    }


def products(bench: Bench) -> None:
    """Matrix products of three sizes and of the special shapes."""
    call, rates = bench["product_call"], bench.rates
    for name, size, kind in (
        ("gemm_small", 32, "float32"), ("gemm_medium", 128, "float32"), ("gemm", 512, "float32"),
        ("gemm_double", 512, "float64"),
    ):  # fmt: skip
        x, out = numbers(size, size, kind=kind), np.empty((size, size), kind)
        flops = 2 * size**3
        threaded(bench, name, functools.partial(np.matmul, x, x, out), flops, rates.get("gemm_small", 0.0))
    tall, short, out = numbers(2048, 8), numbers(8, 64), numbers(2048, 64)
    moved, arithmetic = tall.nbytes + short.nbytes + out.nbytes, 2 * tall.size * 64 / rates["gemm_small"]
    threaded(bench, "pack", lambda: np.matmul(tall, short, out), moved, 4 * bench["add"], arithmetic)
    wide, vector, result = numbers(2048, 256), numbers(256, 1), numbers(2048, 1)
    threaded(bench, "gemv", lambda: np.matmul(wide, vector, result), wide.nbytes, 4 * bench["add"])
    square, row = numbers(256, 256), vector.reshape(1, 256)
    rates["outer"] = square.size / net(bench(lambda: np.matmul(vector, row, square)), call)
    stack, items = numbers(ROWS, 4, 4), numbers(ROWS, 4, 4)
    rates["stack_item"] = net(bench(lambda: np.matmul(stack, stack, items)), call) / ROWS
    rows, dots, einsum = numbers(4096, 32), numbers(4096), namespace()["einsum"]
    seconds = bench(lambda: einsum("rk,rk->r", rows, rows, dots))
    rates["einsum"] = 2 * rows.size / net(seconds, bench["einsum_call"], 4096 * bench["loop"])


def threaded(bench: Bench, name: str, call: Callable[[], Any], work: float, expected: float, *known: float) -> None:
    """The rate of a product that BLAS may share out over threads, tried until patience ends.

    While another process keeps a thread of BLAS from its core, a product takes a hundred times as long. That says
    nothing about the machine, so a rate far below what one core would reach is left out. ``known`` are parts of the
    time that are something else.
    """
    while bench.patience > 0:
        began = time.perf_counter()
        call()
        seconds = once(call, 1)
        if work / net(seconds, bench["product_call"], *known) > expected / 4:
            bench.rates[name] = work / net(min(seconds, bench(call)), bench["product_call"], *known)
            return
        bench.patience -= time.perf_counter() - began


def memory(bench: Bench) -> None:
    """Bandwidth in the cache and behind it."""
    near, copy = numbers(1 << 17), numbers(1 << 17)
    bench.rates["cache_bandwidth"] = 2 * near.nbytes / net(bench(lambda: np.copyto(copy, near)), bench["call"])
    far = bench.far[: bench.far.size // 192 * 192].reshape(3, -1)
    bench.rates["bandwidth"] = far.nbytes / bench(lambda: np.add(far[0], far[1], far[2]))
    matrix = far.reshape(-1, 64)
    vector, result = numbers(64, 1), np.empty((len(matrix), 1), np.float32)
    threaded(bench, "far_gemv", lambda: np.matmul(matrix, vector, result), matrix.nbytes, bench["bandwidth"])


# -- rows in no order ----------------------------------------------------------------------------------------------


def gathers(bench: Bench) -> None:
    """Rows of one number and of 64 that an index takes, from tables of three sizes."""
    take: Run = lambda table, index, out: table.take(index, 0, out, "clip")  # noqa: E731
    near, middle, far = tables(bench)
    accesses(bench, "gather", bench["call"], take, near, WARM)
    accesses(bench, "again_gather", bench["call"], take, middle, READ)
    accesses(bench, "mid_gather", bench["call"], take, middle, COLD)
    accesses(bench, "far_gather", bench["call"], take, far, COLD)


def tables(bench: Bench) -> tuple[Array, Array, Array]:
    """The numbers of a table in the first levels of cache, of one in the last, and of one that no cache holds."""
    middle = max(int(bench["cache"] / 4), 2 * NEAR_TABLE) // 4
    return bench.far[: NEAR_TABLE // 4], bench.far[:middle], bench.far


# how far the rows of a table are: taken a moment ago, or not since the whole table was read, or not for long
WARM, READ, COLD = "warm", "read", "cold"
Run = Callable[[Array, Array, Array], Any]


def accesses(bench: Bench, name: str, call: float, run: Run, flat: Array, state: str) -> None:
    """The time of a row, and the rate of its bytes."""
    one, many = (row_seconds(bench, flat, width, call, run, state) for width in (1, 64))
    bench.rates[f"{name}_row"] = one
    bench.rates[name] = 63 * 4 / net(many, one)


def row_seconds(bench: Bench, flat: Array, width: int, call: float, run: Run, state: str) -> float:
    """The seconds of a row of so many numbers; every time other rows, unless they are to be warm."""
    rng = np.random.default_rng(0)
    table, rows = flat[: flat.size // width * width].reshape(-1, width), np.ones((ROWS, width), np.float32)
    if state == WARM:
        index = rng.integers(0, len(table), ROWS)
        return net(bench(lambda: run(table, index, rows)), call) / ROWS
    seconds = []
    for _ in range(8):
        if state == READ:
            table.max()
        elif len(flat) < len(bench.far):
            bench.far[len(bench.far) // 2 :].max()  # drives the table out of the cache
        index, rows[:] = rng.integers(0, len(table), ROWS), 1
        seconds.append(once(functools.partial(run, table, index, rows), 1))
    return net(min(seconds), call) / ROWS


def compiled(bench: Bench) -> None:
    """Compiled loops: a call, rows that are added to by an index, groups."""
    names = namespace()
    add, one, few, table = names["add_scaled_rows"], np.zeros(1, np.int64), numbers(1, 1), numbers(8, 1)
    call = bench.rates["compiled_call"] = bench(lambda: add(few, one, 1.0, table))
    run: Run = lambda table, index, rows: add(rows, index, 1.0, table)  # noqa: E731
    for prefix, flat, state in zip(("", "mid_", "far_"), tables(bench), (WARM, READ, COLD), strict=True):
        accesses(bench, f"{prefix}scatter", call, run, flat, state)
    groups = 1 << 14
    members, sums, rows = np.arange(ROWS) * (groups // ROWS), np.empty((groups, 1), np.float32), numbers(ROWS, 1)
    by_group = names["group_rows"](members, groups)
    whole = bench(lambda: names["sum_groups"](rows, by_group, sums))
    bench.rates["group_loop"] = net(whole, call, ROWS * bench["scatter_row"]) / groups
    bench.rates["compile_line"] = compile_seconds()


def compile_seconds(loops: int = 20) -> float:
    """The seconds that Numba takes for a line of code such as a training step's, after its first function."""
    from numba import njit

    loop = "    for i in range(n):\n        x[i] = x[i] * 0.5 + y[i] / (1 + x[i] * x[i])\n"
    names: dict[str, Any] = {}
    exec(f"def first(x, y, n):\n{loop}", names)
    exec(f"def all(x, y, n):\n{loop * loops}", names)
    signature = "void(float32[::1], float32[::1], int64)"
    njit(signature)(names["first"])
    return once(lambda: njit(signature)(names["all"]), 1) / (2 * loops)


def special(bench: Bench) -> None:
    """The error function, which is SciPy's."""
    for suffix, kind in (("", "float32"), ("_double", "float64")):
        bench.rates[f"erf{suffix}"] = NUMBERS / net(bench(dict(function_calls(kind))["erf"]), bench["call"])


# -- the loop and the database -------------------------------------------------------------------------------------


def steps(bench: Bench) -> None:
    """What a step of the training loop takes besides its kernels: a loop without any."""
    count = 500
    table, batch = RowSet("table", count), RowSet("batch", 1)
    loop = LoopPlan(constant(1.0), constant(1.0), {}, table, batch, Index(batch, table), {}, Counter("step"))
    trainer = Trainer(loop, {}, {}, {}, batch_size=1, table_rows=count)
    one, many = (bench(chunk_of(count)) for count in (1, 9))
    bench.rates["bind"] = net((many - one) / 8, bench["call"])
    bench.rates["chunk"] = net(one, bench["call"], bench["bind"])
    bench.rates["step"] = 1 / max(e.rows_per_second for e in trainer.run(Limits(epochs=3)).log)


def chunk_of(count: int) -> Callable[[], Any]:
    """A chunk of one row through a plan of so many kernels, as PREDICT runs it."""
    batch = RowSet("batch", 1)
    column, x = Column("x", batch, FLOAT), numbers(1)
    node: Node = column
    for _ in range(count):
        node = Add(node, column)
    forward = Predictor(Plan({"y": node}), batch, [], {}, {}, {})
    return lambda: forward.values({"x": x}, {}, 1)


def duckdb(bench: Bench) -> None:
    """DuckDB's rates, on a private database in memory."""
    storage, few = Storage(), Bench(3, 0.0, 0.1)
    try:
        columns = ", ".join(f"CAST(random() AS FLOAT) AS c{i}" for i in range(8))
        storage.rows(f"CREATE TABLE t AS SELECT i % 1000 AS k, {columns} FROM range({DUCKDB_ROWS}) r(i)")
        storage.rows("CREATE TABLE d AS SELECT i AS k, CAST(i AS FLOAT) AS v FROM range(1000) r(i)")
        statement = few(lambda: storage.rows("SELECT 1"))
        plain = few(lambda: storage.rows("SELECT sum(c0), sum(c1) FROM t"))

        def rows_a_second(sql: str, *known: float) -> float:
            return DUCKDB_ROWS / net(few(lambda: storage.rows(sql)), *known)

        storage.function("mlsql probe", lambda x: x.combine_chunks(), ["FLOAT"], "FLOAT")
        sums = " + ".join(f"c0 * {i}.5 + c1 * c0" for i in range(1, 6))
        bench.rates |= {
            "statement": statement,
            "scan": 8 * DUCKDB_ROWS / net(few(lambda: arrays(storage.query("SELECT * EXCLUDE (k) FROM t"))), statement),
            "join": rows_a_second("SELECT sum(v), sum(c1) FROM t JOIN d USING (k)", plain),
            "group_by": rows_a_second("SELECT max(s) FROM (SELECT k, sum(c0) AS s FROM t GROUP BY k)", statement),
            "sql": 19 * rows_a_second(f"SELECT sum({sums}) FROM t", plain),
            "udf_row": 1 / rows_a_second('SELECT sum("mlsql probe"(c0)), sum(c1) FROM t', plain),
        }
    finally:
        storage.close()


def arrays(table: pa.Table) -> list[Array]:
    """The columns of an Arrow table as arrays."""
    return [column.combine_chunks().to_numpy(zero_copy_only=False) for column in table.columns]
