"""From a plan to straight-line array code: one Python function a step, every array allotted before it runs.

The text is what one would write by hand with NumPy: a call an operator, into preallocated outputs, with the operator
as a comment. ``prepare`` makes the views and everything that does not change between steps; ``step`` is the loop's
body. Plain numbers (the step's count, a learning rate's schedule) stay Python numbers and cost next to nothing.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from ..planner import scalar
from ..planner.node import Node, depends_on, walk
from ..planner.ops import (
    Column,
    Constant,
    Count,
    Counter,
    Index,
    Map,
    Parameter,
    Positions,
    Reshape,
    State,
)
from ..record import record
from ..types import UNIT, RowSet, Type
from .device import namespace
from .memory import Layout, is_view, owner, plan_layout
from .scalars import FOLDS, Elementwise, literal, numbers_of, on_numbers

LEAVES = (Column, Positions, Parameter, State)


@record
class Program:
    """Generated code, and what it takes to run it."""

    source: str
    layout: Layout
    scratch: tuple[int, ...]  # bytes of the arrays that kernels use for themselves
    arrays: Mapping[Node, str]  # leaves that prepare() takes, and the name of its argument
    row_counts: Mapping[RowSet, str]
    arguments: tuple[Node, ...]  # what step() takes: indexes and counters
    timed: tuple[Node, ...] = ()  # the operators whose time is taken, by number

    @property
    def arena_bytes(self) -> int:
        return self.layout.bytes + sum(self.scratch)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The bytes of the slots of the arena."""
        return (*self.layout.slots, *self.scratch)

    def slot_of(self) -> Mapping[Node, int]:
        """In which slot a value lies."""
        return self.layout.slot

    def allocate(self, empty: Callable[..., Any]) -> list[Any]:
        """A fresh arena."""
        return [empty(max(1, size), "uint8") for size in self.sizes]


def generate(
    outputs: Sequence[Node],
    *,
    updates: Mapping[State, Node] | None = None,
    names: Mapping[Node, str] | None = None,
    varying: Collection[Node] = (),
    arguments: Sequence[Node] = (),
    timed: bool = False,
) -> Program:
    """Array code for ``outputs``, which step() returns, and for the new values of states, which it stores.

    ``arguments`` are the indexes and counters that step() takes, in order. ``varying`` are leaves besides indexes,
    counters and states that differ from step to step. ``names`` are the names that a reader of the code should see.
    With ``timed`` the code calls ``begin()`` and, behind every operator, ``clock(number, rows)``.
    """
    return _Generator(outputs, dict(updates or {}), names or {}, varying, arguments, timed).program()


class Names:
    """The names of a text that are in use."""

    def __init__(self, reserved: Iterable[str]) -> None:
        self.taken = set(reserved)

    def fresh(self, hint: str) -> str:
        """A name that is not in use yet, after what it is for."""
        plain = re.sub(r"\W+", "_", hint).strip("_").lower() or "value"
        plain = f"{plain}_" if keyword.iskeyword(plain) else plain
        plain = f"v{plain}" if plain[0].isdigit() else plain
        name, count = plain, 2
        while name in self.taken:
            name, count = f"{plain}_{count}", count + 1
        self.taken.add(name)
        return name


