"""The select of a model over relations, bound: CTEs, joins, filters, groups and unions become positions and plans.

What no parameter reaches is a *key* and stays SQL (``skeleton.py``); what learns becomes a plan over the row sets that
the keys make. A join is a Take, GROUP BY a Segment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from sqlglot import exp

from ..errors import Error, NotSupportedError, Place, ProgrammingError, listed, suggest
from ..parser.tokens import dialect
from ..types import BOOLEAN, FLOAT, UNIT, RowSet, Type
from .expressions import ExpressionBinder
from .functions import AGGREGATES, FUNCTIONS, Fold
from .layers import standard_layers
from .node import Node, walk
from .nulls import Nulls
from .ops import Add, Column, Parameter, Positions, Segment, broadcast, cast
from .relations import Frame, Relation, Source, Value
from .skeleton import Group, Join, Joined, Step, Text, Union, at, table_name

CLAUSES = {"expressions", "kind", "with_", "from_", "joins", "where", "group", "distinct"}
SIDES = {"", "LEFT", "RIGHT", "FULL"}


class Host(Protocol):
    """What a query asks of the model that it stands in."""

    alias: str
    nulls: Nulls

    def relation(self, name: str) -> Relation | None:
        """One of the model's own relations."""

    def relation_names(self) -> list[str]:
        """The names of the model's own relations."""

    def expressions(
        self,
        place: Place,
        scope: dict[str, Node],
        *,
        hidden: Mapping[str, str] | None = None,
        origins: Mapping[str, Value] | None = None,
        fold: Fold | None = None,
        inner: ExpressionBinder | None = None,
    ) -> ExpressionBinder:
        """A binder of expressions in a scope; the model's own parameters are in it too."""

    def name_node(self, node: Node, name: str) -> None:
        """Remember what a reader of the statement calls a node."""

    def row_set(self, name: str) -> RowSet:
        """The row set of a name, with its number of rows once data has told it."""

    def knows(self, fact: str) -> bool:
        """Whether data has told that something always holds."""


@dataclass(frozen=True)
class Scope:
    """The names that stand for something in one select: tensors, keys, and what cannot be read as a tensor and why."""

    nodes: dict[str, Node]
    values: dict[str, Value]
    hidden: dict[str, str]


