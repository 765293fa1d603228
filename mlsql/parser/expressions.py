"""Expressions and selects of the model language: tokens in, sqlglot's tree out.

What a reader of the trees must know:

- **Places.** ``meta["start"]`` and ``meta["end"]`` (the last character itself) are offsets into the text that was
  given to ``parse``. Names, literals, ``*`` and calls (the function's name) have them; an operator has none of its
  own, and :func:`node_place` gives the span of what stands below it.
- **Calls.** Every function call is ``exp.Anonymous`` with ``this`` as written, its arguments in ``expressions``, and
  named arguments as ``exp.Kwarg`` (``k => 3``, and ``UNKNOWN MEAN``) or ``exp.PropertyEQ`` (``k := 3``). So are
  ``COUNT(*)`` (an ``exp.Star``) and ``FEATURES(* EXCLUDE (id))`` (the star's ``except_``). Only what has a syntax of
  its own is sqlglot's typed node: CAST, TRY_CAST, CASE, EXTRACT, EXISTS, and the words of ``_OWN_SYNTAX``.
- **Products.** ``a @ b`` is ``exp.Distance``, at the precedence of ``*`` and from left to right.
- **Powers.** As in DuckDB ``-x ** 2`` is ``(-x) ** 2`` and ``a ** b ** c`` is ``(a ** b) ** c``.
- **Indexes.** ``a[1]`` is ``exp.Bracket`` over the literal 1, ``a[i]`` over a column and ``a[-1]`` over
  ``exp.Neg`` of 1: as written, counted from 1. ``a[1:3]`` is a Bracket over ``exp.Slice`` with ``this`` 1 and
  ``expression`` 3, either of which is missing in ``a[:3]`` and ``a[1:]``. ``a[1, 2]`` has two expressions. A tree
  that is written out again needs ``tree.sql(dialect())`` with the ``dialect`` of ``tokens.py``: ``tree.sql("duckdb")``
  would add 1 to every index.
- **Placeholders** are gone: literals stand where they stood. A negative number is ``exp.Paren`` of ``exp.Neg``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlglot import exp
from sqlglot.errors import ParseError
from sqlglot.tokens import Token as SqlToken
from sqlglot.tokens import TokenType

from ..errors import NotSupportedError, Place, ProgrammingError, suggest
from .placeholders import Parameters
from .statements import Expression
from .tokens import CLOSING, OPENING, Token, dialect, ends_operand, words

_MARK = "mlsql_call_"
_OWN_SYNTAX = words(
    """CAST TRY_CAST EXTRACT POSITION SUBSTRING TRIM OVERLAY EXCLUDE RENAME MATERIALIZED GROUP GROUPING BY SETS SAMPLE
    SIMILAR RESPECT OVER"""
)


def parse_expression(text: str, tokens: Sequence[Token], parameters: Parameters, clauses: Sequence[str]) -> Expression:
    """One expression. ``clauses`` are the words that may follow it: a misspelt one is recognised among them."""
    place = Place(text, tokens[0].start, tokens[-1].end)
    select = SqlToken(TokenType.SELECT, "SELECT", 1, 1, place.start, place.start, [])
    tree = _parse(text, [select, *_sql_tokens(text, tokens, parameters)], tokens, clauses)
    found = tree.expressions
    alias = found[0].args.get("alias") if found and isinstance(found[0], exp.Alias) else None
    if alias is not None:
        culprit = node_place(alias, text) or place
        raise ProgrammingError(
            f'unexpected "{culprit.source}"', place=culprit, hint=suggest(culprit.source, _words(clauses))
        )
    extra = [k for k, v in tree.args.items() if v and k not in ("expressions", "kind")]
    if len(found) != 1 or extra:
        raise ProgrammingError("expected a single expression", place=place)
    return Expression(found[0].pop(), place)


def parse_select(text: str, tokens: Sequence[Token], parameters: Parameters, clauses: Sequence[str]) -> Expression:
    """One SELECT, with or without WITH."""
    place = Place(text, tokens[0].start, tokens[-1].end)
    tree = _parse(text, _sql_tokens(text, tokens, parameters), tokens, clauses)
    if not isinstance(tree, exp.Query):
        raise ProgrammingError("expected a SELECT", place=place)
    return Expression(tree, place)


def node_place(node: exp.Expression, text: str) -> Place | None:
    """Where a node of a tree stands, with all that stands below it."""
    known = [n.meta for n in node.walk() if "start" in n.meta]
    if not known:
        return None
    start, end = min(m["start"] for m in known), max(m["end"] for m in known) + 1
    for bracket in re.finditer(r"\s*[)\]]", text[end:]):
        inside = text[start:end]
        opened = sum(inside.count(c) for c in "([") - sum(inside.count(c) for c in ")]")
        if opened <= 0 or text[end : end + len(bracket[0])] != bracket[0]:
            break
        end += len(bracket[0])
    return Place(text, start, end)


def check_brackets(text: str, tokens: Sequence[Token]) -> None:
    """Every bracket must be closed by its like."""
    open_: list[Token] = []
    for token in tokens:
        if token.is_symbol(*OPENING):
            open_.append(token)
        elif token.is_symbol(*CLOSING) and (not open_ or OPENING[open_.pop().text] != token.text):
            raise ProgrammingError(f'this "{token.text}" closes nothing', place=token.place(text))
    if open_:
        raise ProgrammingError(f'this "{open_[-1].text}" is never closed', place=open_[-1].place(text))


def _sql_tokens(text: str, tokens: Sequence[Token], parameters: Parameters) -> list[SqlToken]:
    """What sqlglot gets to read: placeholders are literals, calls are marked, ``@`` is its ``<->``."""
    found: list[SqlToken] = []
    for i, token in enumerate(tokens):
        after = tokens[i + 1] if i + 1 < len(tokens) else None
        _check_commas(text, token, after)
        raw = token.raw
        kind, word = raw.token_type, raw.text
        if token.kind == "placeholder":
            found += parameters.expand(text, token)
            continue
        if token.is_symbol("<->"):
            raise NotSupportedError(
                '"<->" is not an operator of models', place=token.place(text), hint="write NORM(a - b)"
            )
        if token.is_symbol("@"):
            if i == 0 or not ends_operand(tokens, i - 1):
                raise ProgrammingError('"@" needs an expression on its left', place=token.place(text))
            kind, word = TokenType.LR_ARROW, "<->"
        elif _is_named_word(tokens, i):
            found.append(SqlToken(kind, word, 1, 1, token.start, token.end - 1, []))
            kind, word = TokenType.FARROW, "=>"
        elif kind == TokenType.VAR and after and after.is_symbol("(") and token.word not in _OWN_SYNTAX:
            word = _MARK + word
        found.append(SqlToken(kind, word, 1, 1, token.start, token.end - 1, []))
    return found


def _is_named_word(tokens: Sequence[Token], i: int) -> bool:
    """Whether this is the UNKNOWN of ``EMBED(key, 32, UNKNOWN MEAN)``: an argument by name, without an arrow."""
    return (
        tokens[i].word == "UNKNOWN"
        and 0 < i < len(tokens) - 2
        and tokens[i - 1].is_symbol(",")
        and tokens[i + 1].kind == "word"
        and tokens[i + 2].is_symbol(",", ")")
    )


def _check_commas(text: str, token: Token, after: Token | None) -> None:
    """sqlglot overlooks a comma with nothing on one side and an AS without a name; we do not."""
    place = token.place(text)
    if after and token.is_symbol(",", "(") and after.is_symbol(","):
        raise ProgrammingError("something is missing before this comma", place=after.place(text))
    if token.is_symbol(",") and (after is None or after.is_symbol(*CLOSING)):
        raise ProgrammingError("something is missing after this comma", place=place)
    if token.word == "AS" and (after is None or after.is_symbol(",", ")")):
        raise ProgrammingError("a name is missing after AS", place=place)


def _parse(text: str, sql: list[SqlToken], tokens: Sequence[Token], clauses: Sequence[str]) -> exp.Expression:
    """sqlglot's tree. Its tokens are numbered by line, so that an error leads back to the token it is about."""
    numbered = [SqlToken(t.token_type, t.text, i + 2, 1, t.start, t.end, []) for i, t in enumerate(sql)]
    try:
        trees = dialect().parser().parse(numbered, text)
    except ParseError as error:
        raise _explained(text, numbered, error, clauses) from None
    except RecursionError:
        place = Place(text, tokens[0].start, tokens[-1].end)
        raise ProgrammingError("this is nested too deeply", place=place) from None
    except Exception as error:  # what sqlglot raises beside ParseError is still about this text
        raise ProgrammingError(
            "this cannot be read", place=Place(text, tokens[0].start, tokens[-1].end), hint=str(error)[:200]
        ) from error
    if len(trees) != 1 or trees[0] is None:
        raise ProgrammingError("expected an expression", place=Place(text, tokens[0].start, tokens[-1].end))
    tree: exp.Expression = trees[0]
    _unmark(tree)
    return tree


