"""What generated modules have in common: the names of arrays, where they lie, and the text of kernels.

A module has a compiled function, which runs the kernels, and ``prepare``, which is plain Python: it finds every array
its place in the arena, makes the views, and binds the compiled function to all of them.
"""

from __future__ import annotations

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from ...planner.node import Node
from ...planner.ops import Constant, Contraction, Count, Index, State
from ...planner.ops.contract import as_matrix_product
from ...planner.ops.shape import is_contiguous
from ...types import UNIT, RowSet, Type
from ..codegen import Names
from ..memory import is_view, owner
from .alone import writer_of
from .arena import Arena
from .fusion import Fusion, Kernel, Loop, Product

IMPORTS = """\
from math import inf, nan

import numpy as np
from numba import njit
from numba.types import Array, boolean, float32, float64, int32, int64, uint16

from mlsql.executor.compiled.blas import add_product, matmul, nearest, plus
from mlsql.executor.compiled.entries import double, largest, least, single, total
from mlsql.executor.compiled.entry_memory import across
from mlsql.executor.compiled.functions import *
from mlsql.executor.compiled.team import ahead, fetch, meet, share
from mlsql.executor.device import array
"""
OPTIONS = 'error_model="numpy", fastmath={"contract"}, no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False'
WIDTH = 116
RESERVED = frozenset(
    "prepare run compute arena rows outputs start s r g i j k l inf nan np njit array "
    "float32 float64 int32 int64 uint16 matmul matmul_mkl matmul_bf16 round_bf16 nearest plus "
    "exp log log1p tanh erf sin cos sqrt power where maximum minimum sign abs min max range "
    "turn done across double largest least single total ahead fetch meet share first last p t tile n_tile "
    "add_product add_product_mkl".split()
)


@dataclass
class Setup:
    """Lines of plain Python: first arrays and views are made, then arrays lose their axes of size 1."""

    made: list[str] = field(default_factory=list)
    squeezed: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        return [*self.made, *self.squeezed]


class Generated:
    """What is known of every generated module: its text, and the bytes of each slot of its arena."""

    source: str
    sizes: tuple[int, ...]

    @property
    def arena_bytes(self) -> int:
        """The bytes of all slots."""
        return sum(self.sizes)

    def compile_seconds(self, line: float) -> float:
        """The estimated time to compile, by the number of lines."""
        return self.source.count("\n") * line


