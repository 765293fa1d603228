"""PREDICT as a table of which one column is read: it becomes a call that computes this one."""

from __future__ import annotations

from collections.abc import Iterator

from ...executor.dataset import quoted
from ...optimizer.rule import query_rule
from ...parser.blocks import Block, Item
from ..per_group import groups_of_version
from .context import Edit, QueryText, Rewriting
from .lowering import SOURCE

ALL_COLUMNS = ("COLUMNS", "NATURAL", "UNPIVOT", "PIVOT")


@query_rule(
    law="what nobody reads is not computed",
    before="SELECT id, prediction FROM PREDICT(m, t)",
    after="SELECT id, prediction FROM (SELECT *, PREDICT(m).prediction AS prediction FROM t)",
    when="the SELECT around PREDICT names at most one column of the model's, and has no star",
    why="the plan of the model keeps one output, and the other rules can see its arguments",
    databases="projection pruning",
    learning="dead code elimination",
    example="""CREATE MODEL pair INPUT (x FLOAT) PARAMETERS (w FLOAT INIT 2)
AS SELECT w * x AS prediction, EXP(x) AS power;
CREATE TABLE numbers AS SELECT i AS id, i::FLOAT AS x FROM range(10) AS r(i);
SELECT id, prediction FROM PREDICT(pair, numbers)""",
)
def unread_outputs(query: QueryText) -> Iterator[Rewriting]:
    for block in query.blocks:
        for item in block.items:
            text = one_column(query, block, item)
            if text is not None:
                yield query.rewriting(block, [Edit(item.source, text)])


def one_column(query: QueryText, block: Block, item: Item) -> str | None:
    """A query in the place of PREDICT as a table, if the block reads at most one column of the model's."""
    call = item.call
    if call is None or len(call.arguments) != 1 or query.lowering.is_of_duckdb(call) or reads_all(block, item):
        return None
    model, version = query.model(call)
    if model.skeleton is not None or groups_of_version(query.session, version) is not None or not model.inputs:
        return None
    words = {t.text.lower() for t in block.tokens if not item.source.start <= t.start < item.source.end}
    read = [name for name in model.columns if name.lower() in words]
    argument = call.arguments[0].place
    columns = query.lowering.columns_of(query.sql(argument).strip(), call, model, version)
    if len(read) != 1 or not columns:
        return None
    outputs = {name.lower() for name in model.columns}
    hidden = [quoted(name) for name in columns if name.lower() in outputs]
    star = f"* EXCLUDE ({', '.join(hidden)})" if hidden else "*"
    end = call.arguments[0].whole.start
    head = query.text[call.place.start : end].rstrip().rstrip(",").rstrip()
    alias = "" if item.place.end > item.source.end else f" AS {quoted(item.alias)}" if item.alias else ""
    source = query.text[argument.start : argument.end].strip()
    column = f"{head}).{quoted(read[0])} AS {quoted(read[0])}"
    return f"(SELECT {star}, {column} FROM {source} AS {SOURCE}){alias}"


def reads_all(block: Block, item: Item) -> bool:
    """Whether the block may read columns of an item that it does not name."""
    for i, token in enumerate(block.tokens):
        if item.place.start <= token.start < item.place.end:
            continue
        if token.word in ALL_COLUMNS or (
            item.alias and token.text.lower() == item.alias.lower() and not is_qualifier(block, i)
        ):
            return True
    inside = [
        t for t in block.tokens if any(p.place.start <= t.start < p.place.end for p in block.pieces if not p.plain)
    ]
    return any(p.star for p in block.columns) or any(t.is_symbol("*") for t in inside)


def is_qualifier(block: Block, i: int) -> bool:
    """Whether a name stands before a point and a column."""
    return i + 1 < len(block.tokens) and block.tokens[i + 1].is_symbol(".")
