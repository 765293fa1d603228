"""Elementary functions over 10,000 numbers in the cache: the compiled executor's, and what could take their place.

``ours`` is a Numba loop over ``executor/compiled/functions.py``, ``scalar`` the same loop over Python's math,
``libmvec`` glibc's vector functions in the widest registers (a loop of nothing but their calls), ``numpy`` the array
functions. The expressions at the end are several functions at once: one loop, or an array function after the other.
Rounds alternate; medians are printed, since absolute times depend on who else uses the machine.

    python benchmarks/functions.py [--rounds 25] [--json benchmarks/results/functions.json]
"""

from __future__ import annotations

import ctypes
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import scipy.special
from numba import njit
from sides import Report, arguments, keep, machine, summary

from mlsql.executor.compiled import functions

COUNT = 10_000
SAMPLE = 2e-4  # seconds of one measurement: short, so that others who use the machine interrupt few
NAMES = ("exp", "log", "log1p", "tanh", "erf", "sin", "cos", "sqrt")
WIDEST = {"avx512f": ("e", 64), "avx2": ("d", 32), "sse2": ("b", 16)}  # the letter of the vector ABI, bytes
Run = Callable[[], Any]


def loop(function: Any) -> Callable[[Any, Any], None]:
    @njit(error_model="numpy")
    def run(x: Any, out: Any) -> None:
        for k in range(x.shape[0]):
            out[k] = function(x[k])

    return run


class Libmvec:
    """Loops of calls of glibc's vector functions, in the widest registers of this processor."""

    def __init__(self) -> None:
        llvm.load_library_permanently("libmvec.so.1")
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.features = llvm.get_host_cpu_features()
        self.letter, self.width = next(w for name, w in WIDEST.items() if self.features.get(name))
        self.engines: list[Any] = []  # they own the code

    def loop(self, name: str, element: str) -> Callable[[int, int], None] | None:
        """What fills an array, given two addresses; None where the library lacks the function."""
        kind, suffix, size = ("float", "f", 4) if element == "float32" else ("double", "", 8)
        lanes = self.width // size
        function = f"_ZGV{self.letter}N{lanes}v_{name}{suffix}"
        if not llvm.address_of_symbol(function):
            return None
        assert COUNT % lanes == 0
        vector, to = f"<{lanes} x {kind}>", f"align {size}"
        module = llvm.parse_assembly(f"""
            declare {vector} @{function}({vector})
            define void @run(ptr %x, ptr %out) {{
            start: br label %next
            next: %k = phi i64 [0, %start], [%after, %next]
              %from = getelementptr {kind}, ptr %x, i64 %k
              %to = getelementptr {kind}, ptr %out, i64 %k
              %value = load {vector}, ptr %from, {to}
              %result = call {vector} @{function}({vector} %value)
              store {vector} %result, ptr %to, {to}
              %after = add i64 %k, {lanes}
              %more = icmp ult i64 %after, {COUNT}
              br i1 %more, label %next, label %end
            end: ret void }}""")
        target = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=self.features.flatten(), opt=3
        )
        self.engines.append(llvm.create_mcjit_compiler(module, target))
        self.engines[-1].finalize_object()
        return ctypes.CFUNCTYPE(None, ctypes.c_size_t, ctypes.c_size_t)(self.engines[-1].get_function_address("run"))


def contenders(name: str, x: Any, out: Any, libmvec: Libmvec) -> dict[str, Run]:
    """What computes a function of x into out, by name."""
    ours, scalar = loop(getattr(functions, name)), loop(getattr(math, name))
    array = scipy.special.erf if name == "erf" else getattr(np, name)
    found: dict[str, Run] = {
        "ours": lambda: ours(x, out),
        "scalar": lambda: scalar(x, out),
        "numpy": lambda: array(x, out),
    }
    vectors = libmvec.loop(name, x.dtype.name)
    if vectors:
        found["libmvec"] = lambda: vectors(x.ctypes.data, out.ctypes.data)
    return found


def sigmoid(x: Any, out: Any) -> dict[str, Run]:
    one, exp = x.dtype.type(1), functions.exp

    @njit(error_model="numpy")
    def run(x: Any, out: Any) -> None:
        for k in range(x.shape[0]):
            out[k] = one / (one + exp(-x[k]))

    def arrays() -> None:
        np.negative(x, out)
        np.exp(out, out)
        np.add(out, one, out)
        np.divide(one, out, out)

    return {"ours": lambda: run(x, out), "numpy": arrays}


