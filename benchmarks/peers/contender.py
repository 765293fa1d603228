"""What a peer must be able to do with a problem."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

from .problem import Problem, Weights


class Unable(Exception):
    """A contender cannot do this on this machine, or does something else; the text says why."""


class Contender(ABC):
    """Trains a problem. The data lie in its own memory, in its own form, before the clock runs."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.first = problem.first_weights()

    @abstractmethod
    def restart(self, first: Weights) -> None:
        """Take these weights and forget what momentum there is; not timed."""

    @abstractmethod
    def epoch(self) -> float:
        """Visit every row once; the loss, averaged over the steps, each measured before its update."""

    def seconds(self) -> float:
        """Seconds of a step, averaged over the problem's epochs, from the first weights."""
        self.restart(self.first)
        began = time.perf_counter()
        for _ in range(self.problem.epochs):
            self.epoch()
        return (time.perf_counter() - began) / (self.problem.epochs * self.problem.steps)

    def warm(self, seconds: float) -> None:
        """Run once more, now that everything is compiled."""
        self.seconds()

    def curve(self, first: Weights, epochs: int) -> list[float]:
        """The loss of each epoch from the given weights."""
        self.restart(first)
        return [self.epoch() for _ in range(epochs)]

    def facts(self) -> dict[str, Any]:
        """What else there is to tell, once it has run: thread pools, which code ran."""
        try:
            from threadpoolctl import threadpool_info
        except ModuleNotFoundError:  # comes with scikit-learn
            return {}
        pools = [(p["internal_api"], p["version"] or "", p["num_threads"]) for p in threadpool_info()]
        return {"thread_pools": [f"{api} {version} ({threads} threads)" for api, version, threads in pools]}
