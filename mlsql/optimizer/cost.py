"""What a plan costs: the time of each operator on a machine whose rates are known, times how often it runs.

An operator says what it does (``Node.work``), the machine how long each part takes; nothing else goes into an estimate.
Arithmetic and the memory that it moves overlap, so the slower of the two counts; everything else adds up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from ..planner.node import Node, walk
from ..planner.ops import Column, Constant, Count, Counter, Index, Parameter, Positions, State
from ..planner.work import NUMBERS, Access, Product, Work
from .frequency import SINGLE, Frequency, Runs, frequencies
from .machine import Machine

__all__ = ["Machine", "chunk_seconds", "is_free", "price", "seconds", "step_seconds", "total"]

FREE = (Column, Positions, Parameter, State, Index, Counter, Count, Constant)
SMALL, MEDIUM, LARGE = (math.log(2 * n**3) for n in (32, 128, 512))  # the products that are measured


def is_free(node: Node) -> bool:
    """Whether a node takes no time: it is a leaf, or its input seen differently."""
    return node.is_view or isinstance(node, FREE)


def seconds(node: Node, machine: Machine) -> float:
    """The estimated time of one evaluation of a node, its inputs being there."""
    known = machine.prices.get(node)
    if known is None:
        known = machine.prices[node] = 0.0 if isinstance(node, FREE) else price(node.work(), machine)
    return known


def total(outputs: Iterable[Node], machine: Machine, runs: Runs = SINGLE) -> float:
    """The estimated time of a whole run of a plan: a shared node counts once, each node as often as it runs."""
    often = frequencies(outputs := list(outputs))
    return sum(seconds(n, machine) * runs[often[n]] for n in walk(outputs))


def step_seconds(outputs: Iterable[Node], machine: Machine) -> float:
    """The estimated time of a step of the training loop: its kernels, and the loop around them."""
    return machine.step + total(outputs, machine, {Frequency.ONCE: 0, Frequency.STEP: 1})


def chunk_seconds(outputs: Iterable[Node], machine: Machine) -> float:
    """The estimated time in which PREDICT computes a chunk of rows; for each it lays out every array anew."""
    times = [seconds(n, machine) for n in walk(outputs)]
    return machine.chunk + sum(t + machine.bind for t in times if t)


def price(work: Work, machine: Machine) -> float:
    """The time that some work takes."""
    time = sum(n * _CALLS[kind](machine) for kind, n in work.calls)
    time += sum(n * _LOOPS[kind](machine) for kind, n in work.loops if n > 1)
    for product in work.products:
        time += product_seconds(product, work, machine)
    if work.products or not (work.streamed or work.flops):
        moving = 0.0
    else:
        moving = work.streamed / between(machine.cache_bandwidth, machine.bandwidth, work.streamed, machine)
    time += max(arithmetic_seconds(work, machine), moving)
    for access in work.gathered:
        time += gather_seconds(access, machine)
    for access in work.scattered:
        time += scatter_seconds(access, machine)
    return time + work.converted / machine.cast


_CALLS: Mapping[str, Callable[[Machine], float]] = {
    "call": lambda m: m.call,
    "number_call": lambda m: m.number_call,
    "stretched": lambda m: m.stretched_call,
    "fold": lambda m: m.fold_call,
    "product": lambda m: m.product_call,
    "einsum": lambda m: m.einsum_call,
    "compiled": lambda m: m.compiled_call,
    "number": lambda m: m.number,
    "number_function": lambda m: m.number_function,
}
_LOOPS: Mapping[str, Callable[[Machine], float]] = {
    "loop": lambda m: m.loop,
    "fold": lambda m: m.fold_loop,
    "best": lambda m: m.best_loop,
    "group": lambda m: m.group_loop,
}


def arithmetic_seconds(work: Work, machine: Machine) -> float:
    """The time of what no matrix product does, its operands in the cache. Scattered sums are priced by their rows."""
    bits = "_double" if work.is_double else ""
    time = 0.0
    if any(kind in NUMBERS for kind, _ in work.calls):
        return time
    for name, count in work.flops:
        if name == "fold":
            time += count / machine.fold
        elif name == "einsum":
            time += count / machine.einsum
        elif name not in ("product", "group"):
            time += count / machine.function[name + bits]
    return time


def product_seconds(product: Product, work: Work, machine: Machine) -> float:
    """A stack of matrix products: by its flops where both matrices are large, by memory where one is a vector."""
    times, m, n, k = product
    flops = 2.0 * times * m * n * k
    stack = machine.stack_item * times if times > 1 else 0.0
    if k == 1:
        return stack + times * m * n / machine.outer
    if min(m, n) == 1:
        return stack + work.streamed / between(machine.gemv, machine.far_gemv, work.streamed, machine)
    rate = gemm_rate(flops / times, machine) * (machine.gemm_double / machine.gemm if work.is_double else 1.0)
    far = work.streamed / machine.bandwidth * farness(work.streamed, machine)
    return stack + flops / rate + max(far, work.streamed / machine.pack)


def gemm_rate(flops: float, machine: Machine) -> float:
    """The rate of a matrix product of so many flops, between those of the sizes that were measured."""
    size = math.log(max(flops, 1.0))
    if size < MEDIUM:
        share = max(0.0, (size - SMALL) / (MEDIUM - SMALL))
        return geometric(machine.gemm_small, machine.gemm_medium, share)
    share = min(1.0, (size - MEDIUM) / (LARGE - MEDIUM))
    return geometric(machine.gemm_medium, machine.gemm, share)


def geometric(a: float, b: float, share: float) -> float:
    """Between a and b on a logarithmic scale."""
    return a * math.exp(share * math.log(b / a))


def gather_seconds(access: Access, machine: Machine) -> float:
    """Rows that are taken in no order. A row that was taken before is nearer than one that no cache holds yet.

    Of n random rows out of m, m (1 - exp(-n / m)) are different (Cardenas, "Analysis and performance of inverted data
    base structures", 1975).
    """
    held = max(1.0, access.table_bytes / max(1, access.row_bytes))
    first = min(access.rows, held * -math.expm1(-access.rows / held)) if access.is_fresh else 0.0
    times = place_seconds(access, machine, ("gather", "mid_gather", "far_gather"))
    again = place_seconds(access, machine, ("gather", "again_gather", "far_gather"))
    return first * times + (access.rows - first) * again


def scatter_seconds(access: Access, machine: Machine) -> float:
    """Rows that are added to in no order; they were read or cleared just before."""
    return access.rows * place_seconds(access, machine, ("scatter", "mid_scatter", "far_scatter"))


def place_seconds(access: Access, machine: Machine, rates: tuple[str, str, str]) -> float:
    """The time of one row: some for itself, some for its bytes.

    It was measured for tables in the first levels of cache, in the last one, and in memory; for a table of a size in
    between it is in between on a logarithmic scale.
    """
    near, mid, far = (getattr(machine, f"{r}_row") + access.row_bytes / getattr(machine, r) for r in rates)
    size, (small, middle, large) = access.table_bytes, machine.table_bytes
    if size <= small:
        return float(near)
    if size <= middle:
        return float(near + (mid - near) * math.log(size / small) / math.log(middle / small))
    return float(mid + (far - mid) * min(1.0, math.log(size / middle) / math.log(large / middle)))


def farness(size: float, machine: Machine) -> float:
    """How far an array of so many bytes is from the cache: 0 up to half of it, 1 from twice its size on."""
    if size <= machine.cache / 2:
        return 0.0
    return min(1.0, math.log2(2 * size / machine.cache) / 2)


def between(near: float, far: float, size: float, machine: Machine) -> float:
    """The rate for an array of so many bytes, between that of the cache and that of memory."""
    share = farness(size, machine)
    return 1 / ((1 - share) / near + share / far)
