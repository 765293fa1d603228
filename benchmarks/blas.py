"""Matrix products of training steps by NumPy's OpenBLAS, by MKL, and by MKL in bfloat16, in one run.

For each network, the products of each of its layers: the forward pass (a batch times the weights), the gradient of the
weights (the batch transposed times the gradient) and that of the inputs (the gradient times the weights transposed).
Each is called from a compiled loop, as a training step calls it. Rounds alternate; medians of GFLOP/s are printed.
"bf16" is the product alone, "bf16 + rounding" with both operands rounded for it. PyTorch in bfloat16 calls oneDNN,
which uses a processor's instructions for it whoever made it; it stands beside to show what they are worth.

    python benchmarks/blas.py [--rounds 7] [--json benchmarks/results/blas.json]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit
from sides import arguments, keep, machine

from mlsql.executor import blas
from mlsql.executor.compiled.bfloat16 import missing, round_bf16
from mlsql.executor.compiled.blas import matmul

NETWORKS = (
    "64-32-10 batch 32",
    "64-128-10 batch 32",
    "784-128-10 batch 64",
    "784-512-10 batch 256",
    "784-1024-1024-10 batch 512",
    "2048-2048-2048-1000 batch 1024",
)
LEAST = 0.01  # seconds of a measurement

Array = Any
Product = tuple[str, Array, Array, Array]


def products(network: str) -> Iterator[Product]:
    """Name, operands and result of each product of a step; the gradient of the first layer's inputs is not needed."""
    rng = np.random.default_rng(0)
    layers, _, batch = network.partition(" batch ")
    rows, sizes = int(batch), [int(n) for n in layers.split("-")]
    for number, (inputs, outputs) in enumerate(pairwise(sizes), 1):
        x, w, g = (rng.random(s, dtype=np.float32) for s in ((rows, inputs), (inputs, outputs), (rows, outputs)))
        yield f"layer {number} forward", x, w, np.empty((rows, outputs), np.float32)
        yield f"layer {number} weights", x.T, g, np.empty((inputs, outputs), np.float32)
        if number > 1:
            yield f"layer {number} inputs", g, w.T, np.empty((rows, inputs), np.float32)


@cache
def repeated(multiply: Any) -> Callable[..., None]:
    """A product, so many times: compiled, for only compiled code can call it."""

    @njit(nogil=True)
    def run(count: int, x: Array, y: Array, out: Array) -> None:
        for _ in range(count):
            multiply(x, y, out)

    return run


@njit(nogil=True)
def rounding(count: int, x: Array, y: Array, x_half: Array, y_half: Array) -> None:
    """Both operands rounded, so many times."""
    for _ in range(count):
        round_bf16(x, x_half)
        round_bf16(y, y_half)


def half(x: Array) -> Array:
    """A matrix as bfloat16, lying as it does."""
    base = x if x.flags.c_contiguous else x.T
    out = np.empty(base.shape, np.uint16)
    round_bf16(base, out)
    return out if base is x else out.T


def contenders(x: Array, y: Array, out: Array, threads: int) -> dict[str, Callable[[int], None]]:
    """What runs a product so many times, by name."""
    found: dict[str, Callable[[int], None]] = {"openblas": lambda count: repeated(matmul)(count, x, y, out)}
    if blas.mkl_path() is not None:
        from mlsql.executor.compiled.mkl import matmul_bf16, matmul_mkl

        found["mkl"] = lambda count: repeated(matmul_mkl)(count, x, y, out)
        if missing() is None:
            bases = [a if a.flags.c_contiguous else a.T for a in (x, y)]
            halves = [half(x), half(y)]
            half_bases = [half(a) for a in bases]

            def both(count: int) -> None:
                rounding(count, *bases, *half_bases)
                repeated(matmul_bf16)(count, *halves, out)

            found |= {"bf16": lambda count: repeated(matmul_bf16)(count, *halves, out), "bf16 + rounding": both}
    return found | pytorch(x, y, out, threads)


def pytorch(x: Array, y: Array, out: Array, threads: int) -> dict[str, Callable[[int], None]]:
    """PyTorch's product of bfloat16 into a result of bfloat16, if it is installed."""
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(threads)
    first, second, result = (torch.from_numpy(a).bfloat16() for a in (x, y, out))

    def run(count: int) -> None:
        for _ in range(count):
            torch.mm(first, second, out=result)

    return {"pytorch bf16": run}


def rates(x: Array, y: Array, out: Array, rounds: int, threads: int) -> dict[str, float]:
    """Median GFLOP/s of each contender, a measurement each in turn."""
    runs = contenders(x, y, out, threads)
    flops = 2 * x.shape[0] * x.shape[1] * y.shape[1]
    counts = {}
    for name, run in runs.items():
        run(1)
        counts[name] = max(1, int(LEAST / seconds(run, 2)))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds(run, counts[name]))
    return {name: round(flops / statistics.median(t) / 1e9, 1) for name, t in times.items()}


def seconds(run: Callable[[int], None], count: int) -> float:
    """The time of one of so many runs."""
    began = time.perf_counter()
    run(count)
    return (time.perf_counter() - began) / count


def measure(rounds: int, threads: int) -> dict[str, Any]:
    """GFLOP/s by network, product and contender."""
    results: dict[str, Any] = {}
    for network in NETWORKS:
        results[network] = {}
        for name, x, y, out in products(network):
            shape = f"{x.shape[0]} x {y.shape[1]} x {x.shape[1]}"
            found = results[network][f"{name}: {shape}"] = rates(x, y, out, rounds, threads)
            print(
                f"threads {threads}, {network}, {name}, {shape}: "
                + ", ".join(f"{n} {r:.1f}" for n, r in found.items()),
                flush=True,
            )
    return results


if __name__ == "__main__":
    parser = arguments(__doc__, rounds=7)
    options = parser.parse_args()
    found: dict[str, Any] = {"machine": machine("mkl", "torch") | blas.versions(), "rounds": options.rounds}
    for count in sorted({1, blas.cores()}):
        with blas.threads(count):
            found[f"GFLOP/s, threads: {count}"] = measure(options.rounds, count)
    keep(found, options.json)
