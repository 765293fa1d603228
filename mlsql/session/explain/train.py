"""EXPLAIN TRAIN: how a training run would be planned, and the view of its loop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...executor.clock import Measured
from ...executor.results import Rows
from ...executor.train import LoopPlan
from ...explain.build import Described
from ...explain.machine import facts
from ...explain.steps import alternative_views
from ...explain.view import BACKWARD, FORWARD, ONCE, UPDATE, PlanView
from ...figures import number
from ...optimizer.frequency import Frequency, frequencies
from ...parser.statements import CreateModel, Train
from ...planner.binder import is_relational
from ...planner.model import Find, Model
from ...planner.node import Node, depends_on, walk
from ...planner.ops import Column, KeySum, State
from ...record import record
from ...types import UNIT
from ..choosing import decided
from ..compiling import Compilation
from ..constraints import fitted, overflows
from ..core import Session
from ..machine import plan_for, run_seconds
from ..models import sizes_told
from ..per_group import group_sizes
from ..relational_training import read_training, split
from ..rows import table_rows
from ..training_data import (
    always_known,
    class_weighted,
    kept_positions,
    load_rows,
    row_bytes,
    split_count,
    training_rows,
    used_leaves,
)
from ..training_plan import Planned, Settings, bound, read_settings
from .data import data_lines, keys_lines
from .history import History

if TYPE_CHECKING:
    from ...executor.compiled.source import Compiled


@record
class Planning:
    """A statement whose rows have been looked at, so that it can be planned again and again.

    ``plan`` takes the rules that stay off.
    """

    model: Model
    settings: Settings
    plan: Callable[[Collection[str]], Planned]


def planning(session: Session, statement: Train, *, streamed: bool = False) -> Planning:
    """What the training plan is made from: the table's size, and what is learned of its rows before training."""
    definition = session.models.definition(statement.model)
    settings = read_settings(statement)
    if is_relational(definition):
        return planning_relations(session, statement, definition, settings)
    sizes: Mapping[Any, int] = {}
    known: list[Column] = []
    sizes_of_groups: list[int] | None = None
    if statement.on is None:
        model, count, rows_there = bound(statement, definition, {}), 1, 1
    else:
        warm = None if statement.from_scratch else session.models.version(statement.model)
        with training_rows(session, statement, definition, settings, warm, streamed) as rows:
            model, sizes = rows.model, sizes_told(rows.classes)
            if rows.streamed is not None:
                from ..streaming import plan_streamed

                run = plan_streamed(session, statement, settings, rows)
                return Planning(model, run.settings, run.plan)
            query = rows.source.query
            [(rows_there,)] = session.storage.rows(f"SELECT count(*) FROM {query.text}", query.values)
            count = split_count(statement, rows_there)
            if rows.groups is not None:
                sizes_of_groups = group_sizes(session, statement, rows.groups, rows.source)
                count = sum(sizes_of_groups)
            if any(leaf.find == Find.KNOWN for leaf in used_leaves(model).values()):
                dataset = load_rows(session, statement, rows, warm is not None)
                known = always_known(model, dataset, kept_positions(statement, dataset, settings.seed, rows.groups))
    if settings.options["class_weight"]:
        model = class_weighted(model, statement, definition, sizes)
    settings = decided(statement, settings, model, rows_there, count, session.machine)

    def plan(without: Collection[str]) -> Planned:
        return plan_for(
            session, model, settings, rows_there, count, subset=count != rows_there, known=known,
            group_sizes=sizes_of_groups, without=without,
        )  # fmt: skip

    if statement.on is None or settings.memory is None:
        return Planning(model, settings, plan)
    fitting, estimate = fitted(session, settings, plan(()), rows_there * row_bytes(model))
    if overflows(statement, fitting, estimate):
        return planning(session, statement, streamed=True)
    return Planning(model, fitting, plan)


def planning_relations(session: Session, statement: Train, definition: CreateModel, settings: Settings) -> Planning:
    """The same for a model over several relations, whose keys are read and joined for it."""
    warm = None if statement.from_scratch else session.models.version(statement.model)
    model, read = read_training(session, statement, definition, warm)
    rows = model.rows.rows or 1
    kept, _ = split(statement, model, read, settings)
    count = rows if kept is None else len(kept)
    settings = decided(statement, settings, model, rows, count, session.machine)

    def plan(without: Collection[str]) -> Planned:
        return plan_for(session, model, settings, rows, count, subset=kept is not None, without=without)

    return Planning(model, settings, plan)


def train_view(
    statement: Train,
    model: Model,
    settings: Settings,
    planned: Planned,
    made: Compilation,
    measured: Mapping[Node, Measured] | None = None,
) -> PlanView:
    """The loop: what is computed once, and in each step the forward pass, the gradient, the update."""
    loop = planned.loop
    everything = [loop.loss, loop.rate, *loop.updates.values()]
    described = Described(loop.names, planned.machine, planned.runs, parts_of_step(loop), measured)
    if made.module is not None:
        described.places = made.module.place
    roots = described.roots({"loss": loop.loss, **{s.name: n for s, n in loop.updates.items()}})
    arena_bytes = (made.module or loop.generated()[0]).arena_bytes
    steps = planned.runs[Frequency.STEP]
    return PlanView(
        title=f"TRAIN {statement.model} WITH {settings.solver.name}: {until(statement, settings)}, {pace(loop)}",
        top=f"iterate {number(steps)} step{'' if steps == 1 else 's'}",
        roots=roots,
        operators=tuple(described.operators.values()),
        seconds=run_seconds(planned) if made.seconds is None else made.seconds,
        machine=facts(planned.machine),
        arena_bytes=arena_bytes,
        above=keys_lines(model),
        below=data_lines(model, everything),
        alternatives=alternative_views(planned.alternatives, {**loop.names, **model.names}),
        notes=(work(everything, arena_bytes), *fused(made), *beside_steps(settings), *planned.notes),
    )


