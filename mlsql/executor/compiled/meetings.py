"""Where threads have to meet in front of a kernel: another thread may still read what the kernel overwrites.

Most kernels end where threads meet. One that leaves nothing but single numbers, which every thread computes for itself,
does not: then a thread may be one kernel behind, in an array whose place the next kernel takes for its result.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...planner.node import Node
from ...planner.ops import State
from .arena import Arena
from .fusion import Fusion, Kernel, Product, is_single

MEET = "meet(gate, threads)"
Place = int | State  # a slot of the arena, or a state


class Meetings:
    """What threads may still read or write that have not met since."""

    def __init__(self, fusion: Fusion, arena: Arena) -> None:
        self.fusion, self.arena = fusion, arena
        self.open: set[Place] = set()

    def guarded(self, kernels: Iterable[Kernel], lines: list[str]) -> list[str]:
        """The lines of kernels, and where it is needed a meeting in front of them."""
        nodes = [n for k in kernels for n in ([k.node] if isinstance(k, Product) else k.nodes)]
        written = {p for n in nodes if n in self.fusion.arrays for p in self.places(n)}
        front = [MEET] if self.open & written else []
        if front or any(MEET in line for line in lines):
            self.open.clear()
        if any(MEET in line for line in lines):  # behind it, each thread stores single numbers that were folded
            self.open |= {p for n in nodes if is_single(n) and n in self.fusion.arrays for p in self.places(n)}
        else:
            self.open |= written.union(p for n in nodes for s in self.fusion.sources(n) for p in self.places(s))
        return [*front, *lines]

    def end(self) -> list[str]:
        """The end of a step: the next one begins with the first kernel."""
        return [MEET] if self.open else []

    def places(self, node: Node) -> set[Place]:
        """Where the array of a node lies, if it is one that changes."""
        base = self.arena.base(node)
        state = node if isinstance(node, State) else self.arena.overwrites.get(base)
        if state is not None:
            return {state}
        return {self.arena.slot[base]} if base in self.arena.slot else set()
