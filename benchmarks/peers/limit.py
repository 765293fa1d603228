"""The physical limit of a step on this machine: what its matrix products and its memory traffic take at full rate.

    seconds = max(flops / G, 4 * batch * inputs / B(data) + 16 * parameters / B(8 * parameters))

G is the best rate of a 2048 x 2048 x 2048 single-precision product, of NumPy's BLAS and of PyTorch's where it is
installed. B(n) is the rate at which all cores together read n bytes again and again: from a cache, where n bytes fit.
The inputs of a batch are read once, from the whole data set; each parameter and its momentum are read once and written
once. Everything else (activations, reading weights twice, element-wise functions, the loss) is counted as free.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from .problem import Problem

SIZE = 2048
LEAST = 0.02  # seconds that a measurement of memory takes


class Limit:
    """Measures the machine's rates again in every round."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.products, self.read = products(), reader()
        self.rates: dict[str, float] = {}

    def seconds(self) -> float:
        """The least seconds of a step, at the rates of this moment."""
        problem = self.problem
        data, weights = 4 * problem.rows * problem.sizes[0], 8 * problem.parameters
        self.rates = {
            "product_flops_per_second": 2 * SIZE**3 / min(least(p) for p in self.products),
            "data_bytes_per_second": self.bandwidth(data),
            "parameter_bytes_per_second": self.bandwidth(weights),
        }
        product, stream, cached = self.rates.values()
        bytes_time = 4 * problem.batch * problem.sizes[0] / stream + 2 * weights / cached
        return max(problem.flops / product, bytes_time)

    def warm(self, seconds: float) -> None:
        """Measure once more."""
        self.seconds()

    def bandwidth(self, size: int) -> float:
        """Bytes a second when all cores together read so many bytes repeatedly, the best of three."""
        cores = len(os.sched_getaffinity(0))
        parts = np.array_split(np.ones(max(size // 4, 16 * cores), np.float32), cores)
        with ThreadPoolExecutor(cores) as pool:
            times = 1
            while True:
                seconds = least(lambda: list(pool.map(lambda part: self.read(part, times), parts)))  # noqa: B023
                if seconds >= LEAST:
                    return times * 4 * sum(len(part) for part in parts) / seconds
                times = max(2 * times, int(1.2 * times * LEAST / seconds))

    def facts(self) -> dict[str, Any]:
        """The rates of the last round."""
        return {"rates": self.rates}


def least(call: Callable[[], Any]) -> float:
    """The seconds of the fastest of three calls."""
    found = []
    for _ in range(3):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)


def products() -> list[Callable[[], Any]]:
    """The same product by every BLAS at hand."""
    a, b = (np.random.default_rng(0).random((SIZE, SIZE), dtype=np.float32) for _ in range(2))
    out = np.empty_like(a)
    found: list[Callable[[], Any]] = [lambda: np.matmul(a, b, out)]
    try:
        import torch
    except ImportError:
        return found
    x, y, z = (torch.from_numpy(m) for m in (a, b, out))
    return [*found, lambda: torch.mm(x, y, out=z)]


def reader() -> Callable[[np.ndarray, int], float]:
    """A compiled loop that adds up an array so many times."""
    import numba

    @numba.njit(nogil=True, fastmath=True)
    def read(values: np.ndarray, times: int) -> float:
        total = np.float32(0)
        for _ in range(times):
            for i in range(values.size):
                total += values[i]
        return total

    read(np.ones(1, np.float32), 1)
    return read
