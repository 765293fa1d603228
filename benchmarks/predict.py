"""PREDICT over the rows of a table: mlsql beside DuckDB, PyTorch and pandas put together by hand.

A network 32-64-1 predicts for 5 M rows of a DuckDB file with a column ``x FLOAT[32]``. Three tasks:

- *create*: a table of id and prediction. By hand: the DataFrame below, written back by CREATE TABLE;
- *average*: one number. By hand: the mean of the predictions;
- *frame*: a DataFrame of id and prediction, ``SELECT id, prediction FROM PREDICT(net, t)`` with mlsql.

By hand is: fetch, stack to one matrix, PyTorch without gradients in batches of 65,536 rows on two threads, DataFrame.
It comes in two kinds. *fetchnumpy* is what one writes first; *arrow* reads the column's memory through Arrow, without
the copies that an array a row takes. Both are given the weights that mlsql has learned, and every contender's average
must be the same. Everyone runs in a process of its own, whose peak of resident memory is reported, and does each task
once before the rounds: mlsql compiles in this time, or loads what it has compiled before.

    python benchmarks/predict.py [--rounds 5] [--rows 5000000] [--json benchmarks/results/predict.json]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sides import Report, Side, alternate, arguments, keep, machine, parameters, serve, summary

INPUTS, HIDDEN, BATCH, THREADS = 32, 64, 65_536, 2
MODEL = f"""
CREATE MODEL net INPUT (x FLOAT[{INPUTS}]) TARGET (y BOOLEAN)
AS SELECT SIGMOID(LINEAR(RELU(LINEAR(x, {HIDDEN})), 1)) AS prediction
MINIMIZE AVG(BINARY_CROSS_ENTROPY(y, prediction))
"""
TASKS = ("create", "average", "frame")
TOLERANCE = 1e-5


def create(path: Path, rows: int) -> None:
    """The table in a new file."""
    import duckdb

    con = duckdb.connect(str(path))
    entries = ", ".join("random()::FLOAT - 0.5" for _ in range(INPUTS))
    con.execute(
        f"CREATE TABLE t AS SELECT i AS id, [{entries}]::FLOAT[{INPUTS}] AS x, random() < 0.5 AS y "
        f"FROM range({rows}) r(i)"
    )
    con.close()


def timed(task: Callable[[], float]) -> Report:
    """How long a task takes, and its average prediction."""
    began = time.perf_counter()
    average = task()
    return {"seconds": time.perf_counter() - began, "average": average}


def run_mlsql(path: str) -> None:
    """PREDICT; the weights are left beside the file."""
    import pandas  # noqa: F401, loaded before the clock runs, as it is for the others

    import mlsql

    con = mlsql.connect(progress=False)
    con.execute(f"ATTACH '{path}' AS data (READ_ONLY)")
    con.execute(MODEL)
    con.execute("TRAIN net ON (SELECT x, y FROM data.t LIMIT 20000) WITH ADAM (epochs = 1)")
    np.savez(f"{path}.npz", *parameters(con, "net").values())

    def table() -> float:
        con.execute("CREATE OR REPLACE TABLE p AS SELECT id, PREDICT(net, x) AS prediction FROM data.t").fetchall()
        return 0.0

    def average() -> float:
        return float(con.execute("SELECT avg(PREDICT(net, x)) FROM data.t").fetchone()[0])

    def frame() -> float:
        return len(con.execute("SELECT id, prediction FROM PREDICT(net, data.t)").df())

    serve({name: partial(timed, task) for name, task in zip(TASKS, (table, average, frame), strict=True)})


def run_by_hand(path: str, fetch: Callable[[Any], tuple[Any, Any]]) -> None:
    """A fetch, and PyTorch."""
    import duckdb
    import pandas
    import torch

    torch.set_num_threads(THREADS)
    con = duckdb.connect()
    con.execute(f"ATTACH '{path}' AS data (READ_ONLY)")
    net = torch.nn.Sequential(
        torch.nn.Linear(INPUTS, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 1), torch.nn.Sigmoid()
    )
    with np.load(f"{path}.npz") as weights, torch.no_grad():
        for ours, theirs in zip(net.parameters(), weights.values(), strict=True):
            ours.copy_(torch.from_numpy(theirs.T.copy().reshape(ours.shape)))

    def predicted() -> Any:
        ids, x = fetch(con)
        with torch.no_grad():
            parts = [net(torch.from_numpy(x[i : i + BATCH])) for i in range(0, len(x), BATCH)]
        return pandas.DataFrame({"id": ids, "prediction": torch.cat(parts).numpy()[:, 0]})

    def table() -> float:
        con.register("predicted", predicted())
        con.execute("CREATE OR REPLACE TABLE p AS SELECT * FROM predicted")
        return 0.0

    def average() -> float:
        return float(predicted()["prediction"].to_numpy().mean(dtype=np.float64))

    def frame() -> float:
        return len(predicted())

    serve({name: partial(timed, task) for name, task in zip(TASKS, (table, average, frame), strict=True)})


def by_numpy(con: Any) -> tuple[Any, Any]:
    """What one writes first."""
    found = con.execute("SELECT id, x FROM data.t").fetchnumpy()
    return found["id"], np.stack(found["x"])


def by_arrow(con: Any) -> tuple[Any, Any]:
    """The memory of the column as it is."""
    found = con.sql("SELECT id, x FROM data.t").to_arrow_table()
    x = found["x"].combine_chunks().flatten().to_numpy().reshape(-1, INPUTS)
    return found["id"].to_numpy(), x


CONTENDERS: dict[str, Callable[[str], None]] = {
    "mlsql": run_mlsql,
    "fetchnumpy": partial(run_by_hand, fetch=by_numpy),
    "arrow": partial(run_by_hand, fetch=by_arrow),
}


def measure(path: Path, rounds: int) -> Report:
    """Median seconds and ratios of every task, and the peaks of memory."""
    sides = []
    for name in CONTENDERS:
        sides.append(Side(__file__, name, [str(path)]))
        sides[-1].ask("ready")  # mlsql first: the others read its weights
    averages = {side.name: [side.ask(task)["average"] for task in TASKS][1] for side in sides}
    for name, average in averages.items():
        assert abs(average / averages["mlsql"] - 1) < TOLERANCE, f"{name} predicts {averages}"
    found: Report = {"tasks": {}}
    for task in TASKS:
        found["tasks"][task] = report = summary(alternate(sides, rounds, task))
        shown = ", ".join(f"{n} {s:.2f} s" for n, s in report["seconds"].items())
        ratios = ", ".join(f"{1 / r:.1f} times as fast as {n}" for n, r in report["mlsql_over"].items())
        print(f"{task}: {shown}; mlsql is {ratios}", flush=True)
    found["peak_megabytes"] = {side.name: round(side.ask("peak")["megabytes"]) for side in sides}
    print("peaks of memory:", ", ".join(f"{n} {m} MB" for n, m in found["peak_megabytes"].items()))
    for side in sides:
        side.close()
    return found


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("path", nargs="?", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        CONTENDERS[options.side](options.path)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.duckdb"
        create(path, options.rows)
        facts = machine("torch", "pandas", "pyarrow")
        found = {"machine": facts, "rounds": options.rounds, "rows": options.rows, **measure(path, options.rounds)}
    keep(found, options.json)


if __name__ == "__main__":
    main()
