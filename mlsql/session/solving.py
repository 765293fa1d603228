"""Solvers that use curvature: whether a run has one, and what drives it. The plans it takes are in ``curvature.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..autodiff.updates import Needs
from ..errors import NotSupportedError
from ..parser.statements import Train
from .core import Session
from .training_plan import Planned, Settings

if TYPE_CHECKING:
    from ..executor.solve import Problem, SolverTrainer


def problem_of(planned: Planned, settings: Settings) -> Problem | None:
    """What a solver with curvature is given; None for another solver. Raises ProgrammingError for a loss that is none
    for it."""
    if settings.solver.needs is None:
        return None
    from .curvature import problem_for

    return problem_for(settings.solver.needs, planned, settings)


def drive_with(needs: Needs) -> Callable[[SolverTrainer], str]:
    """What drives a solver of this kind, loaded when one is first used: SciPy takes a third of a second."""
    match needs:
        case Needs.QUADRATIC:
            from ..executor.quadratic import normal_equations

            return normal_equations
        case Needs.CONVEX:
            from ..executor.newton import newton

            return newton
        case Needs.SMOOTH:
            from ..executor.lbfgs import lbfgs

            return lbfgs


def drive_of(session: Session, settings: Settings, problem: Problem) -> dict[str, Any]:
    """What a trainer is told of such a solver."""
    assert settings.solver.needs is not None
    drive = drive_with(settings.solver.needs)
    return {"drive": drive, "problem": problem, "options": settings.options, "notice": session.notice}


def check_clauses(statement: Train, settings: Settings) -> None:
    """Raise NotSupportedError for what only solvers with steps of their own can do."""
    if settings.solver.needs is not None and statement.per:
        raise NotSupportedError(
            f"{settings.solver.name} trains one model for all rows",
            place=statement.per[0].place,
            hint="GD, SGD and ADAM train a model for each group of PER",
        )
