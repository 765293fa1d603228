"""How a TRAIN that runs is shown."""

from __future__ import annotations

import time
from typing import Protocol, TextIO

from .figures import number
from .record import record


@record
class Standing:
    """Where training stands after a step; ``seconds_left`` is None where nobody knows when it will end."""

    epoch: int
    step: int
    steps_per_epoch: int
    loss: float
    rows_per_second: float
    seconds_left: float | None


class Progress(Protocol):
    """What a session tells while it trains."""

    def start(self, *, model: str, epochs: int | None, rows: int) -> None:
        """Training of a model begins."""

    def update(self, standing: Standing) -> None:
        """A step is done."""

    def stop(self) -> None:
        """Training has ended, whichever way."""


class TerminalProgress:
    """One line on a terminal, drawn at most ten times a second and erased at the end."""

    INTERVAL = 0.1
    ERASE = "\r\x1b[K"

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.is_terminal = stream.isatty()
        self.drawn = False

    def start(self, *, model: str, epochs: int | None, rows: int) -> None:
        self.model, self.epochs = model, epochs
        self.last = time.monotonic()

    def update(self, standing: Standing) -> None:
        now = time.monotonic()
        if not self.is_terminal or now - self.last < self.INTERVAL:
            return
        self.last, self.drawn = now, True
        of = f"/{self.epochs}" if self.epochs else ""
        left = "" if standing.seconds_left is None else f"  {remaining(standing.seconds_left)} left"
        rate = f"{number(standing.rows_per_second)} rows/s"
        line = f"training {self.model}  epoch {standing.epoch}{of}  loss {standing.loss:.4g}  {rate}{left}"
        self.stream.write(self.ERASE + line)
        self.stream.flush()

    def stop(self) -> None:
        if self.drawn:
            self.stream.write(self.ERASE)
            self.stream.flush()
            self.drawn = False


def remaining(seconds: float) -> str:
    """4 s, 2 min 05 s, 1 h 10 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
