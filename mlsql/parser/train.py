"""TRAIN: a loop of clauses, in any order, each once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from ..errors import Place
from .reader import Reader
from .statements import Expression, Name, Option, Query, Train
from .table import statement

CLAUSES = (
    "ON",
    "PER",
    "VALIDATE",
    "WEIGHT BY",
    "MINIMIZE",
    "WITH",
    "UNTIL",
    "WITHIN",
    "MEMORY",
    "SAMPLE",
    "FROM SCRATCH",
)


@statement("TRAIN")
def train(read: Reader) -> Train:
    """``TRAIN model [ON query]`` and clauses."""
    read.expect("TRAIN")
    if read.at("ON"):
        read.unsupported("TRAIN without a model's name is not in this version", hint="write TRAIN model ON ...")
    model = read.name()
    said: dict[str, Any] = {}
    while read.next is not None:
        clause = _next_clause(read, said)
        said[clause] = PARSERS[clause](read)
    solver, solver_place, options = said.get("WITH", (None, None, ()))
    on, *others = said.get("ON", (None,))
    validate, *validate_others = said.get("VALIDATE", (None,))
    memory, memory_place = said.get("MEMORY", (None, None))
    sample, sample_place = said.get("SAMPLE", ((), None))
    return Train(
        model,
        on=on,
        per=said.get("PER", ()),
        validate=validate,
        weight=said.get("WEIGHT BY"),
        minimize=said.get("MINIMIZE"),
        solver=solver,
        solver_place=solver_place,
        options=options,
        until=said.get("UNTIL"),
        within_seconds=said.get("WITHIN"),
        from_scratch=said.get("FROM SCRATCH", False),
        place=read.span(read.tokens),
        others=tuple(others),
        validate_others=tuple(validate_others),
        sample=sample,
        sample_place=sample_place,
        memory=memory,
        memory_place=memory_place,
    )


def option(read: Reader) -> Option:
    """``name = value``, all of what ``read`` holds. Names are in lower case."""
    name = read.identifier("an option's name").lower()
    name_place = read.since(0)
    read.expect("=")
    start = read.position
    value = read.value()
    read.expect_end()
    return Option(name, value, name_place, read.since(start))


def _next_clause(read: Reader, said: Iterable[str]) -> str:
    clause = next((clause for clause in CLAUSES if clause not in said and read.accept(clause)), None)
    if clause is None:
        _no_clause(read, said)
    return clause


def _no_clause(read: Reader, said: Iterable[str]) -> NoReturn:
    for clause in said:
        if read.sees(clause):
            read.fail(f"{clause} stands twice")
    read.unexpected()


def _at_clause(read: Reader) -> bool:
    """Whether a clause begins here; a column of the same name is followed by something else."""
    after = read.tokens[read.position + 1 : read.position + 2]
    kind, word = (after[0].kind, after[0].word) if after else ("", "")
    number = kind in ("number", "placeholder")
    return (
        read.at("WITH")
        or read.at("WEIGHT BY")
        or read.at("FROM SCRATCH")
        or read.at_minimize()
        or (read.at("PER") and bool(after) and after[0].is_symbol("("))
        or (read.at("VALIDATE") and (word == "ON" or number))
        or (read.at("UNTIL") and kind in ("word", "name"))
        or (read.at("WITHIN") and number)
        or (read.at("SAMPLE") and number)
        or (read.at("MEMORY") and kind == "string")
        or (read.at("ON") and bool(after))
    )


def _expression(read: Reader) -> Expression:
    return read.expression(CLAUSES, lambda: _at_clause(read))


def _validate(read: Reader) -> tuple[Query | float, ...]:
    """``ON query [AS relation], ...`` or ``20 PERCENT``."""
    if read.accept("ON"):
        return read.sources()
    place = read.here
    if read.next is None or read.next.kind not in ("number", "placeholder"):
        read.unexpected("ON or a percentage")
    percent = float(read.number("a percentage"))
    read.expect("PERCENT")
    if not 0 < percent < 100:
        read.fail("a percentage between 0 and 100 is needed", place)
    return (percent,)


def _sample(read: Reader) -> tuple[tuple[int, ...], Place]:
    """``10, 5``: how many rows of a group at most, a number a GROUP BY."""
    start = read.position
    counts: list[int] = []
    while not counts or read.accept(","):
        place = read.here
        counts.append(read.whole_number("a number of rows"))
        if not counts[-1]:
            read.fail("at least one row of a group is needed", place)
    return tuple(counts), read.since(start)


def _per(read: Reader) -> tuple[Name, ...]:
    """``(column, ...)``."""
    return tuple(_column(part) for part in read.groups())


def _column(read: Reader) -> Name:
    """A column's name, all of what ``read`` holds."""
    found = Name(read.identifier("a column's name"), read.since(0))
    read.expect_end()
    return found


def _with(read: Reader) -> tuple[str | None, Place | None, tuple[Option, ...]]:
    """``solver [(option = value, ...)]``, or options alone."""
    place = read.here
    if read.at("("):
        return None, None, tuple(option(part) for part in read.groups())
    solver = read.identifier("a solver").upper()
    options = tuple(option(part) for part in read.groups()) if read.at("(") else ()
    return solver, place, options


def _within(read: Reader) -> float:
    place = read.here
    seconds = float(read.number("a number of seconds"))
    if not read.accept("SECONDS") and not read.accept("SECOND"):
        read.unexpected()
    if seconds <= 0:
        read.fail("the time must be more than 0 seconds", place)
    return seconds


UNITS = {"": 1, "B": 1, **{f"{p}B": 1000**i for i, p in enumerate("KMGT", 1)}}
UNITS |= {f"{p}IB": 1024**i for i, p in enumerate("KMGT", 1)}
SIZE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*")


def _memory(read: Reader) -> tuple[int, Place]:
    """``'2GB'``: a size as DuckDB's memory_limit takes it, in bytes, and its place."""
    start, place = read.position, read.here
    text = str(read.value())
    found = SIZE.fullmatch(text)
    unit = UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or not float(found[1]):
        read.fail(f"{text!r} is no size", place, hint="for example MEMORY '2GB', '500MB' or '1.5GiB'")
    return int(float(found[1]) * unit), read.since(start)


PARSERS: dict[str, Callable[[Reader], Any]] = {
    "ON": lambda read: read.sources(),
    "PER": _per,
    "VALIDATE": _validate,
    "WEIGHT BY": _expression,
    "MINIMIZE": _expression,
    "WITH": _with,
    "UNTIL": _expression,
    "WITHIN": _within,
    "MEMORY": _memory,
    "SAMPLE": _sample,
    "FROM SCRATCH": lambda read: True,
}