class ModuleWriter(ABC):
    """What all modules have in common: names, arrays and views, and kernels. Loops ask it for names (``Module``)."""

    origin = "start"

    def __init__(self, fusion: Fusion, names: Mapping[Node, str], arena: Arena, reserved: Collection[str] = ()) -> None:
        self.fusion, self.hints, self.arena = fusion, names, arena
        self.names = Names(RESERVED.union(reserved))
        self.variable: dict[Node, str] = {}
        self.views: dict[Node, str] = {}
        self.leaves: dict[Node, str] = {}
        self.row_counts: dict[RowSet, str] = {}
        self.widths: dict[int, str] = {}
        self.axes: dict[int, str] = {}
        self.fetched: set[Node] = set()
        self.setup = Setup()  # of prepare()
        self.arguments: dict[str, str] = {}  # of the compiled function: names and Numba's types

    def setup_of(self, base: Node) -> Setup:
        """Where an array, and what looks into it, is made."""
        return self.setup

    @abstractmethod
    def varies(self, rows: RowSet) -> bool:
        """Whether a row set may have fewer rows than its arrays have room for."""

    # -- names: loops.Module -----------------------------------------------------------------------------------------

    def fresh(self, hint: str) -> str:
        return self.names.fresh(hint)

    def hint(self, node: Node) -> str:
        return self.hints.get(node) or getattr(node, "name", None) or node.operator_name()

    def name(self, node: Node) -> str:
        if node not in self.variable:
            self.variable[node] = self.fresh(self.hint(node))
        return self.variable[node]

    def rows(self, rows: RowSet) -> str:
        if rows == UNIT:
            return "1"
        if rows not in self.row_counts:
            self.row_counts[rows] = self.fresh(f"n_{rows.name}")
        return self.row_counts[rows]

    def width(self, size: int) -> str:
        """The name of a size of entries. LLVM is not told its value: it would unroll short loops before it can turn
        them into vector operations."""
        if size not in self.widths:
            self.widths[size] = self.fresh(f"w{size}")
        return self.widths[size]

    def across(self, size: int) -> str:
        """The name of all positions of an axis."""
        if size not in self.axes:
            self.axes[size] = self.fresh(f"all{size}")
        return self.axes[size]

    def array(self, node: Node) -> str:
        state = self.arena.overwrites.get(node)
        if state is not None:
            return self.array(state)
        name = self.name(node)
        if name not in self.arguments:
            self.take(name, node, node)
            if node in self.fusion.fixed:
                self.leaves[node] = name
            else:
                self.setup_of(node).made.append(f"{name} = {self.place(node)}")
        return name

    def take(self, name: str, node: Node, base: Node) -> None:
        """Let the compiled function take an array, or a view of another one."""
        is_data = base in self.fusion.fixed and not isinstance(base, State)
        self.pass_on(name, node.type, self.setup_of(base), is_data, is_dense=is_contiguous(node))

    def pass_on(self, name: str, type: Type, setup: Setup, is_data: bool = False, is_dense: bool = True) -> None:
        """Let the compiled function take an array, without axes of size 1: Numba does not know the sizes of axes, but
        that numbers along the last one lie side by side."""
        self.arguments[name] = numba_type(type, is_data, is_dense)
        if 1 in type.shape or (type.rows == UNIT and not type.shape):
            shape = self.shape(squeezed(type))
            setup.squeezed.append(f"{name} = {name}.reshape({'1' if shape == '()' else shape})")

    def place(self, node: Node) -> str:
        """The text that makes a computed array."""
        if node in self.fusion.placed:
            whole, start, stop = self.fusion.placed[node]
            return f"{self.array(whole)}[{start}:{stop}].reshape({self.shape(node.type)})"
        return f"array(arena, {self.arena.slot[node]}, {self.shape(node.type)}, {node.type.element.storage!r})"

    def shape(self, type: Type) -> str:
        sizes = [str(d) for d in type.shape]
        if type.rows != UNIT:
            sizes.insert(0, self.rows(type.rows))
        return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})" if sizes else "()"

    def view(self, node: Node) -> str:
        if node not in self.views:
            base = owner(node)
            self.array(base)
            name = self.views[node] = self.name(node)
            self.setup_of(base).made.append(f"{name} = {self.seen(node)}")
            self.take(name, node, base)
        return self.views[node]

    def seen(self, node: Node) -> str:
        """The text of a view, from the array that it looks into."""
        if not is_view(node):
            return self.array(node)
        return self.seen(node.inputs[0]) + node.seen(self)  # type: ignore[arg-type]

    def count(self, node: Node) -> str:
        """The text of a node's number of rows, as views ask for it."""
        return "" if node.type.rows == UNIT else self.rows(node.type.rows)

    def buffer(self, type: Type, hint: str) -> str:
        return self.made(type, self.fresh(f"{hint}_of_row" if type.rows == UNIT else hint), self.arena.scratch)

    def scratch(self, type: Type, hint: str) -> str:
        """An array that one kernel uses and nothing else does."""
        return self.made(type, self.fresh(hint), self.arena.scratch)

    def made(self, type: Type, name: str, slot: Callable[[Type], int]) -> str:
        """An array that is no operator's."""
        self.setup.made.append(f"{name} = array(arena, {slot(type)}, {self.shape(type)}, {type.element.storage!r})")
        self.pass_on(name, type, self.setup)
        return name

    def comment(self, node: Node) -> str:
        details = [str(v) for v in node.attributes().values() if isinstance(v, (str, int)) and v is not False]
        inputs = [self.described(n) for n in node.inputs]
        return f"{self.name(node)} = {node.operator_name()}({', '.join([*inputs, *details])})"

    def described(self, node: Node) -> str:
        """What a comment calls a node: virtual ones by what they look at."""
        if isinstance(node, Constant) and len(node.values) == 1:
            return repr(node.values[0])
        if isinstance(node, Count):
            return self.rows(node.rows)
        if isinstance(node, Index):
            return "order"
        if node in self.fusion.virtual and node not in self.hints and node.inputs:
            return f"{node.operator_name()}({', '.join(self.described(n) for n in node.inputs)})"
        return self.name(node)

    # -- kernels -----------------------------------------------------------------------------------------------------

    def kernels(self, scalars: dict[Node, str]) -> list[str]:
        """The lines of all kernels; the variables of single numbers are added to ``scalars``."""
        return [line for kernel in self.fusion.kernels for line in self.kernel(kernel, scalars)]

    def kernel(self, kernel: Kernel, scalars: dict[Node, str]) -> list[str]:
        """The lines of one kernel."""
        return self.product(kernel.node) if isinstance(kernel, Product) else self.loop_lines(kernel, scalars)

    def loop_lines(self, loop: Loop, scalars: dict[Node, str]) -> list[str]:
        """The lines of a loop."""
        return writer_of(loop)(self, loop, scalars).lines()

    def product(self, node: Contraction, total: str | None = None) -> list[str]:
        """The lines of a matrix product, which is added to a total if one is given."""
        form = as_matrix_product(node.spec)
        assert form is not None
        swapped, *turned = form
        lines = [f"# {self.comment(node)}"]
        names = [self.operand_of(node, n, lines) for n in node.inputs]
        operands = [name + (".T" if turn else "") for name, turn in zip(names, turned, strict=True)]
        x, y = reversed(operands) if swapped else operands
        out = self.sliced(self.array(node), node)
        return [*lines, *(self.multiplied(node, x, y, out) if total is None else self.added(node, x, y, total))]

    def operand_of(self, product: Contraction, node: Node, lines: list[str]) -> str:
        """The array of a product's operand; ``lines`` are in front of the product."""
        return self.operand(node)

    def multiplied(self, node: Contraction, x: str, y: str, out: str) -> list[str]:
        """The lines that call BLAS."""
        return [f"matmul({x}, {y}, {out})"]

    def added(self, node: Contraction, x: str, y: str, total: str) -> list[str]:
        """The lines that call BLAS to add to a total."""
        return [f"add_product({x}, {y}, {total})"]

    def operand(self, node: Node) -> str:
        """The array of an operand, as many rows as there are."""
        if node in self.fusion.virtual:
            return self.sliced(self.view(node), node)
        return self.sliced(self.array(node), node)

    def sliced(self, name: str, node: Node) -> str:
        """An array's rows that are computed; all of them where there are always as many."""
        return f"{name}[:{self.rows(node.type.rows)}]" if self.varies(node.type.rows) else name


def wrapped(text: str) -> list[str]:
    """Code in lines that are not too long."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="        ", break_long_words=False, drop_whitespace=True)


def squeezed(type: Type) -> Type:
    """A type without axes of size 1."""
    return type.with_(shape=tuple(d for d in type.shape if d != 1))


def numba_type(type: Type, is_data: bool = False, is_dense: bool = True) -> str:
    """Numba's text for the type of a squeezed array; data may lie in memory that must not be written to."""
    rank = max(1, squeezed(type).rank + (type.rows != UNIT))
    element = {"bool": "boolean"}.get(type.element.storage, type.element.storage)
    return f"Array({element}, {rank}, '{'C' if is_dense else 'A'}'{', readonly=True' if is_data else ''})"
