"""Reverse-mode differentiation of a plan by rewriting it.

Walks the nodes from the loss to the leaves once, asking each operator for its vector-Jacobian product, which is
again a plan. The forward pass's intermediates that a product reads are the same interned nodes. See Griewank and
Walther, "Evaluating Derivatives", 2008, chapter 3.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..planner.node import Node, depends_on, walk
from ..planner.ops import Add, Constant, broadcast, constant
from ..types import UNIT, TypeProblem


def adjoints(loss: Node, sources: Iterable[Node], seed: Node | None = None) -> dict[Node, Node]:
    """The derivative of ``loss`` by every node between it and ``sources``, as plans.

    Nodes that no source reaches, and sources that do not reach the loss, have no entry. With a ``seed`` of its type
    ``loss`` may be any value: it is the derivative of the sum of their products. Raises TypeProblem for what is neither
    a single number nor has a seed.
    """
    if seed is None and (loss.type.rows != UNIT or loss.type.shape):
        raise TypeProblem(f"only a single number can be minimized, not {loss.type}")
    reached = depends_on([loss], sources)
    found: dict[Node, Node] = {}
    if loss in reached:
        found[loss] = constant(1.0, loss.type.element) if seed is None else seed
    for node in reversed(list(walk([loss]))):
        if node not in found:
            continue
        for source, g in zip(node.inputs, node.vjp(found[node]), strict=True):
            if g is not None and source in reached:
                found[source] = Add(found[source], g) if source in found else g
    return found


def gradients(loss: Node, sources: Iterable[Node]) -> list[Node]:
    """The derivative of ``loss`` by each source, zeros where it does not depend on one."""
    wanted = list(sources)
    found = adjoints(loss, wanted)
    return [found.get(s) or zeros(s) for s in wanted]


def zeros(source: Node) -> Node:
    """The derivative by what has no influence."""
    return broadcast(Constant((0.0,), source.type.element), source.type)
