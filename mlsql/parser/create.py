"""CREATE, DROP and ALTER MODEL."""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

from ..errors import Place
from .columns import column, parameter
from .reader import Reader
from .statements import (
    ColumnDeclaration,
    CreateModel,
    DropModel,
    ParameterDeclaration,
    Query,
    RenameModel,
    RollbackModel,
)
from .table import statement

CLAUSES = ("PARAMETERS", "INPUT", "TARGET")  # in any order


@statement("CREATE MODEL", "CREATE OR REPLACE MODEL")
def create_model(read: Reader) -> CreateModel:
    """``CREATE [OR REPLACE] MODEL [IF NOT EXISTS] name [PARAMETERS] [INPUT] [TARGET] AS select [MINIMIZE]``."""
    read.expect("CREATE")
    or_replace = read.accept("OR REPLACE")
    read.expect("MODEL")
    if_not_exists = read.accept("IF NOT EXISTS")
    model = read.name()
    parameters: tuple[ParameterDeclaration, ...] = ()
    inputs: tuple[ColumnDeclaration, ...] = ()
    target: tuple[ColumnDeclaration, ...] = ()
    input_from = input_span = None
    seen: set[str] = set()
    while clause := next((c for c in CLAUSES if c not in seen and read.at(c)), None):
        seen.add(clause)
        if clause == "PARAMETERS":
            parameters = _parameters(read)
        elif clause == "INPUT":
            inputs, input_from, input_span = _input(read)
        else:
            target = _columns(read, "TARGET")
    if not read.accept("AS"):
        _wrong_clause(read)
    select = read.select(("MINIMIZE",), read.at_minimize)
    minimize = read.expression((), lambda: False) if read.accept("MINIMIZE") else None
    read.expect_end()
    return CreateModel(
        model,
        or_replace,
        if_not_exists,
        parameters,
        inputs,
        input_from,
        target,
        select,
        minimize,
        text=_literal(read, read.span(read.tokens)),
        input_from_place=_in_literal_text(read, input_span) if input_span else None,
    )


@statement("DROP MODEL")
def drop_model(read: Reader) -> DropModel:
    """``DROP MODEL [IF EXISTS] name``."""
    read.expect("DROP MODEL")
    if_exists = read.accept("IF EXISTS")
    model = read.name()
    read.expect_end()
    return DropModel(model, if_exists)


@statement("ALTER MODEL")
def alter_model(read: Reader) -> RenameModel | RollbackModel:
    """``ALTER MODEL a RENAME TO b``, ``ALTER MODEL a ROLLBACK TO VERSION n``."""
    read.expect("ALTER MODEL")
    model = read.name()
    if read.accept("RENAME TO"):
        changed: RenameModel | RollbackModel = RenameModel(model, read.name())
    elif read.accept("ROLLBACK TO VERSION"):
        changed = RollbackModel(model, read.whole_number("a version's number"))
    else:
        read.unexpected()
    read.expect_end()
    return changed


def _parameters(read: Reader) -> tuple[ParameterDeclaration, ...]:
    return tuple(parameter(part) for part in read.groups()) if read.accept("PARAMETERS") else ()


def _input(read: Reader) -> tuple[tuple[ColumnDeclaration, ...], Query | None, Place | None]:
    """The INPUT clause: columns, and the first query to take them from, with the span of its ``FROM query``.

    A query carries the name of its relation; the ones behind it are found once its columns stand in its place.
    """
    if not read.at("INPUT FROM"):
        return _columns(read, "INPUT"), *_first_from(read)
    read.step()
    start = read.position
    read.step()
    return (), read.query(), read.since(start)


def _first_from(read: Reader) -> tuple[Query | None, Place | None]:
    """The first ``relation FROM query`` of an INPUT clause that has been read."""
    start = next(i for i, t in enumerate(read.tokens) if t.word == "INPUT")
    look = read.inside(read.tokens[: read.position])
    look.step(start + 1)
    while look.next is not None:
        relation = look.identifier("a relation's name") if look.next.is_name else ""
        begin = look.position
        if look.accept("FROM"):
            return replace(look.query(), name=relation), look.since(begin)
        look.group()
        look.accept(",")
    return None, None


def _columns(read: Reader, clause: str) -> tuple[ColumnDeclaration, ...]:
    """``clause (name TYPE, ...)`` or ``clause relation (name TYPE, ...), ...``; nothing if it is not there."""
    if not read.accept(clause):
        return ()
    if not _at_relation(read):
        if clause == "INPUT":
            read.at("FROM")
        return tuple(column(part) for part in read.groups())
    found: list[ColumnDeclaration] = []
    seen: set[str] = set()
    while True:
        place = read.here
        relation = read.identifier("a relation's name")
        if relation.lower() in seen:
            read.fail(f'{clause} has the relation "{relation}" twice', place)
        seen.add(relation.lower())
        if read.accept("FROM"):
            read.query()
        else:
            found += [replace(column(part), relation=relation) for part in read.groups()]
        if not read.accept(","):
            return tuple(found)


def _at_relation(read: Reader) -> bool:
    """Whether a relation is declared here by name: ``nodes (...)`` or ``nodes FROM table``."""
    after = read.tokens[read.position + 1 : read.position + 2]
    has_columns = bool(after) and (after[0].is_symbol("(") or after[0].word == "FROM")
    return read.next is not None and read.next.is_name and has_columns


def _wrong_clause(read: Reader) -> NoReturn:
    """No AS where one should be: a clause twice, or misspelt."""
    for clause in CLAUSES:
        if read.at(clause):
            read.fail(f"{clause} stands twice")
    read.unexpected()


def _literal(read: Reader, place: Place) -> str:
    """A part of the statement with its placeholders replaced by what they stand for."""
    return read.parameters.literal(read.text, place.start, place.end, read.tokens)


def _in_literal_text(read: Reader, place: Place) -> Place:
    """Where a part of the statement stands in the statement's text with literals."""
    whole = read.span(read.tokens)
    before = _literal(read, Place(read.text, whole.start, place.start))
    return Place(_literal(read, whole), len(before), len(before) + len(_literal(read, place)))
