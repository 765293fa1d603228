"""UNION ALL: the rows of both sides, each in its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sqlglot import exp

from ...errors import NotSupportedError
from ...types import BOOLEAN, FLOAT, UNIT, RowSet, Type
from ..node import Node
from ..ops import Add, Constant, Greater, Positions, Segment, broadcast, cast, constant
from ..skeleton import Union
from .relations import Relation, Value

if TYPE_CHECKING:
    from .select import QueryBinder


class Unions:
    """Binds UNION ALL."""

    def __init__(self, q: QueryBinder) -> None:
        self.q = q

    def union(self, tree: exp.SetOperation, ctes: Mapping[str, Relation]) -> Relation:
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
                    column = self.q.key_column(step, key.partition(".")[2].strip('"'), left.name, nodes[0].type)
                return Value(left.name, column, lambda: key)
        else:
            text = None
        if nodes[0] is None or nodes[1] is None:
            raise self.q.problem(tree, f'the sides of UNION ALL differ in kind in the column "{left.name}"')
        if nodes[0].type.shape != nodes[1].type.shape:
            raise self.q.problem(tree, f'the sides of UNION ALL differ in shape in the column "{left.name}"')
        return Value(left.name, self.placed(step, nodes[0], nodes[1]), text)

    def placed(self, step: Union, *nodes: Node) -> Node:
        """The rows of the sides, each in its place; a NULL on a side is one in the union."""
        flags = [self.q.host.nulls.flag(n) for n in nodes]
        sides = [self.with_rows(n, p.rows) for n, p in zip(nodes, step.positions, strict=True)]
        out = Add(
            *self.q.helper.number(*(Segment(s, p, step.rows) for s, p in zip(sides, step.positions, strict=True)))
        )
        if any(f is not None for f in flags):
            there = [cast(f or Constant((1.0,), BOOLEAN), FLOAT) for f in flags]
            ones = [self.with_rows(n, p.rows) for n, p in zip(there, step.positions, strict=True)]
            known = Add(*(Segment(n, p, step.rows) for n, p in zip(ones, step.positions, strict=True)))
            self.q.host.nulls.declare(out, Greater(known, constant(0)))
        return out

    @staticmethod
    def with_rows(node: Node, rows: RowSet) -> Node:
        node = node if node.type.element.kind == "float" else cast(node, FLOAT)
        return node if node.type.rows != UNIT else broadcast(node, Type(rows, node.type.element, node.type.shape))
