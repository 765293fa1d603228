"""The rates of the libraries of matrix products side by side: which one a compiled step calls."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..planner.work import PRODUCT_SIZES
from . import blas
from .calibrate import Bench, Rates, net, numbers, once

ATTEMPTS = 3  # to measure a product while other processes use the machine, too


def libraries(bench: Bench) -> None:
    """Matrix products by NumPy's BLAS, by MKL and of bfloat16 in turn, where MKL is installed.

    A larger product is not much slower than a smaller one, and a thin one not by an order of magnitude, unless another
    process kept a thread from its core. Then no figure says anything; after some attempts all are left out.
    """
    if blas.mkl_path() is None:
        return
    best: Rates = {}
    with blas.threads(1):  # as compiled steps call them
        calls = ways_to_multiply()
        for name, (m, n, k) in PRODUCT_SIZES.items():
            slower = 2 if name.isdigit() else 10
            for _ in range(ATTEMPTS):
                found = product_rates(bench, calls, m, n, k)
                if all(rate > best.get(library, 0.0) / slower for library, rate in found.items()):
                    bench.rates |= {f"{library}_{name}": rate for library, rate in found.items()}
                    break
            best = {library: max(rate, best.get(library, 0.0)) for library, rate in found.items()}


def ways_to_multiply() -> dict[str, Callable[..., None]]:
    """The libraries to compare, by their names in rates."""
    from .compiled.bfloat16 import missing

    calls = {"openblas": blas.caller(blas.numpys()), "mkl": blas.caller(blas.mkl())}
    return calls if missing() else calls | {"bf16": blas.caller(blas.mkl(), blas.BF16_PRODUCT)}


def product_rates(bench: Bench, calls: Mapping[str, Callable[..., None]], m: int, n: int, k: int) -> Rates:
    """Flops a second of each library at one product."""
    x, y, out = numbers(m, k), numbers(k, n), np.empty((m, n), np.float32)
    halves = [np.ones(operand.shape, np.uint16) for operand in (x, y)]
    runs = {library: functools.partial(call, x, y, out) for library, call in calls.items()}
    if "bf16" in runs:
        runs["bf16"] = functools.partial(calls["bf16"], *halves, out)
    nothing = functools.partial(calls["openblas"], x[:0], y, out[:0])
    seconds = alternating(bench, {**runs, "nothing": nothing})
    return {library: 2 * m * n * k / net(seconds[library], seconds["nothing"]) for library in runs}


def alternating(bench: Bench, calls: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """The seconds of each of some calls, measured in turn so that who else uses the machine slows all of them alike."""
    counts = {name: max(1, int(bench.least / once(call, 2))) for name, call in calls.items()}
    runs = [{name: once(call, counts[name]) for name, call in calls.items()} for _ in range(bench.repeats)]
    return {name: min(run[name] for run in runs) for name in calls}
