"""Numbers of compiled code, on which Python's arithmetic writes LLVM instructions.

A formula over them reads like one over floats, and serves for a vector of numbers as it does for one. Every instruction
carries the flag ``contract`` and no other: a product and a sum may become one fused operation, and Numba leaves
instructions that have a flag alone, so that a caller's ``reassoc`` does not reach a formula that depends on the order
of its operations.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils

FLAGS = ("contract",)

declared: Any = cgutils.get_or_insert_function


class Format(NamedTuple):
    """How a type keeps its numbers: bits of the fraction, the exponent's bias, an integer of its size."""

    fraction: int
    bias: int
    integer: ir.IntType


SINGLE = Format(23, 127, ir.IntType(32))
DOUBLE = Format(52, 1023, ir.IntType(64))


def like(kind: ir.Type, element: ir.Type) -> ir.Type:
    """A type of elements in place of another one's: of as many, where that is a vector."""
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


class Number:
    """A value of compiled code: a float32, float64, integer or truth value, or a vector of such, by the type of its
    LLVM value."""

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder, self.value = builder, value

    @property
    def element(self) -> ir.Type:
        """The type of the number, or of each number of the vector."""
        kind = self.value.type
        return kind.element if isinstance(kind, ir.VectorType) else kind

    @property
    def is_float(self) -> bool:
        """Whether it is a floating-point number."""
        return isinstance(self.element, (ir.FloatType, ir.DoubleType))

    @property
    def format(self) -> Format:
        """The layout of the floating-point type."""
        return SINGLE if isinstance(self.element, ir.FloatType) else DOUBLE

    def like(self, number: Number | float) -> ir.Value:
        """The LLVM value of an operand: a Python number becomes a constant of this number's type."""
        if isinstance(number, Number):
            return number.value
        kind = self.value.type
        return ir.Constant(kind, [number] * kind.count if isinstance(kind, ir.VectorType) else number)

    def to(self, element: ir.Type) -> ir.Type:
        """The type of as many numbers of another kind."""
        return like(self.value.type, element)

    def constant(self, number: float) -> Number:
        """A constant of this number's type."""
        return Number(self.builder, self.like(number))

    def _of(self, value: ir.Value) -> Number:
        return Number(self.builder, value)

    def _arithmetic(self, name: str, other: Number | float) -> Number:
        if self.is_float:
            return self._of(getattr(self.builder, "f" + name)(self.value, self.like(other), flags=FLAGS))
        return self._of(getattr(self.builder, name)(self.value, self.like(other)))

    def _compare(self, sign: str, other: Number | float) -> Number:
        if self.is_float:
            return self._of(self.builder.fcmp_ordered(sign, self.value, self.like(other), flags=FLAGS))
        return self._of(self.builder.icmp_signed(sign, self.value, self.like(other)))

    def __add__(self, other: Number | float) -> Number:
        return self._arithmetic("add", other)

    def __sub__(self, other: Number | float) -> Number:
        return self._arithmetic("sub", other)

    def __mul__(self, other: Number | float) -> Number:
        return self._arithmetic("mul", other)

    def __truediv__(self, other: Number | float) -> Number:
        return self._arithmetic("div", other)

    def __radd__(self, other: float) -> Number:
        return self + other

    def __rmul__(self, other: float) -> Number:
        return self * other

    def __rsub__(self, other: float) -> Number:
        return self.constant(other) - self

    def __rtruediv__(self, other: float) -> Number:
        return self.constant(other) / self

    def __neg__(self) -> Number:
        return self._of(self.builder.fneg(self.value)) if self.is_float else 0 - self

    def __lt__(self, other: Number | float) -> Number:
        return self._compare("<", other)

    def __gt__(self, other: Number | float) -> Number:
        return self._compare(">", other)

    def equals(self, other: Number | float) -> Number:
        """Whether both are equal; NaN equals nothing."""
        return self._compare("==", other)

    def __and__(self, other: Number | int) -> Number:
        return self._of(self.builder.and_(self.value, self.like(other)))

    def __or__(self, other: Number | int) -> Number:
        return self._of(self.builder.or_(self.value, self.like(other)))

    def __xor__(self, other: Number | int) -> Number:
        return self._of(self.builder.xor(self.value, self.like(other)))

    def negated(self) -> Number:
        """Not this truth value."""
        return self._of(self.builder.not_(self.value))

    def __lshift__(self, places: int) -> Number:
        return self._of(self.builder.shl(self.value, self.like(places)))

    def __rshift__(self, places: int) -> Number:
        """The shift that repeats the sign."""
        return self._of(self.builder.ashr(self.value, self.like(places)))

    def bits(self) -> Number:
        """The bits of a floating-point number, as an integer."""
        return self._of(self.builder.bitcast(self.value, self.to(self.format.integer)))

    def floating(self) -> Number:
        """The floating-point number whose bits this integer has."""
        kind = ir.FloatType() if self.element == SINGLE.integer else ir.DoubleType()
        return self._of(self.builder.bitcast(self.value, self.to(kind)))

    def double(self) -> Number:
        """A float32 as float64."""
        return self._of(self.builder.fpext(self.value, self.to(ir.DoubleType())))

    def single(self) -> Number:
        """A float64 rounded to float32."""
        return self._of(self.builder.fptrunc(self.value, self.to(ir.FloatType())))

    def short(self) -> Number:
        """The low 32 bits of an integer."""
        return self._of(self.builder.trunc(self.value, self.to(SINGLE.integer)))

    def as_double(self) -> Number:
        """An integer as float64."""
        return self._of(self.builder.sitofp(self.value, self.to(ir.DoubleType())))

    def call(self, name: str, *others: Number | float) -> Number:
        """LLVM's function of this name, on operands of one type."""
        kind = self.value.type
        operands = [self.value, *(self.like(o) for o in others)]
        signature = ir.FunctionType(kind, [kind] * len(operands))
        suffix = self.element.intrinsic_name
        if isinstance(kind, ir.VectorType):
            suffix = f"v{kind.count}{suffix}"
        function = declared(self.builder.module, signature, f"llvm.{name}.{suffix}")
        return self._of(self.builder.call(function, operands))

    def __abs__(self) -> Number:
        return self.call("fabs")

    def polynomial(self, coefficients: Sequence[float]) -> Number:
        """Horner's scheme; the constant term comes first."""
        *rest, last = coefficients
        total = self.constant(last)
        for c in reversed(rest):
            total = total * self + c
        return total


