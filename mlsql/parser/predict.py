"""PREDICT calls inside statements of DuckDB's: where they stand and what they are given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..errors import Place
from .expressions import check_brackets
from .placeholders import Given, Parameters
from .reader import Reader
from .statements import Argument, PredictCall, SelectSql
from .tokens import CLOSING, OPENING, Token, closing, tokenize, words

# After these, `predict (` is the name of a table, an alias or the like.
_NAMING = words(
    """TABLE VIEW INTO MACRO FUNCTION EXISTS REFERENCES AS WITH RECURSIVE INDEX UPDATE COPY ANALYZE VACUUM TYPE"""
)
# Clauses that end a FROM clause. ON does not: a comma behind a join's condition goes on with FROM.
_NOT_FROM = words(
    """SELECT WHERE GROUP ORDER HAVING QUALIFY WINDOW LIMIT OFFSET SET VALUES RETURNING UNION INTERSECT EXCEPT"""
)
_FROM_INSIDE = frozenset(("EXTRACT", "SUBSTRING", "TRIM", "OVERLAY"))  # EXTRACT(year FROM d)


def passed_on(text: str, tokens: Sequence[Token], given: Given, parameters: Parameters | None = None) -> SelectSql:
    """A statement of DuckDB's. Its text is verbatim; with PREDICT placeholders are renamed and lines are kept.

    Places of calls refer to the text of the result, in which blanks stand for what precedes the statement.
    """
    place = Place(text, tokens[0].start, tokens[-1].end)
    if not predict_calls(tokens):
        return SelectSql(place.source, values=given, place=place)
    parameters = parameters or Parameters(text, tokens, given)
    blank = "\n" * (place.line - 1) + " " * (place.column - 1)
    renamed = blank + parameters.renamed(text, place.start, place.end, tokens)
    values = parameters.used(tokens)
    return SelectSql(renamed, tuple(_calls(renamed, values)), values, place)


def predict_calls(tokens: Sequence[Token]) -> list[int]:
    """The positions of the word PREDICT where it calls a model."""
    if [t.word for t in tokens[:3] if t.word != "UNIQUE"][:2] == ["CREATE", "INDEX"]:
        return []
    return [i for i, token in enumerate(tokens[:-1]) if token.word == "PREDICT" and _is_call(tokens, i)]


def _is_call(tokens: Sequence[Token], i: int) -> bool:
    if not tokens[i + 1].is_symbol("(") or (i and (tokens[i - 1].is_symbol(".") or tokens[i - 1].word in _NAMING)):
        return False
    end = closing(tokens, i + 1)
    behind = [] if end is None else [t.word or t.text for t in tokens[end + 1 : end + 3]]
    return behind not in (["AS", "("], ["AS", "MATERIALIZED"], ["AS", "NOT"])  # WITH a AS (...), predict(b) AS (...)


def _calls(text: str, values: dict[str, object]) -> Iterator[PredictCall]:
    tokens = tokenize(text)
    parameters = Parameters(text, tokens, values)
    tables, columns = _table_positions(tokens), _column_positions(tokens)
    for i in predict_calls(tokens):
        end = closing(tokens, i + 1)
        end = len(tokens) - 1 if end is None else end
        check_brackets(text, tokens)
        call = _call(Reader(text, tokens[i : end + 1], parameters), tokens[end + 1 : end + 3], i in tables)
        behind = tokens[end + 1 if call.output is None else end + 3 :][:1]
        is_column = i in columns and (not behind or _ends_column(behind[0]))
        yield replace(call, is_column=is_column)


def _call(read: Reader, behind: Sequence[Token], is_table: bool) -> PredictCall:
    """One call; ``behind`` are the two tokens after its bracket, in which ``.output`` may stand."""
    place = read.span(read.tokens)
    read.expect("PREDICT")
    first, *others = read.groups()
    model = first.name()
    version = first.whole_number("a version's number") if first.accept("VERSION") else None
    first.expect_end()
    arguments = tuple(_table(part) if is_table else _argument(part) for part in others)
    if is_table and not arguments:
        read.fail("PREDICT in FROM takes a model and a table or (query)", place)
    if not behind or not behind[0].is_symbol("."):
        return PredictCall(model, version, arguments, None, None, is_table, place)
    if is_table or len(behind) < 2 or behind[1].kind not in ("word", "name"):
        what = "PREDICT in FROM has no output to choose here" if is_table else "expected the name of an output"
        read.fail(what, read.span(behind), hint="choose columns in SELECT" if is_table else None)
    output = behind[1]
    whole = Place(read.text, place.start, output.end)
    return PredictCall(model, version, arguments, output.text, output.place(read.text), is_table, whole)


def _table(read: Reader) -> Argument:
    """``sql`` or ``sql AS name``, all of what ``read`` holds."""
    whole = read.span(read.tokens)
    if len(read.tokens) < 3 or read.tokens[-2].word != "AS":
        return _argument(read)
    read.step(len(read.tokens) - 1)
    name = read.identifier("a relation's name")
    return Argument(name, read.span(read.tokens[:-2]), whole)


def _argument(read: Reader) -> Argument:
    """``sql`` or ``name => sql``, all of what ``read`` holds."""
    if read.sees("VERSION") and [t.kind for t in read.tokens[1:]] == ["number"]:
        read.fail("the version stands behind the model's name", hint="write PREDICT(model VERSION 3, ...)")
    if len(read.tokens) < 2 or not read.tokens[1].is_symbol("=>", ":="):
        return Argument(None, read.span(read.tokens), read.span(read.tokens))
    whole = read.span(read.tokens)
    name = read.identifier("an input's name")
    read.step()
    if read.next is None:
        read.unexpected("a value")
    return Argument(name, read.span(read.rest()), whole)


def _column_positions(tokens: Sequence[Token]) -> set[int]:
    """The positions at which a column of a select begins."""
    found: set[int] = set()
    clauses = [""]  # of each open bracket: whether a list of columns is being read
    column_next = False
    for i, token in enumerate(tokens):
        if column_next:
            found.add(i)
        if token.is_symbol(*OPENING):
            clauses.append("")
        elif token.is_symbol(*CLOSING):
            clauses = clauses[:-1] or [""]
        elif token.word == "SELECT":
            clauses[-1] = "SELECT"
        elif _ends_select(token):
            clauses[-1] = ""
        column_next = clauses[-1] == "SELECT" and (token.word in ("SELECT", "DISTINCT", "ALL") or token.is_symbol(","))
    return found


def _ends_select(token: Token) -> bool:
    return token.word.partition(" ")[0] in _NOT_FROM | {"FROM", "INTO"}


def _ends_column(token: Token) -> bool:
    """Whether a column of a select ends before this token, rather than going on or being named."""
    return token.is_symbol(",", ";", *CLOSING) or _ends_select(token)


def _table_positions(tokens: Sequence[Token]) -> set[int]:
    """The positions at which a table stands: after FROM or JOIN, or after a comma of a FROM clause."""
    found: set[int] = set()
    clauses = [""]  # of each open bracket: FROM, or INSIDE where FROM is a function's own, or anything else
    table_next = False
    for i, token in enumerate(tokens):
        word = token.word.partition(" ")[0]
        before = tokens[i - 1].word if i else ""
        if table_next:
            found.add(i)
        if token.is_symbol(*OPENING):
            clauses.append("FROM" if table_next else "INSIDE" if before in _FROM_INSIDE else "")
            continue  # the bracket of a join in FROM: a table is still next
        if token.is_symbol(*CLOSING):
            clauses = clauses[:-1] or [""]
        elif (word == "FROM" and before != "DISTINCT" and clauses[-1] != "INSIDE") or word == "JOIN":
            clauses[-1] = "FROM"
        elif word in _NOT_FROM:
            clauses[-1] = ""
        starts = word in ("FROM", "JOIN", "LATERAL") or token.is_symbol(",")
        table_next = (starts and clauses[-1] == "FROM" and before != "DISTINCT") or word == "USING"
    return found
