"""GROUP BY, DISTINCT and aggregates without groups. GROUP BY is a Segment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot import exp

from ...errors import Error, NotSupportedError
from ...types import UNIT
from ..functions import Fold
from ..node import Node
from ..ops import Positions
from ..skeleton import Group, Step
from .host import Scope
from .relations import Frame, Relation, Value, unaliased

if TYPE_CHECKING:
    from .select import QueryBinder


class Groups:
    """Binds selects whose rows are groups, or one row for all."""

    def __init__(self, q: QueryBinder) -> None:
        self.q = q

    def group_keys(self, group: exp.Group, tree: exp.Select) -> list[exp.Expression]:
        """The keys of GROUP BY: expressions, positions in the select list, or the names of its columns; ALL."""
        if not group.expressions and not group.args.get("all"):
            raise NotSupportedError("GROUPING SETS, CUBE and ROLLUP cannot stand in a model", place=self.q.place(tree))
        if group.args.get("all"):
            return [unaliased(item) for item in tree.expressions if not self.q.is_aggregate(item)]
        by_alias = {item.alias.lower(): unaliased(item) for item in tree.expressions if item.alias}
        keys: list[exp.Expression] = []
        for key in group.expressions:
            if isinstance(key, exp.Literal) and not key.is_string:
                number = int(key.this)
                if not 1 <= number <= len(tree.expressions):
                    raise self.q.problem(key, f"there is no column {number} to group by")
                keys.append(tree.expressions[number - 1].unalias())
            elif isinstance(key, exp.Column) and not key.table and key.name.lower() in by_alias:
                keys.append(by_alias[key.name.lower()])
            else:
                keys.append(key)
        return keys

    def grouped(self, tree: exp.Select, frame: Frame, scope: Scope, keys: list[exp.Expression]) -> Relation:
        """A row a group. Outside of aggregates only the keys can be read."""
        step, by_key = self.group_step(tree, frame, scope, keys)
        assert step.positions is not None
        key_scope: dict[str, Node] = {}
        values: dict[str, Value] = {}
        for key, value in zip(keys, by_key, strict=True):
            if isinstance(key, exp.Column):
                for name in {key.name.lower(), ".".join(p.name for p in key.parts).lower()}:
                    values[name] = value
                    if value.node is not None:
                        key_scope[name] = value.node
        for expression, value in zip(keys, by_key, strict=True):
            values[expression.sql()] = value  # for items that repeat the key's text
        grouped = Scope(
            key_scope, values,
            {n: f'"{n}" is neither in GROUP BY nor inside an aggregate' for n in scope.values if n not in key_scope},
        )  # fmt: skip
        inner = self.q.binder(tree, scope)
        outer = self.q.binder(tree, grouped, fold=Fold(frame.rows, step.positions), inner=inner)
        return Relation(step.rows, tuple(self.q.columns(tree, frame, grouped, outer)))

    def group_step(
        self, tree: exp.Select, frame: Frame, scope: Scope, keys: list[exp.Expression]
    ) -> tuple[Group, list[Value]]:
        """The step that finds the groups, and the keys as columns of its rows."""
        if frame.rows == UNIT:
            raise self.q.problem(tree, "there are no rows to group")
        rows = self.q.fresh("grouped")
        positions = Positions(f"{frame.table.name} in {rows.name}", frame.rows, rows)
        step = Group(rows, self.q.place(tree.args.get("group") or tree), over=frame.table, positions=positions)
        values = []
        for key in keys:
            text = self.q.keys.sql(key, scope.values, "GROUP BY", {})
            values.append(self.exported(step, text, self.key_name(key), self.tensor_of(key, scope, frame, tree)))
        self.q.steps.append(step)
        return step, values

    def exported(self, step: Step, text: str, name: str, like: Node | None) -> Value:
        """A column of a step's table as a value; a leaf of plans too, where it is a number."""
        over = step.export(text)
        column = None
        if like is not None:
            column = self.q.key_column(step, step.exports[text], name, like.type)
        return Value(name, column, lambda: over)

    @staticmethod
    def key_name(key: exp.Expression) -> str:
        return key.name if isinstance(key, exp.Column) else str(key.sql(dialect="duckdb"))

    def tensor_of(self, key: exp.Expression, scope: Scope, frame: Frame, tree: exp.Expression) -> Node | None:
        """The key as a tensor over the rows of the frame; None for what is no number."""
        try:
            node = self.q.binder(tree, scope).bind(key)
        except Error:
            return None
        return node if node.type.element.kind in ("integer", "float", "boolean") else None

    def folded(self, tree: exp.Select, frame: Frame, scope: Scope) -> Relation:
        """Aggregates without GROUP BY: one row, which goes with every row that it is put beside."""
        inner = self.q.binder(tree, scope)
        message = '"{}" stands outside of an aggregate, and there is no GROUP BY'
        none = Scope({}, {}, {n: message.format(n) for n in scope.values})
        outer = self.q.binder(tree, none, fold=Fold(frame.rows), inner=inner)
        values = self.q.columns(tree, frame, none, outer)
        self.q.scalars |= {v.node for v in values if v.node is not None}
        return Relation(UNIT, tuple(values))

    def distinct(self, tree: exp.Select, relation: Relation) -> Relation:
        """The distinct rows of keys: groups without aggregates."""
        rows = self.q.fresh("distinct")
        positions = Positions(f"{relation.key_rows.name} in {rows.name}", relation.rows, rows)
        step = Group(rows, self.q.place(tree), over=relation.key_rows, positions=positions)
        values = []
        for value in relation.values:
            if value.text is None:
                raise self.q.keys.learned(value.name, tree, "DISTINCT")
            values.append(self.exported(step, value.text(), value.name, value.node))
        self.q.steps.append(step)
        return Relation(rows, tuple(values))
