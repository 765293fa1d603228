"""The one table of statements: the words that a statement begins with, and the function that reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..record import record
from .reader import Reader
from .statements import Statement
from .tokens import Token

Parse = Callable[[Reader], Statement]
Claim = Callable[[Sequence[Token]], bool]


@record
class Entry:
    """A way for a statement to begin. ``claims`` tells it from a statement of DuckDB's that begins alike."""

    lead: tuple[str, ...]
    parse: Parse
    claims: Claim


TABLE: list[Entry] = []


def statement(*leads: str, claims: Claim = lambda tokens: True) -> Callable[[Parse], Parse]:
    """Enter a parse function under the words that its statement begins with."""

    def enter(parse: Parse) -> Parse:
        TABLE.extend(Entry(tuple(lead.split()), parse, claims) for lead in leads)
        TABLE.sort(key=lambda entry: -len(entry.lead))  # the longest lead is the most specific
        return parse

    return enter


def find(tokens: Sequence[Token]) -> Parse | None:
    """The function that reads these tokens, or None if they are a statement of DuckDB's."""
    for entry in TABLE:
        words = tuple(token.word for token in tokens[: len(entry.lead)])
        if words == entry.lead and entry.claims(tokens):
            return entry.parse
    return None
