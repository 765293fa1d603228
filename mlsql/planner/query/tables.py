"""FROM: relations, CTEs and queries, joined and filtered to one row set. A join is a Take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlglot import exp

from ...errors import NotSupportedError, listed, suggest
from ...types import BOOLEAN, UNIT, RowSet
from ..ops import Column, Positions
from ..skeleton import Join, Joined, Text, at, table_name
from .relations import Frame, Relation, Source, Value

if TYPE_CHECKING:
    from .select import QueryBinder

SIDES = {"", "LEFT", "RIGHT", "FULL"}


class Tables:
    """Binds FROM clauses."""

    def __init__(self, q: QueryBinder) -> None:
        self.q = q

    def frame(self, tree: exp.Select, ctes: Mapping[str, Relation]) -> Frame:
        """FROM, its joins and WHERE as one row set."""
        clause = tree.args.get("from_")
        if clause is None:
            raise self.q.problem(tree, "a select of a model over relations needs FROM")
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
            relation, _ = self.q.query(tree.this, ctes)
            return Source(tree.alias or f"q{len(self.q.counts)}", relation)
        if not isinstance(tree, exp.Table) or not isinstance(tree.this, exp.Identifier):
            raise self.q.problem(tree, "a model reads its own relations, CTEs and queries in brackets")
        name = tree.name
        relation_or_none = ctes.get(name.lower()) or self.q.host.relation(name)
        if relation_or_none is None:
            known = [*ctes, *self.q.host.relation_names()]
            hint = suggest(name, known) or f"known are {listed(known)}; INPUT {name} (...) declares another"
            raise self.q.problem(tree, f'the model has no relation "{name}"', hint)
        return Source(tree.alias_or_name, relation_or_none)

    def check_aliases(self, sources: list[Source], trees: list[exp.Expression]) -> None:
        seen: set[str] = set()
        for source, tree in zip(sources, trees, strict=True):
            if source.alias.lower() in seen:
                raise self.q.problem(
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
        table = self.q.fresh("joined" if joins else "filtered")
        first = sources[0].relation.rows
        rows = first if self.q.host.knows(f"{table.name} is its first side") else table
        optional = self.optional_sides(joins)
        sides = [self.side(table, rows, i, s, i in optional) for i, s in enumerate(sources)]
        step = Join(table, self.q.place(tree.args["from_"]), sides=tuple(s for s in sides if s))
        for joined in step.sides:
            if joined.matched is not None:
                self.q.host.nulls.declare(joined.positions, joined.matched)
        aliased = [replace(s, side=side) for s, side in zip(sources, sides, strict=True)]
        if not step.sides:
            raise NotSupportedError(
                "nothing here has rows to join or to filter", place=self.q.place(tree.args["from_"])
            )
        shared, conditions = self.write_joins(Frame(rows, tuple(aliased), step), joins, ctes)
        frame = Frame(rows, tuple(aliased), step, frozenset(shared))
        if where is not None:
            conditions.append(self.q.keys.sql(where.this, self.sides_scope(frame), "WHERE", ctes))
        if conditions:
            step.words.append("WHERE " + " AND ".join(f"({c})" if len(conditions) > 1 else c for c in conditions))
        self.q.steps.append(step)
        return frame

    def write_joins(
        self, frame: Frame, joins: list[exp.Join], ctes: Mapping[str, Relation]
    ) -> tuple[set[str], list[str]]:
        """Write what stands after FROM; the columns that USING made one, and conditions that are left for WHERE.

        A condition sees what stands before it. A relation of one row has nothing to join: its condition is a filter.
        """
        assert frame.join is not None
        words, shared, left = frame.join.words, set[str](), list[str]()
        words.append(self.from_item(frame.sources[0]))
        for i, join in enumerate(joins, 1):
            so_far = replace(frame, sources=frame.sources[: i + 1], shared=frozenset(shared))
            condition = self.join_condition(join, so_far, shared, ctes)
            item = self.from_item(frame.sources[i])
            kind = (join.side or "INNER").upper() if condition else "CROSS"
            if item and any(words):
                words.append(f"{kind} JOIN {item}" + (f" ON {condition}" if condition else ""))
                continue
            words.append(item)
            if condition and join.side:
                message = "an outer join with a relation of one row cannot stand in a model"
                raise NotSupportedError(message, place=self.q.place(join), hint="CROSS JOIN it, and use CASE WHEN")
            left += [condition] if condition else []
        return shared, left

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
                raise NotSupportedError("this join cannot stand in a model", place=self.q.place(join))
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
        matched = flag if optional and not self.q.host.knows(flag.name) else None
        return Joined(source.relation.key_rows, f"s{number}", positions, matched, optional)

    def from_item(self, source: Source) -> str:
        return f"{table_name(source.side.over)} AS {source.side.alias}" if source.side else ""

    def join_condition(self, join: exp.Join, frame: Frame, shared: set[str], ctes: Mapping[str, Relation]) -> str:
        """ON or USING as SQL over the aliases of the sides."""
        using = join.args.get("using")
        if using and (join.side or "").upper() in ("RIGHT", "FULL"):
            hint = "write ON a.key = b.key, and COALESCE(a.key, b.key) for what USING calls key"
            raise NotSupportedError("USING cannot stand in a RIGHT or FULL JOIN", place=self.q.place(join), hint=hint)
        if using:
            return " AND ".join(self.using(column, frame, shared) for column in using)
        on = join.args.get("on")
        return "" if on is None else self.q.keys.sql(on, self.sides_scope(frame), "a join's condition", ctes)

    def using(self, column: exp.Expression, frame: Frame, shared: set[str]) -> str:
        """``left.c = right.c``; from here on the name alone means the left one."""
        name = column.name.lower()
        *before, last = frame.sources
        pair = []
        for sources in (before, [last]):
            found = [(s, v) for s in sources for v in s.relation.values if v.name.lower() == name]
            if not found or (len(found) > 1 and name not in shared):
                raise self.q.problem(column, f'USING needs one column "{column.name}" on both sides')
            pair.append(self.side_text(*found[0], column))
        shared.add(name)
        return f"{pair[0]} = {pair[1]}"

    def side_text(self, source: Source, value: Value, tree: exp.Expression) -> str:
        """A source's column as SQL over the aliases of the join."""
        if value.text is None or source.side is None:
            raise self.q.keys.learned(value.name, tree, "a join's condition")
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
