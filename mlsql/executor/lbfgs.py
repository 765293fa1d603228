"""L-BFGS: curvature from the last steps, and a line search that satisfies the strong Wolfe conditions."""

from __future__ import annotations

import numpy as np
import scipy.optimize

from .device import Array
from .solve import SolverTrainer

LEAST_DECREASE = 1e-13  # relative: below it an iteration has found rounding noise
NO_LIMIT = 10**9


def lbfgs(solve: SolverTrainer) -> str:
    """Iterate until no slope is larger than the tolerance.

    SciPy's L-BFGS-B without bounds: Zhu, Byrd, Lu and Nocedal, 1997, with the line search of Moré and Thuente, 1994.
    """
    start, _, slope = solve.start()
    largest = max(1.0, float(np.abs(slope).max()))
    path = Path(solve, start)
    result = scipy.optimize.minimize(
        path.evaluate, start.copy(), jac=True, method="L-BFGS-B", callback=path.accept,
        options={
            "maxcor": solve.options["history"], "gtol": solve.options["tolerance"] * largest, "ftol": LEAST_DECREASE,
            "maxiter": NO_LIMIT, "maxfun": NO_LIMIT,
        },
    )  # fmt: skip
    if not solve.log:
        solve.finish(solve.at, solve.last_loss, 0.0)
    return "converged" if result.status == 0 else "no further progress"


class Path:
    """The points at which the loss is asked for. The first of an iteration is a step of length 1."""

    def __init__(self, solve: SolverTrainer, start: Array) -> None:
        self.solve, self.at = solve, start.copy()
        self.first: Array | None = None

    def evaluate(self, weights: Array) -> tuple[float, Array]:
        """The loss and its gradient; both must be finite."""
        loss, slope = self.solve.evaluate(weights)
        self.solve.check_finite(loss, slope)
        if self.first is None and (weights != self.at).any():
            self.first = weights.copy()
        return loss, slope

    def accept(self, intermediate_result: scipy.optimize.OptimizeResult) -> None:
        """An iteration has ended."""
        there = np.asarray(intermediate_result.x)
        whole = 0.0 if self.first is None else float(np.linalg.norm(self.first - self.at))
        rate = float(np.linalg.norm(there - self.at)) / whole if whole else 1.0
        self.at, self.first = there.copy(), None
        self.solve.accept(there, float(intermediate_result.fun), rate)
