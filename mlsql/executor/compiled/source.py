"""The module of a training loop: Python source with the compiled function and what lays out its arrays.

``steps`` runs many steps of the training loop: the kernels one after another, for each batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ...planner import ops
from ...planner.node import At, Node, depends_on, rebuilt, walk
from ...planner.ops import Column, Contraction, Count, Index, State
from ...planner.plan import Plan
from ...planner.work import Work
from ...record import record
from ...types import UNIT, RowSet, Type
from ..hoist import hoist
from ..memory import owner
from ..train import LoopPlan
from .arena import Arena
from .fusion import Fusion, Loop, Product, fixed_nodes, in_bf16
from .loops import LoopWriter
from .lower import lowered, unsupported
from .meetings import MEET, Place, Section, joined
from .module import IMPORTS, OPTIONS, Generated, ModuleWriter, wrapped
from .shared import SHARES, STEP, SharedLoopWriter, of_shares, shares_rows
from .texts import indented
from .tile_loops import TileWriter
from .tiles import TILE, Tiles, tiled

# imported only where it is called, since this loads MKL
MKL = "from mlsql.executor.compiled.mkl import add_product_mkl, matmul_bf16, matmul_mkl\n"
ROUNDING = "from mlsql.executor.compiled.bfloat16 import round_bf16\n"
BF16_BYTES = 2
Choice = Callable[[Contraction], str]  # which library computes a product: "openblas", which is NumPy's BLAS, or "mkl"
HEAD = {  # what steps() takes besides row counts and arrays, and Numba's types
    "order": "Array(int64, 1, 'C', readonly=True)", "batch": "int64", "count": "int64", "first_step": "int64",
    "stop_on_nan": "int64", "losses": "Array(float64, 1, 'C')", "rates": "Array(float64, 1, 'C')",
}  # fmt: skip
TEAM = {  # what it takes besides when several threads run it
    "thread": "int64", "threads": "int64", "shares": "int64",
    "gate": "Array(int64, 1, 'C')", "parts": "Array(float64, 2, 'C')",
}  # fmt: skip


@record
class Team:
    """Into how many shares a module divides its loops, how many numbers are folded, which slots each thread has for
    itself."""

    shares: int
    parts: int
    own_slots: frozenset[int]


@record
class Compiled(Generated):
    """A module's source and what it takes to run it.

    ``arrays`` are what prepare() takes: leaves, and values that are there before the loop; ``row_counts`` are the
    numbers of rows. ``once`` are the plans of the columns that hold what is computed before the loop. ``sizes`` are
    those of the arena's slots in bytes. ``tiles`` tell which kernels run over tiles of rows. ``became`` says for every
    node of the loop's plan by which one it was compiled.
    """

    source: str
    sizes: tuple[int, ...]
    arrays: Mapping[Node, str]
    row_counts: Mapping[RowSet, str]
    once: Mapping[Column, Node]
    fusion: Fusion
    tiles: Sequence[Tiles]
    arena: Arena
    became: Mapping[Node, Node]
    team: Team
    blas: Choice

    def place(self, node: Node) -> str | None:
        """Where a node of the loop's plan is computed: in which of the loops, by BLAS, where it is read; None for what
        is there before the first step."""
        made = owner(self.became[node])
        if made in self.fusion.kernel_of:
            kernel = self.fusion.kernel_of[made]
            loops = [i for i, k in enumerate(self.fusion.kernels) if isinstance(k, Loop)]
            name = f"loop {loops.index(kernel) + 1}" if kernel in loops else self.library(made)
            return name + (", tiled" if any(t.holds(kernel) for t in self.tiles) else "")
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

    def work(self) -> list[Work]:
        """What each kernel does in a step."""
        return self.fusion.work([n for t in self.tiles for n in t.local])

    def slot_of(self) -> Mapping[Node, int]:
        """In which slot of the arena a value lies."""
        return self.arena.slot

    @property
    def arena_bytes(self) -> int:
        """The bytes of all slots, those that each thread has for itself as often as there are threads."""
        own = sum(self.sizes[i] for i in self.team.own_slots)
        return super().arena_bytes + (self.team.shares - 1) * own

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
    tiles = [t for rows in rows_of_steps(loop, fusion) for t in tiled(fusion, rows, threads)]
    return _Steps(loop, fusion, tiles, names, threads, blas).module(once, became)


def rows_of_steps(loop: LoopPlan, fusion: Fusion) -> list[RowSet]:
    """The rows over which a step may run in tiles: those of a batch, or else those that most loops run over."""
    if loop.index is not None:
        return [loop.index.rows]
    counts = Counter(k.rows for k in fusion.kernels if isinstance(k, Loop) and k.rows != UNIT)
    return [rows for rows, _ in counts.most_common(1)]


def changes(node: Node) -> bool:
    """Whether the value of a node may be another one in every step: that of values over the rows of a batch is."""
    return isinstance(node, (Index, ops.Counter, Count, State)) or bool(node.inputs and node.type.rows != UNIT)


class _Steps(ModuleWriter):
    """Writes a module that trains."""

    def __init__(
        self,
        loop: LoopPlan,
        fusion: Fusion,
        tiles: Sequence[Tiles],
        names: Mapping[Node, str],
        threads: int,
        blas: Choice,
    ) -> None:
        super().__init__(fusion, names, Arena(fusion, tiles=tiles), {"steps", *HEAD, *TEAM})
        self.loop, self.threads, self.blas, self.tiles = loop, threads, blas, tiles
        self.rounded: dict[Node, str] = {}  # operands of products, and the arrays that hold them as bfloat16
        self.imports = [IMPORTS]
        self.parts: dict[Node, int] = {}
        self.present: Tiles | None = None  # those of which kernels are written just now
        self.views_of_tile: dict[str, str] = {}  # by the names of arrays of all rows
        self.made_for: Tiles | None = None  # those to which the array is local that is made just now

    def varies(self, rows: RowSet) -> bool:
        index = self.loop.index
        return index is not None and (rows == index.rows or rows in self.loop.multiples)

    # -- over tiles --------------------------------------------------------------------------------------------------

    def kernels(self, scalars: dict[Node, str]) -> list[str]:
        lines: list[str] = []
        sections: list[Section] = []
        for i, kernel in enumerate(self.fusion.kernels):
            tiles = next((t for t in self.tiles if t.holds(i)), None)
            if tiles is not None and tiles.first != i:
                continue
            writer = TileWriter(self, tiles, scalars) if tiles else None
            if self.threads == 1:
                lines += writer.lines() if writer else self.kernel(kernel, scalars)
            elif writer:
                sections += writer.sections()
            elif isinstance(kernel, Product):
                sections.append(self.product_section(kernel.node))
            else:
                sections += SharedLoopWriter(self, kernel, scalars).sections()
        told = frozenset(p for n in self.fusion.outputs if n not in scalars for p in self.places(n))
        return [*lines, *joined([*sections, Section([], told)])]

    @contextmanager
    def inside(self, tiles: Tiles | None) -> Iterator[list[str]]:
        before = self.present, self.origin, self.views_of_tile
        self.present, self.origin, self.views_of_tile = tiles, "start + tile" if tiles else "start", {}
        lines: list[str] = []
        yield lines
        lines += [f"{view} = {name}[tile : tile + n_tile]" for name, view in self.views_of_tile.items()]
        self.present, self.origin, self.views_of_tile = before

    def array(self, node: Node) -> str:
        with self.laying(node):
            name = super().array(node)
        return self.of_tile(name, node)

    def view(self, node: Node) -> str:
        if node not in self.views:
            with self.laying(node), self.inside(None):  # what it looks into is the array of all rows
                super().view(node)
        return self.of_tile(self.views[node], node)

    @contextmanager
    def laying(self, node: Node) -> Iterator[None]:
        """While the array of a node is made, or what looks into it, shapes are those of its rows that are there."""
        before, self.made_for = self.made_for, self.arena.tiles_of(owner(node))
        yield
        self.made_for = before

    def shape(self, type: Type) -> str:
        tiles = self.made_for
        return super().shape(tiles.part(type) if tiles and type.rows == tiles.rows else type)

    def rows(self, rows: RowSet) -> str:
        return str(rows.rows) if rows.name == TILE else super().rows(rows)

    def of_tile(self, name: str, node: Node) -> str:
        """The rows of the present tile, of an array or a view that has all."""
        if self.present is None or node.type.rows != self.present.rows or self.is_local(node):
            return name
        if name not in self.views_of_tile:
            self.views_of_tile[name] = self.fresh(f"{name}_tile")
        return self.views_of_tile[name]

    def is_local(self, node: Node) -> bool:
        """Whether an array, or what a view looks into, has room for a tile only."""
        return self.arena.tiles_of(owner(node)) is not None

    def sliced(self, name: str, node: Node) -> str:
        if self.present is None or node.type.rows != self.present.rows:
            return super().sliced(name, node)
        return f"{name}[:n_tile]" if self.is_local(node) else name

    # -- of several threads ------------------------------------------------------------------------------------------

    def partial(self, type: Type, hint: str) -> str:
        """An array with an entry for each thread."""
        return self.made(of_shares(type, self.threads), self.fresh(f"{hint}_of_share"), self.arena.scratch)

    def part(self, node: Node) -> int:
        """The row in which the threads leave what they folded of a number."""
        return self.parts.setdefault(node, len(self.parts))

    def buffer(self, type: Type, hint: str) -> str:
        if self.threads == 1 or type.rows != UNIT:
            return super().buffer(type, hint)
        return self.made(type, self.fresh(f"{hint}_of_row"), self.arena.own)

    def places(self, node: Node) -> set[Place]:
        """Where threads share the array of a node that changes."""
        base = self.arena.base(node)
        state = node if isinstance(node, State) else self.arena.overwrites.get(base)
        if state is not None:
            return {state}
        is_shared = base in self.arena.slot and self.arena.tiles_of(base) is None
        return {self.arena.slot[base]} if is_shared else set()

    def product_section(self, node: Contraction) -> Section:
        """A product of which each thread computes some rows or columns."""
        known = set(self.rounded.values())
        lines = self.product(node)
        reads = {p for s in self.fusion.sources(node) for p in self.places(s)}
        rounded = [self.rounded[n] for n in node.inputs if n in self.rounded]
        writes = self.places(node).union(name for name in rounded if name not in known)
        return Section(lines, frozenset(reads.union(rounded)), frozenset(writes))

    # -- products ----------------------------------------------------------------------------------------------------

    def multiplied(self, node: Contraction, x: str, y: str, out: str) -> list[str]:
        matmul = self.function(node)
        if self.threads == 1 or self.present is not None:
            return [f"{matmul}({x}, {y}, {out})"]
        if shares_rows(node):
            return shared(f"{out}.shape[0]", f"{matmul}({x}[first:last], {y}, {out}[first:last])")
        return shared(f"{out}.shape[1]", f"{matmul}({x}, {y}[:, first:last], {out}[:, first:last])")

    def added(self, node: Contraction, x: str, y: str, total: str) -> list[str]:
        return [f"{self.function(node, 'add_product')}({x}, {y}, {total})"]

    def function(self, node: Contraction, name: str = "matmul") -> str:
        """The function that computes a product."""
        ending = "_bf16" if in_bf16(node) else "_mkl" if self.blas(node) == "mkl" else ""
        if ending and MKL not in self.imports:
            self.imports.append(MKL)
        return name + ending

    def operand_of(self, product: Contraction, node: Node, lines: list[str]) -> str:
        """The array of an operand; as bfloat16, the first product that reads it rounds it."""
        if not in_bf16(product):
            return super().operand_of(product, node, lines)
        if node not in self.rounded:
            name = self.rounded[node] = self.fresh(f"{self.hint(node)}_bf16")
            slot = self.arena.scratch(node.type, BF16_BYTES)
            self.setup.made.append(f"{name} = array(arena, {slot}, {self.shape(node.type)}, 'uint16')")
            self.arguments[name] = "Array(uint16, 2, 'C')"
            whole, half = self.operand(node), self.sliced(name, node)
            if self.threads == 1:
                lines.append(f"round_bf16({whole}, {half})")
            else:
                call = f"round_bf16({whole}[first:last], {half}[first:last])"
                lines += [*shared(f"{whole}.shape[0]", call), MEET]
            if ROUNDING not in self.imports:
                self.imports.append(ROUNDING)
        return self.sliced(self.rounded[node], node)

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
            *(f"    {line}" for line in self.setup.lines()),
            "",
            *(
                f"    {line}"
                for line in wrapped(f"return steps.bind({', '.join([*counts, *map(str, self.widths), *arguments])})")
            ),
            "",
        ]
        source = "\n".join(line.rstrip() for line in text)
        team = Team(self.threads, len(self.parts), frozenset(self.arena.of_thread))
        sizes, leaves, counted = tuple(self.arena.sizes), self.leaves, self.row_counts
        plans = self.fusion, self.tiles, self.arena, became
        return Compiled(source, sizes, leaves, counted, once, *plans, team, self.blas)

    def body(self) -> list[str]:
        """The loop over batches."""
        loop, scalars = self.loop, dict[Node, str]()
        step = scalars[loop.step] = self.name(loop.step)
        kernels = self.kernels(scalars)
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


def shared(size: str, call: str) -> list[str]:
    """A call for each thread's share of rows or columns."""
    return [SHARES, *indented([f"first, last = share({size}, p, shares, {STEP})", call])]
