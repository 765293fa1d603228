"""What the parts of a query are bound with: the model that it stands in, and the names that stand for something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ...errors import Place
from ...record import record
from ...types import RowSet
from ..expressions import ExpressionBinder
from ..functions import Fold
from ..model import ModelParameter
from ..node import Node
from ..nulls import Nulls
from .relations import Relation, Value


class Host(Protocol):
    """What a query asks of the model that it stands in."""

    alias: str
    nulls: Nulls
    parameters: dict[str, ModelParameter]

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


@record
class Scope:
    """The names that stand for something in one select: tensors, keys, and what cannot be read as a tensor and why."""

    nodes: dict[str, Node]
    values: dict[str, Value]
    hidden: dict[str, str]
