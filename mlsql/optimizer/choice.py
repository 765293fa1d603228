"""One expression for each group of a memo: a plan, and what it costs.

A value that several read is counted once, by counting its readers. A change only touches what it takes in and lets go,
so trying one costs next to nothing; a trial that is not kept is undone.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from ..planner.node import Node
from ..types import UNIT, RowSet
from .cost import Machine, seconds
from .frequency import Frequency, Runs
from .memo import Member, Memo

TINY = 1e-12  # seconds, so that no expression is free and none can be its own input
DEAR = 1.0  # seconds for each byte beyond the limit: a plan that does not fit comes last
DEAREST = 1e9


class Cycle(Exception):
    """A group would read itself: this choice is no plan."""


class Trial:
    """Changes that are undone when the trial ends, unless they are kept."""

    def __init__(self) -> None:
        self.undo: list[tuple[dict[int, Any], int, Any]] = []
        self.is_kept = False

    def keep(self) -> None:
        """Let the changes stay."""
        self.is_kept = True


class Choice:
    """The expression that each group in use has. ``of`` is by group, ``refs`` counts readers; outputs count as read."""

    def __init__(self, memo: Memo, machine: Machine, runs: Runs, memory: int | None) -> None:
        self.memo, self.machine, self.runs, self.memory = memo, machine, runs, memory
        self.of: dict[int, Member] = {}
        self.refs: dict[int, int] = {}
        self.time = 0.0
        self.journal: Trial | None = None
        self.new: list[int] = []  # groups that came into use in this trial
        self.reads = {m.node: memo.inputs(m.node) for _, m in self.everything()}
        self.own = {m.node: self.time_of(g, m.node) for g, m in self.everything()}
        self.best = self.cheapest()
        for root in map(memo.find, memo.roots):
            self.acquire(root, plainly=True)
        self.new = []

    def everything(self) -> Iterator[tuple[int, Member]]:
        """Every expression with its group."""
        for number, group in enumerate(self.memo.groups):
            for member in group.members:
                yield number, member

    def time_of(self, number: int, node: Node) -> float:
        """The time that an expression takes in a whole run."""
        return TINY + seconds(node, self.machine) * self.runs[self.memo.groups[number].often]

    @property
    def cost(self) -> float:
        """The time of the plan in a whole run; much more if it does not fit into memory."""
        over = 0 if self.memory is None else max(0, self.held() - self.memory)
        return self.time + (DEAREST + DEAR * over if over else 0)

    def held(self) -> int:
        """The bytes of values that are computed before the loop and read in it."""
        groups, found = self.memo.groups, dict[int, int]()
        for g, member in self.of.items():
            if groups[g].often == Frequency.STEP:
                found |= {i: self.bytes_of(i) for i in self.reads[member.node] if groups[i].often == Frequency.ONCE}
        return sum(found.values())

    def bytes_of(self, number: int) -> int:
        """The bytes of a value, 0 for a leaf; a view has those of what it looks at."""
        node = self.of[number].node
        if node.is_view:
            return sum(map(self.bytes_of, self.reads[node]))
        return node.nbytes if node.inputs else 0

    def exceeds(self, cost: float) -> bool:
        """Whether a cost is that of a plan that does not fit."""
        return cost >= DEAREST > self.cost

    # -- dynamic programming ---------------------------------------------------------------------------------------

    def cheapest(self, forbidden: Collection[int] = ()) -> dict[int, tuple[float, Member]]:
        """For each group that needs none of those forbidden, the expression of least cost if nothing were shared, and
        that cost."""
        best: dict[int, tuple[float, Member]] = {}
        changed = True
        while changed:
            changed = False
            for number, member in self.everything():
                if number in forbidden:
                    continue
                cost = self.own[member.node]
                for g in self.reads[member.node]:
                    cost += best[g][0] if g in best else math.inf
                if cost < (best[number][0] if number in best else math.inf):
                    best[number] = (cost, member)
                    changed = True
        return best

    # -- changing --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def trial(self) -> Iterator[Trial]:
        """Changes inside are undone at the end, unless they are kept. Trials do not nest."""
        time, self.new = self.time, []
        self.journal = Trial()
        try:
            yield self.journal
        finally:
            if not self.journal.is_kept:
                for table, key, old in reversed(self.journal.undo):
                    if old is None:
                        table.pop(key, None)
                    else:
                        table[key] = old
                self.time = time
            self.journal = None

    def put(self, table: dict[int, Any], key: int, value: Any) -> None:
        """Set (None: remove) an entry of ``of`` or ``refs``, and remember what it was."""
        if self.journal is not None:
            self.journal.undo.append((table, key, table.get(key)))
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value

    def switch(self, number: int, member: Member, plainly: bool = False) -> None:
        """Give a group in use another expression; with ``plainly`` new groups get their first one, not their best."""
        old = self.of[number]
        for g in self.reads[member.node]:
            self.acquire(g, plainly)
        self.count(old, -1)
        self.put(self.of, number, member)
        self.count(member, 1)
        for g in self.reads[old.node]:
            self.release(g)

    def count(self, member: Member, sign: int) -> None:
        """Add what an expression costs, or take it off."""
        self.time += sign * self.own[member.node]

    def acquire(self, number: int, plainly: bool = False) -> None:
        """One more reader of a group; the first one brings it into use, and what it reads."""
        stack = [number]
        while stack:
            g = stack.pop()
            self.put(self.refs, g, self.refs.get(g, 0) + 1)
            if self.refs[g] == 1:
                member = self.memo.groups[g].members[0] if plainly else self.best[g][1]
                self.put(self.of, g, member)
                self.count(member, 1)
                self.new.append(g)
                stack += self.reads[member.node]

    def release(self, number: int) -> None:
        """One reader less of a group; the last one takes it out of use."""
        stack = [number]
        while stack:
            g = stack.pop()
            if self.refs[g] > 1:
                self.put(self.refs, g, self.refs[g] - 1)
                continue
            member = self.of[g]
            self.count(member, -1)
            self.put(self.refs, g, None)
            self.put(self.of, g, None)
            stack += self.reads[member.node]

    def change(self, number: int, member: Member) -> Iterator[tuple[int, float, Node]]:
        """Give a group another expression by the way on which the rules came to it, and the groups that this brings
        into use their best; gives what changed, each with the cost and its node before."""
        for g, other in self.way(number, member):
            yield self.noted(g, other)
        at = 0
        while at < len(self.new):
            g = self.new[at]
            at += 1
            if g in self.refs and self.best[g][1] is not self.of[g]:
                yield self.noted(g, self.best[g][1])

    def noted(self, number: int, member: Member) -> tuple[int, float, Node]:
        """Give a group in use another expression; gives the group, and the cost and its node before."""
        cost, old = self.cost, self.node(number)
        self.switch(number, member, plainly=True)
        return number, cost, old

    def way(self, number: int, member: Member) -> list[tuple[int, Member]]:
        """The expressions of a group from one of the plan's own to the given one, as the rules made them."""
        way = [(number, member)]
        by_node = {m.node: m for m in self.memo.groups[number].members}
        while member.before is not None:
            known = self.memo.expressions.get(self.memo.key(member.before))
            earlier = by_node.get(known) if known is not None else None
            if earlier is None or earlier.rule is None or earlier is self.of[number] or (number, earlier) in way:
                break
            way.insert(0, (number, earlier))
            member = earlier
        return way

    def shared(self, share: float) -> list[int]:
        """Groups in use that several read and that cost at least a share of the plan, the dearest first."""
        own = {g: self.own[m.node] for g, m in self.of.items() if self.refs[g] > 1}
        return sorted((g for g, c in own.items() if c >= share * self.time), key=lambda g: (-own[g], g))

    def rows_in_steps(self) -> dict[RowSet, set[int]]:
        """By row set, the groups with a value a row that are computed in every step."""
        found: dict[RowSet, set[int]] = {}
        for number, group in enumerate(self.memo.groups):
            if group.members and group.often == Frequency.STEP and group.type.rows != UNIT:
                found.setdefault(group.type.rows, set()).add(number)
        return found

    def evict(self, gone: Collection[int]) -> Iterator[tuple[int, float, Node]]:
        """Choose anew for all that read some groups, so that none is read, if that can be; gives what changed, each
        with the cost and its node before."""
        best = self.cheapest(gone)
        if any(self.memo.find(root) not in best for root in self.memo.roots):
            return
        users = self.above(gone)
        for g in sorted(users.difference(gone), reverse=True):
            if g in self.refs and g in best and self.of[g] is not best[g][1]:
                cost, old = self.cost, self.node(g)
                kept, self.best = self.best, best
                self.switch(g, best[g][1])
                self.best = kept
                yield g, cost, old

    def above(self, groups: Collection[int]) -> set[int]:
        """The groups in use that read some groups, directly or through others, and these."""
        reached = set(groups)
        grew = True
        while grew:
            more = {g for g, m in self.of.items() if g not in reached and reached.intersection(self.reads[m.node])}
            reached |= more
            grew = bool(more)
        return reached

    # -- looking ---------------------------------------------------------------------------------------------------

    def in_use(self) -> list[int]:
        """The groups of the plan, in the order of their numbers."""
        return sorted(self.refs)

    def is_plan(self) -> bool:
        """Whether the outputs can be computed. Raises Cycle if not."""
        return bool(self.made(map(self.memo.find, self.memo.roots)))

    def node(self, number: int) -> Node:
        """The node that stands for a group in the plan. Raises Cycle."""
        return self.made([number])[number]

    def realized(self, nodes: Iterable[Node]) -> dict[Node, Node]:
        """The node that stands for each of the given ones in the plan, where its value is still computed."""
        made = self.made(map(self.memo.find, self.memo.roots))
        return {n: made[g] for n in nodes if (g := self.memo.group(n)) in made}

    def made(self, groups: Iterable[int]) -> dict[int, Node]:
        """The nodes of some groups and of all that they read. Raises Cycle if one of them would read itself."""
        made: dict[int, Node] = {}
        begun: set[int] = set()
        stack = [(g, False) for g in groups]
        while stack:
            g, is_ready = stack.pop()
            if g in made:
                continue
            node = self.of[g].node
            if is_ready:
                made[g] = node.with_inputs(made[i] for i in self.reads[node])
            elif g in begun:
                raise Cycle
            else:
                begun.add(g)
                stack.append((g, True))
                stack += [(i, False) for i in self.reads[node] if i not in made]
        return made
