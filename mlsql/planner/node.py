"""A node of a plan: frozen, interned, typed at birth.

Building the same operator over the same inputs twice gives the same object, so equal subplans are one node: common
subexpressions are free, and a gradient finds the forward pass's intermediates without looking for them.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import weakref
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from enum import IntEnum
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeVar, dataclass_transform

from ..errors import InternalError
from ..record import by_identity, record
from ..types import DOUBLE, UNIT, Dim, Element, RowSet, Type
from .work import CALL, NOTHING, Work


class Emitter(Protocol):
    """What a kernel writes to: straight-line array code over preallocated arrays.

    Arrays are known by name. A view is made once, before the loop; a call runs at every pass.
    """

    def call(self, function: str, *arguments: object) -> None:
        """Run ``function(*arguments)``, the output array last."""

    def line(self, text: str) -> None:
        """Run one line of array code as it stands."""

    def copy(self, source: str, out: str) -> None:
        """Copy one array to another of the same type, unless they are the same memory."""

    def rows(self, rows: RowSet) -> str:
        """The text of the number of rows of a row set."""

    def view(self, array: str, expression: str) -> str:
        """The name of ``array`` seen through ``expression``, such as ``.reshape(n, 1)`` or ``.T``."""

    def once(self, expression: str) -> str:
        """The name of a value that is computed before the loop."""

    def is_fixed(self, node: Node) -> bool:
        """Whether the value of ``node`` is the same in every pass, so that ``once`` may read its array."""

    def temporary(self, like: Type) -> str:
        """The name of a scratch array, free again when this kernel ends."""

    def shape(self, type: Type) -> str:
        """The text of the array shape that holds all rows of ``type``."""

    def scalar(self, expression: str, arguments: Mapping[str, Node], out: str, type: Type) -> None:
        """Evaluate a scalar expression elementwise into ``out``."""

    def aligned(self, node: Node, rank: int) -> str:
        """The array of ``node`` with its entry padded on the left to ``rank`` axes, so that broadcasting is right."""

    def count(self, node: Node) -> str:
        """The text of the number of rows of ``node``; empty for the unit row set."""

    def is_placed(self, part: Node, whole: Node, start: int) -> bool:
        """Whether a part was computed where ``whole`` wants it, at ``start``, so that nothing is to be copied."""


@record
class At:
    """Where a number stands, as texts: its row (empty in the unit row set), and its position along each entry axis."""

    row: str
    entry: tuple[str, ...] = ()


Operand = tuple["Node", At] | str  # a number of a node, or the text of a number


class Elements(Protocol):
    """What an operator asks for to write one of its numbers as an expression over numbers of its inputs."""

    def value(self, node: Node, at: At) -> str:
        """The text of one number of ``node``."""

    def position(self, index: Node, at: At, count: Dim | RowSet) -> str:
        """The text of a position that ``index`` holds, of ``count`` in all: one outside is the nearest inside."""

    def arithmetic(self, expression: str, arguments: Mapping[str, Operand], element: Element) -> str:
        """The text of a scalar expression over numbers of its arguments, as a number of ``element``. An argument that
        is a text stands for itself."""


class Reach(IntEnum):
    """Which numbers of an input one number of the output reads."""

    PLACE = 0  # the one at its own place, or what is stretched over it
    ROW = 1  # others of the same row
    ALL = 2  # those of other rows


class Interned(type):
    """Metaclass: one object per operator and field values, checked for type when it is first made."""

    _nodes: ClassVar[weakref.WeakValueDictionary[Any, Node]] = weakref.WeakValueDictionary()
    _lock: ClassVar[Any] = threading.Lock()

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        fresh = super().__call__(*args, **kwargs)
        key = (cls, *(exact(getattr(fresh, name)) for name in field_names(cls)))
        with Interned._lock:
            known = Interned._nodes.get(key)
            if known is not None:
                return known
            _ = fresh.type  # everything that can be wrong is wrong here
            Interned._nodes[key] = fresh
        return fresh


@functools.cache
def field_names(cls: type) -> tuple[str, ...]:
    """The names of an operator's fields, in order."""
    return tuple(f.name for f in dataclasses.fields(cls))


def exact(value: Any) -> Any:
    """A key for a value of a field that tells 0.0 from -0.0 and holds NaN equal to itself."""
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, tuple):
        return tuple(exact(v) for v in value)
    return value


