"""Logistic regression over a star join, from tables in a DuckDB file to a trained model: mlsql beside scikit-learn.

5 M facts with 5 features and a yes/no outcome, joined with three dimensions of 1,000, 10,000 and 100,000 rows with 10
features each. The clock runs from opening the file to having the weights; importing the libraries is not counted. Each
run is a process of its own, whose peak of resident memory is reported. Keys are drawn evenly, features are standard
normal numbers, outcomes are drawn from a logistic model over all 35 of them.

scikit-learn gets the joined columns from DuckDB as one float32 matrix. Two of its solvers run: ``lbfgs`` is
``LogisticRegression(C=inf)``, ``sgd`` is one averaged pass of ``SGDClassifier(loss='log_loss')``, with the best of the
settings that were tried (its default step sizes end further than 1e-3 above the optimum). Every contender must come
within 1e-4 of the lowest loss that any reaches; losses are computed by DuckDB in 64 bits from the weights. mlsql makes
one pass too; the facts lie in random order, so it need not shuffle them.

    python benchmarks/star.py [--rounds 3] [--peers-only] [--json benchmarks/results/star.json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sides import Report, Side, arguments, keep, machine, parameters, serve, summary

FACTS, DIMENSIONS = 5_000_000, {"small": 1_000, "medium": 10_000, "large": 100_000}
COLUMNS = [f"f{i}" for i in range(1, 6)] + [f"{d[0]}{i}" for d in DIMENSIONS for i in range(1, 11)]
JOIN = "facts f " + " ".join(f"JOIN {d} ON {d}.id = f.{d}_id" for d in DIMENSIONS)
TOLERANCE = 1e-4

MODEL = f"""
CREATE MODEL star
INPUT facts ({", ".join(f"{d}_id BIGINT" for d in DIMENSIONS)}, {", ".join(f"{c} FLOAT" for c in COLUMNS[:5])}),
      {", ".join(f"{d} (id BIGINT, " + ", ".join(f"{d[0]}{i} FLOAT" for i in range(1, 11)) + ")" for d in DIMENSIONS)}
