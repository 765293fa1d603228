"""A plan: named outputs, and the names that its nodes had in the statement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field

from ..record import record
from ..types import RowSet
from .node import Node, over_rows, rebuilt, rewrite, walk


@record
class Plan:
    """Nodes under the names by which the statement asks for them.

    ``names`` also names inner nodes, after the aliases and columns that the reader of the statement knows.
    """

    outputs: Mapping[str, Node]
    names: Mapping[Node, str] = field(default_factory=dict)

    def nodes(self) -> Iterable[Node]:
        """Every node once, inputs first."""
        return walk(self.outputs.values())

    def rewritten(self, change: Callable[[Node], Node]) -> Plan:
        """The plan rebuilt from the leaves up; a node passes its name on to what takes its place."""
        new = rewrite(self.outputs.values(), change)
        return Plan({k: new[n] for k, n in self.outputs.items()}, self.renamed(new))

    def replaced(self, replacement: Mapping[Node, Node]) -> Plan:
        """The plan with some nodes replaced by others wherever they stand."""
        new = rebuilt(self.outputs.values(), replacement)
        return Plan({k: new[n] for k, n in self.outputs.items()}, self.renamed(new))

    def over(self, rows: Mapping[RowSet, RowSet], replacement: Mapping[Node, Node]) -> Plan:
        """The plan over other rows, with some nodes replaced: see ``over_rows``."""
        new = over_rows(self.outputs.values(), rows, replacement)
        return Plan({k: new[n] for k, n in self.outputs.items()}, self.renamed(new))

    def renamed(self, new: Mapping[Node, Node]) -> dict[Node, str]:
        """The names, moved to the nodes that took the place of others; a name that a node has stays."""
        names = dict(self.names)
        for old, node in new.items():
            if old in self.names and old is not node:
                names.setdefault(node, self.names[old])
        return names

    def keep(self, wanted: Iterable[str]) -> Plan:
        """The plan of some of the outputs."""
        return Plan({k: self.outputs[k] for k in wanted}, self.names)
