"""The options of EXPLAIN: which side of a plan, in which format, without which rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import Place, ProgrammingError, listed, suggest
from ...optimizer.rule import ALWAYS_ON
from ...parser.explain import DUCKDB_OPTIONS, OPTIONS, SIDES
from ...parser.statements import Explain, Option
from ...record import record
from ..rules import every_rule

FORMATS: Mapping[str, tuple[str, ...]] = {  # a format, and the sides that it can show
    "text": SIDES,
    "json": ("PHYSICAL", "LOGICAL", "STEPS", "ALTERNATIVES"),
    "mermaid": ("PHYSICAL", "LOGICAL"),
    "dot": ("PHYSICAL", "LOGICAL"),
    "html": ("PHYSICAL", "STEPS"),
}
KNOWN = (*OPTIONS, *DUCKDB_OPTIONS)


@record
class Options:
    """What EXPLAIN is asked for."""

    side: str = "PHYSICAL"
    format: str = "text"
    without: tuple[str, ...] = ()
    analyze: bool = False

    @property
    def needs_steps(self) -> bool:
        """Whether the rewritings are shown, with their numeric checks."""
        return self.side == "STEPS" or self.format in ("json", "html")

    @property
    def needs_trace(self) -> bool:
        """Whether the plan is shown after each of them."""
        return self.format == "html"


def read_options(statement: Explain) -> Options:
    """The options, checked. Raises ProgrammingError for one that is unknown or clashes with another."""
    given: dict[str, Option] = {}
    for o in statement.options:
        if o.name not in KNOWN:
            hint = suggest(o.name, KNOWN) or f"options are {listed(KNOWN)}"
            raise ProgrammingError(f"EXPLAIN has no option {o.name}", place=o.place, hint=hint)
        if o.name in given:
            raise ProgrammingError(f"{o.name} is there twice", place=o.place)
        given[o.name] = o
    side = one_side([given[name] for name in SIDES if name in given], statement)
    format = read_format(given.get("FORMAT"), side)
    without = read_rules(given.get("WITHOUT"))
    if statement.analyze and side != "PHYSICAL":
        raise ProgrammingError(
            f"ANALYZE shows the plan that ran, not {side}",
            place=given[side].place,
            hint=f"EXPLAIN ({side}) without ANALYZE",
        )
    return Options(side, format, without, statement.analyze)


def one_side(sides: list[Option], statement: Explain) -> str:
    """Which side of the plan to show: one, the physical plan if none is named."""
    for o in sides:
        if o.value is not True:
            raise ProgrammingError(f"{o.name} takes no value", place=o.value_place, hint=f"EXPLAIN ({o.name}) ...")
    if len(sides) > 1:
        names = listed(o.name for o in sorted(sides, key=lambda o: o.place.start))
        second = max(sides, key=lambda o: o.place.start)
        raise ProgrammingError(f"{names} are different sides of a plan", place=second.place, hint="one at a time")
    return sides[0].name if sides else "PHYSICAL"


def read_format(option: Option | None, side: str) -> str:
    """The format, one that can show the side."""
    if option is None:
        return "text"
    name = str(option.value).lower()
    if name not in FORMATS:
        hint = suggest(name, FORMATS) or f"formats are {listed(FORMATS)}"
        what = "FORMAT needs a format" if option.value is True else f"there is no format {option.value}"
        raise ProgrammingError(what, place=option.value_place, hint=hint)
    if side not in FORMATS[name]:
        fitting = [f for f, sides in FORMATS.items() if side in sides]
        raise ProgrammingError(
            f"{side} cannot be shown as {name}", place=option.value_place, hint=f"FORMAT {listed(fitting)}"
        )
    return name


def read_rules(option: Option | None) -> tuple[str, ...]:
    """The rules to leave out."""
    if option is None:
        return ()
    values: Any = option.value if isinstance(option.value, tuple) else (option.value,)
    if option.value is True or not values:
        raise ProgrammingError("WITHOUT needs rules", place=option.place, hint="WITHOUT (rule, ...); SHOW RULES")
    return tuple(known_rule(str(v), option.value_place) for v in values)


def known_rule(word: str, place: Place) -> str:
    """The rule of a name. Raises ProgrammingError if there is none, or if no plan can do without it."""
    name = word.lower()
    rules = every_rule()
    if name not in rules:
        hint = suggest(name, rules) or "SHOW RULES lists them"
        raise ProgrammingError(f"there is no rule {word}", place=place, hint=hint)
    if rules[name].stage in ALWAYS_ON:
        reason = ALWAYS_ON[rules[name].stage]
        raise ProgrammingError(f"the rule {name} cannot be left out: {reason}", place=place)
    return name