@by_identity
class Node(metaclass=Interned):
    """The base of every operator: fields say all of it, ``type`` is derived from them."""

    kind: ClassVar[str] = "node"
    functions: ClassVar[tuple[str, ...]] = ()  # the names by which the model language calls it
    is_view: ClassVar[bool] = False  # no work at run time: the output is the input's array, seen differently
    in_place: ClassVar[bool] = False  # the kernel may write into the array of an input of the same type

    @cached_property
    def inputs(self) -> tuple[Node, ...]:
        """The nodes this one reads, in the order of the fields."""
        found: list[Node] = []
        for name in field_names(type(self)):
            value = getattr(self, name)
            if isinstance(value, Node):
                found.append(value)
            elif isinstance(value, tuple):
                found += [v for v in value if isinstance(v, Node)]
        return tuple(found)

    @cached_property
    def type(self) -> Type:
        return self.infer()

    def infer(self) -> Type:
        """The type of the output; raises TypeProblem where the inputs do not fit."""
        raise self.lacks("type rule")

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        """For ``g``, the derivative of a scalar by this output, its derivative by each input (None: no gradient)."""
        return (None,) * len(self.inputs)

    def flops(self) -> int:
        """Floating-point operations of one evaluation, with unknown sizes counted as 1.

        Comparisons and choices count like arithmetic; copies and the arithmetic of positions do not.
        """
        simpler = self.expand()
        return 0 if simpler is None else sum(n.flops() for n in walk([simpler], self.inputs))

    def bytes(self) -> int:
        """Bytes read and written by one evaluation."""
        return 0 if self.is_view else sum(n.nbytes for n in (*self.inputs, self))

    def work(self) -> Work:
        """What one evaluation does, by the resource that it takes; the cost model gives each its rate.

        By default one call that reads the inputs and writes the output, or the work of the simpler operators.
        """
        if self.is_view:
            return NOTHING
        simpler = self.expand()
        if simpler is None:
            return Work((("add", self.flops()),), streamed=self.bytes(), calls=CALL, is_double=self.is_double)
        inputs = set(walk(self.inputs))
        return sum((n.work() for n in walk([simpler]) if n not in inputs), NOTHING)

    @property
    def is_double(self) -> bool:
        """Whether the output holds numbers of 64 bits."""
        return self.type.element == DOUBLE

    @cached_property
    def is_number(self) -> bool:
        """Whether it can be computed as a plain number of Python's rather than as an array of one."""
        return self.type.rows == UNIT and all(d == 1 for d in self.type.shape) and self.counts()

    def counts(self) -> bool:
        """For a value that is one number: whether it comes from plain numbers, or makes one of an array."""
        return False

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the output."""
        return size_of(self.type) * self.type.element.bytes

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        """Write the array code that computes this node from its inputs into ``out``."""
        raise self.lacks("kernel")

    def number(self, e: Elements, at: At) -> str:
        """The text of one number of the output: what fused loops are made of."""
        raise self.lacks("form for loops")

    def reaches(self) -> tuple[Reach, ...]:
        """For each input, which of its numbers ``number`` reads."""
        return (Reach.ALL,) * len(self.inputs)

    def simpler(self) -> Node:
        """The same value from operators that fused loops compute as fast as this one's own kernel, or itself."""
        return self

    def seen(self, e: Emitter) -> str:
        """For a view: the text that, behind the input's array, sees it as the output, such as ``.transpose(1, 0)``."""
        raise self.lacks("view")

    def lacks(self, part: str) -> InternalError:
        """The error for an operator that was asked for what it does not declare."""
        return InternalError(f"the operator {self.operator_name()} declares no {part}")

    def expand(self) -> Node | None:
        """The same value from simpler operators, or None for an operator that has a kernel."""
        return None

    def with_inputs(self, inputs: Iterable[Node], rows: Mapping[RowSet, RowSet] | None = None) -> Node:
        """This operator over other inputs; ``rows`` says which row sets give way to others."""
        rows = rows or {}
        rest = iter(inputs)
        values: dict[str, Any] = {}
        for name in field_names(type(self)):
            value = getattr(self, name)
            if isinstance(value, Node):
                value = next(rest)
            elif isinstance(value, tuple) and any(isinstance(v, Node) for v in value):
                value = tuple(next(rest) if isinstance(v, Node) else v for v in value)
            elif isinstance(value, RowSet):
                value = rows.get(value, value)
            elif isinstance(value, Type) and value.rows in rows:
                value = value.with_(rows=rows[value.rows])
            values[name] = value
        return type(self)(**values)

    @classmethod
    def operator_name(cls) -> str:
        """The name that EXPLAIN prints: ``LogSumExp`` is ``log_sum_exp``."""
        return "".join("_" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(cls.__name__))

    def attributes(self) -> dict[str, Any]:
        """The fields that are not inputs."""
        plain = {name: getattr(self, name) for name in field_names(type(self))}
        return {
            k: v
            for k, v in plain.items()
            if not isinstance(v, Node) and not (isinstance(v, tuple) and any(isinstance(x, Node) for x in v))
        }

    def row_sets(self) -> set[RowSet]:
        """The row sets that the node's type and fields name."""
        return {self.type.rows} | {v for v in self.attributes().values() if isinstance(v, RowSet)}

    def __repr__(self) -> str:
        details = ", ".join([*(f"{k}={v}" for k, v in self.attributes().items()), *(repr(n) for n in self.inputs)])
        return f"{self.operator_name()}({details})"


