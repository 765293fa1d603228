"""What comes before a step: importing mlsql, planning a TRAIN, building the feature matrix.

python benchmarks/overheads.py [--rounds 7] [--json benchmarks/results/overheads.json]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from sides import arguments, keep, machine

ROWS, COLUMNS = 2_000_000, 32


def seconds(run: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def import_seconds() -> float:
    """``import mlsql`` in a process of its own."""
    code = "import time; t = time.perf_counter(); import mlsql; print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def planning() -> Callable[[], float]:
    """EXPLAIN of an MLP's TRAIN: parse, bind, differentiate, optimize, plan memory, generate code, count the rows."""
    import mlsql

    con = mlsql.connect(progress=False)
    con.execute("CREATE TABLE rows AS SELECT [1.0, 2.0, 3.0, 4.0]::FLOAT[4] AS x, 1 AS label FROM range(100)")
    con.execute(
        "CREATE MODEL net INPUT (x FLOAT[4]) TARGET (label INTEGER) AS SELECT RELU(LINEAR(x, 128)) AS a, "
        "RELU(LINEAR(a, 64)) AS b, LINEAR(b, 10) AS logits MINIMIZE AVG(CROSS_ENTROPY(logits, label))"
    )
    return lambda: seconds(lambda: con.execute("EXPLAIN TRAIN net ON rows WITH ADAM (epochs = 10)").fetchall())


def matrix() -> tuple[Callable[[], float], Callable[[], float]]:
    """Columns into a row-major matrix: mlsql's blocked copy, and one assignment a column."""
    from mlsql.executor.device import place_parts

    columns = [np.random.default_rng(i).random(ROWS, dtype=np.float32) for i in range(COLUMNS)]
    out = np.zeros((ROWS, COLUMNS), np.float32)

    def blocked() -> None:
        place_parts([c.reshape(-1, 1) for c in columns], [out[:, i : i + 1] for i in range(COLUMNS)])

    def by_column() -> None:
        for i, column in enumerate(columns):
            out[:, i] = column

    return lambda: seconds(blocked), lambda: seconds(by_column)


def measure(rounds: int) -> dict[str, float]:
    """Medians in milliseconds, rounds alternating."""
    blocked, by_column = matrix()
    runs = {
        "import mlsql": import_seconds,
        "plan TRAIN of an MLP": planning(),
        "matrix of 2M x 32, blocked": blocked,
        "matrix of 2M x 32, a column at a time": by_column,
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            times[name].append(run() * 1e3)
    return {name: statistics.median(t[1:]) for name, t in times.items()}


if __name__ == "__main__":
    parser = arguments(__doc__, rounds=7)
    options = parser.parse_args()
    found = measure(options.rounds)
    for name, milliseconds in found.items():
        print(f"{name}: {milliseconds:.1f} ms")
    keep({"machine": machine(), "rounds": options.rounds, "milliseconds": found}, options.json)
