"""The optimizer's steps and what it considered: before and after as formulas, costs, and a numeric check."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..executor.check import difference, differences
from ..optimizer.cost import Machine, seconds
from ..optimizer.frequency import SINGLE, Runs, frequencies
from ..optimizer.rule import ALWAYS_ON, RULES, Alternative, QueryStep, Step
from ..optimizer.stages import run_stage
from ..planner.node import Node, walk
from ..planner.plan import Plan
from .around import apart, cut
from .formula import formula
from .view import AlternativeView, StepView

DEPTH = 3  # of the formulas of a step


def step_views(
    steps: Sequence[Step], names: Mapping[Node, str], machine: Machine, runs: Runs = SINGLE
) -> list[StepView]:
    """A view a step. What has no cost of the whole run has that of the operators that go and of those that come."""
    often = frequencies([n for s in steps for n in (s.before, s.after) if n is not None])

    def cost(nodes: Iterable[Node]) -> float:
        return sum(seconds(n, machine) * runs[often[n]] for n in nodes)

    def costs(s: Step) -> tuple[float | None, float | None]:
        if s.cost_before is not None or s.after is s.before:  # equal parts are one part: nothing changes
            return s.cost_before, s.cost_after
        gone, come = apart(s.before, () if s.after is None else (s.after,))
        return cost(gone), cost(come)

    return [step_view(i, s, names, *costs(s)) for i, s in enumerate(steps, 1)]


def step_view(
    i: int, s: Step, names: Mapping[Node, str], cost_before: float | None, cost_after: float | None
) -> StepView:
    """One step."""
    return StepView(
        number=i,
        stage=s.stage,
        rule=s.rule.name,
        law=s.rule.law,
        before=formula(s.before, names, DEPTH),
        after=result_text(s, lambda n: formula(n, names, DEPTH)),
        cost_before=cost_before,
        cost_after=cost_after,
        why=s.rule.why,
        difference=None if s.after is None else largest_difference(s.before, s.after),
    )


def result_text(s: Step, write: Callable[[Node], str]) -> str:
    """What a step made of a node: a formula, or in words where nothing took its place."""
    if s.after is None:
        return "not computed"
    return "computed once" if s.after is s.before else write(s.after)


def query_step_views(steps: Iterable[QueryStep]) -> list[StepView]:
    """A view a rewriting of a query, whose before and after are SQL."""
    return [
        StepView(i, s.stage, s.rule.name, s.rule.law, s.before, s.after, s.cost_before, s.cost_after, s.rule.why, None)
        for i, s in enumerate(steps, 1)
    ]


def alternative_views(alternatives: Iterable[Alternative], names: Mapping[Node, str]) -> tuple[AlternativeView, ...]:
    """What was considered and lost; a rewriting is told by what it would have made of what."""
    return tuple(
        AlternativeView(a.kind, a.name, what(a, names), a.seconds, a.chosen_seconds, a.reason) for a in alternatives
    )


def what(a: Alternative, names: Mapping[Node, str]) -> str:
    """The plan that was rejected, in a line."""
    if a.before is None or a.after is None:
        return a.what
    return f"{formula(a.before, names, DEPTH)} → {formula(a.after, names, DEPTH)}"


def largest_difference(before: Node, after: Node) -> float:
    """The largest relative difference of both sides of a step on random rows."""
    if before is after:
        return 0.0
    before, after = cut(before, after)
    expanded = run_stage("expand", Plan({"before": before, "after": after}), [])
    return difference(expanded.outputs["before"], expanded.outputs["after"])


STEP_COLUMNS = "stage rule law before after cost_before cost_after why difference plan_difference".split()
ALTERNATIVE_COLUMNS = "kind name what seconds chosen_seconds factor reason".split()
FIGURES = (*STEP_COLUMNS[5:7], *STEP_COLUMNS[8:], *ALTERNATIVE_COLUMNS[3:6])  # the columns of numbers


def columns_of(views: Iterable[object], names: Sequence[str]) -> dict[str, list[Any]]:
    """Views as columns: an attribute a column."""
    rows = [[getattr(v, name) for name in names] for v in views]
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def with_plan_differences(
    views: Sequence[StepView], outputs: Sequence[Node], without: Callable[[str], Sequence[Node] | None], most_nodes: int
) -> list[StepView]:
    """The steps, each with how far the whole plan's outputs are from those of the plan made without its rule.

    ``without`` plans anew without a rule. Both plans run on the same random rows. None for rules that are always on,
    for plans of more than ``most_nodes`` nodes, where it would take long, and where ``without`` finds no outputs that
    can be compared.
    """
    found: dict[str, float | None] = {}
    small = sum(1 for _ in walk(outputs)) <= most_nodes
    for name in dict.fromkeys(v.rule for v in views):
        can_go = small and RULES[name].stage not in ALWAYS_ON
        other = without(name) if can_go else None
        found[name] = None if other is None else differences(outputs, other)
    return [replace(v, plan_difference=found[v.rule]) for v in views]
