"""The functions of compiled loops, against NumPy in float64 and mpmath: at most 2 units in the last place."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.special
from numba import njit

from mlsql.executor.compiled import functions
from mlsql.planner.scalar import FUNCTIONS

Array = Any

BOUND = 2.0
REFERENCES: dict[str, Callable[..., Array]] = {
    **{n: getattr(np, n) for n in ("abs", "cos", "exp", "log", "log1p", "sign", "sin", "sqrt", "tanh")},
    "erf": scipy.special.erf,
}
OF_TWO = ("maximum", "minimum", "power")
# what callers may allow the compiler in their own arithmetic
CALLERS: dict[str, Any] = {"strict": {}, "sums in registers": {"fastmath": {"reassoc", "contract"}}}
EDGES = [0.0, 2**-149, 2**-126, 2**-24, 0.35, 0.5**0.5, 0.9277, 1.0, 2**0.5, 4.0, 10.0, 88.72284, 89.0, 103.97, 104.0]
LARGE = [2.0**24, 2.0**31, 2.0**64, 3.4028235e38, math.inf, math.nan]
ULPS = 2.0 ** (np.maximum(np.arange(2048) - 1023, -126) - 23)  # of float32, by the exponent field of a float64


def loop(name: str, **options: Any) -> Callable[[Array, Array], None]:
    """A compiled loop that fills its second argument with a function of its first."""
    function = getattr(functions, name)

    @njit(error_model="numpy", **options)
    def run(x: Array, out: Array) -> None:
        for k in range(x.shape[0]):
            out[k] = function(x[k])

    return run


def loop_of_two(name: str, **options: Any) -> Callable[[Array, Array, Array], None]:
    function = getattr(functions, name)

    @njit(error_model="numpy", **options)
    def run(x: Array, y: Array, out: Array) -> None:
        for k in range(x.shape[0]):
            out[k] = function(x[k], y[k])

    return run


def loop_with_constant(name: str, constant: str) -> Callable[[Array, Array], None]:
    """A compiled loop over ``name(x, constant)``, the constant as source text."""
    scope: dict[str, Any] = {"function": getattr(functions, name), "float32": np.float32}
    exec(f"def run(x, out):\n    for k in range(x.shape[0]):\n        out[k] = function(x[k], {constant})", scope)
    return njit(error_model="numpy")(scope["run"])  # type: ignore[no-any-return]


@njit
def largest_error(got: Array, want: Array, fields: Array, ulps: Array) -> float:
    """The largest distance in units in the last place; infinite where only one is NaN or the signs differ.

    Infinity counts as 2^128, the number after the largest.
    """
    worst, top = 0.0, 2.0**128
    for k in range(got.shape[0]):
        g, w = np.float64(got[k]), want[k]
        if g != g and w != w:
            continue
        if g != g or w != w or math.copysign(1, g) != math.copysign(1, w):
            return np.inf
        g, w = min(max(g, -top), top), min(max(w, -top), top)
        worst = max(worst, abs(g - w) / ulps[min((fields[k] >> 52) & 2047, 1150)])
    return worst


def error(got: Array, want: Array) -> float:
    return largest_error(got, want, want.view(np.int64), ULPS)


def sample() -> Array:
    """2.1 million float32 of all sizes, and the neighbourhood of each edge of the formulas, with both signs."""
    edges = np.array([*EDGES, *LARGE], np.float32).view(np.int32)
    near = (edges[:, None] + np.arange(-64, 65)).clip(0, 0x7FFFFFFF).astype(np.uint32)
    every = np.arange(0, 1 << 32, 2039, dtype=np.uint32)
    return np.concatenate([every, near.ravel(), near.ravel() | 0x80000000]).view(np.float32)


def check(name: str, x: Array, run: Callable[..., None]) -> float:
    """The largest error of a function of float32; AssertionError if it is above the bound."""
    got = np.empty_like(x)
    run(x, got)
    with np.errstate(all="ignore"):
        want = REFERENCES[name](x.astype(np.float64))
    worst = error(got, want)
    assert worst <= BOUND
    return worst


def test_every_function_of_expressions_has_a_compiled_form() -> None:
    assert {*REFERENCES, *OF_TWO, "where"} == {*FUNCTIONS, "power"} == set(functions.__all__)
    assert all(getattr(functions, name).__doc__ for name in functions.__all__)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("name", REFERENCES)
def test_float32_is_within_two_ulp_over_the_whole_range(name: str, caller: str) -> None:
    check(name, sample(), loop(name, **CALLERS[caller]))


def test_the_bound_holds_without_fused_multiply_add() -> None:
    program = """
