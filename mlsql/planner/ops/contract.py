"""Contract: a join on a shared index and a sum over it: matrix product, dot product, einsum.

The gradient of a contraction is a contraction.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from functools import cache, cached_property
from typing import ClassVar

from ...types import DOUBLE, UNIT, Dim, Type, TypeProblem, common_rows, promote, shape_text
from ..node import Emitter, Node, operator, size_of
from ..work import Work
from .map import Multiply, cast
from .reduce import Sum, broadcast
from .shape import Reshape, Transpose, drop_axis

ROW = "r"  # the letter of the row axis; entries' axes have other letters


class Contraction(Node):
    """Base of the contractions: the axes of both operands and of the output, by letters.

    ``spec`` is NumPy einsum's: a letter an axis, "r" being the axis of rows where an operand has rows, as in
    ``ri,io->ro`` for a batch of vectors times a weight matrix. Letters that are not in the output are summed over.
    """

    kind: ClassVar[str] = "contract"
    spec: str
    x: Node
    y: Node

    def letters(self) -> tuple[str, str, str]:
        """The axes of both operands and of the output."""
        operands, out = self.spec.split("->")
        a, b = operands.split(",")
        return a, b, out

    def sizes(self) -> dict[str, Dim]:
        """The size of every entry axis, checked to be the same in both operands."""
        found: dict[str, Dim] = {}
        for letters, node in zip(self.letters(), (self.x, self.y), strict=False):
            entry = letters.removeprefix(ROW)
            if len(entry) != node.type.rank:
                raise TypeProblem(f"{shape_text(node.type.shape) or 'a single number'} does not have {len(entry)} axes")
            for letter, size in zip(entry, node.type.shape, strict=True):
                if found.setdefault(letter, size) != size:
                    raise TypeProblem(f"shapes do not fit: {found[letter]} against {size}")
        return found

    def infer(self) -> Type:
        a, b, out = self.letters()
        for letters, node in ((a, self.x), (b, self.y)):
            if letters.startswith(ROW) != (node.type.rows != UNIT):
                raise TypeProblem(f'the rows of "{node.type.rows}" do not fit the contraction {self.spec}')
        rows = common_rows(self.x.type.rows, self.y.type.rows)
        sizes = self.sizes()
        shape = tuple(sizes[c] for c in out.removeprefix(ROW))
        element = promote(self.x.type.element, self.y.type.element)
        return Type(rows if ROW in out else UNIT, element, shape)

    @cached_property
    def extents(self) -> dict[str, int]:
        """The number of positions of every letter, unknown sizes counted as 1."""
        a, b, _ = self.letters()
        found = {ROW: common_rows(self.x.type.rows, self.y.type.rows).rows or 1}
        for letters, node in ((a, self.x), (b, self.y)):
            entry = letters.removeprefix(ROW)
            found |= {c: d if isinstance(d, int) else 1 for c, d in zip(entry, node.type.shape, strict=True)}
        return found

    def size(self, letters: Iterable[str]) -> int:
        """The number of positions of some letters together."""
        return math.prod([self.extents[c] for c in letters])

    def flops(self) -> int:
        a, b, out = self.letters()
        products = self.size({*a, *b})
        return products if set(out) == {*a, *b} else 2 * products

    def summed(self) -> Node:
        """The same value as a sum of products, number by number: for products that are too small for BLAS."""
        a, b, out = self.letters()
        folded = "".join(sorted({*a, *b} - {*out, ROW}))
        target = out.removeprefix(ROW) + folded
        both = Multiply(laid_out(self.x, a, target), laid_out(self.y, b, target))
        rows = ROW in a + b and ROW not in out
        kept = len(target) - len(folded)
        sums = Sum(both, rows, tuple(range(kept, len(target)))) if rows or folded else both
        return Reshape(sums, self.type.shape)

    def work(self) -> Work:
        """A matrix product of BLAS; where einsum runs it and some letter stands in all three, a plain loop."""
        a, b, out = self.letters()
        stack = [c for c in a if c in b and c in out]
        summed = [c for c in a if c in b and c not in out]
        is_direct, flops = as_matrix_product(self.spec) is not None, self.flops()
        calls = (("product" if is_direct else "einsum", 1),)
        if not is_direct and (stack or not summed):
            innermost = a[-1:] if a[-1:] == b[-1:] else out[-1:]
            loops = (("loop", self.size({*a, *b} - {*innermost})),)
            done = (("einsum", flops),)
            return Work(done, streamed=self.bytes(), loops=loops, calls=calls, is_double=self.is_double)
        m, n = ([c for c in letters if c not in summed and c not in stack] for letters in (a, b))
        product = (self.size(stack), self.size(m), self.size(n), self.size(summed))
        moved = self.bytes() * (1 if is_direct else 3)  # einsum copies its operands into matrices and the result back
        return Work((("product", flops),), (product,), moved, calls=calls, is_double=self.is_double)


@operator
class Contract(Contraction):
    """Einstein summation over two operands: matrix products, dot products, sums of products along shared axes.

    With ``bf16`` both operands of a matrix product are rounded to bfloat16 first, and their products summed in FLOAT.
    Training sets it on the optimized plan: no rule and no gradient meets it.
    """

    spec: str
    x: Node
    y: Node
    bf16: bool = False

    def work(self) -> Work:
        """Rounding converts the operands."""
        rounded = sum(size_of(n.type) for n in {*self.inputs}) if self.bf16 else 0
        return dataclasses.replace(super().work(), converted=rounded)

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        a, b, out = self.letters()
        return (
            contract(f"{out},{b}->{a}", g, self.y) if self.x.type.element.kind == "float" else None,
            contract(f"{a},{out}->{b}", self.x, g) if self.y.type.element.kind == "float" else None,
        )

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        product = as_matrix_product(self.spec)
        if product is None:
            e.call("einsum", repr(self.spec), inputs[0], inputs[1], out)
            return
        swapped, *forms = product
        views = [e.view(array, form) if form else array for array, form in zip(inputs, forms, strict=True)]
        e.call("bf16_matmul" if self.bf16 else "matmul", *(reversed(views) if swapped else views), out)


@operator
class Moment(Contraction):
    """A contraction over all rows, summed in 64 bits whatever its operands are, a block of rows at a time.

    The moments of a table, such as XᵀX and Xᵀy, take the place of its rows in every sum of squares. They must be more
    exact than the rows are, for what is left of the squares may be a small difference of large moments.
    """

    spec: str
    x: Node
    y: Node

    def infer(self) -> Type:
        a, b, out = self.letters()
        if ROW in out or ROW not in a + b:
            raise TypeProblem(f"a moment sums over rows; {self.spec} does not")
        return super().infer().with_(element=DOUBLE)

    def work(self) -> Work:
        """A contraction in 64 bits, to which its operands are converted."""
        narrow = {n for n in self.inputs if n.type.element != DOUBLE}
        return dataclasses.replace(super().work(), converted=sum(size_of(n.type) for n in narrow))

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        a, b, out = self.letters()
        return self.by(f"{out},{b}->{a}", g, self.y, self.x), self.by(f"{out},{a}->{b}", g, self.x, self.y)

    def by(self, spec: str, g: Node, other: Node, operand: Node) -> Node | None:
        """The derivative by one operand; each row of it has the same weight where it has none of its own."""
        if operand.type.element.kind != "float":
            return None
        operands, out = spec.split("->")
        if ROW in out and ROW not in operands:  # the other operand has no rows: every row counts alike
            return broadcast(cast(contract(f"{operands}->{out[1:]}", g, other), operand.type.element), operand.type)
        return cast(contract(spec, g, other), operand.type.element)

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        e.call("moment", repr(self.spec), inputs[0], inputs[1], out)


def laid_out(node: Node, letters: str, target: str) -> Node:
    """An operand with its entry's axes in the order of ``target``; axes that it lacks have size 1."""
    entry = letters.removeprefix(ROW)
    order = tuple(sorted(range(len(entry)), key=lambda i: target.index(entry[i])))
    turned = node if order == tuple(range(len(entry))) else Transpose(node, order)
    sizes = dict(zip(entry, node.type.shape, strict=True))
    return Reshape(turned, tuple(sizes.get(c, 1) for c in target))


