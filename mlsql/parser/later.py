"""Statements of the language that this version does not have yet. They say so, rather than look unknown."""

from __future__ import annotations

from .reader import Reader
from .statements import Statement
from .table import statement


@statement("RESUME TRAIN")
def resume_train(read: Reader) -> Statement:
    """``RESUME TRAIN model``."""
    return _not_yet(read, "RESUME TRAIN", hint="TRAIN goes on from the model's current version")


@statement("CREATE LAYER", "CREATE OR REPLACE LAYER", "DROP LAYER", "ALTER LAYER")
def layer(read: Reader) -> Statement:
    """``CREATE LAYER name(argument, ...) AS expression``, ``DROP LAYER name``."""
    return _not_yet(read, "a layer of your own")


def _not_yet(read: Reader, what: str, hint: str | None = None) -> Statement:
    count = 3 if [t.word for t in read.tokens[1:3]] == ["OR", "REPLACE"] else 1
    read.unsupported(f"{what} is not in this version", read.span(read.tokens[: count + 1]), hint)
