"""From a loss to the plan of training it: the Iterate operator with its states and their updates."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..planner.node import Node
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
from ..types import UNIT, Element, RowSet, TypeProblem
from .gradient import adjoints, zeros
from .updates import Transform, descend

STEP = Counter("step")  # the number of the step, from 1


@dataclass(frozen=True)
class Training:
    """The plan of a training run.

    The learnable parameters lie in flat vectors, one an element type, and ``spans`` says where. The states of
    ``iterate`` are these vectors and what the update rule carries. ``names`` are for people.
    """

    iterate: Iterate
    spans: Mapping[Parameter, tuple[State, int, int]]
    names: Mapping[Node, str]


class Together:
    """One model for all rows: how the parts of a training plan fit together, and what each is.

    Another layout (see ``per_group.py``) has weights and a loss for every row of ``rows``.
    """

    rows: RowSet = UNIT  # what has weights of its own
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

    def advanced(self, states: Sequence[Node], updates: Sequence[Node]) -> tuple[list[Node], list[Node]]:
        """The states of the loop and their next values."""
        return list(states), list(updates)


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
    spans = flat_spans(parameters, layout.rows)
    plan = layout.placed(plan, {p: view_of(p, *span) for p, span in spans.items()})
    loss = plan.outputs["loss"]
    weights = list(dict.fromkeys(state for state, _, _ in spans.values()))
    by_weight, named = flat_gradients(layout.minimized(loss), spans, weights)
    if clip_norm:
        by_weight = clip(by_weight, clip_norm)
    update = descend(transform, rate).update
    states: list[Node] = []
    updates: list[Node] = []
    for weight, g in zip(weights, by_weight, strict=True):
        slots: dict[str, Node] = {
            name: State(name_for(name, weight.element), weight.element, weight.shape, weight.rows)
            for name in transform.slots
        }
        new_weight, new_slots = update(g, weight, slots, layout.step)
        states += [*slots.values(), weight]
        updates += [*(new_slots[name] for name in slots), new_weight]
    if skip_nan:
        finite = Equal(Subtract(loss, loss), like(0, loss))
        updates = [Where(finite, new, old) for new, old in zip(updates, states, strict=True)]
    states, updates = layout.advanced(states, updates)
    iterate = Iterate(solver, epochs, steps, tuple(states), tuple(updates), layout.reported(loss))
    return Training(iterate, spans, {**named, **plan.names})


def name_for(name: str, element: Element) -> str:
    """A state's name; weights of another element type than FLOAT have vectors of their own."""
    return name if element.name == "FLOAT" else f"{name}_{element.name.lower()}"


def flat_spans(parameters: Sequence[Parameter], rows: RowSet = UNIT) -> dict[Parameter, tuple[State, int, int]]:
    """Where each parameter lies in the flat vector of its element type; every row of ``rows`` has one of its own."""
    sizes: dict[Element, int] = {}
    starts: dict[Parameter, tuple[int, int]] = {}
    for p in parameters:
        size = p.type.entry_size
        if size is None:
            raise TypeProblem(f'the size of "{p.name}" is not known')
        start = sizes.get(p.element, 0)
        starts[p] = (start, start + size)
        sizes[p.element] = start + size
    vectors = {e: State(name_for("weights", e), e, (n,), rows) for e, n in sizes.items()}
    return {p: (vectors[p.element], *span) for p, span in starts.items()}


def view_of(parameter: Parameter, state: State, start: int, stop: int) -> Node:
    """A parameter as a view of the flat vector."""
    return Reshape(Slice(state, 0, start, stop), parameter.shape)


def flat_gradients(
    loss: Node, spans: Mapping[Parameter, tuple[State, int, int]], weights: Sequence[State]
) -> tuple[list[Node], dict[Node, str]]:
    """The gradient by each flat vector: the parameters' gradients end to end, in the order of their spans; and names
    for all of them."""
    views = {p: view_of(p, *span) for p, span in spans.items()}
    found = adjoints(loss, views.values())
    if found.keys().isdisjoint(views.values()):
        raise TypeProblem(
            "no parameter can change what is minimized: its slope is 0 everywhere",
            hint="comparisons, ARGMAX and SIGN have no slope",
        )
    by_parameter = {p: found.get(view) or zeros(view) for p, view in views.items()}
    flat: list[Node] = []
    for state in weights:
        parts = [
            broadcast(Reshape(by_parameter[p], (stop - start,)), views[p].type.with_(shape=(stop - start,)))
            for p, (s, start, stop) in spans.items()
            if s is state
        ]
        flat.append(Concat(tuple(parts), 0))
    names = {g: f"d {p.name}" for p, g in by_parameter.items() if g.inputs}
    return flat, names | {g: name_for("gradient", g.type.element) for g in flat}


def clip(by_weight: Sequence[Node], limit: float) -> list[Node]:
    """The gradients scaled so that their common norm is at most ``limit`` (Pascanu, Mikolov and Bengio, 2013)."""
    squares: list[Node] = [Reshape(Sum(Multiply(g, g), False, (0,)), ()) for g in by_weight]
    norm = Sqrt(functools.reduce(Add, squares))
    factor = Minimum(Divide(like(limit, norm), Add(norm, like(1e-6, norm))), like(1, norm))
    return [Multiply(g, factor) for g in by_weight]
