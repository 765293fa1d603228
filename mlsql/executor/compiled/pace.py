"""How many steps to run at a time, and on how many threads.

Threads that meet at every loop are fast while each has a core of its own. Where other processes want the cores too, a
thread waits for another one that is not running, and one thread alone is faster. So now and then the other number of
threads is tried for a moment, and the faster one goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

STRIDE_SECONDS = 0.05  # between looks at the clock, the keyboard and whoever waits for progress
TRIAL_SECONDS = 0.002
AGAIN_SECONDS = 1.0  # from one trial of another number of threads to the next
FASTEST_GROWTH = 8  # a stride is at most so many times as long as the one before


class Pace:
    """``choices`` are numbers of threads, the one that is expected to be fastest first."""

    def __init__(self, choices: Sequence[int]) -> None:
        self.choices = list(choices)
        self.each: dict[int, float] = {}  # seconds of a step, as it was last
        self.count: dict[int, int] = dict.fromkeys(choices, 1)  # steps of the last stride
        self.since_trial = 0.0

    def next(self) -> tuple[int, int]:
        """The threads and the steps of the next stride."""
        for threads in self.choices:
            if threads not in self.each:
                return threads, 1
        best = min(self.choices, key=self.each.__getitem__)
        if len(self.choices) > 1 and self.since_trial > AGAIN_SECONDS:
            self.since_trial = 0.0
            other = next(c for c in self.choices if c != best)
            return other, max(1, min(self.count[other], int(TRIAL_SECONDS / self.each[other])))
        count = int(STRIDE_SECONDS / max(self.each[best], 1e-9))
        return best, max(1, min(count, FASTEST_GROWTH * self.count[best]))

    def took(self, threads: int, count: int, seconds: float) -> None:
        """So many steps took so long."""
        self.each[threads] = seconds / count
        self.count[threads] = count
        self.since_trial += seconds
