"""One model for every group of rows, all of them in one plan: what ``vmap`` over the groups would make of a loss.

The rows of a step are laid out as a block of slots for each group; slots that a short group cannot fill do not count.
A value of a plan is then one of three: the same for all (the unit row set), one a group, or one a slot. A value a slot
keeps the slots as its rows, so that every operator inside a row stays as it is. Only where slots meet parameters, or
are folded, are they seen as the rows of their groups, which is a view: ``rk,ko->ro`` becomes ``rnk,rko->rno``, a stack
of matrix products, and a sum over rows becomes one over the slots of each group.

See Bradbury et al., "JAX: composable transformations of Python+NumPy programs", 2018, for vmap.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

from ..errors import NotSupportedError
from ..planner.node import Node, walk
from ..planner.ops import (
    Add,
    Argmax,
    Broadcast,
    Cast,
    Column,
    Concat,
    Constant,
    Contract,
    Count,
    Counter,
    Divide,
    Greater,
    Index,
    LogSumExp,
    Map,
    Max,
    Min,
    Multiply,
    Pad,
    Parameter,
    Pick,
    Place,
    Positions,
    Reduce,
    Reshape,
    Segment,
    Slice,
    Softmax,
    State,
    Sum,
    Take,
    Transpose,
    Where,
    broadcast,
    cast,
    constant,
    like,
    regroup,
)
from ..planner.ops.contract import ROW
from ..planner.plan import Plan
from ..record import record
from ..types import BIGINT, DOUBLE, FLOAT, UNIT, Element, RowSet, Shape, Type
from .sparse import table_reads
from .training import STEP, Spans, Together, end_to_end

Fold = Sum | Max | Min
LEAVES = (Column, Parameter, State, Positions, Index, Counter, Count, Constant)
# what works inside a row or reads another one, whatever rows there are
LAID_OUT = (
    *LEAVES, Map, Contract, Reduce, Argmax, LogSumExp, Softmax, Broadcast,
    Reshape, Transpose, Slice, Pad, Concat, Take, Pick, Place,
)  # fmt: skip
NEUTRAL = {Max: -math.inf, Min: math.inf}  # what a slot that does not count brings to a fold


@record
class Blocks:
    """``groups`` times ``width`` slots, those of a group side by side.

    ``real`` is 1 for a slot that holds a row of its group and 0 for one that does not count; None if all do.
    ``numbers`` are those of the groups, from 0.
    """

    groups: RowSet
    slots: RowSet
    width: int
    real: Node | None
    numbers: Node

    def folded(self, x: Node) -> Node:
        """A value a slot as one value a group, with the slots as its first axis."""
        return regroup(x, self.groups, (self.width, *x.type.shape))

    def unfolded(self, x: Node) -> Node:
        """The way back."""
        return regroup(x, self.slots, x.type.shape[1:])

    def spread(self, x: Node) -> Node:
        """A value a group, repeated for each of its slots."""
        first = Reshape(x, (1, *x.type.shape))
        return self.unfolded(broadcast(first, x.type.with_(shape=(self.width, *x.type.shape))))

    def mask(self, rank: int) -> Node | None:
        """``real`` beside a folded value whose slots have ``rank`` axes."""
        if self.real is None:
            return None
        return Reshape(self.folded(cast(self.real, FLOAT)), (self.width, *(1,) * rank))

    def entry(self, index: Node, shape: Shape) -> Node:
        """Where entry ``index`` of a slot's group stands among all groups' entries of a tensor of this shape."""
        numbers = Reshape(cast(self.numbers, DOUBLE), (1,))
        return self.unfolded(entry_number(numbers, shape, self.folded(index)))

    @property
    def count(self) -> Node:
        """How many rows each group has."""
        mask = self.mask(0)
        if mask is None:
            return broadcast(constant(self.width), Type(self.groups, FLOAT))
        return Reshape(Sum(mask, False, (0,)), ())


def per_group(plan: Plan, leaves: Mapping[Node, Node], blocks: Blocks) -> Plan:
    """The plan with a value a group in place of each single value that a parameter or a fold over rows reaches.

    ``leaves`` says what each column (a value a slot), count and parameter (a value a group) becomes. Raises
    NotSupportedError for an operator that cannot be laid out by groups.
    """
    new: dict[Node, Node] = {}
    for node in plan.nodes():
        new[node] = leaves[node] if node in leaves else _Lift(blocks).lift(node, [new[n] for n in node.inputs])
    return Plan({k: new[n] for k, n in plan.outputs.items()}, plan.renamed(new))


class _Lift:
    """The batched form of one operator, given the batched forms of its inputs."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks

    def lift(self, node: Node, inputs: Sequence[Node]) -> Node:
        groups, slots = self.blocks.groups, self.blocks.slots
        rows = {n.type.rows for n in inputs} - {UNIT}
        if not rows <= {groups, slots} or not isinstance(node, LAID_OUT):
            raise NotSupportedError(f"PER cannot lay out the operator {node.operator_name()} by groups")
        if isinstance(node, Broadcast) and node.target.rows != UNIT:
            return self.broadcast(inputs[0], node.target.shape)
        if slots in rows and node.type.rows == UNIT:
            return self.fold(node, inputs)
        if rows == {groups}:
            return raised(node, inputs, self.blocks.numbers)
        if groups not in rows:
            return node.with_inputs(inputs)
        match node:
            case Map():
                return self.map(node, inputs)
            case Contract():
                return self.blocks.unfolded(self.contract(node, *inputs))
            case Take() | Pick() if inputs[0].type.rows == groups:
                return taken(inputs[0], inputs[1], self.blocks)
        return node.with_inputs(self.blocks.spread(n) if n.type.rows == groups else n for n in inputs)

    def beside(self, x: Node, rank: int) -> Node:
        """``x`` with the axis of slots in front and its entry padded to ``rank`` axes, so that it broadcasts."""
        if x.type.rows == UNIT:
            return x
        padded = (1,) * (rank - x.type.rank)
        is_group = x.type.rows == self.blocks.groups
        shape = (1, *padded, *x.type.shape) if is_group else (self.blocks.width, *padded, *x.type.shape)
        return reshaped(x if is_group else self.blocks.folded(x), shape)

    def map(self, node: Map, inputs: Sequence[Node]) -> Node:
        return self.blocks.unfolded(node.with_inputs(self.beside(n, node.type.rank) for n in inputs))

    def broadcast(self, x: Node, shape: Shape) -> Node:
        if x.type.rows == UNIT:
            return broadcast(x, Type(self.blocks.slots, x.type.element, shape))
        target = Type(self.blocks.groups, x.type.element, (self.blocks.width, *shape))
        return self.blocks.unfolded(broadcast(self.beside(x, len(shape)), target))

    def fold(self, node: Node, inputs: Sequence[Node]) -> Node:
        """A value of all rows becomes one of each group's real slots."""
        if isinstance(node, Contract):
            x, y = inputs
            first_is_slots = x.type.rows == self.blocks.slots
            return self.contract(node, self.masked(x), y) if first_is_slots else self.contract(node, x, self.masked(y))
        if not isinstance(node, Fold):
            raise NotSupportedError(f"PER cannot fold the rows of each group with {node.operator_name()}")
        x = self.blocks.folded(inputs[0])
        mask = self.blocks.mask(inputs[0].type.rank)
        if mask is not None and isinstance(node, Sum):
            x = Multiply(x, mask)
        elif mask is not None:
            x = Where(Greater(mask, like(0, mask)), x, like(NEUTRAL[type(node)], x))
        return reshaped(type(node)(x, False, (0, *(a + 1 for a in node.axes))), node.type.shape)

    def masked(self, x: Node) -> Node:
        """A value a slot, 0 where the slot does not count."""
        mask = self.blocks.mask(x.type.rank)
        return x if mask is None else self.blocks.unfolded(Multiply(self.blocks.folded(x), mask))

    def contract(self, node: Contract, x: Node, y: Node) -> Node:
        """A contraction with an axis of slots behind the groups; without rows in the output it sums over the slots."""
        a, b, out = node.letters()
        slot = unused(node.spec)
        letters, operands = [], []
        for entry, n in ((a.removeprefix(ROW), x), (b.removeprefix(ROW), y)):
            is_slot = n.type.rows == self.blocks.slots
            lead = "" if n.type.rows == UNIT else ROW + slot if is_slot else ROW
            letters.append(lead + entry)
            operands.append(self.blocks.folded(n) if is_slot else n)
        lead = ROW + slot if out.startswith(ROW) else ROW
        return stacked(letters[0], letters[1], lead + out.removeprefix(ROW), *operands)