OPERATORS: dict[str, type[Node]] = {}
N = TypeVar("N", bound=Node)


@dataclass_transform(frozen_default=True, eq_default=False)
def operator(cls: type[N]) -> type[N]:
    """Declare an operator: makes it a frozen dataclass and enters it in OPERATORS."""
    made = by_identity(cls)
    OPERATORS[made.operator_name()] = made
    return made


def size_of(type: Type) -> int:
    """Numbers in all rows, unknown sizes counted as 1."""
    size = type.rows.rows or 1
    for d in type.shape:
        size *= d if isinstance(d, int) else 1
    return size


def walk(outputs: Iterable[Node], known: Container[Node] = ()) -> Iterator[Node]:
    """Every node once, inputs before the nodes that read them, in an order that depends on the plan alone.

    Nodes in ``known``, and what only they read, are left out.
    """
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(n, False) for n in reversed(list(outputs))]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif node not in seen and node not in known:
            seen.add(node)
            stack.append((node, True))
            stack += [(n, False) for n in reversed(node.inputs) if n not in seen]


def rewrite(outputs: Iterable[Node], change: Callable[[Node], Node]) -> dict[Node, Node]:
    """Rebuild a plan from its leaves up: ``change`` sees every node over rewritten inputs. Maps old nodes to new."""
    new: dict[Node, Node] = {}
    for node in walk(outputs):
        inputs = tuple(new[n] for n in node.inputs)
        new[node] = change(node if inputs == node.inputs else node.with_inputs(inputs))
    return new


def substitute(outputs: Iterable[Node], replacement: Mapping[Node, Node]) -> list[Node]:
    """The outputs with some nodes replaced by others wherever they stand."""
    roots = list(outputs)
    new = rebuilt(roots, replacement)
    return [new[n] for n in roots]


def rebuilt(outputs: Iterable[Node], replacement: Mapping[Node, Node]) -> dict[Node, Node]:
    """Every node of a plan, and what it becomes when some nodes are replaced by others."""
    new: dict[Node, Node] = {}
    for node in walk(outputs):
        if node in replacement:
            new[node] = replacement[node]
        else:
            inputs = tuple(new[n] for n in node.inputs)
            new[node] = node if inputs == node.inputs else node.with_inputs(inputs)
    return new


def over_rows(
    outputs: Iterable[Node], rows: Mapping[RowSet, RowSet], replacement: Mapping[Node, Node] | None = None
) -> dict[Node, Node]:
    """Every node of a plan, and what it becomes over other rows: a row set in ``rows`` gives way to another one
    wherever it is named, and some nodes are replaced by others."""
    new: dict[Node, Node] = dict(replacement or {})
    for node in walk(outputs):
        if node not in new:
            new[node] = node.with_inputs([new[n] for n in node.inputs], rows)
    return new


def readers(outputs: Iterable[Node]) -> dict[Node, list[Node]]:
    """For every node, the nodes that read it."""
    found: dict[Node, list[Node]] = {}
    for node in walk(outputs):
        found.setdefault(node, [])
        for n in dict.fromkeys(node.inputs):
            found[n].append(node)
    return found


def depends_on(outputs: Iterable[Node], sources: Iterable[Node]) -> set[Node]:
    """The nodes of a plan that read any of ``sources``, directly or through others, the sources included."""
    reached = set(sources)
    for node in walk(outputs):
        if any(n in reached for n in node.inputs):
            reached.add(node)
    return reached


def is_unit(node: Node) -> bool:
    """Whether the value belongs to no row set in particular."""
    return node.type.rows == UNIT
