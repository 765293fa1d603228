"""How many steps to run at a time, and on how many threads.

Threads that meet at every loop are fast while each has a core of its own. Where other processes want the cores too, a
thread waits for another one that is not running, and one thread alone is faster. So the other number of threads is
tried now and then, more rarely as long as it loses, and the faster one goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

STRIDE_SECONDS = 0.05  # between looks at the clock, the keyboard and whoever waits for progress
TRIAL_SECONDS = 0.004
TRIAL_STEPS = 4  # at least: the first one wakes the threads
FIRST_AGAIN, LAST_AGAIN = 0.5, 8.0  # seconds from one trial to the next; doubled with every trial that loses
FASTEST_GROWTH = 8  # a stride is at most so many times as long as the one before


class Pace:
    """``choices`` are numbers of threads."""

    def __init__(self, choices: Sequence[int]) -> None:
        self.choices = list(choices)
        self.each: dict[int, float] = {}  # seconds of a step, as it was last
        self.warm: set[int] = set()  # numbers of threads that have run before
        self.last = 0, 0  # the threads and the steps of the last stride
        self.again, self.since = FIRST_AGAIN, 0.0

    @property
    def best(self) -> int:
        return min(self.choices, key=lambda c: self.each.get(c, 0.0))

    def next(self) -> tuple[int, int]:
        """The threads and the steps of the next stride."""
        for threads in self.choices:
            if threads not in self.warm:
                return threads, 1
        for threads in self.choices:
            if threads not in self.each:
                return threads, TRIAL_STEPS
        best = self.best
        if self.since > self.again and len(self.choices) > 1:
            other = next(c for c in self.choices if c != best)
            return other, max(TRIAL_STEPS, int(TRIAL_SECONDS / self.each[best]))
        threads, steps = self.last
        most = FASTEST_GROWTH * steps if threads == best else STRIDE_SECONDS / self.each[best]
        return best, max(1, int(min(most, STRIDE_SECONDS / self.each[best])))

    def took(self, threads: int, steps: int, seconds: float) -> None:
        """So many steps took so long."""
        self.last = threads, steps
        self.since += seconds
        if threads not in self.warm:
            self.warm.add(threads)
            return
        best = self.best if len(self.each) == len(self.choices) else threads
        self.each[threads] = max(seconds / steps, 1e-9)
        if threads != best:  # a trial
            lost = self.each[threads] > self.each[best]
            self.again, self.since = min(2 * self.again, LAST_AGAIN) if lost else FIRST_AGAIN, 0.0
