"""A forward plan made for parameters that are known and inputs that are fixed: what they decide is decided once.

A fixed input is a value of the unit row set; what only depends on such values and on parameters is computed here. A
product over parts laid end to end is taken apart where some parts are constant, or meet weights that are all zero:
these are never read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from ..planner.node import Node
from ..planner.ops import Add, Column, Concat, Constant, Contract, Count, Multiply, Parameter, Take, broadcast, like
from ..planner.ops.contract import ROW
from ..planner.plan import Plan
from ..types import UNIT, Type, concrete
from .device import Array
from .run import evaluate


def specialized(
    plan: Plan, parameters: Mapping[Node, Array], fixed: Mapping[Column, Array], expand: Callable[[Plan], Plan]
) -> tuple[Plan, dict[Node, Array]]:
    """The plan with some columns fixed to one value each, and the values of the parameters that it then has.

    ``expand`` gives a plan of operators that have kernels.
    """
    work = _Specializer(parameters)
    for column, value in fixed.items():
        work.new[column] = work.known(f"fixed {column.name}", column.type, value)
    for node in plan.nodes():
        if node not in work.new:
            work.new[node] = work.change(node, [work.new[n] for n in node.inputs])
    outputs = {name: work.new[n] for name, n in plan.outputs.items()}
    return work.folded(Plan(outputs, plan.renamed(work.new)), expand)


class _Specializer:
    def __init__(self, parameters: Mapping[Node, Array]) -> None:
        self.values: dict[Node, Array] = dict(parameters)
        self.new: dict[Node, Node] = {}

    def known(self, name: str, type: Type, value: Array) -> Parameter:
        """A parameter of a name that no other has, with its value."""
        while any(isinstance(n, Parameter) and n.name == name for n in self.values):
            name += "'"
        made = Parameter(name, type.element, type.shape)
        self.values[made] = np.asarray(value, type.element.storage).reshape(concrete(type.shape))
        return made

    def change(self, node: Node, inputs: Sequence[Node]) -> Node:
        """A node over its new inputs, which may have lost their rows."""
        if isinstance(node, Contract):
            return self.contraction(node, *inputs)
        if isinstance(node, Multiply) and any(map(self.is_zero, inputs)):
            return broadcast(like(0, node), node.type)
        if isinstance(node, Take) and self.is_zero(inputs[0]):
            return broadcast(like(0, node), node.type)
        return node if list(node.inputs) == list(inputs) else node.with_inputs(inputs)

    def is_zero(self, node: Node) -> bool:
        """Whether every number of a value is known to be 0."""
        if isinstance(node, Constant):
            return not any(node.values)
        return node in self.values and node.type.element.kind == "float" and not np.any(self.values[node])

    def contraction(self, node: Contract, x: Node, y: Node) -> Node:
        """A product, without the parts of an operand that lies end to end where they are constant or meet zeros."""
        if isinstance(y, Concat) and x in self.values:
            a, b, out = node.letters()
            return self.contraction(Contract(f"{b},{a}->{out}", node.y, node.x), y, x)
        if isinstance(x, Concat) and y in self.values:
            parts = self.parted(node, x, y)
            if parts is not None:
                return parts
        return _contract(node, x, y)

    def parted(self, node: Contract, x: Concat, y: Node) -> Node | None:
        """The sum of the products of the parts that vary, together, and of those that do not."""
        a, b, _ = node.letters()
        letter = a.removeprefix(ROW)[x.axis]
        if letter not in b or letter in node.letters()[2]:
            return None
        axis, weights = b.index(letter), self.values[y]
        spans = [np.take(weights, range(start, stop), axis) for start, stop in x.offsets()]
        live = [(p, w) for p, w in zip(x.parts, spans, strict=True) if np.any(w)]
        varying = [(p, w) for p, w in live if p.type.rows != UNIT]
        constant = [(p, w) for p, w in live if p.type.rows == UNIT]
        if len(varying) == len(x.parts):
            return None
        terms = [self.product(node, y, x.axis, axis, group) for group in (varying, constant) if group]
        if not terms:
            return broadcast(like(0, node), node.type)
        return terms[0] if len(terms) == 1 else Add(*terms)

    def product(
        self, node: Contract, y: Node, axis: int, weight_axis: int, parts: Iterable[tuple[Node, Array]]
    ) -> Node:
        """The contraction of some of the parts with their weights."""
        nodes, weights = zip(*parts, strict=True)
        name = y.name if isinstance(y, Parameter) else "weights"
        value = np.concatenate(weights, weight_axis)
        return _contract(
            node, Concat(nodes, axis), self.known(f"{name} in part", y.type.with_(shape=value.shape), value)
        )

    def folded(self, plan: Plan, expand: Callable[[Plan], Plan]) -> tuple[Plan, dict[Node, Array]]:
        """The plan with every value that no row decides computed, and the parameters that are left."""
        single: set[Node] = set()
        for n in plan.nodes():
            if n.type.rows == UNIT and not isinstance(n, (Count, Column)) and single.issuperset(n.inputs):
                single.add(n)
        wanted = {str(i): n for i, n in enumerate(n for n in plan.nodes() if n in single and n.inputs)}
        if wanted:
            expanded = expand(Plan(wanted))
            arrays: dict[Node, Array] = {n: self.values[n] for n in expanded.nodes() if isinstance(n, Parameter)}
            values = evaluate(expanded, arrays, {})
            plan = plan.replaced({n: self.known(f"folded {i}", n.type, values[i]) for i, n in wanted.items()})
        return plan, {n: self.values[n] for n in plan.nodes() if isinstance(n, Parameter)}


def _contract(node: Contract, x: Node, y: Node) -> Node:
    """The contraction over other operands, with the letter of rows where they have rows."""
    a, b, out = (letters.removeprefix(ROW) for letters in node.letters())
    r, s = (ROW if n.type.rows != UNIT else "" for n in (x, y))
    return Contract(f"{r}{a},{s}{b}->{r or s}{out}", x, y)
