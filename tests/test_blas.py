"""Libraries of matrix products: each gives NumPy's products, bfloat16 is PyTorch's, threads are held and given back."""

from __future__ import annotations

import importlib
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numba import njit
from threadpoolctl import threadpool_info

import mlsql
from mlsql.errors import NotSupportedError, ProgrammingError
from mlsql.executor import blas
from mlsql.executor.compiled.bfloat16 import missing, round_bf16
from mlsql.executor.compiled.blas import matmul
from mlsql.executor.device import bf16_matmul, rounded_bf16
from mlsql.optimizer.machine import LIBRARIES, Machine
from mlsql.planner.ops import Column, Contract, Parameter
from mlsql.planner.work import PRODUCT_SIZES, nearest_size
from mlsql.session.blas import chooser, sizes
from mlsql.types import FLOAT, RowSet

Array = Any
has_mkl = pytest.mark.skipif(blas.mkl_path() is None, reason="MKL is not installed")
has_bf16 = pytest.mark.skipif(blas.mkl_path() is None or missing() is not None, reason="no products of bfloat16")
SHAPES = [(1, 1, 1), (3, 5, 7), (32, 10, 64), (17, 130, 33), (256, 10, 100)]


def matrices(m: int, n: int, k: int, kind: str = "float32") -> Iterator[tuple[Array, Array]]:
    """Operands of a product as they may lie: plain, transposed, some rows of more, one column of more."""
    rng = np.random.default_rng(m + n + k)
    x, y = rng.standard_normal((m, k)).astype(kind), rng.standard_normal((k, n)).astype(kind)
    xs = [x, np.ascontiguousarray(x.T).T, np.concatenate([x, x])[:m], np.concatenate([x, x], 1)[:, :k]]
    ys = [y, np.ascontiguousarray(y.T).T]
    yield from itertools.product(xs, ys)


# -- products ----------------------------------------------------------------------------------------------------------


def callable_from_python(multiply: Any) -> Any:
    """A function that calls a product, which only compiled code can do."""
    return njit(lambda x, y, out: multiply(x, y, out))


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("library", [pytest.param("mkl", marks=has_mkl), "numpy"])
def test_every_library_multiplies_as_numpy_does_in_double(library: str, kind: str) -> None:
    function = importlib.import_module("mlsql.executor.compiled.mkl").matmul_mkl if library == "mkl" else matmul
    multiply = callable_from_python(function)
    for m, n, k in SHAPES:
        for x, y in matrices(m, n, k, kind):
            out = np.full((m, n), np.nan, kind)
            multiply(x, y, out)
            exact = x.astype(np.float64) @ y.astype(np.float64)
            bound = 4 * k * np.finfo(kind).eps * (np.abs(x).astype(float) @ np.abs(y).astype(float))
            assert np.all(np.abs(out - exact) <= bound)


def special_numbers() -> Array:
    """Random bits of FLOAT, and ties, ends of the range, denormals, infinities, NaN."""
    bits = np.random.default_rng(0).integers(0, 1 << 32, 100_000, np.uint32)
    ties = (bits & 0xFFFF0000 | 0x8000).astype(np.uint32)
    ends = np.array([0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-45, 1.17e-38, 1.0], np.float32)
    return np.concatenate([bits.view(np.float32), ties.view(np.float32), ends])


def test_rounding_to_bfloat16_is_pytorchs() -> None:
    x = special_numbers()
    theirs = torch.from_numpy(x).bfloat16()
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(rounded_bf16(x), theirs.float().numpy())
    out = np.empty((1, len(x)), np.uint16)
    round_bf16(x[None], out)
    is_number = ~np.isnan(x)
    np.testing.assert_array_equal(out[0][is_number], theirs.view(torch.uint16).numpy()[is_number])
    assert np.isnan((out[0][~is_number].astype(np.uint32) << 16).view(np.float32)).all()


def test_rounding_moves_a_number_by_at_most_a_256th() -> None:
    x = np.random.default_rng(1).standard_normal(10_000).astype(np.float32)
    assert np.all(np.abs(rounded_bf16(x) - x) <= 2.0**-8 * np.abs(x))


