"""Placeholders ``?``, ``$1`` and ``$name``: literals in our own words, renamed in SQL that goes on to DuckDB."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlglot import exp
from sqlglot.tokens import Token as SqlToken
from sqlglot.tokens import TokenType

from ..errors import Place, ProgrammingError, listed
from .tokens import Token

Given = Sequence[Any] | Mapping[str, Any] | None


class Parameters:
    """The values that one statement's placeholders stand for.

    ``?`` is numbered from 1 in the order of the text, so that every placeholder has a key: a number or a name.
    """

    def __init__(self, text: str, tokens: Sequence[Token], given: Given) -> None:
        self._keys = _keys(text, tokens)
        self._values = _by_key(given)
        self._check(text, tokens)

    def value(self, token: Token) -> Any:
        """What the caller gave for a placeholder; NumPy's numbers and arrays as Python's."""
        value = self._values[self._keys[token.start]]
        return value.tolist() if hasattr(value, "tolist") else value

    def name(self, token: Token) -> str:
        """What the placeholder is called in SQL for DuckDB, without the ``$``."""
        key = self._keys[token.start]
        return f"p{key}" if key.isdigit() else key

    def used(self, tokens: Iterable[Token]) -> dict[str, Any]:
        """Name and value of the placeholders among some tokens."""
        return {self.name(t): self._values[self._keys[t.start]] for t in tokens if t.kind == "placeholder"}

    def renamed(self, text: str, start: int, end: int, tokens: Iterable[Token]) -> str:
        """A part of the text with its placeholders renamed to ``$p1`` and so on."""
        return _replace(text, start, end, tokens, lambda token: _dollar(self.name(token)))

    def literal(self, text: str, start: int, end: int, tokens: Iterable[Token]) -> str:
        """A part of the text with its placeholders replaced by what they stand for."""
        return _replace(text, start, end, tokens, lambda token: _sql(self.value(token)))

    def expand(self, text: str, token: Token) -> list[SqlToken]:
        """The tokens of the literal that a placeholder stands for, all at the placeholder's place."""
        value = self.value(token)
        check_literal(value, token.place(text))
        return [SqlToken(kind, word, 1, 1, token.start, token.end - 1, []) for kind, word in _pieces(value)]

    def _check(self, text: str, tokens: Sequence[Token]) -> None:
        """Every placeholder needs a value and every value a placeholder, as in DuckDB."""
        for token in tokens:
            if token.kind == "placeholder" and self._keys[token.start] not in self._values:
                given = listed(self._values) if self._values else "no parameters at all"
                label = f"${token.text}" if token.text else f"placeholder {self._keys[token.start]}"
                raise ProgrammingError(
                    f"no value was given for {label}", place=token.place(text), hint=f"given: {given}"
                )
        excess = [k for k in self._values if k not in self._keys.values()]
        if excess:
            count = len(self._values) - len(excess)
            named = f"the statement has no placeholder for {listed(excess)}"
            counted = f"{len(self._values)} given, {count} used by the statement"
            raise ProgrammingError(
                f"too many parameters: {counted if excess[0].isdigit() else named}",
                place=Place(text, tokens[0].start, tokens[-1].end),
            )


def _dollar(name: str) -> str:
    return f"${name}" if name.isidentifier() else '$"' + name.replace('"', '""') + '"'


def _keys(text: str, tokens: Sequence[Token]) -> dict[int, str]:
    """Start of each placeholder → its number or name."""
    keys: dict[int, str] = {}
    count = 0
    for token in tokens:
        if token.kind != "placeholder":
            continue
        count += not token.text
        keys[token.start] = token.text or str(count)
        if len({key.isdigit() for key in keys.values()}) > 1:
            raise ProgrammingError("named and numbered placeholders cannot be mixed", place=token.place(text))
    return keys


def _by_key(given: Given) -> dict[str, Any]:
    if isinstance(given, Mapping):
        return {str(key).lower(): value for key, value in given.items()}
    if isinstance(given, str | bytes):
        raise ProgrammingError("parameters are a sequence or a mapping", hint="a single one is written as [value]")
    return {str(i): value for i, value in enumerate(given if given is not None else (), start=1)}


def _replace(text: str, start: int, end: int, tokens: Iterable[Token], by: Callable[[Token], str]) -> str:
    parts: list[str] = []
    for token in tokens:
        if token.kind == "placeholder" and start <= token.start < end:
            parts += [text[start : token.start], by(token)]
            start = token.end
    return "".join([*parts, text[start:end]])


def check_literal(value: Any, place: Place) -> None:
    """A ProgrammingError if the value has no literal in the model language."""
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        raise ProgrammingError(f"{value} cannot stand here: a finite number is needed", place=place)
    if isinstance(value, list | tuple):
        for entry in value:
            check_literal(entry, place)
    elif value is not None and not isinstance(value, bool | int | float | Decimal | str):
        kind = type(value).__name__
        raise ProgrammingError(
            f"a value of type {kind} cannot stand here", place=place, hint="numbers, text, lists of them"
        )


def _pieces(value: Any) -> list[tuple[TokenType, str]]:
    """The kinds and texts of a literal's tokens."""
    if value is None:
        return [(TokenType.NULL, "NULL")]
    if isinstance(value, bool):
        return [(TokenType.TRUE, "TRUE") if value else (TokenType.FALSE, "FALSE")]
    if isinstance(value, str):
        return [(TokenType.STRING, value)]
    if isinstance(value, list | tuple):
        inner: list[tuple[TokenType, str]] = []
        for entry in value:
            inner += [(TokenType.COMMA, ","), *_pieces(entry)]
        return [(TokenType.L_BRACKET, "["), *inner[1:], (TokenType.R_BRACKET, "]")]
    number = [(TokenType.NUMBER, repr(abs(value)) if isinstance(value, int | float) else str(abs(value)))]
    if value < 0:
        return [(TokenType.L_PAREN, "("), (TokenType.DASH, "-"), *number, (TokenType.R_PAREN, ")")]
    return number


def _sql(value: Any) -> str:
    """A value as SQL, wherever it stands: a negative number is put in brackets, since ``--`` begins a comment."""
    text = _literal(value)
    return f"({text})" if text.startswith("-") else text


def _literal(value: Any) -> str:
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f"'{value}'::DOUBLE"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(entry) for entry in value) + "]"
    return exp.convert(value).sql("duckdb")
