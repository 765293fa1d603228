"""How long planning takes: from a bound model to the plan that runs, in milliseconds, medians.

Measured is the planner alone: simplify, differentiate, search, choose. Nothing is compared with a peer, since none
plans; the figures are there so that they do not grow. ``nodes`` are those of the plan that comes out.

    python benchmarks/planning.py [--rounds 7] [--json benchmarks/results/planning.json]
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from sides import Report, arguments, keep, machine

from mlsql.planner.node import walk

WIDTH, LAYERS, TOKENS = 64, 12, 16


def normalized(source: str, name: str) -> str:
    """The expressions of a layer norm without parameters, the last of which is ``name``."""
    centred = f"{source} - RESHAPE(SUM_OF({source}, 2) / {WIDTH}, {TOKENS}, 1) AS c_{name}"
    spread = f"RESHAPE(SQRT(SUM_OF(c_{name} * c_{name}, 2) / {WIDTH} + 1e-5), {TOKENS}, 1)"
    return f"{centred}, c_{name} / {spread} AS {name}"


def transformer() -> str:
    """A model with the size and the shape of a small transformer: 12 layers of attention and an MLP."""
    parts, source = [], "x"
    for i in range(LAYERS):
        parts += [
            normalized(source, f"n{i}"),
            *(f"LINEAR(n{i}, {WIDTH}) AS {name}{i}" for name in "qkv"),
            f"SOFTMAX(MATMUL(q{i}, TRANSPOSE(k{i})) / 8.0) AS a{i}",
            f"{source} + LINEAR(MATMUL(a{i}, v{i}), {WIDTH}) AS r{i}",
            normalized(f"r{i}", f"m{i}"),
            f"r{i} + LINEAR(GELU(LINEAR(m{i}, {4 * WIDTH})), {WIDTH}) AS y{i}",
        ]
        source = f"y{i}"
    return (
        f"CREATE MODEL transformer INPUT (x FLOAT[{WIDTH}][{TOKENS}]) TARGET (label INTEGER) AS SELECT "
        f"{', '.join(parts)}, LINEAR(RESHAPE({source}, {WIDTH * TOKENS}), 10) AS logits, ARGMAX(logits) AS prediction "
        "MINIMIZE AVG(CROSS_ENTROPY(logits, label))"
    )


MODELS = {
    "mlp": "CREATE MODEL mlp INPUT (x FLOAT[784]) TARGET (label INTEGER) AS SELECT RELU(LINEAR(x, 128)) AS h, "
    "LINEAR(h, 10) AS logits, ARGMAX(logits) AS prediction MINIMIZE AVG(CROSS_ENTROPY(logits, label))",
    "gcn": "CREATE MODEL gcn INPUT nodes (id BIGINT, v FLOAT[128]), edges (src BIGINT, dst BIGINT, w FLOAT) "
    "TARGET nodes (label INTEGER) AS WITH a AS (SELECT id, LINEAR(v, 64) AS h FROM nodes), "
    "b AS (SELECT e.dst AS id, RELU(SUM(e.w * a.h)) AS h FROM edges e JOIN a ON a.id = e.src GROUP BY e.dst), "
    "c AS (SELECT id, LINEAR(h, 40) AS h FROM b), "
    "d AS (SELECT e.dst AS id, SUM(e.w * c.h) AS h FROM edges e JOIN c ON c.id = e.src GROUP BY e.dst) "
    "SELECT id, d.h AS logits, ARGMAX(logits) AS prediction FROM d JOIN nodes USING (id) "
    "MINIMIZE AVG(CROSS_ENTROPY(logits, label))",
    "least squares": "CREATE MODEL line INPUT (x FLOAT[784]) TARGET (label INTEGER) "
    "AS SELECT LINEAR(x, 1) AS prediction MINIMIZE AVG((prediction - label) ** 2) + 0.1 * L2(prediction.weight)",
    "transformer": transformer(),
}
TRAINED = {
    "mlp": "TRAIN mlp ON pixels WITH ADAM",
    "gcn": "TRAIN gcn ON nodes, edges WITH GD",
    "least squares": "TRAIN line ON pixels WITH GD",
    "transformer": "TRAIN transformer ON tokens WITH ADAM",
}


def database() -> Any:
    """The models, and tables with few rows: planning reads only how many there are."""
    import mlsql

    con = mlsql.connect(progress=False)
    con.execute(
        "CREATE TABLE pixels AS SELECT [i + j FOR j IN range(784)]::FLOAT[784] AS x, i % 10 AS label "
        "FROM range(1000) r(i)"
    )
    con.execute(
        "CREATE TABLE nodes AS SELECT i AS id, [i + j FOR j IN range(128)]::FLOAT[128] AS v, i % 4 AS label "
        "FROM range(1000) r(i)"
    )
    con.execute(
        "CREATE TABLE edges AS SELECT i % 1000 AS src, i * 7 % 1000 AS dst, 1::FLOAT AS w FROM range(10000) r(i)"
    )
    con.execute(
        f"CREATE TABLE tokens AS SELECT [[i + j + k FOR j IN range({WIDTH})] FOR k IN range({TOKENS})]"
        f"::FLOAT[{WIDTH}][{TOKENS}] AS x, i % 10 AS label FROM range(100) r(i)"
    )
    for text in MODELS.values():
        con.execute(text)
    return con


def main() -> None:
    """Measure, print, keep."""
    from mlsql.session import machine as planning

    con = database()
    found: Report = {"machine": machine(), "milliseconds": {}, "nodes": {}}
    made = planning.plan_training
    for name, text in TRAINED.items():
        times: list[float] = []
        nodes = 0

        def timed(*a: Any, **k: Any) -> Any:
            nonlocal nodes
            began = time.perf_counter()
            planned = made(*a, **k)
            times.append(1000 * (time.perf_counter() - began))  # noqa: B023
            nodes = sum(1 for _ in walk([planned.loop.loss, *planned.loop.updates.values()]))
            return planned

        planning.plan_training = timed
        for _ in range(options.rounds + 1):  # the first one reads the machine
            con.execute(f"EXPLAIN {text}").fetchall()
        found["milliseconds"][name] = statistics.median(times[1:])
        found["nodes"][name] = nodes
        print(f"{name:14} {nodes:5} nodes  {found['milliseconds'][name]:8.1f} ms")
    keep(found, options.json)


if __name__ == "__main__":
    options = arguments(__doc__, rounds=7).parse_args()
    main()
