"""What every thread computes for itself, in arrays of its own, so that threads need not meet behind it.

A small update takes less time than a meeting. So each thread adds up what all of them have summed over rows, in the
same order, and updates its own copy of the parameters: the copies stay equal to the bit. Data-parallel training does
the same with machines for threads (an all-reduce of gradients, and replicas of the parameters; Goyal et al., 2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ...planner.node import Node
from ...planner.ops import Reduce
from ...record import record
from ...types import UNIT, Shape
from .fusion import ALONE, Fusion, Loop, Product, writes_elsewhere
from .tasks import Task, key_of
from .tiles import Tiles

WORTH_SHARING = 4096  # numbers of a loop without rows


@record
class Replicas:
    """The kernels that every thread runs for itself, by their numbers, and the nodes and states of whose arrays each
    thread has its own."""

    kernels: frozenset[int] = frozenset()
    arrays: frozenset[Node] = frozenset()


def is_few(shape: Shape) -> bool:
    """Whether an entry has so few numbers that threads do not share a loop over them."""
    return math.prod(key_of(shape)) < WORTH_SHARING


def replicas(fusion: Fusion, tiles: Sequence[Tiles], home: Callable[[Node], Node]) -> Replicas:
    """What threads that share a step compute for themselves. ``home`` tells in whose array a node's value lies: nothing
    may be written to it but by each thread."""
    if not fusion.is_shared:
        return Replicas()
    homes = {n: home(n) for n in fusion.arrays}
    sums = {n for n in homes if is_small_sum(fusion, tiles, n)}
    kernels = {i for i, k in enumerate(fusion.kernels) if isinstance(k, Loop) and is_small(k)}
    while True:
        common = {homes[n] for n in homes if fusion.kernel_of[n] not in kernels and n not in sums}
        left = kernels - {fusion.kernel_of[n] for n in homes if homes[n] in common}
        if left == kernels:
            return Replicas(frozenset(kernels), frozenset(homes.values()) - common)
        kernels = left


def is_small(loop: Loop) -> bool:
    """Whether a loop runs over few numbers."""
    first = loop.nodes[0]
    if loop.rows != UNIT or isinstance(first, ALONE) or any(map(writes_elsewhere, loop.nodes)):
        return False
    return all(is_few(Task(n).shape) for n in loop.nodes)


def is_small_sum(fusion: Fusion, tiles: Sequence[Tiles], node: Node) -> bool:
    """Whether threads sum a few numbers over their shares of rows, which are put together then."""
    number = fusion.kernel_of[node]
    kernel = fusion.kernels[number]
    if node.type.rows != UNIT or not is_few(node.type.shape):
        return False
    if isinstance(kernel, Product):
        return any(t.holds(number) for t in tiles)
    scatters = any(writes_elsewhere(n) and not isinstance(n, Reduce) for n in kernel.nodes)
    return isinstance(node, Reduce) and kernel.rows != UNIT and not scatters
