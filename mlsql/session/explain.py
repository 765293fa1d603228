"""EXPLAIN: the plan of a statement, the optimizer's steps, the generated code, the gradient. Nothing is run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ..autodiff.gradient import adjoints
from ..errors import NotSupportedError, ProgrammingError, listed, suggest
from ..executor.check import difference
from ..executor.codegen import generate
from ..executor.results import Rows
from ..executor.run import evaluate, leaves, resized
from ..executor.train import LoopPlan
from ..explain.formula import formula
from ..explain.gradient import gradient_rows
from ..explain.listing import listing, number
from ..optimizer.rule import QueryStep, Step
from ..optimizer.stages import optimize, run_stage, simplify
from ..parser.statements import CreateModel, Evaluate, Explain, ExplainGradient, SelectSql, Statement, Train
from ..planner.binder import bind_model
from ..planner.data import filled
from ..planner.model import DataColumn, Find, Model
from ..planner.node import Node, depends_on, walk
from ..planner.ops import Column, KeySum, Parameter, State
from ..planner.plan import Plan
from ..planner.relational import is_relational
from ..types import UNIT, shape_text
from .core import Session, runs
from .create import with_declared_inputs
from .models import parameter_arrays, sizes_told
from .per_group import group_sizes
from .query.functions import ALL_OUTPUTS
from .query.lowering import asked_for
from .query.plan import query_plan
from .relational_training import read_training, split
from .rows import lines_rows, table_rows
from .training_data import (
    always_known,
    class_weighted,
    kept_positions,
    load_rows,
    split_count,
    training_rows,
    used_leaves,
)
from .training_plan import Settings, bound, plan_training, read_settings

OPTIONS = ("LOGICAL", "PHYSICAL", "STEPS", "CODE", "MEMORY")


@runs(Explain)
def explain(session: Session, statement: Explain) -> Rows:
    """The plan of a statement as rows; an option says which side of it to show."""
    option = chosen_option(statement)
    inner = statement.statement
    if statement.analyze:
        raise NotSupportedError("EXPLAIN ANALYZE of a model is not supported yet", place=statement.place)
    if isinstance(inner, Train):
        return EXPLAIN_TRAIN[option](session, inner)
    plans = forward_plans(session, inner)
    if not plans:
        raise NotSupportedError("there is no plan to explain in this statement", place=statement.place)
    if option == "STEPS":
        changes = query_plan(session, inner)[1] if isinstance(inner, SelectSql) else ()
        names = {node: name for _, logical, _ in plans for node, name in logical.names.items()}
        return steps_rows(session, [*changes, *(s for _, logical, _ in plans for s in optimize(logical).steps)], names)
    lines: list[str] = []
    for title, logical, model in plans:
        plan = logical if option == "LOGICAL" else optimize(logical).plan
        lines += [title, *forward_lines(plan, model, option)]
    if isinstance(inner, SelectSql):
        lines += ["", "DuckDB's plan, in which each model is a function:", *duckdb_plan(session, inner)]
    return lines_rows(session, lines)


def chosen_option(statement: Explain) -> str:
    """The one option that says what to show; PHYSICAL, the optimized plan, if there is none."""
    for o in statement.options:
        if o.name not in OPTIONS:
            hint = suggest(o.name, OPTIONS) or f"options are {listed(OPTIONS)}"
            raise ProgrammingError(f"EXPLAIN has no option {o.name}", place=o.place, hint=hint)
    if len(statement.options) > 1:
        raise ProgrammingError("one option of EXPLAIN at a time", place=statement.options[1].place)
    return statement.options[0].name if statement.options else "PHYSICAL"


# -- TRAIN ---------------------------------------------------------------------------------------------------------


def planned(session: Session, statement: Train) -> tuple[Model, Any, tuple[Step, ...], int]:
    """The training plan, made from the table's size and what is learned of its rows before training."""
    definition = session.models.definition(statement.model)
    settings = read_settings(statement)
    if is_relational(definition):
        return planned_relations(session, statement, definition, settings)
    sizes: Mapping[Any, int] = {}
    known: list[Column] = []
    sizes_of_groups: list[int] | None = None
    if statement.on is None:
        model, count, rows_there = bound(statement, definition, {}), 1, 1
    else:
        warm = None if statement.from_scratch else session.models.version(statement.model)
        with training_rows(session, statement, definition, settings.seed, warm) as rows:
            model, sizes = rows.model, sizes_told(rows.classes)
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
    planned = plan_training(
        model, settings, rows_there, count, subset=count != rows_there, known=known, group_sizes=sizes_of_groups
    )
    return model, planned.loop, planned.steps, count


