"""The optimizer on and off, on the same statements and data: what planning is worth, and what it takes.

Each case is one TRAIN. Both sides run in turn in one process, with ``SET mlsql_optimizer`` on and off; ratios are taken
round by round. ``training`` is what TRAIN reports as its seconds: all that is computed of the rows once, and the steps;
``statement`` is the whole of it, the reading of the tables included. Off means that only those rules run without
which there is no code: what does not change between steps is still computed once, since that is how the loop is run.

- *least squares*: gradient descent, 200 steps over 1 M rows of 32 features.
- *gcn*: two graph convolutions, 128-64-4, of 100,000 nodes and 1 M edges, 10 steps.
- *star, wide* and *narrow*: logistic regression of 1 M facts joined with three dimensions of 1,000, 10,000 and 10,000
  rows with 50, or 2, features each; 30 steps.
- *frozen*: a frozen layer of 64 under a learned one, 100,000 rows of 128 features, 10 epochs of batches of 256.

    python benchmarks/optimizer.py [--rounds 3] [--only NAME] [--json benchmarks/results/optimizer.json]
"""

from __future__ import annotations

import time
from typing import Any

from sides import Report, arguments, keep, machine, summary

DIMENSIONS = (1_000, 10_000, 10_000)


def least_squares(con: Any) -> str:
    """Rows, a model and its training."""
    con.execute(
        "CREATE TABLE t AS SELECT x, (list_sum(x) * 0.1 + 0.3 + (hash(i) % 1000) / 1e4)::FLOAT AS y FROM "
        "(SELECT i, [hash(i * 100 + j) / 1.8446744073709552e19 - 0.5 FOR j IN range(32)]::FLOAT[32] AS x "
        "FROM range(1_000_000) r(i))"
    )
    con.execute(
        "CREATE MODEL m INPUT (x FLOAT[32]) TARGET (y FLOAT) AS SELECT LINEAR(x, 1) AS prediction "
        "MINIMIZE AVG((prediction - y) ** 2)"
    )
    return "TRAIN m ON t FROM SCRATCH WITH GD (epochs = 200, learning_rate = 0.5)"


def gcn(con: Any) -> str:
    """A graph, a model and its training."""
    con.execute(
        "CREATE TABLE nodes AS SELECT i AS id, i % 4 AS label, "
        "[hash(i * 1000 + j) / 1.8446744073709552e19 - 0.5 FOR j IN range(128)]::FLOAT[128] AS x "
        "FROM range(100_000) r(i)"
    )
    con.execute(
        "CREATE TABLE edges AS SELECT (hash(i) % 100_000)::BIGINT AS src, (hash(-i) % 100_000)::BIGINT AS dst, "
        "0.1::FLOAT AS w FROM range(1_000_000) r(i)"
    )
    con.execute(
        "CREATE MODEL m INPUT nodes (id BIGINT, x FLOAT[128]), edges (src BIGINT, dst BIGINT, w FLOAT) "
        "TARGET nodes (label INTEGER) AS WITH "
        "a AS (SELECT id, LINEAR(x, 64) AS h FROM nodes), "
        "b AS (SELECT e.dst AS id, RELU(SUM(e.w * a.h)) AS h FROM edges e JOIN a ON a.id = e.src GROUP BY e.dst), "
        "c AS (SELECT e.dst AS id, SUM(e.w * b.h) AS h FROM edges e JOIN b ON b.id = e.src GROUP BY e.dst) "
        "SELECT id, LINEAR(c.h, 4) AS logits, ARGMAX(logits) AS prediction FROM c JOIN nodes USING (id) "
        "MINIMIZE AVG(CROSS_ENTROPY(logits, label))"
    )
    return "TRAIN m ON nodes, edges FROM SCRATCH WITH GD (epochs = 10)"


