"""The module around the kernels of a plan: Python source with the compiled function and what lays out its arrays.

``steps`` runs many steps of the training loop: the kernels one after another, for each batch. ``prepare`` is plain
Python: it finds every array its place in the arena, makes the views, and binds ``steps`` to all of them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from ...planner.node import At, Node, depends_on, rebuilt, walk
from ...planner.ops import Column, Constant, Contract, Contraction, Count, Counter, Index, State
from ...planner.ops.contract import as_matrix_product
from ...planner.plan import Plan
from ...record import record
from ...types import UNIT, RowSet, Type
from ..codegen import Names
from ..hoist import hoist
from ..memory import is_view, owner
from ..train import LoopPlan
from .arena import Arena
from .fusion import Fusion, Loop, Product, fixed_nodes
from .loops import LoopWriter, indented
from .lower import lowered, unsupported
from .shared import SHARES, STEP, SharedLoopWriter, of_shares, shares_rows

IMPORTS = """\
from math import inf

import numpy as np
from numba import njit
from numba.types import Array, boolean, float32, float64, int32, int64, uint16

from mlsql.executor.compiled.blas import matmul, nearest, plus
from mlsql.executor.compiled.functions import *
from mlsql.executor.compiled.team import meet, share
from mlsql.executor.device import array
"""
MKL = "from mlsql.executor.compiled.mkl import matmul_bf16, matmul_mkl\n"  # only where it is called: this loads MKL
ROUNDING = "from mlsql.executor.compiled.bfloat16 import round_bf16\n"
BF16_BYTES = 2
Choice = Callable[[Contraction], str]  # which library computes a product: "openblas", which is NumPy's BLAS, or "mkl"
OPTIONS = 'cache=True, nogil=True, error_model="numpy", fastmath={"contract"}'
HEAD = {  # what steps() takes besides row counts and arrays, and Numba's types
    "order": "Array(int64, 1, 'C', readonly=True)", "batch": "int64", "count": "int64", "first_step": "int64",
    "stop_on_nan": "boolean", "losses": "Array(float64, 1, 'C')", "rates": "Array(float64, 1, 'C')",
}  # fmt: skip
TEAM = {  # what it takes besides when several threads run it
    "thread": "int64", "threads": "int64", "shares": "int64", "gate": "Array(int64, 1, 'C')", "parts": "Array(float64, 2, 'C')",
}  # fmt: skip
WIDTH = 116


@record
class Team:
    """Into how many shares a module divides its loops, how many numbers are folded, which slots each thread has for
    itself."""

    shares: int
    parts: int
    own_slots: frozenset[int]


@record
class Compiled:
    """A module's source and what it takes to run it.

    ``arrays`` are what prepare() takes: leaves, and values that are there before the loop; ``row_counts`` are the numbers
    of rows. ``once`` are the plans of the columns that hold what is computed before the loop. ``sizes`` are those of
    the arena's slots in bytes. ``became`` says for every node of the loop's plan by which one it was compiled.
    """

    source: str
    sizes: tuple[int, ...]
    arrays: Mapping[Node, str]
    row_counts: Mapping[RowSet, str]
    once: Mapping[Column, Node]
    fusion: Fusion
    arena: Arena
    became: Mapping[Node, Node]
    team: Team
    blas: Choice

    @property
    def arena_bytes(self) -> int:
        return sum(self.sizes)

    def place(self, node: Node) -> str | None:
        """Where a node of the loop's plan is computed: in which of the loops, by BLAS, where it is read; None for what
        is there before the first step."""
        made = owner(self.became[node])
        if made in self.fusion.kernel_of:
            kernel = self.fusion.kernel_of[made]
            loops = [i for i, k in enumerate(self.fusion.kernels) if isinstance(k, Loop)]
            return f"loop {loops.index(kernel) + 1}" if kernel in loops else self.library(made)
        return "its readers" if made in self.fusion.virtual else None

    def library(self, product: Node) -> str:
        """What computes a matrix product."""
        assert isinstance(product, Contraction)
        return "MKL" if in_bf16(product) or self.blas(product) == "mkl" else "BLAS"

    def kernel_counts(self) -> tuple[int, int]:
        """How many loops and how many matrix products there are."""
        loops = sum(isinstance(k, Loop) for k in self.fusion.kernels)
        return loops, len(self.fusion.kernels) - loops

    def operator_count(self) -> int:
        """How many operators of the loop's plan a step computes."""
        return sum(self.place(n) is not None for n in self.became if n.inputs and not n.is_view)

    def slot_of(self) -> Mapping[Node, int]:
        """In which slot of the arena a value lies."""
        return self.arena.slot

    def compile_seconds(self, line: float) -> float:
        """The estimated time to compile, by the number of lines."""
        return self.source.count("\n") * line

    def allocate(self, empty: Callable[..., Any]) -> list[list[Any]]:
        """A fresh arena for each thread; they have all slots in common but their own."""
        first = [empty(max(1, size), "uint8") for size in self.sizes]
        own = self.team.own_slots
        others = range(1, self.team.shares)
        return [
            first,
            *([empty(max(1, a.size), "uint8") if i in own else a for i, a in enumerate(first)] for _ in others),
        ]