def where(condition: Number, a: Number | float, b: Number | float) -> Number:
    """a where the condition holds, else b; one of them is a Number. Both are computed: no branch."""
    number = a if isinstance(a, Number) else b
    assert isinstance(number, Number)
    return Number(condition.builder, condition.builder.select(condition.value, number.like(a), number.like(b)))


def bits_of(value: float, format: Format) -> int:
    """The bits of a constant, as an integer."""
    code, integer = ("<f", "<i") if format is SINGLE else ("<d", "<q")
    return int(struct.unpack(integer, struct.pack(code, value))[0])


def rounded(x: Number) -> tuple[Number, Number]:
    """The integer nearest to x as a floating-point number and as an integer, by adding 1.5 * 2^fraction.

    It has at most fraction - 2 bits. Where x is NaN the integer is arbitrary, but defined.
    """
    shift = 1.5 * 2.0**x.format.fraction
    shifted = x + shift
    return shifted - shift, shifted.bits() - bits_of(shift, x.format)


def to_floating(k: Number, format: Format) -> Number:
    """An integer of at most fraction - 2 bits as a floating-point number: what ``rounded`` does, backwards."""
    shift = 1.5 * 2.0**format.fraction
    return (k + bits_of(shift, format)).floating() - shift


def power_of_two(k: Number, format: Format) -> Number:
    """2^k for an integer k in the range of normal numbers."""
    return ((k + format.bias) << format.fraction).floating()


def looked_up(index: Number, name: str, numbers: Sequence[float]) -> Number:
    """The entry of a constant table of float64, which is kept once a module under its name; no check of the index."""
    builder, module = index.builder, index.builder.module
    if name not in module.globals:
        kind = ir.ArrayType(ir.DoubleType(), len(numbers))
        table = ir.GlobalVariable(module, kind, name)
        table.global_constant, table.linkage = True, "internal"
        table.initializer = ir.Constant(kind, list(numbers))
    zero = ir.Constant(index.value.type, 0)
    return Number(builder, builder.load(builder.gep(module.globals[name], [zero, index.value], inbounds=True)))
