"""The options of WITH: the common ones, and reading what a statement gives against what a solver knows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Protocol

from ..errors import Place, ProgrammingError, listed, suggest
from .schedules import SCHEDULES
from .updates import SOLVERS, Option, Solver

ALL = "ALL"
DEFAULT_SOLVER = "ADAM"

COMMON = (
    Option("batch_size", 32, "rows of a step, or ALL", 1),
    Option("epochs", None, "passes over the rows (10 if neither epochs nor steps nor UNTIL is given)", 1, kind=int),
    Option("steps", None, "steps in all, in place of epochs", 1, kind=int),
    Option("seed", 0, "where random numbers start: first weights, shuffling, the validation split", 0, below=2**63),
    Option("schedule", "constant", "how the learning rate changes over the run", choices=tuple(SCHEDULES)),
    Option("warmup_steps", 0, "steps in which the learning rate rises to its value", 0),
    Option("clip_norm", None, "the largest norm of the gradient of a step", 0, kind=float),
    Option("shuffle", True, "whether every epoch visits the rows in a new order"),
    Option("patience", None, "epochs without improvement after which training stops", 1, kind=int),
    Option("on_nan", "stop", "what to do when the loss is not finite", choices=("stop", "skip")),
    Option("deterministic", False, "the same bits at any number of threads, whether code was compiled before or not"),
    Option("precision", "float32", "what operands of matrix products are rounded to", choices=("float32", "bf16")),
    Option("class_weight", None, "weight rows so that all classes count the same", choices=("balanced",), kind=str),
)

KIND_NAMES = {int: "a whole number", float: "a number", bool: "TRUE or FALSE", str: "a word"}


class Given(Protocol):
    """An option as the statement has it."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> Any: ...
    @property
    def place(self) -> Place: ...
    @property
    def value_place(self) -> Place: ...


def find_solver(name: str | None, place: Place | None) -> Solver:
    """The solver of a WITH clause. Raises ProgrammingError for an unknown one."""
    found = SOLVERS.get((name or DEFAULT_SOLVER).upper())
    if found is None:
        hint = suggest(str(name), SOLVERS) or f"solvers are {listed(SOLVERS)}"
        raise ProgrammingError(f"unknown solver {name}", place=place, hint=hint)
    return found


def read_options(solver: Solver, given: Iterable[Given]) -> dict[str, Any]:
    """The value of every option of a training run, defaults included.

    Raises ProgrammingError for an option that the solver does not know, is given twice, or has the wrong type.
    """
    known = known_options(solver)
    values = {o.name: o.default for o in (*solver.options, *COMMON)}
    if solver.full_batch:
        values["batch_size"] = ALL
    seen: dict[str, Place] = {}
    for g in given:
        name = g.name.lower()
        if name not in known:
            hint = suggest(name, known) or f"options of {solver.name} are {listed(known)}"
            raise ProgrammingError(f"{solver.name} has no option {g.name}", place=g.place, hint=hint)
        if name in seen:
            raise ProgrammingError(f"the option {name} is given twice", place=g.place)
        seen[name] = g.place
        values[name] = checked(known[name], g)
    if solver.full_batch and values["batch_size"] != ALL:
        message = f"{solver.name} takes the whole table a step"
        raise ProgrammingError(message, place=seen["batch_size"], hint="SGD takes batches")
    if {"steps", "epochs"} <= seen.keys():
        raise ProgrammingError("steps and epochs cannot both be given", place=seen["steps"])
    return values


def known_options(solver: Solver) -> dict[str, Option]:
    """The options that a statement can give a solver, by name."""
    common = [o for o in COMMON if solver.common is None or o.name in solver.common]
    return {o.name: o for o in (*solver.options, *common)}


def checked(option: Option, given: Given) -> Any:
    """The value of one option, checked for type and range."""
    value, kind = given.value, option.type
    if option.name == "batch_size" and str(value).upper() == ALL:
        return ALL
    if kind is str:
        value = str(value).lower()
    elif isinstance(value, bool) != (kind is bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        value = None
    elif kind is int:
        value = int(value) if value == int(value) else None
    elif kind is float:
        value = float(value)
    if value is None or (option.choices and value not in option.choices):
        expected = " or ".join(f"'{c}'" for c in option.choices) if option.choices else KIND_NAMES[kind]
        hint = suggest(str(given.value), option.choices)
        raise ProgrammingError(
            f"{option.name} must be {expected}, not {given.value!r}", place=given.value_place, hint=hint
        )
    if option.least is not None and value < option.least:
        raise ProgrammingError(f"{option.name} must be at least {option.least:g}", place=given.value_place)
    if option.below is not None and value >= option.below:
        raise ProgrammingError(f"{option.name} must be below {option.below:g}", place=given.value_place)
    return value