def planned_relations(
    session: Session, statement: Train, definition: CreateModel, settings: Settings
) -> tuple[Model, Any, tuple[Step, ...], int]:
    """The same for a model over several relations, whose keys are read and joined for it."""
    warm = None if statement.from_scratch else session.models.version(statement.model)
    model, read = read_training(session, statement, definition, warm)
    rows = model.rows.rows or 1
    kept, _ = split(statement, model, read, settings)
    count = rows if kept is None else len(kept)
    planned = plan_training(model, settings, rows, count, subset=kept is not None)
    return model, planned.loop, planned.steps, count


def explain_train(session: Session, statement: Train) -> Rows:
    """The loop: what is computed once, and in each step the forward pass, the gradient, the update."""
    model, loop, _, _ = planned(session, statement)
    settings = read_settings(statement)
    limits = settings.limits
    until = f"{limits.epochs} epochs" if limits.epochs else f"{limits.steps} steps in all"
    if statement.until is not None or not (limits.epochs or limits.steps):
        until = "until told to stop" + (f", at most {until}" if limits.epochs or limits.steps else "")
    head = f"TRAIN {statement.model} WITH {settings.solver.name}: {until}, {pace(loop)}"
    outputs = [loop.loss, loop.rate, *loop.updates.values()]
    nodes = list(walk(outputs))
    moving = [n for n in nodes if n.kind in ("index", "counter", "state")]
    in_loop = depends_on(nodes, moving)
    forward = set(walk([loop.loss]))
    update = update_nodes(loop, forward)
    sections = [
        ("once", [n for n in nodes if n not in in_loop or isinstance(n, State)]),
        ("each step: forward", [n for n in nodes if n in forward and n in in_loop and not isinstance(n, State)]),
        ("each step: backward", [n for n in nodes if n in in_loop - forward - update and not isinstance(n, State)]),
        ("each step: update", [n for n in nodes if n in update and not isinstance(n, State)]),
    ]
    work = sum(n.flops() for n in nodes if n in in_loop)
    program, _ = loop.generated()
    tail = f"{number(work)} flops a step; arena {number(program.arena_bytes)} bytes"
    lines = [head, *skeleton_lines(model), *listing(sections, loop.names), tail, *data_lines(model, outputs)]
    return lines_rows(session, lines)


def skeleton_lines(model: Model) -> list[str]:
    """What DuckDB finds out before anything is learned: a line a join, filter, group-by and union."""
    if model.skeleton is None or not model.skeleton.steps:
        return []
    counts = {s.rows.name: "?" if s.rows.rows is None else str(s.rows.rows) for s in model.skeleton.steps}
    width = max(map(len, counts.values()))
    return [
        "keys, by DuckDB, once",
        *(f"  {s.rows.name}  {counts[s.rows.name].rjust(width)} rows: {s.shown()}" for s in model.skeleton.steps),
    ]


def update_nodes(loop: LoopPlan, forward: Collection[Node]) -> set[Node]:
    """The nodes of the update rule: what works on whole states or reads what the rule carries, and what needs these."""
    nodes = list(walk([loop.loss, loop.rate, *loop.updates.values()]))
    whole = {s.type for s in loop.updates}
    carried = [s for s in loop.updates if s not in forward]
    on_states = [n for n in nodes if n.kind == "map" and n.type in whole]
    on_rows = [n for n in nodes if n.kind == "update" or isinstance(n, KeySum)]
    first = [n for n in (*carried, *on_states, *on_rows) if n not in forward]
    return depends_on(nodes, first).difference(forward)


def pace(loop: LoopPlan) -> str:
    """How many steps an epoch has and how many rows a step reads; of each group, if there are groups."""
    size = loop.batch.rows or 1
    groups = next(iter(loop.spans.values()))[0].rows
    rows = f"{size} rows" if groups == UNIT else f"{size // (groups.rows or 1)} rows of each of {groups.rows} groups"
    return f"{loop.steps} steps an epoch, {rows} a step"


def explain_train_logical(session: Session, statement: Train) -> Rows:
    """The loss as bound, before anything was rewritten."""
    model = bound(statement, session.models.definition(statement.model), {})
    assert model.loss is not None
    return lines_rows(session, listing([("loss", list(walk([model.loss])))], model.names))


