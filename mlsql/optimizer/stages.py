"""The stages of the optimizer, in the order in which they run."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence

from ..errors import InternalError
from ..planner.node import Node, readers
from ..planner.plan import Plan
from ..record import record
from .rewriter import Rewriter, Users
from .rule import RULES, Alternative, Step
from .rules.whole import prune, share
from .search import Goal, search

STAGES = (
    ("prune", "what nobody asked for goes first: no other stage should spend time on it"),
    ("simplify", "rules that always help, to a fixpoint: what they remove, no later stage has to look at"),
    ("hoist", "what is fixed is computed before batches and joins read it; the search below may think better of it"),
    ("explore", "laws that pay only sometimes, searched for the cheapest plan; of simple plans there are fewer"),
    ("simplify", "what the cheapest plan brings together"),
    ("expand", "composite operators into the ones that have kernels, so that softmax and its loss share their parts"),
    ("simplify", "once more, since expanding brings new neighbours together"),
    ("share", "last, when nothing changes any more: which results several operators read"),
)

TOGETHER = {"hoist": ("simplify", "hoist")}  # what hoisting brings together is simplified at once
MAX_PASSES = 50


@record
class Optimized:
    """The plan that came out, and how."""

    plan: Plan
    steps: tuple[Step, ...]
    alternatives: tuple[Alternative, ...] = ()
    notes: tuple[str, ...] = ()  # what a reader of EXPLAIN should know, such as a budget that ran out


def optional_rules() -> list[str]:
    """The rules without which a plan still runs."""
    return [r.name for r in RULES.values() if r.stage != "expand"]


def optimize(
    plan: Plan, without: Collection[str] = (), wanted: Collection[str] | None = None, goal: Goal | None = None
) -> Optimized:
    """Run all stages. ``wanted`` are the outputs to keep (None: all); ``without`` names rules that stay off.

    ``goal`` says what the plan is to be good at; without it the plan runs once, on an ordinary machine.
    """
    return run(plan, [stage for stage, _ in STAGES], without, wanted, goal)


def simplify(plan: Plan, without: Collection[str] = (), wanted: Collection[str] | None = None) -> Optimized:
    """The first stages: before a plan is differentiated, so that its gradient is that of the stable form."""
    return run(plan, ["prune", "simplify", "hoist"], without, wanted)


def run(
    plan: Plan,
    stages: Iterable[str],
    without: Collection[str],
    wanted: Collection[str] | None,
    goal: Goal | None = None,
) -> Optimized:
    """Run some stages one after another."""
    steps: list[Step] = []
    alternatives: tuple[Alternative, ...] = ()
    notes: tuple[str, ...] = ()
    for stage in stages:
        if stage == "prune":
            plan = plan if wanted is None else prune(plan, wanted, steps)
        elif stage == "share":
            plan = share(plan, steps)
        elif stage == "explore":
            found = search(
                plan, goal or Goal(), Rewriter("explore", without=without), Rewriter("simplify", without=without)
            )
            plan, alternatives, notes = found.plan, found.alternatives, found.notes
            steps += found.steps
        else:
            plan = run_stage(stage, plan, steps, without)
    return Optimized(plan, tuple(steps), alternatives, notes)


def run_stage(stage: str, plan: Plan, steps: list[Step], without: Collection[str] = ()) -> Plan:
    """Apply the rules of one stage, from the leaves up, until none applies anywhere."""
    rules = Rewriter(*TOGETHER.get(stage, (stage,)), without=without)

    def change(node: Node, users: Users) -> Node:
        found = rules.first(node, users)
        if found is None:
            return node
        steps.append(Step(found[0].stage, found[0], node, found[1]))
        return found[1]

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
