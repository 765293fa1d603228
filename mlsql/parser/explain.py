"""EXPLAIN: of a statement of ours, of a query with PREDICT, or with options of ours. All else is DuckDB's."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import suggest
from .misspelt import check_spelling, misspelt
from .predict import passed_on, predict_calls
from .reader import Reader
from .statements import Explain, ExplainGradient, ExplainRule, Option, Statement
from .table import find, statement
from .tokens import Token, closing, commas

SIDES = ("PHYSICAL", "LOGICAL", "STEPS", "ALTERNATIVES", "CODE", "MEMORY")  # of a plan
OPTIONS = (*SIDES, "WITHOUT")
LOOKING = ("DESCRIBE", "DESC", "SHOW", "SET")  # what DuckDB explains, or refuses to, is its own
DUCKDB_OPTIONS = ("ANALYZE", "FORMAT")
QUERIES = ("SELECT", "WITH", "FROM", "VALUES", "TABLE")


def _explains_ours(tokens: Sequence[Token]) -> bool:
    options, start = _options(tokens)
    inner = tokens[start:]
    asked = [part[0] for part in options if part]
    ours = any(t.word in OPTIONS or (t.word not in DUCKDB_OPTIONS and suggest(t.text, OPTIONS)) for t in asked)
    if not inner:
        return False
    known = inner[0].word not in LOOKING and find(inner) is not None
    return ours or known or bool(predict_calls(inner)) or misspelt(inner) is not None


def _options(tokens: Sequence[Token]) -> tuple[list[list[Token]], int]:
    """The tokens of each option in brackets, and where the statement to explain begins."""
    start = 2 if len(tokens) > 1 and tokens[1].word in ("ANALYZE", "ANALYSE") else 1
    has_options = len(tokens) > start + 1 and tokens[start].is_symbol("(") and tokens[start + 1].kind == "word"
    end = closing(tokens, start) if has_options and tokens[start + 1].word not in QUERIES else None
    return (commas(tokens[start + 1 : end]), end + 1) if end is not None else ([], start)


@statement("EXPLAIN", claims=_explains_ours)
def explain(read: Reader) -> Explain:
    """``EXPLAIN [ANALYZE] [(option [value], ...)] statement``."""
    place = read.span(read.tokens)
    _, start = _options(read.tokens)
    read.expect("EXPLAIN")
    analyze = read.accept("ANALYZE") or read.accept("ANALYSE")
    options = [_option(part) for part in read.groups()] if read.position < start else []
    analyze = analyze or any(o.name == "ANALYZE" and o.value is not False for o in options)
    options = [o for o in options if o.name != "ANALYZE"]
    return Explain(_explained(read), tuple(options), analyze, place)


@statement("EXPLAIN GRADIENT")
def explain_gradient(read: Reader) -> ExplainGradient:
    """``EXPLAIN GRADIENT model``."""
    read.expect("EXPLAIN GRADIENT")
    model = read.name()
    read.expect_end()
    return ExplainGradient(model)


@statement("EXPLAIN RULE", claims=lambda tokens: len(tokens) == 3)
def explain_rule(read: Reader) -> ExplainRule:
    """``EXPLAIN RULE name``."""
    read.expect("EXPLAIN RULE")
    rule = read.name("a rule's name")
    read.expect_end()
    return ExplainRule(rule)


def _option(read: Reader) -> Option:
    """``STEPS``, ``FORMAT json`` or ``WITHOUT (rule, ...)``. Names are in upper case; a bare option is True."""
    if read.next is None or read.next.kind != "word":
        read.unexpected("an option's name")
    name, place = read.next.word, read.here
    read.step()
    if read.next is None:
        return Option(name, True, place, place)
    read.accept("=")
    start = read.position
    value = read.value()
    read.expect_end()
    return Option(name, value, place, read.since(start))


def _explained(read: Reader) -> Statement:
    """The statement that is explained: one of ours, or DuckDB's with its calls of PREDICT."""
    inner = read.rest()
    check_spelling(read.text, inner)
    parse = find(inner)
    if parse is not None:
        return parse(read.inside(inner))
    return passed_on(read.text, inner, read.given, read.parameters)
