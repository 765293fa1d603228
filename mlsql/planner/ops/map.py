"""Map: elementwise arithmetic. A projection to a database; an activation, a bias, a scaling to a network.

An operator declares its arithmetic as one scalar expression over its fields (see ``elementwise.py``).
"""

from __future__ import annotations

from typing import ClassVar

from ...types import BOOLEAN, Element, TypeProblem, promote
from ..node import Emitter, Node, operator, size_of
from ..work import CALL, Work
from .elementwise import Map, Predicate, like
from .leaf import Constant


@operator
class Add(Map):
    """x + y."""

    x: Node
    y: Node
    expression: ClassVar[str] = "x + y"

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        return g, g


@operator
class Subtract(Map):
    """x - y."""

    x: Node
    y: Node
    expression: ClassVar[str] = "x - y"

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        return g, Negate(g)


@operator
class Multiply(Map):
    """x * y."""

    x: Node
    y: Node
    expression: ClassVar[str] = "x * y"

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        return Multiply(g, self.y), Multiply(g, self.x)


@operator
class Divide(Map):
    """x / y."""

    x: Node
    y: Node
    expression: ClassVar[str] = "x / y"

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        gx = Divide(g, self.y)
        return gx, Negate(Multiply(gx, self))


@operator
class Power(Map):
    """x to the power y."""

    x: Node
    y: Node
    functions: ClassVar[tuple[str, ...]] = ("POW", "POWER")
    expression: ClassVar[str] = "x ** y"

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        if isinstance(self.y, Constant) and self.y.value == 0:
            return None, None  # 1 everywhere, at 0 too, where 0 * x ** -1 is none
        by_base = Multiply(g, Multiply(self.y, Power(self.x, Subtract(self.y, like(1, self.y)))))
        if isinstance(self.y, Constant):
            return by_base, None
        positive = Greater(self.x, like(0, self.x))
        logarithm = Log(Where(positive, self.x, like(1, self.x)))
        return by_base, Multiply(g, Multiply(self, logarithm))


@operator
class Negate(Map):
    """-x."""

    x: Node
    expression: ClassVar[str] = "-x"

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        return (Negate(g),)


@operator
class Absolute(Map):
    """|x|, with slope 0 at 0."""

    x: Node
    functions: ClassVar[tuple[str, ...]] = ("ABS",)
    expression: ClassVar[str] = "abs(x)"

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        return (Multiply(g, Sign(self.x)),)


@operator
class Sign(Map):
    """-1, 0 or 1."""

    x: Node
    functions: ClassVar[tuple[str, ...]] = ("SIGN",)
    expression: ClassVar[str] = "sign(x)"


@operator
class Exp(Map):
    """e to the power x."""

    x: Node
    functions: ClassVar[tuple[str, ...]] = ("EXP",)
    expression: ClassVar[str] = "exp(x)"

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        return (Multiply(g, self),)


@operator
class Log(Map):
    """The natural logarithm."""

    x: Node
    functions: ClassVar[tuple[str, ...]] = ("LN",)
    expression: ClassVar[str] = "log(x)"

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        return (Divide(g, self.x),)


@operator
class Sqrt(Map):
    """The square root."""

    x: Node
    functions: ClassVar[tuple[str, ...]] = ("SQRT",)
    expression: ClassVar[str] = "sqrt(x)"

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        return (Divide(Multiply(like(0.5, g), g), self),)


@operator
class Sin(Map):
    """The sine of x radians."""

    x: Node
    functions: ClassVar[tuple[str, ...]] = ("SIN",)
    expression: ClassVar[str] = "sin(x)"

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        return (Multiply(g, Cos(self.x)),)


@operator
class Cos(Map):
    """The cosine of x radians."""

    x: Node
    functions: ClassVar[tuple[str, ...]] = ("COS",)
    expression: ClassVar[str] = "cos(x)"

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        return (Negate(Multiply(g, Sin(self.x))),)


@operator
class Tanh(Map):
    """The hyperbolic tangent: squashes to -1 .. 1."""

    x: Node
    functions: ClassVar[tuple[str, ...]] = ("TANH",)
    expression: ClassVar[str] = "tanh(x)"

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        return (Multiply(g, Subtract(like(1, g), Multiply(self, self))),)