def fused(made: Compilation) -> list[str]:
    """How the steps run, and what was fused."""
    if made.module is None:
        return [made.reason] if made.reason else []
    loops, products = made.module.kernel_counts()
    operators = times(made.module.operator_count(), "operator")
    told = f"{operators} in {times(loops, 'loop')} and {times(products, 'matrix product')}"
    for tiles in made.module.tiles:
        told += f"; {tiles.last + 1 - tiles.first} of these run together over tiles of {times(tiles.size, 'row')}"
    return [made.reason, told]


def beside_steps(settings: Settings) -> list[str]:
    """What a solver does beside the steps that the tree shows."""
    solver = settings.solver
    return [] if solver.needs is None else [f"beside these steps {solver.name}: {' '.join(solver.doc.split())}"]


def train_history(model: Model, planned: Planned, plan: Callable[[Collection[str]], Planned]) -> History:
    """How the plan of a loop came about; ``plan`` makes it anew without some rules.

    A rule can decide where weights lie: those that are looked up are a table, and lie by themselves. Plans that keep
    their weights in different states are not compared.
    """
    states = list(planned.loop.updates)

    def outputs(loop: LoopPlan) -> list[Node]:
        return [loop.loss, *loop.updates.values()]

    def without(rule: str) -> list[Node] | None:
        loop = plan([rule]).loop
        return outputs(loop) if list(loop.updates) == states else None

    names = {**planned.loop.names, **model.names}
    return History(planned.phases, names, planned.machine, outputs(planned.loop), without, planned.runs)


def parts_of_step(loop: LoopPlan) -> dict[Node, str]:
    """When each node of a loop runs: once, or in the forward pass, the backward pass or the update of every step."""
    outputs = [loop.loss, loop.rate, *loop.updates.values()]
    often = frequencies(outputs)
    forward = set(walk([loop.loss]))
    update = update_nodes(loop, forward)

    def part(node: Node) -> str:
        if isinstance(node, State):
            return ""  # what a step hands to the next
        if often[node] is Frequency.ONCE:
            return ONCE
        return FORWARD if node in forward else UPDATE if node in update else BACKWARD

    return {n: part(n) for n in walk(outputs)}


def update_nodes(loop: LoopPlan, forward: Collection[Node]) -> set[Node]:
    """The nodes of the update rule: what works on whole states or reads what the rule carries, and what needs these.

    What the gradient is made of is none, though it may look so: a model's only parameter is its whole state.
    """
    nodes = list(walk([loop.loss, loop.rate, *loop.updates.values()]))
    whole = {s.type for s in loop.updates}
    carried = [s for s in loop.updates if s not in forward]
    on_states = [n for n in nodes if n.kind == "map" and n.type in whole]
    on_rows = [n for n in nodes if n.kind == "update" or isinstance(n, KeySum)]
    first = [n for n in (*carried, *on_states, *on_rows) if n not in forward]
    gradient = set(walk([n for n, name in loop.names.items() if name.startswith("gradient")]))
    return depends_on(nodes, first).difference(forward, gradient)


def until(statement: Train, settings: Settings) -> str:
    """When the run ends."""
    limits = settings.limits
    until = times(limits.epochs, "epoch") if limits.epochs else f"{times(limits.steps or 0, 'step')} in all"
    if statement.until is not None or not (limits.epochs or limits.steps):
        until = "until told to stop" + (f", at most {until}" if limits.epochs or limits.steps else "")
    return until


def pace(loop: LoopPlan) -> str:
    """How many steps an epoch has and how many rows a step reads; of each group, if there are groups."""
    size = loop.batch.rows or 1
    groups = next(iter(loop.spans.values()))[0].rows
    rows = (
        times(size, "row")
        if groups == UNIT
        else f"{times(size // (groups.rows or 1), 'row')} of each of {groups.rows} groups"
    )
    return f"{times(loop.steps, 'step')} an epoch, {rows} a step"


def times(count: int, what: str) -> str:
    """So many of something."""
    return f"{count} {what}" + ("" if count == 1 else "s")


def work(outputs: Sequence[Node], arena_bytes: int) -> str:
    """What a step costs, whatever the machine."""
    often = frequencies(outputs)
    flops = sum(n.flops() for n, f in often.items() if f is Frequency.STEP)
    return f"{number(flops)} flops a step; arena {number(arena_bytes)} bytes"


# -- other sides of the plan -------------------------------------------------------------------------------------------


def logical_train(session: Session, statement: Train) -> PlanView:
    """The loss as bound, before anything was rewritten."""
    model = bound(statement, session.models.definition(statement.model), {})
    assert model.loss is not None
    described = Described(model.names)
    roots = described.roots({"loss": model.loss})
    return PlanView(f"TRAIN {statement.model}", "", roots, tuple(described.operators.values()), None)


def memory_rows(session: Session, loop: LoopPlan, module: Compiled | None) -> Rows:
    """The arena: which value lies in which slot."""
    program = module or loop.generated()[0]
    by_slot: dict[int, list[str]] = {}
    local = {n for t in module.tiles for n in t.local} if module else set()
    for node, slot in program.slot_of().items():
        name = loop.names.get(node, node.operator_name())
        by_slot.setdefault(slot, []).append(f"{name} of a tile" if node in local else name)
    return table_rows(
        session,
        {
            "slot": list(range(len(program.sizes))),
            "bytes": list(program.sizes),
            "holds": [", ".join(by_slot.get(i, ["scratch of kernels"])) for i in range(len(program.sizes))],
        },
    )
