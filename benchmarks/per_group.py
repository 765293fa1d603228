"""A linear model for each of 1,000 groups of about 100 rows, 8 features: TRAIN ... PER beside loops over the groups.

All that descend take the same steps of gradient descent from the same rows. The loops: NumPy's gradient descent group
by group, NumPy's and scikit-learn's least squares group by group (another algorithm: exact, no steps), and TRAIN group
by group, which is run for 10 groups and extrapolated. Rounds alternate; medians and ratios are printed, since absolute
times depend on who else uses the machine.

    python benchmarks/per_group.py [--rounds 5] [--json benchmarks/results/per_group.json]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sides import arguments, keep, machine

GROUPS, FEATURES, STEPS, RATE = 1_000, 8, 100, 0.05
ALONE = 10  # groups that the loop of TRAINs is run for


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, target and group of every row, sorted by group; groups have 70 to 130 rows."""
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(GROUPS), rng.integers(70, 131, GROUPS))
    x = rng.standard_normal((len(g), FEATURES), dtype=np.float32)
    slopes = rng.standard_normal((GROUPS, FEATURES), dtype=np.float32)
    y = (x * slopes[g]).sum(1) + rng.standard_normal(len(g), dtype=np.float32) / 10
    return x, y, g


def connection() -> Any:
    """The rows in a table, and the model."""
    import pyarrow as pa

    import mlsql

    x, y, g = data()
    con = mlsql.connect(progress=False)
    features = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), FEATURES)
    con.register("given", pa.table({"g": g, "x": features, "y": y}))
    con.execute("CREATE TABLE t AS SELECT * FROM given ORDER BY g")
    con.execute(
        f"CREATE MODEL line INPUT (x FLOAT[{FEATURES}]) TARGET (y FLOAT) AS SELECT LINEAR(x, 1) AS prediction "
        "MINIMIZE AVG((prediction - y) ** 2)"
    )
    return con


DESCENT = f"FROM SCRATCH WITH GD (learning_rate = {RATE}, epochs = {STEPS})"


def mlsql_per() -> Callable[[], float]:
    """Seconds of one TRAIN ... PER, from the statement to the stored version."""
    con = connection()
    return timed(lambda: con.execute(f"TRAIN line ON t PER (g) {DESCENT}").fetchall())


def mlsql_loop() -> Callable[[], float]:
    """Seconds of a TRAIN a group, extrapolated from the first groups."""
    con = connection()

    def run() -> None:
        for g in range(ALONE):
            con.execute(f"TRAIN line ON (SELECT * FROM t WHERE g = {g}) {DESCENT}").fetchall()

    once = timed(run)
    return lambda: once() * GROUPS / ALONE


def parts() -> list[tuple[np.ndarray, np.ndarray]]:
    x, y, g = data()
    cuts = np.flatnonzero(np.diff(g)) + 1
    return list(zip(np.split(x, cuts), np.split(y, cuts), strict=True))


def numpy_descent() -> Callable[[], float]:
    """The same steps, group by group."""
    groups = parts()

    def run() -> None:
        for x, y in groups:
            w, b, n = np.zeros(FEATURES, np.float32), np.float32(0), np.float32(len(y))
            for _ in range(STEPS):
                error = x @ w + b - y
                slope = 2 / n * error
                w = w - np.float32(RATE) * (slope @ x)
                b = b - np.float32(RATE) * slope.sum()

    return timed(run)


def numpy_least_squares() -> Callable[[], float]:
    """The exact fit, group by group, by LAPACK."""
    groups = parts()

    def run() -> None:
        for x, y in groups:
            np.linalg.lstsq(np.column_stack([x, np.ones(len(x), np.float32)]), y, rcond=None)

    return timed(run)


def sklearn_least_squares() -> Callable[[], float]:
    """The exact fit, group by group, as one would write it."""
    from sklearn.linear_model import LinearRegression

    groups = parts()

    def run() -> None:
        for x, y in groups:
            LinearRegression().fit(x, y)

    return timed(run)


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """The work as a function that tells its seconds."""

    def run() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return run


CONTENDERS = {
    "mlsql PER": mlsql_per,
    "mlsql, a TRAIN a group (extrapolated)": mlsql_loop,
    "numpy descent, a loop": numpy_descent,
    "numpy least squares, a loop": numpy_least_squares,
    "scikit-learn least squares, a loop": sklearn_least_squares,
}


def measure(rounds: int) -> dict[str, Any]:
    """Median seconds of each contender, and each one's ratio to TRAIN ... PER."""
    runs = {name: make() for name, make in CONTENDERS.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(run())
    ours = times["mlsql PER"]
    medians = {name: statistics.median(t) for name, t in times.items()}
    ratios = {name: statistics.median(b / a for a, b in zip(ours, t, strict=True)) for name, t in times.items()}
    for name in runs:
        print(f"{name}: {medians[name]:.3f} s, {ratios[name]:.2f} times mlsql PER")
    return {"seconds": medians, "over_mlsql_per": ratios}


def loop_seconds() -> dict[str, float]:
    """What of TRAIN ... PER the steps alone take, as its log tells."""
    con = connection()
    con.execute(f"TRAIN line ON t PER (g) {DESCENT}")
    (seconds,) = con.execute("SELECT max(seconds) FROM mlsql.training_log").fetchone()
    print(f"the {STEPS} steps of mlsql PER alone: {seconds:.3f} s")
    return {"steps_of_mlsql_per": seconds}


if __name__ == "__main__":
    parser = arguments(__doc__, rounds=5)
    options = parser.parse_args()
    shape = {"groups": GROUPS, "features": FEATURES, "steps": STEPS, "groups_trained_alone": ALONE}
    found = {"machine": machine(), "rounds": options.rounds, **shape, **measure(options.rounds), **loop_seconds()}
    keep(found, options.json)
