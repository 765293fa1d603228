"""From a table to the matrix that a training loop reads: mlsql beside DuckDB's own Arrow reader, in one run.

2 million rows of 32 FLOATs, as 32 columns and as one column of arrays. The reader only draws its batches and drops
them, in batches of the size that it chooses; "batches" is the same reader with batches of mlsql's size, which DuckDB
makes sooner. mlsql checks the rows and lays them out as one row-major matrix, the concatenation of the columns
included. Every contender has a process and a database of its own; rounds alternate, and ratios are taken round by
round, since absolute times depend on who else uses the machine. ``processor`` are the seconds of all threads together.
``first`` is the first run of a process, which loads what is not loaded yet, in several processes. ``grown`` is how far
the peak of memory rose above what the process held before a round, over the size of the matrix.

    python benchmarks/scan.py [--rounds 21] [--json benchmarks/results/scan.json]
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sides import Report, Side, alternate, arguments, keep, machine, serve, summary

ROWS, WIDTH = 2_000_000, 32
NAMES = [f"x{i}" for i in range(WIDTH)]
MATRIX_MEGABYTES = ROWS * WIDTH * 4 / 2**20
LAYOUTS = {"columns": f"SELECT {', '.join(NAMES)} FROM data", "array": "SELECT x FROM data"}
MODELS = {
    "columns": (", ".join(f"{n} FLOAT" for n in NAMES), f"[{', '.join(NAMES)}]"),
    "array": (f"x FLOAT[{WIDTH}]", "x"),
}
CONTENDERS = ("mlsql", "reader", "batches")
BATCH_ROWS = 16_384  # that mlsql reads at a time here
PROCESSES = 5  # for first runs


def create(layout: str) -> str:
    """The statement that makes the table; rows of the same seed are the same in every process."""
    row = ", ".join(f"((range * {2 * i + 1}) % 1009)::FLOAT AS {n}" for i, n in enumerate(NAMES))
    rows = f"SELECT {row} FROM range({ROWS})"
    array = f"SELECT [{', '.join(NAMES)}]::FLOAT[{WIDTH}] AS x FROM ({rows})"
    return f"CREATE TABLE data AS {array if layout == 'array' else rows}"


def expected() -> np.ndarray:
    """The matrix, by NumPy."""
    numbers = np.arange(ROWS, dtype=np.int64)
    return np.stack([(numbers * (2 * i + 1) % 1009).astype(np.float32) for i in range(WIDTH)], 1)


def reader(layout: str, *batch_rows: int) -> Callable[[], Any]:
    """DuckDB's reader, drained."""
    import duckdb

    con = duckdb.connect()
    con.execute(create(layout)).fetchall()

    def read() -> None:
        for _ in con.sql(LAYOUTS[layout]).to_arrow_reader(*batch_rows):
            pass

    return read


def mlsql(layout: str) -> Callable[[], Any]:
    """What TRAIN does up to its first step: the table read, and as one matrix what its loop reads of it."""
    import mlsql
    from mlsql.errors import Place
    from mlsql.executor.dataset import load, match
    from mlsql.executor.matrix import without_joins
    from mlsql.parser.script import parse
    from mlsql.parser.statements import CreateModel, Query
    from mlsql.planner.binder import bind_model
    from mlsql.planner.node import walk
    from mlsql.planner.ops import Contraction

    con = mlsql.connect(progress=False)
    con.execute(create(layout))
    inputs, x = MODELS[layout]
    [statement] = parse(
        f"CREATE MODEL m INPUT ({inputs}) AS SELECT LINEAR({x}, 1) AS y MINIMIZE AVG(y * y)",
    )
    assert isinstance(statement, CreateModel)
    model, storage = bind_model(statement), con._session.storage
    assert model.loss is not None
    leaves = model.leaves([model.loss])
    source = match(storage, Query("data", Place("", 0, 0)), model, model.declared)
    read = next(n.inputs[0] for n in walk([model.loss]) if isinstance(n, Contraction))

    def run() -> np.ndarray:
        columns = load(storage, source, model, leaves, {}, {}).columns
        [found], matrices, _ = without_joins([read], lambda leaf: columns[leaf.name])
        return matrices[found] if found in matrices else columns[found.name]

    return run


def contender(name: str, layout: str) -> dict[str, Callable[[], Report]]:
    """The rounds of a contender, in a process of its own."""
    run = mlsql(layout) if name == "mlsql" else reader(layout, *([BATCH_ROWS] if name == "batches" else []))

    def timed(clock: Callable[[], float], check: bool = False) -> Report:
        began = clock()
        kept = run()
        seconds = clock() - began
        if check and kept is not None:
            assert np.array_equal(kept, expected()), "the matrix is not what NumPy makes of the rows"
        return {"seconds": seconds}

    return {
        "first": lambda: timed(time.perf_counter, check=True),
        "round": lambda: timed(time.perf_counter),
        "processor": lambda: timed(time.process_time),
        "grown": lambda: {"matrices": grown(run) / MATRIX_MEGABYTES},
    }


def grown(run: Callable[[], Any]) -> float:
    """How many megabytes the peak of memory lies above what the process holds, in one more run."""
    from mlsql.executor.footprint import resident

    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    before = resident() / 2**20
    kept = run()
    with open("/proc/self/status") as lines:
        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    del kept
    return peak / 1024 - before


@contextlib.contextmanager
def sides_of(layout: str) -> Iterator[list[Side]]:
    """The contenders, once all of them have their tables."""
    sides = [Side(__file__, name, [layout]) for name in CONTENDERS]
    for side in sides:
        side.ask("ready")
    yield sides
    for side in sides:
        side.close()


def measure(rounds: int) -> Report:
    """Median seconds of each layout, ratios to the reader, and how far memory grew."""
    found: Report = {}
    for layout in LAYOUTS:
        first: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        for _ in range(PROCESSES):
            with sides_of(layout) as sides:
                for name, seconds in alternate(sides, 1, "first").items():
                    first[name] += seconds
        found[layout] = {"first": summary(first)}
        with sides_of(layout) as sides:
            alternate(sides, 2)
            for request in ("round", "processor"):
                times = alternate(sides, rounds, request)
                found[layout][request] = summary(times) | {"least": {name: min(t) for name, t in times.items()}}
            found[layout]["grown"] = {side.name: side.ask("grown")["matrices"] for side in sides}
        print(layout, found[layout])
    return found


if __name__ == "__main__":
    parser = arguments(__doc__, rounds=21)
    parser.add_argument("--side")
    parser.add_argument("layout", nargs="?")
    options = parser.parse_args()
    if options.side:
        serve(contender(options.side, options.layout))
    else:
        keep(
            {"machine": machine("pyarrow", "llvmlite"), "rounds": options.rounds, "layouts": measure(options.rounds)},
            options.json,
        )