@cache
def as_matrix_product(spec: str) -> tuple[bool, str, str] | None:
    """Whether to swap the operands, and the views of both, so that one call of matmul does it; None: it takes einsum.

    BLAS reads a transposed matrix as fast as a plain one, so a contraction over one letter of two operands with at
    most one other letter each is a matrix product of views. A row letter in all three makes a stack of products.
    """
    operands, out = spec.split("->")
    a, b = operands.split(",")
    if all(letters.startswith(ROW) and len(letters) == 3 for letters in (a, b, out)):
        inner = as_matrix_product(f"{a[1:]},{b[1:]}->{out[1:]}")
        return inner and (inner[0], *(form.replace(".T", ".swapaxes(1, 2)") for form in inner[1:]))  # type: ignore
    shared = [c for c in a if c in b]
    if len(shared) != 1 or shared[0] in out or len(a) > 2 or len(b) > 2:
        return None
    k = shared[0]
    free_a, free_b = a.replace(k, ""), b.replace(k, "")
    if len(out) != len(free_a + free_b):
        return None  # a letter that only one operand has is summed away
    if out == free_a + free_b:
        return False, "" if a == free_a + k else ".T", "" if b == k + free_b else ".T"
    return True, "" if a == k + free_a else ".T", "" if b == free_b + k else ".T"


