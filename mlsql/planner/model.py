"""What binding a CREATE MODEL gives: typed plans for its columns and its loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import Place
from ..types import Dim, RowSet, Symbol
from .node import Node
from .nulls import Nulls
from .ops import Column, Parameter
from .skeleton import Skeleton


@dataclass(frozen=True)
class Initial:
    """How a parameter gets its first value: a distribution with its arguments, or LITERAL with ``value``."""

    kind: str
    arguments: tuple[float, ...] = ()
    value: Any = None


@dataclass(frozen=True)
class ModelParameter:
    """A parameter of a model: the node that reads it, its initializer, and whether training may change it."""

    node: Parameter
    initial: Initial
    frozen: bool = False


@dataclass(frozen=True)
class IndexCheck:
    """A column that is used as a position: its values must be 0 up to but not including ``size``."""

    column: Column
    size: Dim
    place: Place


@dataclass(frozen=True)
class DataColumn:
    """A leaf that DuckDB computes from columns of a relation, before anything is learned.

    ``sql`` is an expression in which ``{0}``, ``{1}`` ... stand for the columns in ``reads``; a column that is read as
    it is has the expression ``{0}``. With a ``vocabulary`` the value is replaced by its position in it.
    """

    column: Column
    sql: str
    reads: tuple[str, ...]
    vocabulary: str | None = None


@dataclass(frozen=True)
class Vocabulary:
    """The sorted distinct values of an expression over the training rows: the keys of a table of parameters.

    A value that training has not seen is an error where ``unknown`` is ERROR. Else its position is one past the last:
    the table has a row more, which stays zero (ZEROS) or holds the average of the others (MEAN).
    """

    name: str
    sql: str
    reads: tuple[str, ...]
    unknown: str = "ERROR"

    @property
    def symbol(self) -> Symbol:
        """The number of rows of a table with a row for each of its values, and the row for unknown ones."""
        return Symbol(f"KEYS({self.name})")


@dataclass(frozen=True)
class Statistic:
    """A frozen parameter whose value an aggregate over the training rows gives, such as a column's average."""

    sql: str
    reads: tuple[str, ...]


@dataclass(frozen=True)
class Model:
    """A bound model.

    ``columns`` are its outputs in the order of the select; ``prediction`` names the one that PREDICT returns.
    ``loss`` is None for a model without MINIMIZE. ``categories`` are the columns whose classes come from data.

    A model over several relations has a ``skeleton``: the joins and groups that DuckDB computes before anything is
    learned. Its inputs are named ``relation.column``. ``nulls`` knows where a value is NULL, ``keys`` are
    outputs that are no numbers, by the text of their column, and ``outputs`` has all of them in order.
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
    names: Mapping[Node, str] = field(default_factory=dict)
    skeleton: Skeleton | None = None
    data: Mapping[Column, DataColumn] = field(default_factory=dict)
    labels: Mapping[str, Node] = field(
        default_factory=dict
    )  # targets, and where they are known, in the rows of the select
    nulls: Nulls = field(default_factory=Nulls)
    keys: Mapping[str, str] = field(default_factory=dict)
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


def classes_symbol(column: str) -> Symbol:
    """The number of classes of a column, before the data is seen."""
    return Symbol(f"CLASSES({column})")