def numpys(product: Contraction) -> str:
    """NumPy's own library for every product."""
    return "openblas"


def compiled(loop: LoopPlan, threads: int = 1, blas: Choice = numpys) -> Compiled | str:
    """The module of a training loop for so many threads, or why there is none. ``blas`` chooses the library of each
    product."""
    if loop.beside:
        return "rows are taken group by group"
    bound = [loop.loss, loop.rate, *loop.updates.values()]
    hoisted, once = hoist(bound)
    lower = lowered(hoisted)
    outputs = [lower[n] for n in hoisted]
    before = {node: column for column, node in once.items()}
    became = {n: lower.get(m, m) for n, m in rebuilt(bound, before).items()}
    moving = depends_on(outputs, [n for n in walk(outputs) if changes(n)])
    reason = unsupported(outputs, moving)
    if reason is not None:
        return reason
    updates = dict(zip(loop.updates, outputs[2:], strict=True))
    fusion = Fusion(outputs[:2], updates, fixed_nodes(outputs, moving), is_shared=threads > 1)
    if fusion.copied:
        return "the old value of a state is read after the new one is there"
    names = Plan({}, loop.names).renamed(became)
    return _Writer(loop, fusion, names, threads, blas).module(once, became)


def changes(node: Node) -> bool:
    """Whether the value of a node may be another one in every step: that of values over the rows of a batch is."""
    return isinstance(node, (Index, Counter, Count, State)) or bool(node.inputs and node.type.rows != UNIT)


