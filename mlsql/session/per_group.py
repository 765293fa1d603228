"""PER: the groups of a training run, of a version, and the text by which a row's group is known.

A group is a combination of the columns' values, NULL included, as GROUP BY has it. Its key is the text of the row of
these values, such as ``(north, 1)``; the keys of a version, sorted by the values, are kept with its classes, under the
SQL type of a struct of the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from ..autodiff.per_group import Blocks, PerGroup, gathered
from ..autodiff.training import view_of
from ..errors import DataError, NotSupportedError, Place, ProgrammingError, suggest
from ..executor.catalog import StoredVersion
from ..executor.dataset import Dataset, Source, load, quoted
from ..executor.device import Array
from ..executor.per_group import (
    NUMBERS,
    REAL,
    SLOTS,
    GroupParameters,
    GroupPredictor,
    as_it_is,
    group_predictor,
    group_validation,
    rows_by_group,
    stacked_parameters,
)
from ..executor.predict import Predictor
from ..executor.train import LoopPlan
from ..executor.vocabulary import Keys
from ..optimizer.stages import optimize
from ..parser.statements import Name, Query, Train
from ..planner.model import DataColumn, Find, Model
from ..planner.node import Node
from ..planner.ops import Column, Count, Index, Parameter, Positions
from ..planner.plan import Plan
from ..record import record
from ..types import BIGINT, RowSet, category
from .batch import batch_leaves
from .core import Session

PADDING = RowSet("padding", 2)  # 0: the slot does not count, 1: it holds a row
MOST_SLOTS, MOST_PADDING = 10_000_000, 10  # beyond so many slots, no more than so many times the rows
ENTRY = "PER ("  # how the name of a version's keys begins


@record
class Groups:
    """The columns that make the groups, with their SQL types, and the key of every group in order."""

    columns: Mapping[str, str]
    keys: Sequence[str]

    @property
    def name(self) -> str:
        """``PER (region, shop)``: the name of the keys among a version's classes, and of the column of keys."""
        return f"{ENTRY}{', '.join(self.columns)})"

    @property
    def classes(self) -> dict[str, Keys]:
        """The entry among the classes of a version."""
        fields = ", ".join(f"{quoted(name)} {type_text}" for name, type_text in self.columns.items())
        return {self.name: Keys(f"STRUCT({fields})", pa.array(self.keys, pa.string()))}

    def key(self, values: Mapping[str, str]) -> str:
        """The SQL of a row's key, given the SQL of each column's value."""
        fields = (f"CAST({values[n]} AS {type_text})" for n, type_text in self.columns.items())
        return f"CAST(row({', '.join(fields)}) AS VARCHAR)"

    def keyed(self, source: Source) -> Source:
        """The rows of a source with their key as one more column, called ``name``."""
        key = self.key({n: quoted(n) for n in self.columns})
        text = f"(SELECT *, {key} AS {quoted(self.name)} FROM {source.query.text})"
        query = Query(text, source.query.place, source.query.values)
        return Source(query, {**source.columns, self.name: (self.name, "VARCHAR")})

    def declared(self, model: Model) -> Model:
        """The model with the key among the columns that rows must bring."""
        key = Column(self.name, model.rows, category(self.name))
        return replace(model, weight_columns={**model.weight_columns, self.name: key})

    def numbers(self, session: Session, source: Source, model: Model) -> Dataset:
        """The rows of a source with the number of each row's group, a column called ``name``."""
        model = self.declared(model)
        leaf = DataColumn(model.declared[self.name], "{0}", (self.name,), self.name, Find.LABEL)
        keys = Keys("VARCHAR", pa.array(self.keys, pa.string()))
        return load(session.storage, source, model, {self.name: leaf}, {self.name: keys}, {})


# -- finding them ------------------------------------------------------------------------------------------------------


def groups_of_rows(session: Session, per: Sequence[Name], query: Query) -> Groups | None:
    """The groups of the training rows; None without PER. Raises ProgrammingError for a column that is not there."""
    if not per:
        return None
    types = matched(per, session.storage.describe(query.text, query.values))
    for column, (name, type_text) in zip(per, types.items(), strict=True):
        if type_text == '"NULL"':
            hint = f"CAST(NULL AS VARCHAR) AS {name}"
            raise ProgrammingError(f'the column "{name}" is NULL and has no type', place=column.place, hint=hint)
    empty = Groups(types, ())
    names = ", ".join(map(quoted, types))
    sql = f"SELECT {empty.key({n: quoted(n) for n in types})} FROM (SELECT DISTINCT {names} FROM {query.text})"
    return replace(empty, keys=[k for (k,) in session.storage.rows(f"{sql} ORDER BY {names}", query.values)])