TARGET facts (y BOOLEAN)
AS SELECT LINEAR([{", ".join(COLUMNS)}], 1) AS score, SIGMOID(score) AS prediction
FROM {JOIN}
MINIMIZE AVG(BINARY_CROSS_ENTROPY(score, y))
"""
TRAIN = (
    "TRAIN star ON facts AS facts, " + ", ".join(f"{d} AS {d}" for d in DIMENSIONS) + " "
    "WITH SGD (learning_rate = 1, batch_size = 32768, epochs = 1, schedule = 'linear', shuffle = false)"
)


def create(path: Path) -> None:
    """The tables of the star in a new file."""
    import duckdb
    import pyarrow as pa

    rng = np.random.default_rng(0)
    con = duckdb.connect(str(path))
    weights = 0.25 * rng.standard_normal(len(COLUMNS))
    fact = rng.standard_normal((FACTS, 5), dtype=np.float32)
    score = fact @ weights[:5] - 0.5
    columns = {f"f{i + 1}": fact[:, i] for i in range(5)}
    for number, (name, rows) in enumerate(DIMENSIONS.items()):
        x = rng.standard_normal((rows, 10), dtype=np.float32)
        dimension = {"id": np.arange(rows), **{f"{name[0]}{i + 1}": x[:, i] for i in range(10)}}
        con.from_arrow(pa.table(dimension)).create(name)
        columns[f"{name}_id"] = rng.integers(0, rows, FACTS)
        score += (x @ weights[5 + 10 * number : 15 + 10 * number])[columns[f"{name}_id"]]
    con.from_arrow(pa.table({**columns, "y": rng.random(FACTS) < 1 / (1 + np.exp(-score))})).create("facts")
    con.close()


def mlsql_run(path: Path) -> Report:
    """Opens the file, trains, reads the weights."""
    import pyarrow as pa

    import mlsql
    from mlsql.session import create, evaluate, explain, look, predict, train  # noqa: F401  (mlsql imports them late)

    pa.array(np.arange(1))  # imports pandas, where it is installed
    began = time.perf_counter()
    con = mlsql.connect(str(path), progress=False)
    con.execute(MODEL.replace("CREATE MODEL", "CREATE OR REPLACE MODEL"))
    con.execute(TRAIN)
    learned = parameters(con, "star")
    seconds = time.perf_counter() - began
    con.close()
    weights, bias = learned["score.weight"].ravel(), learned["score.bias"].ravel()
    return {"seconds": seconds, "weights": [*weights.tolist(), float(bias[0])]}


def sklearn_run(path: Path, solver: str) -> Report:
    """Opens the file, joins, fills a matrix, fits; the parts of the time are reported too."""
    import duckdb
    from sklearn.linear_model import LogisticRegression, SGDClassifier

    began = time.perf_counter()
    con = duckdb.connect(str(path), read_only=True)
    columns = con.execute(f"SELECT {', '.join(COLUMNS)}, y FROM {JOIN}").fetchnumpy()
    joined = time.perf_counter()
    y = columns.pop("y")
    x = np.empty((FACTS, len(COLUMNS)), np.float32)
    for start in range(0, FACTS, 8192):  # in blocks that fit a cache: four times as fast as column by column
        for number, name in enumerate(COLUMNS):
            x[start : start + 8192, number] = columns[name][start : start + 8192]
    del columns
    filled = time.perf_counter()
    if solver == "lbfgs":
        model = LogisticRegression(C=np.inf)
    else:
        model = SGDClassifier(
            loss="log_loss", alpha=0, learning_rate="constant", eta0=0.003, average=True, max_iter=1, tol=None
        )
    model.fit(x, y)
    ended = time.perf_counter()
    parts = {"join": joined - began, "matrix": filled - joined, "fit": ended - filled}
    weights = [*model.coef_.ravel().tolist(), float(model.intercept_[0])]
    return {"seconds": ended - began, "parts": parts, "weights": weights}


def loss_of(path: Path, weights: list[float]) -> float:
    """The average cross entropy over all facts, in 64 bits."""
    import duckdb

    *slopes, bias = weights
    score = " + ".join(f"{w!r} * {c}::DOUBLE" for w, c in zip(slopes, COLUMNS, strict=True)) + f" + {bias!r}"
    con = duckdb.connect(str(path), read_only=True)
    query = f"SELECT avg(greatest(s, 0) + ln(1 + exp(-abs(s))) - y::INTEGER * s) FROM (SELECT {score} AS s, y FROM "
    [(loss,)] = con.execute(f"{query} {JOIN})").fetchall()
    con.close()
    return float(loss)


RUNS: dict[str, Callable[[Path], Report]] = {
    "mlsql": mlsql_run,
    "lbfgs": lambda path: sklearn_run(path, "lbfgs"),
    "sgd": lambda path: sklearn_run(path, "sgd"),
}


def measure(path: Path) -> Report:
    """Seconds from tables to weights, peak memory and the loss of each contender; each run is a new process."""
    names = [name for name in RUNS if not (options.peers_only and name == "mlsql")]
    reports: dict[str, list[Report]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            side = Side(__file__, name, ["--database", str(path)])
            reports[name].append({**side.ask("run"), **side.ask("peak")})
            side.close()
    found = summary({name: [r["seconds"] for r in runs] for name, runs in reports.items()})
    last = {name: runs[-1] for name, runs in reports.items()}
    found["parts"] = {name: r["parts"] for name, r in last.items() if "parts" in r}
    found["peak_megabytes"] = {name: r["megabytes"] for name, r in last.items()}
    found["losses"] = {name: loss_of(path, r["weights"]) for name, r in last.items()}
    best = min(found["losses"].values())
    found["reach_the_best"] = {name: loss <= best + TOLERANCE for name, loss in found["losses"].items()}
    return found


if __name__ == "__main__":
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--peers-only", action="store_true")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--database", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        serve({"run": lambda: RUNS[options.side](options.database)})
    else:
        with tempfile.TemporaryDirectory() as folder:
            create(Path(folder) / "star.duckdb")
            result = {"machine": machine("scikit-learn"), **measure(Path(folder) / "star.duckdb")}
        print(json.dumps(result, indent=2))
        keep(result, options.json)
