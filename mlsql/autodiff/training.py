"""From a loss to the plan of training it: the Iterate operator with its states and their updates."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

from ..planner.node import Node, readers
from ..planner.ops import (
    Add,
    Concat,
    Counter,
    Divide,
    Equal,
    Iterate,
    Minimum,
    Multiply,
    Parameter,
    Reshape,
    Slice,
    Sqrt,
    State,
    Subtract,
    Sum,
    Where,
    broadcast,
    like,
)
from ..planner.plan import Plan
from ..record import record
from ..types import UNIT, Element, RowSet, Type, TypeProblem, concrete
from .gradient import adjoints, zeros
from .sparse import TableGradient, is_gradient_itself, table_gradient, table_reads, table_state, times, update_table
from .updates import Transform, descend

STEP = Counter("step")  # the number of the step, from 1
Spans = Mapping[Parameter, tuple[State, int, int]]


@record
class Training:
    """The plan of a training run.

    The learnable parameters lie in flat vectors, one an element type, and tables in states of their own; ``spans``
    says in which state, from where to where along its first axis. The states of ``iterate`` are these and what the
    update rule carries. ``names`` are for people.
    """

    iterate: Iterate
    spans: Spans
    names: Mapping[Node, str]


class Together:
    """One model for all rows: how the parts of a training plan fit together, and what each is.

    Another layout (see ``per_group.py``) has weights and a loss for every row of ``rows``.
    """

    rows: RowSet = UNIT  # what has weights of its own
    element: Element | None = None  # in which all weights lie, those of tables too; None: each in its own
    step: Node = STEP  # the number of the step, as the update rule counts

    def placed(self, plan: Plan, views: Mapping[Node, Node]) -> Plan:
        """The plan over the weights, its output "loss" one number for every row of ``rows``."""
        return plan.replaced(views)

    def minimized(self, loss: Node) -> Node:
        """The single number of which the gradient is taken."""
        return loss

    def reported(self, loss: Node) -> Node:
        """The single number that the log tells."""
        return loss

    def lazy(self, updates: Mapping[State, Node], spans: Spans) -> Mapping[State, Node]:
        """The updates, but of what a step does not read. (Tables of one model for all rows are kept so as they are.)"""
        return updates

    def advanced(self, updates: Mapping[State, Node]) -> Mapping[State, Node]:
        """The states of the loop and their next values."""
        return updates


def training_plan(
    plan: Plan,
    parameters: Sequence[Parameter],
    transform: Transform,
    rate: Node,
    *,
    solver: str,
    epochs: int,
    steps: int,
    clip_norm: float | None = None,
    skip_nan: bool = False,
    layout: Together | None = None,
) -> Training:
    """Plan ``steps`` steps an epoch of ``transform`` on the output "loss" of ``plan``, one model for all rows unless
    ``layout`` says otherwise.

    Raises TypeProblem if the loss is not a single number or no parameter is left to learn.
    """
    if not parameters:
        raise TypeProblem("the model has no parameter that could be trained", hint="all parameters are FROZEN")
    layout = layout or Together()
    spans = spans_of(plan.outputs["loss"], parameters, layout.rows, layout.element)
    plan = layout.placed(plan, {p: view_of(p, *span) for p, span in spans.items()})
    loss = plan.outputs["loss"]
    flat, tables, named = gradients_of(layout.minimized(loss), spans)
    squares = [*map(square, flat.values()), *(t.square() for t in tables if t.rows)]
    factor = clip_factor(squares, clip_norm) if clip_norm else None
    finite = Equal(Subtract(loss, loss), like(0, loss)) if skip_nan else None
    updates: dict[State, Node] = {}
    for weight, g in flat.items():
        updates |= update_flat(weight, g, transform, rate, layout.step, factor, finite)
    for t in tables:
        updates |= update_table(t, transform, rate, layout.step, factor, finite)
    if not is_gradient_itself(transform, layout.step):
        updates = dict(layout.lazy(updates, spans))
    after = layout.advanced(updates)
    iterate = Iterate(solver, epochs, steps, tuple(after), tuple(after.values()), layout.reported(loss))
    return Training(iterate, spans, {**named, **plan.names})


def update_flat(
    weight: State,
    g: Node,
    transform: Transform,
    rate: Node,
    step: Node,
    factor: Node | None,
    finite: Node | None,
) -> dict[State, Node]:
    """The new values of what the update rule carries for a flat vector, and of the vector."""
    element = weight.element
    slots = {name: State(name_for(name, element), element, weight.shape, weight.rows) for name in transform.slots}
    g = g if factor is None else times(g, factor)
    new_weight, new_slots = descend(transform, rate).update(g, weight, slots, step)
    new = {**{state: new_slots[name] for name, state in slots.items()}, weight: new_weight}
    return new if finite is None else {state: Where(finite, n, state) for state, n in new.items()}


def name_for(name: str, element: Element) -> str:
    """A state's name; weights of another element type than FLOAT have vectors of their own."""
    return name if element.name == "FLOAT" else f"{name}_{element.name.lower()}"


