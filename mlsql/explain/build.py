"""From a plan to its view: names, formulas, sizes, costs, and what was measured."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..executor.clock import Measured
from ..executor.scalars import FOLDS, numbers_of
from ..optimizer.cost import Machine, seconds
from ..optimizer.frequency import SINGLE, Frequency, Runs, frequencies
from ..planner.node import Node, walk
from ..planner.ops import Constant, Count, Counter, Slice
from ..types import UNIT, Symbol, shape_text
from .formula import TIGHTEST, applied, formula, leaf_text
from .terms import KINDS, place
from .trace import Change, Trace
from .view import Actual, GraphChange, GraphNode, Operator, Root, TraceView

INLINE = (Constant, Count, Counter)  # they stand in the formulas that read them
INLINE_WIDTH = 28  # and so does arithmetic on them that is not longer


@dataclass
class Described:
    """The operators of some plans, numbered as they are first met; the same node is the same operator.

    ``names`` are those that the statement gave.
    """

    names: Mapping[Node, str]
    machine: Machine = field(default_factory=Machine)
    runs: Runs = field(default_factory=lambda: SINGLE)
    when: Mapping[Node, str] = field(default_factory=dict)
    measured: Mapping[Node, Measured] | None = None
    places: Callable[[Node], str | None] = lambda node: None  # where compiled code computes a node, if it does

    def __post_init__(self) -> None:
        self.operators: dict[Node, Operator] = {}
        self.labels: dict[Node, tuple[str, int]] = {}  # the text by which a node is referred to, and how it binds
        self.taken: set[str] = set()
        self.counts: dict[str, int] = {}

    def add(self, outputs: Iterable[Node]) -> None:
        """Describe every node that the outputs need."""
        outputs = list(outputs)
        nodes = list(walk(outputs))
        numbers = numbers_of(nodes, [n for n in outputs if n.type.shape])
        often = frequencies(outputs)
        for node in nodes:
            if node not in self.labels:
                self.describe(node, numbers, often, outputs)

    def describe(
        self, node: Node, numbers: Collection[Node], often: Mapping[Node, Frequency], outputs: Sequence[Node]
    ) -> None:
        """Give a node its label and, unless it stands in the formulas of others, its operator."""
        leaf = leaf_text(node)
        if leaf is not None:
            self.labels[node] = leaf, TIGHTEST
            if not isinstance(node, INLINE) or node in outputs:
                self.enter(node, self.fresh(leaf), leaf, numbers, often)
            return
        named = self.names.get(node)
        if node.is_view and node not in outputs:
            self.labels[node] = (named, TIGHTEST) if named else seen(node, *self.labels[node.inputs[0]])
            return
        text, level = applied(node, [self.labels[n] for n in node.inputs])
        small = node in numbers and not isinstance(node, FOLDS) and len(text) <= INLINE_WIDTH
        if small and named is None and node not in outputs:
            self.labels[node] = text, level
            return
        name = self.fresh(named or node.operator_name())
        self.labels[node] = name, TIGHTEST
        self.enter(node, name, text, numbers, often)

    def enter(
        self, node: Node, name: str, formula: str, numbers: Collection[Node], often: Mapping[Node, Frequency]
    ) -> None:
        """Make the operator of a node."""
        database, network = KINDS[node.kind]
        self.operators[node] = Operator(
            id=len(self.operators),
            name=name,
            formula=formula if node.inputs else f"{node.kind} {formula}" if node.kind in SPELT else formula,
            operator=node.operator_name(),
            kind=node.kind,
            database=database,
            network=network,
            doc=summary(node),
            inputs=tuple(dict.fromkeys(i for n in node.inputs for i in self.reached(n))),
            has_rows=node.type.rows != UNIT,
            rows=None if node.type.rows == UNIT else node.type.rows.rows,
            type=f"{node.type.element}{shape_text(node.type.shape)}",
            when=self.when.get(node, ""),
            runs=self.runs[often[node]],
            flops=node.flops(),
            bytes=node.bytes(),
            seconds=seconds(node, self.machine) if sizes_known(node) else None,
            place=self.places(node) or place(node, numbers),
            actual=None if self.measured is None else actual(node, self.measured.get(node)),
        )

    def reached(self, node: Node) -> list[int]:
        """The operators that stand for a node: its own, or those behind a view or an inlined number."""
        if node in self.operators:
            return [self.operators[node].id]
        return [i for n in node.inputs for i in self.reached(n)]

    def fresh(self, name: str) -> str:
        """A name that no operator has yet."""
        label = name
        while label in self.taken:
            self.counts[name] = self.counts.get(name, 1) + 1
            label = f"{name}_{self.counts[name]}"
        self.taken.add(label)
        return label

    def roots(self, outputs: Mapping[str, Node]) -> tuple[Root, ...]:
        """The outputs by name, described."""
        self.add(outputs.values())
        return tuple(Root(label, self.operators[node].id) for label, node in outputs.items())


def seen(view: Node, text: str, level: int) -> tuple[str, int]:
    """A view by the text of what it views; a part of that is told as the language does, from 1: ``w[1:64]``."""
    if not isinstance(view, Slice) or view.axis != 0:
        return text, level
    whole = text if level == TIGHTEST else f"({text})"
    return f"{whole}[{view.start + 1}:{view.stop}]", TIGHTEST


SPELT = ("scan", "state", "parameter")  # leaves whose lines say what they are


def actual(node: Node, measured: Measured | None) -> Actual | None:
    """What was measured of a node, its work scaled to the rows that there really were."""
    if measured is None or not measured.runs:
        return None
    rows = measured.rows / measured.runs
    scale = measured.rows / (node.type.rows.rows or rows) if node.type.rows != UNIT else measured.runs
    return Actual(measured.runs, rows, measured.seconds, node.flops() * scale, node.bytes() * scale)


def trace_view(trace: Trace, described: Described) -> TraceView:
    """A trace as plain values; costs, names and what was measured are those of the plan that came out."""
    changes = [*trace.starts.values(), *trace.changes]
    nodes = list(dict.fromkeys(node for c in changes for node, _ in c.set.values()))
    often = frequencies(nodes)
    numbers = numbers_of(list(walk(nodes)), ())
    index = {n: i for i, n in enumerate(nodes)}

    def plain(c: Change) -> GraphChange:
        places = tuple((at, index[node], inputs) for at, (node, inputs) in c.set.items())
        return GraphChange(places, c.gone, c.before, c.after)

    return TraceView(
        tuple(graph_node(n, described, often[n], numbers) for n in nodes),
        tuple((i, plain(c)) for i, c in trace.starts.items()),
        tuple(plain(c) for c in trace.changes),
        trace.is_local,
    )


def graph_node(node: Node, described: Described, often: Frequency, numbers: Collection[Node]) -> GraphNode:
    """The box of a node."""
    database, network = KINDS[node.kind]
    runs = described.runs[often]
    measured = None if described.measured is None else described.measured.get(node)
    return GraphNode(
        name=described.names.get(node) or leaf_text(node) or node.operator_name(),
        text=formula(node, described.names, 2),
        operator=node.operator_name(),
        kind=node.kind,
        database=database,
        network=network,
        doc=summary(node),
        has_rows=node.type.rows != UNIT,
        rows=None if node.type.rows == UNIT else node.type.rows.rows,
        type=f"{node.type.element}{shape_text(node.type.shape)}",
        frequency=str(often),
        runs=runs,
        flops=node.flops(),
        bytes=node.bytes(),
        seconds=seconds(node, described.machine) if sizes_known(node) else None,
        place=place(node, numbers),
        quiet=isinstance(node, INLINE),
        actual=actual(node, measured),
    )


def summary(node: Node) -> str:
    """The first line of an operator's docstring."""
    return (type(node).__doc__ or "").strip().split("\n")[0]


def sizes_known(node: Node) -> bool:
    """Whether it is known how many numbers a node and its inputs have."""
    types = [n.type for n in (node, *node.inputs)]
    return all(t.rows.rows is not None and not any(isinstance(d, Symbol) for d in t.shape) for t in types)
