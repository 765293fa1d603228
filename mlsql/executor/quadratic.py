"""Normal equations: the minimum of a quadratic loss by one factorization."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import scipy.linalg

from ..errors import OperationalError
from .device import Array
from .solve import NotSquares, SolverTrainer

LEAST_RCOND = 1e-10  # below it the Gram matrix has lost more than its Cholesky factor can give back
REFINEMENTS = 3


def normal_equations(solve: SolverTrainer) -> str:
    """Go to the minimum in one iteration. Raises OperationalError for a loss that has none."""
    solve.start()
    hessian = solve.hessian(solve.at)
    loss, slope = solve.evaluate(np.zeros(solve.size))
    solve.check_finite(loss, slope, hessian)
    found, how = cholesky(solve, hessian, slope), "Cholesky"
    if found is None and solve.problem.squares is not None:
        found, how = least_squares(solve)
    if found is None:
        found, how = by_eigenvalues(hessian, slope)
    loss, slope = solve.evaluate(found)
    solve.check_finite(loss, slope)
    solve.notice(f"NORMAL_EQUATIONS: {how}")
    solve.finish(found, loss, 1.0)
    return "converged"


def cholesky(solve: SolverTrainer, hessian: Array, slope: Array) -> Array | None:
    """The solution by a Cholesky factor of the scaled matrix, refined with slopes that come from the rows; None where
    the matrix is too close to a singular one.

    Björck, "Numerical Methods for Least Squares Problems", 1996, section 2.9.
    """
    scale = scales(hessian)
    scaled = hessian * np.outer(scale, scale)
    try:
        factor = scipy.linalg.cho_factor(scaled)
    except scipy.linalg.LinAlgError:
        return None
    rcond, _ = scipy.linalg.lapack.dpocon(factor[0], np.abs(scaled).sum(axis=0).max(), uplo="U")
    if rcond < LEAST_RCOND:
        return None
    found: Array = -scale * scipy.linalg.cho_solve(factor, scale * slope)
    best = np.inf
    for _ in range(REFINEMENTS):
        _, slope = solve.evaluate(found)
        if not (size := float(np.abs(scale * slope).max())) < best / 2:
            break
        best = size
        found = found - scale * scipy.linalg.cho_solve(factor, scale * slope)
    return found


def scales(hessian: Array) -> Array:
    """What makes the diagonal of a positive matrix 1; 1 where it is not positive."""
    diagonal = np.diag(hessian)
    return np.where(diagonal > 0, 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1)), 1)


def least_squares(solve: SolverTrainer) -> tuple[Array | None, str]:
    """The solution of least length of a sum of squares, by a QR factorization of its rows; None if it is none."""
    try:
        triangle = reduced(solve.jacobian(), solve.size + 1)
    except NotSquares:
        return None, ""
    matrix, right = triangle[:, :-1], -triangle[:, -1]
    length = np.linalg.norm(matrix, axis=0)
    scale = np.where(length > 0, 1 / np.where(length > 0, length, 1), 1)
    values = scipy.linalg.svdvals(matrix * scale)
    full = len(values) == solve.size and values[-1] > values[0] * solve.size * np.finfo(float).eps
    if full:
        found, *_ = scipy.linalg.lstsq(matrix * scale, right, cond=0.0, lapack_driver="gelsd")
        return found * scale, f"QR (the equations are ill-conditioned: {values[0] / values[-1]:.1g})"
    found, _, rank, _ = scipy.linalg.lstsq(matrix, right, cond=solve.size * np.finfo(float).eps, lapack_driver="gelsd")
    return found, f"QR and SVD (rank {rank} of {solve.size}: the shortest of many solutions)"


def reduced(blocks: Iterable[Array], width: int) -> Array:
    """The triangular factor of a tall matrix that comes in blocks of rows: each is put below the factor so far.

    Demmel, Grigori, Hoemmen and Langou, "Communication-optimal parallel and sequential QR", 2012.
    """
    triangle = np.empty((0, width))
    for block in blocks:
        triangle = scipy.linalg.qr(np.concatenate([triangle, block]), mode="r")[0][:width]
    return triangle


def by_eigenvalues(hessian: Array, slope: Array) -> tuple[Array, str]:
    """The shortest solution by an eigendecomposition. Raises OperationalError where there is no minimum."""
    values, vectors = scipy.linalg.eigh(hessian)
    noise = 1e-13 * len(values) * np.abs(values).max()  # sums over many rows round more than once
    if values[0] < -noise:
        raise no_minimum("it falls without end along some direction of the parameters")
    kept = values > noise
    along = vectors.T @ slope
    if np.abs(along[~kept]).max(initial=0) > 1e-6 * max(1.0, np.abs(slope).max()):
        raise no_minimum("it falls without end along some direction of the parameters")
    found = -(vectors[:, kept] @ (along[kept] / values[kept]))
    return found, f"eigenvalues (rank {int(kept.sum())} of {len(values)}: the shortest of many solutions)"


def no_minimum(why: str) -> OperationalError:
    return OperationalError(f"the loss has no minimum: {why}", hint="a term such as 0.01 * L2(weight) gives it one")