class _Generator:
    def __init__(
        self,
        outputs: Sequence[Node],
        updates: dict[State, Node],
        names: Mapping[Node, str],
        varying: Collection[Node],
        arguments: Sequence[Node],
        timed: bool,
    ) -> None:
        self.outputs = outputs
        self.timed: list[Node] | None = [] if timed else None
        self.updates = updates
        self.names = names
        self.nodes = list(walk([*outputs, *updates.values()]))
        self.numbers = numbers_of(self.nodes, [n for n in outputs if n.type.shape])
        moving = [n for n in self.nodes if isinstance(n, (Index, Counter, State)) or n in set(varying)]
        self.in_step = depends_on(self.nodes, moving)
        schedule = [n for n in self.nodes if n in self.in_step and (self.is_computed(n) or isinstance(n, FOLDS))]
        self.layout = plan_layout(schedule, updates, [n for n in outputs if n not in self.numbers], self.numbers)
        self.variable: dict[Node, str] = {}
        self.taken = Names(_RESERVED)
        self.row_counts: dict[RowSet, str] = {}
        self.arguments: list[Node] = []
        self.leaves: dict[Node, str] = {}
        self.setup: list[str] = []
        self.body: list[str] = []
        self.views: dict[tuple[str, str], str] = {}
        self.memory: dict[str, int | str] = {}  # the slot, or the state's array, in which an array lies
        self.scratch: list[int] = []
        self.scratch_used = 0
        self.now_once = False
        for n in arguments:
            self.take_argument(n)

    def is_computed(self, node: Node) -> bool:
        return node not in self.numbers and not isinstance(node, (*LEAVES, Index, Counter, Count))

    # -- the walk -----------------------------------------------------------------------------------------------

    def program(self) -> Program:
        for node in self.nodes:
            lines = self.body if node in self.in_step else self.setup
            written = len(lines)
            self.visit(node)
            if self.timed is not None and node.inputs and not is_view(node) and len(lines) > written:
                lines.append(self.clock(node, self.timed))
        self.now_once = False
        results = [self.result(n) for n in self.outputs]
        self.copy_states()
        self.body.append(f"return ({', '.join(results)},)" if results else "return ()")
        return Program(
            self.text(),
            self.layout,
            tuple(self.scratch),
            dict(self.leaves),
            dict(self.row_counts),
            tuple(self.arguments),
            tuple(self.timed or ()),
        )

    def clock(self, node: Node, timed: list[Node]) -> str:
        """The line that takes the time of the operator above it."""
        timed.append(node)
        count = self.count(node)
        return f"clock({len(timed) - 1}{', ' if count else ''}{count})"

    def copy_states(self) -> None:
        """New values of the states that could not be overwritten; old values that move go by way of a scratch array."""
        self.scratch_used = 0
        sources: list[str] = []
        for new in self.layout.copied_at_end.values():
            source = self.variable[new]
            if isinstance(owner(new), State):
                source = self.temporary(new.type)
                self.body.append(f"copyto({source}, {self.variable[new]})")
            sources.append(source)
        for state, source in zip(self.layout.copied_at_end, sources, strict=True):
            self.body.append(f"copyto({self.leaf(state)}, {source})")

    def text(self) -> str:
        parameters = ["arena", *self.row_counts.values(), *self.leaves.values()]
        arguments = [self.variable[n] for n in self.arguments]
        begin = ["begin()"] if self.timed is not None else []
        lines = [f"def prepare({', '.join(parameters)}):"]
        lines += [f"    {line}" for line in (*begin, *self.setup)]
        lines += ["", f"    def run_step({', '.join(arguments)}):"]
        lines += [f"        {line}" for line in (*begin, *self.body)]
        return "\n".join([*lines, "", "    return run_step", ""])

    def visit(self, node: Node) -> None:
        """Write the code of one node."""
        self.now_once = node not in self.in_step
        if isinstance(node, LEAVES):
            self.leaf(node)
        elif isinstance(node, (Index, Counter)):
            self.take_argument(node)
        elif node in self.numbers:
            self.visit_number(node)
        elif is_view(node):
            self.variable[node] = self.view(self.variable[node.inputs[0]], node.seen(self), self.hint(node))
        else:
            self.visit_kernel(node)

    def take_argument(self, node: Node) -> None:
        """Let step() take an index or a counter."""
        if node not in self.variable:
            self.variable[node] = self.fresh(node.name if isinstance(node, Counter) else "index")
            self.arguments.append(node)

    def visit_number(self, node: Node) -> None:
        """A plain number: inlined if it is a constant, else a line of Python arithmetic."""
        if isinstance(node, Constant):
            self.variable[node] = literal(node.values[0], node.element)
        elif isinstance(node, Count):
            self.variable[node] = self.rows(node.rows)
        elif isinstance(node, Reshape):
            self.variable[node] = self.variable[node.x]
        else:
            name = self.variable[node] = self.fresh(self.hint(node))
            self.write(f"{name} = {self.arithmetic(node)}")

    def arithmetic(self, node: Node) -> str:
        """The Python text of a number: folded from an array, or computed from other numbers."""
        if isinstance(node, FOLDS):
            return f"{node.ufunc}.reduce({self.variable[node.x]}, None).item()"
        assert isinstance(node, Map)
        arguments = {f: self.variable[n] for f, n in zip(node.names(), node.inputs, strict=True)}
        return scalar.source(on_numbers(node.expression), arguments)

    def visit_kernel(self, node: Node) -> None:
        """An array: allotted before the loop, filled by the operator's kernel."""
        self.allot(node)
        name = self.variable[node]
        self.scratch_used = 0
        if not self.now_once:
            self.body.append(f"# {self.comment(node)}")
        node.emit(self, name, *(self.variable[n] for n in node.inputs))

    def allot(self, node: Node) -> None:
        """Make the array of a node, unless a part that lies in it has made it already."""
        if node not in self.variable:
            place = self.allotted(node)
            name = self.variable[node] = self.fresh(self.hint(node))
            self.setup.append(f"{name} = {place}")
            if node in self.layout.overwrites:
                self.memory[name] = place
            elif node in self.layout.slot and node not in self.outputs:
                self.memory[name] = self.layout.slot[node]

    def allotted(self, node: Node) -> str:
        """The text that makes the array of a node."""
        shape, dtype = self.shape(node.type), repr(node.type.element.storage)
        if node in self.layout.overwrites:
            return self.leaf(self.layout.overwrites[node])
        if node in self.layout.placed:
            whole, start, stop = self.layout.placed[node]
            self.allot(whole)
            return f"{self.variable[whole]}[{start}:{stop}].reshape({shape})"
        if node in self.layout.slot and node not in self.outputs:
            return f"array(arena, {self.layout.slot[node]}, {shape}, {dtype})"
        return f"empty({shape}, {dtype})"

    def comment(self, node: Node) -> str:
        details = [str(v) for v in node.attributes().values() if isinstance(v, (str, int)) and v is not False]
        inputs = [self.variable[n] for n in node.inputs]
        return f"{self.variable[node]} = {node.operator_name()}({', '.join([*inputs, *details])})"

    def hint(self, node: Node) -> str:
        return self.names.get(node) or node.operator_name()

    def leaf(self, node: Node) -> str:
        """The argument of prepare() that brings a column, a parameter or a state."""
        if node not in self.leaves:
            self.leaves[node] = self.variable[node] = self.fresh(self.names.get(node) or node.name)  # type: ignore[attr-defined]
        return self.leaves[node]

    def rows(self, rows: RowSet) -> str:
        """The variable that holds the number of rows of a row set."""
        if rows not in self.row_counts:
            self.row_counts[rows] = self.fresh(f"n_{rows.name}")
        return self.row_counts[rows]

    def fresh(self, hint: str) -> str:
        return self.taken.fresh(hint)

    def result(self, node: Node) -> str:
        """What step() returns for an output: a Python number for a single one, else the array."""
        name = self.variable[node]
        if owner(node) in self.layout.copied_at_end:  # an old value, which the new one is about to replace
            name = self.fresh(f"{name}_before")
            self.setup.append(f"{name} = empty({self.shape(node.type)}, {node.type.element.storage!r})")
            self.body.append(f"copyto({name}, {self.variable[node]})")
        single = node.type.rows == UNIT and not node.type.shape
        return f"{name}.item()" if single and node not in self.numbers else name

    def write(self, line: str) -> None:
        (self.setup if self.now_once else self.body).append(line)

    # -- what kernels call: planner.node.Emitter ------------------------------------------------------------------

    def call(self, function: str, *arguments: object) -> None:
        self.write(f"{function}({', '.join(str(a) for a in arguments)})")

    def line(self, text: str) -> None:
        self.write(text)

    def view(self, array: str, expression: str, hint: str | None = None) -> str:
        key = (array, expression)
        if key not in self.views:
            suffix = "t" if expression.startswith((".T", ".transpose", ".swapaxes")) else "view"
            name = self.views[key] = self.fresh(hint or f"{array}_{suffix}")
            self.setup.append(f"{name} = {array}{expression}")
        return self.views[key]

    def once(self, expression: str) -> str:
        return self.view("", expression, "rows")

    def is_fixed(self, node: Node) -> bool:
        return isinstance(node, Positions) or node not in self.in_step

    def temporary(self, like: Type) -> str:
        size = _bytes(like)
        if self.scratch_used == len(self.scratch):
            self.scratch.append(0)
        slot = self.scratch_used
        self.scratch[slot] = max(self.scratch[slot], size)
        self.scratch_used += 1
        place = len(self.layout.slots) + slot
        return self.view("", f"array(arena, {place}, {self.shape(like)}, {like.element.storage!r})", "scratch")

    def shape(self, type: Type) -> str:
        sizes = [str(d) for d in type.shape]
        if type.rows != UNIT:
            sizes.insert(0, self.rows(type.rows))
        return f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(sizes)})"

    def count(self, node: Node) -> str:
        return "" if node.type.rows == UNIT else self.rows(node.type.rows)

    def aligned(self, node: Node, rank: int) -> str:
        name = self.variable[node]
        missing = rank - node.type.rank
        if node in self.numbers or node.type.rows == UNIT or missing <= 0:
            return name
        return self.view(name, f"[:{', None' * missing}]")

    def copy(self, source: str, out: str) -> None:
        if self.memory.get(source, source) != self.memory.get(out, out):
            self.call("copyto", out, source)

    def is_placed(self, part: Node, whole: Node, start: int) -> bool:
        return self.layout.placed.get(owner(part), ())[:2] == (whole, start)

    def scalar(self, expression: str, arguments: Mapping[str, Node], out: str, type: Type) -> None:
        names = {name: self.aligned(n, type.rank) for name, n in arguments.items()}
        arrays = [n for n in arguments.values() if n not in self.numbers]
        Elementwise(self, names, type, arrays).evaluate(scalar.parse(expression), out)


_RESERVED = frozenset(["arena", "prepare", "run_step", "begin", "clock", *namespace(), *dir(builtins)])


def _bytes(type: Type) -> int:
    size = type.size
    return type.element.bytes * (1 if size is None else size)
