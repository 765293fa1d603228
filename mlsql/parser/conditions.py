"""Conditions of WHERE that the optimizer understands: a column equal to a literal, a call above or below one."""

from __future__ import annotations

from collections.abc import Sequence

from ..record import record
from .blocks import Piece, Reference
from .statements import PredictCall
from .tokens import Token, depths, tokenize


def is_literal(text: str) -> bool:
    """Whether a text is one number, perhaps with a sign, or one string."""
    tokens = tokenize(text)
    tokens = tokens[1:] if tokens and tokens[0].is_symbol("-") and len(tokens) == 2 else tokens
    return len(tokens) == 1 and (tokens[0].kind == "number" or text.startswith("'"))


def equality(piece: Piece, tokens: Sequence[Token]) -> tuple[Reference, str] | None:
    """The column and the literal that a condition says are equal."""
    inside = [t for t in tokens if piece.place.start <= t.start and t.end <= piece.place.end]
    signs = [i for i, (depth, t) in enumerate(depths(inside)) if depth == 0 and t.is_symbol("=", "==")]
    if len(piece.references) != 1 or len(signs) != 1 or not piece.plain:
        return None
    [reference] = piece.references
    text = piece.place.text
    sides = [part for part in (inside[: signs[0]], inside[signs[0] + 1 :]) if part]
    texts = [text[part[0].start : part[-1].end] for part in sides]
    column = reference.place.source
    others = [t for t in texts if t != column]
    return (reference, others[0]) if len(texts) == 2 and len(others) == 1 and is_literal(others[0]) else None


@record
class Comparison:
    """A call compared with literals: all of ``bounds``, each an operator and a literal."""

    call: PredictCall
    bounds: tuple[tuple[str, str], ...]


TURNED = {">": "<", "<": ">", ">=": "<=", "<=": ">="}


def comparison(piece: Piece, tokens: Sequence[Token]) -> Comparison | None:
    """The comparison that a condition is: a call above or below a literal, or BETWEEN two."""
    if len(piece.calls) != 1:
        return None
    [call] = piece.calls
    inside = [t for t in tokens if piece.place.start <= t.start and t.end <= piece.place.end]
    before = [t for t in inside if t.end <= call.place.start]
    behind = [t for t in inside if t.start >= call.place.end]

    def text(part: Sequence[Token]) -> str:
        return piece.place.text[part[0].start : part[-1].end] if part else ""

    if not before and behind and behind[0].text in TURNED and is_literal(text(behind[1:])):
        return Comparison(call, ((behind[0].text, text(behind[1:])),))
    if not behind and before and before[-1].text in TURNED and is_literal(text(before[:-1])):
        return Comparison(call, ((TURNED[before[-1].text], text(before[:-1])),))
    if not before and behind and behind[0].word == "BETWEEN":
        ends = [i for i, t in enumerate(behind) if t.word == "AND"]
        low, high = (text(behind[1 : ends[0]]), text(behind[ends[0] + 1 :])) if len(ends) == 1 else ("", "")
        if is_literal(low) and is_literal(high):
            return Comparison(call, ((">=", low), ("<=", high)))
    return None
