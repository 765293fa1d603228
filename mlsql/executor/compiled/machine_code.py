"""Machine code of generated modules: Numba makes it, LLVM alone links it, and it is called by its address.

A module has one compiled function, the one under a decorator. ``made`` has Numba compile it to an object, and adds an
object with its entry. ``linked`` makes these a function that Python can call: that takes llvmlite, which is there in a
tenth of the time of Numba, so that a process which finds a module on disk loads no compiler. All else in the text of a
module is plain Python, which is run as it stands, but for imports.

The compiled function makes no objects of Python's and asks nobody for memory. All its arguments are words of 64 bits:
whole numbers, and of each array what Numba knows of one (``words``). Its entry, ``ENTRY``, takes them in one piece of
memory. All that it calls are matrix products of BLAS libraries and ``C_FUNCTIONS``.
"""

from __future__ import annotations

import ast
import ctypes
import functools
import itertools
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from ...errors import InternalError
from ...record import record
from .. import blas
from ..device import Array, array

ENTRY = "mlsql_entry"
C_FUNCTIONS = frozenset({"cos", "pow", "sched_yield", "sin"})
KNOWN = ("llvm.", "mlsql_")  # how names of instructions and of products (``blas.symbol``) begin
WORDS = ("i64", "ptr")  # the types of LLVM that are words
LIBRARIES = itertools.count(1)  # LLVM wants a name for each


@record
class Kind:
    """The type of an array: that of its elements, how many axes it has, whether it lies in one piece, and whether it is
    written to."""

    element: str
    rank: int
    is_dense: bool
    is_written: bool

    def fits(self, value: Array) -> bool:
        """Whether an array is one of these."""
        flags = value.flags
        whole = flags.aligned and (flags.c_contiguous or not self.is_dense) and (flags.writeable or not self.is_written)
        return whole and value.ndim == self.rank and value.dtype == self.element

    def words(self, value: Array) -> Iterable[int]:
        """An array as Numba knows it: no owner and no parent object, its size, its address, its axes."""
        if not self.fits(value):
            raise InternalError(f"compiled code takes {self}, not {value.dtype} {value.shape}")
        return 0, 0, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides


@record
class Signature:
    """The name of a compiled function, and its arguments' types: None is a whole number."""

    name: str
    kinds: tuple[Kind | None, ...]

    @property
    def size(self) -> int:
        """How many words the arguments are."""
        return sum(1 if k is None else 5 + 2 * k.rank for k in self.kinds)


# -- what a text says --------------------------------------------------------------------------------------------------


def parts(source: str) -> tuple[Signature, ast.Module]:
    """The signature of a module's compiled function, and its other functions."""
    functions = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)]
    [function] = [f for f in functions if f.decorator_list]
    [decorator] = function.decorator_list
    assert isinstance(decorator, ast.Call) and isinstance(decorator.args[0], ast.Call)
    signature = Signature(function.name, tuple(map(kind_of, decorator.args[0].args)))
    return signature, ast.Module([f for f in functions if not f.decorator_list], [])


def kind_of(type: ast.expr) -> Kind | None:
    """An argument's type, as a signature of Numba's has it."""
    if isinstance(type, ast.Name):
        return None
    assert isinstance(type, ast.Call) and isinstance(type.args[0], ast.Name)
    element = type.args[0].id
    rank, layout = (ast.literal_eval(a) for a in type.args[1:])
    is_data = any(k.arg == "readonly" for k in type.keywords)
    return Kind("bool" if element == "boolean" else element, rank, layout == "C", not is_data)


# -- made --------------------------------------------------------------------------------------------------------------


