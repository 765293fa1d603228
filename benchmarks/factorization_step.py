"""A step of matrix factorization: mlsql beside PyTorch's sparse embeddings, in one run.

mlsql's step is compiled, and interpreted beside that. Ratings of 100,000 users and 20,000 items, rows of 32 numbers,
squared error of their dot product; SGD against SGD and Adam against SparseAdam. All run on one thread: on two cores
that others use too, PyTorch with two threads was many times slower. Rounds alternate, and medians and ratios are
printed, since absolute times depend on who else uses the machine.

What a step must move: every row that the batch reads is read once and written once, 128 bytes each way; Adam moves its
two moments as well. ``floor`` is these bytes over the speed at which NumPy copies a large array.

    python benchmarks/factorization_step.py [--rounds 9] [--json benchmarks/results/factorization_step.json]
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sides import arguments, keep, machine

USERS, ITEMS, RANK, ROWS = 100_000, 20_000, 32, 1 << 18
BATCHES = (1024, 4096, 16384)
SOLVERS = {"SGD": 0.1, "ADAM": 0.001}  # with their learning rates
STATES = {"SGD": 1, "ADAM": 3}  # tables that a step reads and writes: the weights, and two moments


def data() -> dict[str, np.ndarray]:
    """Random ratings: the work of a step depends on the keys alone."""
    rng = np.random.default_rng(0)
    return {
        "user": rng.integers(0, USERS, ROWS).astype(np.int32),
        "item": rng.integers(0, ITEMS, ROWS).astype(np.int32),
        "rating": rng.random(ROWS, dtype=np.float32),
    }


def first_values() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {n: rng.normal(0, 0.1, (k, RANK)).astype(np.float32) for n, k in (("users", USERS), ("items", ITEMS))}


def mlsql_step(batch_size: int, solver: str, *, is_compiled: bool = True) -> Callable[[], float]:
    """Seconds of a step of the training loop, as its log tells them."""
    from mlsql.autodiff.training import STEP, training_plan
    from mlsql.autodiff.updates import SOLVERS as RULES
    from mlsql.executor.compiled.source import compiled
    from mlsql.executor.compiled.trainer import CompiledTrainer
    from mlsql.executor.train import Limits, LoopPlan, Trainer
    from mlsql.optimizer.stages import optimize
    from mlsql.planner.ops import Column, Index, Multiply, Parameter, Subtract, Take, constant, dot, mean
    from mlsql.planner.plan import Plan
    from mlsql.types import FLOAT, INTEGER, RowSet

    table, batch = RowSet("table", ROWS), RowSet("batch", batch_size)
    index = Index(batch, table)
    users, items = Parameter("users", FLOAT, (USERS, RANK)), Parameter("items", FLOAT, (ITEMS, RANK))
    user, item, rating = (
        Take(Column(n, table, FLOAT if n == "rating" else INTEGER), index) for n in ("user", "item", "rating")
    )
    error = Subtract(dot(Take(users, user), Take(items, item)), rating)
    plan = Plan({"loss": mean(Multiply(error, error))})
    rule = RULES[solver].build({o.name: o.default for o in RULES[solver].options})
    rate = constant(SOLVERS[solver])
    training = training_plan(plan, [users, items], rule, rate, solver=solver, epochs=1, steps=1)
    states, updates = training.iterate.states, training.iterate.updates
    outputs = {"loss": training.iterate.loss, "rate": rate, **{str(i): n for i, n in enumerate(updates)}}
    loss, rate, *updates = optimize(Plan(outputs)).plan.outputs.values()
    loop = LoopPlan(
        loss, rate, dict(zip(states, updates, strict=True)), table, batch, index, training.spans, STEP
    )  # fmt: skip
    given = loop, data(), first_values(), {}
    trainer: Trainer
    if is_compiled:
        module = compiled(loop)
        assert not isinstance(module, str), module
        trainer = CompiledTrainer(
            *given, batch_size=batch_size, table_rows=ROWS, module=module, wait=True, notice=print
        )
    else:
        trainer = Trainer(*given, batch_size=batch_size, table_rows=ROWS)

    def run() -> float:
        trainer.run(Limits(epochs=1))
        return batch_size / trainer.log[-1].rows_per_second

    return run


def torch_step(batch_size: int, solver: str) -> Callable[[], float]:
    """Sparse embeddings and the optimizer for them, rows already in tensors."""
    import torch

    torch.set_num_threads(1)
    user, item, rating = (torch.from_numpy(a) for a in data().values())
    users, items = (
        torch.nn.Embedding.from_pretrained(torch.from_numpy(w), freeze=False, sparse=True)
        for w in first_values().values()
    )
    make = {"SGD": torch.optim.SGD, "ADAM": torch.optim.SparseAdam}[solver]
    optimizer = make([users.weight, items.weight], SOLVERS[solver])

    def run() -> float:
        order = torch.randperm(ROWS)
        began, total = time.perf_counter(), 0.0
        for start in range(0, ROWS, batch_size):
            at = order[start : start + batch_size]
            optimizer.zero_grad()
            loss = ((users(user[at]) * items(item[at])).sum(1) - rating[at]).square().mean()
            loss.backward()
            optimizer.step()
            total += loss.item()
        return (time.perf_counter() - began) / (ROWS // batch_size)

    return run


CONTENDERS = {
    "mlsql": mlsql_step,
    "interpreted": functools.partial(mlsql_step, is_compiled=False),
    "pytorch sparse": torch_step,
}


def copy_speed() -> float:
    """Bytes a second, read and written, of copying a large array."""
    source, target = np.ones(1 << 25, np.float32), np.zeros(1 << 25, np.float32)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - began)
    return 2 * source.nbytes / statistics.median(times)


def moved_bytes(batch_size: int, solver: str) -> int:
    """What a step must read and write: the rows of both tables both ways, and two keys and a rating a row."""
    return batch_size * (2 * 2 * STATES[solver] * RANK * 4 + 12)


def measure(rounds: int) -> dict[str, Any]:
    """Median microseconds of a step, its floor, and mlsql's ratio to PyTorch, for every solver and batch size."""
    results: dict[str, Any] = {}
    speed = copy_speed()
    for solver in SOLVERS:
        for batch_size in BATCHES:
            runs = {name: make(batch_size, solver) for name, make in CONTENDERS.items()}
            times: dict[str, list[float]] = {name: [] for name in runs}
            for run in runs.values():
                run()
            for _ in range(rounds):
                for name, run in runs.items():
                    times[name].append(run() * 1e6)
            medians = {name: statistics.median(t) for name, t in times.items()}
            ours, theirs = times["mlsql"], times["pytorch sparse"]
            ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
            moved = moved_bytes(batch_size, solver)
            title = f"{solver} batch {batch_size}"
            floor = moved / speed * 1e6
            results[title] = {"microseconds": medians, "mlsql_over_pytorch": ratio, "bytes": moved, "floor": floor}
            shown = ", ".join(f"{n} {m:.0f} us" for n, m in medians.items())
            print(f"{title}: {shown}; mlsql over pytorch {ratio:.2f}; {moved / 1e6:.2f} MB, floor {floor:.0f} us")
    return results


if __name__ == "__main__":
    parser = arguments(__doc__, rounds=9)
    options = parser.parse_args()
    found = {"machine": machine(), "rounds": options.rounds, "steps": measure(options.rounds)}
    keep(found, options.json)
