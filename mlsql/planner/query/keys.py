"""Keys: what no parameter reaches stays SQL, computed once by DuckDB."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sqlglot import exp

from ...errors import ProgrammingError, listed, suggest
from ...parser.tokens import dialect
from ..layers import standard_layers
from ..skeleton import at, table_name
from .relations import Relation, Value

if TYPE_CHECKING:
    from .select import QueryBinder

LEARNED = "keys are computed once, before anything is learned"


class Keys:
    """Writes expressions over keys as SQL for the tables of the skeleton."""

    def __init__(self, q: QueryBinder) -> None:
        self.q = q

    def sql(self, tree: exp.Expression, scope: Mapping[str, Value], what: str, ctes: Mapping[str, Relation]) -> str:
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
                raise self.q.problem(node, f"{what} cannot hold this", "write it as a join, or with IN (SELECT ...)")
            if isinstance(node, exp.Anonymous) and str(node.this).upper() in standard_layers():
                raise self.q.problem(node, f"{node.this} cannot stand in {what}: keys do not learn")
            return node

        return str(tree.copy().transform(change).sql(dialect=dialect()))

    def in_query(self, tree: exp.In, scope: Mapping[str, Value], what: str, ctes: Mapping[str, Relation]) -> str:
        """``x IN (SELECT key FROM ...)``."""
        relation, _ = self.q.query(tree.args["query"], ctes)
        if len(relation.values) != 1 or relation.values[0].text is None:
            raise self.q.problem(tree, "IN needs a query of one column that no parameter reaches")
        text = at(relation.values[0].text(), "q")
        wanted = f"SELECT {text} FROM {table_name(relation.key_rows)} AS q"
        return f"{self.sql(tree.this, scope, what, ctes)} IN ({wanted})"

    def lookup(self, tree: exp.Column, scope: Mapping[str, Value]) -> Value:
        name = ".".join(p.name for p in tree.parts)
        found = scope.get(name.lower())
        if found is not None:
            return found
        if name.lower() in (p.lower() for p in self.q.host.parameters):
            raise self.q.problem(tree, f'"{name}" is a parameter, and keys do not learn', LEARNED)
        if sum(n.endswith(f".{name.lower()}") for n in scope) > 1:
            raise self.q.problem(tree, f'"{name}" is in more than one relation: write alias.{name}')
        known = [n for n in scope if ("." in n) == ("." in name)]
        hint = suggest(name, known) or f"known are {listed(sorted(known))}"
        raise self.q.problem(tree, f'unknown column "{name}"', hint)

    def learned(self, name: str, tree: exp.Expression, what: str) -> ProgrammingError:
        return self.q.problem(tree, f'"{name}" depends on what is learned and cannot stand in {what}', LEARNED)
