"""The memo: a plan and all the plans that the laws make of it, kept as groups of equal expressions.

A group holds expressions of one value. The inputs of an expression stand for the groups that they belong to, so
a handful of nodes is a great many plans. Laws may lead over a worse plan to a better one: nothing is thrown away until
the best plan is taken out (see ``search.py``).

Graefe, "The Cascades Framework for Query Optimization", 1995, for groups and rules; Nelson and Oppen, "Fast Decision
Procedures Based on Congruence Closure", 1980, for what happens when two groups turn out to be one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..planner.node import Node, exact, walk
from ..record import record
from ..types import Type
from .frequency import Frequency, changes_each_step
from .rewriter import Rewriter
from .rule import Rule

MAX_EXPRESSIONS = 4_000  # beside those of the plan itself
MAX_TRIED = 100_000  # forms of expressions that the rules see: about five seconds, whatever the clock says
MAX_MEMBERS = 24  # of one group: what comes later would rarely be another idea

Key = tuple[Any, ...]


@record
class Member:
    """An expression of a group, and where it comes from: a rule made it of ``before`` (None: it was there)."""

    node: Node
    rule: Rule | None = None
    before: Node | None = None


@dataclass
class Group:
    """Expressions of one value."""

    type: Type
    often: Frequency
    members: list[Member] = field(default_factory=list)
    readers: dict[Node, None] = field(default_factory=dict)  # expressions with this group among their inputs


class Memo:
    """Groups of equal expressions, made from the outputs of a plan by the rules of a stage.

    Groups are numbers; a number may stand for another one once two groups are one, so ask ``find``.
    """

    def __init__(self, outputs: Iterable[Node], rules: Rewriter, normal: Rewriter) -> None:
        self.rules, self.normal = rules, normal
        self.groups: list[Group] = []
        self.same: list[int] = []  # by number, the group that it has become (itself: none other)
        self.of: dict[Node, int] = {}
        self.expressions: dict[Key, Node] = {}
        self.waiting: deque[Node] = deque()
        self.tried: set[Node] = set()
        self.roots = [self.add(n) for n in outputs]
        self.limit = len(self.expressions) + MAX_EXPRESSIONS
        self.was_cut = False

    @property
    def has_choices(self) -> bool:
        """Whether some value can be said in more than one way."""
        return any(len(g.members) > 1 for g in self.groups)

    def find(self, group: int) -> int:
        """The group that a number stands for."""
        while self.same[group] != group:
            self.same[group] = self.same[self.same[group]]
            group = self.same[group]
        return group

    def group(self, node: Node) -> int:
        """The group of a node that the memo knows."""
        return self.find(self.of[node])

    def inputs(self, node: Node) -> tuple[int, ...]:
        """The groups that an expression reads."""
        return tuple(self.group(n) for n in node.inputs)

    # -- growing ---------------------------------------------------------------------------------------------------

    def add(self, node: Node) -> int:
        """The group of a node; what is new of it becomes expressions of the memo."""
        for n in walk([node], self.of):
            self.enter(n)
        return self.group(node)

    def enter(self, node: Node) -> None:
        """One node, the inputs of which are known."""
        key = self.key(node)
        known = self.expressions.get(key)
        if known is not None:
            self.of[node] = self.group(known)
            return
        number = self.of[node] = len(self.groups)
        often = max((self.groups[g].often for g in self.inputs(node)), default=Frequency.ONCE)
        self.groups.append(Group(node.type, Frequency.STEP if changes_each_step(node) else often))
        self.same.append(number)
        self.expressions[key] = node
        self.join(number, Member(node))

    def join(self, number: int, member: Member) -> None:
        """Make an expression a member of a group: rules are to see it, and its readers with it in place."""
        group = self.groups[number]
        group.members.append(member)
        for g in self.inputs(member.node):
            self.groups[g].readers[member.node] = None
        self.wait(member.node)
        for reader in list(group.readers):
            self.wait(replaced(reader, number, member.node, self))

    def wait(self, node: Node) -> None:
        """Let the rules see an expression, once."""
        if self.rules.knows(node) and node not in self.tried:
            self.tried.add(node)
            self.waiting.append(node)

    def key(self, node: Node) -> Key:
        """What two expressions have in common that are one."""
        return (type(node), exact(tuple(node.attributes().items())), len(node.inputs), *self.inputs(node))

    def explore(self) -> None:
        """Apply the rules until nothing new comes of them, or the budget is spent."""
        while self.waiting:
            if len(self.expressions) > self.limit or len(self.tried) > MAX_TRIED:
                self.was_cut = True
                return
            node = self.waiting.popleft()
            for variant in self.variants(node):
                for rule, made in self.rules.all(variant):
                    self.learn(variant, rule, made)

    def variants(self, node: Node) -> Iterator[Node]:
        """An expression, and what it is with one of its inputs said differently."""
        yield node
        for position, n in enumerate(node.inputs):
            for member in list(self.groups[self.group(n)].members):
                if member.node is not n:
                    other = with_input(node, position, member.node)
                    if other not in self.tried:
                        self.tried.add(other)
                        yield other

    def learn(self, node: Node, rule: Rule, made: Node) -> None:
        """Enter what a rule has made of an expression: it belongs to the same group."""
        made = self.normal.normal(made, self.of)
        here = self.add(node)
        if made in self.of or len(self.groups[here].members) >= MAX_MEMBERS:
            if made in self.of:
                self.unite(here, self.group(made))
            return
        for n in made.inputs:
            self.add(n)
        key = self.key(made)
        known = self.expressions.get(key)
        if known is not None:
            self.of[made] = self.group(known)
            self.unite(here, self.group(known))
            return
        self.of[made] = here
        self.expressions[key] = made
        self.join(here, Member(made, rule, node))

    def unite(self, one: int, other: int) -> None:
        """Make one group of two, and of the expressions over them that have become equal."""
        pairs = [(one, other)]
        while pairs:
            kept, gone = sorted(self.find(g) for g in pairs.pop())
            if kept == gone:
                continue
            a, b = self.groups[kept], self.groups[gone]
            a.often = min(a.often, b.often)
            self.same[gone] = kept
            a.members += b.members
            a.readers |= b.readers
            for reader in list(b.readers):
                known = self.expressions.setdefault(self.key(reader), reader)
                if known is not reader:
                    pairs.append((self.of[known], self.of[reader]))
            b.members, b.readers = [], {}


def with_input(node: Node, position: int, other: Node) -> Node:
    """A node with one of its inputs replaced."""
    inputs = list(node.inputs)
    inputs[position] = other
    return node.with_inputs(inputs)


def replaced(node: Node, group: int, other: Node, memo: Memo) -> Node:
    """A node with those inputs replaced that belong to a group."""
    return node.with_inputs(other if memo.group(n) == group else n for n in node.inputs)
