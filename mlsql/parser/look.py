"""Statements that look or set: SHOW, DESCRIBE, SET mlsql_name."""

from __future__ import annotations

from collections.abc import Sequence

from .predict import passed_on
from .reader import Reader
from .statements import Calibrate, DescribeModel, SetOption, ShowLayers, ShowModels, ShowRules, ShowTraining
from .table import statement
from .tokens import Token

SCOPES = ("SESSION", "GLOBAL", "LOCAL")


@statement("SHOW MODELS")
def show_models(read: Reader) -> ShowModels:
    """``SHOW MODELS``."""
    read.expect("SHOW MODELS")
    read.expect_end()
    return ShowModels()


@statement("SHOW LAYERS")
def show_layers(read: Reader) -> ShowLayers:
    """``SHOW LAYERS``."""
    read.expect("SHOW LAYERS")
    read.expect_end()
    return ShowLayers()


@statement("SHOW RULES")
def show_rules(read: Reader) -> ShowRules:
    """``SHOW RULES``."""
    read.expect("SHOW RULES")
    read.expect_end()
    return ShowRules()


@statement("CALIBRATE", claims=lambda tokens: len(tokens) == 1)
def calibrate(read: Reader) -> Calibrate:
    """``CALIBRATE``."""
    read.expect("CALIBRATE")
    read.expect_end()
    return Calibrate()


def _shows_training(tokens: Sequence[Token]) -> bool:
    """A table may be called training, but not what stands behind it here."""
    return len(tokens) == 2 or tokens[2].word in ("RUNS", "LOG", "FOR")


@statement("SHOW TRAINING", claims=_shows_training)
def show_training(read: Reader) -> ShowTraining:
    """``SHOW TRAINING [RUNS | LOG] [FOR model]``."""
    read.expect("SHOW TRAINING")
    what = "LOG" if read.accept("LOG") else "RUNS"
    if what == "RUNS":
        read.accept("RUNS")
    model = read.name() if read.accept("FOR") else None
    read.expect_end()
    return ShowTraining(what, model)


def _describes_a_name(tokens: Sequence[Token]) -> bool:
    """DESCRIBE, perhaps MODEL, one name, and the end."""
    names = tokens[2:] if len(tokens) > 2 and tokens[1].word == "MODEL" and not tokens[2].is_symbol(".") else tokens[1:]
    return (
        len(names) in (1, 3)
        and all(token.is_name for token in names[::2])
        and all(token.is_symbol(".") for token in names[1::2])
    )


@statement("DESCRIBE", "DESC", claims=_describes_a_name)
def describe(read: Reader) -> DescribeModel:
    """``DESCRIBE [MODEL] name``."""
    read.step()
    explicit = read.at("MODEL") and len(read.rest()) > 1 and not read.tokens[read.position + 1].is_symbol(".")
    if explicit:
        read.step()
    model = read.name()
    read.expect_end()
    return DescribeModel(model, explicit, passed_on(read.text, read.tokens, read.given))


def _sets_ours(tokens: Sequence[Token]) -> bool:
    name = tokens[2:3] if len(tokens) > 2 and tokens[1].word in SCOPES else tokens[1:2]
    return bool(name) and name[0].is_name and name[0].text.lower().startswith("mlsql_")


@statement("SET", claims=_sets_ours)
def set_option(read: Reader) -> SetOption:
    """``SET mlsql_name = value``; TO may stand for ``=``."""
    read.expect("SET")
    if read.next is not None and read.next.word in SCOPES:
        read.step()
    start = read.position
    name = read.identifier("an option's name").lower()
    place = read.since(start)
    if not read.accept("TO"):
        read.expect("=")
    value = read.value()
    read.expect_end()
    return SetOption(name, value, place)
