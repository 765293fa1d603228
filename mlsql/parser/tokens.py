"""Text to tokens. Every token knows its exact place, and a script is cut into statements at ``;``.

sqlglot's tokenizer for DuckDB does the work, with two things taken out of it: words such as EXPLAIN, after which it
reads no further, and the marks of a template language, which SQL does not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlglot import Dialect
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import TokenError
from sqlglot.tokens import Token as SqlToken
from sqlglot.tokens import TokenType

from ..errors import Place, ProgrammingError


def words(text: str) -> frozenset[str]:
    """A set of words, written as a text."""
    return frozenset(text.split())


# The words that DuckDB does not allow as a bare name.
RESERVED = words(
    """ALL ANALYSE ANALYZE AND ANY ARRAY AS ASC ASYMMETRIC BOTH CASE CAST CHECK COLLATE COLUMN CONSTRAINT CREATE
    DEFAULT DEFERRABLE DESC DESCRIBE DISTINCT DO ELSE END EXCEPT FALSE FETCH FOR FOREIGN FROM GROUP HAVING IN INITIALLY
    INTERSECT INTO LAMBDA LATERAL LEADING LIMIT NOT NULL OFFSET ON ONLY OR ORDER PIVOT PIVOT_LONGER PIVOT_WIDER PLACING
    PRIMARY QUALIFY REFERENCES RETURNING SELECT SHOW SOME SUMMARIZE SYMMETRIC TABLE THEN TO TRAILING TRUE UNION UNIQUE
    UNPIVOT USING VARIADIC WHEN WHERE WINDOW WITH"""
)
OPENING = {"(": ")", "[": "]", "{": "}"}
CLOSING = frozenset(OPENING.values())


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a quoted name, a number, a string, a placeholder or a symbol, at ``start`` up to but not ``end``.

    ``text`` is without quotes; ``word`` is the upper-case text of a bare word and empty for all else. A placeholder's
    ``text`` is its number or name; it is empty for ``?``.
    """

    kind: str
    text: str
    word: str
    start: int
    end: int
    raw: Any

    def is_symbol(self, *symbols: str) -> bool:
        return self.kind == "symbol" and self.text in symbols

    @property
    def is_name(self) -> bool:
        """Whether it can be the name of something."""
        return self.kind == "name" or (self.kind == "word" and self.word not in RESERVED and " " not in self.word)

    def place(self, text: str) -> Place:
        return Place(text, self.start, self.end)


@cache
def dialect() -> Any:
    """DuckDB's dialect, except that an index in ``a[1]`` stays as written."""
    duckdb = Dialect.get_or_raise("duckdb")
    duckdb.INDEX_OFFSET = 0
    return duckdb


@cache
def _tokenizer() -> type[DuckDB.Tokenizer]:
    base = DuckDB.Tokenizer

    class Tokenizer(base):  # type: ignore[misc, valid-type]
        KEYWORDS = {  # noqa: RUF012
            word: kind
            for word, kind in base.KEYWORDS.items()
            if kind not in base.COMMANDS and word[0] not in "{%" and not word.endswith(("}", "%}")) and word != "/*+"
        }
        COMMANDS: set[TokenType] = set()  # noqa: RUF012

    Tokenizer._COMMENTS.pop("{#", None)
    return Tokenizer


_WORD = re.compile(r"[^\W\d][\w$ ]*\Z")
_KINDS = {
    TokenType.IDENTIFIER: "name",
    TokenType.NUMBER: "number",
    TokenType.STRING: "string",
    TokenType.HEREDOC_STRING: "string",
    TokenType.BYTE_STRING: "string",
    TokenType.NATIONAL_STRING: "string",
    TokenType.RAW_STRING: "string",
    TokenType.HEX_STRING: "string",
    TokenType.BIT_STRING: "string",
    TokenType.UNICODE_STRING: "string",
}