class _Writer:
    """Writes the module. It is the ``Module`` that loops ask for names."""

    def __init__(self, loop: LoopPlan, fusion: Fusion, names: Mapping[Node, str], threads: int, blas: Choice) -> None:
        self.loop, self.fusion, self.hints, self.threads, self.blas = loop, fusion, names, threads, blas
        self.rounded: dict[Node, str] = {}  # operands of products, and the arrays that hold them as bfloat16
        self.imports = [IMPORTS]
        self.names = Names(RESERVED)
        self.arena = Arena(fusion)
        self.variable: dict[Node, str] = {}
        self.views: dict[Node, str] = {}
        self.leaves: dict[Node, str] = {}
        self.row_counts: dict[RowSet, str] = {}
        self.widths: dict[int, str] = {}
        self.parts: dict[Node, int] = {}
        self.setup: list[str] = []  # of prepare(), where arrays and views are made
        self.squeezed: list[str] = []  # of its end, where arrays lose their axes of size 1
        self.arguments: dict[str, str] = {}  # of steps(): names and Numba's types

    # -- names: loops.Module -----------------------------------------------------------------------------------------

    def fresh(self, hint: str) -> str:
        return self.names.fresh(hint)

    def hint(self, node: Node) -> str:
        return self.hints.get(node) or getattr(node, "name", None) or node.operator_name()

    def name(self, node: Node) -> str:
        if node not in self.variable:
            self.variable[node] = self.fresh(self.hint(node))
        return self.variable[node]

    def rows(self, rows: RowSet) -> str:
        if rows == UNIT:
            return "1"
        if rows not in self.row_counts:
            self.row_counts[rows] = self.fresh(f"n_{rows.name}")
        return self.row_counts[rows]

    def width(self, size: int) -> str:
        """The name of a size of entries. LLVM is not told its value: it would unroll short loops before it can turn
        them into vector operations."""
        if size not in self.widths:
            self.widths[size] = self.fresh(f"w{size}")
        return self.widths[size]

    def array(self, node: Node) -> str:
        state = self.arena.overwrites.get(node)
        if state is not None:
            return self.array(state)
        name = self.name(node)
        if name not in self.arguments:
            self.take(name, node.type, node in self.fusion.fixed and not isinstance(node, State))
            if node in self.fusion.fixed:
                self.leaves[node] = name
            else:
                self.setup.append(f"{name} = {self.place(node)}")
        return name

    def take(self, name: str, type: Type, is_data: bool = False) -> None:
        """Let steps() take an array, without axes of size 1: Numba does not know the sizes of axes, but that numbers
        along the last one lie side by side."""
        self.arguments[name] = numba_type(type, is_data)
        if 1 in type.shape or (type.rows == UNIT and not type.shape):
            shape = self.shape(squeezed(type))
            self.squeezed.append(f"{name} = {name}.reshape({'1' if shape == '()' else shape})")

    def place(self, node: Node) -> str:
        """The text that makes a computed array."""
        if node in self.fusion.placed:
            whole, start, stop = self.fusion.placed[node]
            return f"{self.array(whole)}[{start}:{stop}].reshape({self.shape(node.type)})"
        return f"array(arena, {self.arena.slot[node]}, {self.shape(node.type)}, {node.type.element.storage!r})"

    def shape(self, type: Type) -> str:
        sizes = [str(d) for d in type.shape]
        if type.rows != UNIT:
            sizes.insert(0, self.rows(type.rows))
        return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})" if sizes else "()"

    def view(self, node: Node) -> str:
        if node not in self.views:
            base = owner(node)
            self.array(base)
            name = self.views[node] = self.name(node)
            self.setup.append(f"{name} = {self.seen(node)}")
            self.take(name, node.type, base in self.fusion.fixed and not isinstance(base, State))
        return self.views[node]

    def seen(self, node: Node) -> str:
        """The text of a view, from the array that it looks into."""
        if not is_view(node):
            return self.array(node)
        return self.seen(node.inputs[0]) + node.seen(self)  # type: ignore[arg-type]

    def count(self, node: Node) -> str:
        """The text of a node's number of rows, as views ask for it."""
        return "" if node.type.rows == UNIT else self.rows(node.type.rows)

    def partial(self, type: Type, hint: str) -> str:
        """An array with an entry for each thread."""
        return self.made(of_shares(type, self.threads), self.fresh(f"{hint}_of_share"), self.arena.scratch)

    def part(self, node: Node) -> int:
        """The row in which the threads leave what they folded of a number."""
        return self.parts.setdefault(node, len(self.parts))

    def buffer(self, type: Type, hint: str) -> str:
        own = self.arena.own if self.threads > 1 and type.rows == UNIT else self.arena.scratch
        return self.made(type, self.fresh(f"{hint}_of_row" if type.rows == UNIT else hint), own)

    def made(self, type: Type, name: str, slot: Callable[[Type], int]) -> str:
        """An array that is no operator's."""
        self.setup.append(f"{name} = array(arena, {slot(type)}, {self.shape(type)}, {type.element.storage!r})")
        self.take(name, type)
        return name

    def comment(self, node: Node) -> str:
        details = [str(v) for v in node.attributes().values() if isinstance(v, (str, int)) and v is not False]
        inputs = [self.described(n) for n in node.inputs]
        return f"{self.name(node)} = {node.operator_name()}({', '.join([*inputs, *details])})"

    def described(self, node: Node) -> str:
        """What a comment calls a node: virtual ones by what they look at."""
        if isinstance(node, Constant) and len(node.values) == 1:
            return repr(node.values[0])
        if isinstance(node, Count):
            return self.rows(node.rows)
        if isinstance(node, Index):
            return "order"
        if node in self.fusion.virtual and node not in self.hints and node.inputs:
            return f"{node.operator_name()}({', '.join(self.described(n) for n in node.inputs)})"
        return self.name(node)

    # -- text --------------------------------------------------------------------------------------------------------

    def module(self, once: Mapping[Column, Node], became: Mapping[Node, Node]) -> Compiled:
        body = self.body()
        counts, widths, arguments = list(self.row_counts.values()), self.widths.values(), list(self.arguments)
        head = HEAD | TEAM if self.threads > 1 else HEAD
        types = [*head.values(), *("int64" for _ in (*counts, *widths)), *self.arguments.values()]
        text = [
            "".join(self.imports),
            "",
            "@njit(",
            *wrapped(f"    int64({', '.join(types)}),"),
            f"    {OPTIONS},",
            ")",
            *wrapped(f"def steps({', '.join([*head, *counts, *widths, *arguments])}):"),
            '    """Train on so many batches; returns how many were done when a loss was not finite."""',
            *(f"    {line}" for line in body),
            "    return count",
            "",
            "",
            *wrapped(f"def prepare({', '.join(['arena', *counts, *self.leaves.values()])}):"),
            '    """The compiled function with its arrays in place."""',
            *(f"    {line}" for line in (*self.setup, *self.squeezed)),
            "",
            f"    def run({', '.join(head)}):",
            *(
                f"    {line}"
                for line in wrapped(
                    f"    return steps({', '.join([*head, *counts, *map(str, self.widths), *arguments])})"
                )
            ),
            "",
            "    return run",
            "",
        ]
        source = "\n".join(line.rstrip() for line in text)
        team = Team(self.threads, len(self.parts), frozenset(self.arena.of_thread))
        sizes, leaves, counted = tuple(self.arena.sizes), self.leaves, self.row_counts
        return Compiled(source, sizes, leaves, counted, once, self.fusion, self.arena, became, team, self.blas)

    def body(self) -> list[str]:
        """The loop over batches."""
        loop, scalars = self.loop, dict[Node, str]()
        step = scalars[loop.step] = self.name(loop.step)
        kernels: list[str] = []
        writer = SharedLoopWriter if self.threads > 1 else LoopWriter
        for kernel in self.fusion.kernels:
            if isinstance(kernel, Product):
                kernels += self.product(kernel.node)
            else:
                kernels += writer(self, kernel, scalars).lines()
        finish = LoopWriter(self, Loop(UNIT, ()), scalars)
        loss, rate = (finish.value(n, At("", ("0",) * n.type.rank)) for n in self.fusion.outputs)
        start: list[str] = []
        if loop.index is not None:
            batch = self.rows(loop.index.rows)
            start = ["start = s * batch", f"{batch} = min(batch, order.shape[0] - start)"]
            start += [f"{self.rows(r)} = {batch} * {n}" for r, n in loop.multiples.items() if r in self.row_counts]
        inner = [
            f"{step} = first_step + s",
            *start,
            *kernels,
            f"losses[s] = {loss}",
            f"rates[s] = {rate}",
            "if stop_on_nan and not np.isfinite(losses[s]):",
            "    return s + 1",
        ]
        return ["for s in range(count):", *(f"    {line}" for line in inner)]

    def product(self, node: Contraction) -> list[str]:
        """The line of a matrix product."""
        form = as_matrix_product(node.spec)
        assert form is not None
        swapped, *turned = form
        lines = [f"# {self.comment(node)}"]
        names = [self.rounded_operand(n, lines) if in_bf16(node) else self.operand(n) for n in node.inputs]
        operands = [name + (".T" if turn else "") for name, turn in zip(names, turned, strict=True)]
        x, y = reversed(operands) if swapped else operands
        out = self.sliced(self.array(node), node)
        matmul = self.function(node)
        if self.threads == 1:
            return [*lines, f"{matmul}({x}, {y}, {out})"]
        if shares_rows(node):
            return [*lines, *shared(f"{out}.shape[0]", f"{matmul}({x}[first:last], {y}, {out}[first:last])")]
        return [*lines, *shared(f"{out}.shape[1]", f"{matmul}({x}, {y}[:, first:last], {out}[:, first:last])")]

    def function(self, node: Contraction) -> str:
        """The function that computes a product."""
        name = "matmul_bf16" if in_bf16(node) else "matmul_mkl" if self.blas(node) == "mkl" else "matmul"
        if name != "matmul" and MKL not in self.imports:
            self.imports.append(MKL)
        return name

    def rounded_operand(self, node: Node, lines: list[str]) -> str:
        """The array of an operand as bfloat16, and the line that rounds it if this is the first product to read it."""
        if node not in self.rounded:
            name = self.rounded[node] = self.fresh(f"{self.hint(node)}_bf16")
            slot = self.arena.scratch(node.type, BF16_BYTES)
            self.setup.append(f"{name} = array(arena, {slot}, {self.shape(node.type)}, 'uint16')")
            self.arguments[name] = "Array(uint16, 2, 'C')"
            whole, half = self.operand(node), self.sliced(name, node)
            if self.threads == 1:
                lines.append(f"round_bf16({whole}, {half})")
            else:
                lines += shared(f"{whole}.shape[0]", f"round_bf16({whole}[first:last], {half}[first:last])")
            if ROUNDING not in self.imports:
                self.imports.append(ROUNDING)
        return self.sliced(self.rounded[node], node)

    def operand(self, node: Node) -> str:
        """The array of an operand, as many rows as there are."""
        if node in self.fusion.virtual:
            return self.sliced(self.view(node), node)
        return self.sliced(self.array(node), node)

    def sliced(self, name: str, node: Node) -> str:
        """An array's rows of this batch; all of them where a batch does not change how many there are."""
        rows = node.type.rows
        index = self.loop.index
        varies = index is not None and (rows == index.rows or rows in self.loop.multiples)
        return f"{name}[:{self.rows(rows)}]" if varies else name


