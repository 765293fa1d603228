"""What a name can mean while a query is bound: columns with their tensors and their SQL, relations, FROM clauses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field, replace

from sqlglot import exp

from ...record import record
from ...types import UNIT, RowSet
from ..node import Node
from ..nulls import filled
from ..ops import Take
from ..skeleton import Join, Joined, Text, at


@record
class Origin:
    """Where a column comes from, unchanged: a declared column of a relation, and the path to its rows (None: none)."""

    relation: str
    column: str
    path: Node | None = None


@record
class Value:
    """A column of a relation.

    ``node`` is its tensor, None for what is no number; ``text`` asks for its column text, None where a parameter
    reaches it. ``origin`` is the column of INPUT that it is, if it is one unchanged.
    """

    name: str
    node: Node | None
    text: Text | None
    type_text: str = ""
    origin: Origin | None = None


@record
class Relation:
    """A row set and its columns.

    ``origins`` says for each of the model's own relations from which of its rows each row stems: an index, or None
    where the row set is that relation's. A relation that plays two parts in a join has no origin after it. ``table``
    is the row set of the skeleton's table, where that has the same rows under another name.
    """

    rows: RowSet
    values: tuple[Value, ...]
    origins: Mapping[str, Node | None] = field(default_factory=dict)
    table: RowSet | None = None

    @property
    def key_rows(self) -> RowSet:
        """The row set whose table the columns' texts are about."""
        return self.table or self.rows


@record
class Source:
    """One relation of a FROM clause, under its alias, and its side in the join (None: there is nothing to join)."""

    alias: str
    relation: Relation
    side: Joined | None = None


@record
class Frame:
    """What stands after FROM: sources joined to one row set. ``shared`` are the columns that USING made one.

    A join in which every row of the first source has one partner has that source's rows: then ``rows`` are those, and
    the first source's columns are read without positions.
    """

    rows: RowSet
    sources: tuple[Source, ...]
    join: Join | None = None
    shared: frozenset[str] = frozenset()

    @property
    def table(self) -> RowSet:
        """The row set whose table the columns' texts are about."""
        return self.join.rows if self.join else next((s.relation.key_rows for s in self.with_rows()), UNIT)

    def with_rows(self) -> list[Source]:
        """The sources that have more than one row."""
        return [s for s in self.sources if s.relation.rows != UNIT]

    def index(self, source: Source) -> Node | None:
        """The positions of the source's rows; None where the frame's rows are its own."""
        if source.side is None or source.relation.rows == UNIT:
            return None
        is_same = self.join is not None and self.rows != self.join.rows and source.side is self.join.sides[0]
        return None if is_same else source.side.positions

    def values(self) -> Iterator[tuple[str, Value]]:
        """Every column over the rows of the frame, with the alias of its source."""
        for source in self.sources:
            for value in source.relation.values:
                yield source.alias, self.taken(source, value)

    def taken(self, source: Source, value: Value) -> Value:
        """A source's column over the rows of the frame."""
        side, join = source.side, self.join
        if side is None or join is None:
            return value
        node, text = value.node, value.text
        index = self.index(source)
        if node is not None and node.type.rows != UNIT and index is not None:
            node = Take(node, index)
            if side.matched is not None:
                node = filled(side.matched, node)
        if text is not None:
            inner, alias = text, side.alias
            text = lambda: join.export(at(inner(), alias))  # noqa: E731
        origin = value.origin
        if origin is not None and index is not None:
            origin = replace(origin, path=index if origin.path is None else Take(origin.path, index))
        return replace(value, node=node, text=text, origin=origin)

    def by_name(self) -> tuple[dict[str, Value], set[str]]:
        """Columns by lower-case name, alone and behind their alias, and the names that would be a guess."""
        found: dict[str, Value] = {}
        unclear: set[str] = set()
        for alias, value in self.values():
            name = value.name.lower()
            found.setdefault(f"{alias.lower()}.{name}", value)
            if name in found and name not in self.shared:
                unclear.add(name)
            found.setdefault(name, value)
        return found, unclear

    def origins(self) -> dict[str, Node | None]:
        """From which rows of the model's own relations the rows of the frame stem."""
        found: dict[str, Node | None] = {}
        twice: set[str] = set()
        for source in self.sources:
            for name, origin in source.relation.origins.items():
                if name in found:
                    twice.add(name)
                index = self.index(source)
                found[name] = origin if index is None else index if origin is None else Take(origin, index)
        return {name: origin for name, origin in found.items() if name not in twice}


def unaliased(item: exp.Expression) -> exp.Expression:
    """A select's item without its name."""
    return item.this if isinstance(item, exp.Alias) else item
