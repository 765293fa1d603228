"""Statements of DuckDB's, with PREDICT in them or without, and the options of the session."""

from __future__ import annotations

import re

from ..errors import Error, NotSupportedError, ProgrammingError, listed, suggest
from ..executor.results import Rows
from ..parser import parse
from ..parser.statements import Query, SelectSql, SetOption
from .core import Session, runs
from .rows import message_rows
from .rules import keep_rules


@runs(SelectSql)
def select(session: Session, statement: SelectSql) -> Rows:
    """DuckDB runs the statement, verbatim but for its PREDICT calls."""
    refuse_stored(statement)
    keep_rules(session, statement.text)
    text = lowered(session, statement) if statement.predicts else statement.text
    try:
        return session.storage.run(text, statement.values)
    except Error as problem:
        if statement.predicts:  # DuckDB draws the text it was given, which the caller never saw
            problem.message = problem.message.partition("\n\nLINE ")[0].rstrip()
        raise


def lowered(session: Session, statement: SelectSql) -> str:
    """The text that DuckDB runs for a statement with PREDICT calls. What writes it is loaded when there is a call."""
    from .query.plan import rewritten

    return rewritten(session, statement)


STORED = re.compile(r"\s*(CREATE\b[^(]*?\b(VIEW|MACRO|FUNCTION)\b|PREPARE\b)", re.IGNORECASE)


def refuse_stored(statement: SelectSql) -> None:
    """A call that DuckDB would keep for later would go on with a version that may be gone by then."""
    found = STORED.match(statement.text) if statement.predicts else None
    if found is not None:
        word = (found[2] or "PREPARE").upper()
        raise NotSupportedError(
            f"PREDICT cannot stand in {word}: it would stay at today's version of the model",
            place=statement.predicts[0].place,
            hint="CREATE TABLE ... AS SELECT PREDICT(...) keeps the rows",
        )


def without_predict(session: Session, query: Query) -> Query:
    """A query that TRAIN or EVALUATE reads, with the PREDICT calls in it rewritten."""
    if "predict" not in query.text.lower():
        return query
    [statement] = parse(f"FROM {query.text}", dict(query.values))
    assert isinstance(statement, SelectSql)
    if not statement.predicts:
        return query
    text = lowered(session, statement)
    return Query(text.partition("FROM")[2], query.place, statement.values)


SWITCHES = {"mlsql_null_prediction": "null_prediction", "mlsql_optimizer": "optimizer"}  # and where the session has it
CHOICES = {  # and what the session may have there
    "mlsql_compile": ("compile", ("auto", "always", "never")),
    "mlsql_blas": ("blas", ("auto", "openblas", "mkl")),
}
OPTIONS = ("mlsql_machine", *SWITCHES, *CHOICES)


@runs(SetOption)
def set_option(session: Session, statement: SetOption) -> Rows:
    """SET mlsql_...: options of this session."""
    name = statement.name.lower()
    if name == "mlsql_machine":
        return set_machine(session, statement)
    if name in CHOICES:
        attribute, choices = CHOICES[name]
        if statement.value not in choices:
            words = [f"'{c}'" for c in choices]
            raise ProgrammingError(f"{name} is {', '.join(words[:-1])} or {words[-1]}", place=statement.place)
        if statement.value == "mkl":
            from .blas import check_mkl

            check_mkl(statement.place)
        setattr(session, attribute, statement.value)
        return message_rows(session, f"{name} = {statement.value}")
    if name not in SWITCHES:
        hint = suggest(name, OPTIONS) or f"options are {listed(OPTIONS)}"
        raise ProgrammingError(f"unknown option {statement.name}", place=statement.place, hint=hint)
    if not isinstance(statement.value, bool):
        raise ProgrammingError(f"{name} is true or false", place=statement.place)
    setattr(session, SWITCHES[name], statement.value)
    return message_rows(session, f"{name} = {str(statement.value).lower()}")


def set_machine(session: Session, statement: SetOption) -> Rows:
    """SET mlsql_machine: whether plans are costed for this machine, or for an assumed one that is the same anywhere."""
    from .machine import CHOICES

    choice = str(statement.value).lower()
    if choice not in CHOICES:
        raise ProgrammingError("mlsql_machine is 'measured' or 'default'", place=statement.place)
    session.machine_choice = choice
    session.forget_machine()
    return message_rows(session, f"mlsql_machine = {choice}")
