"""The curvature of a loss: whether it is one for a solver that uses it, and the plans beside its gradient."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from ..autodiff import curvature, features
from ..autodiff.curvature import direction_of, hessian_product, sum_of_squares
from ..autodiff.degree import bent, degrees, kinks
from ..autodiff.features import gram
from ..autodiff.updates import Needs
from ..errors import Place, ProgrammingError
from ..executor.solve import Gram, Problem, Slopes, Square
from ..optimizer.stages import optimize
from ..planner.node import Node
from ..planner.ops import State
from ..planner.plan import Plan
from ..types import TypeProblem
from .training_plan import Planned, Settings

MOST_WEIGHTS = 4000  # of a solver that keeps a matrix of second derivatives


def problem_for(needs: Needs, planned: Planned, settings: Settings) -> Problem:
    """What a solver that needs this of a loss is given. Raises ProgrammingError for a loss that is none for it."""
    training, place = planned.training, settings.place
    [weights] = dict.fromkeys(state for state, _, _ in training.spans.values())
    [gradient] = [s for s in training.iterate.states if s is not weights and isinstance(s, State)]
    after = dict(zip(training.iterate.states, training.iterate.updates, strict=True))
    check_loss(training.iterate.loss, weights, settings, place)
    if needs == Needs.SMOOTH:
        return Problem(weights, gradient)
    check_size(weights, settings, place)
    try:
        product = hessian_product(after[gradient], weights, training.spans)
    except TypeProblem:
        message = "the loss has no minimum: it is linear in the parameters"
        raise ProgrammingError(message, place=place) from None
    by_rows = gram(training.iterate.loss, weights, training.spans, direction_of(weights))
    squares = sum_of_squares(training.iterate.loss, weights, training.spans) if needs == Needs.QUADRATIC else None
    return best_forms(Problem(weights, gradient, direction_of(weights), product), by_rows, squares)


def best_forms(problem: Problem, by_rows: features.Gram | None, squares: list[curvature.Square] | None) -> Problem:
    """A problem with the optimized plans of its Hessian and its squares."""
    nodes = [problem.product] if problem.product is not None else []
    if by_rows is not None:
        nodes += [*(f.slopes for f in by_rows.features), *by_rows.curvature]
        nodes += [] if by_rows.rest is None else [by_rows.rest]
    for s in squares or ():
        nodes += [s.residual, s.weight, s.product, *(f.slopes for f in s.features)]
    plan = optimize(Plan({str(i): n for i, n in enumerate(nodes)})).plan
    best = dict(zip(nodes, plan.outputs.values(), strict=True))

    def slopes(found: Sequence[features.Feature]) -> tuple[Slopes, ...]:
        return tuple(Slopes(best[f.slopes], f.positions) for f in found)

    return replace(
        problem,
        product=problem.product and best[problem.product],
        gram=None
        if by_rows is None
        else Gram(
            slopes(by_rows.features), tuple(best[n] for n in by_rows.curvature), by_rows.rest and best[by_rows.rest]
        ),
        squares=None
        if squares is None
        else tuple(Square(best[s.residual], best[s.weight], best[s.product], slopes(s.features)) for s in squares),
    )


def check_loss(loss: Node, weights: Node, settings: Settings, place: Place) -> None:
    """Raise ProgrammingError unless the loss is one for the solver."""
    why = unfit(loss, {weights}, settings.solver.needs)
    if why is not None:
        name, needs = settings.solver.name, settings.solver.needs
        assert needs is not None
        message = f"{name} needs {needs.value}: {why}"
        raise ProgrammingError(message, place=place, hint="LBFGS takes any loss that has a slope, ADAM takes batches")


def unfit(loss: Node, weights: Collection[Node], needs: Needs | None) -> str | None:
    """Why a loss is none for a solver; None: it is one."""
    if needs == Needs.QUADRATIC:
        degree = degrees([loss], weights)[loss]
        if degree is None:
            return "this loss is no polynomial in them"
        return None if degree == 2 else f"this loss has degree {degree}"
    if needs == Needs.CONVEX:
        kinky = kinks([loss], weights)
        if kinky:
            return f"{kinky[0].operator_name().upper()} of a learned value has kinks"
        culprit = bent(loss, weights)
        return None if culprit is None else f"{culprit.operator_name().upper()} makes another function of them"
    return None


def check_size(weights: State, settings: Settings, place: Place) -> None:
    """Raise ProgrammingError for more parameters than a matrix of second derivatives should have."""
    [size] = weights.shape
    if isinstance(size, int) and size > MOST_WEIGHTS:
        raise ProgrammingError(
            f"{settings.solver.name} keeps a matrix of second derivatives: the model has {size:,} parameters, and "
            f"{MOST_WEIGHTS:,} is the most",
            place=place,
            hint="LBFGS keeps none",
        )
