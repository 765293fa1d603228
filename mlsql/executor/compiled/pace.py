"""How many steps to run at a time, and on how many threads.

Threads that meet at every loop are fast while each has a core of its own. Where other processes want the cores too, a
thread waits for another one that is not running, and one thread alone is faster. So the other number of threads is
tried now and then, more rarely as long as it loses, and the faster one goes on. A trial begins with a few steps; if
those of several threads are not hopeless, some more decide, since waking a thread takes as long as some steps.
"""

from __future__ import annotations

from collections.abc import Sequence

STRIDE_SECONDS = 0.05  # between looks at the clock, the keyboard and whoever waits for progress
FEW_STEPS, TRIAL_SECONDS = 6, 0.02
HOPELESS = 4.0  # times as slow
FIRST_TRIAL = 0.1  # seconds until the first trial: caches are filled by then, and threads are awake
FIRST_AGAIN, LAST_AGAIN, BACK_OFF = 0.25, 8.0, 3  # seconds to the next trial; more with every trial that loses
BETWEEN = 10  # steps at least from one trial to the next: a step of a trial may take twice as long
FASTEST_GROWTH = 8  # a stride is at most so many times as long as the one before


class Pace:
    """``choices`` are numbers of threads, the one that is expected to be fastest first."""

    def __init__(self, choices: Sequence[int]) -> None:
        self.best, self.others = choices[0], list(choices[1:])
        self.each: float | None = None  # seconds of a step on the best number of threads, as it was last
        self.steps = 0  # of the last stride on the best number of threads
        self.trying: float | None = None  # seconds of a step in the trial that has begun
        self.again, self.since = FIRST_TRIAL, 0.0

    def next(self) -> tuple[int, int]:
        """The threads and the steps of the next stride."""
        if self.each is None:
            return self.best, 1 if not self.steps else FEW_STEPS
        if self.others and self.trying is not None:
            return self.others[0], max(1, int(TRIAL_SECONDS / self.each))
        if self.others and self.since > max(self.again, BETWEEN * self.each):
            return self.others[0], max(1, min(FEW_STEPS, int(TRIAL_SECONDS / self.each)))
        most = min(STRIDE_SECONDS / self.each, FASTEST_GROWTH * self.steps)
        return self.best, max(1, int(most))

    def took(self, threads: int, steps: int, seconds: float) -> None:
        """So many steps took so long."""
        each = max(seconds / steps, 1e-9)
        if threads == self.best:
            self.each = each if self.steps else None  # the first step of all wakes threads and fills caches
            self.steps, self.since = steps, self.since + seconds
        elif threads > 1 and self.trying is None and self.each is not None and each < HOPELESS * self.each:
            self.trying = each  # threads may just have been woken
        else:
            self.judge(threads, each)

    def judge(self, threads: int, each: float) -> None:
        """The end of a trial."""
        assert self.each is not None
        self.trying, self.since = None, 0.0
        if each < self.each:
            self.others, self.best, self.each = [self.best], threads, each
            self.again = FIRST_AGAIN
        else:
            self.again = min(max(BACK_OFF * self.again, FIRST_AGAIN), LAST_AGAIN)
