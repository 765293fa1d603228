"""Statements of the language that this version does not have yet. They say so, rather than look unknown."""

from __future__ import annotations

from collections.abc import Sequence

from .reader import Reader
from .statements import Statement
from .table import statement
from .tokens import Token


@statement("RESUME TRAIN")
def resume_train(read: Reader) -> Statement:
    """``RESUME TRAIN model``."""
    return _not_yet(read, "RESUME TRAIN", hint="TRAIN goes on from the model's current version")


@statement("ALTER MODEL")
def alter_model(read: Reader) -> Statement:
    """``ALTER MODEL a RENAME TO b``, ``ALTER MODEL a ROLLBACK TO VERSION n``."""
    return _not_yet(read, "ALTER MODEL")


@statement("CREATE LAYER", "CREATE OR REPLACE LAYER", "DROP LAYER", "ALTER LAYER")
def layer(read: Reader) -> Statement:
    """``CREATE LAYER name(argument, ...) AS expression``, ``DROP LAYER name``."""
    return _not_yet(read, "a layer of your own")


@statement("CALIBRATE", claims=lambda tokens: len(tokens) == 1)
def calibrate(read: Reader) -> Statement:
    """``CALIBRATE``."""
    return _not_yet(read, "CALIBRATE")


def _shows_training(tokens: Sequence[Token]) -> bool:
    return len(tokens) == 2 or tokens[2].word in ("RUNS", "LOG", "FOR")


@statement("SHOW TRAINING", claims=_shows_training)
def show_training(read: Reader) -> Statement:
    """``SHOW TRAINING [RUNS | LOG] [FOR model]``."""
    return _not_yet(read, "SHOW TRAINING")


@statement("EXPLAIN RULE")
def explain_rule(read: Reader) -> Statement:
    """``EXPLAIN RULE name``."""
    return _not_yet(read, "EXPLAIN RULE", hint="SHOW RULES lists every rule")


def _not_yet(read: Reader, what: str, hint: str | None = None) -> Statement:
    count = 3 if [t.word for t in read.tokens[1:3]] == ["OR", "REPLACE"] else 1
    read.unsupported(f"{what} is not in this version", read.span(read.tokens[: count + 1]), hint)