import test_functions as t
for name in t.REFERENCES:
    t.check(name, t.sample(), t.loop(name))
for name in t.OF_DOUBLES:
    t.test_float64_is_within_two_ulp(name)
t.test_functions_of_two_float32("power", "strict")
"""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCES)
def test_every_float32_there_is(name: str) -> None:
    run, block = loop(name), 1 << 20
    worst = max(
        check(name, np.arange(start, start + block, dtype=np.int64).astype(np.uint32).view(np.float32), run)
        for start in range(0, 1 << 32, block)
    )
    print(f"{name}: {worst:.4f} ulp")


# -- float64 -----------------------------------------------------------------------------------------------------------


def doubles(name: str) -> Array:
    """Numbers of all sizes where the function has a value that is neither zero nor infinite."""
    rng = np.random.default_rng(7)
    spread = np.exp(rng.uniform(-700, 700, 1000))
    plain = np.concatenate([rng.normal(size=1500), rng.uniform(-0.3, 0.5, 1000), rng.normal(size=500) * 1e-6])
    match name:
        case "exp":
            return np.concatenate([plain, rng.uniform(-745, 709.7, 1500)])
        case "log" | "sqrt":
            return np.concatenate([spread, 1 + plain[np.abs(plain) < 1], [5e-324, 2.0**-1022, 2.0**-1040, 1.79e308]])
        case "log1p":
            return np.concatenate([spread, plain[plain > -1], np.exp(rng.uniform(-36, 0, 500)) - 1])
        case "tanh" | "erf":
            return np.concatenate([plain, 1 / spread[spread > 1], rng.uniform(-22, 22, 500)])
    return np.concatenate([plain, rng.uniform(-1e4, 1e4, 1000)])


OF_DOUBLES = [name for name in REFERENCES if hasattr(mpmath, name) and name not in ("abs", "sign")]


@pytest.mark.parametrize("name", OF_DOUBLES)
def test_float64_is_within_two_ulp(name: str) -> None:
    x = doubles(name)
    got = np.empty_like(x)
    loop(name)(x, got)
    with mpmath.workprec(200):
        for a, b in zip(x.tolist(), got.tolist(), strict=True):
            want = getattr(mpmath, name)(mpmath.mpf(a))
            assert abs(mpmath.mpf(b) - want) <= BOUND * math.ulp(float(want)), (a, b)


@pytest.mark.parametrize("name", REFERENCES)
def test_float64_at_the_edges(name: str) -> None:
    x = np.array([0, -0.0, math.inf, -math.inf, math.nan, 1, -1, -2, 1e308, -1e308, 5e-324, 710, -746, 800, -800])
    got = np.empty_like(x)
    loop(name)(x, got)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(got, REFERENCES[name](x), rtol=1e-15)


# -- two operands ------------------------------------------------------------------------------------------------------

SPECIAL = np.array(
    [
        *(0, -0.0, 1, -1, 2, -2, 3, -3, 0.5, -0.5, 1.5, 2.5, 4, 7, math.inf, -math.inf, math.nan, 1e38, -1e38),
        *(1e-40, -1e-45, 0.9999999, 1.0000001, 16777215, -16777215, 16777216),
    ],
    np.float32,
)


def pairs() -> tuple[Array, Array]:
    """Special numbers with each other, and random ones whose power is a number."""
    rng = np.random.default_rng(3)
    x = rng.integers(1, 0x7F800000, 1 << 20).astype(np.uint32).view(np.float32)
    with np.errstate(divide="ignore"):
        y = (rng.uniform(-104, 89, len(x)) / np.log(x.astype(np.float64))).astype(np.float32)
    a, b = np.meshgrid(SPECIAL, SPECIAL)
    return np.concatenate([a.ravel(), x]), np.concatenate([b.ravel(), y])


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("name", OF_TWO)
def test_functions_of_two_float32(name: str, caller: str) -> None:
    x, y = pairs()
    got = np.empty_like(x)
    loop_of_two(name, **CALLERS[caller])(x, y, got)
    with np.errstate(all="ignore"):
        want = getattr(np, name)(x.astype(np.float64), y.astype(np.float64))
    if name != "power":  # NumPy leaves open which of two zeros it takes
        got, want = got + np.float32(0), want + 0.0
    assert error(got, want) <= BOUND


@pytest.mark.parametrize("name", OF_TWO)
def test_functions_of_two_float64(name: str) -> None:
    x, y = (a[: len(SPECIAL) ** 2].astype(np.float64) for a in pairs())
    got = np.empty_like(x)
    loop_of_two(name)(x, y, got)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(got, getattr(np, name)(x, y), rtol=1e-15)


EXPONENTS = [*range(-9, 10), *(f"float32({n})" for n in (-2, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3))]


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_a_constant_exponent(exponent: int | str) -> None:
    x = sample()[::8].copy()
    got = np.empty_like(x)
    loop_with_constant("power", str(exponent))(x, got)
    number = eval(str(exponent), {"float32": np.float64})
    with np.errstate(all="ignore"):  # an array of exponents: for one of 0.5 NumPy takes the square root of -0 too
        assert error(got, np.power(x.astype(np.float64), np.full(x.shape, number, np.float64))) <= BOUND


@pytest.mark.parametrize("exponent", [-2, -1, 0, 1, 2, 3, 4, "-0.5", "0.5", "2.0", "3.0", "1.5"])
def test_a_constant_exponent_of_float64(exponent: int | str) -> None:
    x = np.concatenate([doubles("sin"), SPECIAL.astype(np.float64)])
    got = np.empty_like(x)
    loop_with_constant("power", str(exponent))(x, got)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(got, np.power(x, np.full(x.shape, float(exponent))), rtol=4e-16)


def test_the_larger_and_the_smaller_keep_nan() -> None:
    """[1, NaN] and [NaN, 1] both give NaN, in a loop's sum too."""

    @njit
    def largest(x: Array) -> float:
        found = x[0]
        for k in range(x.shape[0]):
            found = functions.maximum(found, x[k])
        return found

    x = np.linspace(-1, 1, 1001, dtype=np.float32)
    assert largest(x) == 1
    x[500] = math.nan
    assert math.isnan(largest(x))