def tokenize(text: str) -> list[Token]:
    """The tokens of a text; comments are none. A text that cannot be cut into tokens is a ProgrammingError."""
    try:
        raw = _tokenizer()(dialect=dialect()).tokenize(text)
    except TokenError as error:
        raise ProgrammingError("a quote or a comment is not closed", place=Place(text, 0, len(text))) from error
    return list(_with_placeholders(raw))


def _with_placeholders(raw: list[SqlToken]) -> Iterator[Token]:
    """Our tokens for sqlglot's; the two tokens of ``$1``, ``$name`` and ``?1`` become one."""
    i = 0
    while i < len(raw):
        first, then = raw[i], raw[i + 1] if i + 1 < len(raw) else None
        i += 1
        kind = _KINDS.get(first.token_type, "")
        marks = not kind and (first.text == "$" or first.text == "?")
        if marks and then is not None and _names_placeholder(first, then):
            yield Token("placeholder", then.text.lower(), "", first.start, then.end + 1, first)
            i += 1
        elif marks and first.text == "?":
            yield Token("placeholder", "", "", first.start, first.end + 1, first)
        else:
            is_word = not kind and _WORD.match(first.text) is not None
            word = first.text.upper() if is_word else ""
            kind = kind or ("word" if is_word else "symbol")
            yield Token(kind, first.text, word, first.start, first.end + 1, first)


def _names_placeholder(mark: SqlToken, token: SqlToken) -> bool:
    if mark.text == "?":
        return token.token_type == TokenType.NUMBER and token.start == mark.end + 1 and token.text.isdigit()
    return token.token_type in (TokenType.NUMBER, TokenType.IDENTIFIER) or _WORD.match(token.text) is not None


def split(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """The tokens of each statement, cut at ``;``; empty statements are left out."""
    statement: list[Token] = []
    for token in tokens:
        if not token.is_symbol(";"):
            statement.append(token)
        elif statement:
            yield statement
            statement = []
    if statement:
        yield statement


def depths(tokens: Sequence[Token]) -> Iterator[tuple[int, Token]]:
    """Each token with the number of brackets it stands in; a bracket counts as outside of itself."""
    depth = 0
    for token in tokens:
        depth -= token.is_symbol(*CLOSING)
        yield depth, token
        depth += token.is_symbol(*OPENING)


def closing(tokens: Sequence[Token], opening: int) -> int | None:
    """The position of the bracket that closes the one at ``opening``."""
    depth = 0
    for i in range(opening, len(tokens)):
        depth += tokens[i].is_symbol(*OPENING) - tokens[i].is_symbol(*CLOSING)
        if depth == 0:
            return i
    return None


def commas(tokens: Sequence[Token]) -> list[list[Token]]:
    """The tokens between commas that stand outside of every bracket. No tokens are no parts."""
    parts: list[list[Token]] = [[]]
    for depth, token in depths(tokens):
        if depth == 0 and token.is_symbol(","):
            parts.append([])
        else:
            parts[-1].append(token)
    return parts if tokens else []


def ends_operand(tokens: Sequence[Token], i: int) -> bool:
    """Whether an expression can end with token ``i``, so that an operator or a clause can follow."""
    token = tokens[i]
    if token.kind == "symbol":
        star = token.text == "*" and (i == 0 or not ends_operand(tokens, i - 1))
        return star or token.text in CLOSING
    return token.kind != "word" or token.is_name or token.word in ("END", "NULL", "TRUE", "FALSE")


def starts_operand(token: Token) -> bool:
    """Whether an expression can begin with this token."""
    if token.kind == "symbol":
        return token.text in ("(", "[", "{", "-", "+")
    return token.kind != "word" or token.is_name or token.word in ("CASE", "CAST", "NOT", "NULL", "TRUE", "FALSE")


def is_complete(text: str) -> bool:
    """Whether the text ends with a ``;`` that stands outside of quotes and comments: a shell need not ask for more."""
    try:
        tokens = tokenize(text)
    except ProgrammingError:
        return False
    return bool(tokens) and tokens[-1].is_symbol(";")
