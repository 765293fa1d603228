"""PREDICT of a dimension's columns in a join: the optimizer on beside off, in one process, and DuckDB alone.

5 M facts are joined with 10,000 rows of a dimension, each with a vector of 8 numbers; a network of two hidden layers
(64 and 32) predicts from the vector, and the query adds up its predictions. With the optimizer the network runs once a
row of the dimension; with ``SET mlsql_optimizer = false`` once a row of the join. ``join`` is the same join with a
column in the place of the prediction: no query can take less. Rounds alternate, medians are told, and the sums must
agree to 1e-6.

    python benchmarks/predict_join.py [--rounds 3] [--facts 5000000] [--json benchmarks/results/predict_join.json]
"""

from __future__ import annotations

import math
import time
from typing import Any

from sides import Report, arguments, keep, machine, summary

import mlsql

DIMENSIONS = 10_000
MODEL = """CREATE MODEL network INPUT (x FLOAT[8]) TARGET (y FLOAT)
AS SELECT RELU(LINEAR(x, 64)) AS first, RELU(LINEAR(first, 32)) AS second, LINEAR(second, 1) AS prediction
MINIMIZE AVG((prediction - y) ** 2)"""
QUERY = "SELECT sum({}) FROM facts JOIN dimension ON facts.k = dimension.id"
SIDES = {
    "off": ("false", QUERY.format("PREDICT(network, dimension.x)")),
    "on": ("true", QUERY.format("PREDICT(network, dimension.x)")),
    "join": ("true", QUERY.format("dimension.y")),
}


def database(facts: int) -> Any:
    """The tables and the trained network, in memory."""
    con = mlsql.connect(progress=False)
    con.execute("SELECT setseed(0.5)")
    numbers = ", ".join(["random() - 0.5"] * 8)
    con.execute(
        f"CREATE TABLE dimension AS SELECT i AS id, [{numbers}]::FLOAT[8] AS x, random()::FLOAT AS y "
        f"FROM range({DIMENSIONS}) AS r(i)"
    )
    con.execute(f"CREATE TABLE facts AS SELECT i AS id, i * 7919 % {DIMENSIONS} AS k FROM range({facts}) AS r(i)")
    con.execute(MODEL)
    con.execute("TRAIN network ON dimension WITH ADAM (epochs = 2)")
    return con


def timed(con: Any, side: str) -> tuple[float, float]:
    """The seconds of a side's query, planning included, and its sum."""
    setting, query = SIDES[side]
    con.execute(f"SET mlsql_optimizer = {setting}")
    began = time.perf_counter()
    [(value,)] = con.execute(query).fetchall()
    return time.perf_counter() - began, value


def main() -> None:
    """Runs the rounds and tells the medians."""
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--facts", type=int, default=5_000_000)
    options = parser.parse_args()
    con = database(options.facts)
    times: dict[str, list[float]] = {name: [] for name in SIDES}
    sums: dict[str, float] = {}
    timed(con, "on")  # what is compiled and read for the first time is no side's
    for _ in range(options.rounds):
        for name in SIDES:
            seconds, sums[name] = timed(con, name)
            times[name].append(seconds)
    assert math.isclose(sums["on"], sums["off"], rel_tol=1e-6), sums
    found: Report = {"facts": options.facts, **summary(times, "off"), **machine("mlsql")}
    print(found)
    keep(found, options.json)


if __name__ == "__main__":
    main()
