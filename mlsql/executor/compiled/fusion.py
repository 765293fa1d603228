"""Which operators run together: a plan as loops over rows, each of which computes many operators, and matrix products.

Operators over the same rows share a loop unless one has to see all rows of what another one computes: a sum over rows,
a GROUP BY and a matrix product end a loop. So a bias and its activation run in one pass over what a product left;
softmax, cross entropy and their gradients in one pass over the scores; all of an update rule in one pass over the
weights. What only moves numbers (a view, a broadcast, the gather of a batch) is never computed: its readers look
through it, and a cheap function of one array is computed again where it is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

from ...planner import scalar
from ...planner.node import Node, Reach, size_of, walk
from ...planner.ops import (
    Argmax,
    Broadcast,
    Concat,
    Constant,
    Contract,
    Contraction,
    Index,
    Map,
    Put,
    Reduce,
    ScatterAdd,
    Segment,
    State,
    Take,
)
from ...planner.ops.segment import SegmentBest
from ...planner.ops.shape import is_contiguous
from ...planner.work import Work
from ...types import UNIT, RowSet, common_rows
from ..memory import is_view, owner
from .lower import IN_SEVERAL_LOOPS, LEAVES
from .tasks import Task

ALONE = (Contraction, *IN_SEVERAL_LOOPS)  # what is computed from whole arrays, in a kernel of its own
CHEAP = frozenset("add subtract multiply negative abs maximum minimum where sign".split()) | frozenset(
    "less less_equal greater greater_equal equal not_equal logical_and logical_or logical_not".split()
)
COSTLY = frozenset("exp log log1p tanh erf sin cos power".split())
LARGE_TABLE = 1 << 21  # bytes that do not fit into the caches of a core
CHEAP_OPERATIONS = 3  # so many of these cost less than reading an array


@dataclass(frozen=True)
class Loop:
    """One pass over the rows of a row set (the unit row set has one), which computes ``nodes`` in this order."""

    rows: RowSet
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Product:
    """A matrix product of BLAS."""

    node: Contraction


Kernel = Loop | Product


def writes_elsewhere(node: Node) -> bool:
    """Whether the loop over a node's rows writes to places that no other row must have been waiting for."""
    return isinstance(node, (Segment, ScatterAdd, Put)) or (
        isinstance(node, Reduce) and node.rows and node.x.type.rows != UNIT
    )


def loop_rows(node: Node) -> RowSet:
    """The row set over which the loop runs that computes a node."""
    if isinstance(node, (Reduce, Argmax)):
        return node.x.type.rows
    if isinstance(node, (Segment, SegmentBest)):
        return common_rows(node.x.type.rows, node.index.type.rows)
    if isinstance(node, (ScatterAdd, Put)):
        return node.index[0].type.rows
    return node.type.rows


def is_single(node: Node) -> bool:
    """Whether the value is one number in all."""
    return node.type.rows == UNIT and node.type.size == 1


