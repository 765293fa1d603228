"""Training rows that do not fit into MEMORY: how they are cut into blocks, and how they get to the disk."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import replace

from ..errors import DataError, OperationalError
from ..executor.dataset import BATCH_ROWS, Dataset, HeldShare, Source, batches, match
from ..executor.device import Array
from ..executor.feed import Feed
from ..executor.spill import Layout, Spill
from ..executor.streaming import ORDER_BYTES, Cut, HeldOut, Staging, Streamed, cut, take_in, validation_of
from ..executor.train import LoopPlan
from ..figures import count as figure
from ..figures import size
from ..optimizer.stages import optimize, simplify
from ..parser.statements import Query, Train
from ..planner.model import Find, Model
from ..planner.node import Node
from ..planner.plan import Plan
from ..record import record
from ..types import RowSet
from .candidates import decided_for_blocks
from .constraints import PARTS, check, duckdb_share, once_bytes, resident_bytes
from .core import Session
from .machine import plan_for
from .predict import without_predict
from .training_data import (
    TrainingRows,
    check_classes,
    check_labels,
    check_rows,
    placed,
    split_count,
    used_leaves,
)
from .training_plan import Planned, Settings, parameter_views

VECTOR = 2048  # rows of DuckDB's vectors
COPIES = 4  # of a batch of rows while it becomes arrays: DuckDB's, Arrow's, converted ones


@record
class Streaming:
    """How the rows of a run go through memory: the layout of a row, the cut, DuckDB's share and the whole in bytes."""

    layout: Layout
    cut: Cut
    held: int  # rows that VALIDATE n PERCENT holds out
    share: int
    estimate: int

    @property
    def batch_rows(self) -> int:
        """The rows that DuckDB hands over at a time."""
        rows = self.share // (COPIES * max(1, self.layout.row_bytes))
        return min(BATCH_ROWS, max(VECTOR, rows // VECTOR * VECTOR))

    def line(self) -> str:
        """What EXPLAIN and TRAIN tell."""
        blocks, disk = self.cut.blocks, (self.cut.rows + self.held) * self.layout.row_bytes
        return (
            f"the rows are streamed: {figure(min(self.cut.capacity, self.cut.rows))} rows a block at most, "
            f"{figure(blocks)} block{'' if blocks == 1 else 's'} an epoch, {size(disk)} on disk"
        )


@record
class StreamedPlan:
    """A run over streamed rows as planned; ``plan`` makes its loop anew without some rules."""

    settings: Settings
    plan: Callable[..., Planned]
    planned: Planned
    streaming: Streaming


def plan_streamed(
    session: Session, statement: Train, settings: Settings, rows: TrainingRows, without: Collection[str] = ()
) -> StreamedPlan:
    """The plan of a run over rows of a table. Raises OperationalError where MEMORY is too little for that."""
    settings, model, count = decided_for_blocks(statement, settings), rows.model, rows.streamed
    assert count is not None
    kept = split_count(statement, count)
    flags = (leaf for leaf in used_leaves(model).values() if leaf.find == Find.KNOWN)
    known = [leaf.column for leaf in flags if leaf.vocabulary in rows.known]
    cut_for = functools.partial(streaming_of, statement, settings, model, count, kept)
    block_rows = cut_for(None).cut.capacity

    def plan(without: Collection[str]) -> Planned:
        options = {"subset": True, "streamed": True, "known": known, "without": without}
        planned = plan_for(session, model, settings, block_rows, kept, **options)
        return replace(planned, notes=(*planned.notes, cut_for(planned.loop).line()))

    planned = plan(without)
    return StreamedPlan(settings, plan, planned, cut_for(planned.loop))


def streaming_of(
    statement: Train, settings: Settings, model: Model, count: int, kept: int, loop: LoopPlan | None
) -> Streaming:
    """How the rows are cut, beside what a loop takes."""
    assert settings.memory is not None
    layout = Layout.of({name: leaf.column.type for name, leaf in used_leaves(model).items()})
    beside = 0 if loop is None else resident_bytes(loop)
    beside += HeldOut.bytes(layout) if statement.validate is not None else 0
    a_row, batch = layout.row_bytes + ORDER_BYTES, min(int(settings.options["batch_size"]), kept)
    room, once = settings.memory - beside, 0.0 if loop is None else once_bytes(loop)
    most = int(max(0, room) / (PARTS * a_row + once))
    found = cut(kept, batch, most, bool(settings.options["shuffle"]))
    if found is None:
        least = int(beside + (PARTS * a_row + once) * (batch + math.isqrt(kept) + 1))
        columns = count * layout.row_bytes
        if settings.memory < columns <= least:
            check(settings, columns, "its columns take")
        check(replace(settings, memory=min(settings.memory, least - 1)), least, "to stream its rows takes")
    assert found is not None
    return Streaming(
        layout, found, count - kept, room // PARTS, int(beside + ((PARTS - 1) * a_row + once) * found.capacity)
    )


@record
class StreamedRows:
    """Training rows on disk, and those that VALIDATE holds out."""

    spill: Spill
    cut: Cut
    held: HeldOut | None
    seed: int
    epochs: int | None

    def feed(self) -> Feed:
        """What brings them, from the first epoch on."""
        return Streamed(self.spill, self.cut, seed=self.seed, epochs=self.epochs)

    def close(self) -> None:
        """Give the disk space back."""
        self.spill.close()
        if self.held is not None:
            self.held.close()


@contextlib.contextmanager
def spilled(
    session: Session, statement: Train, rows: TrainingRows, run: StreamedPlan, known: bool
) -> Iterator[StreamedRows]:
    """The training rows on disk; closed again if an error occurs inside.

    Raises DataError for rows that cannot be trained on, OperationalError where the disk is full.
    """
    streaming, seed = run.streaming, run.settings.seed
    with contextlib.ExitStack() as opened:
        staging = Staging(streaming.layout, streaming.cut, seed)
        opened.callback(staging.spill.close)
        held = None if statement.validate is None else HeldOut(streaming.layout)
        if held is not None:
            opened.callback(held.close)
        with session.storage.limited(duckdb_share(PARTS * streaming.share)):
            spill(session, statement, rows, run, staging, held, known)
        cut = replace(streaming.cut, rows=staging.spill.rows)
        yield StreamedRows(staging.spill, cut, held, seed, run.settings.limits.epochs)
        opened.pop_all()


def spill(
    session: Session,
    statement: Train,
    rows: TrainingRows,
    run: StreamedPlan,
    staging: Staging,
    held: HeldOut | None,
    known: bool,
) -> None:
    """Bring the training rows and those of VALIDATE to the disk."""
    assert statement.on is not None and rows.streamed is not None
    check_classes(rows.model, rows.classes, statement.on.place)
    share = None
    if isinstance(statement.validate, float):
        share = HeldShare(rows.streamed, statement.validate, run.settings.seed)
    parts = read(session, rows.source, rows, run.streaming, statement.on)
    with placed(statement, statement.on.place, known), contextlib.closing(parts):
        take_in(parts, staging, held, share)
    staging.done()
    if held is None:
        check_rows(staging.spill.rows, statement.on.place)
        return
    if isinstance(statement.validate, Query):
        parts = read(
            session, validation_source(session, statement.validate, rows.model), rows, run.streaming, statement.validate
        )
        with placed(statement, statement.validate.place, False), contextlib.closing(parts):
            take_in(parts, held)
    held.done()
    check_held(statement, held, staging.spill)


def read(
    session: Session, source: Source, rows: TrainingRows, streaming: Streaming, query: Query
) -> Generator[tuple[Mapping[str, Array], int], None, None]:
    """What the loss reads of the rows of a source, as they come, labels checked."""
    model, first_row = rows.model, 1
    parts = batches(
        session.storage, source, model, used_leaves(model), rows.classes, rows.fillings, streaming.batch_rows
    )
    for batch in parts:
        columns = dict(batch)
        check_labels(model, Dataset(columns, batch.rows), query, first_row)
        first_row += batch.rows
        yield columns, batch.rows


def validation_source(session: Session, query: Query, model: Model) -> Source:
    """The rows of VALIDATE ON."""
    wanted = {n: model.declared[n] for leaf in used_leaves(model).values() for n in leaf.reads}
    return match(session.storage, without_predict(session, query), model, wanted)


def check_held(statement: Train, held: HeldOut, kept: Spill) -> None:
    """There must be rows on both sides."""
    if isinstance(statement.validate, Query) and not held.rows:
        raise DataError("there are no rows to validate on", place=statement.validate.place)
    if not held.rows or not kept.rows:
        raise DataError(
            f"VALIDATE {statement.validate:g} PERCENT of {held.rows + kept.rows} rows leaves nothing on one of the "
            "sides",
            place=statement.place,
        )


def streamed_validator(
    model: Model, rows: StreamedRows, loop: LoopPlan, settings: Settings
) -> Callable[[Mapping[Node, Array]], float] | None:
    """The loss on the held-out rows as a function of the states."""
    if rows.held is None:
        return None
    assert model.loss is not None
    some = RowSet("held_out", rows.held.rows)
    simplified = simplify(Plan({"loss": model.loss}, model.names)).plan
    plan = optimize(simplified.over({model.rows: some}, {}).replaced(parameter_views(loop))).plan
    found = validation_of(plan, some, rows.held)
    if found is None:
        raise OperationalError(
            "the validation loss needs all rows at once, and they do not fit into MEMORY",
            place=settings.memory_place,
            hint="VALIDATE ON fewer rows, or a larger MEMORY",
        )
    return found
