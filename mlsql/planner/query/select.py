"""A query, its CTEs, and the columns of its selects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from sqlglot import exp

from ...errors import NotSupportedError, Place, ProgrammingError
from ...types import BOOLEAN, RowSet, Type
from ..expressions import ExpressionBinder
from ..functions import AGGREGATES, FUNCTIONS, Fold
from ..layers import standard_layers
from ..node import Node, walk
from ..ops import Column, Parameter
from ..skeleton import Step, Text
from .groups import Groups
from .host import Host, Scope
from .keys import Keys
from .relations import Frame, Relation, Value, unaliased
from .tables import Tables
from .unions import Unions

CLAUSES = {"expressions", "kind", "with_", "from_", "joins", "where", "group", "distinct"}


class QueryBinder:
    """Binds the queries of one model; ``steps`` collects its skeleton in the order in which it can run."""

    def __init__(self, host: Host, place: Place) -> None:
        self.host, self.place_of_all = host, place
        self.steps: list[Step] = []
        self.passed_on: list[ProgrammingError] = []  # why something was left to DuckDB
        self.scalars: set[Node] = set()  # values of whole relations, whatever rows they are put beside
        self.known: Mapping[str, Relation] = {}  # the CTEs that a query in brackets may read
        self.counts: dict[str, int] = {}
        self.helper = ExpressionBinder(place, {})
        self.keys, self.tables, self.groups, self.unions = Keys(self), Tables(self), Groups(self), Unions(self)

    def query(self, tree: exp.Expression, ctes: Mapping[str, Relation]) -> tuple[Relation, Frame | None]:
        """The relation that a query gives, and the frame of its outermost select (None for a union)."""
        if isinstance(tree, (exp.Subquery, exp.Paren)):
            return self.query(tree.this, ctes)
        ctes = self.with_ctes(tree, ctes)
        if isinstance(tree, exp.SetOperation):
            return self.unions.union(tree, ctes), None
        if not isinstance(tree, exp.Select):
            raise self.problem(tree, "expected a SELECT")
        return self.select(tree, ctes)

    def with_ctes(self, tree: exp.Expression, ctes: Mapping[str, Relation]) -> dict[str, Relation]:
        """The relations of WITH beside those that were known before; each may read the ones before it."""
        known = dict(ctes)
        clause = tree.args.get("with_")
        if clause is None:
            return known
        if clause.args.get("recursive"):
            raise self.problem(clause, "WITH RECURSIVE cannot stand in a model")
        for cte in clause.expressions:
            relation, _ = self.query(cte.this, known)
            names = [c.name for c in cte.args["alias"].args.get("columns") or ()]
            known[cte.alias.lower()] = renamed(relation, names)
        return known

    def select(self, tree: exp.Select, ctes: Mapping[str, Relation]) -> tuple[Relation, Frame]:
        """FROM, WHERE, GROUP BY and the select's columns."""
        self.known = ctes
        for part, clause in tree.args.items():
            if clause and part not in CLAUSES:
                self.refuse(part, clause)
        distinct = tree.args.get("distinct")
        if distinct is not None and distinct.args.get("on"):
            self.refuse("DISTINCT ON", distinct)
        for item in tree.expressions:
            if window := item.find(exp.Window):
                self.refuse("a window function", window)
        frame = self.tables.frame(tree, ctes)
        scope = self.scope(frame)
        group = tree.args.get("group")
        if group is not None:
            return self.groups.grouped(tree, frame, scope, self.groups.group_keys(group, tree)), frame
        if any(map(self.is_aggregate, tree.expressions)):
            return self.groups.folded(tree, frame, scope), frame
        values = self.columns(tree, frame, scope, self.binder(tree, scope))
        relation = Relation(frame.rows, tuple(values), frame.origins(), frame.table)
        if tree.args.get("distinct"):
            return self.groups.distinct(tree, relation), frame
        return relation, frame

    def refuse(self, part: str, clause: object) -> None:
        word = {"order": "ORDER BY", "group": "GROUP BY"}.get(part) or (
            part if " " in part else part.rstrip("_").upper()
        )
        first = clause[0] if isinstance(clause, list) else clause
        place = self.place(first) if isinstance(first, exp.Expression) else self.place_of_all
        hint = "put it in the query that TRAIN and PREDICT are given"
        raise NotSupportedError(f"{word} cannot stand in a model", place=place, hint=hint)

    def columns(self, tree: exp.Select, frame: Frame, scope: Scope, binder: ExpressionBinder) -> list[Value]:
        """The select's columns, each in the scope of the ones before it."""
        found: list[Value] = []
        for item in self.expanded(tree, frame):
            value = self.column(item, scope, binder, len(found))
            if value.name.lower() in (v.name.lower() for v in found):
                raise self.problem(item, f'the column "{value.name}" is there twice')
            found.append(value)
            scope.values[value.name.lower()] = value
            if value.node is not None:
                binder.scope[value.name.lower()] = value.node
        return found

    def expanded(self, tree: exp.Select, frame: Frame) -> Iterable[exp.Expression]:
        """The items of the select list, with ``*`` and ``t.*`` written out."""
        for item in tree.expressions:
            star = item.this if isinstance(item, exp.Column) and isinstance(item.this, exp.Star) else item
            if not isinstance(star, exp.Star):
                yield item
                continue
            left_out = {c.name.lower() for c in star.args.get("except_") or ()}
            wanted = item.table.lower() if isinstance(item, exp.Column) else ""
            seen: set[str] = set()
            for source in frame.sources:
                for value in source.relation.values:
                    name = value.name.lower()
                    if name in left_out or (wanted and wanted != source.alias.lower()) or name in seen & frame.shared:
                        continue
                    seen.add(name)
                    yield exp.column(value.name, table=source.alias, quoted=True)

    def column(self, item: exp.Expression, scope: Scope, binder: ExpressionBinder, position: int) -> Value:
        """One column of a select: a tensor, a key, or both."""
        tree = unaliased(item)
        name = item.alias_or_name or (str(tree.this).lower() if isinstance(tree, exp.Anonymous) else "")
        name = name or f"column_{position + 1}"
        same = scope.values.get(tree.sql()) if not isinstance(tree, exp.Column) else None
        if isinstance(tree, exp.Column):
            same = scope.values.get(".".join(p.name for p in tree.parts).lower())
        if same is not None and (same.node is not None or same.text is not None):
            return replace(same, name=name)
        self.host.alias = name
        try:
            node = binder.bind(tree)
        except ProgrammingError as problem:
            if not self.is_of_keys(tree, scope):
                raise
            self.passed_on.append(problem)
            return Value(name, None, self.text_of(tree, scope))  # SQL that the model language does not have
        self.host.name_node(node, name)
        learns = any(isinstance(n, Parameter) for n in walk([node]))
        return Value(name, node, None if learns or binder.fold is not None else self.text_of(tree, scope))

    def is_of_keys(self, tree: exp.Expression, scope: Scope) -> bool:
        """Whether an expression computes with keys alone and calls nothing of the model language."""
        found = [scope.values.get(".".join(p.name for p in c.parts).lower()) for c in tree.find_all(exp.Column)]
        own = {*standard_layers(), *(n for n, f in FUNCTIONS.items() if not f.is_sql)}
        ours = any(str(c.this).upper() in own for c in tree.find_all(exp.Anonymous))
        return bool(found) and not ours and all(v is not None and v.text is not None for v in found)

    def text_of(self, tree: exp.Expression, scope: Scope) -> Text:
        """The column text of an expression over keys, made when it is asked for."""
        values = dict(scope.values)
        return lambda: f"({self.keys.sql(tree, values, 'a key', {})})"

    def scope(self, frame: Frame) -> Scope:
        """The names that a frame gives."""
        values, unclear = frame.by_name()
        nodes = {n: v.node for n, v in values.items() if v.node is not None and n not in unclear}
        hidden = {n: f'"{n}" is in more than one relation: write alias.{n}' for n in unclear}
        for name, value in values.items():
            if value.node is None and name not in unclear:
                hidden[name] = f'"{name}" is {value.type_text or "no number"}, and a model computes with numbers'
        return Scope(nodes, {n: v for n, v in values.items() if n not in unclear}, hidden)

    def binder(
        self, tree: exp.Expression, scope: Scope, *, fold: Fold | None = None, inner: ExpressionBinder | None = None
    ) -> ExpressionBinder:
        """A binder of the expressions of a select."""
        return self.host.expressions(
            self.place(tree), dict(scope.nodes), hidden=scope.hidden, origins=scope.values, fold=fold, inner=inner
        )

    def key_column(self, step: Step, export: str, name: str, like: Type) -> Column:
        """A leaf of plans that reads an export of a step's table; where the key is NULL, so is the leaf."""
        column = Column(f"{step.rows.name}.{name}", step.rows, like.element, like.shape)
        known = Column(f"{column.name} known", step.rows, BOOLEAN)
        step.leaves[column] = step.flags[known] = export
        if not self.host.knows(known.name):
            self.host.nulls.declare(column, known)
        self.host.name_node(column, name)
        return column

    def is_aggregate(self, tree: exp.Expression) -> bool:
        """Whether an expression folds rows."""
        calls = tree.walk(prune=lambda n: isinstance(n, exp.Subquery))
        return any(isinstance(c, exp.Anonymous) and str(c.this).upper() in AGGREGATES for c in calls)

    def fresh(self, name: str) -> RowSet:
        """A new row set."""
        count = self.counts[name] = self.counts.get(name, 0) + 1
        return self.host.row_set(f"{name}_{count}")

    def place(self, tree: exp.Expression) -> Place:
        return self.helper.place(tree)

    def problem(self, tree: exp.Expression, message: str, hint: str | None = None) -> ProgrammingError:
        return ProgrammingError(message, place=self.place(tree), hint=hint)


def renamed(relation: Relation, names: list[str]) -> Relation:
    """A relation whose first columns have other names: ``WITH t (a, b) AS ...``."""
    values = [replace(v, name=n) for v, n in zip(relation.values, names, strict=False)]
    return replace(relation, values=(*values, *relation.values[len(values) :]))