@dataclass
class Fusion:
    """A lowered plan as kernels.

    With ``is_shared`` several threads share every loop and product: a loop without rows then has one inner loop only.
    ``fixed`` are the nodes whose values are there before the first step, leaves included. ``virtual`` nodes are not
    computed; ``arrays`` are the computed ones that lie in memory as a whole. ``copied`` are new values of states that
    could not be written over the old ones; ``placed`` are parts that are computed inside a concatenation.
    ``kernel_of`` is the number of the kernel that computes a node.
    """

    outputs: Sequence[Node]
    updates: Mapping[State, Node]
    fixed: frozenset[Node]
    is_shared: bool = False
    virtual: set[Node] = field(default_factory=set)
    arrays: set[Node] = field(default_factory=set)
    copied: dict[State, Node] = field(default_factory=dict)
    placed: dict[Node, tuple[Concat, int, int]] = field(default_factory=dict)
    kernels: list[Kernel] = field(default_factory=list)
    kernel_of: dict[Node, int] = field(default_factory=dict)
    readers: dict[Node, list[Node]] = field(default_factory=dict)
    after: dict[Node, list[Node]] = field(default_factory=dict)  # what has to be read before a node overwrites it

    def __post_init__(self) -> None:
        self.find_virtual()
        self.group()
        before = set(self.virtual)
        self.virtual |= self.recomputed()
        self.virtual -= self.gathered_apart()
        if self.virtual != before:
            for known in ("computed", "row_by_row"):
                self.__dict__.pop(known, None)
            self.group()
        self.find_arrays()

    @cached_property
    def nodes(self) -> list[Node]:
        return list(walk([*self.outputs, *self.updates.values()]))

    @cached_property
    def computed(self) -> list[Node]:
        """The nodes that kernels compute, inputs first."""
        return [n for n in self.nodes if n not in self.fixed and n not in self.virtual]

    # -- what is not computed ----------------------------------------------------------------------------------------

    def find_virtual(self) -> None:
        """Views, broadcasts and gathers are looked through, unless what reads them wants whole arrays."""
        operands: set[Node] = set()
        for reader in self.nodes:
            if isinstance(reader, ALONE):
                for n in reader.inputs:
                    while is_view(n) and n not in self.fixed:
                        n = n.inputs[0]
                    operands.add(n)
        for n in self.nodes:
            looks_through = n.is_view or isinstance(n, Broadcast) or (isinstance(n, Take) and not reads_state(n))
            if looks_through and n not in operands and n not in self.fixed:
                self.virtual.add(n)

    def sources(self, node: Node) -> dict[Node, Reach]:
        """The computed and fixed nodes that a node reads, virtual ones looked through, and which numbers of them."""
        found: dict[Node, Reach] = {}
        reaches = (Reach.ALL,) * len(node.inputs) if isinstance(node, Contraction) else node.reaches()
        stack = list(zip(node.inputs, reaches, strict=True))
        while stack:
            n, reach = stack.pop()
            if n in self.virtual:
                stack += [(m, max(reach, r)) for m, r in zip(n.inputs, n.reaches(), strict=True)]
            else:
                found[n] = max(found.get(n, reach), reach)
        return found

    def recomputed(self) -> set[Node]:
        """Cheap functions of one array that other kernels read: computing them again costs less than keeping them."""
        again: set[Node] = set()
        for n in self.computed:
            is_operand = any(isinstance(r, ALONE) for r in self.readers[n])
            if not is_cheap(n) or is_single(n) or is_operand or n in self.outputs or n in self.updates.values():
                continue
            large = [s for s in self.sources(n) if s.type.size == n.type.size and not isinstance(s, Constant)]
            others = [s for s in self.sources(n) if s not in large and s not in self.fixed and not is_single(s)]
            kept = all(self.is_kept(s, n) for s in large) and not again.intersection(large)
            if len(large) <= 1 and kept and not others and self.leaves(n, n):
                again.add(n)
        return again

    def gathered_apart(self) -> set[Node]:
        """Numbers that a loop through vector registers would read in no order: an earlier loop gathers them. LLVM could
        not tell where they lie from where the loop stores, and would compute row after row."""
        apart: set[Node] = set()
        stack = [m for n in self.row_by_row for m in n.inputs]
        while stack:
            n = stack.pop()
            if isinstance(n, Take) and n in self.virtual and n.type.entry_size == 1:
                apart.add(n)
            elif n in self.virtual:
                stack += n.inputs
        return apart

    def is_kept(self, source: Node, reader: Node) -> bool:
        """Whether an array is kept for others than one of its readers."""
        if source in self.fixed or isinstance(self.kernels[self.kernel_of[source]], Product):
            return True
        return self.leaves(source, reader)

    def leaves(self, node: Node, but: Node) -> bool:
        """Whether another kernel than its own reads a node, ``but`` aside."""
        return any(self.kernel_of[r] != self.kernel_of[node] for r in self.readers[node] if r is not but)

    # -- kernels -----------------------------------------------------------------------------------------------------

    def key(self, node: Node) -> object:
        """Nodes with different keys cannot share a kernel."""
        if isinstance(node, ALONE) or (self.is_shared and isinstance(node, Concat)):
            return node
        rows = loop_rows(node)
        if self.is_shared and rows == UNIT:
            return rows, Task(node).key, isinstance(node, Argmax)  # which every thread looks for by itself
        return rows, node in self.row_by_row

    @cached_property
    def row_by_row(self) -> set[Node]:
        """What is better computed in a loop of its own, in which rows run through vector registers: a function such as
        exp of one number a row, and what other numbers a row are made of it."""
        found: set[Node] = set()
        for n in self.computed:
            task = n.x if isinstance(n, Reduce) else n
            one_a_row = task.type.rows != UNIT and task.type.entry_size == 1 and isinstance(n, (Map, Reduce))
            if one_a_row and (is_costly(n) or any(s in found and s.type.entry_size == 1 for s in self.sources(n))):
                found.add(n)
        return found

    def group(self) -> None:
        """Give every computed node the earliest kernel that it can be in."""
        before: dict[Node, dict[Node, bool]] = {}
        self.readers = {n: [] for n in self.nodes}
        for n in self.computed:
            before[n] = {}
            for s, reach in self.sources(n).items():
                self.readers[s].append(n)
                if s not in self.fixed:
                    before[n][s] = self.is_apart(s, n, reach)
        order = self.overwriting(before)
        level: dict[Node, int] = {}
        for n in order:
            level[n] = max((level[s] + apart for s, apart in before[n].items()), default=0)
        places = {n: i for i, n in enumerate(order)}
        groups: dict[tuple[int, object], list[Node]] = {}
        for n in sorted(self.computed, key=lambda n: (level[n], places[n])):
            groups.setdefault((level[n], self.key(n)), []).append(n)
        self.kernels = [kernel(group) for group in groups.values()]
        self.kernel_of = {n: i for i, group in enumerate(groups.values()) for n in group}

    def reorder(self, order: Sequence[int]) -> None:
        """Put the kernels into another order in which they may run, given by their numbers."""
        self.kernels = [self.kernels[i] for i in order]
        places = {old: new for new, old in enumerate(order)}
        self.kernel_of = {n: places[i] for n, i in self.kernel_of.items()}

    def is_apart(self, source: Node, reader: Node, reach: Reach) -> bool:
        """Whether a node has to be computed by an earlier kernel than one that reads it."""
        if self.key(source) != self.key(reader) or reach == Reach.ALL:
            return True
        if loop_rows(source) != UNIT:
            return writes_elsewhere(source)
        whole = isinstance(source, Reduce) or (reach != Reach.PLACE and not is_single(source))
        return self.is_shared and whole  # threads share the numbers of an entry

    def overwriting(self, before: dict[Node, dict[Node, bool]]) -> list[Node]:
        """The order of the nodes in which new values of states are written when the old ones are no longer read.

        A state for which there is no such order is copied at the end of the step.
        """
        self.copied, self.after = {}, {}
        for state, new in self.updates.items():
            writer = owner(new)
            if writer is state:
                continue
            if writer in self.fixed or writer in self.virtual or new.type.size != writer.type.size:
                self.copied[state] = new
                continue
            first = first_write(writer)
            others = [r for r in self.readers[state] if r is not first]
            added = {r: not self.beside(r, first, state) or before[first].get(r, False) for r in others}
            trial = {**before, first: {**before[first], **added}}
            try:
                TopologicalSorter({n: list(s) for n, s in trial.items()}).prepare()
            except CycleError:
                self.copied[state] = new
                continue
            before[first] = trial[first]
            self.after.setdefault(first, []).extend(others)
        return list(TopologicalSorter({n: list(s) for n, s in before.items()}).static_order())

    def beside(self, reader: Node, writer: Node, state: State) -> bool:
        """Whether a node may read a state in the iteration of the loop in which its new value is written."""
        if self.key(reader) != self.key(writer) or writes_elsewhere(reader) or writes_elsewhere(writer):
            return False
        return self.sources(reader)[state] == Reach.PLACE and reader.type.shape == writer.type.shape

    def find_arrays(self) -> None:
        """What other kernels or other rows read lies in memory as a whole."""
        stored = {owner(n) for n in self.updates.values()}
        kept = {owner(n) for n in self.outputs}
        for n in self.computed:
            whole = isinstance(n, (*ALONE, Concat, Segment, ScatterAdd, Put))
            apart = any(self.kernel_of[r] != self.kernel_of[n] for r in self.readers[n])
            far = any(self.sources(r)[n] == Reach.ALL for r in self.readers[n])
            if whole or n in stored or (not is_single(n) and (apart or far or n in kept or writes_elsewhere(n))):
                self.arrays.add(n)
        for n in self.computed:
            if isinstance(n, Concat) and n.type.rows == UNIT and n.axis == 0:
                self.place_parts(n)

    def gathered(self, loop: Loop) -> list[Take]:
        """The rows of large tables that a loop takes in the order of a batch."""
        found = []
        for n in loop.nodes:
            stack: list[Node] = [n] if isinstance(n, Take) else list(n.inputs)
            while stack:
                m = stack.pop()
                if (
                    isinstance(m, Take)
                    and isinstance(m.index, Index)
                    and m.x.nbytes > LARGE_TABLE
                    and m.x in self.fixed
                ):
                    found.append(m)
                elif m in self.virtual:
                    stack += m.inputs
        return list(dict.fromkeys(found))

    def work(self, cached: Collection[Node] = ()) -> list[Work]:
        """What each kernel does in a step, and the gathers of rows that they look through; arrays that stay in the
        cache cost nothing to read and write."""
        takes = [n for n in self.nodes if isinstance(n, Take) and n not in self.fixed]
        gathers = [Work(gathered=n.work().gathered) for n in takes]
        return [*gathers, *(self.work_of(k, cached) for k in self.kernels)]

    def work_of(self, kernel: Kernel, cached: Collection[Node]) -> Work:
        """The arithmetic of a kernel's operators; the arrays that it reads and writes, each once."""
        first = kernel.node if isinstance(kernel, Product) else kernel.nodes[0]
        if isinstance(first, ALONE):
            return dataclasses.replace(first.work(), calls=())
        assert isinstance(kernel, Loop)
        read = {s for n in kernel.nodes for s in self.sources(n) if s in self.arrays or s in self.fixed}
        moved = {*read, *self.arrays.intersection(kernel.nodes)}.difference(cached)
        flops = tuple(f for n in kernel.nodes if not isinstance(n, Take) for f in n.work().flops)
        streamed = sum(min(n.nbytes, size_of(n.type.with_(rows=kernel.rows)) * n.type.element.bytes) for n in moved)
        return Work(flops, streamed=streamed, is_double=any(n.is_double for n in kernel.nodes))

    def place_parts(self, concat: Concat) -> None:
        """Parts of a concatenation are computed where it wants them."""
        for part, (start, stop) in zip(concat.parts, concat.offsets(), strict=True):
            source = owner(part)
            fits = is_contiguous(part) and source.type.size == part.type.size and not is_single(source)
            free = source in self.kernel_of and source not in self.placed and not isinstance(source, Concat)
            if fits and free and source.type.element == concat.type.element and source not in self.updates.values():
                self.placed[source] = (concat, start, stop)
                self.arrays.add(source)


