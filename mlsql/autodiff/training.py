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
from ..types import Element, TypeProblem
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
) -> Training:
    """Plan ``steps`` steps an epoch of ``transform`` on the output "loss" of ``plan``.

    Raises TypeProblem if the loss is not a single number or no parameter is left to learn.
    """
    if not parameters:
        raise TypeProblem("the model has no parameter that could be trained", hint="all parameters are FROZEN")
    spans = flat_spans(parameters)
    plan = plan.replaced({p: view_of(p, *span) for p, span in spans.items()})
    loss = plan.outputs["loss"]
    weights = list(dict.fromkeys(state for state, _, _ in spans.values()))
    by_weight, named = flat_gradients(loss, spans, weights)
    if clip_norm:
        by_weight = clip(by_weight, clip_norm)
    update = descend(transform, rate).update
    states: list[Node] = []
    updates: list[Node] = []
    for weight, g in zip(weights, by_weight, strict=True):
        slots: dict[str, Node] = {
            name: State(name_for(name, weight.element), weight.element, weight.shape) for name in transform.slots
        }
        new_weight, new_slots = update(g, weight, slots, STEP)
        states += [*slots.values(), weight]
        updates += [*(new_slots[name] for name in slots), new_weight]
    if skip_nan:
        finite = Equal(Subtract(loss, loss), like(0, loss))
        updates = [Where(finite, new, old) for new, old in zip(updates, states, strict=True)]
    iterate = Iterate(solver, epochs, steps, tuple(states), tuple(updates), loss)
    return Training(iterate, spans, {**named, **plan.names})


def name_for(name: str, element: Element) -> str:
    """A state's name; weights of another element type than FLOAT have vectors of their own."""
    return name if element.name == "FLOAT" else f"{name}_{element.name.lower()}"


def flat_spans(parameters: Sequence[Parameter]) -> dict[Parameter, tuple[State, int, int]]:
    """Where each parameter lies in the flat vector of its element type."""
    sizes: dict[Element, int] = {}
    starts: dict[Parameter, tuple[int, int]] = {}
    for p in parameters:
        size = p.type.entry_size
        if size is None:
            raise TypeProblem(f'the size of "{p.name}" is not known')
        start = sizes.get(p.element, 0)
        starts[p] = (start, start + size)
        sizes[p.element] = start + size
    vectors = {e: State(name_for("weights", e), e, (n,)) for e, n in sizes.items()}
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
            broadcast(Reshape(by_parameter[p], (stop - start,)), p.type.with_(shape=(stop - start,)))
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
