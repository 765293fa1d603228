"""A script to statements, one after another. What is not ours goes on to DuckDB word for word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..errors import Place, ProgrammingError
from . import create, evaluate, explain, later, look, train  # noqa: F401  (each enters its statements in the table)
from .expressions import check_brackets, parse_expression
from .misspelt import DUCKDB, check_spelling, misspelt
from .placeholders import Given, Parameters
from .predict import passed_on, predict_calls
from .reader import Reader
from .statements import Expression, SelectSql, Statement
from .table import find
from .tokens import Token, tokenize
from .tokens import split as cut


def parse(text: str, parameters: Given = None) -> list[Statement]:
    """The statements of a text. Parameters belong to the last one, as in DuckDB.

    A text in which nothing is ours is one :class:`SelectSql` with all of it, so that DuckDB behaves exactly as itself.
    """
    return list(split(text, parameters))


def split(text: str, parameters: Given = None, *, apart: bool = False) -> Iterator[Statement]:
    """The statements of a text, each read when it is asked for: an error in the third leaves two to be run.

    With ``apart`` statements of DuckDB's come one by one too, so that a shell can show the rows of each.
    """
    parts = _parts(text, apart)
    if not parts:
        yield SelectSql(text, values=parameters, place=Place(text, 0, len(text)))
    for i, part in enumerate(parts):
        yield _statement(text, part, parameters if i == len(parts) - 1 else None)


def expression(text: str) -> Expression:
    """An expression of the model language that stands by itself, such as the body of a layer."""
    tokens = tokenize(text)
    return parse_expression(text, tokens, Parameters(text, tokens, None), ())


def _parts(text: str, apart: bool) -> list[list[Token]]:
    """The tokens of each statement; none if nothing in the text is ours, unless all are to come apart."""
    if not apart and _is_plainly_duckdb(text):
        return []
    try:
        parts = list(cut(tokenize(text)))
    except ProgrammingError:  # DuckDB says what is wrong with its quotes
        return []
    return parts if apart or any(_is_ours(part) for part in parts) else []


def _is_ours(tokens: Sequence[Token]) -> bool:
    return find(tokens) is not None or bool(predict_calls(tokens)) or misspelt(tokens) is not None


def _statement(text: str, tokens: Sequence[Token], given: Given) -> Statement:
    check_spelling(text, tokens)
    parse_one = find(tokens)
    if parse_one is None:
        return passed_on(text, tokens, given)
    check_brackets(text, tokens)
    return parse_one(Reader(text, tokens, Parameters(text, tokens, given), given))


_LEAD = re.compile(r"(?:\A|;)(?:\s|--[^\n]*|/\*.*?\*/|;)*+(\w+|.|\Z)", re.DOTALL)
_PREDICT = re.compile(r"\bPREDICT\b", re.IGNORECASE)
_PLAIN = (DUCKDB - {"CREATE", "DROP", "ALTER", "EXPLAIN", "DESCRIBE", "DESC", "SHOW", "SET"}) | {"(", ""}


def _is_plainly_duckdb(text: str) -> bool:
    """A quick look that spares a long INSERT the reading: whether nothing can be ours, quotes aside."""
    return _PREDICT.search(text) is None and all(lead.upper() in _PLAIN for lead in _LEAD.findall(text))