def raised(node: Node, inputs: Sequence[Node], numbers: Node) -> Node:
    """The operator over inputs of which some now have rows and none had before; ``numbers`` are those of the groups."""
    rows = next(n.type.rows for n in inputs if n.type.rows != UNIT)
    match node:
        case Contract():
            a, b, out = (
                ROW + letters.removeprefix(ROW) if n is None or n.type.rows != UNIT else letters
                for letters, n in zip(node.letters(), (*inputs, None), strict=True)
            )
            return stacked(a, b, out, *inputs)
        case Broadcast(_, target):
            return broadcast(inputs[0], target.with_(rows=rows))
        case Sum(_, _, axes) | Max(_, _, axes) | Min(_, _, axes):
            return type(node)(inputs[0], False, axes)
        case Take() if inputs[0].type.rows != UNIT:
            return Take(by_entry(inputs[0]), entry_number(numbers, inputs[0].type.shape, inputs[1]))
    if not isinstance(node, LAID_OUT):
        raise NotSupportedError(f"PER cannot lay out the operator {node.operator_name()} by groups")
    return node.with_inputs(inputs)


def taken(x: Node, index: Node, blocks: Blocks) -> Node:
    """For every slot, entry ``index`` of the first axis of its group's ``x``: all groups' entries in one table."""
    return Take(by_entry(x), blocks.entry(index, x.type.shape))