def contract(spec: str, x: Node, y: Node) -> Node:
    """A contraction in which an axis that only one operand has, and the output lacks, is summed away first."""
    operands, out = spec.split("->")
    a, b = operands.split(",")
    a, x = _sum_away(a, x, b + out)
    b, y = _sum_away(b, y, a + out)
    if (not a and b == out) or (not b and a == out):  # a single number times a tensor
        return Multiply(x, y)
    return Contract(f"{a},{b}->{out}", x, y)


def _sum_away(letters: str, x: Node, needed: str) -> tuple[str, Node]:
    """``x`` without the axes that nothing else needs, and the letters that are left."""
    if letters.startswith(ROW) and ROW not in needed:
        letters, x = letters[1:], Sum(x, True)
    for letter in [c for c in letters if c not in needed]:
        axis = letters.removeprefix(ROW).index(letter)
        folded = x if x.type.shape[axis] == 1 else Sum(x, False, (axis,))
        letters, x = letters.replace(letter, ""), drop_axis(folded, axis)
    return letters, x


def matmul(x: Node, y: Node) -> Node:
    """Matrix product inside a row, by NumPy's rule: vectors count as a row on the left and a column on the right."""
    p, q = x.type.rank, y.type.rank
    if not 1 <= p <= 2 or not 1 <= q <= 2:
        raise TypeProblem("MATMUL takes vectors and matrices")
    if x.type.shape[-1] != y.type.shape[0]:
        raise TypeProblem(
            f"the last size of {shape_text(x.type.shape)} ({x.type.shape[-1]}) "
            f"must equal the first of {shape_text(y.type.shape)} ({y.type.shape[0]})"
        )
    left, right = ("ik" if p == 2 else "k"), ("ko" if q == 2 else "k")
    return with_rows(left, right, left.replace("k", "") + right.replace("k", ""), x, y)


def dot(x: Node, y: Node) -> Node:
    """The sum of the products of two tensors of one shape, within a row."""
    if x.type.shape != y.type.shape:
        raise TypeProblem(
            f"DOT needs two tensors of one shape, not {shape_text(x.type.shape)} and {shape_text(y.type.shape)}"
        )
    letters = "abcdefgh"[: x.type.rank]
    return with_rows(letters, letters, "", x, y)


def with_rows(left: str, right: str, out: str, x: Node, y: Node) -> Node:
    """A contraction of entries, with the row letter added where an operand has rows."""
    a = ROW if x.type.rows != UNIT else ""
    b = ROW if y.type.rows != UNIT else ""
    return Contract(f"{a}{left},{b}{right}->{a or b}{out}", x, y)
