"""A model of plain arithmetic as SQL: DuckDB scores in its own scan, and no row leaves it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ...executor.dataset import by_source, leaf_sql
from ...executor.predict import CHUNK_ROWS
from ...optimizer.rule import QUERY_RULES, Alternative, query_rule
from ...parser.blocks import Block
from ...parser.statements import PredictCall
from ...planner.model import DataColumn
from ...planner.node import Node
from ...planner.ops import Parameter
from ...planner.sql_form import NoForm, Sql, sql_form
from ...types import DOUBLE, FLOAT
from .context import Edit, QueryText, Rewriting
from .functions import NO_COLUMN, scored

READ = 4  # operations for a column of one row: its conversion, and whether it is NULL


@query_rule(
    law="a model of plain arithmetic is an SQL expression",
    before="SELECT PREDICT(m, a, b) FROM t",
    after="SELECT CAST(0.5 * a + 2 * b + 1 AS FLOAT) FROM t",
    when="the output is one number made by + - * / exp tanh abs greatest and products with known weights, from "
    "numbers and vectors; rows with a NULL still go to the model, which says what is wrong with them; and DuckDB takes "
    "less time for the operations than for handing over the rows",
    why="DuckDB computes it in its own scan, in all threads, and no row goes through Python",
    databases="inlining a function; a view that is expanded",
    learning="exporting a model as SQL, in-database scoring",
    example="""CREATE MODEL score INPUT (a FLOAT, b FLOAT) PARAMETERS (w FLOAT[2] INIT [0.5, 2])
AS SELECT DOT([a, b], w) + 1 AS z, SIGMOID(z) AS prediction;
CREATE TABLE wide AS SELECT (i % 7)::FLOAT AS a, (i % 5)::FLOAT AS b FROM range(100000) AS r(i);
SELECT round(sum(PREDICT(score, a, b))) AS total FROM wide""",
)
def inline_as_sql(query: QueryText) -> Iterator[Rewriting]:
    for block in query.blocks:
        for call in query.open_calls(block):
            if not query.variant(call).lenient and is_in_one_block(query, block, call):
                yield from inlined(query, block, call)


def is_in_one_block(query: QueryText, block: Block, call: PredictCall) -> bool:
    """Whether the model is called in one SELECT only: its values are rounded a little differently in SQL, and must not
    be compared with those of the function."""
    name, place = str(call.model).lower(), block.place
    same = [c for c in query.statement.predicts if str(c.model).lower() == name and not query.variant(c).final]
    return all(place.start <= c.place.start < place.end for c in same)


def inlined(query: QueryText, block: Block, call: PredictCall) -> Iterator[Rewriting]:
    """The block with the calls that are the same as one written out, if this is cheaper."""
    rows, references = query.block_rows(block), query.references(call)
    if rows is None or rows <= CHUNK_ROWS or references is None:
        return
    found = form_of(query, call)
    if found is None:
        return
    sql, guard, columns = found
    before = rows * query.row_seconds(call)
    after = rows * (sql.operations + columns * READ) / query.session.machine().sql
    if after >= before:
        rule, reason = QUERY_RULES["inline_as_sql"], f"{sql.operations} operations a row are too many for DuckDB"
        what = f"{call.place.source} as SQL"
        query.known.alternatives.append(Alternative("place", rule.name, what, after, before, reason, rule))
        return
    edits = []
    for c in query.open_calls(block):
        if c.place.source != call.place.source:
            continue
        again = query.call_text(c, replace(query.variant(c), final=True))
        text = f"coalesce(CASE WHEN {guard} THEN NULL ELSE {sql.text} END, {again})"
        edits.append(Edit(c.place, f"{text} AS {query.column(c)}" if c.is_column else text))
    yield query.rewriting(block, edits, cost_before=before, cost_after=after)


def form_of(query: QueryText, call: PredictCall) -> tuple[Sql, str, int] | None:
    """The SQL of a call, the condition under which the model itself has to look at the row, and the columns read."""
    model, version = query.model(call)
    variant = query.variant(call)
    scoring = scored(query.session, model, version, [variant.output], replace(variant, only_read=True))
    [output] = scoring.plan.outputs.values()
    if output.type.shape or output.type.element not in (FLOAT, DOUBLE) or NO_COLUMN in scoring.leaves:
        return None
    if any(leaf.vocabulary is not None or leaf.fill is not None for leaf in scoring.leaves):
        return None
    given = query.lowering.arguments(call, model, [])
    every = scoring.leaves if variant.only_read else model.input_leaves  # none of which may be NULL
    texts = {leaf.column: leaf_sql(leaf, model, given) for leaf in (*every, *scoring.leaves)}
    columns: Mapping[Node, str] = {c: texts[c] for c in (leaf.column for leaf in scoring.leaves)}
    parameters = {n: a for n, a in scoring.parameters.items() if isinstance(n, Parameter)}
    values: dict[Node, list[float]] = {n: a.reshape(-1).tolist() for n, a in parameters.items()}
    try:
        form = sql_form(output, columns, values)
    except NoForm:
        return None
    element = output.type.element.name
    checks = [refused(group[0], texts[group[0].column]) for group in by_source(every)]
    return Sql(f"TRY_CAST({form.text} AS {element})", form.operations + 1), " OR ".join(checks), len(checks)


def refused(leaf: DataColumn, text: str) -> str:
    """The SQL of whether the model would refuse the value of a leaf."""
    shape = leaf.column.type.shape
    if not shape:
        return f"{text} IS NULL"
    return f"{text} IS NULL OR len({text}) <> {shape[0]} OR list_count({text}) <> {shape[0]}"