def entries_of(groups: RowSet, size: int) -> RowSet:
    """The rows of a table of so many entries of every group."""
    assert groups.rows is not None  # known once training has seen its data
    return RowSet(f"entries of {size} a group", groups.rows * size)


def by_entry(x: Node) -> Node:
    """The entries along the first axis of every group's ``x``, as the rows of one table."""
    size = x.type.shape[0]
    assert isinstance(size, int)
    return regroup(x, entries_of(x.type.rows, size), x.type.shape[1:])


def entry_number(numbers: Node, shape: Shape, index: Node) -> Node:
    """Where entry ``index`` of a group stands among all groups' entries; DOUBLE holds positions exactly."""
    size = shape[0]
    assert isinstance(size, int)
    start = Multiply(cast(numbers, DOUBLE), constant(size, DOUBLE))
    return Cast(Add(start, cast(index, DOUBLE)), BIGINT)


def stacked(a: str, b: str, out: str, x: Node, y: Node) -> Node:
    """A contraction of stacks, with vectors seen as matrices of one row or column so that BLAS can do it."""
    shared = [c for c in a if c in b and c != ROW]
    is_stack = a.startswith(ROW) and b.startswith(ROW) and out.startswith(ROW)
    thin = [len(letters) == 2 for letters in (a, b)]
    if is_stack and len(shared) == 1 and shared[0] not in out and sum(thin) == 1 and len(a) + len(b) == 5:
        one = unused(a + b)
        if thin[0]:
            a, x, out = a + one, Reshape(x, (*x.type.shape, 1)), ROW + one + out[1:]
        else:
            b, y, out = b + one, Reshape(y, (*y.type.shape, 1)), out + one
        product = Contract(f"{a},{b}->{out}", x, y)
        return Reshape(product, tuple(d for d, c in zip(product.type.shape, out[1:], strict=True) if c != one))
    return Contract(f"{a},{b}->{out}", x, y)


def unused(spec: str) -> str:
    """A letter for an axis that the specification has no letter for."""
    return next(c for c in "nmpqstuvwxyz" if c not in spec)


def reshaped(x: Node, shape: Shape) -> Node:
    return x if x.type.shape == shape else Reshape(x, shape)


# -- training ----------------------------------------------------------------------------------------------------------


