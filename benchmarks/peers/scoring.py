"""PREDICT of a network of 32-64-1 over every row of a table in a DuckDB file, against DuckDB, NumPy and PyTorch.

The clock runs from the open file to the result; importing libraries and reading the weights are not counted. Each run
is a process of its own, whose peak of resident memory is told. The peers read the table through Arrow, the fastest way
from DuckDB to NumPy, and predict batches of 65,536 rows without gradients: ``pytorch`` fetches the table first,
``pytorch streamed`` batch by batch.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sides import Report, parameters

INPUTS, HIDDEN, BATCH = 32, 64, 65_536
MODEL = f"""CREATE MODEL net INPUT (x FLOAT[{INPUTS}]) TARGET (y FLOAT)
AS SELECT RELU(LINEAR(x, {HIDDEN})) AS hidden, LINEAR(hidden, 1) AS prediction MINIMIZE AVG((prediction - y) ** 2)"""
QUERY = "SELECT id, PREDICT(net, x) AS prediction FROM rows"


def create(path: Path, rows: int) -> None:
    """The table, a model trained for a step, and its weights in a file beside it."""
    import pyarrow as pa

    import mlsql

    rng = np.random.default_rng(0)
    con = mlsql.connect(str(path), progress=False)
    con.execute(f"CREATE TABLE rows (id BIGINT, x FLOAT[{INPUTS}])")
    for start in range(0, rows, 500_000):
        count = min(500_000, rows - start)
        x = pa.FixedSizeListArray.from_arrays(pa.array(rng.standard_normal(count * INPUTS, np.float32)), INPUTS)
        con.register("given", pa.table({"id": np.arange(start, start + count), "x": x}))
        con.execute("INSERT INTO rows SELECT * FROM given")
        con.unregister("given")
    con.execute(MODEL)
    con.execute("TRAIN net ON (SELECT x, x[1] AS y FROM rows LIMIT 1000) WITH SGD (steps = 1)")
    np.savez(path.with_suffix(".npz"), **parameters(con, "net"))
    con.close()


def frame(path: Path) -> Report:
    """mlsql, the result as a DataFrame."""
    con = opened(path)
    began = time.perf_counter()
    found = con.execute(QUERY).df()
    return {"seconds": time.perf_counter() - began, "sum": total(found)}


def table(path: Path) -> Report:
    """mlsql, the result as a table of the same file, which is written to disk."""
    con = opened(path)
    began = time.perf_counter()
    con.execute(f"CREATE OR REPLACE TABLE scored AS {QUERY}")
    seconds = time.perf_counter() - began
    [(found,)] = con.execute("SELECT sum(prediction::DOUBLE) FROM scored").fetchall()
    return {"seconds": seconds, "sum": found}


def opened(path: Path) -> Any:
    """A connection that has predicted a row into a DataFrame: what is imported late is imported now."""
    import mlsql

    con = mlsql.connect(str(path), progress=False)
    con.execute(f"{QUERY} LIMIT 1").df()
    return con


def total(found: Any) -> float:
    """The sum of a DataFrame's predictions, in 64 bits."""
    return float(found["prediction"].to_numpy().sum(dtype=np.float64))


def pytorch(path: Path, streamed: bool) -> Report:
    """DuckDB to Arrow to NumPy to PyTorch to a DataFrame."""
    import duckdb
    import pandas as pd
    import torch

    warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes to it
    given = np.load(path.with_suffix(".npz"))
    net = torch.nn.Sequential(torch.nn.Linear(INPUTS, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 1))
    with torch.no_grad():
        for layer, name in ((net[0], "hidden"), (net[2], "prediction")):
            layer.weight.copy_(torch.from_numpy(given[f"{name}.weight"].T.copy()))
            layer.bias.copy_(torch.from_numpy(given[f"{name}.bias"].copy()))
    con = duckdb.connect(str(path), read_only=True)
    began = time.perf_counter()
    ids, predictions = [], []
    with torch.no_grad():
        for batch in batches(con.sql("SELECT id, x FROM rows"), streamed):
            x = batch["x"].flatten().to_numpy(zero_copy_only=True).reshape(-1, INPUTS)
            ids.append(batch["id"].to_numpy())
            predictions.append(net(torch.from_numpy(x))[:, 0].numpy())
    found = pd.DataFrame({"id": np.concatenate(ids), "prediction": np.concatenate(predictions)})
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "sum": total(found)}


def batches(relation: Any, streamed: bool) -> Iterator[Any]:
    """Record batches of at most BATCH rows, from the whole table in memory or as DuckDB gives them."""
    if streamed:
        yield from relation.to_arrow_reader(BATCH)
    else:
        yield from relation.to_arrow_table().to_batches(BATCH)


RUNS: dict[str, Callable[[Path], Report]] = {
    "mlsql to a DataFrame": frame,
    "mlsql to a table": table,
    "pytorch": lambda path: pytorch(path, streamed=False),
    "pytorch streamed": lambda path: pytorch(path, streamed=True),
}
