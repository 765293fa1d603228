"""Learning rates over time, as plans of one number that depends on the step alone."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..planner.node import Node
from ..planner.ops import Add, Cos, Divide, Less, Minimum, Multiply, Subtract, Where, constant

Schedule = Callable[[Node], Node]
SCHEDULES: dict[str, Schedule] = {}


def schedule(function: Schedule) -> Schedule:
    """Declare a schedule: from progress (0 at the first step, 1 at the end) to a factor."""
    SCHEDULES[function.__name__.removesuffix("_")] = function
    return function


@schedule
def constant_(progress: Node) -> Node:
    """The same rate throughout."""
    return constant(1)


@schedule
def cosine(progress: Node) -> Node:
    """Half a cosine wave, from 1 down to 0 (Loshchilov and Hutter, "SGDR", 2017)."""
    wave = Cos(Multiply(progress, constant(math.pi)))
    return Multiply(constant(0.5), Add(constant(1), wave))


@schedule
def linear(progress: Node) -> Node:
    """A straight line from 1 down to 0."""
    return Subtract(constant(1), progress)


@schedule
def step(progress: Node) -> Node:
    """A tenth after half of the steps, a hundredth after three quarters (He et al., 2016)."""
    late = Where(Less(progress, constant(0.75)), constant(0.1), constant(0.01))
    return Where(Less(progress, constant(0.5)), constant(1), late)


def learning_rate(base: float, name: str, warmup_steps: int, total_steps: int, step: Node) -> Node:
    """The learning rate at ``step`` (from 1): the schedule, after a linear rise over the first ``warmup_steps``."""
    done = Subtract(step, constant(1))
    progress = Minimum(Divide(done, constant(max(1, total_steps))), constant(1))
    rate: Node = Multiply(constant(base), SCHEDULES[name](progress))
    if warmup_steps:
        rate = Multiply(rate, Minimum(Divide(step, constant(warmup_steps)), constant(1)))
    return rate
