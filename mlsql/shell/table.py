"""Rows as a table that a person can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "UINT", "UBIGINT")
LIST_ITEMS = 4
MAX_CELL = 60
MAX_LAST_CELL = 160
MAX_ROWS = 100
COUNTED_FROM = 10  # results of this many rows are counted below the table


def table_text(columns: Sequence[tuple[str, str]], rows: Sequence[tuple[Any, ...]], more: bool = False) -> str:
    """The rows under their columns' names, numbers to the right.

    A single column of text, such as a plan, is printed as it is. ``more`` says that there are rows beyond these.
    """
    is_text = len(columns) == 1 and columns[0][1] == "VARCHAR"
    if is_text and (columns[0][0] == "plan" or any("\n" in str(row[0]) for row in rows)):
        return "\n".join(str(row[0]) for row in rows)
    widest = [MAX_CELL] * (len(columns) - 1) + [MAX_LAST_CELL]  # nothing has to be aligned with the last column
    types = [type_text for _, type_text in columns]
    cells = [[cell(*facts) for facts in zip(row, types, widest, strict=True)] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, (name, _) in enumerate(columns)]
    right = [type_text.startswith(NUMBERS) and "[" not in type_text for _, type_text in columns]
    lines = [line([name for name, _ in columns], widths, right), "  ".join("-" * w for w in widths)]
    lines += [line(row, widths, right) for row in cells]
    if more:
        lines.append(f"({len(rows)} rows shown, there are more)")
    elif len(rows) >= COUNTED_FROM or not rows:
        lines.append(f"({len(rows)} rows)")
    return "\n".join(lines)


def line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    """One line of the table."""
    aligned = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)]
    return "  ".join(aligned).rstrip()


def cell(value: Any, type_text: str, widest: int = MAX_CELL) -> str:
    """A value on one line: lists and texts cut, floats to their seven or so digits."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        shown = ", ".join(cell(v, "") for v in value[:LIST_ITEMS])
        return f"[{shown}, ... {len(value)} values]" if len(value) > LIST_ITEMS else f"[{shown}]"
    text = str(value).replace("\n", "\\n")
    return text if len(text) <= widest else text[: widest - 3] + "..."
