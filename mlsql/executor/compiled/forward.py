"""The module of a prediction: a plan's outputs for some rows, computed a tile of rows at a time.

``forward`` is the compiled function: the kernels one after another over a tile of rows, whose intermediate values stay
in the second-level cache, then the next tile. ``prepare`` is plain Python, called once a thread: it lays out the arena
and the parameters, and binds ``forward`` to them. ``run``, which it returns, takes columns of any number of rows, makes
the arrays of the outputs and calls ``forward``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...planner.node import Node, depends_on, walk
from ...planner.ops import Column, Count
from ...planner.plan import Plan
from ...types import UNIT, RowSet
from ..memory import owner
from .arena import Arena
from .fusion import Fusion, fixed_nodes
from .lower import lowered, unsupported
from .module import IMPORTS, OPTIONS, Generated, ModuleWriter, Setup, wrapped
from .tiles import tile_rows

MOST_ROWS = 2048  # of a tile


@dataclass(frozen=True)
class Forward(Generated):
    """A module's source and what it takes to run it.

    ``fixed`` are the arrays that prepare() takes, ``columns`` are those that run() takes behind the number of rows.
    ``sizes`` are those of the arena's slots in bytes, ``tile`` the rows that are computed at a time.
    """

    source: str
    sizes: tuple[int, ...]
    fixed: tuple[Node, ...]
    columns: tuple[Column, ...]
    tile: int
    fusion: Fusion

    def allocate(self, empty: Callable[..., Any]) -> list[Any]:
        """A fresh arena."""
        return [empty(max(1, size), "uint8") for size in self.sizes]


def forward(plan: Plan, rows: RowSet) -> Forward | str:
    """The module of a plan over one row set, or why there is none."""
    part = RowSet(rows.name, MOST_ROWS)
    found = forward_of(plan, rows, part)
    if isinstance(found, str) or found.tile == part.rows:
        return found
    return forward_of(plan, rows, RowSet(rows.name, found.tile))  # with an arena for so many rows


def forward_of(plan: Plan, rows: RowSet, part: RowSet) -> Forward | str:
    """The module with an arena for as many rows as ``part`` has."""
    sized = plan.over({rows: part}, {})
    bound = list(sized.outputs.values())
    became = lowered(bound)
    outputs = [became[n] for n in bound]
    moving = depends_on(outputs, [n for n in walk(outputs) if n.type.rows != UNIT])
    reason = refused(outputs, part) or unsupported(outputs, moving)
    if reason is not None:
        return reason
    fusion = ForwardFusion(outputs, {}, fixed_nodes(outputs, moving))
    for n in outputs:
        if n.type.rows == UNIT and owner(n) not in fusion.fixed:
            return "an output has one value for all rows"
    return _Writer(fusion, Plan({}, sized.names).renamed(became), part).module()


def refused(outputs: list[Node], rows: RowSet) -> str | None:
    """Why rows cannot be computed a tile at a time, or None if they can."""
    for n in walk(outputs):
        if not n.row_sets() <= {UNIT, rows}:
            return "the rows of another row set are read"
        if isinstance(n, Count) or (n.type.rows == UNIT and any(m.type.rows != UNIT for m in n.inputs)):
            return f"{n.operator_name()} reads all rows"
        if n.type.rows != UNIT and not n.inputs and not isinstance(n, Column):
            return f"{n.operator_name()} is no column"
    return None


class ForwardFusion(Fusion):
    """A plan as kernels of which every output lies in an array."""

    def find_virtual(self) -> None:
        super().find_virtual()
        self.virtual -= self.kept()

    def recomputed(self) -> set[Node]:
        return super().recomputed() - self.kept()

    def kept(self) -> set[Node]:
        """The nodes whose arrays the outputs are, or look into."""
        return {owner(n) for n in self.outputs}


class _Writer(ModuleWriter):
    """Writes a module that predicts: arrays over rows are those of a call, of which a tile is computed at a time."""

    def __init__(self, fusion: ForwardFusion, names: Mapping[Node, str], part: RowSet) -> None:
        self.results = {n for n in fusion.kept() if n not in fusion.fixed}
        super().__init__(fusion, names, Arena(fusion, self.results), {"forward"})
        self.part = part
        self.call = Setup()  # of run()
        self.whole: dict[str, str] = {}  # what forward() calls an array of all rows, by the name of its tile

    def is_whole(self, base: Node) -> bool:
        """Whether an array has all rows of a call."""
        return base in self.results or (base in self.fusion.fixed and base.type.rows != UNIT)

    def setup_of(self, base: Node) -> Setup:
        return self.call if self.is_whole(base) else self.setup

    def varies(self, rows: RowSet) -> bool:
        return rows == self.part

    def take(self, name: str, node: Node, base: Node) -> None:
        super().take(name, node, base)
        if self.is_whole(base):
            self.whole[name] = self.fresh(f"all_{name}")

    def sliced(self, name: str, node: Node) -> str:
        return name if name in self.whole else super().sliced(name, node)

    def place(self, node: Node) -> str:
        if node in self.results:
            return f"np.empty({self.shape(node.type)}, {node.type.element.storage!r})"
        return super().place(node)

    # -- text --------------------------------------------------------------------------------------------------------

    def module(self) -> Forward:
        kernels, outputs = self.kernels({}), [self.output(n) for n in self.fusion.outputs]
        count, tile = self.rows(self.part), self.tile()
        widths = self.widths
        kept = [name for name in self.arguments if name not in self.whole]  # from call to call
        type_of = self.arguments.__getitem__
        types = ["int64", *map(type_of, self.whole), *("int64" for _ in widths), *map(type_of, kept)]
        fixed = {n: name for n, name in self.leaves.items() if not self.is_whole(n)}
        columns = {n: name for n, name in self.leaves.items() if isinstance(n, Column) and self.is_whole(n)}
        tiles = [f"{name} = {whole}[start : start + {count}]" for name, whole in self.whole.items()]
        text = [
            IMPORTS,
            "",
            "@njit(",
            *wrapped(f"    int64({', '.join(types)}),"),
            f"    {OPTIONS},",
            ")",
            *wrapped(f"def forward({', '.join(['rows', *self.whole.values(), *widths.values(), *kept])}):"),
            '    """Compute the outputs of so many rows."""',
            f"    for start in range(0, rows, {tile}):",
            f"        {count} = min({tile}, rows - start)",
            *(f"        {line}" for line in (*tiles, *kernels)),
            "    return rows",
            "",
            "",
            *wrapped(f"def prepare({', '.join(['arena', *fixed.values()])}):"),
            '    """The compiled function with its arena and its parameters in place."""',
            f"    {count} = {tile}",
            *(f"    {line}" for line in self.setup.lines()),
            *(f"    {line}" for line in wrapped(f"compute = forward.bind({', '.join([*map(str, widths), *kept])})")),
            "",
            *(f"    {line}" for line in wrapped(f"def run({', '.join([count, *columns.values()])}):")),
            *(f"        {line}" for line in self.call.made),
            f"        outputs = ({', '.join(outputs)},)",
            *(f"        {line}" for line in self.call.squeezed),
            *(f"        {line}" for line in wrapped(f"compute({', '.join([count, *self.whole])})")),
            "        return outputs",
            "",
            "    return run",
            "",
        ]
        source = "\n".join(line.rstrip() for line in text)
        return Forward(source, tuple(self.arena.sizes), tuple(fixed), tuple(columns), tile, self.fusion)

    def output(self, node: Node) -> str:
        """The text of an output over all rows."""
        base = owner(node)
        self.array(base)
        if self.is_whole(base):
            return self.seen(node)
        name = self.fresh(f"{self.hint(node)}_given")
        self.setup.made.append(f"{name} = {self.seen(node)}")
        return name

    def tile(self) -> int:
        """The rows of a tile."""
        most = self.part.rows or 1
        parameters = sum(n.nbytes for n in self.fusion.fixed if n.type.rows == UNIT)
        return tile_rows(sum(self.arena.sizes) / most, parameters, most)
