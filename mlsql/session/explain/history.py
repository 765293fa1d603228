"""How a plan came about: its steps with numeric checks, the graph after each, what it costs to leave rules out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field, replace

from ...errors import listed
from ...executor.clock import Measured
from ...explain.build import Described, trace_view
from ...explain.steps import step_views, with_plan_differences
from ...explain.trace import Phase, trace
from ...explain.view import PlanView
from ...figures import duration
from ...optimizer.cost import Machine
from ...optimizer.frequency import SINGLE, Runs
from ...optimizer.rule import Step
from ...planner.node import Node
from ...record import record
from .options import Options

MOST_CHECKED = 400  # nodes of a plan that is made and run anew without each of its rules


@record
class History:
    """How a plan came about. ``outputs`` are what it gives; ``without`` gives the same, planned without a rule,
    or None if that plan's outputs are others."""

    phases: Sequence[Phase]
    names: Mapping[Node, str]
    machine: Machine
    outputs: Sequence[Node]
    without: Callable[[str], Sequence[Node] | None]
    runs: Runs = field(default_factory=lambda: SINGLE)

    @property
    def steps(self) -> list[Step]:
        """The steps of all phases."""
        return [s for _, steps, _ in self.phases for s in steps]


def with_history(
    view: PlanView, history: History, options: Options, measured: Mapping[Node, Measured] | None = None
) -> PlanView:
    """The view with as much of the history as the options ask for."""
    if not options.needs_steps:
        return view
    steps = step_views(history.steps, history.names, history.machine, history.runs)
    steps = with_plan_differences(steps, history.outputs, history.without, MOST_CHECKED)
    view = replace(view, steps=tuple(steps))
    if not options.needs_trace:
        return view
    described = Described(history.names, history.machine, history.runs, measured=measured)
    return replace(view, trace=trace_view(trace(history.phases), described))


def worth(rules: Collection[str], without: float | None, with_all: float | None, what: str) -> str:
    """What rules are worth, in a line: the times of the whole run without them and with them."""
    named = f"without {listed(rules)}"
    if without is None or not with_all:
        return f"{named}: what it is worth can be told once sizes are known"
    ratio = without / with_all
    verdict = "no difference" if 0.995 < ratio < 1.005 else f"{ratio:.3g} times as long"
    return f"{named}: {what} {duration(without)}; with all rules: {duration(with_all)} ({verdict})"


def noted(view: PlanView, note: str) -> PlanView:
    """The view with one more note."""
    return replace(view, notes=(*view.notes, note))
