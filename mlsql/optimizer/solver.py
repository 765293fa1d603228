"""Which solver to train with: estimated time to tolerance under the constraints of a statement.

Facts in, a ranking with reasons out. How many steps a solver takes depends on the data, which nobody has seen yet: the
counts are those of well-scaled problems, and the log of a run says what they were. What a step costs is estimated.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..figures import count, duration, size
from ..record import record
from .cost import Machine
from .rule import Alternative

DOUBLE_BYTES = 8


@record
class Candidate:
    """A solver, and what it would take: ``once`` seconds before the first step, ``step`` seconds for each of ``steps``.

    ``unfit`` says why the solver is not to be chosen; None: it may be. ``bytes`` is the most memory at a time.
    ``risk`` is by how much the time may be longer where columns depend on each other or differ in scale: 1 where that
    changes nothing. It is what the time is multiplied with to compare solvers.
    """

    name: str
    unfit: str | None
    once: float
    step: float
    steps: float
    bytes: int
    risk: float = 1.0

    @property
    def seconds(self) -> float:
        """The estimated time to tolerance."""
        return self.once + self.step * self.steps

    @property
    def price(self) -> float:
        """The time to compare by."""
        return self.seconds * self.risk


@record
class Ranking:
    """The solver to take, why, and what was considered beside it."""

    chosen: Candidate
    reason: str
    others: tuple[Alternative, ...]


def rank(candidates: Sequence[Candidate], within: float | None = None, memory: int | None = None) -> Ranking:
    """The fastest of the candidates that fit into the time and the memory; where none does, the one that comes nearest.

    At least one candidate must be fit. Of equals the first is taken.
    """
    able = [c for c in candidates if c.unfit is None]
    small = [c for c in able if memory is None or c.bytes <= memory]
    quick = [c for c in small if within is None or c.seconds <= within]
    if small:
        chosen = min(quick or small, key=lambda c: c.price)
    else:
        chosen = min(able, key=lambda c: c.bytes)
    others = [c for c in candidates if c is not chosen]
    return Ranking(
        chosen, why(chosen, able), tuple(lost(c, chosen, c in small, c in quick, within, memory) for c in others)
    )


def why(chosen: Candidate, able: Sequence[Candidate]) -> str:
    """What decided, in one short line."""
    rivals = sorted((c for c in able if c is not chosen), key=lambda c: c.price)
    if not rivals:
        return "the only one for this loss"
    rival = rivals[0]
    if rival.price < chosen.price:
        return f"{rival.name} comes first but does not fit"
    safe = ", whatever the scale of its columns" if rival.seconds < chosen.seconds else ""
    return f"about {duration(chosen.seconds)}{safe}; {rival.name} about {duration(rival.seconds)}"


def lost(
    candidate: Candidate, chosen: Candidate, is_small: bool, is_quick: bool, within: float | None, memory: int | None
) -> Alternative:
    """A candidate that was not taken, and the reason."""
    if candidate.unfit is not None:
        reason = candidate.unfit
    elif not is_small and memory is not None:
        reason = f"it needs about {size(candidate.bytes)}, more than {size(memory)}"
    elif not is_quick and within is not None:
        reason = f"it needs about {duration(candidate.seconds)}, more than WITHIN allows"
    else:
        reason = f"about {count(candidate.steps)} steps of {duration(candidate.step)}"
        reason += f" after {duration(candidate.once)}" if candidate.once > candidate.step else ""
        reason += ", many more where columns depend on each other" if candidate.seconds < chosen.seconds else ""
    known = candidate.seconds if candidate.step else None
    return Alternative("solver", candidate.name, f"WITH {candidate.name}", known, chosen.seconds, reason)


def gram_seconds(rows: int, weights: int, scores: int, machine: Machine) -> float:
    """The time of a Hessian that is a sum over rows: the slopes laid out in DOUBLE, and for each pair of scores a
    scaled copy of them and a matrix product."""
    width = -(-weights // scores)
    pairs = scores * (scores + 1) / 2
    moved = rows * width * DOUBLE_BYTES / machine.bandwidth
    return 4 * moved + pairs * (2 * rows * width**2 / machine.gemm_double + 3 * moved)


def factor_seconds(weights: int, machine: Machine) -> float:
    """The time of a Cholesky factor."""
    return weights**3 / 3 / machine.gemm_double
