"""Elementary functions without branches, so that LLVM computes many of them at once in the registers of a loop.

Each reduces its argument to a short interval, exactly (Cody & Waite, "Software manual for the elementary functions",
1980; Muller, "Elementary functions", 3rd ed., chapters 3 and 11), and evaluates a polynomial there that is best in the
largest relative error (Remez), its coefficients rounded one after another and the rest fitted again. The bounds are in
units in the last place of the exact result; they hold with and without fused multiply-add.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction
from typing import NamedTuple

from .number import DOUBLE, SINGLE, Format, Number, bits_of, looked_up, power_of_two, rounded, to_floating, where

LOG2_E = 1 / math.log(2)
SIGN = -0x80000000  # the sign bit of a float32


class Constants(NamedTuple):
    """What the formulas take for one floating-point type."""

    ln2: tuple[float, float]  # the first has so few bits that its product with any exponent is exact
    exp_range: tuple[float, float]  # below, exp is 0; above, infinite
    exp: tuple[float, ...]  # (e^r - 1 - r) / r^2 on |r| <= ln(2) / 2
    tanh_is_one: float  # from here on
    tanh: tuple[float, ...]  # (tanh(x) / x - 1) / x^2 as a polynomial in x^2, for |x| <= 0.35
    scale: int  # 2^scale makes every subnormal number normal


CONSTANTS = {
    SINGLE: Constants(
        ln2=(0.693145751953125, 1.428606765330187e-06),
        exp_range=(-104.0, 89.0),
        exp=(0.5, 0.1666654795408249, 0.04166685789823532, 0.008366165682673454, 0.0013898101169615984),
        tanh_is_one=10.0,
        tanh=(-0.33333322405815125, 0.1333240568637848, -0.053729619830846786, 0.01944791153073311),
        scale=24,
    ),
    DOUBLE: Constants(
        ln2=(0.6931471805592082, 7.371002565167799e-13),
        exp_range=(-746.0, 710.0),
        exp=(
            *(0.5, 0.16666666666666677, 0.04166666666666669, 0.008333333333321778, 0.001388888888888677),
            *(0.00019841269885335786, 2.4801587294888206e-05, 2.7557245217731577e-06, 2.755731578363435e-07),
            *(2.5108646248507644e-08, 2.089799264745356e-09),
        ),
        tanh_is_one=20.0,
        tanh=(
            *(-0.3333333333333251, 0.1333333333311519, -0.05396825377046893, 0.02186947984875887),
            *(-0.008863023878678664, 0.0035891097929475857, -0.001430646550091088, 0.0004745351501422142),
        ),
        scale=53,
    ),
}

# (log(1 + f) - f + f^2 / 2) / f^3 for 1 + f in [sqrt(1/2), sqrt(2)]
LOG_SINGLE = (
    *(0.3333333134651184, -0.250008225440979, 0.20001253485679626, -0.16623325645923615),
    *(0.14201214909553528, -0.1316000074148178, 0.1276502162218094, -0.07638989388942719),
)
# (2 atanh(s) / s - 2) / s^2 as a polynomial in s^2, for s = f / (2 + f) and the same f
LOG_DOUBLE = (
    *(0.6666666666666735, 0.3999999999940935, 0.28571428743594723, 0.2222219846322275),
    *(0.18183568828773272, 0.1531397079202204, 0.14796396283206165),
)
# erf(x) / x - 1 as a polynomial in x^2, for |x| < 0.93; -log(1 - erf(x)) / x in x, for 0.925 < x < the third, where erf
# is 1
ERF: dict[Format, tuple[tuple[float, ...], tuple[float, ...], float]] = {
    SINGLE: (
        (
            *(0.12837915122509003, -0.37612488865852356, 0.11281729489564896),
            *(-0.02676287107169628, 0.004987169988453388, -0.0005958492984063923),
        ),
        (
            *(1.128654956817627, 0.6351246237754822, 0.10628172010183334, -0.02380126714706421),
            *(0.0036612548865377903, -0.00032748575904406607, 1.1704365533660166e-05),
        ),
        4.0,
    ),
    DOUBLE: (
        (
            *(0.12837916709551256, -0.3761263890318332, 0.11283791670934941, -0.026866170641413698),
            *(0.005223977590072339, -0.0008548325043955348, 0.00012055263129334841, -1.4924040263436312e-05),
            *(1.6437610648632086e-06, -1.6122634716647168e-07, 1.3295766839740173e-08, -6.890657555656057e-10),
        ),
        (
            *(1.1283791513401096, 0.6366198771694989, 0.10277244326578473, -0.019129250366584763),
            *(-0.00020419591118925703, 0.00168210768563997, -0.0005640006978496084, -9.34888590568481e-06),
            *(0.00010064228113151546, -5.853994812482262e-05, 2.1307688948677968e-05, -5.67170167393667e-06),
            *(1.1445332526637718e-06, -1.7468722158336894e-07, 1.9629698899861847e-08, -1.5352609042109188e-09),
            *(7.469612095840206e-11, -1.7022363962832882e-12),
        ),
        6.0,
    ),
}
# sin(pi/2 f) / f and (cos(pi/2 f) - 1) / f^2 as polynomials in f^2, for |f| < 0.63
SIN = (
    *(1.5707963267947804, -0.6459640974856808, 0.07969262565206131),
    *(-0.004681747828697269, 0.0001604108159291069, -3.5312001367601687e-06),
)
COS = (-1.2337005499493623, 0.2536695032987123, -0.020863429727381456, 0.0009190106908055885, -2.464318924535565e-05)
TWO_OVER_PI = Fraction(0xA2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163ABDEBBC561B7246E3A, 1 << 288)


def exp(x: Number) -> Number:
    """e^x within 1.3 ulp: e^x = 2^k e^r with k = round(x / ln 2), |r| <= 0.3466."""
    smallest, largest = CONSTANTS[x.format].exp_range
    x = where(x > largest, largest, where(x < smallest, smallest, x))  # NaN stays
    p, k = _expm1_reduced(x)
    half = k >> 1  # 2^k itself may be out of range where the result is not
    return (1 + p) * power_of_two(half, x.format) * power_of_two(k - half, x.format)


def _expm1_reduced(x: Number) -> tuple[Number, Number]:
    """e^r - 1 and k, for x = k ln 2 + r."""
    constants = CONSTANTS[x.format]
    high, low = constants.ln2
    whole, k = rounded(x * LOG2_E)
    r = x - whole * high - whole * low
    return r + r * r * r.polynomial(constants.exp), k


def tanh(x: Number) -> Number:
    """tanh(x) within 1.5 ulp: x + x^3 P(x^2) near 0, else E / (E + 2), E = e^2|x| - 1 = 2^k (e^r - 1) + (2^k - 1)."""
    constants = CONSTANTS[x.format]
    a = abs(x)
    z = a * a
    small = a + a * z * z.polynomial(constants.tanh)
    bounded = where(a > constants.tanh_is_one, constants.tanh_is_one, a)
    p, k = _expm1_reduced(bounded + bounded)
    scale = power_of_two(k, x.format)
    e = scale * p + (scale - 1)
    return where(a < 0.35, small, e / (e + 2)).call("copysign", x)


def _split(x: Number) -> tuple[Number, Number]:
    """k, and the bits that x loses where it is divided by 2^k, so that it lies in [sqrt(1/2), sqrt(2)]."""
    k = (x.bits() - bits_of(math.sqrt(0.5), x.format)) >> x.format.fraction
    return k, k << x.format.fraction


def _log_reduced(f: Number, k: Number) -> Number:
    """log(2^k (1 + f)) for 1 + f in [sqrt(1/2), sqrt(2)]; k is a floating-point number."""
    high, low = CONSTANTS[f.format].ln2
    half_square = 0.5 * f * f
    if f.format is SINGLE:
        tail = f * f * f * f.polynomial(LOG_SINGLE) + k * low
        return f + (tail - half_square) + k * high
    s = f / (f + 2)
    z = s * s
    tail = s * (half_square + z * z.polynomial(LOG_DOUBLE)) + k * low
    return f - (half_square - tail) + k * high


def _log_edges(result: Number, x: Number, pole: float) -> Number:
    """The logarithm whose pole is there, at its pole and past it, at infinity and at NaN."""
    result = where(x > pole, result, where(x.equals(pole), x.constant(-math.inf), math.nan))
    return where(x.equals(math.inf), math.inf, result)


def log(x: Number) -> Number:
    """The natural logarithm within 1.5 ulp: log(2^k (1 + f)) = k ln 2 + log(1 + f)."""
    scale = CONSTANTS[x.format].scale
    is_small = x < 2.0 ** (2 - x.format.bias)
    normal = where(is_small, x * 2.0**scale, x)
    k, shift = _split(normal)
    f = (normal.bits() - shift).floating() - 1
    exponent = to_floating(k, x.format)
    exponent = where(is_small, exponent - scale, exponent)
    return _log_edges(_log_reduced(f, exponent), x, 0.0)


def log1p(x: Number) -> Number:
    """log(1 + x) within 2 ulp: 1 + x = 2^k (1 + f) gives f = 2^-k x + (2^-k - 1), x itself where k = 0."""
    k, shift = _split(x + 1)
    scaled = (x.bits() - shift).floating()  # exact: where k is not 0, x is a normal number
    largest = x.format.bias - 1
    scale = power_of_two(0 - where(k > largest, largest, k), x.format)
    f = scaled + (scale - 1)
    result = _log_edges(_log_reduced(f, to_floating(k, x.format)), x, -1.0)
    return where(x.equals(0), x, result)  # a zero keeps its sign


def erf(x: Number) -> Number:
    """The error function within 1.5 ulp: x + x P(x^2) near 0, else 1 - e^-g with g = x G(x)."""
    near, far, largest = ERF[x.format]
    a = abs(x)
    small = a + a * (a * a).polynomial(near)
    bounded = where(a > largest, largest, a)
    p, k = _expm1_reduced(-(bounded * bounded.polynomial(far)))
    large = 1 - (1 + p) * power_of_two(k, x.format)
    return where(a < 0.9277, small, large).call("copysign", x)


@functools.cache
def quarter_turns() -> tuple[float, ...]:
    """2/pi 2^(e - 150) modulo 4 for each exponent e of a float32, as two float64: 29 bits, and the 53 that follow.

    The product of the first with the 24 bits of a float32 is exact, so that an argument of any size loses nothing
    (Payne & Hanek, "Radian reduction for trigonometric functions", 1983).
    """
    table: list[float] = []
    for exponent in range(256):
        turns = TWO_OVER_PI * Fraction(2) ** (max(exponent, 1) - 150) % 4
        unit = Fraction(2) ** (math.frexp(turns)[1] - 29)
        first = turns // unit * unit
        table += [float(first), float(turns - first)]
    return tuple(table)


def _reduced_angle(x: Number) -> tuple[Number, Number]:
    """f and k, for |x| = (k + f) pi/2 modulo 2 pi and |f| < 0.63; f is a float64."""
    bits = x.bits() & 0x7FFFFFFF
    exponent = bits >> 23
    significand = (bits & 0x7FFFFF) | where(exponent > 0, bits.constant(1 << 23), 0)
    m = significand.as_double()
    first = m * looked_up(exponent + exponent, "mlsql.quarter_turns", quarter_turns())
    second = m * looked_up(exponent + exponent + 1, "mlsql.quarter_turns", quarter_turns())
    whole, k = rounded(first)
    return first - whole + second, k.short()


def _sine_of_quarters(f: Number, k: Number, negative: Number, x: Number) -> Number:
    """sin((k + f) pi/2) as a float32, with the opposite sign where the sign bit of ``negative`` is set."""
    z = f * f
    sine, cosine = f * z.polynomial(SIN), 1 + z * z.polynomial(COS)
    is_sine = (k & 1).equals(0)
    result = where(is_sine, sine, cosine).single().bits() ^ ((k & 2) << 30) ^ (negative & SIGN)
    return where(abs(x) < math.inf, result.floating(), math.nan)


def sin(x: Number) -> Number:
    """The sine of a float32 of any size within 1 ulp; its angle is reduced and its polynomial computed in float64."""
    f, k = _reduced_angle(x)
    return _sine_of_quarters(f, k, x.bits(), x)


def cos(x: Number) -> Number:
    """The cosine of a float32 of any size within 1 ulp; see ``sin``."""
    f, k = _reduced_angle(x)
    return _sine_of_quarters(f, k + 1, k & 0, x)


def power(x: Number, y: Number) -> Number:
    """x^y of float32 within 1 ulp, by e^(y log|x|) in float64; 0, infinities, NaN and negative x as in C."""
    base, exponent = abs(x.double()), y.double()
    k, shift = _split(base)
    logarithm = _log_reduced((base.bits() - shift).floating() - 1, to_floating(k, DOUBLE))
    logarithm = where(base.equals(0), -math.inf, where(base < math.inf, logarithm, base))
    bounded = where(exponent > 1e300, 1e300, where(exponent < -1e300, -1e300, exponent))  # infinity times log 1 is 0
    t = bounded * logarithm
    p, k = _expm1_reduced(where(t > 100.0, 100.0, where(t < -120.0, -120.0, t)))
    size = ((1 + p) * power_of_two(k, DOUBLE)).single()
    half = y * 0.5
    is_whole, is_even = y.call("floor").equals(y), half.call("floor").equals(half)
    is_odd = is_whole & is_even.negated()
    sign = where(is_odd, x.bits() & SIGN, 0)
    result = (size.bits() ^ sign).floating()
    has_none = (x < 0.0) & (x > -math.inf) & is_whole.negated()
    result = where(has_none, math.nan, result)
    return where(y.equals(0) | x.equals(1), 1.0, result)


def with_short_powers(x: Number, y: Number, result: Number) -> Number:
    """x^y, given as ``result``, or a few products or a root: where the compiler knows y, all the rest goes."""
    root = where(x.equals(-math.inf), math.inf, (x + 0.0).call("sqrt"))  # of -0 it is 0
    for exponent, short in {2: x * x, 3: x * x * x, -1: 1 / x, 0.5: root, -0.5: 1 / root}.items():
        result = where(y.equals(exponent), short, result)
    return result


def whole_power(x: Number, n: int) -> Number:
    """x^n for a constant n of at most 7 in size, within 1.5 ulp."""
    if n in (0, 1, 2, 3, -1):
        direct = {0: lambda: x.constant(1.0), 1: lambda: x, 2: lambda: x * x, 3: lambda: x * x * x}
        return direct[n]() if n >= 0 else 1 / x
    base = x.double()
    result = base
    for bit in bin(abs(n))[3:]:
        result = result * result * base if bit == "1" else result * result
    return (result if n > 0 else 1 / result).single()
