"""What binding a CREATE MODEL gives: typed plans for its columns and its loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from enum import Enum
from typing import Any

from ..errors import Place
from ..record import record
from ..types import BOOLEAN, Dim, RowSet, Symbol
from .node import Node, walk
from .nulls import Nulls
from .ops import Column, Parameter
from .skeleton import Skeleton, Text


@record
class Initial:
    """How a parameter gets its first value: a distribution with its arguments, or LITERAL with ``value``."""

    kind: str
    arguments: tuple[float, ...] = ()
    value: Any = None


@record
class Statistic:
    """What the training rows come to, such as a column's average: the value of a parameter that nothing changes.

    ``aggregate`` is SQL in which ``{v}`` stands for the expression ``sql`` over the columns in ``reads``; of a tensor
    it is taken position by position. A NULL counts as the value of the statistic ``fill``, if there is one.
    """

    aggregate: str
    sql: str
    reads: tuple[str, ...]
    fill: str | None = None


@record
class ModelParameter:
    """A parameter of a model: the node that reads it, its initializer, and whether training may change it.

    The value of a ``statistic`` comes from the training rows (its initializer is STATISTIC). With ``unknown`` the
    last row stands for keys that training has not seen: it stays zero (ZEROS), or becomes the average of the other
    rows when training ends (MEAN).
    """

    node: Parameter
    initial: Initial
    frozen: bool = False
    statistic: Statistic | None = None
    unknown: str | None = None


@record
class IndexCheck:
    """A column that is used as a position: its values must be 0 up to but not including ``size``."""

    column: Column
    size: Dim
    place: Place


class Find(Enum):
    """What a leaf holds of the position that a value has among the keys of a vocabulary."""

    ROW = "the position; one past the last where the value is unknown or NULL"
    INSIDE = "the position; 0 where the value is unknown or NULL"
    KNOWN = "1, or 0 where the value is unknown or NULL"
    KEY = "the position; an unknown value or NULL is an error"
    LABEL = "the position of a class label; another label or NULL is an error"
    LABEL_OR_NULL = "the position of a class label; 0 for NULL; another label is an error"


@record
class DataColumn:
    """A leaf that DuckDB computes from columns of a relation, before anything is learned.

    ``sql`` is an expression in which ``{0}``, ``{1}`` ... stand for the columns in ``reads``; a column that is read as
    it is has the expression ``{0}``. With a ``vocabulary`` the value is looked up in it, and ``find`` says what of its
    position the leaf holds. A NULL becomes the value of the statistic ``fill``, if there is one.
    """

    column: Column
    sql: str
    reads: tuple[str, ...]
    vocabulary: str | None = None
    find: Find | None = None
    fill: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it is a declared column as it is."""
        return self.sql == "{0}" and self.vocabulary is None and self.fill is None

    @property
    def takes_null(self) -> bool:
        """Whether NULL is a value like any other here."""
        return self.fill is not None or self.find in (Find.ROW, Find.INSIDE, Find.KNOWN)

    @property
    def source(self) -> tuple[object, ...]:
        """What is asked of DuckDB: leaves of one source are computed from one column of its result."""
        return self.sql, self.reads, self.vocabulary or self.column.type


@record
class Vocabulary:
    """The sorted distinct values of an expression over the training rows: the keys of a table of parameters."""

    name: str
    sql: str
    reads: tuple[str, ...]

    @property
    def symbol(self) -> Symbol:
        """The number of its values."""
        return Symbol(self.name)


@record
class SqlCheck:
    """An expression of DuckDB's that a model computes of its columns: DuckDB says whether it can be."""

    sql: str
    reads: tuple[str, ...]
    place: Place


@record
class Model:
    """A bound model.

    ``columns`` are its outputs in the order of the select; ``prediction`` names the one that PREDICT returns.
    ``loss`` is None for a model without MINIMIZE. ``categories`` are the targets whose classes come from data,
    ``vocabularies`` the keys that do; ``data`` says how DuckDB computes the leaves that are no plain columns.

    A model over several relations has a ``skeleton``: the joins and groups that DuckDB computes before anything is
    learned. Its inputs are named ``relation.column``. ``nulls`` knows where a value is NULL, ``keys`` are
    outputs that are read as they are, by the text of their column, and ``outputs`` has all of them in order.
    """

    name: str
    rows: RowSet
    inputs: Mapping[str, Column]
    targets: Mapping[str, Column]
    parameters: Mapping[str, ModelParameter]
    columns: Mapping[str, Node]
    prediction: str
    loss: Node | None
    weight: Node | None
    categories: tuple[str, ...]
    type_texts: Mapping[str, str]
    weight_columns: Mapping[str, Column] = field(default_factory=dict)  # what WEIGHT BY alone reads
    index_checks: tuple[IndexCheck, ...] = ()
    data: Mapping[str, DataColumn] = field(default_factory=dict)  # leaves that are no plain columns
    vocabularies: Mapping[str, Vocabulary] = field(default_factory=dict)
    sql_checks: tuple[SqlCheck, ...] = ()
    names: Mapping[Node, str] = field(default_factory=dict)
    skeleton: Skeleton | None = None
    parts: Mapping[str, Model] = field(default_factory=dict)  # what the model reads of each relation, by name
    labels: Mapping[str, Node] = field(default_factory=dict)  # targets in the rows of the select
    origins: Mapping[str, Node | None] = field(default_factory=dict)  # of these rows in relations (None: the same)
    nulls: Nulls = field(default_factory=Nulls)
    keys: Mapping[str, Text] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    scalars: frozenset[Node] = frozenset()  # values of whole relations, whatever rows they are put beside

    @property
    def symbols(self) -> list[Symbol]:
        """The sizes that are still open: they are known once the model is trained."""
        shapes = [p.node.shape for p in self.parameters.values()] + [n.type.shape for n in self.columns.values()]
        return list(dict.fromkeys(d for s in shapes for d in s if isinstance(d, Symbol)))

    @property
    def has_values(self) -> bool:
        """Whether every parameter has a value without training."""
        return all(p.initial.kind == "LITERAL" for p in self.parameters.values())

    @property
    def declared(self) -> Mapping[str, Column]:
        """The columns that rows must bring."""
        return {**self.inputs, **self.targets, **self.weight_columns}

    @property
    def statistics(self) -> Mapping[str, Statistic]:
        """The statistics by parameter; one that another reads stands before it."""
        return {name: p.statistic for name, p in self.parameters.items() if p.statistic is not None}

    def leaves(self, outputs: Iterable[Node]) -> dict[str, DataColumn]:
        """What DuckDB must bring for some outputs: every column that their plans read, by name."""
        return {n.name: self.leaf(n) for n in walk(outputs) if isinstance(n, Column)}

    def leaf(self, column: Column) -> DataColumn:
        """How a column of the plan is computed. Categorical targets are looked up among their classes."""
        if column.name in self.data:
            return self.data[column.name]
        if column.name in self.categories:
            return DataColumn(column, "{0}", (column.name,), column.name, Find.LABEL)
        return DataColumn(column, "{0}", (column.name,))

    @property
    def input_leaves(self) -> list[DataColumn]:
        """What DuckDB brings for a prediction. A model that reads none of its columns still has a value a row."""
        found = list(self.leaves(self.columns.values()).values())
        return found or [DataColumn(Column("a row", self.rows, BOOLEAN), "TRUE", ())]


def classes_symbol(column: str) -> Symbol:
    """The number of classes of a column, before the data is seen."""
    return Symbol(f"CLASSES({column})")