class QueryBinder:
    """Binds the queries of one model; ``steps`` collects its skeleton in the order in which it can run."""

    def __init__(self, host: Host, place: Place) -> None:
        self.host, self.place_of_all = host, place
        self.steps: list[Step] = []
        self.scalars: set[Node] = set()  # values of whole relations, whatever rows they are put beside
        self.known: Mapping[str, Relation] = {}  # the CTEs that a query in brackets may read
        self.counts: dict[str, int] = {}
        self.helper = ExpressionBinder(place, {})

    # -- queries -------------------------------------------------------------------------------------------------------

    def query(self, tree: exp.Expression, ctes: Mapping[str, Relation]) -> tuple[Relation, Frame | None]:
        """The relation that a query gives, and the frame of its outermost select (None for a union)."""
        if isinstance(tree, (exp.Subquery, exp.Paren)):
            return self.query(tree.this, ctes)
        ctes = self.with_ctes(tree, ctes)
        if isinstance(tree, exp.Union):
            return self.union(tree, ctes), None
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
        frame = self.frame(tree, ctes)
        scope = self.scope(frame)
        group = tree.args.get("group")
        if group is not None:
            return self.grouped(tree, frame, scope, self.group_keys(group, tree)), frame
        if any(map(self.is_aggregate, tree.expressions)):
            return self.folded(tree, frame, scope), frame
        values = self.columns(tree, frame, scope, self.binder(tree, scope))
        relation = Relation(frame.rows, tuple(values), frame.origins(), frame.table)
        if tree.args.get("distinct"):
            return self.distinct(tree, relation), frame
        return relation, frame

    def refuse(self, part: str, clause: object) -> None:
        word = part.rstrip("_").upper()
        first = clause[0] if isinstance(clause, list) else clause
        place = self.place(first) if isinstance(first, exp.Expression) else self.place_of_all
        hint = "put it in the query that TRAIN and PREDICT are given"
        raise NotSupportedError(f"{word} cannot stand in a model", place=place, hint=hint)

    # -- FROM ----------------------------------------------------------------------------------------------------------

    def frame(self, tree: exp.Select, ctes: Mapping[str, Relation]) -> Frame:
        """FROM, its joins and WHERE as one row set."""
        clause = tree.args.get("from_")
        if clause is None:
            raise self.problem(tree, "a select of a model over relations needs FROM")
        first = self.source(clause.this, ctes)
        joins = tree.args.get("joins") or []
        sources = [first, *(self.source(join.this, ctes) for join in joins)]
        self.check_aliases(sources, [clause.this, *(join.this for join in joins)])
        where = tree.args.get("where")
        with_rows = [s for s in sources if s.relation.rows != UNIT]
        if len(with_rows) <= 1 and where is None and not any(j.args.get("on") or j.args.get("using") for j in joins):
            rows = with_rows[0].relation.rows if with_rows else UNIT
            return Frame(rows, tuple(sources))
        return self.joined(tree, sources, joins, where, ctes)

    def source(self, tree: exp.Expression, ctes: Mapping[str, Relation]) -> Source:
        """One item of FROM: a relation of the model, a CTE, or a query in brackets."""
        if isinstance(tree, exp.Subquery):
            relation, _ = self.query(tree.this, ctes)
            return Source(tree.alias or f"q{len(self.counts)}", relation)
        if not isinstance(tree, exp.Table) or not isinstance(tree.this, exp.Identifier):
            raise self.problem(tree, "a model reads its own relations, CTEs and queries in brackets")
        name = tree.name
        relation_or_none = ctes.get(name.lower()) or self.host.relation(name)
        if relation_or_none is None:
            known = [*ctes, *self.host.relation_names()]
            hint = suggest(name, known) or f"relations are {listed(known)}"
            raise self.problem(tree, f'the model has no relation "{name}"', hint)
        return Source(tree.alias_or_name, relation_or_none)

    def check_aliases(self, sources: list[Source], trees: list[exp.Expression]) -> None:
        seen: set[str] = set()
        for source, tree in zip(sources, trees, strict=True):
            if source.alias.lower() in seen:
                raise self.problem(
                    tree, f'"{source.alias}" stands twice in FROM', "give one of them another name: AS ..."
                )
            seen.add(source.alias.lower())

    def joined(
        self,
        tree: exp.Select,
        sources: list[Source],
        joins: list[exp.Join],
        where: exp.Where | None,
        ctes: Mapping[str, Relation],
    ) -> Frame:
        """The join of the sources: a step of the skeleton, whose rows have a position on every side."""
        table = self.fresh("joined" if joins else "filtered")
        first = sources[0].relation.rows
        rows = first if self.host.knows(f"{table.name} is its first side") else table
        optional = self.optional_sides(joins)
        sides = [self.side(table, rows, i, s, i in optional) for i, s in enumerate(sources)]
        step = Join(table, self.place(tree.args["from_"]), sides=tuple(s for s in sides if s))
        aliased = [replace(s, side=side) for s, side in zip(sources, sides, strict=True)]
        shared: set[str] = set()
        words = [self.from_item(aliased[0])]
        for i, join in enumerate(joins, 1):
            before = Frame(rows, tuple(aliased[: i + 1]), step, frozenset(shared))
            condition = self.join_condition(join, before, shared, ctes)
            if aliased[i].side is not None:
                kind = (join.side or "INNER").upper() if condition else "CROSS"
                words.append(f"{kind} JOIN {self.from_item(aliased[i])}" + (f" ON {condition}" if condition else ""))
        frame = Frame(rows, tuple(aliased), step, frozenset(shared))
        if where is not None:
            words.append(f"WHERE {self.key_sql(where.this, self.sides_scope(frame), 'WHERE', ctes)}")
        object.__setattr__(step, "sql", " ".join(w for w in words if w))
        for side in step.sides:
            if side.matched is not None:
                self.host.nulls.declare(side.positions, side.matched)
        self.steps.append(step)
        return frame

    def optional_sides(self, joins: list[exp.Join]) -> set[int]:
        """The sources that a row of the join may have no match in."""
        optional: set[int] = set()
        for i, join in enumerate(joins, 1):
            side = (join.side or "").upper()
            if (
                side not in SIDES
                or join.args.get("method")
                or (join.kind or "").upper() not in ("", "INNER", "CROSS", "OUTER")
            ):
                raise NotSupportedError("this join cannot stand in a model", place=self.place(join))
            if side in ("LEFT", "FULL"):
                optional.add(i)
            if side in ("RIGHT", "FULL"):
                optional.update(range(i))
        return optional

    def side(self, table: RowSet, rows: RowSet, number: int, source: Source, optional: bool) -> Joined | None:
        """A source's part in a join; None for a relation of one row, which goes with every row."""
        over = source.relation.rows
        if over == UNIT:
            return None
        positions = Positions(f"{table.name}.{source.alias}", rows, over)
        flag = Column(f"{table.name}.{source.alias} matched", rows, BOOLEAN)
        matched = flag if optional and not self.host.knows(flag.name) else None
        return Joined(source.relation.key_rows, f"s{number}", positions, matched, optional)

    def from_item(self, source: Source) -> str:
        return f"{table_name(source.side.over)} AS {source.side.alias}" if source.side else ""

    def join_condition(self, join: exp.Join, frame: Frame, shared: set[str], ctes: Mapping[str, Relation]) -> str:
        """ON or USING as SQL over the aliases of the sides."""
        using = join.args.get("using")
        if using:
            return " AND ".join(self.using(column, frame, shared) for column in using)
        on = join.args.get("on")
        return "" if on is None else self.key_sql(on, self.sides_scope(frame), "a join's condition", ctes)

    def using(self, column: exp.Expression, frame: Frame, shared: set[str]) -> str:
        """``left.c = right.c``; from here on the name alone means the left one."""
        name = column.name.lower()
        *before, last = frame.sources
        pair = []
        for sources in (before, [last]):
            found = [(s, v) for s in sources for v in s.relation.values if v.name.lower() == name]
            if not found or (len(found) > 1 and name not in shared):
                raise self.problem(column, f'USING needs one column "{column.name}" on both sides')
            pair.append(self.side_text(*found[0], column))
        shared.add(name)
        return f"{pair[0]} = {pair[1]}"

    def side_text(self, source: Source, value: Value, tree: exp.Expression) -> str:
        """A source's column as SQL over the aliases of the join."""
        if value.text is None or source.side is None:
            raise self.learned(value.name, tree, "a join's condition")
        return at(value.text(), source.side.alias)

    def sides_scope(self, frame: Frame) -> dict[str, Value]:
        """The columns of a join under construction, with texts over the aliases of its sides."""
        found: dict[str, Value] = {}
        unclear: set[str] = set()
        for source in frame.sources:
            for value in source.relation.values:
                over_side = value
                if value.text is not None and source.side is not None:
                    over_side = replace(value, text=self.bound_text(value, source.side.alias))
                name = value.name.lower()
                found[f"{source.alias.lower()}.{name}"] = over_side
                if name in found and name not in frame.shared:
                    unclear.add(name)
                found.setdefault(name, over_side)
        return {name: v for name, v in found.items() if name not in unclear}

    @staticmethod
    def bound_text(value: Value, alias: str) -> Text:
        text = value.text
        assert text is not None
        return lambda: at(text(), alias)

    # -- keys ----------------------------------------------------------------------------------------------------------

    def key_sql(self, tree: exp.Expression, scope: Mapping[str, Value], what: str, ctes: Mapping[str, Relation]) -> str:
        """An expression over keys as SQL for DuckDB. Raises ProgrammingError where a parameter reaches it."""

        def change(node: exp.Expression) -> exp.Expression:
            if isinstance(node, exp.Column):
                value = self.lookup(node, scope)
                if value.text is None:
                    raise self.learned(value.name, node, what)
                return exp.Var(this=value.text())
            if isinstance(node, exp.In) and node.args.get("query") is not None:
                return exp.Var(this=self.in_query(node, scope, what, ctes))
            if isinstance(node, (exp.Subquery, exp.Select, exp.Window)):
                raise self.problem(node, f"{what} cannot hold this", "write it as a join, or with IN (SELECT ...)")
            if isinstance(node, exp.Anonymous) and str(node.this).upper() in standard_layers():
                raise self.problem(node, f"{node.this} cannot stand in {what}: keys do not learn")
            return node

        return str(tree.copy().transform(change).sql(dialect=dialect()))

    def in_query(self, tree: exp.In, scope: Mapping[str, Value], what: str, ctes: Mapping[str, Relation]) -> str:
        """``x IN (SELECT key FROM ...)``."""
        relation, _ = self.query(tree.args["query"], ctes)
        if len(relation.values) != 1 or relation.values[0].text is None:
            raise self.problem(tree, "IN needs a query of one column that no parameter reaches")
        text = at(relation.values[0].text(), "q")
        wanted = f"SELECT {text} FROM {table_name(relation.key_rows)} AS q"
        return f"{self.key_sql(tree.this, scope, what, ctes)} IN ({wanted})"

    def lookup(self, tree: exp.Column, scope: Mapping[str, Value]) -> Value:
        name = ".".join(p.name for p in tree.parts)
        found = scope.get(name.lower())
        if found is None:
            known = [n for n in scope if ("." in n) == ("." in name)]
            raise self.problem(
                tree, f'unknown column "{name}"', suggest(name, known) or f"known are {listed(sorted(known))}"
            )
        return found

    def learned(self, name: str, tree: exp.Expression, what: str) -> ProgrammingError:
        hint = "keys are computed once, before anything is learned"
        return self.problem(tree, f'"{name}" depends on what is learned and cannot stand in {what}', hint)

    # -- GROUP BY ------------------------------------------------------------------------------------------------------

    def group_keys(self, group: exp.Group, tree: exp.Select) -> list[exp.Expression]:
        """The keys of GROUP BY: expressions, positions in the select list, or the names of its columns; ALL."""
        for part in ("grouping_sets", "cube", "rollup"):
            if group.args.get(part):
                raise NotSupportedError(f"{part.upper()} cannot stand in a model", place=self.place(group))
        if group.args.get("all"):
            return [unaliased(item) for item in tree.expressions if not self.is_aggregate(item)]
        by_alias = {item.alias.lower(): unaliased(item) for item in tree.expressions if item.alias}
        keys: list[exp.Expression] = []
        for key in group.expressions:
            if isinstance(key, exp.Literal) and not key.is_string:
                number = int(key.this)
                if not 1 <= number <= len(tree.expressions):
                    raise self.problem(key, f"there is no column {number} to group by")
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
        inner = self.binder(tree, scope)
        outer = self.binder(tree, grouped, fold=Fold(frame.rows, step.positions), inner=inner)
        return Relation(step.rows, tuple(self.columns(tree, frame, grouped, outer)))

    def group_step(
        self, tree: exp.Select, frame: Frame, scope: Scope, keys: list[exp.Expression]
    ) -> tuple[Group, list[Value]]:
        """The step that finds the groups, and the keys as columns of its rows."""
        if frame.rows == UNIT:
            raise self.problem(tree, "there are no rows to group")
        rows = self.fresh("grouped")
        positions = Positions(f"{frame.table.name} in {rows.name}", frame.rows, rows)
        step = Group(rows, self.place(tree.args.get("group") or tree), over=frame.table, positions=positions)
        values = []
        for key in keys:
            text = self.key_sql(key, scope.values, "GROUP BY", {})
            values.append(self.exported(step, text, self.key_name(key), self.tensor_of(key, scope, frame, tree)))
        self.steps.append(step)
        return step, values

    def exported(self, step: Step, text: str, name: str, like: Node | None) -> Value:
        """A column of a step's table as a value; a leaf of plans too, where it is a number."""
        over = step.export(text)
        column = None
        if like is not None:
            column = self.key_leaf(step, step.exports[text], name, like)
            self.host.name_node(column, name)
        return Value(name, column, lambda: over)

    def key_leaf(self, step: Step, export: str, name: str, like: Node) -> Column:
        """A column of a step's table as a leaf of plans; a key that is NULL somewhere has a flag."""
        column = Column(f"{step.rows.name}.{name}", step.rows, like.type.element, like.type.shape)
        step.leaves[column] = export
        known = Column(f"{column.name} known", step.rows, BOOLEAN)
        if not self.host.knows(known.name):
            self.host.nulls.declare(column, known)
        return column

    @staticmethod
    def key_name(key: exp.Expression) -> str:
        return key.name if isinstance(key, exp.Column) else str(key.sql(dialect="duckdb"))

    def tensor_of(self, key: exp.Expression, scope: Scope, frame: Frame, tree: exp.Expression) -> Node | None:
        """The key as a tensor over the rows of the frame; None for what is no number."""
        try:
            node = self.binder(tree, scope).bind(key)
        except Error:
            return None
        return node if node.type.element.kind in ("integer", "float", "boolean") else None

    def folded(self, tree: exp.Select, frame: Frame, scope: Scope) -> Relation:
        """Aggregates without GROUP BY: one row, which goes with every row that it is put beside."""
        inner = self.binder(tree, scope)
        message = '"{}" stands outside of an aggregate, and there is no GROUP BY'
        none = Scope({}, {}, {n: message.format(n) for n in scope.values})
        outer = self.binder(tree, none, fold=Fold(frame.rows), inner=inner)
        values = self.columns(tree, frame, none, outer)
        self.scalars |= {v.node for v in values if v.node is not None}
        return Relation(UNIT, tuple(values))

    def distinct(self, tree: exp.Select, relation: Relation) -> Relation:
        """The distinct rows of keys: groups without aggregates."""
        rows = self.fresh("distinct")
        positions = Positions(f"{relation.key_rows.name} in {rows.name}", relation.rows, rows)
        step = Group(rows, self.place(tree), over=relation.key_rows, positions=positions)
        values = []
        for value in relation.values:
            if value.text is None:
                raise self.learned(value.name, tree, "DISTINCT")
            values.append(self.exported(step, value.text(), value.name, value.node))
        self.steps.append(step)
        return Relation(rows, tuple(values))

    # -- UNION ALL -----------------------------------------------------------------------------------------------------

    def union(self, tree: exp.Union, ctes: Mapping[str, Relation]) -> Relation:
        """The rows of both sides, one after the other. A tensor of the union is a sum of both sides' rows, each put in
        its place: no row has two."""
        if type(tree) is not exp.Union or tree.args.get("distinct") or tree.args.get("order") or tree.args.get("limit"):
            raise NotSupportedError("only UNION ALL can stand in a model", place=self.place(tree))
        sides = [self.query(side, ctes)[0] for side in (tree.this, tree.expression)]
        if len(sides[0].values) != len(sides[1].values):
            counts = " and ".join(str(len(s.values)) for s in sides)
            raise self.problem(tree, f"the sides of UNION ALL have {counts} columns")
        if UNIT in (sides[0].rows, sides[1].rows):
            raise NotSupportedError("UNION ALL needs sides with rows", place=self.place(tree))
        rows = self.fresh("union")
        positions = tuple(Positions(f"{rows.name}.{i}", side.rows, rows) for i, side in enumerate(sides))
        step = Union(rows, self.place(tree), parts=(sides[0].key_rows, sides[1].key_rows), positions=positions)
        pairs = zip(sides[0].values, sides[1].values, strict=True)
        values = tuple(self.united(step, left, right, tree) for left, right in pairs)
        self.steps.append(step)
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
                    column = self.key_leaf(step, key.partition(".")[2].strip('"'), left.name, nodes[0])
                return Value(left.name, column, lambda: key)
        else:
            text = None
        if nodes[0] is None or nodes[1] is None:
            raise self.problem(tree, f'the sides of UNION ALL differ in kind in the column "{left.name}"')
        if nodes[0].type.shape != nodes[1].type.shape:
            raise self.problem(tree, f'the sides of UNION ALL differ in shape in the column "{left.name}"')
        placed = [
            Segment(self.with_rows(n, p.rows), p, step.rows) for n, p in zip(nodes, step.positions, strict=True) if n
        ]
        return Value(left.name, Add(*self.helper.number(*placed)), text)

    @staticmethod
    def with_rows(node: Node, rows: RowSet) -> Node:
        node = node if node.type.element.kind == "float" else cast(node, FLOAT)
        return node if node.type.rows != UNIT else broadcast(node, Type(rows, node.type.element, node.type.shape))

    # -- columns of a select -------------------------------------------------------------------------------------------

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
        if self.is_text(tree, scope):
            return Value(name, None, self.text_of(tree, scope))
        self.host.alias = name
        try:
            node = binder.bind(tree)
        except ProgrammingError:
            if not self.is_of_keys(tree, scope):
                raise
            return Value(name, None, self.text_of(tree, scope))  # SQL that the model language does not have
        self.host.name_node(node, name)
        learns = any(isinstance(n, Parameter) for n in walk([node]))
        return Value(name, node, None if learns or binder.fold is not None else self.text_of(tree, scope))

    def is_text(self, tree: exp.Expression, scope: Scope) -> bool:
        """Whether an expression computes with keys that are no numbers, so that only DuckDB can."""
        found = [scope.values.get(".".join(p.name for p in c.parts).lower()) for c in tree.find_all(exp.Column)]
        learns = any(str(c.this).upper() in ("EMBED", "FEATURES", "ONE_HOT") for c in tree.find_all(exp.Anonymous))
        return not learns and bool(found) and any(v is not None and v.node is None for v in found)

    def is_of_keys(self, tree: exp.Expression, scope: Scope) -> bool:
        """Whether an expression computes with keys alone and calls nothing of the model language."""
        found = [scope.values.get(".".join(p.name for p in c.parts).lower()) for c in tree.find_all(exp.Column)]
        ours = any(str(c.this).upper() in {*FUNCTIONS, *standard_layers()} for c in tree.find_all(exp.Anonymous))
        return bool(found) and not ours and all(v is not None and v.text is not None for v in found)

    def text_of(self, tree: exp.Expression, scope: Scope) -> Text:
        """The column text of an expression over keys, made when it is asked for."""
        values = dict(scope.values)
        return lambda: f"({self.key_sql(tree, values, 'a key', {})})"

    # -- scopes --------------------------------------------------------------------------------------------------------

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

    def is_aggregate(self, tree: exp.Expression) -> bool:
        """Whether an expression folds rows."""
        calls = tree.walk(prune=lambda n: isinstance(n, exp.Subquery))
        return any(isinstance(c, exp.Anonymous) and str(c.this).upper() in AGGREGATES for c in calls)

    # -- places and names ----------------------------------------------------------------------------------------------

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


def unaliased(item: exp.Expression) -> exp.Expression:
    """A select's item without its name."""
    return item.this if isinstance(item, exp.Alias) else item
