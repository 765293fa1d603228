"""One family of errors: what is wrong, where in the text, and what to write instead.

The classes are PEP 249's, so that a Python program catches ``mlsql.ProgrammingError`` as it would with any
database. Every error can carry a :class:`Place` (the statement is drawn with the culprit underlined) and a hint.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from .record import record

MAX_LINE = 120  # characters of a statement's line that an error shows


@record
class Place:
    """A span of a statement's text: characters ``start`` up to but not including ``end``."""

    text: str
    start: int
    end: int

    @property
    def line(self) -> int:
        """Line of the first character, counted from 1."""
        return self.text.count("\n", 0, self.start) + 1

    @property
    def column(self) -> int:
        """Column of the first character, counted from 1."""
        return self.start - (self.text.rfind("\n", 0, self.start) + 1) + 1

    @property
    def source(self) -> str:
        """The text of the span itself."""
        return self.text[self.start : self.end]

    def draw(self) -> str:
        """The line of the text that holds the span, with the span underlined."""
        first = self.text.rfind("\n", 0, self.start) + 1
        last = self.text.find("\n", self.start)
        line = self.text[first : last if last >= 0 else len(self.text)]
        width = max(1, min(self.end, first + len(line)) - self.start)
        before = line[: self.start - first]
        if len(line) > MAX_LINE:  # show the neighbourhood alone
            cut = max(0, len(before) - MAX_LINE // 2)
            line, before = _cropped(line, cut), "..." * (cut > 0) + before[cut:]
            width = min(width, len(line) - len(before))
        gap = "".join("\t" if c == "\t" else " " for c in before)
        return f"    {line}\n    {gap}{'^' * width}"


def _cropped(line: str, cut: int) -> str:
    """MAX_LINE characters of a line from ``cut`` on, with dots where something is missing."""
    dots = "..." if len(line) > cut + MAX_LINE else ""
    return "..." * (cut > 0) + line[cut : cut + MAX_LINE] + dots


class Warning(Exception):
    """PEP 249's warning class."""


class Error(Exception):
    """The root of every error that mlsql raises on purpose."""

    def __init__(self, message: str, *, place: Place | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.hint = hint

    def at(self, place: Place | None) -> Error:
        """This error, given a place if it has none yet."""
        if self.place is None:
            self.place = place
        return self

    def __str__(self) -> str:
        lines = [self.message]
        if self.place is not None:
            lines = [f"line {self.place.line}, column {self.place.column}: {self.message}", self.place.draw()]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class InterfaceError(Error):
    """Misuse of the Python interface: a closed cursor, a fetch without a result."""


class DatabaseError(Error):
    """Anything that concerns the database."""


class DataError(DatabaseError):
    """The rows themselves are at fault: a NULL, a list of the wrong length, an unknown label."""


class OperationalError(DatabaseError):
    """The surroundings are at fault: a locked file, no memory, training that diverges."""


class IntegrityError(DatabaseError):
    """What is stored contradicts itself: a parameter whose checksum does not match."""


class InternalError(DatabaseError):
    """A defect of mlsql or of DuckDB."""


class ProgrammingError(DatabaseError):
    """The statement is wrong: syntax, names, types, shapes, options."""


class NotSupportedError(DatabaseError):
    """The statement is right, but this version cannot run it."""


def suggest(word: str, known: Iterable[str]) -> str | None:
    """A hint that names the known word closest to ``word``, if one is close."""
    by_lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return f'did you mean "{by_lower[close[0]]}"?' if close else None


def listed(names: Iterable[object]) -> str:
    """Names for a message: ``a, b and c``."""
    words = [str(n) for n in names]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