def explain_train_steps(session: Session, statement: Train) -> Rows:
    model, loop, steps, _ = planned(session, statement)
    return steps_rows(session, steps, {**loop.names, **model.names})


def explain_train_code(session: Session, statement: Train) -> Rows:
    """The Python that one step runs."""
    _, loop, _, _ = planned(session, statement)
    program, _ = loop.generated()
    return lines_rows(session, program.source.rstrip().split("\n"))


def explain_train_memory(session: Session, statement: Train) -> Rows:
    """The arena: which value lies in which slot."""
    _, loop, _, _ = planned(session, statement)
    program, _ = loop.generated()
    layout = program.layout
    by_slot: dict[int, list[str]] = {}
    for node, slot in layout.slot.items():
        by_slot.setdefault(slot, []).append(loop.names.get(node, node.operator_name()))
    slots = [*enumerate(layout.slots), *((i + len(layout.slots), s) for i, s in enumerate(program.scratch))]
    return table_rows(
        session,
        {
            "slot": [i for i, _ in slots],
            "bytes": [size for _, size in slots],
            "holds": [", ".join(by_slot.get(i, ["scratch of kernels"])) for i, _ in slots],
        },
    )


EXPLAIN_TRAIN: Mapping[str, Callable[[Session, Train], Rows]] = {
    "PHYSICAL": explain_train,
    "LOGICAL": explain_train_logical,
    "STEPS": explain_train_steps,
    "CODE": explain_train_code,
    "MEMORY": explain_train_memory,
}


# -- models that predict -------------------------------------------------------------------------------------------


def forward_plans(session: Session, statement: Statement) -> list[tuple[str, Plan, Model]]:
    """For every model that a statement applies: a title, the logical plan, the model."""
    if isinstance(statement, CreateModel):
        model = bind_model(with_declared_inputs(session, statement))
        outputs = dict(model.columns) | ({"loss": model.loss} if model.loss is not None else {})
        return [(f"model {statement.model}", Plan(outputs, model.names), model)]
    if isinstance(statement, Evaluate):
        model, _ = session.models.trained(statement.model, statement.version)
        return [(f"EVALUATE {statement.model}", Plan(model.columns, model.names).keep([model.prediction]), model)]
    found = []
    for call in statement.predicts if isinstance(statement, SelectSql) else ():
        model, _ = session.models.trained(call.model, call.version)
        output = asked_for(call, model)
        wanted = list(model.columns) if output == ALL_OUTPUTS else [output]
        found.append((f"PREDICT {call.model}", Plan(model.columns, model.names).keep(wanted), model))
    return found


def forward_lines(plan: Plan, model: Model, option: str) -> list[str]:
    """A forward plan as text: the listing, or the code that it becomes."""
    nodes, rows = list(plan.outputs.values()), model.rows
    if option in ("CODE", "MEMORY"):
        is_one_set = rows != UNIT and model.skeleton is None
        part, _ = resized(nodes, rows, 2048) if is_one_set else (nodes, UNIT)
        size = "2048 rows at a time" if is_one_set else "a row of each row set"
        program = generate(part, names=plan.names, varying=leaves(part))
        if option == "CODE":
            return program.source.rstrip().split("\n")
        return [f"arena of {number(program.arena_bytes)} bytes for {size}"]
    return [*skeleton_lines(model), *listing([("", list(plan.nodes()))], plan.names), *data_lines(model, nodes)]


def data_lines(model: Model, outputs: Sequence[Node]) -> list[str]:
    """How DuckDB computes the leaves that are no plain columns."""
    leaves = {n: leaf for n, leaf in model.leaves(outputs).items() if n in model.data and not leaf.is_plain}
    lines = [f"  {name} = {leaf_text(leaf)}" for name, leaf in leaves.items()]
    return ["columns that DuckDB computes", *lines] if lines else []


def leaf_text(leaf: DataColumn) -> str:
    """The SQL of a leaf, and what is done with its value."""
    sql = filled(leaf.sql, lambda hole: leaf.reads[int(hole)])
    if leaf.vocabulary is not None and leaf.find is not None:
        return f"{sql}, looked up in {leaf.vocabulary}: {leaf.find.value}"
    return sql if leaf.fill is None else f"{sql}, or {leaf.fill} where it is NULL"


def duckdb_plan(session: Session, statement: SelectSql) -> list[str]:
    """DuckDB's own EXPLAIN of the statement with the models as functions."""
    text, _, _ = query_plan(session, statement)
    rows = session.storage.rows(f"EXPLAIN {text}", statement.values)
    return [line for row in rows for line in str(row[-1]).rstrip().split("\n")]


