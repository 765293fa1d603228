"""Which inner loops are none: what computes on short entries as single values, in vector registers (``entries.py``)."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from ...planner import scalar
from ...planner.node import At, Node, Operand
from ...planner.ops import Broadcast, Map, Place, Reduce, ScatterAdd, Segment, Take
from ...planner.ops.elementwise import stretched
from ...planner.ops.shape import is_contiguous
from ...types import BOOLEAN, DOUBLE, FLOAT, Dim, Element, RowSet, concrete
from .fusion import Fusion
from .reader import is_named_part
from .tasks import Task

WIDEST = 64  # numbers of an entry: of more, a loop runs in vector registers by itself
FOLDS = {"add": "total", "maximum": "largest", "minimum": "least"}
LOOPS_ONLY = frozenset("sin cos logical_and logical_or logical_not".split())  # operations that entries do not have


def short_axis(fusion: Fusion, tasks: Iterable[Task]) -> int | None:
    """The size of the last axis if tasks that share an inner loop can compute on all of it at once."""
    first, *_ = tasks = list(tasks)
    if not first.key or first.key[-1] > WIDEST:
        return None
    inside = {t.node for t in tasks}
    truths = [t.node for t in tasks if t.node.type.element == BOOLEAN]  # have no place in memory
    if any(r not in inside for n in truths for r in fusion.readers[n]):
        return None
    return first.key[-1] if all(_Probe(fusion, t, inside).is_short for t in tasks) else None


def last_axis(task: Task) -> int:
    """Which axis of a task's entry is the last one that has several positions."""
    return max(i for i, d in enumerate(concrete(task.shape)) if d != 1)


class _Probe:
    """Reads what a task reads, and writes down whether all of it lies side by side or is one number for all."""

    NAME = "@"

    def __init__(self, fusion: Fusion, task: Task, inside: Container[Node]) -> None:
        self.fusion, self.inside = fusion, inside
        node, last = task.node, last_axis(task)
        at = At("r", tuple("0" if d == 1 else self.NAME if i == last else "i"
                           for i, d in enumerate(concrete(task.shape))))  # fmt: skip
        self.is_short, self.reads_entry = self.fits(node, task), False
        if isinstance(node, (Reduce, Segment)):
            self.value(node.x, at)
        elif isinstance(node, ScatterAdd):
            self.value(node.x[0], at)
        elif self.is_short:
            node.number(self, at)
        self.is_short &= self.reads_entry

    def fits(self, node: Node, task: Task) -> bool:
        """Whether the operator has a form for entries, and its result a place for them."""
        if isinstance(node, Reduce):
            folds = node.rows or any(d != 1 for i, d in enumerate(concrete(task.shape)) if i in node.axes)
            return folds and node.ufunc in FOLDS and node.type.element in (FLOAT, DOUBLE)
        if node.type.element == BOOLEAN:
            return isinstance(node, Map) and node not in self.fusion.arrays and len(task.key) == 1
        return isinstance(node, (Map, Place, ScatterAdd, Segment, Take)) and node.type.element in (FLOAT, DOUBLE)

    def value(self, node: Node, at: At) -> str:
        if node in self.fusion.virtual and not is_named_part(self.fusion, node):
            known = node.is_view or isinstance(node, (Map, Broadcast, Place, Take))
            self.is_short &= known
            return node.number(self, at) if known else ""
        places = [p for p, d in zip(at.entry, node.type.shape, strict=True) if d != 1]
        if any(self.NAME in p for p in (at.row, *places)):
            self.reads_entry = True
            beside = not any(self.NAME in p for p in (at.row, *places[:-1])) and places[-1] == self.NAME
            numbers = node.type.element in (FLOAT, DOUBLE) or node in self.inside
            self.is_short &= beside and numbers and is_contiguous(node)
        return ""

    def position(self, index: Node, at: At, count: Dim | RowSet) -> str:
        self.value(index, stretched(index, at))
        return ""

    def arithmetic(self, expression: str, arguments: Mapping[str, Operand], element: Element) -> str:
        names = {name for name, _ in scalar.passes(expression)}
        self.is_short &= not names & LOOPS_ONLY and (element == FLOAT or "power" not in names)
        for a in arguments.values():
            if isinstance(a, str):
                self.reads_entry |= self.NAME in a
                self.is_short &= self.NAME not in a or a == f"{self.NAME} == "
            else:
                self.value(*a)
        return ""
