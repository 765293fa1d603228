"""A view in the formats that other programs read: JSON, Mermaid, DOT; and as text or a page."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..figures import duration, number
from .page import page
from .tree import tree
from .view import Json, Operator, PlanView


def rendered(views: Sequence[PlanView], format: str, side: str) -> str:
    """The text of some views in a format."""
    return RENDERERS[format](views, side)


def text(views: Sequence[PlanView], side: str) -> str:
    """Trees, one under another."""
    return "\n".join(line for v in views for line in tree(v))


def as_json(views: Sequence[PlanView], side: str) -> str:
    """Everything about some plans, or their steps or alternatives alone."""
    if side in ("STEPS", "ALTERNATIVES"):
        found: Json = {side.lower(): [plain(x) for v in views for x in getattr(v, side.lower())]}
    else:
        found = {"plans": [plan_json(v) for v in views]}
    return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)


def plan_json(view: PlanView) -> Json:
    """A view without what only the page needs."""
    whole = plain(dataclasses.replace(view, trace=None))
    del whole["trace"]
    for operator, o in zip(whole["operators"], view.operators, strict=True):
        operator["total_seconds"] = o.total_seconds
        operator["misestimated"] = o.is_misestimated(view.whole)
    for alternative, a in zip(whole["alternatives"], view.alternatives, strict=True):
        alternative["factor"] = plain(a.factor)
    return whole  # type: ignore[no-any-return]


def plain(value: Any) -> Any:
    """A value as JSON has it: dataclasses as objects, numbers that JSON lacks as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def mermaid(views: Sequence[PlanView], side: str) -> str:
    """A flow chart of Mermaid's, data below, outputs on top."""
    lines = ["flowchart BT"]
    for p, view in enumerate(views):
        lines.append(f'  subgraph p{p}["{mermaid_text(view.title)}"]')
        lines += [f'    p{p}n{o.id}["{"<br/>".join(map(mermaid_text, captions(o)))}"]' for o in view.operators]
        lines += [f"    p{p}n{i} --> p{p}n{o.id}" for o in view.operators for i in o.inputs]
        for r, root in enumerate(view.roots):
            lines += [f'    p{p}r{r}(["{mermaid_text(root.label)}"])', f"    p{p}n{root.operator} --> p{p}r{r}"]
        lines.append("  end")
    return "\n".join(lines)


def mermaid_text(text: str) -> str:
    """Text that may stand between quotes in Mermaid."""
    for letter, code in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;")):
        text = text.replace(letter, code)
    return text


def dot(views: Sequence[PlanView], side: str) -> str:
    """A graph of Graphviz's, data below, outputs on top."""
    lines = ["digraph plan {", "  rankdir=BT;", '  node [shape=box, style=rounded, fontname="sans-serif"];']
    for p, view in enumerate(views):
        lines += [f"  subgraph cluster_{p} {{", f"    label={quoted(view.title)};"]
        lines += [f"    p{p}n{o.id} [label={quoted(*captions(o))}];" for o in view.operators]
        lines += [f"    p{p}n{i} -> p{p}n{o.id};" for o in view.operators for i in o.inputs]
        for r, root in enumerate(view.roots):
            lines += [
                f"    p{p}r{r} [label={quoted(root.label)}, shape=oval];",
                f"    p{p}n{root.operator} -> p{p}r{r};",
            ]
        lines.append("  }")
    return "\n".join([*lines, "}"])


def quoted(*lines: str) -> str:
    """Lines as one string of DOT."""
    escaped = (line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'


def captions(o: Operator) -> list[str]:
    """What a box says: the operator, its size, its time."""
    size = f"{number(o.rows)} × {o.type}" if o.has_rows else o.type
    return [o.text, " · ".join(filter(None, [size, o.when, o.place, duration(o.seconds or None)]))]


RENDERERS: Mapping[str, Callable[[Sequence[PlanView], str], str]] = {
    "text": text,
    "json": as_json,
    "mermaid": mermaid,
    "dot": dot,
    "html": lambda views, side: page(views),
}
