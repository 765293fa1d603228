"""The text of a module that trains: ``steps``, which runs the kernels for one batch after another, and ``prepare``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from ...planner.node import At, Node
from ...planner.ops import Contraction, State
from ...types import UNIT, RowSet, Type
from ..memory import owner
from ..train import LoopPlan
from .arena import Arena
from .fusion import ALONE, Fusion, Loop, Product, in_bf16
from .loops import LoopWriter
from .meetings import MEET, Place, Section, joined
from .module import IMPORTS, OPTIONS, ModuleWriter, wrapped
from .shared import SHARES, STEP, TURNS, SharedLoopWriter, of_shares, shares_rows
from .texts import indented, index
from .tile_loops import TileWriter
from .tiles import TILE, Tiles

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


class StepsWriter(ModuleWriter):
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
        self.replicas: dict[State, str] = {}  # each thread's own copies of states

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
            elif i in self.arena.replicas.kernels:
                sections.append(Section(self.loop_lines(kernel, scalars), self.places_read(kernel.nodes)))
            elif isinstance(kernel.nodes[0], ALONE):
                sections.append(self.section_of_one(kernel, scalars))
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
        if isinstance(node, State) and self.is_own(node):
            return self.replica(node)
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

    def replica(self, state: State) -> str:
        """A thread's own copy of a state."""
        if state not in self.replicas:
            own = self.fresh(f"own_{super().array(state)}")
            self.replicas[state] = self.made(state.type, own, self.arena.own)
        return self.replicas[state]

    def copied(self) -> tuple[list[str], list[str]]:
        """Lines that copy states to each thread's own before the first step, and those of the first thread back: it has
        met the others by then, or what they do does not count."""
        there, back = list[str](), list[str]()
        writer = LoopWriter(self, Loop(UNIT, ()), {})
        for state, own in self.replicas.items():
            place = index(At("", writer.entry(state.type.shape)), state.type)
            first, last = f"{own}{place}", f"{super().array(state)}{place}"
            for lines, text in ((there, f"{first} = {last}"), (back, f"{last} = {first}")):
                nest = writer.nest(state.type.shape)
                nest.body.append(text)
                lines += nest.lines()
        return there, ["if thread == 0:", *indented(back)] if back else []

    def is_own(self, node: Node) -> bool:
        """Whether each thread has an array of its own for a node."""
        return self.arena.is_own(node)

    def places(self, node: Node) -> set[Place]:
        """Where threads share the array of a node that changes."""
        home = self.arena.home(node)
        if self.is_own(home):
            return set()
        if isinstance(home, State):
            return {home}
        return {self.arena.slot[home]} if home in self.arena.slot else set()

    def places_read(self, nodes: Iterable[Node]) -> frozenset[Place]:
        """Where threads share what nodes are computed from."""
        return frozenset(p for n in nodes for s in self.fusion.sources(n) for p in self.places(s))

    def product_section(self, node: Contraction) -> Section:
        """A product of which each thread computes some rows or columns."""
        known = set(self.rounded.values())
        lines = self.product(node)
        rounded = [self.rounded[n] for n in node.inputs if n in self.rounded]
        writes = self.places(node).union(name for name in rounded if name not in known)
        return Section(lines, self.places_read([node]).union(rounded), frozenset(writes))

    def section_of_one(self, loop: Loop, scalars: dict[Node, str]) -> Section:
        """A loop that the first thread runs."""
        lines = ["if thread == 0:", *indented(self.loop_lines(loop, scalars))]
        writes = frozenset(p for n in loop.nodes for p in self.places(n))
        return Section(lines, self.places_read(loop.nodes), writes, is_alone=True)

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

    def text(self) -> str:
        """The whole module."""
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
            '    """Train on so many batches, or until a loss is not finite; returns how many were done."""',
            *(f"    {line}" for line in body),
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
        return "\n".join(line.rstrip() for line in text)

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
        if self.threads > 1:
            start.append(f"turn = s % {TURNS} * shares")
        told = [f"losses[s] = {loss}", f"rates[s] = {rate}"]
        inner = [
            f"{step} = first_step + s",
            *start,
            *kernels,
            *(["if thread == 0:", *indented(told)] if self.threads > 1 else told),
            "done = s + 1",
            f"if stop_on_nan and not np.isfinite({loss}):",
            "    break",
        ]
        before, behind = self.copied()
        return [*before, "done = 0", "for s in range(count):", *indented(inner), *behind, "return done"]


def shared(size: str, call: str) -> list[str]:
    """A call for each thread's share of rows or columns."""
    return [SHARES, *indented([f"first, last = share({size}, p, shares, {STEP})", call])]
