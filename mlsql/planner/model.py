"""What binding a CREATE MODEL gives: typed plans for its columns and its loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import Place
from ..types import Dim, RowSet, Symbol
from .node import Node
from .ops import Column, Parameter


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
class Model:
    """A bound model.

    ``columns`` are its outputs in the order of the select; ``prediction`` names the one that PREDICT returns.
    ``loss`` is None for a model without MINIMIZE. ``categories`` are the columns whose classes come from data.
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
