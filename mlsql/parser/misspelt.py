"""Statements that are almost ours: DuckDB could not read them either, so say which word was meant."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from ..errors import ProgrammingError
from .tokens import Token, words

OURS = ("TRAIN", "EVALUATE", "RESUME", "CALIBRATE")
# What a statement of DuckDB's can begin with.
DUCKDB = words(
    """ABORT ALTER ANALYSE ANALYZE ATTACH BEGIN CALL CHECKPOINT COMMENT COMMIT COPY CREATE DEALLOCATE DELETE DESC
    DESCRIBE DETACH DROP END EXECUTE EXPLAIN EXPORT FORCE FROM IMPORT INSERT INSTALL LOAD MERGE PIVOT PIVOT_LONGER
    PIVOT_WIDER PRAGMA PREPARE RESET ROLLBACK SELECT SET SHOW START SUMMARIZE TABLE TRUNCATE UNPIVOT UPDATE USE VACUUM
    VALUES WITH"""
)
# What can follow CREATE or DROP there.
DUCKDB_OBJECTS = words(
    """TABLE VIEW TEMP TEMPORARY LOCAL GLOBAL INDEX UNIQUE SCHEMA SEQUENCE TYPE MACRO FUNCTION SECRET PERSISTENT
    RECURSIVE MATERIALIZED TRIGGER DATABASE COLLATION UNLOGGED"""
)


def misspelt(tokens: Sequence[Token]) -> tuple[Token, str] | None:
    """The misspelt word and the right one, if these tokens are almost a statement of ours."""
    first = tokens[0]
    if first.word and first.word not in DUCKDB:
        return _close(first, OURS)
    at = 3 if [t.word for t in tokens[1:3]] == ["OR", "REPLACE"] else 1
    if first.word not in ("CREATE", "DROP") or len(tokens) <= at + 1 or not tokens[at + 1].is_name:
        return None
    return None if tokens[at].word in DUCKDB_OBJECTS else _close(tokens[at], ("MODEL", "LAYER"))


def check_spelling(text: str, tokens: Sequence[Token]) -> None:
    """Raise a ProgrammingError for a statement that is almost ours."""
    found = misspelt(tokens)
    if found:
        token, meant = found
        message = f'there is no statement "{" ".join(t.text for t in tokens[: tokens.index(token) + 1])}"'
        raise ProgrammingError(message, place=token.place(text), hint=f'did you mean "{meant}"?')


def _close(token: Token, known: Sequence[str]) -> tuple[Token, str] | None:
    if not token.word or token.word in known:
        return None
    found = get_close_matches(token.word, known, n=1, cutoff=0.7)
    return (token, found[0]) if found else None