def bf16_compiled(x: Array, y: Array, out: Array) -> None:
    """The product as a generated module computes it."""
    module = importlib.import_module("mlsql.executor.compiled.mkl")
    halves = []
    for operand in (x, y):
        half = np.empty(operand.shape, np.uint16)
        round_bf16(np.ascontiguousarray(operand), half)
        halves.append(half)
    callable_from_python(module.matmul_bf16)(*halves, out)


@pytest.mark.parametrize("product", [pytest.param(bf16_compiled, marks=has_bf16), bf16_matmul])
def test_products_of_bfloat16_are_pytorchs_summed_in_float(product: Any) -> None:
    for m, n, k in SHAPES:
        for x, y in matrices(m, n, k):
            out = np.full((m, n), np.nan, np.float32)
            product(x, y, out)
            halves = [torch.from_numpy(np.ascontiguousarray(a)).bfloat16() for a in (x, y)]
            theirs = halves[0].float() @ halves[1].float()
            size = (halves[0].double().abs() @ halves[1].double().abs()).numpy()
            assert np.all(np.abs(out - theirs.numpy()) <= 4 * k * 2.0**-24 * size)
            assert np.all(np.abs(out - x.astype(float) @ y.astype(float)) <= 2.1 * 2.0**-8 * size)


# -- which library -----------------------------------------------------------------------------------------------------


def contraction(m: int, n: int, k: int) -> Contract:
    return Contract("rk,ko->ro", Column("x", RowSet("b", m), FLOAT, (k,)), Parameter("w", FLOAT, (k, n)))


def measured(**rates: float) -> Machine:
    return Machine().with_rates(dict.fromkeys((f"{a}_{b}" for a in LIBRARIES for b in PRODUCT_SIZES), 1e11) | rates)


@has_mkl
def test_a_product_calls_the_library_that_was_faster_at_its_size() -> None:
    machine = measured(mkl_1024=2e11, mkl_shallow=2e11, mkl_32=1.05e11)
    choose = chooser("auto", machine, False)
    found = {s: choose(contraction(*s)) for s in [(1024, 2048, 2048), (32, 32, 64), (512, 10, 1024), (512, 1024, 10)]}
    assert found == dict.fromkeys(found, "openblas") | {(1024, 2048, 2048): "mkl", (512, 1024, 10): "mkl"}


@has_mkl
def test_a_deterministic_run_and_an_unmeasured_machine_call_numpys() -> None:
    large = contraction(1024, 2048, 2048)
    assert chooser("auto", Machine(), False)(large) == "openblas"
    assert chooser("auto", measured(mkl_1024=9e11), True)(large) == "openblas"
    assert chooser("mkl", Machine(), True)(large) == "mkl"


def test_sizes_of_products() -> None:
    assert sizes(contraction(3, 5, 7)) == (3, 5, 7)
    assert {n: nearest_size(*s) for n, s in PRODUCT_SIZES.items()} == {n: n for n in PRODUCT_SIZES}
    assert nearest_size(4000, 4000, 4000) == "1024"


def test_without_mkl_the_option_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "mkl_path", lambda: None)
    con = connection()
    for text in ("SET mlsql_blas = 'mkl'", "TRAIN net ON rows WITH SGD (precision = 'bf16')"):
        with pytest.raises(NotSupportedError, match="MKL is not installed") as caught:
            con.execute(text)
        assert "pip install mlsql[mkl]" in str(caught.value)
        assert caught.value.place is not None
    con.execute("SET mlsql_blas = 'openblas'")
    with pytest.raises(ProgrammingError, match="'auto', 'openblas' or 'mkl'"):
        con.execute("SET mlsql_blas = 'atlas'")


@has_mkl
def test_a_processor_without_bfloat16_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlsql.executor.compiled.bfloat16.missing", lambda: "this processor has no such thing")
    with pytest.raises(NotSupportedError, match="no such thing"):
        connection().execute("TRAIN net ON rows WITH SGD (precision = 'bf16')")


@has_bf16
def test_a_model_without_matrix_products_has_none_of_bfloat16() -> None:
    con = connection()
    con.execute("CREATE MODEL line INPUT (x FLOAT[4]) TARGET (y INTEGER) AS SELECT LINEAR(x, 1) AS z MINIMIZE AVG(z)")
    with pytest.raises(NotSupportedError, match="no matrix product"):
        con.execute("TRAIN line ON rows WITH SGD (precision = 'bf16')")


