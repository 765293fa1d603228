"""UNION ALL: the rows of both sides, each in its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sqlglot import exp

from ...errors import NotSupportedError
from ...types import FLOAT, UNIT, RowSet, Type
from ..node import Node
from ..ops import Add, Column, Positions, Segment, broadcast, cast
from ..skeleton import Union
from .relations import Relation, Value

if TYPE_CHECKING:
    from .select import QueryBinder


class Unions:
    """Binds UNION ALL."""

    def __init__(self, q: QueryBinder) -> None:
        self.q = q

    def union(self, tree: exp.Union, ctes: Mapping[str, Relation]) -> Relation:
        """The rows of both sides, one after the other. A tensor of the union is a sum of both sides' rows, each put in
        its place: no row has two."""
        if type(tree) is not exp.Union or tree.args.get("distinct") or tree.args.get("order") or tree.args.get("limit"):
            raise NotSupportedError("only UNION ALL can stand in a model", place=self.q.place(tree))
        sides = [self.q.query(side, ctes)[0] for side in (tree.this, tree.expression)]
        if len(sides[0].values) != len(sides[1].values):
            counts = " and ".join(str(len(s.values)) for s in sides)
            raise self.q.problem(tree, f"the sides of UNION ALL have {counts} columns")
        if UNIT in (sides[0].rows, sides[1].rows):
            raise NotSupportedError("UNION ALL needs sides with rows", place=self.q.place(tree))
        rows = self.q.fresh("union")
        positions = tuple(Positions(f"{rows.name}.{i}", side.rows, rows) for i, side in enumerate(sides))
        step = Union(rows, self.q.place(tree), parts=(sides[0].key_rows, sides[1].key_rows), positions=positions)
        pairs = zip(sides[0].values, sides[1].values, strict=True)
        values = tuple(self.united(step, left, right, tree) for left, right in pairs)
        self.q.steps.append(step)
        return Relation(rows, values)

    def united(self, step: Union, left: Value, right: Value, tree: exp.Expression) -> Value:
        """One column of a union: a key where both sides are keys, a tensor where both are tensors."""
        nodes = (left.node, right.node)
        texts = (left.text, right.text)
        if texts[0] is not None and texts[1] is not None:
            first, second = texts[0], texts[1]
            text = lambda: step.export_pair((first(), second()))  # noqa: E731
            whole = all(n is not None and n.type.element.kind != "float" and not n.type.shape for n in nodes)
            if whole or None in nodes:
                key = step.export_pair((first(), second()))
                column = None
                if whole and nodes[0] is not None:
                    column = Column(f"{step.rows.name}.{left.name}", step.rows, nodes[0].type.element)
                    step.leaves[column] = key.partition(".")[2].strip('"')
                return Value(left.name, column, lambda: key)
        else:
            text = None
        if nodes[0] is None or nodes[1] is None:
            raise self.q.problem(tree, f'the sides of UNION ALL differ in kind in the column "{left.name}"')
        if nodes[0].type.shape != nodes[1].type.shape:
            raise self.q.problem(tree, f'the sides of UNION ALL differ in shape in the column "{left.name}"')
        placed = [
            Segment(self.with_rows(n, p.rows), p, step.rows) for n, p in zip(nodes, step.positions, strict=True) if n
        ]
        return Value(left.name, Add(*self.q.helper.number(*placed)), text)

    @staticmethod
    def with_rows(node: Node, rows: RowSet) -> Node:
        node = node if node.type.element.kind == "float" else cast(node, FLOAT)
        return node if node.type.rows != UNIT else broadcast(node, Type(rows, node.type.element, node.type.shape))