def spans_of(
    loss: Node, parameters: Sequence[Parameter], rows: RowSet = UNIT, element: Element | None = None
) -> dict[Parameter, tuple[State, int, int]]:
    """Where each parameter lies: a table in a state of its own, any other in the flat vector of its element type.

    Where every row of ``rows`` has parameters of its own, all of them lie in flat vectors; with ``element``, in one of
    that type.
    """
    tables = table_reads(loss, parameters) if rows == UNIT and element is None else {}
    sizes: dict[Element, int] = {}
    starts: dict[Parameter, tuple[int, int]] = {}
    for p in parameters:
        size = p.type.entry_size
        if size is None:
            raise TypeProblem(f'the size of "{p.name}" is not known')
        if p not in tables:
            start = sizes.get(element or p.element, 0)
            starts[p] = (start, start + size)
            sizes[element or p.element] = start + size
    vectors = {e: State(name_for("weights", e), e, (n,), rows) for e, n in sizes.items()}
    return {
        p: (vectors[element or p.element], *starts[p]) if p in starts else (table_state(p), 0, concrete(p.shape)[0])
        for p in parameters
    }


def view_of(parameter: Parameter, state: State, start: int, stop: int) -> Node:
    """A parameter as a view of the state in which it lies; a table is all of its state."""
    if state is table_state(parameter):
        return state
    return Reshape(Slice(state, 0, start, stop), parameter.shape)


def gradients_of(loss: Node, spans: Spans) -> tuple[dict[State, Node], list[TableGradient], dict[Node, str]]:
    """The gradient by each flat vector (the parameters' gradients end to end, in the order of their spans), by the rows
    that are read from each table; and names for all of them."""
    views = {p: view_of(p, *span) for p, span in spans.items()}
    users = readers([loss])
    reads: dict[Node, list[Node]] = {view: users[view] for view in views.values() if isinstance(view, State)}
    sources = [n for view in views.values() for n in reads.get(view, [view])]
    found = adjoints(loss, sources)
    if found.keys().isdisjoint(sources):
        raise TypeProblem(
            "no parameter can change what is minimized: its slope is 0 everywhere",
            hint="comparisons, ARGMAX and SIGN have no slope",
        )
    by_parameter = {p: found.get(view) or zeros(view) for p, view in views.items() if view not in reads}
    names = {g: f"d {p.name}" for p, g in by_parameter.items() if g.inputs}
    flat: dict[State, Node] = {}
    for state in dict.fromkeys(spans[p][0] for p in by_parameter):
        flat[state] = end_to_end([(views[p].type, g) for p, g in by_parameter.items() if spans[p][0] is state])
        names[flat[state]] = name_for("gradient", state.element)
    tables = [table_gradient(view, reads[view], found) for view in views.values() if isinstance(view, State)]
    return flat, tables, names


def end_to_end(parts: Sequence[tuple[Type, Node]]) -> Node:
    """Values of parameters, such as their gradients, each broadcast to a type, as one flat vector."""
    return Concat(tuple(Reshape(broadcast(n, t), (math.prod(concrete(t.shape)),)) for t, n in parts), 0)


def square(g: Node) -> Node:
    """The squared length of a flat vector."""
    return Reshape(Sum(Multiply(g, g), False, (0,)), ())


def clip_factor(squares: Sequence[Node], limit: float) -> Node:
    """What scales gradients so that their common norm is at most ``limit``, given their squared lengths (Pascanu,
    Mikolov and Bengio, 2013)."""
    norm = Sqrt(functools.reduce(Add, squares))
    return Minimum(Divide(like(limit, norm), Add(norm, like(1e-6, norm))), like(1, norm))