def made(source: str, file: str) -> list[bytes]:
    """The objects of a module's compiled function, which Numba compiles where the text of the module says so.

    Raises InternalError if it takes what is no word, or calls what it may not.
    """
    names: dict[str, Any] = {}
    exec(compile(source, file, "exec"), names)
    signature, _ = parts(source)
    [result] = names[signature.name].overloads.values()
    library, symbol = result.library, result.fndesc.llvm_func_name
    kinds = [str(a.type) for a in library.get_function(symbol).arguments]
    if len(kinds) != 2 + signature.size or not set(kinds) <= set(WORDS):
        raise InternalError(f"{signature.name} takes {kinds}")
    called = {f.name for f in library._final_module.functions if f.is_declaration}
    strange = {n for n in called if not n.startswith(KNOWN)} - C_FUNCTIONS
    if strange:
        raise InternalError(f"{signature.name} calls {', '.join(sorted(strange))}")
    return [library._get_compiled_object(), entry(symbol, signature.size)]


def entry(symbol: str, size: int) -> bytes:
    """An object with the function that calls another one with so many words of a piece of memory."""
    places = [f"%p{i} = getelementptr i64, ptr %words, i64 {i}\n%w{i} = load i64, ptr %p{i}" for i in range(size)]
    head = "ptr %result, ptr %failure"
    text = f"""
        declare i32 @"{symbol}"({", ".join(["ptr", "ptr", *["i64"] * size])})
        define i32 @{ENTRY}({head}, ptr %words) {{
        {chr(10).join(places)}
        %status = call i32 @"{symbol}"({", ".join([head, *(f"i64 %w{i}" for i in range(size))])})
        ret i32 %status
        }}"""
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(jit=True)
    code: bytes = machine.emit_object(llvm.parse_assembly(text))
    return code


# -- linked ------------------------------------------------------------------------------------------------------------


def linked(source: str, objects: Sequence[bytes], file: str) -> dict[str, Any]:
    """The names of a module: its compiled function, and what is plain Python.

    Raises RuntimeError if these are no objects, or if they call what is not there.
    """
    signature, plain = parts(source)
    names: dict[str, Any] = {"np": np, "array": array, signature.name: CompiledFunction(signature, objects)}
    exec(compile(plain, file, "exec"), names)
    return names


class CompiledFunction:
    """A compiled function. It runs without Python's lock, and threads may run it at the same time."""

    def __init__(self, signature: Signature, objects: Sequence[bytes]) -> None:
        library = llvm.JITLibraryBuilder().add_current_process()
        for code in objects:
            library.add_object_img(code)
        for name, place in products(objects).items():
            library.import_symbol(name, place)
        self.signature = signature
        self.code = library.export_symbol(ENTRY).link(linker(), f"mlsql_{next(LIBRARIES)}")  # goes when this goes
        self.run = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 3)(self.code[ENTRY])

    def bind(self, *last: Any) -> Callable[..., int]:
        """The function of its first arguments, with the last ones in place."""
        first = len(self.signature.kinds) - len(last)
        kinds, behind = self.signature.kinds[:first], packed(self.signature.kinds[first:], last)

        def run(*arguments: Any, held: Any = last) -> int:  # the words say only where arrays lie: they have to stay
            result, failure = ctypes.c_int64(), ctypes.c_void_p()
            words = packed(kinds, arguments) + behind
            status = self.run(ctypes.byref(result), ctypes.byref(failure), words)
            if status:
                raise InternalError(f"compiled code ended with status {status}")
            return result.value

        return run

    def __call__(self, *arguments: Any) -> int:
        """The function, of all its arguments."""
        return self.bind()(*arguments)


def packed(kinds: Sequence[Kind | None], values: Sequence[Any]) -> bytes:
    """Arguments in one piece of memory."""
    words: list[int] = []
    for kind, value in zip(kinds, values, strict=True):
        words += (value,) if kind is None else kind.words(value)
    return struct.pack(f"{len(words)}q", *words)


@functools.cache
def linker() -> Any:
    """LLVM's linker of this process."""
    llvm.initialize_native_target()
    return llvm.create_lljit_compiler()


def products(objects: Sequence[bytes]) -> Mapping[str, int]:
    """The addresses of the matrix products that compiled code may call, by name; MKL is loaded if it is called."""
    found = blas.symbols(blas.numpys(), "numpy")
    if any(blas.symbol("mkl", "").encode() in code for code in objects):
        found |= blas.symbols(blas.mkl(), "mkl")
    return found