@pytest.mark.parametrize("dtypes", ["f4 f4 f4", "f4 f8 f8", "f8 f4 f8", "i8 f4 f4", "f4 i4 f4", "i4 i8 i8", "b1 f4 f4"])
def test_the_wider_floating_type_decides(dtypes: str) -> None:
    a, b, result = dtypes.split()

    @njit
    def run(x: Array, y: Array) -> tuple[Any, ...]:
        both = functions.maximum(x[0], y[0]), functions.minimum(x[0], y[0])
        return *both, functions.where(x[0] > y[0], x[0], y[0])

    x, y = np.array([1], a), np.array([0], b)
    assert run(x, y) == (1, 0, 1)
    assert {np.dtype(str(kind)) for kind in run.nopython_signatures[0].return_type} == {np.dtype(result)}


def test_whole_numbers_count_as_float64() -> None:
    x = np.array([-3, 0, 2], np.int32)
    for name in ("exp", "tanh", "erf", "abs", "sign"):
        got = np.empty(3)
        loop(name)(x, got)
        np.testing.assert_allclose(got, REFERENCES[name](x), rtol=1e-15)


# -- how they are compiled ---------------------------------------------------------------------------------------------


LOOPS = [(n, "float32") for n in REFERENCES] + [(n, "float64") for n in REFERENCES if n not in ("cos", "sin")]


@pytest.mark.parametrize(("name", "element"), LOOPS)
def test_a_loop_computes_many_numbers_at_once(name: str, element: str) -> None:
    run: Any = loop(name)
    run(np.ones(3, element), np.ones(3, element))
    [code] = run.inspect_llvm().values()
    kind = "float" if element == "float32" else "double"
    assert re.search(rf"store <\d+ x {kind}>", code), "not vectorized"


def test_a_loop_that_calls_them_is_kept_on_disk(tmp_path: Path) -> None:
    module = """
from numba import njit
from mlsql.executor.compiled.functions import exp, log, sin, power

@njit(cache=True)
def run(x, out):
    for k in range(x.shape[0]):
        out[k] = sin(exp(x[k])) + power(log(x[k]), 2)
"""
    program = """
import numpy as np, cached
x = np.linspace(1, 2, 9, dtype=np.float32)
cached.run(x, out := np.empty_like(x))
np.testing.assert_allclose(out, np.sin(np.exp(x)) + np.log(x) ** 2, rtol=1e-5)
print(sum(cached.run.stats.cache_hits.values()))
"""
    (tmp_path / "cached.py").write_text(module)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-c", program]
    hits = [subprocess.run(command, env=environment, check=True, capture_output=True).stdout for _ in range(2)]
    assert [int(h) for h in hits] == [0, 1]
