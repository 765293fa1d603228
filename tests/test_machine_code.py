"""Machine code of generated modules: what its functions take, what they may call, and what becomes of failures."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core.errors import NumbaError

from mlsql.errors import InternalError
from mlsql.executor.compiled import machine_code, modules

HEAD = """\
import math

import numpy as np
from numba import njit, types
from numba.types import Array, boolean, float32, float64, int32, int64, uint16

"""
OPTIONS = 'error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False'


def function(signature: str, text: str, before: str = "") -> machine_code.CompiledFunction:
    """The compiled function of a text of one line or more, which is called f."""
    source = f"{HEAD}{before}\n\n@njit(int64({signature}), {OPTIONS})\n{text}"
    found: machine_code.CompiledFunction = machine_code.linked(source, machine_code.made(source, "f.py"), "f.py")["f"]
    return found


SCALE = """\
def f(count, x, kept, y):
    for i in range(count):
        for j in range(x.shape[1]):
            y[i, j] = 2 * x[i, j] if kept[i] else x.shape[0]
    return x.size
"""
SCALED = "int64, Array(float32, 2, 'A', readonly=True), Array(boolean, 1, 'C', readonly=True), Array(float64, 2, 'C')"


@pytest.fixture(scope="module")
def scale() -> machine_code.CompiledFunction:
    return function(SCALED, SCALE)


def arrays() -> tuple[Any, Any, Any]:
    whole = np.arange(30, dtype=np.float32).reshape(5, 6)
    whole.flags.writeable = False
    return whole[::2, ::3], np.array([True, False, True]), np.empty((3, 2))


def test_arrays_are_read_as_they_lie(scale: machine_code.CompiledFunction) -> None:
    x, kept, y = arrays()
    assert scale(3, x, kept, y) == x.size
    assert np.array_equal(y, np.where(kept[:, None], 2 * x, 3))
    assert scale(0, x[:0], kept[:0], y[:0]) == 0


def test_the_last_arguments_can_be_given_before(scale: machine_code.CompiledFunction) -> None:
    x, kept, y = arrays()
    for given in range(5):
        y[:] = 0
        arguments = (3, x, kept, y)
        bound = scale.bind(*arguments[given:])
        assert bound(*arguments[:given]) == x.size
        assert np.array_equal(y, np.where(kept[:, None], 2 * x, 3))


def test_what_was_given_before_stays(scale: machine_code.CompiledFunction) -> None:
    bound = scale.bind(np.ones(4, bool), np.empty((4, 1000)))
    gc.collect()
    assert bound(4, np.ones((4, 1000), np.float32)) == 4000


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, kept, y: (x.astype(np.float64), kept, y),
        lambda x, kept, y: (x[0], kept, y),
        lambda x, kept, y: (x, np.ones(6, bool)[::2], y),
        lambda x, kept, y: (x, kept, np.empty((2, 3)).T),
        lambda x, kept, y: (x, kept, np.broadcast_to(np.zeros(()), (3, 2))),
        lambda x, kept, y: (x, kept, np.empty(49, np.uint8)[1:].view(np.float64).reshape(3, 2)),
    ],
    ids=["element", "rank", "strides", "order", "readonly", "alignment"],
)
def test_an_array_of_another_type_is_refused(scale: machine_code.CompiledFunction, wrong: Any) -> None:
    x, kept, y = arrays()
    with pytest.raises(InternalError, match="compiled code takes"):
        scale(3, *wrong(x, kept, y))


def test_arguments_have_to_be_as_many(scale: machine_code.CompiledFunction) -> None:
    with pytest.raises(ValueError, match="zip"):
        scale.bind(*arrays())()
    with pytest.raises(ValueError, match="zip"):
        scale.bind(*arrays())(3, 4)


def test_there_may_be_many_arrays() -> None:
    """More words than ctypes passes arguments."""
    count = 150
    names = [f"x{i}" for i in range(count)]
    total = function(
        ", ".join(["Array(int64, 1, 'C', readonly=True)"] * count),
        f"def f({', '.join(names)}):\n    return {' + '.join(f'{n}[0]' for n in names)}\n",
    )
    assert total.signature.size > 1024
    assert total(*(np.array([1 << i % 60]) for i in range(count))) == sum(1 << i % 60 for i in range(count))


def test_functions_of_c_are_found() -> None:
    waves = function(
        "Array(float64, 1, 'C', readonly=True), Array(float64, 1, 'C')",
        "def f(x, y):\n    for i in range(len(x)):\n"
        "        y[i] = math.sin(x[i]) + math.cos(x[i]) ** x[i]\n    return 0\n",
    )
    x = np.linspace(0, 1.5, 100)
    y = np.empty_like(x)
    waves(x, y)
    assert np.allclose(y, np.sin(x) + np.cos(x) ** x, rtol=1e-14)


def test_what_calls_anything_else_is_refused() -> None:
    before = 'getpid = types.ExternalFunction("getpid", types.int32())\n'
    with pytest.raises(InternalError, match="f calls getpid"):
        function("int64", "def f(x):\n    return x + getpid()\n", before)


def test_what_asks_for_memory_is_refused() -> None:
    with pytest.raises(NumbaError):
        function("int64", "def f(x):\n    return np.ones(x).size\n")


def test_a_failure_is_told() -> None:
    failing = function("int64", 'def f(x):\n    if x > 3:\n        raise ValueError("too large")\n    return x\n')
    assert failing(3) == 3
    with pytest.raises(InternalError, match="compiled code ended with status"):
        failing(4)


@pytest.mark.parametrize("damage", [b"", b"no object", None])
def test_what_is_no_object_is_refused(damage: bytes | None) -> None:
    source = f"{HEAD}\n@njit(int64(int64), {OPTIONS})\ndef f(x):\n    return x\n"
    code, entry = machine_code.made(source, "f.py")
    with pytest.raises(RuntimeError):
        machine_code.linked(source, [code[: len(code) // 2] if damage is None else damage, entry], "f.py")


def test_threads_run_at_the_same_time() -> None:
    """The first waits for what the second does: neither holds Python's lock."""
    flags = np.zeros(2, np.int64)
    text = """\
def f(mine, flags):
    flags[mine] = 1
    while flags[1 - mine] == 0 or add(flags, 0) == 0:
        pass
    return 1
"""
    meeting = function("int64, Array(int64, 1, 'C')", text, "from mlsql.executor.compiled.team import _load as add\n")
    threads = [threading.Thread(target=meeting, args=(i, flags)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


def test_only_plain_python_is_run_when_a_module_is_loaded(tmp_path: Path) -> None:
    source = (
        f"import no_such_library\n{HEAD}\n@njit(int64(int64), {OPTIONS})\ndef f(x):\n    return x + 1\n\n\n"
        "def prepare(x):\n    return f.bind(array([np.zeros(64, np.uint8)], 0, (x,), 'int64').size)\n"
    )
    objects = machine_code.made(source.replace("import no_such_library\n", ""), "f.py")
    names = machine_code.linked(source, objects, "f.py")
    assert names["prepare"](4)() == 5


def test_a_module_goes_when_nobody_has_it_any_more() -> None:
    source = f"{HEAD}\n@njit(int64(int64), {OPTIONS})\ndef f(x):\n    return x\n"
    objects = machine_code.made(source, "f.py")
    for _ in range(3):
        names = machine_code.linked(source, objects, "f.py")
        kept = names["f"].bind(7)
        del names
        gc.collect()
        assert kept() == 7
    assert modules.CODE == ("code.o", "entry.o") and len(objects) == len(modules.CODE)