def group_sizes(session: Session, statement: Train, groups: Groups, source: Source) -> list[int]:
    """How many rows of each group are trained on, VALIDATE considered; ``source`` has their keys."""
    query = source.query
    sql = f"SELECT count(*) FROM {query.text} GROUP BY {quoted(groups.name)}"
    percent = statement.validate if isinstance(statement.validate, float) else 0
    return [max(1, n - round(n * percent / 100)) for (n,) in session.storage.rows(sql, query.values)]


def matched(per: Sequence[Name], described: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The columns of PER with their SQL types, named as the rows name them."""
    by_lower = {name.lower(): (name, type_text) for name, type_text in described}
    found: dict[str, str] = {}
    for column in per:
        if column.name.lower() not in by_lower:
            known = [n for n, _ in described]
            hint = suggest(column.name, known) or f"columns are {', '.join(known)}"
            raise ProgrammingError(f'the rows have no column "{column.name}"', place=column.place, hint=hint)
        name, type_text = by_lower[column.name.lower()]
        if name in found:
            raise ProgrammingError(f'the column "{name}" is there twice', place=column.place)
        found[name] = type_text
    return found


def check_columns(session: Session, groups: Groups, query: Query) -> None:
    """Rows must bring the columns of PER. Raises ProgrammingError for one that is not there."""
    described = session.storage.describe(query.text, query.values)
    matched([Name(c, query.place) for c in groups.columns], described)


def groups_of_version(session: Session, version: StoredVersion | None) -> Groups | None:
    """The groups that a version was trained for; None if it was trained on the rows as a whole."""
    entry = next((n for n in version.classes if n.startswith(ENTRY)), None) if version else None
    if version is None or entry is None:
        return None
    keys = version.classes[entry]
    columns = session.storage.describe(f"(SELECT unnest(CAST(NULL AS {keys.type_text})))")
    return Groups(dict(columns), keys.texts.to_pylist())


def label_classes(version: StoredVersion | None) -> dict[str, Keys]:
    """The classes and vocabularies of a version, without the keys of its groups."""
    return {n: c for n, c in version.classes.items() if not n.startswith(ENTRY)} if version else {}


def check_same(statement: Train, warm: StoredVersion | None, before: Groups | None) -> None:
    """Training goes on from the version before it if that is one of all rows, or has the same columns in PER."""
    now = [n.name.lower() for n in statement.per]
    if warm is not None and before is not None and now != [c.lower() for c in before.columns]:
        raise ProgrammingError(
            f"the version before was trained {before.name}, and this one cannot go on from it",
            place=statement.place,
            hint=f"{before.name} here, too, or FROM SCRATCH",
        )


def known_before(model: Model, warm: StoredVersion | None, before: Groups | None) -> Mapping[str, Array]:
    """The parameters of the version before that have the shapes that the model declares: of a version PER group only
    those that all groups share."""
    known = warm.parameters if warm else {}
    shared = [n for n in known if n in model.parameters and is_shared(model, n)]
    return known if before is None else {n: known[n] for n in shared}


def is_shared(model: Model, parameter: str) -> bool:
    """Whether all groups have the same value: training changes none of it."""
    return model.parameters[parameter].frozen


def first_by_group(
    first: Mapping[str, Array], model: Model, groups: Groups, warm: StoredVersion | None, before: Groups | None
) -> dict[str, Array]:
    """Where every group starts: at its own parameters of the version before, else at ``first``, where it would start
    alone. What is frozen is the same for all."""
    place = {k: i for i, k in enumerate(before.keys)} if before else {}
    places = [place.get(k) for k in groups.keys]
    stored = warm.parameters if warm and before else {}
    return {
        n: value if is_shared(model, n) else stacked_parameters(value, stored.get(n), places)
        for n, value in first.items()
    }


# -- rows and plans ----------------------------------------------------------------------------------------------------


@record
class ByGroup:
    """The groups of a training run, and the rows that each is trained on."""

    groups: Groups
    rows: Sequence[Array]

    @property
    def sizes(self) -> list[int]:
        return [len(r) for r in self.rows]


def group_rows(statement: Train, dataset: Dataset, chosen: Array | None, groups: Groups | None) -> ByGroup | None:
    """The rows of each group; None without groups. Raises DataError for a group of which VALIDATE leaves no row."""
    if groups is None:
        return None
    found = ByGroup(groups, rows_by_group(dataset.columns[groups.name], chosen, len(groups.keys)))
    for key, size in zip(groups.keys, found.sizes, strict=True):
        if size == 0:
            raise DataError(f"VALIDATE leaves no row of the group {key} to train on", place=statement.place)
    return found


def validator_of_groups(
    model: Model, plan: Plan, loop: LoopPlan, held_out: Dataset, groups: Groups, place: Place
) -> Callable[[Mapping[Node, Array]], float]:
    """The loss on the held-out rows as a function of the states: the average over the groups by their rows.

    Raises NotSupportedError, at ``place``, if the held-out rows of one group outnumber those of the others by far.
    """
    rows = rows_by_group(held_out.columns[groups.name], None, len(groups.keys))
    sizes = [len(r) for r in rows]
    table = RowSet("held_out", held_out.rows)
    layout, _ = group_layout(model, plan, table, sizes, max(sizes), in_batches=False, place=place)
    views: dict[Node, Node] = {p: view_of(p, *span) for p, span in loop.spans.items()}
    loss = layout.reported(layout.placed(plan, views).outputs["loss"])
    return group_validation(optimize(Plan({"loss": loss})).plan, held_out.columns, rows, max(sizes))


def check_padding(sizes: Sequence[int], width: int, place: Place) -> None:
    """A few large groups among many small ones would fill the memory with slots that do not count."""
    slots = len(sizes) * width
    if slots > MOST_SLOTS and slots > MOST_PADDING * sum(sizes):
        raise NotSupportedError(
            f"PER gives each of {len(sizes)} groups {width} slots, as many as the largest has rows in a step: "
            f"{slots} slots for {sum(sizes)} rows",
            place=place,
            hint="batches of fewer rows, as in WITH SGD (batch_size = 64), and VALIDATE on fewer",
        )


def group_layout(
    model: Model, plan: Plan, table: RowSet, sizes: Sequence[int], width: int, *, in_batches: bool, place: Place
) -> tuple[PerGroup, tuple[Index, ...]]:
    """How the plan of a loss is laid out for groups of these sizes, each with ``width`` slots a step.

    In batches the slots are filled anew at every step, and the indexes that do it come along: the row in each slot,
    and whether it counts (a row of PADDING). Raises NotSupportedError, at ``place``, for far too many empty slots.
    """
    check_padding(sizes, width, place)
    groups, slots = RowSet("groups", len(sizes)), RowSet("batch", len(sizes) * width)
    row: Node = Index(slots, table) if in_batches else Positions(SLOTS, slots, table)
    real: Node = Index(slots, PADDING) if in_batches else Positions(REAL, slots, PADDING)
    all_count = len(set(sizes)) == 1 and sizes[0] % width == 0
    blocks = Blocks(groups, slots, width, None if all_count else real, Positions(NUMBERS, groups, groups))
    leaves = {Count(model.rows): blocks.count, **batch_leaves(model, plan, table, row)}
    waits = len({-(-n // width) for n in sizes}) > 1
    return PerGroup(blocks, leaves, waits), tuple(n for n in (row, real) if isinstance(n, Index))


# -- prediction --------------------------------------------------------------------------------------------------------


def predictor_of_groups(
    one: Predictor, plan: Plan, model: Model, groups: Groups, arrays: Mapping[Node, Array]
) -> GroupPredictor:
    """What predicts rows of any groups; ``plan`` are the outputs as bound, ``one`` predicts rows of one group."""
    learned: dict[Parameter, Array] = {p.node: arrays[p.node] for p in model.parameters.values() if not p.frozen}
    shared = {n: a for n, a in arrays.items() if n not in learned}
    number = Column(groups.name, model.rows, BIGINT)
    stacks = {p: Parameter(p.name, p.element, (len(groups.keys), *p.shape)) for p in learned}
    parameters: dict[Node, Array] = {**shared, **{stacks[p]: a for p, a in learned.items()}}
    try:
        wide = optimize(gathered(plan, stacks, number)).plan
        inputs = [*one.inputs, as_it_is(number)]
        at_once = Predictor(wide, model.rows, inputs, parameters, one.classes, one.lookups, clock=one.clock)
        if one.clock is not None:
            one.clock.plans.append((f"model {model.name}: rows of all groups at once", at_once.plan))
    except NotSupportedError:
        at_once = None  # group by group, then
    return group_predictor(one, at_once, number, GroupParameters(dict(learned.items()), shared), groups.keys)
