"""What an operator is to a database and to machine learning, and which library runs it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from ..executor.device import library
from ..planner.node import Emitter, Node
from ..types import RowSet, Type, TypeProblem

# A kind of operator (the closed set of planner.ops): its name in a database, its name in machine learning.
KINDS: Mapping[str, tuple[str, str]] = {
    "scan": ("table scan", "input"),
    "positions": ("keys of a join or GROUP BY", "index"),
    "parameter": ("stored tensor", "parameter"),
    "constant": ("constant", "constant"),
    "count": ("COUNT(*)", "batch size"),
    "index": ("row numbers of a batch", "mini-batch"),
    "counter": ("loop counter", "step"),
    "state": ("working table of the loop", "weights, optimizer state"),
    "map": ("projection", "elementwise function"),
    "contract": ("join and SUM over a shared index", "matrix product, einsum"),
    "take": ("join by row number", "gather, embedding lookup"),
    "segment": ("GROUP BY with an aggregate", "scatter-add, pooling"),
    "reduce": ("aggregate", "sum, mean, softmax's sum"),
    "shape": ("view", "reshape, transpose, slice, concatenate"),
    "update": ("UPDATE of some rows", "sparse update"),
    "iterate": ("recursive query", "training loop"),
}


def place(node: Node, numbers: Collection[Node]) -> str:
    """Where an operator runs. ``numbers`` are the nodes of the plan that are plain numbers of Python.

    A kernel is asked to write its code, and the functions that it calls tell the library.
    """
    if node.kind in ("scan", "positions"):
        return "DuckDB"
    if not node.inputs or node.is_view:
        return ""
    if node in numbers and node.kind != "reduce":
        return "Python"
    try:
        called, simple = Called(), node.expand() or node
        simple.emit(called, "out", *(f"x{i}" for i in range(len(simple.inputs))))
    except TypeProblem:  # a size that is known only once the model is trained
        return ""
    return library(called.functions)


class Called(Emitter):
    """Notes which functions a kernel calls, and computes nothing."""

    def __init__(self) -> None:
        self.functions: list[str] = []

    def call(self, function: str, *arguments: object) -> None:
        self.functions.append(function)

    def line(self, text: str) -> None:
        self.functions += re.findall(r"(\w+)\(", text)

    def scalar(self, expression: str, arguments: Mapping[str, Node], out: str, type: Type) -> None:
        self.line(expression)

    def view(self, array: str, expression: str) -> str:
        return array

    def once(self, expression: str) -> str:
        return "fixed"

    def copy(self, source: str, out: str) -> None: ...

    def rows(self, rows: RowSet) -> str:
        return "n"

    def is_fixed(self, node: Node) -> bool:
        return True

    def temporary(self, like: Type) -> str:
        return "scratch"

    def shape(self, type: Type) -> str:
        return "()"

    def aligned(self, node: Node, rank: int) -> str:
        return "x"

    def count(self, node: Node) -> str:
        return "n"

    def is_placed(self, part: Node, whole: Node, start: int) -> bool:
        return False
