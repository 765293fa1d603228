"""Newton's method, damped: for logistic, Poisson and softmax regression it is iteratively reweighted least squares."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from .device import Array
from .quadratic import scales
from .solve import SolverTrainer

ARMIJO = 1e-4  # the share of the promised decrease that a step must bring
HALVINGS = 40
LEAST_RCOND = 1e-14
FIRST_DAMPING = 1e-12


def newton(solve: SolverTrainer) -> str:
    """Iterate until a step can no longer lower the loss, relatively, by more than the tolerance.

    Boyd and Vandenberghe, "Convex Optimization", 2004, section 9.5. The decrease that a step promises is half the
    squared Newton decrement.
    """
    weights, loss, slope = solve.start()
    first = abs(loss)
    while True:
        hessian = solve.hessian(weights)
        solve.check_finite(loss, hessian)
        step = direction(hessian, slope)
        promised = -float(slope @ step) / 2
        done = promised <= solve.options["tolerance"] * max(abs(loss), first)
        moved = search(solve, weights, loss, slope, step)
        if moved is None:  # rounding hides what is left
            solve.finish(solve.at, solve.last_loss, 0.0)
            return "converged" if done else "no further progress"
        weights, loss, slope, rate = moved
        if done:
            solve.finish(weights, loss, rate)
            return "converged"
        solve.accept(weights, loss, rate)


def direction(hessian: Array, slope: Array) -> Array:
    """The solution of (H + damping) p = -g with the least damping that makes the matrix safely positive."""
    scale = scales(hessian)
    scaled = hessian * np.outer(scale, scale)
    norm, damping = np.abs(scaled).sum(axis=0).max(), 0.0
    while True:
        damped = scaled + damping * np.eye(len(scaled))
        try:
            factor = scipy.linalg.cho_factor(damped)
            rcond, _ = scipy.linalg.lapack.dpocon(factor[0], norm + damping, uplo="U")
            if rcond >= LEAST_RCOND:
                step: Array = -scale * scipy.linalg.cho_solve(factor, scale * slope)
                return step
        except scipy.linalg.LinAlgError:
            pass
        damping = max(10 * damping, FIRST_DAMPING)


def search(
    solve: SolverTrainer, weights: Array, loss: float, slope: Array, step: Array
) -> tuple[Array, float, Array, float] | None:
    """The first of the points at the whole step, half of it and so on at which the loss is lower by enough; None: at
    none of them."""
    rate, fall = 1.0, float(slope @ step)
    for _ in range(HALVINGS):
        there = weights + rate * step
        new_loss, new_slope = solve.evaluate(there)
        if np.isfinite(new_loss) and new_loss <= loss + ARMIJO * rate * fall:
            return there, new_loss, new_slope, rate
        rate /= 2
    return None
