"""Message passing over a large graph, forward and backward: mlsql's group join beside SciPy and PyTorch, in one run.

Random edges in the numbers of ogbn-arxiv (169,343 nodes, 1,166,243 edges), 64 numbers a node, a weight an edge. The
backward pass is the gradient by the nodes, and in a second table by the weights too. PyTorch gathers the edges'
messages and adds them with index_add, as PyTorch Geometric does for edges in a list; SciPy multiplies by a sparse
matrix and its transpose, both made beforehand. Rounds alternate; medians and ratios are printed.

    python benchmarks/group_join.py [--rounds 7] [--json benchmarks/results/group_join.json]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sides import arguments, keep, machine, summary

NODES, EDGES, WIDTH = 169_343, 1_166_243, 64
Pass = Callable[[], list[np.ndarray]]


def data() -> dict[str, np.ndarray]:
    """A random graph with entries of the nodes, weights of the edges and a gradient of the sums."""
    rng = np.random.default_rng(0)
    return {
        "source": rng.integers(0, NODES, EDGES),
        "target": rng.integers(0, NODES, EDGES),
        "weight": rng.random(EDGES, dtype=np.float32),
        "x": rng.random((NODES, WIDTH), dtype=np.float32),
        "g": rng.random((NODES, WIDTH), dtype=np.float32),
    }


def mlsql_pass(arrays: dict[str, np.ndarray], by_weight: bool) -> Pass:
    """A plan of a join under a group-by and its gradient, optimized and run as TRAIN would."""
    from mlsql.autodiff.gradient import gradients
    from mlsql.executor.run import executable
    from mlsql.optimizer.stages import optimize
    from mlsql.planner.ops import Column, Multiply, Positions, Reshape, Segment, Sum, Take
    from mlsql.planner.plan import Plan
    from mlsql.types import FLOAT, RowSet

    nodes, edges = RowSet("nodes", NODES), RowSet("edges", EDGES)
    x, g = (Column(name, nodes, FLOAT, (WIDTH,)) for name in ("x", "g"))
    weight = Column("weight", edges, FLOAT)
    source, target = (Positions(name, edges, nodes) for name in ("source", "target"))
    sums = Segment(Multiply(weight, Take(x, source)), target, nodes)
    forward = optimize(Plan({"sums": sums})).plan.outputs["sums"]
    loss = Reshape(Sum(Multiply(forward, g), True, (0,)), ())
    wanted = [x, weight] if by_weight else [x]
    found = {str(i): n for i, n in enumerate([forward, *gradients(loss, wanted)])}
    outputs = list(optimize(Plan(found)).plan.outputs.values())
    leaves = {"source": source, "target": target, "weight": weight, "x": x, "g": g}
    step = executable(outputs, varying=[x, weight, g]).bind(
        {n: arrays[k] for k, n in leaves.items()}, {nodes: NODES, edges: EDGES}
    )
    return lambda: list(step())


def scipy_pass(arrays: dict[str, np.ndarray], by_weight: bool) -> Pass:
    """Products with a sparse matrix; the gradient by its entries gathers both sides."""
    import scipy.sparse

    source, target, x, g = (arrays[k] for k in ("source", "target", "x", "g"))
    there = scipy.sparse.csr_array((arrays["weight"], (target, source)), (NODES, NODES))
    back = there.T.tocsr()

    def run() -> list[np.ndarray]:
        found = [there @ x, back @ g]
        return [*found, np.einsum("rk,rk->r", x[source], g[target])] if by_weight else found

    return run


def torch_pass(arrays: dict[str, np.ndarray], by_weight: bool) -> Pass:
    """Messages gathered, weighted, and added where they arrive; the gradient by autograd."""
    import torch

    source, target, weight, x, g = (torch.from_numpy(a.copy()) for a in arrays.values())
    x.requires_grad_()
    weight.requires_grad_(by_weight)

    def run() -> list[np.ndarray]:
        x.grad = weight.grad = None
        sums = torch.zeros(NODES, WIDTH).index_add(0, target, x[source] * weight[:, None])
        sums.backward(g)
        found = [sums.detach(), x.grad, weight.grad]
        return [t.numpy() for t in found if t is not None]

    return run


CONTENDERS = {"mlsql": mlsql_pass, "scipy csr": scipy_pass, "pytorch index_add": torch_pass}
TABLES = {"forward and by nodes": False, "forward, by nodes and by weights": True}


def measure(rounds: int) -> dict[str, Any]:
    """Median milliseconds of a pass, and mlsql's ratio to the others; all contenders must agree."""
    arrays, results = data(), {}
    for title, by_weight in TABLES.items():
        runs = {name: make(arrays, by_weight) for name, make in CONTENDERS.items()}
        times: dict[str, list[float]] = {name: [] for name in runs}
        first = {name: run() for name, run in runs.items()}
        for values in first.values():
            for mine, theirs in zip(first["mlsql"], values, strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)
        del first, values, mine, theirs
        for _ in range(rounds):
            for name, run in runs.items():
                began = time.perf_counter()
                run()
                times[name].append((time.perf_counter() - began) * 1e3)
        results[title] = summary(times, unit="milliseconds")
        shown = ", ".join(f"{n} {m:.0f} ms" for n, m in results[title]["milliseconds"].items())
        ratios = ", ".join(f"{n} {r:.2f}" for n, r in results[title]["mlsql_over"].items())
        print(f"{title}: {shown}; mlsql over {ratios}")
    return results


if __name__ == "__main__":
    parser = arguments(__doc__, rounds=7)
    options = parser.parse_args()
    found = {"machine": machine(), "rounds": options.rounds, "passes": measure(options.rounds)}
    keep(found, options.json)
