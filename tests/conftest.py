"""Collects ``*.test`` files: statements with the rows, the plan or the error that they must give.

A file is one session of a database in memory; its cases run in order. A case is a line that says what to expect, the
statement, and after ``----`` what comes out, up to an empty line::

    rows
    SELECT 1 + 1, 'two'
    ----
    2 | two

    error
    SELEC 1
    ----
    ...syntax error at or near "SELEC"...

``ok`` expects nothing but success. ``rows`` compares values cell by cell, numbers to four significant digits or to
the tolerance in ``rows 1e-2``. ``plan`` compares lines. A line ``...`` stands for any lines, and ``...`` inside a line
for any text. ``same LABEL`` expects the rows that every other case of that label gives: equal plans, for example.
"""

from __future__ import annotations

import fnmatch
import math
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ["MLSQL_MACHINE"] = "default"  # plans are those of the assumed machine, wherever the tests run
CACHE = tempfile.TemporaryDirectory(prefix="mlsql-tests-", ignore_cleanup_errors=True)  # no test sees the user's own
os.environ["MLSQL_CACHE"] = CACHE.name
settings.register_profile("shared", deadline=None)  # other processes may want the cores at any moment
settings.load_profile("shared")

DIRECTIVE = re.compile(r"^(ok|rows|plan|error|same)\b ?(.*)$")


def pytest_unconfigure() -> None:
    CACHE.cleanup()


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> pytest.Collector | None:
    if file_path.suffix == ".test":
        return SqlFile.from_parent(parent, path=file_path)
    return None


class SqlFile(pytest.File):
    """One file: a session and its cases."""

    def collect(self) -> Iterator[pytest.Item]:
        self.labels: dict[str, list[str]] = {}
        lines = self.path.read_text(encoding="utf-8").split("\n")
        at = 0
        while at < len(lines):
            match = DIRECTIVE.match(lines[at])
            if match is None:
                if lines[at].strip() and not lines[at].startswith("#"):
                    raise ValueError(f"{self.path}:{at + 1}: expected a directive, got {lines[at]!r}")
                at += 1
                continue
            first = at + 1
            end = first
            while end < len(lines) and lines[end] != "----" and lines[end].strip():
                end += 1
            statement, expected = "\n".join(lines[first:end]), []
            if end < len(lines) and lines[end] == "----":
                stop = end + 1
                while stop < len(lines) and lines[stop].strip():
                    stop += 1
                expected, end = lines[end + 1 : stop], stop
            name = f"{at + 1}: {' '.join(statement.split())[:60]}"
            yield SqlCase.from_parent(
                self, name=name, kind=match[1], argument=match[2], statement=statement, expected=expected, line=at
            )
            at = end

    def setup(self) -> None:
        import mlsql

        self.connection = mlsql.connect(progress=False)

    def teardown(self) -> None:
        self.connection.close()


class SqlCase(pytest.Item):
    """One statement and what it must give."""

    def __init__(self, *, kind: str, argument: str, statement: str, expected: list[str], line: int, **rest: Any):
        super().__init__(**rest)
        self.kind, self.argument, self.statement = kind, argument, statement
        self.expected, self.line = expected, line

    def runtest(self) -> None:
        import mlsql

        file = self.parent
        assert isinstance(file, SqlFile)
        if self.kind == "error":
            with pytest.raises(mlsql.Error) as caught:
                file.connection.execute(self.statement).fetchall()
            compare_lines(str(caught.value).split("\n"), self.expected)
            return
        cursor = file.connection.execute(self.statement)
        rows = cursor.fetchall() if cursor.description else []
        if self.kind == "rows":
            compare_rows(rows, self.expected, float(self.argument or 1e-4))
        elif self.kind == "plan":
            compare_lines(lines_of(rows), self.expected)
        elif self.kind == "same":
            first = file.labels.setdefault(self.argument, lines_of(rows))
            assert lines_of(rows) == first, f"not the same as the first case labelled {self.argument}"

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        if isinstance(excinfo.value, AssertionError):
            return f"{self.path}:{self.line + 1}\n{self.statement}\n{excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, self.line, self.name


def lines_of(rows: list[tuple[Any, ...]]) -> list[str]:
    """Rows as lines of text; what a plan's single column holds is taken as it is."""
    return [" | ".join(shown(v) for v in row).rstrip() for row in rows]


def shown(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(shown(v) for v in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {shown(v)}" for k, v in value.items()) + "}"
    return str(value)


NUMBER = re.compile(r"[-+]?\d*\.?\d+(?:e[-+]?\d+)?|\bnan\b|[-+]?\binf\b", re.IGNORECASE)


def close(got: str, expected: str, tolerance: float) -> bool:
    """Whether two cells agree: their numbers to the tolerance, the text between them exactly."""
    if fnmatch.fnmatchcase(got, escaped(expected)):
        return True
    if NUMBER.split(got) != NUMBER.split(expected):
        return False
    pairs = zip(NUMBER.findall(got), NUMBER.findall(expected), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=tolerance, abs_tol=tolerance) for a, b in pairs)


def escaped(pattern: str) -> str:
    """A pattern in which only ``...`` is special."""
    return "*".join(re.sub(r"([*?\[])", r"[\1]", part) for part in pattern.split("..."))


def compare_rows(rows: list[tuple[Any, ...]], expected: list[str], tolerance: float) -> None:
    got = lines_of(rows)
    same = len(got) == len(expected) and all(close(g, e.strip(), tolerance) for g, e in zip(got, expected, strict=True))
    assert same, "got\n" + "\n".join(got) + "\nexpected\n" + "\n".join(expected)


def compare_lines(got: list[str], expected: list[str]) -> None:
    """Lines against a pattern of lines."""
    got = [line.rstrip() for line in got]
    assert matches(got, expected), "got\n" + "\n".join(got) + "\nexpected\n" + "\n".join(expected)


def matches(got: list[str], expected: list[str]) -> bool:
    if not expected:
        return not got
    if expected[0] == "...":
        return any(matches(got[i:], expected[1:]) for i in range(len(got) + 1))
    return bool(got) and fnmatch.fnmatchcase(got[0], escaped(expected[0])) and matches(got[1:], expected[1:])