def kernel(nodes: Sequence[Node]) -> Kernel:
    """The kernel of nodes with one key."""
    first = nodes[0]
    return Product(first) if isinstance(first, Contraction) else Loop(loop_rows(first), tuple(nodes))


def first_write(node: Node) -> Node:
    """The first of several operators that write to a table one after another."""
    while isinstance(node, (ScatterAdd, Put)) and isinstance(node.base, (ScatterAdd, Put)):
        node = node.base
    return node


def reads_state(take: Take) -> bool:
    """Whether rows are taken from what the loop changes: they must be taken before it does."""
    return isinstance(owner(take.x), State)


def is_cheap(node: Node) -> bool:
    """Whether a function takes a few operations that all run in vector registers."""
    if not isinstance(node, Map):
        return False
    passes = scalar.passes(node.expression)
    return all(name in CHEAP for name, _ in passes) and sum(n for _, n in passes) <= CHEAP_OPERATIONS


def is_costly(node: Node) -> bool:
    """Whether a function takes many operations."""
    return isinstance(node, Map) and any(name in COSTLY for name, _ in scalar.passes(node.expression))


def in_bf16(product: Contraction) -> bool:
    """Whether the operands of a matrix product are rounded to bfloat16."""
    return isinstance(product, Contract) and product.bf16


def fixed_nodes(outputs: Sequence[Node], moving: Container[Node]) -> frozenset[Node]:
    """What is there before the first step: leaves, and tensors that nothing which moves reaches. Numbers are computed
    where they are used, as the compiler likes it."""

    def is_fixed(n: Node) -> bool:
        computed = not (n.is_view or n.is_number or isinstance(n, Broadcast))
        return isinstance(n, LEAVES) or (computed and n not in moving and n.type.rows == UNIT)

    return frozenset(n for n in walk(outputs) if is_fixed(n))