# -- training ----------------------------------------------------------------------------------------------------------


SHARED = 8000  # hidden numbers of a step that is worth several threads


def connection(hidden: int = 24) -> mlsql.Connection:
    """A network and rows to train it on."""
    con = mlsql.connect(progress=False)
    con.execute("SET mlsql_machine = 'default'")
    con.execute(
        "CREATE TABLE rows AS SELECT CAST([sin(i), cos(i), i % 7 / 7, i % 3] AS FLOAT[4]) AS x, i % 5 AS y "
        "FROM range(300) r(i)"
    )
    con.execute(
        "CREATE MODEL net INPUT (x FLOAT[4]) TARGET (y INTEGER) "
        f"AS SELECT TANH(LINEAR(x, {hidden})) AS h, LINEAR(h, 5) AS logits MINIMIZE AVG(CROSS_ENTROPY(logits, y))"
    )
    return con


def losses_with(library: str, hidden: int, precision: str = "float32", compile: str = "always") -> list[float]:
    con = connection(hidden)
    con.execute(f"SET mlsql_blas = '{library}'")
    con.execute(f"SET mlsql_compile = '{compile}'")
    con.execute(f"TRAIN net ON rows WITH ADAM (batch_size = 200, epochs = 4, seed = 3, precision = '{precision}')")
    return [loss for (loss,) in con.execute("SELECT loss FROM mlsql.training_log ORDER BY epoch").fetchall()]


@has_bf16
@pytest.mark.skipif(blas.cores() == 1, reason="one core has nothing to share")
def test_threads_share_rounding_and_products() -> None:
    con = connection(SHARED)
    con.execute("SET mlsql_compile = 'always'")
    rows = con.execute("EXPLAIN (CODE) TRAIN net ON rows WITH SGD (batch_size = 200, precision = 'bf16')").fetchall()
    lines = [line.strip() for (line,) in rows]
    for call in ("round_bf16(", "matmul_bf16("):
        assert any(line.startswith(call) and "[first:last]" in line for line in lines)


@has_mkl
@pytest.mark.parametrize("hidden", [24, SHARED])
def test_training_is_the_same_with_either_library(hidden: int) -> None:
    np.testing.assert_allclose(losses_with("mkl", hidden), losses_with("openblas", hidden), rtol=1e-4)


@has_bf16
@pytest.mark.parametrize("hidden", [24, SHARED])
def test_interpreted_and_compiled_steps_round_alike(hidden: int) -> None:
    compiled, interpreted = (losses_with("auto", hidden, "bf16", how) for how in ("always", "never"))
    np.testing.assert_allclose(compiled, interpreted, rtol=1e-3)
    assert not np.allclose(compiled, losses_with("auto", hidden), rtol=1e-6)


@has_bf16
def test_explain_shows_what_is_rounded_and_who_multiplies() -> None:
    con = connection()
    con.execute("SET mlsql_compile = 'always'")
    text = "\n".join(r for (r,) in con.execute("EXPLAIN TRAIN net ON rows WITH SGD (precision = 'bf16')").fetchall())
    line = next(line for line in text.split("\n") if "bf16(h)" in line and "@" in line)
    assert "bf16(h) @ bf16(logits.weight)" in line
    assert line.rstrip().endswith("MKL")


@has_bf16
def test_digits_are_learned_as_well_in_bfloat16() -> None:
    def accuracy(precision: str) -> float:
        con = mlsql.connect(progress=False)
        con.execute("CREATE TABLE digits AS SELECT * FROM 'examples/data/digits.parquet'")
        con.execute(
            "CREATE MODEL reader INPUT (pixels FLOAT[64]) TARGET (label INTEGER) AS SELECT "
            "RELU(LINEAR(pixels / 16, 64)) AS hidden, LINEAR(hidden, 10) AS logits, ARGMAX(logits) AS prediction "
            "MINIMIZE AVG(CROSS_ENTROPY(logits, label))"
        )
        con.execute("SET mlsql_compile = 'always'")
        con.execute(
            "TRAIN reader ON (SELECT * FROM digits WHERE split = 'train') "
            f"WITH SGD (learning_rate = 0.1, momentum = 0.9, epochs = 20, precision = '{precision}')"
        )
        [(share,)] = con.execute(
            "SELECT avg(CAST(prediction = label AS INTEGER)) "
            "FROM PREDICT(reader, (SELECT * FROM digits WHERE split = 'test'))"
        ).fetchall()
        return float(share)

    plain, rounded = accuracy("float32"), accuracy("bf16")
    assert plain > 0.93
    assert math.isclose(plain, rounded, abs_tol=0.01)