def softplus(x: Any, out: Any) -> dict[str, Run]:
    zero, scratch = x.dtype.type(0), np.empty_like(x)
    exp, log1p, maximum, absolute = functions.exp, functions.log1p, functions.maximum, functions.abs

    @njit(error_model="numpy")
    def run(x: Any, out: Any) -> None:
        for k in range(x.shape[0]):
            out[k] = maximum(x[k], zero) + log1p(exp(-absolute(x[k])))

    def arrays() -> None:
        np.absolute(x, out)
        np.negative(out, out)
        np.exp(out, out)
        np.log1p(out, out)
        np.maximum(x, zero, out=scratch)
        np.add(out, scratch, out)

    return {"ours": lambda: run(x, out), "numpy": arrays}


def gelu(x: Any, out: Any) -> dict[str, Run]:
    one, half, scale, erf = x.dtype.type(1), x.dtype.type(0.5), x.dtype.type(math.sqrt(0.5)), functions.erf

    @njit(error_model="numpy")
    def run(x: Any, out: Any) -> None:
        for k in range(x.shape[0]):
            out[k] = half * x[k] * (one + erf(x[k] * scale))

    def arrays() -> None:
        np.multiply(x, scale, out)
        scipy.special.erf(out, out)
        np.add(out, one, out)
        np.multiply(out, half, out)
        np.multiply(out, x, out)

    return {"ours": lambda: run(x, out), "numpy": arrays}


def seconds(run: Run, calls: int) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def compare(sides: Mapping[str, Run], out: Any, rounds: int) -> Report:
    """Numbers a second of each contender, and the median ratio of their times to ours; they must agree."""
    results = {}
    for name, run in sides.items():
        run()  # compiles
        results[name] = out.copy()
    for name, result in results.items():
        np.testing.assert_allclose(result, results["numpy"], rtol=3e-6, atol=1e-6, err_msg=name)
    calls = {name: max(1, round(SAMPLE / min(seconds(run, 1) for _ in range(5)))) for name, run in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            times[name].append(seconds(run, calls[name]))
    found = summary(times, "ours")
    speed = {name: COUNT / seconds for name, seconds in found["seconds"].items()}
    return {"numbers_per_second": speed, "ours_over": found["ours_over"]}


def compile_seconds(rounds: int) -> Report:
    """Median processor seconds to compile a loop with exp, log and tanh of float32: ours, Python's, or none (abs)."""
    x = np.ones(8, np.float32)
    sides = {
        "ours": (functions.exp, functions.log, functions.tanh),
        "scalar": (math.exp, math.log, math.tanh),
        "none": (functions.abs, functions.abs, functions.abs),
    }

    def once(first: Any, second: Any, third: Any) -> float:
        @njit(error_model="numpy")
        def run(x: Any, out: Any) -> None:
            for k in range(x.shape[0]):
                out[k] = first(x[k]) + second(x[k]) + third(x[k])

        start = time.process_time()
        run(x, x.copy())
        return time.process_time() - start

    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, trio in sides.items():
            times[name].append(once(*trio))
    return {name: statistics.median(t[1:]) for name, t in times.items()}  # the first one loads the compiler


def main() -> None:
    options = arguments(__doc__, rounds=25).parse_args()
    libmvec, rng = Libmvec(), np.random.default_rng(0)
    found: Report = {"machine": machine("numba", "llvmlite", "scipy"), "numbers": COUNT}
    for element in ("float32", "float64"):
        x = (np.abs(rng.standard_normal(COUNT)) * 3 + 0.01).astype(element)
        out = np.empty_like(x)
        cases = {name: contenders(name, x, out, libmvec) for name in NAMES}
        cases |= {f.__name__: f(x, out) for f in (sigmoid, softplus, gelu)}
        for name, sides in cases.items():
            case = found[f"{name} {element}"] = compare(sides, out, options.rounds)
            speeds = ", ".join(f"{n} {v / 1e9:.2f}" for n, v in case["numbers_per_second"].items())
            print(f"{name} {element}: {speeds} billion numbers a second")
    found["compile_seconds"] = compile_seconds(options.rounds)
    print("compile exp + log + tanh: " + ", ".join(f"{n} {s:.3f} s" for n, s in found["compile_seconds"].items()))
    keep(found, options.json)


if __name__ == "__main__":
    main()