def star(con: Any, width: int) -> str:
    """Facts and dimensions of a width, a model and its training."""
    for number, rows in enumerate(DIMENSIONS):
        con.execute(
            f"CREATE TABLE d{number} AS SELECT i AS id, [hash(i * 100 + j + {number}) / 1.8446744073709552e19 - 0.5 "
            f"FOR j IN range({width})]::FLOAT[{width}] AS x FROM range({rows}) r(i)"
        )
    keys = ", ".join(f"(hash(i + {n}) % {rows})::BIGINT AS k{n}" for n, rows in enumerate(DIMENSIONS))
    con.execute(
        f"CREATE TABLE facts AS SELECT {keys}, (hash(-i) / 1.8446744073709552e19)::FLOAT AS z, hash(i) % 3 = 0 AS y "
        "FROM range(1_000_000) r(i)"
    )
    relations = ", ".join(f"d{n} (id BIGINT, x FLOAT[{width}])" for n in range(3))
    joins = " ".join(f"JOIN d{n} ON d{n}.id = f.k{n}" for n in range(3))
    con.execute(
        f"CREATE MODEL m INPUT facts (k0 BIGINT, k1 BIGINT, k2 BIGINT, z FLOAT), {relations} TARGET facts (y BOOLEAN) "
        f"AS SELECT LINEAR(CONCAT([z], d0.x, d1.x, d2.x), 1) AS score, SIGMOID(score) AS prediction "
        f"FROM facts f {joins} MINIMIZE AVG(BINARY_CROSS_ENTROPY(score, y))"
    )
    return "TRAIN m ON facts, d0, d1, d2 FROM SCRATCH WITH GD (epochs = 30)"


def frozen(con: Any) -> str:
    """Rows, a model whose first layer is frozen, and its training."""
    con.execute(
        "CREATE TABLE t AS SELECT (hash(i) % 1000)::FLOAT AS y, "
        "[hash(i * 1000 + j) / 1.8446744073709552e19 - 0.5 FOR j IN range(128)]::FLOAT[128] AS x "
        "FROM range(100_000) r(i)"
    )
    con.execute(
        "CREATE MODEL m INPUT (x FLOAT[128]) TARGET (y FLOAT) PARAMETERS (w FLOAT[64][128] INIT HE FROZEN) "
        "AS SELECT TANH(x @ w) AS h, LINEAR(h, 1) AS prediction MINIMIZE AVG((prediction - y / 1000) ** 2)"
    )
    return "TRAIN m ON t FROM SCRATCH WITH SGD (epochs = 10, batch_size = 256)"


CASES = {
    "least squares": least_squares,
    "gcn": gcn,
    "star, wide": lambda con: star(con, 50),
    "star, narrow": lambda con: star(con, 2),
    "frozen": frozen,
}


def measure(name: str) -> Report:
    """Seconds of both sides, and their losses."""
    import mlsql

    con = mlsql.connect(progress=False)
    train = CASES[name](con)
    training: dict[str, list[float]] = {"on": [], "off": []}
    statement: dict[str, list[float]] = {"on": [], "off": []}
    losses = {}
    for side in ("on", "off"):  # kernels compile, and the machine is measured
        con.execute(f"SET mlsql_optimizer = {str(side == 'on').lower()}")
        con.execute(train.replace("epochs = 200", "epochs = 1").replace("epochs = 30", "epochs = 1"))
    for _ in range(options.rounds):
        for side in ("on", "off"):
            con.execute(f"SET mlsql_optimizer = {str(side == 'on').lower()}")
            began = time.perf_counter()
            row = con.execute(train).fetchone()
            statement[side].append(time.perf_counter() - began)
            training[side].append(row[8])
            losses[side] = row[6]
    con.close()
    found = {
        "training": summary(training, first="off"),
        "statement": summary(statement, first="off"),
        "loss": losses,
    }
    assert abs(losses["on"] - losses["off"]) <= 1e-4 * max(1, abs(losses["off"])), losses
    return found


def main() -> None:
    """Measure, print, keep."""
    found: Report = {"machine": machine(), "cases": {}}
    for name in [options.only] if options.only else CASES:
        found["cases"][name] = case = measure(name)
        times, whole = case["training"], case["statement"]
        print(
            f"{name:14} training on {times['seconds']['on']:8.3f} s, off {times['seconds']['off']:8.3f} s, "
            f"{times['off_over']['on']:6.1f} times; the whole statement {whole['off_over']['on']:5.1f} times"
        )
    keep(found, options.json)


if __name__ == "__main__":
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--only", choices=CASES)
    options = parser.parse_args()
    main()
