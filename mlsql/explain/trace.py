"""How a plan changed, rewriting by rewriting: a graph, and what every step adds to it, changes and takes away.

A rewriting makes new nodes of all that read it, directly or not, since nodes are frozen. To a person these are the same
operators as before, so they keep their number here; only what the step put in place of the old is new.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from ..optimizer.rule import Step
from ..planner.node import Node, rebuilt, walk
from ..planner.plan import Plan
from ..record import record
from .around import around

MOST_WORK = 300_000  # nodes looked at in all steps together: beyond, steps are shown without the plan around them

Phase = tuple[Plan, Sequence[Step], Plan]  # where it starts, what happens, where it ends
Inputs = tuple[int, ...]


@record
class Change:
    """What a step does to the graph: nodes by number that are new or have other inputs, and those that are gone.

    ``before`` is the node that the rule saw, ``after`` the one that took its place (None: nothing did).
    """

    set: Mapping[int, tuple[Node, Inputs]]
    gone: tuple[int, ...]
    before: int | None
    after: int | None


@record
class Trace:
    """The graph of a plan at the start of every phase and after each of its steps.

    ``changes[i]`` belongs to step i. A phase starts anew, as the gradient is taken between two: ``starts`` has its
    graph, by the number of its first step. With ``is_local`` there are only the two sides of each step.
    """

    starts: Mapping[int, Change]
    changes: tuple[Change, ...]
    is_local: bool


def trace(phases: Sequence[Phase]) -> Trace:
    """Replay the steps of some phases."""
    work = sum(len(steps) * sum(1 for _ in plan.nodes()) for plan, steps, _ in phases)
    if work > MOST_WORK:
        return local_trace([s for _, steps, _ in phases for s in steps])
    starts: dict[int, Change] = {}
    changes: list[Change] = []
    numbers = Numbers()
    for plan, steps, end in phases:
        outputs = list(plan.outputs.values())
        starts[len(changes)] = numbers.renewed(outputs)
        for step in steps:
            outputs, change = numbers.applied(outputs, step)
            changes.append(change)
        if steps:  # in the end there is the plan that really came out, with the nodes that are really there
            last, rest = changes[-1], numbers.compared(list(end.outputs.values()), None, None)
            gone = tuple(dict.fromkeys((*last.gone, *rest.gone)))
            changes[-1] = Change({**last.set, **rest.set, **numbers.stale()}, gone, last.before, last.after)
    return Trace(starts, tuple(changes), is_local=False)


def local_trace(steps: Sequence[Step]) -> Trace:
    """Both sides of every step and a little of what they stand on, each step by itself."""
    starts: dict[int, Change] = {}
    changes: list[Change] = []
    numbers = Numbers()
    for i, step in enumerate(steps):
        numbers.part = around(step.before, step.before if step.after is None else step.after)
        starts[i] = numbers.renewed([step.before])
        changes.append(numbers.applied([step.before], step)[1])
    return Trace(starts, tuple(changes), is_local=True)


class Numbers:
    """Gives nodes their numbers, and says what is new since it was last asked."""

    def __init__(self) -> None:
        self.number: dict[Node, int] = {}
        self.graph: dict[int, tuple[Node, Inputs]] = {}
        self.next = 0
        self.told: dict[int, Node] = {}  # the node of each place that a change has named last
        self.part: Collection[Node] | None = None  # the nodes to be shown; None: all

    def renewed(self, outputs: Sequence[Node]) -> Change:
        """A graph that has nothing to do with the one before it."""
        self.number, self.graph = {}, {}
        return self.compared(outputs, None, None)

    def applied(self, outputs: Sequence[Node], step: Step) -> tuple[list[Node], Change]:
        """The outputs after a step, and what changed."""
        if step.after is None:  # an output that nobody asked for, or a column that only such outputs read
            kept = [n for n in outputs if n is not step.before]
            place = self.number.get(step.before)
            change = self.compared(kept, None, None)
            return kept, Change(change.set, change.gone, place, None)
        seen, made = step.place or (step.before, step.after)
        if made is seen:
            return list(outputs), self.compared(outputs, seen, made)
        new = rebuilt(outputs, {seen: made})
        before = self.number.get(seen)
        for old, node in new.items():
            if old is not node and old is not seen and node not in self.number:
                self.number[node] = self.number[old]
        roots = [new[n] for n in outputs]
        change = self.compared(roots, seen, made)
        return roots, Change(change.set, change.gone, before, change.after)

    def stale(self) -> dict[int, tuple[Node, Inputs]]:
        """The places whose node is another by now, though it reads the same places."""
        return {i: entry for i, entry in self.graph.items() if self.told[i] is not entry[0]}

    def compared(self, outputs: Sequence[Node], before: Node | None, after: Node | None) -> Change:
        """What the graph of these outputs has that the last one had not, and the other way round."""
        graph: dict[int, tuple[Node, Inputs]] = {}
        for node in walk(outputs):
            if node not in self.number:
                self.number[node] = self.next
                self.next += 1
            if self.part is None or node in self.part:
                graph[self.number[node]] = (node, tuple(self.number[n] for n in node.inputs))
        fresh = {i: entry for i, entry in graph.items() if i not in self.graph or self.graph[i][1] != entry[1]}
        self.told |= {i: node for i, (node, _) in fresh.items()}
        gone = tuple(i for i in self.graph if i not in graph)
        self.graph = graph
        place: Callable[[Node | None], int | None] = lambda n: None if n is None else self.number.get(n)  # noqa: E731
        return Change(fresh, gone, place(before), place(after))
