"""A training step of small networks: mlsql beside hand-written NumPy and PyTorch eager, in one run.

Each contender trains the same network on the same rows with the same batches of the same size; rounds alternate, and
medians and ratios are printed, since absolute times depend on who else uses the machine.

    python benchmarks/step.py [--rounds 7] [--json benchmarks/results/step.json]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sides import arguments, keep, machine, summary

SHAPES = {"784-128-10 batch 64": (784, 128, 10, 64), "64-32-10 batch 32": (64, 32, 10, 32)}
RATE, MOMENTUM = 0.05, 0.9


def data(inputs: int, classes: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Random rows with random labels: the work of a step does not depend on them."""
    rng = np.random.default_rng(0)
    return rng.random((rows, inputs), dtype=np.float32), rng.integers(0, classes, rows).astype(np.int32)


def mlsql_step(inputs: int, hidden: int, classes: int, batch: int, steps: int) -> Callable[[], float]:
    """Seconds of a step of TRAIN, from the log's last epoch: planning and loading are not part of a step."""
    import pyarrow as pa

    import mlsql

    x, y = data(inputs, classes, steps * batch)
    con = mlsql.connect(progress=False)
    pixels = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), inputs)
    con.register("given", pa.table({"pixels": pixels, "label": y}))
    con.execute("CREATE TABLE rows AS SELECT * FROM given")
    con.execute(
        f"CREATE MODEL net INPUT (pixels FLOAT[{inputs}]) TARGET (label INTEGER) "
        f"AS SELECT RELU(LINEAR(pixels, {hidden})) AS hidden, LINEAR(hidden, {classes}) AS logits "
        "MINIMIZE AVG(CROSS_ENTROPY(logits, label))"
    )
    statement = (
        f"TRAIN net ON rows FROM SCRATCH WITH SGD (learning_rate = {RATE}, momentum = {MOMENTUM}, "
        f"batch_size = {batch}, epochs = 2)"
    )
    last_epoch = "SELECT rows_per_second FROM mlsql.training_log ORDER BY run_id DESC, epoch DESC LIMIT 1"

    def run() -> float:
        con.execute(statement)
        return batch / con.execute(last_epoch).fetchone()[0]

    return run


def numpy_step(inputs: int, hidden: int, classes: int, batch: int, steps: int) -> Callable[[], float]:
    """What a careful person writes by hand: every array preallocated, one flat vector of weights."""
    x, y = data(inputs, classes, steps * batch)
    sizes = [inputs * hidden, hidden, hidden * classes, classes]
    cuts = np.cumsum(sizes)[:-1]
    weights = (np.random.default_rng(1).standard_normal(sum(sizes)) * 0.05).astype(np.float32)
    velocity, gradient, scratch = np.zeros_like(weights), np.empty_like(weights), np.empty_like(weights)
    shapes = [(inputs, hidden), (hidden,), (hidden, classes), (classes,)]
    w1, b1, w2, b2 = (p.reshape(s) for p, s in zip(np.split(weights, cuts), shapes, strict=True))
    g_w1, g_b1, g_w2, g_b2 = (p.reshape(s) for p, s in zip(np.split(gradient, cuts), shapes, strict=True))
    xb, yb = np.empty((batch, inputs), np.float32), np.empty(batch, np.int32)
    h, g_h = np.empty((batch, hidden), np.float32), np.empty((batch, hidden), np.float32)
    z, s, active = np.empty((batch, classes), np.float32), np.empty((batch, 1), np.float32), np.empty(h.shape, bool)
    rows = np.arange(batch)

    def step(index: np.ndarray) -> float:
        x.take(index, 0, xb, "clip")
        y.take(index, 0, yb, "clip")
        np.matmul(xb, w1, h)
        np.add(h, b1, h)
        np.maximum(h, 0, out=h)
        np.matmul(h, w2, z)
        np.add(z, b2, z)
        np.maximum.reduce(z, 1, None, s, True)
        np.subtract(z, s, z)
        np.exp(z, z)
        np.add.reduce(z, 1, None, s, True)
        np.divide(z, s, z)
        loss = -np.log(z[rows, yb]).mean()
        z[rows, yb] -= 1
        np.multiply(z, 1 / batch, z)
        np.matmul(h.T, z, g_w2)
        np.add.reduce(z, 0, None, g_b2)
        np.matmul(z, w2.T, g_h)
        np.greater(h, 0, active)
        np.multiply(g_h, active, g_h)
        np.matmul(xb.T, g_h, g_w1)
        np.add.reduce(g_h, 0, None, g_b1)
        np.multiply(velocity, MOMENTUM, velocity)
        np.add(velocity, gradient, velocity)
        np.multiply(velocity, RATE, scratch)
        np.subtract(weights, scratch, weights)
        return float(loss)

    def run() -> float:
        order = np.random.default_rng(2).permutation(len(x))
        began, total = time.perf_counter(), 0.0
        for start in range(0, len(order), batch):
            total += step(order[start : start + batch])
        return (time.perf_counter() - began) / steps

    return run


def torch_step(inputs: int, hidden: int, classes: int, batch: int, steps: int) -> Callable[[], float]:
    """PyTorch eager, rows already in tensors."""
    import torch

    x, y = (torch.from_numpy(a) for a in data(inputs, classes, steps * batch))
    y = y.long()
    net = torch.nn.Sequential(
        torch.nn.Linear(inputs, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, classes)
    )  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), RATE, MOMENTUM)
    loss_of = torch.nn.CrossEntropyLoss()

    def run() -> float:
        order = torch.randperm(len(x))
        began, total = time.perf_counter(), 0.0
        for start in range(0, len(order), batch):
            index = order[start : start + batch]
            optimizer.zero_grad()
            loss = loss_of(net(x[index]), y[index])
            loss.backward()
            optimizer.step()
            total += loss.item()
        return (time.perf_counter() - began) / steps

    return run


CONTENDERS = {"mlsql": mlsql_step, "numpy by hand": numpy_step, "pytorch eager": torch_step}


def measure(rounds: int, steps: int) -> dict[str, Any]:
    """Median microseconds of a step, and mlsql's ratio to the others, for every shape."""
    results: dict[str, Any] = {}
    for title, shape in SHAPES.items():
        runs = {name: make(*shape, steps) for name, make in CONTENDERS.items()}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():
            run()
        for _ in range(rounds):
            for name, run in runs.items():
                times[name].append(run() * 1e6)
        results[title] = summary(times, unit="microseconds")
        shown = ", ".join(f"{n} {m:.1f} us" for n, m in results[title]["microseconds"].items())
        ratios = ", ".join(f"{n} {r:.2f}" for n, r in results[title]["mlsql_over"].items())
        print(f"{title}: {shown}; mlsql over {ratios}")
    return results


if __name__ == "__main__":
    parser = arguments(__doc__, rounds=7)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    found = {"machine": machine(), "rounds": options.rounds, "shapes": measure(options.rounds, options.steps)}
    keep(found, options.json)
