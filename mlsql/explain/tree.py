"""A view as a tree of text: a line an operator, indented under the operator that reads it.

An operator that several read stands under the first; the formulas of the others have its name. Where a plan is deeper
than a screen is wide, the rest of a branch goes straight down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..figures import duration, figures, number, rate, share
from ..record import record
from .view import Lines, Operator, PlanView

WIDTH = 160
DEEPEST = 18  # levels of indentation
Line = tuple[str, Operator | None]


@record
class Column:
    """A column beside the tree: its heading and the text of an operator's cell."""

    heading: str
    cell: Callable[[Operator, PlanView], str]
    is_number: bool = True


def rows_text(o: Operator) -> str:
    """How many rows: nothing for a value that belongs to no row; with an arrow, how many there really were."""
    if not o.has_rows:
        return ""
    expected = number(o.rows)
    real = expected if o.actual is None else number(o.actual.rows)
    return expected if real == expected else f"{expected} → {real}"


ALWAYS = (
    Column("when", lambda o, v: o.when, is_number=False),
    Column("rows", lambda o, v: rows_text(o)),
    Column("type", lambda o, v: o.type, is_number=False),
    Column("flops", lambda o, v: number(o.flops) if o.flops else ""),
    Column("bytes", lambda o, v: number(o.bytes) if o.bytes else ""),
)
ESTIMATED = (
    Column("a run", lambda o, v: duration(o.seconds or None)),
    Column("share", lambda o, v: share(o.total_seconds, v.whole)),
)
MEASURED = (
    Column("estimate", lambda o, v: duration(o.seconds or None)),
    Column("actual", lambda o, v: duration(o.actual.seconds / o.actual.runs) if o.actual else ""),
    Column("off", lambda o, v: off(o, v)),
    Column("runs", lambda o, v: number(o.actual.runs) if o.actual else ""),
    Column("share", lambda o, v: share(o.actual.seconds, v.whole) if o.actual else ""),
    Column("GF/s", lambda o, v: rate(o.actual.flops, o.actual.seconds) if o.actual else ""),
    Column("GB/s", lambda o, v: rate(o.actual.bytes, o.actual.seconds) if o.actual else ""),
)
PLACE = (Column("runs in", lambda o, v: o.place, is_number=False),)


def off(o: Operator, view: PlanView) -> str:
    """The mark of an estimate that is wrong: by what factor the real time is larger or smaller."""
    if o.actual is None or not o.seconds or not o.is_misestimated(view.whole):
        return ""
    ratio = o.actual.seconds / o.actual.runs / o.seconds
    return f"! ×{figures(ratio)}" if ratio >= 1 else f"! /{figures(1 / ratio)}"


def tree(view: PlanView) -> list[str]:
    """All of a view as lines of text."""
    lines: list[Line] = [(view.top, None), *branches(view)]
    return [view.title, *block(view.above), *table(lines, view, columns_of(view)), *summary(view), *block(view.below)]


def columns_of(view: PlanView) -> Sequence[Column]:
    """The columns that say something: no times while sizes are unknown."""
    if view.actual_seconds is not None:
        columns = [*ALWAYS[:3], *MEASURED]
    else:
        columns = [*ALWAYS, *(ESTIMATED if view.seconds is not None else ())]
    columns += PLACE
    return [c for c in columns if any(c.cell(o, view) for o in view.operators)]


def branches(view: PlanView) -> list[Line]:
    """The lines below the title: from the roots down, every operator once."""
    by_id = view.by_id()
    inputs = claimed(view)
    found: list[Line] = []
    stack = [(*guides("", i == len(view.roots) - 1), r.label, r.operator) for i, r in enumerate(view.roots)][::-1]
    shown: set[int] = set()
    while stack:
        lead, below, label, i = stack.pop()
        o = by_id[i]
        if i in shown:  # two roots with one operator
            found.append((f"{lead}{label} ← {o.name}", None))
            continue
        shown.add(i)
        found.append((f"{lead}{labelled(label, o.text)}", o))
        last = len(inputs[i]) - 1
        stack += [(*guides(below, n == last), "", child) for n, child in enumerate(inputs[i])][::-1]
    return found


def claimed(view: PlanView) -> dict[int, list[int]]:
    """For every operator the inputs that stand under it: those that no operator before it, depth first, has."""
    by_id = view.by_id()
    under: dict[int, list[int]] = {}
    seen = {r.operator for r in view.roots}
    for root in view.roots:
        stack = [root.operator] if root.operator not in under else []
        parent: dict[int, int] = {}
        while stack:
            i = stack.pop()
            if i in under:
                continue
            under[i] = []
            if i in parent:
                under[parent[i]].append(i)
            fresh = [n for n in by_id[i].inputs if n not in under and n not in seen]
            parent.update(dict.fromkeys(fresh, i))
            stack += reversed(fresh)
    return under


def guides(above: str, is_last: bool) -> tuple[str, str]:
    """What stands before a line, and before the lines under it; deep down, the last branch goes straight on."""
    if is_last and len(above) >= 2 * DEEPEST:
        return above, above
    return above + ("└ " if is_last else "├ "), above + ("  " if is_last else "│ ")


def labelled(label: str, text: str) -> str:
    """A root's label before its operator, said once where both are the same."""
    return text if not label or text == label or text.startswith(f"{label} = ") else f"{label} ← {text}"


def table(lines: Sequence[Line], view: PlanView, columns: Sequence[Column]) -> list[str]:
    """The lines with their columns beside them, aligned."""
    cells = [["" if o is None else c.cell(o, view) for c in columns] for _, o in lines]
    widths = [max([len(c.heading), *(len(row[i]) for row in cells)]) for i, c in enumerate(columns)]
    room = WIDTH - sum(widths) - 2 * len(widths)
    width = min(room, max(len(text) for text, o in lines))
    heading = aligned(lines[0][0], [c.heading for c in columns], widths, columns, width)
    rest = zip(lines[1:], cells[1:], strict=True)
    return [heading, *(aligned(text, row, widths, columns, width) for (text, _), row in rest)]


def aligned(text: str, row: Sequence[str], widths: Sequence[int], columns: Sequence[Column], width: int) -> str:
    """One line: the tree cut to its width, then the cells."""
    cut = text if len(text) <= width else f"{text[: width - 1]}…"
    cells = [cell.rjust(w) if c.is_number else cell.ljust(w) for cell, w, c in zip(row, widths, columns, strict=True)]
    return "  ".join([cut.ljust(width), *cells]).rstrip()


def summary(view: PlanView) -> list[str]:
    """What it comes to, for which machine, and what a reader should know."""
    found = []
    if view.seconds is not None:
        found.append(f"estimated {duration(view.seconds)}{measured_text(view)}")
    if view.machine:
        found.append("machine: " + ", ".join(f"{name} {value}" for name, value in view.machine))
    return [*found, *view.notes]


def measured_text(view: PlanView) -> str:
    """The measured time, and how much of it the operators took."""
    if view.actual_seconds is None:
        return ""
    return f", measured {duration(view.actual_seconds)}, of which operators {duration(view.whole)}"


def block(parts: Sequence[Lines]) -> list[str]:
    """Titled lines, indented."""
    return [line for part in parts for line in (part.title, *(f"  {text}" for text in part.lines))]