# -- threads -----------------------------------------------------------------------------------------------------------


def pools() -> dict[str, int]:
    """The threads of every BLAS that is loaded; MKL's are TBB's, of which threadpoolctl knows nothing."""
    found = {i["filepath"]: i["num_threads"] for i in threadpool_info() if i["internal_api"] == "openblas"}
    pool = blas.tbb() if "mkl" in {i["internal_api"] for i in threadpool_info()} else None
    return found if pool is None else found | {"tbb": pool.threads()}


def test_every_pool_is_held_and_given_back() -> None:
    importlib.import_module("scipy.linalg")
    usual = pools()
    with blas.threads(1):
        assert set(pools().values()) == {1}
        with blas.threads(64):  # another run at the same time
            assert set(pools().values()) == {1}
    assert pools() == usual
    with blas.threads(64):
        assert pools() == usual  # nobody gets more than it had


def test_threads_are_given_back_after_an_error() -> None:
    usual = pools()
    with pytest.raises(ZeroDivisionError), blas.threads(1):
        _ = 1 / 0
    assert pools() == usual


@has_mkl
def test_a_library_that_is_loaded_meanwhile_is_held_too() -> None:
    code = (
        "from mlsql.executor import blas\nwith blas.threads(1):\n    blas.mkl()\n    held = blas.tbb().threads()\n"
        "print(held, blas.tbb().threads() == blas.cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "True"]


@has_mkl
@pytest.mark.parametrize("order", ["torch first", "torch last"])
def test_products_are_right_beside_another_openmp(order: str) -> None:
    load = ["import torch", "from mlsql.executor import blas; blas.mkl()"]
    code = "\n".join(
        [
            *(load if order == "torch first" else reversed(load)),
            "import numpy as np",
            "multiply = blas.caller(blas.mkl())",
            "x, y = np.random.rand(300, 200).astype('f4'), np.random.rand(200, 10).astype('f4')",
            "out = np.empty((300, 10), 'f4')",
            "multiply(x, y, out)",
            "print(np.allclose(out, x @ y, rtol=1e-4))",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


BITS = """
import hashlib, mlsql
con = mlsql.connect(progress=False)
con.execute("SET mlsql_machine = 'default'")
con.execute("SET mlsql_compile = '{compile}'")
con.execute('''CREATE TABLE rows AS SELECT i % 5 AS y,
            list_transform(range(64), lambda k: CAST(sin(i * k) AS FLOAT))::FLOAT[64] AS x FROM range(512) r(i)''')
con.execute('''CREATE MODEL net INPUT (x FLOAT[64]) TARGET (y INTEGER) AS
            SELECT TANH(LINEAR(x, 256)) AS h, LINEAR(h, 5) AS logits MINIMIZE AVG(CROSS_ENTROPY(logits, y))''')
con.execute("TRAIN net ON rows WITH ADAM (batch_size = 256, epochs = 6, deterministic = true)")
rows = con.execute("SELECT data FROM mlsql.parameters ORDER BY name").fetchall()
print(hashlib.sha256(b"".join(data for data, in rows)).hexdigest())
"""


@pytest.mark.parametrize("compile", ["always", "never"])
def test_a_deterministic_run_gives_the_same_bits_with_any_number_of_threads(compile: str) -> None:
    found = set()
    for count in ("1", "2", "2"):
        environment = os.environ | {"OPENBLAS_NUM_THREADS": count}
        command = [sys.executable, "-c", BITS.format(compile=compile)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found.add(done.stdout.strip())
    assert len(found) == 1