@operator
class Erf(Map):
    """The error function, 2/sqrt(pi) times the integral of exp(-t*t) from 0 to x."""

    x: Node
    functions: ClassVar[tuple[str, ...]] = ("ERF",)
    expression: ClassVar[str] = "erf(x)"

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        slope = Multiply(like(1.1283791670955126, g), Exp(Negate(Multiply(self.x, self.x))))
        return (Multiply(g, slope),)


@operator
class Sigmoid(Map):
    """1 / (1 + exp(-x)): a score as a probability."""

    x: Node
    functions: ClassVar[tuple[str, ...]] = ("SIGMOID",)
    expression: ClassVar[str] = "1 / (1 + exp(-x))"

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        return (Multiply(g, Multiply(self, Subtract(like(1, g), self))),)


@operator
class Softplus(Map):
    """log(1 + exp(x)), without overflow: the smooth form of max(x, 0)."""

    x: Node
    functions: ClassVar[tuple[str, ...]] = ("SOFTPLUS",)
    expression: ClassVar[str] = "maximum(x, 0) + log1p(exp(-abs(x)))"

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        return (Multiply(g, Sigmoid(self.x)),)


@operator
class Maximum(Map):
    """The larger of x and y; where they are equal, the gradient goes to y."""

    x: Node
    y: Node
    expression: ClassVar[str] = "maximum(x, y)"

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        first = Greater(self, self.y)
        return Multiply(g, first), Multiply(g, Not(first))


@operator
class Minimum(Map):
    """The smaller of x and y; where they are equal, the gradient goes to y."""

    x: Node
    y: Node
    expression: ClassVar[str] = "minimum(x, y)"

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        first = Less(self, self.y)
        return Multiply(g, first), Multiply(g, Not(first))


@operator
class Where(Map):
    """x where the condition holds, else y: CASE WHEN."""

    condition: Node
    x: Node
    y: Node
    expression: ClassVar[str] = "where(condition, x, y)"
    in_place: ClassVar[bool] = False  # its kernel writes y before it reads x

    def element_type(self) -> Element:
        if self.condition.type.element != BOOLEAN:
            raise TypeProblem(f"a condition must be BOOLEAN, not {self.condition.type.element}")
        return promote(self.x.type.element, self.y.type.element)

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        zero = like(0, g)
        return None, Where(self.condition, g, zero), Where(self.condition, zero, g)


@operator
class Less(Predicate):
    """x < y."""

    x: Node
    y: Node
    expression: ClassVar[str] = "x < y"


@operator
class LessEqual(Predicate):
    """x <= y."""

    x: Node
    y: Node
    expression: ClassVar[str] = "x <= y"


@operator
class Greater(Predicate):
    """x > y."""

    x: Node
    y: Node
    expression: ClassVar[str] = "x > y"


@operator
class GreaterEqual(Predicate):
    """x >= y."""

    x: Node
    y: Node
    expression: ClassVar[str] = "x >= y"


@operator
class Equal(Predicate):
    """x = y."""

    x: Node
    y: Node
    expression: ClassVar[str] = "x == y"


@operator
class NotEqual(Predicate):
    """x <> y."""

    x: Node
    y: Node
    expression: ClassVar[str] = "x != y"


@operator
class And(Predicate):
    """x AND y."""

    x: Node
    y: Node
    expression: ClassVar[str] = "x & y"


@operator
class Or(Predicate):
    """x OR y."""

    x: Node
    y: Node
    expression: ClassVar[str] = "x | y"


@operator
class Not(Predicate):
    """NOT x."""

    x: Node
    expression: ClassVar[str] = "~x"


@operator
class Cast(Map):
    """The same numbers in another element type."""

    x: Node
    element: Element
    expression: ClassVar[str] = "x"
    in_place: ClassVar[bool] = False

    def element_type(self) -> Element:
        return self.element

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        return (cast(g, self.x.type.element) if self.x.type.element.kind == "float" else None,)

    def counts(self) -> bool:
        return False  # a number has no element type

    def work(self) -> Work:
        return Work(streamed=self.bytes(), converted=size_of(self.type), calls=CALL)

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        e.call("cast", inputs[0], out)


def cast(node: Node, element: Element) -> Node:
    """``node`` with the given element type; a constant changes in place."""
    if node.type.element == element:
        return node
    if isinstance(node, Constant):
        return Constant(node.values, element, node.shape)
    return Cast(node, element)
