"""Rules, ready to be applied to nodes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence

from ..errors import InternalError
from ..planner.node import Node, walk
from .rule import RULES, Rule

Users = Callable[[], Mapping[Node, Sequence[Node]]]


class Rewriter:
    """The rules of some stages by operator, but for those that stay off.

    A plan is rewritten to a fixpoint with ``first``; a memo asks for ``all`` that can be made of an expression.
    """

    def __init__(self, *stages: str, without: Collection[str] = ()) -> None:
        self.by_operator: dict[type[Node], list[Rule]] = {}
        for r in RULES.values():
            if r.stage in stages and r.name not in without:
                for operator in r.on:
                    self.by_operator.setdefault(operator, []).append(r)

    def knows(self, node: Node) -> bool:
        """Whether there are rules for the operator."""
        return type(node) in self.by_operator

    def first(self, node: Node, users: Users | None = None) -> tuple[Rule, Node] | None:
        """The first rule that applies, and what it makes of the node. Rules that ask for readers need ``users``."""
        for r in self.by_operator.get(type(node), ()):
            if r.with_readers and users is None:
                continue
            new = r.apply(node, users()) if r.with_readers and users is not None else r.apply(node)
            if new is not None and new is not node:
                check(r, node, new)
                return r, new
        return None

    def all(self, node: Node) -> Iterator[tuple[Rule, Node]]:
        """Every rule that applies, with what it makes of the node."""
        for r in self.by_operator.get(type(node), ()):
            new = r.apply(node)
            if new is not None and new is not node:
                check(r, node, new)
                yield r, new

    def normal(self, node: Node, known: Container[Node]) -> Node:
        """A node with the rules applied to it and to all below it that is not known, to a fixpoint."""
        new: dict[Node, Node] = {}
        for n in walk([node], known):
            made = n.with_inputs(new.get(i, i) for i in n.inputs) if any(i in new for i in n.inputs) else n
            found = self.first(made)
            if found is not None:
                made = self.normal(found[1], known)
            if made is not n:
                new[n] = made
        return new.get(node, node)


def check(rule: Rule, before: Node, after: Node) -> None:
    """A rule that changes a type is a defect: name it."""
    if before.type != after.type:
        raise InternalError(f"the rule {rule.name} turned {before.type} into {after.type}")