def _unmark(tree: exp.Expression) -> None:
    """Give every function back its name."""
    for node in tree.walk():
        for key, value in node.args.items():
            if isinstance(value, str) and value[: len(_MARK)].lower() == _MARK:
                node.args[key] = value[len(_MARK) :]


def _explained(text: str, sql: Sequence[SqlToken], error: ParseError, clauses: Sequence[str]) -> ProgrammingError:
    """sqlglot's complaint in plain words, at the place in the text, with the clause word that may have been meant."""
    first = error.errors[0] if error.errors else {}
    index = (first.get("line") or 0) - 2
    index = index if 0 <= index < len(sql) else len(sql) - 1
    culprit = sql[index]
    place = Place(text, culprit.start, culprit.end + 1)
    for token in sql[max(0, index - 1) : index + 1]:  # `MINIMISE e`: the word is read as an alias, `e` is the surprise
        at = Place(text, token.start, token.end + 1)
        hint = suggest(at.source, _words(clauses))
        if hint and token.token_type == TokenType.VAR and at.source.upper() not in _words(clauses):
            return ProgrammingError(f'unexpected "{at.source}"', place=at, hint=hint)
    return ProgrammingError(_plain(first.get("description") or "", place.source), place=place)


def _plain(description: str, source: str) -> str:
    if "missing for" in description:
        return f'something is missing beside "{source}"'
    if not description or "Unexpected token" in description:
        return f'unexpected "{source}"'
    expected = re.sub(r"^Expect(ing|ed) ", "", re.sub(r"\s*(but got.*|<.*)", "", description, flags=re.DOTALL))
    return f'expected {expected} at "{source}"' if expected != description else f'{description} at "{source}"'


def _words(clauses: Sequence[str]) -> list[str]:
    return [word for clause in clauses for word in clause.split()[:1]]
