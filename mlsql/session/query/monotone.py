"""PREDICT under a rising function: comparisons and orders have no need of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ...errors import Error
from ...executor.thresholds import crossing, neighbours
from ...optimizer.rule import query_rule
from ...optimizer.stages import optimize
from ...parser.blocks import Block
from ...parser.conditions import Comparison, comparison
from ...parser.statements import PredictCall
from ...planner.monotone import inside
from ...planner.node import Node, substitute
from ...planner.ops import Column
from ...planner.plan import Plan
from ...types import DOUBLE, FLOAT
from .context import Edit, QueryText, Rewriting


@query_rule(
    law="f(z) > c ⇔ z > f⁻¹(c) for a rising f",
    before="WHERE PREDICT(m, x) > 0.9, where the prediction is SIGMOID(z)",
    after="WHERE z >= 2.1972246",
    when="the output is SIGMOID, TANH, EXP or a positive multiple of something, and is compared with a literal. The "
    "number that z is compared with is found with the model's own kernel, so that the same rows pass",
    why="the function is not computed, and what is left may be plain enough to be SQL",
    databases="a sargable predicate",
    learning="thresholds on logits in the place of probabilities",
    example="""CREATE MODEL score INPUT (a FLOAT) PARAMETERS (w FLOAT INIT 0.5) AS SELECT SIGMOID(a * w) AS prediction;
CREATE TABLE marks AS SELECT (i % 100)::FLOAT AS a FROM range(10000) AS r(i);
SELECT count(*) FROM marks WHERE PREDICT(score, a) > 0.9""",
)
def monotone_comparison(query: QueryText) -> Iterator[Rewriting]:
    for block in query.blocks:
        for condition in block.conditions:
            found = comparison(condition, block.tokens)
            if found is None or not may_go_inside(query, block, found.call):
                continue
            bounds = [bound(query, found, op, literal) for op, literal in found.bounds]
            if any(b is None for b in bounds):
                continue
            variant = replace(query.variant(found.call), inside=True, only_read=len(block.items) == 1)
            if not query.may_skip(found.call, variant):
                continue
            call = query.call_text(found.call, variant)
            text = " AND ".join(f"{call} {b}" for b in bounds)
            edits = [Edit(condition.place, f"({text})" if len(bounds) > 1 else text)]
            yield query.rewriting(block, edits)


@query_rule(
    law="ORDER BY f(z) = ORDER BY z for a rising f",
    before="ORDER BY PREDICT(m, x), where the prediction is SIGMOID(z)",
    after="ORDER BY z",
    when="it is the last key and there is no LIMIT: rows that f makes equal may come in any order",
    why="the function is not computed, and what is left may be plain enough to be SQL",
    databases="removing a monotone function from a sort key",
    learning="ranking by logits",
    example="""CREATE MODEL score INPUT (a FLOAT) PARAMETERS (w FLOAT INIT 0.5) AS SELECT SIGMOID(a * w) AS prediction;
CREATE TABLE marks AS SELECT (i % 10)::FLOAT AS a FROM range(10000) AS r(i);
SELECT a FROM marks ORDER BY PREDICT(score, a)""",
)
def monotone_order(query: QueryText) -> Iterator[Rewriting]:
    for block in query.blocks:
        key = block.order[-1] if block.order else None
        if key is None or block.has("LIMIT", "OFFSET", "GROUP BY", "HAVING", "QUALIFY") or block.distinct:
            continue
        if len(key.calls) == 1 and key.calls[0].place == key.body and may_go_inside(query, block, key.calls[0]):
            variant = replace(query.variant(key.calls[0]), inside=True, only_read=True)
            if query.may_skip(key.calls[0], variant):
                yield query.rewriting(block, [Edit(key.body, query.call_text(key.calls[0], variant))])


def may_go_inside(query: QueryText, block: Block, call: PredictCall) -> bool:
    """Whether a call is a rising function of something, and its value is needed nowhere else in the block."""
    if not query.is_open(call):
        return False
    variant = query.variant(call)
    node = query.model(call)[0].columns[variant.output]
    alone = sum(c.place.source == call.place.source for p in block.pieces for c in p.calls) == 1
    plain = not (variant.lenient or variant.inside) and node.type.element in (FLOAT, DOUBLE)
    return alone and plain and bool(inside(node)[1])


def bound(query: QueryText, found: Comparison, op: str, literal: str) -> str | None:
    """The comparison with what is inside of the function: ``>= 2.19``; None if there is no exact one."""
    node = query.model(found.call)[0].columns[query.variant(found.call).output]
    limit = limit_of(query, node, op, literal)
    if limit is None:
        return None
    argument, _ = inside(node)
    column = Column("inside", argument.type.rows, argument.type.element)
    plan = optimize(Plan({"value": substitute([node], {argument: column})[0]})).plan
    rises = op in (">", ">=")
    at = crossing(plan, column, lambda y: y >= limit if rises else y > limit)
    if at is None:
        return None
    element = argument.type.element.name
    if at != at:  # not even at infinity; NaN is the largest number of all, as DuckDB has it
        return f"{'>' if rises else '<='} CAST('inf' AS {element})"
    return f"{'>=' if rises else '<'} CAST('{at!r}' AS {element})"


def limit_of(query: QueryText, node: Node, op: str, literal: str) -> float | None:
    """The first of the numbers that pass a comparison that asks for more, the last of those that ask for less."""
    element = node.type.element
    try:
        near = neighbours(float(literal), element.storage)
        values = ", ".join(f"CAST('{float(v)!r}' AS {element.name}) {op} {literal}" for v in near)
        [(passes,)] = query.session.storage.rows(f"SELECT [{values}]")
    except (Error, ValueError):
        return None
    passing = [float(v) for v, passed in zip(near, passes, strict=True) if passed]
    if not passing or len(passing) == len(near):
        return None
    return passing[0] if op in (">", ">=") else passing[-1]