class PerGroup(Together):
    """Weights and a loss for every group. The groups' losses are minimized together: each depends on its own weights
    alone, so each group's gradient is what it would be alone.

    ``leaves`` are what columns and counts become. Where groups may ``wait``, having no rows left in some steps of an
    epoch, their weights and all that the update rule carries stay as they are, and steps are counted group by group.
    """

    def __init__(self, blocks: Blocks, leaves: Mapping[Node, Node], waits: bool) -> None:
        self.blocks, self.leaves, self.waits = blocks, leaves, waits
        self.rows = blocks.groups
        self.taken = State("steps_taken", DOUBLE, (), blocks.groups)
        self.reads: dict[Node, Node] = {}  # of each parameter that is read by an index alone
        self.step = Add(self.taken, constant(1, DOUBLE)) if waits else STEP

    def placed(self, plan: Plan, views: Mapping[Node, Node]) -> Plan:
        reads = table_reads(plan.outputs["loss"], views)
        index: dict[Node, Node] = {n: n.index for ns in reads.values() for n in ns if isinstance(n, (Take, Pick))}
        asked = {f"index {i}": n for i, n in enumerate(index.values())}
        lifted = per_group(Plan({**plan.outputs, **asked}, plan.names), {**self.leaves, **views}, self.blocks)
        found = dict(zip(index, (lifted.outputs[name] for name in asked), strict=True))
        self.reads = {p: self.reads_of(p, [found[n] for n in nodes]) for p, nodes in reads.items()}
        loss = lifted.outputs["loss"]
        losses = broadcast(loss, Type(self.blocks.groups, loss.type.element))
        return Plan({"loss": losses}, lifted.names)

    def reads_of(self, table: Node, index: Sequence[Node]) -> Node:
        """How often the step reads each row of each group's table, in a shape that fits the rows."""
        size, rank = table.type.shape[0], table.type.rank
        assert isinstance(size, int)
        real = constant(1, FLOAT) if self.blocks.real is None else cast(self.blocks.real, FLOAT)
        entries = entries_of(self.blocks.groups, size)
        counts: list[Node] = [Segment(real, self.blocks.entry(i, table.type.shape), entries) for i in index]
        count = regroup(functools.reduce(Add, counts), self.blocks.groups, (size,))
        return Reshape(count, (size, *(1,) * (rank - 1)))

    @property
    def is_there(self) -> Node:
        """Whether a group has rows in this step."""
        return Greater(self.blocks.count, constant(0))

    def counted(self, loss: Node) -> Node:
        """The losses, 0 for groups without rows."""
        return Where(self.is_there, loss, like(0, loss)) if self.waits else loss

    def minimized(self, loss: Node) -> Node:
        return Sum(self.counted(loss), True)

    def reported(self, loss: Node) -> Node:
        """The average over the groups, each weighted by its rows."""
        count = self.blocks.count
        return Divide(Sum(Multiply(self.counted(loss), count), True), Sum(count, True))

    def lazy(self, updates: Mapping[State, Node], spans: Spans) -> Mapping[State, Node]:
        masks = {e: self.mask(e, spans) for e in {p.element for p in spans if p in self.reads}}
        return {s: Where(masks[s.element], n, s) if s.element in masks else n for s, n in updates.items()}

    def mask(self, element: Element, spans: Spans) -> Node:
        """Where a flat vector changes in a step: all of it but the rows of tables that no row reads."""
        mine = [p for p in spans if p.element == element]
        reads = [(Type(self.blocks.groups, FLOAT, p.shape), self.reads.get(p, constant(1, FLOAT))) for p in mine]
        return Greater(end_to_end(reads), constant(0))

    def advanced(self, updates: Mapping[State, Node]) -> Mapping[State, Node]:
        if not self.waits:
            return updates
        return {state: Where(self.is_there, new, state) for state, new in (*updates.items(), (self.taken, self.step))}


# -- prediction --------------------------------------------------------------------------------------------------------


def gathered(plan: Plan, parameters: Mapping[Parameter, Parameter], number: Node) -> Plan:
    """A forward plan in which every row reads the parameters of its group.

    ``parameters`` maps each to that of all groups, of shape (groups, *shape); ``number`` is the row's group. Raises
    NotSupportedError where the parameters of a row cannot be read by themselves.
    """
    new: dict[Node, Node] = {p: Take(stack, number) for p, stack in parameters.items()}
    for node in walk(plan.outputs.values()):
        if node in new:
            continue
        inputs = [new[n] for n in node.inputs]
        changed = any(n.type.rows != UNIT and old.type.rows == UNIT for n, old in zip(inputs, node.inputs, strict=True))
        new[node] = row_of(node, inputs, parameters, number) if changed else node.with_inputs(inputs)
    return Plan({k: new[n] for k, n in plan.outputs.items()}, plan.renamed(new))


def row_of(node: Node, inputs: Sequence[Node], parameters: Mapping[Parameter, Parameter], number: Node) -> Node:
    """One operator of a forward plan over what a row's group has learned."""
    if isinstance(node, Take) and node.x.type.rows == UNIT and inputs[0].type.rows != UNIT:
        stack = parameters.get(node.x) if isinstance(node.x, Parameter) else None
        if stack is None:
            raise NotSupportedError("the rows of a computed table cannot be read group by group")
        size = stack.shape[0] * stack.shape[1]  # type: ignore[operator]
        table = Reshape(stack, (size, *stack.shape[2:]))
        return Take(table, entry_number(number, node.x.type.shape, inputs[1]))
    return raised(node, inputs, number)
