"""Where the value of every node of a step lies: one arena, planned before the loop, reused as values die.

A linear scan over the schedule (Poletto and Sarkar, 1999, for registers): a value gets a free slot of the arena
when it is computed and gives it back after its last use. Views share their input's slot, elementwise operators write
over an input that dies with them, parts of a concatenation are computed in their place, and a new state overwrites
the old one where nobody reads the old one any more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ..planner.node import Node
from ..planner.ops import Concat, Regroup, Reshape, State
from ..planner.ops.shape import is_contiguous
from ..types import UNIT


@dataclass
class Layout:
    """The plan of the arena: ``slots`` are sizes in bytes; every array node has one of the other three."""

    slots: list[int] = field(default_factory=list)
    slot: dict[Node, int] = field(default_factory=dict)  # at the front of this slot
    placed: dict[Node, tuple[Concat, int, int]] = field(default_factory=dict)  # inside a concatenation, start:stop
    overwrites: dict[Node, State] = field(default_factory=dict)  # in the array of a state
    copied_at_end: dict[State, Node] = field(default_factory=dict)  # states that could not be overwritten

    @property
    def bytes(self) -> int:
        """The size of the arena."""
        return sum(self.slots)


def is_view(node: Node) -> bool:
    """Whether the node's array is its input's array seen differently: no memory and no work of its own."""
    return node.is_view and not (isinstance(node, (Reshape, Regroup)) and not is_contiguous(node.inputs[0]))


def owner(node: Node) -> Node:
    """The node whose array a view looks into."""
    while is_view(node):
        node = node.inputs[0]
    return node


def plan_layout(
    schedule: Sequence[Node],
    updates: Mapping[State, Node],
    kept: Collection[Node],
    numbers: Collection[Node] = frozenset(),
) -> Layout:
    """Lay out the values of one step.

    ``schedule`` lists the nodes that read or fill arrays in the order in which they are computed, views included;
    those in ``numbers`` only read. ``kept`` are the ones that are read after the step.
    """
    return _Scan(schedule, updates, kept, numbers).layout


class _Scan:
    def __init__(
        self,
        schedule: Sequence[Node],
        updates: Mapping[State, Node],
        kept: Collection[Node],
        numbers: Collection[Node],
    ) -> None:
        self.layout = Layout()
        self.position = {node: i for i, node in enumerate(schedule) if node not in numbers}
        self.updates = updates
        old = [n for n in updates.values() if isinstance(owner(n), State)]
        self.last = self.last_uses(schedule, [*kept, *old])
        self.place_parts(schedule)
        self.overwrite_states()
        for new in self.layout.copied_at_end.values():
            self.last[self.base(new)] = len(schedule)
        self.free: list[int] = []
        for i, node in enumerate(schedule):
            if node in self.position and not is_view(node):
                self.assign(node, i)
            self.release(i, node)

    def base(self, node: Node) -> Node:
        """The node whose array holds this node's numbers, once parts are placed."""
        node = owner(node)
        while node in self.layout.placed:
            node = self.layout.placed[node][0]
        return node

    def last_uses(self, schedule: Sequence[Node], kept: Collection[Node]) -> dict[Node, int]:
        """For every owner of an array, the position of the last node that reads it, through views too."""
        last: dict[Node, int] = {}
        for i, node in enumerate(schedule):
            last.setdefault(owner(node), i)
            for n in node.inputs:
                last[owner(n)] = i
        for node in kept:
            last[owner(node)] = len(schedule)
        return last

    def place_parts(self, schedule: Sequence[Node]) -> None:
        """Parts of a flat concatenation are computed where it wants them."""
        for node in schedule:
            if not (isinstance(node, Concat) and node.type.rows == UNIT and node.axis == 0):
                continue
            for part, (start, stop) in zip(node.parts, node.offsets(), strict=True):
                source = owner(part)
                fits = is_contiguous(part) and source.type.size == part.type.size
                free = source in self.position and not isinstance(source, Concat) and source not in self.layout.placed
                if fits and free and source.type.element == node.type.element:
                    self.layout.placed[source] = (node, start, stop)
                    self.last[node] = max(self.last[node], self.last[source])

    def overwrite_states(self) -> None:
        """A new state goes into the old one's array if the old one is not read later."""
        for state, new in self.updates.items():
            ready = self.position.get(new, -1)
            read_until = self.last.get(state, -1)
            in_parts = new in self.layout.placed or any(c is new for c, _, _ in self.layout.placed.values())
            own = ready >= 0 and not is_view(new) and not in_parts and new not in self.layout.overwrites
            if own and (read_until < ready or (read_until == ready and self.may_overwrite(new, state))):
                self.layout.overwrites[new] = state
            elif new is not state:
                self.layout.copied_at_end[state] = new

    def may_overwrite(self, node: Node, old: Node) -> bool:
        """Whether the kernel of ``node`` may write into the array of its input ``old``."""
        reads_only_directly = all(n is old or self.base(n) is not old for n in node.inputs)
        return node.in_place and reads_only_directly and old.type == node.type

    def assign(self, node: Node, i: int) -> None:
        """Find a slot for a node that owns its array."""
        layout = self.layout
        if node in layout.overwrites or node in layout.slot:
            return
        if node in layout.placed:
            self.assign(layout.placed[node][0], i)
            return
        for n in dict.fromkeys(node.inputs):
            dying = n in layout.slot and self.last[n] == i and n not in layout.overwrites
            if dying and n is not node and self.may_overwrite(node, n):
                layout.slot[node] = layout.slot[n]
                return
        layout.slot[node] = self.take(node.nbytes)

    def take(self, size: int) -> int:
        """The smallest free slot that is large enough, else a free one made larger, else a new one."""
        slots = self.layout.slots
        enough = [s for s in self.free if slots[s] >= size]
        chosen = min(enough, key=lambda s: slots[s]) if enough else max(self.free, key=lambda s: slots[s], default=-1)
        if chosen < 0:
            slots.append(size)
            return len(slots) - 1
        self.free.remove(chosen)
        slots[chosen] = max(slots[chosen], size)
        return chosen

    def release(self, i: int, node: Node) -> None:
        """Give back the slots of the values that this node was the last to read."""
        for n in dict.fromkeys((*node.inputs, node)):
            base = self.base(n)
            if base in self.layout.slot and self.last[base] == i:
                slot = self.layout.slot[base]
                taken_over = self.layout.slot.get(node) == slot and base is not node
                if not taken_over and slot not in self.free:
                    self.free.append(slot)
