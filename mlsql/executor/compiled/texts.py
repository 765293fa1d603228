"""Pieces of the text of loops: nests of inner loops, indexes, expressions with the types of their numbers."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...planner import scalar
from ...planner.node import At, Node
from ...planner.ops import Constant, Index, Map, Positions, Reduce, Take
from ...types import BOOLEAN, DOUBLE, Element, Type, promote

VARIABLES = "ijkl"  # of inner loops


@dataclass
class Nest:
    """The lines of an inner loop: ``before[d]`` are in front of the loops from depth d on, ``after[d]`` behind them."""

    sizes: tuple[str, ...]
    before: list[list[str]] = field(default_factory=list)
    after: list[list[str]] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    stores: list[str] = field(default_factory=list)
    held: dict[str, str] = field(default_factory=dict)  # numbers that are read before a loop, by their text

    def __post_init__(self) -> None:
        self.before = [[] for _ in range(len(self.sizes) + 1)]
        self.after = [[] for _ in range(len(self.sizes) + 1)]

    def lines(self, outermost: str | None = None) -> list[str]:
        """The text; ``outermost`` are the bounds of the outermost loop, if they are not all positions."""
        inner = [*self.body, *self.stores]
        for depth in reversed(range(len(self.sizes))):
            bounds = outermost if outermost and depth == 0 else self.sizes[depth]
            loop = [f"for {VARIABLES[depth]} in range({bounds}):", *indented(inner)]
            inner = [*self.before[depth], *loop, *self.after[depth]] if inner else []
        return inner


def indented(lines: Iterable[str]) -> list[str]:
    """Lines one level further in."""
    return [f"    {line}" for line in lines]


def is_trusted(index: Node) -> bool:
    """Whether positions are ours, and not what data says."""
    if isinstance(index, Take):
        return is_trusted(index.x) and is_trusted(index.index)
    return isinstance(index, (Index, Positions))


def name_of_condition(expression: str, name: str) -> bool:
    """Whether an argument of an expression is used as a truth value."""
    return f"where({name}," in expression or any(op in expression for op in (" & ", " | ", "~"))


def compared_as(nodes: Sequence[Node]) -> Element:
    """The element type in which operands are compared."""
    arrays = [n.type.element for n in nodes if not n.is_number]
    if all(e.kind != "float" for e in arrays):
        return BOOLEAN if arrays else DOUBLE
    return promote(*(e for e in arrays if e.kind != "category"))


def reads_twice(reader: Node, node: Node) -> bool:
    """Whether a reader's text may hold the node's number more than once."""
    if isinstance(reader, Reduce):
        return reader.x is not node
    if not isinstance(reader, Map):
        return True
    fields = [f for f, n in zip(reader.names(), reader.inputs, strict=True) if n is node]
    names = [n.id for n in ast.walk(scalar.parse(reader.expression)) if isinstance(n, ast.Name)]
    return sum(names.count(f) for f in fields) != 1


def combined(node: Node, total: str, text: str) -> str:
    """The text of a fold's next value. Sums may be taken in any order, so that they run in vector registers."""
    fold = node.ufunc if isinstance(node, Reduce) else "add"  # a product of matrices is a sum over rows, too
    return f"{'plus' if fold == 'add' else fold}({total}, {text})"


def index(at: At, type: Type) -> str:
    """A place as an index of an array, which has no axes of size 1; a single number lies in an array of one."""
    entry = [p for p, d in zip(at.entry, type.shape, strict=True) if d != 1]
    places = [at.row, *entry] if at.row else entry
    return f"[{', '.join(places) or '0'}]"


def literal(node: Constant) -> str:
    """A constant as Python source."""
    if node.element == BOOLEAN:
        return repr(bool(node.values[0]))
    value = node.values[0]
    text = repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return f"({text})" if text.startswith("-") else text


class _Typed(ast.NodeTransformer):
    """Names become texts, numbers get a type, and powers become calls."""

    def __init__(self, texts: Mapping[str, str], typed: str | None) -> None:
        self.texts, self.typed = texts, typed

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return scalar.parse(self.texts[node.id]) if node.id in self.texts else node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        node.args = [self.visit(a) for a in node.args]
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return ast.Call(ast.Name(self.typed), [node], []) if self.typed else node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        self.generic_visit(node)
        return ast.UnaryOp(ast.Not(), node.operand) if isinstance(node.op, ast.Invert) else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.op, ast.Pow) and self.typed:
            return ast.Call(ast.Name("power"), [node.left, node.right], [])
        return node


def written(expression: str, texts: Mapping[str, str], typed: str | None) -> str:
    """A scalar expression over texts."""
    return ast.unparse(_Typed(texts, typed).visit(ast.parse(expression, mode="eval")))
