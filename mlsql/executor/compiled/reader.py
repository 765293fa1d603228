"""The numbers that operators read, as texts: variables where a loop has them, else numbers of arrays."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from ...planner.node import At, Node, Operand, Reach
from ...planner.ops import Constant, Contraction, Count, Index
from ...planner.ops.elementwise import stretched
from ...planner.ops.shape import is_contiguous
from ...types import BOOLEAN, DOUBLE, FLOAT, UNIT, Dim, Element, RowSet, Type
from ..memory import is_view, owner
from .fusion import Fusion, Loop, is_single
from .meetings import Place
from .texts import VARIABLES, Nest, compared_as, index, is_trusted, literal, name_of_condition, written
from .tiles import Tiles

CASTS = {FLOAT: "single", DOUBLE: "double"}  # of entries, too


class Module(Protocol):
    """What a loop asks of the module that it is written for: names of arrays, variables and row counts."""

    fusion: Fusion
    fetched: set[Node]  # tables of which rows are asked for ahead
    origin: str  # the place in the order of the row that loops call the first

    def name(self, node: Node) -> str: ...
    def array(self, node: Node) -> str: ...
    def view(self, node: Node) -> str: ...
    def buffer(self, type: Type, hint: str) -> str: ...
    def scratch(self, type: Type, hint: str) -> str: ...
    def fresh(self, hint: str) -> str: ...
    def rows(self, rows: RowSet) -> str: ...
    def width(self, size: int) -> str: ...
    def across(self, size: int) -> str: ...
    def comment(self, node: Node) -> str: ...


class SharingModule(Module, Protocol):
    """What loops of several threads ask for besides: arrays with an entry, and numbers, for each thread."""

    def partial(self, type: Type, hint: str) -> str: ...
    def part(self, node: Node) -> int: ...
    def places(self, node: Node) -> set[Place]: ...
    def places_read(self, nodes: Iterable[Node]) -> frozenset[Place]: ...
    def is_own(self, node: Node) -> bool: ...


class TilingModule(SharingModule, Protocol):
    """What kernels over tiles ask for besides: products, and to be inside of some tiles.

    Inside, arrays of all rows are known by views of a tile; the lines that make these are complete when it is left.
    """

    def product(self, node: Contraction, total: str | None = None) -> list[str]: ...
    def inside(self, tiles: Tiles) -> AbstractContextManager[list[str]]: ...


class Reader:
    """What a loop knows of the numbers in it: the ``Elements`` that operators ask for the texts of their inputs."""

    def __init__(self, module: Module, loop: Loop, scalars: dict[Node, str]) -> None:
        self.module, self.fusion, self.loop = module, module.fusion, loop
        self.scalars = scalars  # single numbers, by the variable that holds each
        self.row = "" if loop.rows == UNIT else "r"
        self.row_scalars: dict[Node, str] = {}
        self.registers: dict[Node, str] = {}
        self.buffers: dict[Node, str] = {}
        self.tops: dict[str, str] = {}  # numbers that are read once a row, by their text
        self.top_lines: list[str] = []
        self.nest_now: Nest | None = None
        self.across = ""  # what stands for all positions of the last axis, where entries are single values
        self.entries: dict[tuple[Node, str], str] = {}  # variables that hold the entry of a row, by its axis
        self.starts: list[str] = []  # in front of the loop: of numbers that are folded
        self.known: dict[str, str] = {}  # entries that are read before the loop, by their text

    def value(self, node: Node, at: At) -> str:
        for known in (self.registers, self.row_scalars, self.scalars):
            if node in known:
                return known[node]
        if self.across and self.across in at.entry and (node, self.across) in self.entries:
            return self.entries[node, self.across]
        if isinstance(node, Constant) and len(node.values) == 1:
            return literal(node)
        if isinstance(node, Count):
            return self.module.rows(node.rows)
        if isinstance(node, Index):
            return self.held(f"order[{self.module.origin} + {at.row}]", node)
        if node in self.fusion.virtual:
            if owner(node) not in self.registers and is_named_part(self.fusion, node):
                return self.held(f"{self.module.view(node)}{index(at, node.type)}", node)
            return node.number(self, at)
        if node in self.buffers:
            return self.held(f"{self.buffers[node]}{index(At('', at.entry), node.type)}", node)
        return self.held(f"{self.module.array(node)}{index(at, node.type)}", node)

    def held(self, text: str, node: Node) -> str:
        """A number of an array that inner loops read again and again: a variable, set before them.

        LLVM does not move the read by itself: what the loop stores might lie in the same memory.
        """
        nest = self.nest_now
        if self.across and re.fullmatch(rf"\w+\[(\d+, )*{self.across}\]", text) and node not in self.loop.nodes:
            if text not in self.known:
                self.known[text] = self.module.fresh(f"{self.module.name(node)}_held")
                self.starts.append(f"{self.known[text]} = {text}")
            return self.known[text]
        depth = 1 + max((i for i, v in enumerate(VARIABLES) if re.search(rf"\b{v}\b", text)), default=-1)
        if nest is None or depth >= len(nest.sizes):
            return text
        at_top = bool(self.row) and depth == 0 and node not in self.loop.nodes and node not in self.buffers
        known = self.tops if at_top else nest.held
        if text not in known:
            known[text] = name = self.module.fresh(
                "row" if isinstance(node, Index) else f"{self.module.name(node)}_held"
            )
            (self.top_lines if at_top else nest.before[depth]).append(f"{name} = {text}")
        return known[text]

    def position(self, index: Node, at: At, count: Dim | RowSet) -> str:
        text = self.value(index, stretched(index, at))
        if is_trusted(index):
            return text
        return f"nearest({text}, {self.module.rows(count) if isinstance(count, RowSet) else count})"

    def operand(self, text: str, node: Node | None, element: Element) -> str:
        """A number as an operand of arithmetic in an element type."""
        if element.kind != "float" or (node is not None and not node.is_number and node.type.element == element):
            return text
        if element == DOUBLE and (node is None or node.is_number):
            return text
        of_entry = self.across and node is not None and node.type.entry_size != 1
        return f"{CASTS[element] if of_entry else element.storage}({text})"

    def arithmetic(self, expression: str, arguments: Mapping[str, Operand], element: Element) -> str:
        nodes = [a[0] for a in arguments.values() if not isinstance(a, str)]
        in_numbers = bool(nodes) and len(nodes) == len(arguments) and all(n.is_number for n in nodes)
        kind = compared_as(nodes) if element == BOOLEAN else element
        texts: dict[str, str] = {}
        for name, a in arguments.items():
            if isinstance(a, str):
                texts[name] = a
                continue
            text = self.value(*a)
            boolean = a[0].type.element == BOOLEAN
            texts[name] = (
                text
                if in_numbers or (boolean and name_of_condition(expression, name))
                else self.operand(text, a[0], kind)
            )
        typed = None if in_numbers or kind != FLOAT else "float32"
        return written(expression, texts, typed)


def is_named_part(fusion: Fusion, node: Node) -> bool:
    """Whether a view is read under its own name: a part of a flat vector, or rows regrouped, that lies in one piece."""
    base = owner(node)
    lies = base in fusion.fixed or base in fusion.arrays
    if not lies or not is_view(node) or not is_contiguous(node) or is_single(node):
        return False
    while is_view(node):
        if node.reaches() != (Reach.PLACE,):
            return True
        node = node.inputs[0]
    return False