RESERVED = frozenset(
    "steps prepare run arena order batch count first_step stop_on_nan losses rates start s r g i j k l inf np njit "
    "array float32 float64 int32 int64 matmul nearest plus exp log log1p tanh erf sin cos sqrt power where maximum "
    "minimum sign abs min max range uint16 matmul_mkl matmul_bf16 round_bf16 thread threads shares gate parts meet "
    "share first last p t".split()
)


def shared(size: str, call: str) -> list[str]:
    """A call for each thread's share of rows or columns."""
    return [SHARES, *indented([f"first, last = share({size}, p, shares, {STEP})", call]), "meet(gate, threads)"]


def in_bf16(product: Contraction) -> bool:
    """Whether the operands of a matrix product are rounded to bfloat16."""
    return isinstance(product, Contract) and product.bf16


def wrapped(text: str) -> list[str]:
    """Code in lines that are not too long."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="        ", break_long_words=False, drop_whitespace=True)


def squeezed(type: Type) -> Type:
    """A type without axes of size 1."""
    return type.with_(shape=tuple(d for d in type.shape if d != 1))


def numba_type(type: Type, is_data: bool = False) -> str:
    """Numba's text for the type of a squeezed array; data may lie in memory that must not be written to."""
    rank = max(1, squeezed(type).rank + (type.rows != UNIT))
    element = {"bool": "boolean"}.get(type.element.storage, type.element.storage)
    return f"Array({element}, {rank}, 'C'{', readonly=True' if is_data else ''})"
