"""The best plan of a memo: by cost, a shared node counted once, each node as often as it runs.

Taking the best plan out of a memo whose expressions share inputs is NP-hard, so it is climbed to: from the plan that
came in, each time by the change that saves most. A change is another expression for one group, or for all that would
otherwise read a costly one, or a value a row. What a change brings in is chosen by dynamic programming, as if nothing
were shared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import field

from ..planner.node import Node
from ..planner.plan import Plan
from ..record import record
from .choice import Choice, Cycle
from .cost import Machine
from .frequency import SINGLE, Runs
from .memo import Member, Memo
from .rewriter import Rewriter
from .rule import Alternative, Step

STAGE = "explore"
WORTH = 0.005  # a change must save this share of the cost: no estimate is better than that
COSTLY = 0.02  # a shared value of at least this share of the cost is tried to be done without
MAX_ROUNDS = 100
SHOWN = 20  # alternatives that are told of


@record
class Goal:
    """What a plan is to be good at: little time on a machine, for so many runs of each of its parts.

    ``memory`` is the most bytes that values from before the loop may take; None: any.
    """

    machine: Machine = field(default_factory=Machine)
    runs: Runs = field(default_factory=lambda: SINGLE)
    memory: int | None = None


@record
class Found:
    """The plan that a search came to, and how."""

    plan: Plan
    steps: tuple[Step, ...]
    alternatives: tuple[Alternative, ...]
    notes: tuple[str, ...]


def search(plan: Plan, goal: Goal, rules: Rewriter, normal: Rewriter) -> Found:
    """The cheapest plan that the rules make of a plan. ``normal`` are the rules that always help."""
    memo = Memo(plan.outputs.values(), rules, normal)
    memo.explore()
    if not memo.has_choices:
        return Found(plan, (), (), ())
    climb = _Climb(memo, goal)
    climb.run()
    new = climb.choice.realized(plan.nodes())
    best = Plan({k: new[n] for k, n in plan.outputs.items()}, plan.renamed(new))
    return Found(best, tuple(climb.steps), tuple(climb.alternatives()), tuple(notes(memo, climb)))


def notes(memo: Memo, climb: _Climb) -> Iterator[str]:
    """What a reader should know of a search that did not come to its end."""
    if memo.was_cut:
        forms = f"{len(memo.tried):,} forms"
        yield f"the search stopped at {len(memo.expressions):,} expressions, of which it had tried {forms}"
    if climb.was_cut:
        yield f"the search for cheaper plans stopped after {MAX_ROUNDS} rounds"


def considered(plan: Plan, rules: Rewriter, normal: Rewriter) -> list[Step]:
    """All rewritings that a search makes of a plan, whether they would be taken or not."""
    memo = Memo(plan.outputs.values(), rules, normal)
    memo.explore()
    members = [m for g in memo.groups for m in g.members]
    return [Step(STAGE, m.rule, m.before, m.node) for m in members if m.rule is not None and m.before is not None]


class _Climb:
    """From the plan that came in to a plan that no change makes cheaper."""

    def __init__(self, memo: Memo, goal: Goal) -> None:
        self.memo = memo
        self.choice = Choice(memo, goal.machine, goal.runs, goal.memory)
        self.steps: list[Step] = []
        self.was_cut = False

    def run(self) -> None:
        for _ in range(MAX_ROUNDS):
            if not (self.best_switch() or self.best_eviction()):
                return
        self.was_cut = True

    # -- one group said differently -------------------------------------------------------------------------------

    def best_switch(self) -> bool:
        """Make the changes of single groups that still save something, the best first."""
        found: list[tuple[float, int, Member]] = []
        for number, member in self.others():
            saved = self.choice.cost - self.tried(number, member)
            if saved > WORTH * self.choice.cost:
                found.append((saved, number, member))
        made = False
        for _, number, member in sorted(found, key=lambda f: -f[0]):
            made |= self.take(number, member)
        return made

    def others(self) -> Iterator[tuple[int, Member]]:
        """Every expression that could stand in place of one that is chosen."""
        for number in self.choice.in_use():
            for member in self.memo.groups[number].members:
                if member is not self.choice.of[number]:
                    yield number, member

    def tried(self, number: int, member: Member) -> float:
        """What the plan would cost with another expression for a group."""
        with self.choice.trial():
            self.choice.switch(number, member)
            return self.choice.cost

    def take(self, number: int, member: Member) -> bool:
        """Change the expression of a group if that still saves something."""
        if number not in self.choice.refs or member is self.choice.of[number]:
            return False
        return self.made_cheaper(self.choice.change(number, member))

    def made_cheaper(self, changes: Iterable[tuple[int, float, Node]]) -> bool:
        """Make changes and write each down; undo them all unless they save something."""
        before, count = self.choice.cost, len(self.steps)
        with self.choice.trial() as trial, contextlib.suppress(Cycle):
            for number, cost, old in changes:
                self.note(number, cost, old)
            if before - self.choice.cost > WORTH * before and self.choice.is_plan():
                trial.keep()
                return True
        del self.steps[count:]
        return False

    def note(self, number: int, cost_before: float, before: Node) -> None:
        """Write down that a group has another expression now, in place of ``before``."""
        member, place = self.choice.of[number], (before, self.choice.node(number))
        if member.rule is not None and member.before is not None:
            costs = cost_before, self.choice.cost
            self.steps.append(Step(STAGE, member.rule, member.before, member.node, *costs, place))

    # -- values done without --------------------------------------------------------------------------------------

    def best_eviction(self) -> bool:
        """Do without a costly value that several read, or without any value a row in the steps, if that is cheaper."""
        rows = sorted(self.choice.rows_in_steps().items(), key=lambda item: (item[0].name, item[0].rows or 0))
        every = [{g} for g in self.choice.shared(COSTLY)] + [groups for _, groups in rows]
        return any(self.made_cheaper(self.choice.evict(gone)) for gone in every)

    # -- what lost -------------------------------------------------------------------------------------------------

    def alternatives(self) -> list[Alternative]:
        """The rewritings that would have made the plan dearer: the cheapest of each rule and expression."""
        found: dict[tuple[str, Node], Alternative] = {}
        for number, member in self.others():
            if member.rule is None or member.before is None:
                continue
            cost = self.tried(number, member)
            key = (member.rule.name, self.choice.of[number].node)
            if key not in found or cost < (found[key].seconds or 0):
                found[key] = Alternative(
                    "rewrite", member.rule.name, member.rule.law, cost, self.choice.cost,
                    self.reason(cost), member.rule, member.before, member.node,
                )  # fmt: skip
        return sorted(found.values(), key=lambda a: a.seconds or 0)[:SHOWN]

    def reason(self, cost: float) -> str:
        """Why an alternative that would cost so much was not taken."""
        ratio = cost / max(self.choice.cost, 1e-12)
        if self.choice.exceeds(cost):
            return "needs more memory than MEMORY allows"
        if abs(ratio - 1) <= WORTH:
            return "costs the same"
        return f"costs {ratio:.3g} times as much"
