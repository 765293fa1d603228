"""What a model reads of its data: SQL over declared columns, keys, and statistics, before anything is learned.

A function of the model language may take or give ``Data``, an SQL expression that DuckDB computes for every row, or a
``Category``, one of a number of things a row. ``Leaves`` makes leaves of a plan from them: one for each relation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from ..errors import Place
from ..record import record
from ..types import BIGINT, FLOAT, Dim, Element, RowSet, Shape, Symbol, TypeProblem
from . import ops
from .model import DataColumn, Find, SqlCheck, Vocabulary
from .node import Node
from .ops import Column

HOLE = re.compile(r"\{(\w+)\}")


@record
class Data:
    """An SQL expression over declared columns.

    ``sql`` has a hole ``{i}`` for each column in ``reads``; ``text`` is the expression as a person reads it.
    ``element`` is None if it is no number. With a ``size`` its values are the whole numbers below it. ``fill`` is the
    statistic that takes the place of NULL. ``declared`` is the SQL type of a column that is read as it is. ``source``
    says where a model over several relations reads it (see ``relational.Origin``).
    """

    sql: str
    reads: tuple[str, ...]
    text: str
    element: Element | None
    shape: Shape = ()
    declared: str = ""
    size: int | None = None
    fill: str | None = None
    source: object = None


@record
class Category:
    """One of ``size`` things a row. ``row`` is its position, one past the last for what is unknown; ``inside`` is a
    position below ``size`` whatever it is; ``known`` is 1, or 0 for what is unknown."""

    row: Node
    inside: Node
    known: Node
    size: Dim


Value = Node | Data | Category


def filled(template: str, values: Callable[[str], str]) -> str:
    """A template with every hole filled."""
    return HOLE.sub(lambda hole: values(hole[1]), template)


def composed(template: str, *parts: Data, element: Element | None = None, size: int | None = None) -> Data:
    """An expression over other expressions: hole i of the template is part i."""
    reads = tuple(dict.fromkeys(name for part in parts for name in part.reads))
    if len({part.source for part in parts}) > 1:
        words = " and ".join(part.text for part in parts)
        raise TypeProblem(f"{words} are columns of different relations", hint="join them in the query that is read")
    for part in parts:
        if part.fill is not None:
            raise TypeProblem(
                f"what fills the NULLs of {part.reads[0]} is known only once the data is seen",
                hint="inside SQL write COALESCE(column, value)",
            )

    def renumbered(part: Data) -> str:
        inner = filled(part.sql, lambda hole: f"{{{reads.index(part.reads[int(hole)])}}}")
        return inner if HOLE.fullmatch(inner) or inner.endswith(")") else f"({inner})"

    sql = filled(template, lambda hole: renumbered(parts[int(hole)]))
    text = filled(template, lambda hole: parts[int(hole)].text)
    return Data(sql, reads, text, element, size=size, source=parts[0].source)


class Leaves:
    """The leaves of one relation's rows: what is computed from its columns, and the vocabularies that this needs.

    ``declared`` are the columns that a model reads, by lower-case name; ``taken`` are names that no leaf may have;
    ``sizes`` is what data has told.
    """

    def __init__(
        self, rows: RowSet, declared: Mapping[str, Data], taken: Collection[str], sizes: Mapping[Symbol, int]
    ) -> None:
        self.rows, self.declared, self.taken, self.sizes = rows, declared, taken, sizes
        self.data: dict[str, DataColumn] = {}
        self.vocabularies: dict[str, Vocabulary] = {}
        self.checks: list[SqlCheck] = []
        self.statistics: set[str] = set()

    def value(self, data: Data) -> Column:
        """The expression's own value: a number or a tensor a row."""
        if data.element is None:
            raise TypeProblem(
                f"{data.text} is {data.declared or 'no number'}, and a number is needed",
                hint="EMBED, ONE_HOT and FEATURES make numbers of it",
            )
        if data.sql == "{0}" and data.fill is None:
            return Column(data.text, self.rows, data.element, data.shape)
        return self.leaf(self.name(data), data, data.element, data.shape, fill=data.fill)

    def name(self, data: Data) -> str:
        """What the leaf of an expression is called."""
        return data.text if data.fill is None else f"coalesce({data.text}, {data.fill})"

    def is_own(self, name: str, node: Node | None) -> bool:
        """Whether a name means a column of INPUT, and not something computed of the same name."""
        return name in self.declared and isinstance(node, Column)

    def columns(self) -> list[Data]:
        """Every column of INPUT."""
        return list(self.declared.values())

    def check(self, data: Data, place: Place) -> None:
        """Remember an expression that DuckDB has to be asked about."""
        self.checks.append(SqlCheck(data.sql, data.reads, place))

    def learned(self, data: Data, parameter: str) -> None:
        """Remember that a parameter holds a statistic of these rows."""
        self.statistics.add(parameter)

    def open(self, name: str, data: Data, size: Symbol) -> Column:
        """A vector of which not even the size is known before the data is seen; it stands for one that will be."""
        return self.leaf(name, data, FLOAT, (size,))

    def keys(self, data: Data) -> Dim:
        """The number of keys that the training rows have, a symbol before."""
        vocabulary = self.vocabulary(data)
        return self.sizes.get(vocabulary.symbol, vocabulary.symbol)

    def vocabulary(self, data: Data) -> Vocabulary:
        if data.fill is not None or data.shape:
            raise TypeProblem(f"{data.text} cannot be a key", hint="a key is a single SQL value of a row")
        text = data.text
        while True:  # two expressions may read the same: lower(u), and a column of that name
            made = Vocabulary(f"KEYS({text})", data.sql, data.reads)
            if self.vocabularies.setdefault(made.name, made) == made:
                return made
            text += "'"

    def category(self, data: Data) -> Category:
        """The expression's value as one of its keys, or as the whole number that it is."""
        find = self.found if data.size is None else self.numbered
        size = self.keys(data) if data.size is None else data.size
        return Category(find(data, Find.ROW), find(data, Find.INSIDE), find(data, Find.KNOWN), size)

    def found(self, data: Data, find: Find) -> Column:
        """The position of a value among its keys, or whether it has one."""
        words = {Find.ROW: "KEY({0})", Find.INSIDE: "KEY({0}) or 0", Find.KNOWN: "KNOWN({0})", Find.KEY: "KEY({0})!"}
        element = FLOAT if find == Find.KNOWN else BIGINT
        return self.leaf(words[find].format(data.text), data, element, vocabulary=self.vocabulary(data).name, find=find)

    def numbered(self, data: Data, find: Find) -> Column:
        """The same for values that are positions already."""
        template = {Find.ROW: f"coalesce({{0}}, {data.size})", Find.INSIDE: "coalesce({0}, 0)"}
        derived = composed(template.get(find, "{0} IS NOT NULL"), data)
        return self.leaf(derived.text, derived, FLOAT if find == Find.KNOWN else BIGINT, find=find)

    def leaf(
        self,
        name: str,
        data: Data,
        element: Element,
        shape: Shape = (),
        vocabulary: str | None = None,
        find: Find | None = None,
        fill: str | None = None,
    ) -> Column:
        while True:
            column = Column(name, self.rows, element, shape)
            made = DataColumn(column, data.sql, data.reads, vocabulary, find, fill)
            if name not in self.taken and self.data.setdefault(name, made) == made:
                return column
            name += "'"


def one_hot(category: Category) -> Node:
    """A vector of zeros with a 1 at the category's position; all zeros for what is unknown."""
    return ops.Place(category.known, category.inside, category.size)
