"""The module of a training loop: its source, and what is known of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...planner import ops
from ...planner.node import Node, depends_on, rebuilt, walk
from ...planner.ops import Column, Contraction, Count, Index, State
from ...planner.plan import Plan
from ...planner.work import Work
from ...record import record
from ...types import UNIT, RowSet
from ..hoist import hoist
from ..memory import owner
from ..train import LoopPlan
from .arena import Arena
from .fusion import Fusion, Loop, fixed_nodes, in_bf16
from .lower import lowered, unsupported
from .meetings import MEET
from .module import Generated
from .steps import Choice, StepsWriter
from .tiles import Tiles, tiled


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

    @property
    def meetings(self) -> int:
        """How often threads that share a step wait for each other in it."""
        return self.source.count(MEET)

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
    writer = StepsWriter(loop, fusion, tiles, names, threads, blas)
    text = writer.text()
    team = Team(threads, len(writer.parts), frozenset(writer.arena.of_thread))
    arrays = tuple(writer.arena.sizes), writer.leaves, writer.row_counts
    return Compiled(text, *arrays, once, fusion, tiles, writer.arena, became, team, blas)


def rows_of_steps(loop: LoopPlan, fusion: Fusion) -> list[RowSet]:
    """The rows over which a step may run in tiles: those of a batch, or else those that most loops run over."""
    if loop.index is not None:
        return [loop.index.rows]
    counts = Counter(k.rows for k in fusion.kernels if isinstance(k, Loop) and k.rows != UNIT)
    return [rows for rows, _ in counts.most_common(1)]


def changes(node: Node) -> bool:
    """Whether the value of a node may be another one in every step: that of values over the rows of a batch is."""
    return isinstance(node, (Index, ops.Counter, Count, State)) or bool(node.inputs and node.type.rows != UNIT)