# -- steps, gradient -----------------------------------------------------------------------------------------------


def steps_rows(session: Session, steps: Sequence[Step | QueryStep], names: Mapping[Node, str]) -> Rows:
    """A row a rewriting: the law, before and after, work before and after, why, and whether both sides agree."""
    columns: dict[str, list[Any]] = {
        key: [] for key in "stage rule law before after flops_before flops_after why difference".split()
    }
    for s in steps:
        columns["stage"].append(s.stage)
        columns["rule"].append(s.rule.name)
        columns["law"].append(s.rule.law)
        columns["why"].append(s.rule.why)
        if isinstance(s, QueryStep):
            for name, value in (
                ("before", s.before),
                ("after", s.after),
                ("flops_before", None),
                ("flops_after", None),
            ):
                columns[name].append(value)
            columns["difference"].append(None)
            continue
        after = s.after
        columns["before"].append(formula(s.before, names, 3))
        columns["after"].append("" if after is None else formula(after, names, 3))
        columns["flops_before"].append(work_of(s.before))
        columns["flops_after"].append(0 if after is None else work_of(after))
        columns["difference"].append(None if after is None else largest_difference(s.before, after))
    return table_rows(session, columns)


def work_of(node: Node) -> int:
    """Floating-point operations of a node and all that it stands on, each counted once."""
    return sum(n.flops() for n in walk([node]))


def largest_difference(before: Node, after: Node) -> float:
    """The largest relative difference of both sides of a step on random rows."""
    expanded = run_stage("expand", Plan({"before": before, "after": after}), [])
    return difference(expanded.outputs["before"], expanded.outputs["after"])


@runs(ExplainGradient)
def explain_gradient(session: Session, statement: ExplainGradient) -> Rows:
    """The forward pass and the derivative by every node side by side, with values where no data is needed."""
    definition = session.models.definition(statement.model)
    version = session.models.version(statement.model)
    model = session.models.trained(statement.model)[0] if version else bind_model(definition)
    if model.loss is None:
        raise ProgrammingError(f'model "{statement.model}" has nothing to minimize', place=statement.model.place)
    names = {node: name for node, name in model.names.items() if node.inputs}
    loss_name = names.setdefault(model.loss, "loss")
    simplified = simplify(Plan({"loss": model.loss}, names))
    loss = simplified.plan.outputs["loss"]
    sources = [p.node for p in model.parameters.values() if not p.frozen]
    found = adjoints(loss, sources)
    plan = simplify(Plan({str(i): g for i, g in enumerate(found.values())}, simplified.plan.names)).plan
    derivatives = dict(zip(found, plan.outputs.values(), strict=True))
    rows = gradient_rows(loss, derivatives, simplified.plan.names, loss_name)
    forward, backward = shown_values(model, version, rows)
    return table_rows(
        session,
        {
            "node": [r.name for r in rows],
            "forward": [r.forward for r in rows],
            "value": forward,
            "derivative": [r.derivative for r in rows],
            "gradient": [r.gradient for r in rows],
            "gradient_value": backward,
            "read_again_by_gradient_of": [r.reused for r in rows],
        },
    )


def shown_values(model: Model, version: Any, rows: Sequence[Any]) -> tuple[list[str], list[str]]:
    """The values of the forward pass and of the derivatives; types where they depend on data that is not there."""
    has_data = any(isinstance(n, Column) for r in rows for n in walk([r.node, r.adjoint]))
    if has_data or not (model.has_values or version):
        types = [r.node.type for r in rows]
        texts = [f"{t.element}{shape_text(t.shape)}{'' if t.rows == UNIT else ' a row'}" for t in types]
        return texts, texts
    outputs = {f"f{i}": r.node for i, r in enumerate(rows)} | {f"g{i}": r.adjoint for i, r in enumerate(rows)}
    plan = optimize(Plan(outputs)).plan
    arrays = parameter_arrays(model, version)
    values = evaluate(plan, {n: arrays[n] for n in walk(plan.outputs.values()) if isinstance(n, Parameter)}, {})
    return [shown(values[f"f{i}"]) for i in range(len(rows))], [shown(values[f"g{i}"]) for i in range(len(rows))]


def shown(value: Any) -> str:
    """A number, or a tensor as a list."""
    return f"{value:g}" if isinstance(value, float) else str(value.tolist())
