"""CREATE, DROP and ALTER MODEL."""

from __future__ import annotations

from ..errors import Error, ProgrammingError, suggest
from ..executor.dataset import declared_type, expression_sql, quoted, read_type
from ..executor.results import Rows
from ..parser import parse
from ..parser.statements import CreateModel, DropModel, RenameModel, RollbackModel
from ..planner.binder import bind_model
from ..planner.model import Model
from .core import Session, runs
from .rows import message_rows


@runs(CreateModel)
def create(session: Session, statement: CreateModel) -> Rows:
    """Bind the model, so that every error is found now, and store its definition."""
    name = str(statement.model)
    exists = session.catalog.find(name) is not None
    if exists and statement.if_not_exists:
        return message_rows(session, f"model {name} exists")
    if exists and not statement.or_replace:
        raise ProgrammingError(
            f'model "{name}" exists',
            place=statement.model.place,
            hint="CREATE OR REPLACE MODEL drops it with its versions; CREATE MODEL IF NOT EXISTS keeps it",
        )
    definition = with_declared_inputs(session, statement)
    model = bind_model(definition)
    for part in model.parts.values():
        check_sql(session, part)
    check_sql(session, model)
    if model.skeleton is not None:
        try:
            from .relations import check_skeleton

            check_skeleton(session, model)
        except Error as problem:
            problem.at(definition.select.place)
            raise
    session.catalog.save_model(name, statement.text, definition.text, replace=exists)
    return message_rows(session, f"model {name} {'replaced' if exists else 'created'}")


def check_sql(session: Session, model: Model) -> None:
    """Whether DuckDB can compute what the model asks of its columns, one row at a time."""
    for check in model.sql_checks:
        columns = {n: quoted(n) for n in check.reads}
        row = ", ".join(f"CAST(NULL AS {read_type(model, n)}) AS {c}" for n, c in columns.items())
        text = expression_sql(model, check.sql, check.reads, columns)
        try:  # with a column beside it, an aggregate is an error
            session.storage.describe(f"(SELECT {text} AS value, {columns[check.reads[0]]} FROM (SELECT {row}))")
        except Error as problem:
            message = problem.message.partition("\n\nLINE ")[0].strip()
            raise ProgrammingError(f"DuckDB cannot compute this: {message}", place=check.place) from problem


def with_declared_inputs(session: Session, statement: CreateModel) -> CreateModel:
    """INPUT FROM a table as an INPUT list, so that the model does not depend on the table any more."""
    if statement.input_from is None or statement.input_from_place is None:
        return statement
    query = statement.input_from
    targets = {d.name.lower() for d in statement.target if d.relation.lower() == (query.name or "").lower()}
    try:
        described = session.storage.describe(query.text, query.values)
    except Error as problem:
        problem.at(query.place)
        raise
    columns = [(name, text) for name, text in described if name.lower() not in targets]
    used = [(name, declared_type(session.storage, query, name, text)) for name, text in columns]
    clause = ", ".join(f"{quoted(name)} {text}" for name, text in used)
    place = statement.input_from_place
    text = f"{statement.text[: place.start]}({clause}){statement.text[place.end :]}"
    [declared] = parse(text)
    assert isinstance(declared, CreateModel)
    return with_declared_inputs(session, declared)  # of the next relation


@runs(DropModel)
def drop(session: Session, statement: DropModel) -> Rows:
    """Remove a model with its versions."""
    name = str(statement.model)
    if not session.catalog.drop_model(name):
        if not statement.if_exists:
            known = session.catalog.names()
            raise ProgrammingError(
                f'there is no model "{name}"', place=statement.model.place, hint=suggest(name, known)
            )
        return message_rows(session, f"there is no model {name}")
    return message_rows(session, f"model {name} dropped")


@runs(RenameModel)
def rename(session: Session, statement: RenameModel) -> Rows:
    """Give a model another name; its versions and runs go along."""
    old, new = session.models.find(statement.model).name, str(statement.new)
    if session.catalog.find(new) is not None and new.lower() != old.lower():
        raise ProgrammingError(f'model "{new}" exists', place=statement.new.place)
    session.catalog.rename_model(old, new)
    return message_rows(session, f"model {old} is now {new}")


@runs(RollbackModel)
def rollback(session: Session, statement: RollbackModel) -> Rows:
    """Make an earlier version the current one: PREDICT uses it, and TRAIN goes on from it."""
    name = session.models.find(statement.model).name
    session.models.version(statement.model, statement.version)
    session.catalog.use_version(name, statement.version)
    return message_rows(session, f"model {name} is at version {statement.version}")
