"""EVALUATE."""

from __future__ import annotations

from .reader import Reader
from .statements import Evaluate
from .table import statement


@statement("EVALUATE")
def evaluate(read: Reader) -> Evaluate:
    """``EVALUATE model [VERSION n] ON query [AS relation], ... [WITH (metric, ...)]``."""
    read.expect("EVALUATE")
    model = read.name()
    version = read.whole_number("a version's number") if read.accept("VERSION") else None
    read.expect("ON")
    on, *others = read.sources()
    metrics = []
    if read.accept("WITH"):
        for part in read.groups():
            metrics.append(part.name("a metric"))
            part.expect_end()
    read.expect_end()
    return Evaluate(model, version, on, tuple(metrics), read.span(read.tokens), tuple(others))
