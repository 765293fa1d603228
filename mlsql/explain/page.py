"""EXPLAIN (FORMAT html): one file that needs no network, in which one steps through what the optimizer did.

The file is ``page.html`` with the plans as data in it; everything that moves is the script in that file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from ..figures import duration, number
from .view import GraphNode, PlanView, TraceView

PLACE = '"the plans"'  # where the template wants its data


def page(views: Sequence[PlanView]) -> str:
    """The page for some plans."""
    template = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return template.replace(PLACE, script_json([plan_data(v) for v in views]), 1)


def script_json(value: Any) -> str:
    """JSON that may stand in a script: no tag can begin or end in it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def plan_data(view: PlanView) -> dict[str, Any]:
    """What the script needs to know of one plan."""
    from .formats import plain

    return {
        "title": view.title,
        "facts": facts(view),
        "notes": view.notes,
        "lines": [plain(part) for part in (*view.above, *view.below)],
        "steps": [plain(s) | {"cost_before": cost(s.cost_before), "cost_after": cost(s.cost_after),
                              "costs": [plain(s.cost_before), plain(s.cost_after)]} for s in view.steps],
        "alternatives": [
            plain(a) | {"seconds": duration(a.seconds), "chosen_seconds": duration(a.chosen_seconds)}
            for a in view.alternatives
        ],
        **trace_data(view.trace),
    }  # fmt: skip


def facts(view: PlanView) -> list[list[str]]:
    """The whole plan in figures."""
    found = [["estimated", duration(view.seconds)]] if view.seconds is not None else []
    if view.actual_seconds is not None:
        found.append(["measured", duration(view.actual_seconds)])
    if view.arena_bytes is not None:
        found.append(["arena", f"{number(view.arena_bytes)} bytes"])
    return [*found, *([name, value] for name, value in view.machine)]


def cost(seconds: float | None) -> str:
    """A cost for people."""
    return "" if seconds is None else duration(seconds)


def trace_data(trace: TraceView | None) -> dict[str, Any]:
    """The graphs, their boxes with figures for people."""
    if trace is None:
        return {"nodes": [], "starts": [], "changes": [], "local": False}
    return {
        "nodes": [node_data(n) for n in trace.nodes],
        "starts": [[i, dataclasses.astuple(c)] for i, c in trace.starts],
        "changes": [dataclasses.astuple(c) for c in trace.changes],
        "local": trace.is_local,
    }


def node_data(n: GraphNode) -> dict[str, Any]:
    """A box, and the figures that are shown of it."""
    size = f"{number(n.rows)} × {n.type}" if n.has_rows else n.type
    figures = {
        "rows": number(n.rows) if n.has_rows else "one value",
        "type": n.type,
        "runs": f"{n.frequency}, {number(n.runs)}×",
        "flops": number(n.flops),
        "bytes": number(n.bytes),
        "estimate": duration(n.seconds or None),
        "runs in": n.place,
    }
    if n.actual is not None:
        figures["measured"] = f"{duration(n.actual.seconds / n.actual.runs)}, {number(n.actual.runs)}×"
    return {
        "name": n.name,
        "text": n.text,
        "operator": n.operator,
        "kind": n.kind,
        "size": f"{size} · {duration(n.seconds)}" if n.seconds else size,
        "once": n.frequency == "once",
        "terms": [n.database, n.network, n.doc],
        "figures": [f for f in figures.items() if f[1]],
        "quiet": n.quiet,
    }
