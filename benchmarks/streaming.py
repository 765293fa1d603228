"""Training over a table ten times MEMORY, beside the same training with all rows in memory.

Each side runs in a process of its own, on the same database file; rounds alternate. Of each: seconds of an epoch, those
before the first one (reading, and for streamed rows the way to the disk), the share of an epoch for which the loop
waited for rows, and by how much the process has grown at most, the libraries that compiled steps need included.

    python benchmarks/streaming.py [--rounds 3] [--rows 2400000] [--json benchmarks/results/streaming.json]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from sides import Side, arguments, keep, machine, serve, summary

WIDTH, HIDDEN, BATCH, EPOCHS = 32, 16, 2048, 2
SCRIPT = __file__


def fill(path: str, rows: int) -> None:
    """A table of random numbers with random labels, and a small network: a step of it takes about as long as reading
    its rows does."""
    import pyarrow as pa

    import mlsql

    x = np.random.default_rng(0).random((rows, WIDTH), np.float32)
    with mlsql.connect(path, progress=False) as con:
        given = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), WIDTH)
        con.register("given", pa.table({"x": given, "y": pa.array((x[:, 0] > 0.5).astype("i4"))}))
        con.execute("CREATE TABLE rows AS FROM given")
        con.execute(
            f"CREATE MODEL net INPUT (x FLOAT[{WIDTH}]) TARGET (y INTEGER) "
            f"AS SELECT RELU(LINEAR(x, {HIDDEN})) AS h, LINEAR(h, 2) AS scores MINIMIZE AVG(CROSS_ENTROPY(scores, y))"
        )


def most() -> int:
    """The most bytes that this process has had; what getrusage tells is also its parent's, from before it began."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def side(path: str, memory: str) -> None:
    """One contender: trains at every request, on its own copy of the file."""
    import mlsql
    from mlsql.executor.footprint import resident
    from mlsql.executor.streaming import Streamed
    from mlsql.session import streaming

    con = mlsql.connect(path, progress=False)
    options = f"(batch_size = {BATCH}, epochs = {EPOCHS})"
    con.execute(f"TRAIN net ON (SELECT * FROM rows LIMIT 10000) FROM SCRATCH WITH ADAM {options}")
    before, waits = resident(), list[float]()

    class Noted(Streamed):
        """A feed that leaves word of how long it was waited for."""

        def close(self) -> None:
            waits.append(self.waited)
            super().close()

    streaming.Streamed = Noted  # type: ignore[attr-defined]

    def round() -> dict[str, Any]:
        began = time.perf_counter()
        waits.clear()
        con.execute(f"TRAIN net ON rows FROM SCRATCH WITH ADAM {options} {memory}")
        whole = time.perf_counter() - began
        log = con.execute(
            "SELECT seconds, loss FROM mlsql.training_log WHERE run_id = (SELECT max(run_id) FROM mlsql.training_log) "
            "ORDER BY epoch"
        ).fetchall()
        epoch = log[-1][0] / EPOCHS
        return {
            "seconds": epoch,
            "before": whole - log[-1][0],
            "waited": sum(waits) / log[-1][0],
            "loss": log[-1][1],
            "grown": (most() - before) / 1e6,
        }

    serve({"round": round})


def measure(rounds: int, rows: int) -> dict[str, Any]:
    """Medians of both sides, and the ratio of a streamed epoch to one in memory."""
    size = rows * (4 * WIDTH + 4)
    memory = f"MEMORY '{size // 10_000_000}MB'"
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: str(Path(folder) / f"{i}.duckdb") for i, name in enumerate(("streamed", "in memory"))}
        for path in paths.values():
            fill(path, rows)
        sides = [Side(SCRIPT, n, [p, memory if n == "streamed" else ""]) for n, p in paths.items()]
        found: dict[str, list[dict[str, Any]]] = {s.name: [] for s in sides}
        for _ in range(rounds):
            for s in sides:
                found[s.name].append(s.ask("round"))
        for s in sides:
            s.close()
    report: dict[str, Any] = {"rows": rows, "table_megabytes": size / 1e6, "memory": memory}
    report |= {"an_epoch": summary({n: [r["seconds"] for r in f] for n, f in found.items()}, "streamed")}
    for what in ("before", "waited", "loss", "grown"):
        report[what] = {n: float(np.median([r[what] for r in f])) for n, f in found.items()}
    return report


if __name__ == "__main__":
    if "--side" in sys.argv:
        side(*sys.argv[3:5])
    else:
        parser = arguments(__doc__, rounds=3)
        parser.add_argument("--rows", type=int, default=2_400_000)
        options = parser.parse_args()
        figures = {"machine": machine(), "rounds": options.rounds, **measure(options.rounds, options.rows)}
        for name, value in figures.items():
            print(f"{name}: {value}")
        keep(figures, options.json)
