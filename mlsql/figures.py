"""Figures for people: counts, times, sizes, shares."""

from __future__ import annotations


def number(value: float | None) -> str:
    """A count: 1437, 24.6k, 1.2M."""
    if value is None:
        return "?"
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            scale = 1e3 if unit == "k" else limit
            return f"{value / scale:.3g}{unit}"
    return f"{value:.0f}"


def duration(seconds: float | None) -> str:
    """A time: 1.2 µs, 34 ms, 5.6 s, 2.1 min."""
    if seconds is None:
        return ""
    if seconds == 0:
        return "0"
    for limit, unit in ((1e-3, "µs"), (1.0, "ms"), (120.0, "s")):
        if seconds < limit * 0.9995:
            scale = {"µs": 1e6, "ms": 1e3, "s": 1.0}[unit]
            return f"{figures(seconds * scale)} {unit}"
    return f"{figures(seconds / 60)} min"


def figures(value: float) -> str:
    """A value with two or three figures and no exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 10 else f"{value:.2g}"


def share(part: float | None, whole: float) -> str:
    """A part of a whole in percent; nothing for less than half a thousandth."""
    if part is None or whole <= 0 or part / whole < 0.0005:
        return ""
    percent = 100 * part / whole
    return f"{percent:.0f}%" if percent >= 9.95 else f"{percent:.1f}%"


def rate(work: float, seconds: float) -> str:
    """Work a second in units of 10^9; nothing where nothing was measured."""
    return f"{figures(work / seconds / 1e9)}" if work and seconds > 0 else ""


def factor(before: float | None, after: float | None) -> float | None:
    """How many times the second goes into the first."""
    return before / after if before is not None and after else None


def size(bytes: float) -> str:
    """A number of bytes as people say it."""
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if bytes >= length:
            return f"{bytes / length:.3g} {unit}"
    return f"{bytes:.0f} bytes"


def count(number: float) -> str:
    """A number without needless digits."""
    return f"{number:,.0f}"
