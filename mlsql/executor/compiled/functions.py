"""The functions of scalar expressions for compiled loops: one a name of ``scalar.FUNCTIONS``, and power.

Only compiled code can call them. A call becomes LLVM instructions in the caller, without branches, so that a plain
loop over an array runs in vector registers. The result has the type of the argument: float32 within 2 ulp over the
whole range (subnormal numbers, infinities and NaN included), and float64 too; an integer counts as float64. Of two
operands the wider floating-point type decides, and an integer follows it; a Python float in compiled code is a
float64, so that constants beside float32 have to be float32. sin, cos and most powers of float64 are calls of the C
library, one number at a time.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable
from typing import Any

from numba import types
from numba.extending import intrinsic

from ...planner.scalar import FUNCTIONS
from . import formulas
from .entries import Entry, common, number_by_number
from .number import Number
from .number import where as select

__all__ = [*FUNCTIONS, "power"]

Formula = Callable[..., Number]


def _floating(*kinds: Any) -> Any:
    """The floating-point type of a result, or None where an operand is no number."""
    if any(isinstance(k, Entry) for k in kinds):
        return common(*kinds)
    if not all(isinstance(k, (types.Float, types.Integer, types.Boolean)) for k in kinds):
        return None
    return max((k for k in kinds if isinstance(k, types.Float)), key=lambda k: k.bitwidth, default=types.float64)


def _common(*kinds: Any) -> Any:
    """The type of a result that may be an integer too."""
    if all(isinstance(k, (types.Integer, types.Boolean)) for k in kinds):
        return types.int64
    return _floating(*kinds)


def _function(name: str, result: Callable[..., Any], formula: Formula, library: Any = None) -> Any:
    """A function of one operand that compiled code can call, from its formula; ``library`` is what float64 calls."""

    def typing(context: Any, x: Any) -> Any:
        kind = result(x)
        return kind and (kind(kind), _code(formula, library, kind))

    return _named(typing, name, formula)


def _function_of_two(name: str, result: Callable[..., Any], formula: Formula, library: Any = None) -> Any:
    """The same with two operands."""

    def typing(context: Any, x: Any, y: Any) -> Any:
        kind = result(x, y)
        if isinstance(kind, Entry):
            return kind(x, y), _code(formula, library, kind)
        return kind and (kind(kind, kind), _code(formula, library, kind))

    return _named(typing, name, formula)


def _named(typing: Callable[..., Any], name: str, formula: Formula) -> Any:
    typing.__name__ = typing.__qualname__ = name
    typing.__doc__ = formula.__doc__
    return intrinsic(typing)


def _code(formula: Formula, library: Any, kind: Any) -> Callable[..., Any]:
    """What writes a call's instructions."""
    if isinstance(kind, Entry):
        return number_by_number(formula, kind)  # type: ignore[no-any-return]

    def write(context: Any, builder: Any, sig: Any, operands: Any) -> Any:
        if library is not None and sig.return_type == types.float64:
            return context.get_function(library, sig)(builder, operands)
        return formula(*(Number(builder, o) for o in operands)).value

    return write


def _absolute(x: Number) -> Number:
    """|x|."""
    return builtins.abs(x) if x.is_float else select(x < 0, -x, x)


def _sign(x: Number) -> Number:
    """-1, 0 or 1 by the sign of x; NaN stays NaN."""
    return select(x > 0, 1, select(x < 0, -1, select(x.equals(0), 0, x) if x.is_float else x.constant(0)))


def _maximum(x: Number, y: Number) -> Number:
    """The larger one; NaN where one of them is."""
    return x.call("maximum", y) if x.is_float else select(x > y, x, y)


def _minimum(x: Number, y: Number) -> Number:
    """The smaller one; NaN where one of them is."""
    return x.call("minimum", y) if x.is_float else select(x < y, x, y)


def _square_root(x: Number) -> Number:
    """The square root, rounded correctly."""
    return x.call("sqrt")


abs = _function("abs", _common, _absolute)
cos = _function("cos", _floating, formulas.cos, math.cos)
erf = _function("erf", _floating, formulas.erf)
exp = _function("exp", _floating, formulas.exp)
log = _function("log", _floating, formulas.log)
log1p = _function("log1p", _floating, formulas.log1p)
maximum = _function_of_two("maximum", _common, _maximum)
minimum = _function_of_two("minimum", _common, _minimum)
sign = _function("sign", _common, _sign)
sin = _function("sin", _floating, formulas.sin, math.sin)
sqrt = _function("sqrt", _floating, _square_root)
tanh = _function("tanh", _floating, formulas.tanh)


def _general_power(context: Any, builder: Any, sig: Any, operands: Any) -> Any:
    general = _code(formulas.power, operator.pow, sig.return_type)(context, builder, sig, operands)
    x, y = (Number(builder, o) for o in operands)
    return formulas.with_short_powers(x, y, Number(builder, general)).value


@intrinsic(prefer_literal=True)
def power(context: Any, x: Any, y: Any) -> Any:
    """x to the power y; a whole constant of at most 7 in size becomes products."""
    base, exponent = (getattr(k, "literal_type", k) for k in (x, y))
    kind = _floating(base, exponent)
    if kind is None:
        return None
    n = y.literal_value if isinstance(y, types.IntegerLiteral) else None
    if n is None or not (-1 <= n <= 3 or (kind == types.float32 and -8 < n < 8)):
        return kind(kind, kind), _general_power

    def write(context: Any, builder: Any, sig: Any, operands: Any) -> Any:
        return formulas.whole_power(Number(builder, operands[0]), n).value

    return kind(kind, y), write


def _chosen(condition: Any, a: Any, b: Any) -> Any:
    """``where`` for entries."""
    entry = next(k for k in (condition, a, b) if isinstance(k, Entry))
    kind = common(entry, *((types.float64,) if a == b == types.int64 else (a, b)))
    return kind and (kind(condition, a, b), number_by_number(select, kind))


@intrinsic
def where(context: Any, condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, else b."""
    kind = a if a == b else _common(a, b)
    if isinstance(condition, Entry) or isinstance(kind, Entry):
        return _chosen(condition, a, b)
    if kind is None or not isinstance(condition, types.Boolean):
        return None

    def write(context: Any, builder: Any, sig: Any, operands: Any) -> Any:
        return builder.select(*operands)

    return kind(condition, kind, kind), write
