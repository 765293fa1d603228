"""A plan of plain arithmetic as one SQL expression, so that DuckDB scores in its own scan.

The form of an elementwise operator is derived from the scalar expression that it declares; a contraction with known
weights is a sum of products, or ``list_dot_product`` of a whole vector that is read as it is. All is computed in
DOUBLE and rounded once, at the end. What a plan's kernels do with NaN and infinity the SQL does too; operators of which
this is not so, or that would repeat large texts, have no form here.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product

from ..record import record
from ..types import UNIT, Dim
from . import scalar
from .node import Node, walk
from .ops import Broadcast, Cast, Column, Concat, Constant, Contract, Map, Parameter, Reshape, Slice, Sum, Transpose
from .ops.contract import ROW

MOST_OPERATIONS = 600  # of one expression: beyond it DuckDB takes long to read the text


class NoForm(Exception):
    """The plan has no SQL form worth having."""


@record
class Sql:
    """The text of a DOUBLE and how many operations it takes."""

    text: str
    operations: int = 0


Term = float | Sql


@record
class Terms:
    """A tensor, number by number in row-major order."""

    shape: tuple[int, ...]
    values: tuple[Term, ...]

    def at(self, index: Sequence[int]) -> Term:
        """The number at a position; an axis of size 1 has it at every position, and missing axes are the first."""
        place = 0
        for size, i in zip(self.shape, index[len(index) - len(self.shape) :], strict=True):
            place = place * size + (i if size > 1 else 0)
        return self.values[place]


@record
class Vector:
    """A vector that is read as it is: the text of a list of DOUBLE."""

    text: str
    size: int


def sql_form(output: Node, columns: Mapping[Node, str], values: Mapping[Node, Sequence[float]]) -> Sql:
    """The SQL of a number a row. ``columns`` are the texts of the plan's columns, ``values`` the parameters' numbers.

    Raises NoForm where there is none.
    """
    known: dict[Node, Terms | Vector] = {}
    for node in walk([output]):
        known[node] = _form(node, known, columns, values)
    found = known[output]
    if isinstance(found, Vector) or found.shape or not isinstance(found.values[0], Sql):
        raise NoForm
    return found.values[0]


def _form(
    node: Node,
    known: Mapping[Node, Terms | Vector],
    columns: Mapping[Node, str],
    values: Mapping[Node, Sequence[float]],
) -> Terms | Vector:
    shape = _sizes(node.type.shape)
    if isinstance(node, Column):
        return _column(node, shape, columns[node])
    if isinstance(node, Constant):
        return Terms(shape, node.values)
    if isinstance(node, Parameter):
        return Terms(shape, tuple(float(v) for v in values[node]))
    inputs = [known[n] for n in node.inputs]
    if isinstance(node, Contract):
        return _contract(node, *inputs)
    if not all(isinstance(x, Terms) for x in inputs):
        raise NoForm
    made = OPERATORS.get(type(node), _elementwise)(node, *inputs)
    if sum(t.operations for t in made.values if isinstance(t, Sql)) > MOST_OPERATIONS:
        raise NoForm
    return made


def _sizes(shape: Sequence[Dim]) -> tuple[int, ...]:
    if not all(isinstance(d, int) for d in shape):
        raise NoForm
    return tuple(d for d in shape if isinstance(d, int))


def _column(node: Column, shape: tuple[int, ...], text: str) -> Terms | Vector:
    if len(shape) == 1 and node.type.element.kind == "float":
        return Vector(f"CAST({text} AS DOUBLE[])", shape[0])
    if shape or node.type.element.kind not in ("float", "integer", "boolean"):
        raise NoForm
    return Terms((), (Sql(f"CAST({text} AS DOUBLE)"),))


# -- operators ---------------------------------------------------------------------------------------------------------


def _contract(node: Contract, x: Terms | Vector, y: Terms | Vector) -> Terms:
    """Sums of products over the letters that the output does not have."""
    a, b, out = (letters.removeprefix(ROW) for letters in node.letters())
    if isinstance(x, Vector) or isinstance(y, Vector):
        return _with_vector(a, b, out, x, y)
    sizes = dict(zip(a + b, (*x.shape, *y.shape), strict=True))
    summed = [c for c in sizes if c not in out]
    terms: list[Term] = []
    for place in product(*(range(sizes[c]) for c in out)):
        parts: list[Term] = []
        for inner in product(*(range(sizes[c]) for c in summed)):
            at = dict(zip([*out, *summed], (*place, *inner), strict=True))
            parts.append(times(x.at([at[c] for c in a]), y.at([at[c] for c in b])))
        terms.append(added(parts))
    return Terms(tuple(sizes[c] for c in out), tuple(terms))


def _with_vector(a: str, b: str, out: str, x: Terms | Vector, y: Terms | Vector) -> Terms:
    """A vector that is read as it is by known weights: an inner product for each number of the output."""
    if isinstance(y, Vector):
        a, b, x, y = b, a, y, x
    if not isinstance(x, Vector) or isinstance(y, Vector) or len(a) != 1 or a not in b or out != b.replace(a, ""):
        raise NoForm
    if not all(isinstance(v, float) for v in y.values):
        raise NoForm
    sizes = dict(zip(b, y.shape, strict=True))
    terms: list[Term] = []
    for place in product(*(range(sizes[c]) for c in out)):
        at = dict(zip(out, place, strict=True))
        weights = [number(y.at([at.get(c, i) for c in b])) for i in range(x.size)]
        terms.append(Sql(f"list_dot_product({x.text}, [{', '.join(weights)}])", 2 * x.size))
    return Terms(tuple(sizes[c] for c in out), tuple(terms))


def _elementwise(node: Node, *inputs: Terms) -> Terms:
    """The scalar expression of the operator, for every number."""
    if not isinstance(node, Map) or node.type.element.kind != "float":
        raise NoForm
    shape = _sizes(node.type.shape)
    tree = scalar.parse(node.expression)
    terms = []
    for index in product(*(range(d) for d in shape)):
        arguments = {name: x.at(index) for name, x in zip(node.names(), inputs, strict=True)}
        terms.append(_scalar(tree, arguments))
    return Terms(shape, tuple(terms))


def _scalar(tree: ast.expr, arguments: Mapping[str, Term]) -> Term:
    """One element: numbers are computed here, all else is text."""
    found = scalar.operation(tree)
    if found is None:
        return arguments[tree.id] if isinstance(tree, ast.Name) else float(ast.literal_eval(tree))
    name, operands = found
    values = [_scalar(o, arguments) for o in operands]
    if name == "multiply":
        return times(*values)
    if name == "add":
        return added(values)
    form = FORMS.get(name)
    if form is None or (name == "divide" and values[1] == 0):
        raise NoForm
    return Sql(form.format(*map(number, values)), 1 + sum(v.operations for v in values if isinstance(v, Sql)))


# what agrees with the kernels for NaN, infinity and every other number; a maximum with NaN is NaN in both
FORMS = {
    "subtract": "({} - {})",
    "divide": "({} / {})",
    "negative": "(-{})",
    "abs": "abs({})",
    "exp": "exp({})",
    "tanh": "tanh({})",
    "maximum": "greatest({}, {})",
    "minimum": "(-greatest(-{}, -{}))",
}


def _cast(node: Node, x: Terms) -> Terms:
    if node.type.element.kind != "float":
        raise NoForm
    return x


def _broadcast(node: Node, x: Terms) -> Terms:
    shape = _sizes(node.type.shape)
    return Terms(shape, tuple(x.at(i) for i in product(*(range(d) for d in shape))))


def _concat(node: Concat, *parts: Terms) -> Terms:
    if node.axis != 0 or len(node.type.shape) != 1:
        raise NoForm
    return Terms(_sizes(node.type.shape), tuple(v for p in parts for v in p.values))


def _slice(node: Slice, x: Terms) -> Terms:
    if len(x.shape) != 1:
        raise NoForm
    return Terms(_sizes(node.type.shape), x.values[node.start : node.stop])


def _sum(node: Sum, x: Terms) -> Terms:
    if node.rows or node.type.rows == UNIT or len(x.shape) != 1 or node.axes not in ((0,), ()):
        raise NoForm
    return Terms((1,), (added(x.values),)) if node.axes else x


def _reshape(node: Node, x: Terms) -> Terms:
    return Terms(_sizes(node.type.shape), x.values)


def _transpose(node: Transpose, x: Terms) -> Terms:
    if len(x.shape) > 1:
        raise NoForm
    return x


OPERATORS: dict[type[Node], Callable[..., Terms]] = {
    Cast: _cast,
    Broadcast: _broadcast,
    Concat: _concat,
    Slice: _slice,
    Sum: _sum,
    Reshape: _reshape,
    Transpose: _transpose,
}


# -- numbers and texts -------------------------------------------------------------------------------------------------


def number(value: Term) -> str:
    """A term as SQL."""
    if isinstance(value, Sql):
        return value.text
    if not math.isfinite(value):
        return f"'{value}'::DOUBLE"
    return f"CAST('{value!r}' AS DOUBLE)" if value < 0 else f"{value!r}" if "e" in f"{value!r}" else f"{value!r}e0"


def times(x: Term, y: Term) -> Term:
    """The product of two terms; 1 and 0 are not written."""
    if not isinstance(x, Sql) and not isinstance(y, Sql):
        return x * y
    if not isinstance(x, Sql):
        x, y = y, x
    assert isinstance(x, Sql)
    if not isinstance(y, Sql) and y in (0.0, 1.0):
        return 0.0 if y == 0 else x
    return Sql(f"({number(x)} * {number(y)})", 1 + x.operations + (y.operations if isinstance(y, Sql) else 0))


def added(terms: Sequence[Term]) -> Term:
    """The sum of some terms, in brackets that keep it from getting deep."""
    constant = math.fsum(t for t in terms if not isinstance(t, Sql))
    texts = [t for t in terms if isinstance(t, Sql)]
    if not texts:
        return constant
    if constant:
        return added_texts([*texts, Sql(number(constant))])
    return added_texts(texts)


def added_texts(terms: Sequence[Sql]) -> Sql:
    """The sum of texts as a balanced tree."""
    if len(terms) == 1:
        return terms[0]
    left, right = added_texts(terms[: len(terms) // 2]), added_texts(terms[len(terms) // 2 :])
    return Sql(f"({left.text} + {right.text})", 1 + left.operations + right.operations)
