"""The stages of the optimizer, in the order in which they run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import InternalError
from ..planner.node import Node, readers
from ..planner.plan import Plan
from .rule import RULES, Alternative, Rule, Step
from .rules.whole import prune, share

STAGES = (
    ("prune", "what nobody asked for goes first: no other stage should spend time on it"),
    ("simplify", "rules that always help, to a fixpoint: what they remove, no later stage has to look at"),
    ("expand", "composite operators into the ones that have kernels, so that softmax and its loss share their parts"),
    ("simplify", "once more, since expanding brings new neighbours together"),
    ("share", "last, when nothing changes any more: which results several operators read"),
)

MAX_PASSES = 50


@dataclass(frozen=True)
class Optimized:
    """The plan that came out, and how."""

    plan: Plan
    steps: tuple[Step, ...]
    alternatives: tuple[Alternative, ...] = ()
    notes: tuple[str, ...] = ()  # what a reader of EXPLAIN should know, such as a budget that ran out


def optimize(plan: Plan, without: Collection[str] = (), wanted: Collection[str] | None = None) -> Optimized:
    """Run all stages. ``wanted`` are the outputs to keep (None: all); ``without`` names rules that stay off."""
    return run(plan, [stage for stage, _ in STAGES], without, wanted)


def simplify(plan: Plan, without: Collection[str] = (), wanted: Collection[str] | None = None) -> Optimized:
    """The first two stages: before a plan is differentiated, so that its gradient is that of the stable form."""
    return run(plan, ["prune", "simplify"], without, wanted)


def run(plan: Plan, stages: Iterable[str], without: Collection[str], wanted: Collection[str] | None) -> Optimized:
    """Run some stages one after another."""
    steps: list[Step] = []
    for stage in stages:
        if stage == "prune":
            plan = plan if wanted is None else prune(plan, wanted, steps)
        elif stage == "share":
            plan = share(plan, steps)
        else:
            plan = run_stage(stage, plan, steps, without)
    return Optimized(plan, tuple(steps))


def run_stage(stage: str, plan: Plan, steps: list[Step], without: Collection[str] = ()) -> Plan:
    """Apply the rules of one stage, from the leaves up, until none applies anywhere."""
    by_operator: dict[type[Node], list[Rule]] = {}
    for r in RULES.values():
        if r.stage == stage and r.name not in without:
            for operator in r.on:
                by_operator.setdefault(operator, []).append(r)

    def change(node: Node, users: Callable[[], Mapping[Node, Sequence[Node]]]) -> Node:
        for r in by_operator.get(type(node), ()):
            new = r.apply(node, users()) if r.with_readers else r.apply(node)
            if new is not None and new is not node:
                check(r, node, new)
                steps.append(Step(stage, r, node, new))
                return new
        return node

    for _ in range(MAX_PASSES):
        count = len(steps)
        users = functools.cache(functools.partial(all_readers, plan))
        plan = plan.rewritten(functools.partial(change, users=users))
        if len(steps) == count:
            return plan
    raise InternalError(f"the rules of the stage {stage} do not come to an end; the last was {steps[-1].rule.name}")


def all_readers(plan: Plan) -> Mapping[Node, Sequence[Node]]:
    """The nodes that read each node of a plan; an output, which the caller reads, is among its own readers."""
    found = readers(plan.outputs.values())
    for output in plan.outputs.values():
        found[output].append(output)
    return found


def check(rule: Rule, before: Node, after: Node) -> None:
    """A rule that changes a type is a defect: name it."""
    if before.type != after.type:
        raise InternalError(f"the rule {rule.name} turned {before.type} into {after.type}")
