"""Where the arrays of compiled kernels lie: slots of one arena, used again once the last kernel has read a value."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ...planner.node import Node, size_of
from ...planner.ops import Put, ScatterAdd, State
from ...types import Type
from ..memory import owner
from .fusion import Fusion
from .replicas import replicas
from .tiles import Tiles


class Arena:
    """``sizes`` are the slots in bytes, ``slot`` says in which an array lies; ``overwrites`` are new values of states.

    ``given`` are arrays that lie elsewhere: the caller brings them. Arrays that are local to ``tiles`` have room for a
    tile's rows; each thread has its own of these, and of what it computes for itself (``replicas``).
    """

    def __init__(self, fusion: Fusion, given: Collection[Node] = (), tiles: Sequence[Tiles] = ()) -> None:
        self.fusion, self.given, self.tiles = fusion, given, tiles
        self.sizes: list[int] = []
        self.slot: dict[Node, int] = {}
        self.overwrites: dict[Node, State] = {}
        self.of_thread: set[int] = set()  # slots that each thread has for itself
        for state, new in fusion.updates.items():
            self.overwrite(owner(new), state)
        self.replicas = replicas(fusion, tiles, self.home)
        self.assign()

    def overwrite(self, node: Node, state: State) -> None:
        """A new value lies in the old one's array; so do the tables that are written one after another."""
        while node is not state and node not in self.fusion.fixed:
            self.overwrites[node] = state
            if not isinstance(node, (ScatterAdd, Put)):
                break
            node = owner(node.base)

    def assign(self) -> None:
        """Give every array the smallest free slot that it fits into, from its kernel to the last that reads it."""
        fusion = self.fusion
        spans: dict[Node, tuple[int, int]] = {}
        for n in fusion.computed:
            base = self.base(n)
            if n in fusion.arrays and base not in self.overwrites and base not in self.given:
                used = [fusion.kernel_of[m] for m in (n, *fusion.readers[n])]
                first, last = spans.get(base, (used[0], used[0]))
                spans[base] = min(first, used[0]), max(last, *used)
        spans = {n: self.widened(n, *span) for n, span in spans.items()}
        free: dict[bool, list[int]] = {True: [], False: []}  # of each thread, and of all of them
        for i in range(len(fusion.kernels)):
            for n in [n for n, (first, _) in spans.items() if first == i]:
                self.slot[n] = self.take(self.bytes_of(n), free[self.is_own(n)])
            for n in [n for n, (_, last) in spans.items() if last == i]:
                free[self.is_own(n)].append(self.slot[n])
        self.of_thread.update(s for n, s in self.slot.items() if self.is_own(n))

    def is_own(self, node: Node) -> bool:
        """Whether each thread has an array of its own for a node."""
        return self.tiles_of(node) is not None or self.home(node) in self.replicas.arrays

    def tiles_of(self, node: Node) -> Tiles | None:
        """The tiles to which an array is local."""
        return next((t for t in self.tiles if node in t.local), None)

    def bytes_of(self, node: Node) -> int:
        tiles = self.tiles_of(node)
        return size_of(tiles.part(node.type)) * node.type.element.bytes if tiles else node.nbytes

    def widened(self, node: Node, first: int, last: int) -> tuple[int, int]:
        """From when to when an array is needed: all of the time of kernels that run over and over again."""
        for tiles in self.tiles:
            if node not in tiles.local and first <= tiles.last and last >= tiles.first:
                first, last = min(first, tiles.first), max(last, tiles.last)
        return first, last

    def base(self, node: Node) -> Node:
        """The node in whose array a part of a concatenation lies."""
        while node in self.fusion.placed:
            node = self.fusion.placed[node][0]
        return node

    def home(self, node: Node) -> Node:
        """The node or the state in whose array a node's value lies."""
        base = self.base(node)
        return self.overwrites.get(base, base)

    def take(self, size: int, free: list[int]) -> int:
        """The smallest free slot that is large enough, else a free one made larger, else a new one."""
        enough = [s for s in free if self.sizes[s] >= size]
        chosen = (
            min(enough, key=self.sizes.__getitem__) if enough else max(free, key=self.sizes.__getitem__, default=-1)
        )
        if chosen < 0:
            self.sizes.append(size)
            return len(self.sizes) - 1
        free.remove(chosen)
        self.sizes[chosen] = max(self.sizes[chosen], size)
        return chosen

    def scratch(self, type: Type, width: int | None = None) -> int:
        """A slot of its own for a buffer, of so many bytes a number if they are not as many as the type has."""
        self.sizes.append(size_of(type) * (width or type.element.bytes))
        return len(self.sizes) - 1

    def own(self, type: Type) -> int:
        """A slot that each thread has for itself."""
        slot = self.scratch(type)
        self.of_thread.add(slot)
        return slot
