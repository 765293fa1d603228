"""PREDICT and what throws rows away: LIMIT, and conditions that cost nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from ...errors import Place
from ...executor.dataset import quoted
from ...optimizer.rule import query_rule
from ...parser.blocks import Block, Item, Piece
from ...parser.statements import PredictCall
from .context import Edit, QueryText, Rewriting

AGGREGATING = ("GROUP BY", "HAVING", "QUALIFY", "WINDOW")


@query_rule(
    law="f(limit(sort(x))) = limit(sort(f(x))): a function of a row does not change which rows come first",
    before="SELECT id, PREDICT(m, x) FROM t JOIN u USING (k) ORDER BY a LIMIT 10",
    after="SELECT id, PREDICT(m, x) FROM (SELECT id, x, a FROM t JOIN u USING (k) ORDER BY a LIMIT 10) ORDER BY a",
    when="PREDICT stands in columns of the select only, no key of ORDER BY reads one of these, and nothing is grouped",
    why="as many predictions as rows that are shown. Of a plain table DuckDB fetches few rows late by itself",
    databases="late materialization behind a top-N",
    learning="scoring only the rows that are shown",
    example="""CREATE MODEL price INPUT (size FLOAT) PARAMETERS (w FLOAT INIT 2) AS SELECT w * size AS prediction;
CREATE TABLE shops AS SELECT i AS id, i::FLOAT AS size FROM range(100) AS r(i);
CREATE TABLE towns AS SELECT i AS shop, 100 - i AS people FROM range(100) AS r(i);
SELECT id, PREDICT(price, size) AS price FROM shops JOIN towns ON shops.id = towns.shop ORDER BY people LIMIT 3""",
)
def predict_above_limit(query: QueryText) -> Iterator[Rewriting]:
    for block in query.blocks:
        found = limited(query, block)
        if found is not None:
            yield found


def limited(query: QueryText, block: Block) -> Rewriting | None:
    """The block over a query that has sorted and cut its rows already."""
    if not block.has("ORDER BY") or not block.has("LIMIT") or block.has(*AGGREGATING) or block.distinct:
        return None
    calls = [c for column in block.columns for c in column.calls]
    owners = query.owners(block)
    if not calls or owners is None or not all(query.is_open(c) for c in calls) or any(p.calls for p in others(block)):
        return None
    called = [c for c in block.columns if c.calls]
    stars = [c for c in block.columns if c.star]
    if any(not can_move(query, c, owners) for c in called) or (stars and not may_pass(stars, owners)):
        return None
    if any(k.body.source.isdigit() or k.body.source.upper() == "ALL" or not k.plain for k in block.order):
        return None
    aliases = {c.alias.lower() for c in called if c.alias} | {query.lowering.column_name(c).lower() for c in calls}
    if any(r.name.lower() in aliases for k in block.order for r in k.references) or any(
        map(block.renames, block.order)
    ):
        return None
    few = [is_aggregate(query, p) for p in (*block.columns, *block.order) if not p.star]
    limit, rows = block.clauses["LIMIT"].source, query.block_rows(block)
    if any(few) or not limit.isdigit() or rows is None or rows <= int(limit):
        return None
    row = sum(query.row_seconds(c) for c in calls)
    return rewriting(query, block, owners, rows * row, int(limit) * row)


def others(block: Block) -> Sequence[Piece]:
    return (*block.conditions, *block.order, *block.others)


def is_aggregate(query: QueryText, piece: Piece) -> bool:
    """Whether an expression may be more than a function of one row."""
    return not piece.plain or any(query.is_volatile(f) for f in piece.functions)


def may_pass(stars: Sequence[Piece], owners: Mapping[str, Sequence[Item]]) -> bool:
    """Whether a star gives the same names when it is passed on by a query."""
    return len(stars) == 1 and not stars[0].references[0].qualifier and all(len(i) == 1 for i in owners.values())


def can_move(query: QueryText, column: Piece, owners: Mapping[str, Sequence[Item]]) -> bool:
    """Whether a column of the select is computed from columns of FROM alone, and may be computed later."""
    known = [query.references(c) for c in column.calls]
    if not query.is_fixed(column) or any(r is None for r in known):
        return False
    reads = [*column.references, *(r for found in known for r in found or ())]
    return all(query.owner(r, owners) is not None for r in reads)


def rewriting(
    query: QueryText, block: Block, owners: Mapping[str, Sequence[Item]], before: float, after: float
) -> Rewriting | None:
    """The text: inside, every column but those with PREDICT, what these read, and the keys; outside, PREDICT."""
    inner: list[str] = []
    outer: list[str] = []
    names: dict[str, str] = {}

    def passed(sql: str) -> str:
        if sql not in names:
            names[sql] = query.hidden()
            inner.append(f"{sql} AS {names[sql]}")
        return names[sql]

    for column, name in zip(block.columns, query.names(block), strict=True):
        if column.star:
            inner.append("*")
            outer.append(STAR)
        elif name is None:
            return None
        elif not column.calls:
            outer.append(f"{passed(column.body.source)} AS {quoted(name)}")
        else:
            edits = [Edit(r.place, passed(r.place.source)) for r in dict.fromkeys(column.references)]
            edits += [by_name(query, c, passed) for c in column.calls if not c.arguments]
            outer.append(f"{query.edited(edits, column.body)} AS {quoted(name)}")
    keys = [passed(k.body.source) + k.place.source[len(k.body.source) :] for k in block.order]
    source = query.text[block.clauses["FROM"].start - len("FROM ") : block.place.end]
    inside = f"SELECT {', '.join(inner)} {source[source.upper().index('FROM') :]}"
    shown = ", ".join(f"* EXCLUDE ({', '.join(names.values())})" if c == STAR else c for c in outer)
    text = f"SELECT {shown} FROM ({inside}) ORDER BY {', '.join(keys)}"
    return query.rewriting(block, [Edit(block.place, text)], cost_before=before, cost_after=after)


STAR = "*"


def by_name(query: QueryText, call: PredictCall, passed: Callable[[str], str]) -> Edit:
    """The arguments of a call that takes its inputs by name from the row."""
    model, _ = query.model(call)
    last = call.place.end if call.output_place is None else call.output_place.start
    end = query.text.rindex(")", call.place.start, last)
    given = "".join(f", {quoted(name)} => {passed(quoted(name))}" for name in model.inputs)
    return Edit(Place(query.text, end, end), given)


@query_rule(
    law="limit(sort(σ(f(x)))) = f(limit(sort(σ(x)))) where neither reads what f adds",
    before="SELECT * FROM PREDICT(m, t) WHERE a < 3 ORDER BY a LIMIT 5",
    after="SELECT * FROM PREDICT(m, (SELECT * FROM t WHERE a < 3 ORDER BY a LIMIT 5)) WHERE a < 3 ORDER BY a LIMIT 5",
    when="PREDICT is all that stands in FROM, and no condition and no key names a column of the model's",
    why="as many predictions as rows that are shown",
    databases="pushing a top-N below a projection",
    learning="retrieve first, score then",
    example="""CREATE MODEL price INPUT (size FLOAT) PARAMETERS (w FLOAT INIT 2) AS SELECT w * size AS prediction;
CREATE TABLE shops AS SELECT i AS id, i::FLOAT AS size FROM range(100) AS r(i);
SELECT * FROM PREDICT(price, shops) WHERE id > 10 ORDER BY size DESC, id LIMIT 3""",
)
def limit_below_predict(query: QueryText) -> Iterator[Rewriting]:
    for block in query.blocks:
        call = block.items[0].call if len(block.items) == 1 else None
        if call is None or len(call.arguments) != 1 or not block.has("LIMIT") or block.has(*AGGREGATING, "OFFSET"):
            continue
        model, version = query.model(call)
        argument, alias = call.arguments[0].place, block.items[0].alias
        columns = query.lowering.columns_of(query.sql(argument).strip(), call, model, version)
        free = {c.lower() for c in columns} - {name.lower() for name in model.columns}
        if block.distinct or not block.clauses["LIMIT"].source.isdigit() or done(block, argument):
            continue
        if any(is_aggregate(query, p) for p in block.columns if not p.star) or any(map(block.renames, pieces(block))):
            continue
        if all(query.is_fixed(p) and not p.calls and reads_only(p, free, alias) for p in pieces(block)):
            yield query.rewriting(block, [Edit(argument, cut_source(query, block, argument, alias))])


def pieces(block: Block) -> Sequence[Piece]:
    """What decides which rows are shown, and in which order."""
    return (*block.conditions, *block.order)


def reads_only(piece: Piece, free: Collection[str], alias: str) -> bool:
    """Whether a condition or a key reads some columns only, by name and not by position."""
    named = all(r.name.lower() in free and r.qualifier.lower() in ("", alias.lower()) for r in piece.references)
    return named and bool(piece.references)


def done(block: Block, argument: Place) -> bool:
    """Whether the rule has been here already."""
    return argument.source.rstrip(") ").endswith(f"LIMIT {block.clauses['LIMIT'].source}")


def cut_source(query: QueryText, block: Block, argument: Place, alias: str) -> str:
    """The rows that the block is about, as a query of the table alone."""
    words = [f"SELECT * FROM {argument.source.strip()}" + (f" AS {quoted(alias)}" if alias else "")]
    words += [f"{c} {block.clauses[c].source}" for c in ("WHERE", "ORDER BY", "LIMIT") if block.has(c)]
    return f"({' '.join(words)})"


@query_rule(
    law="σ_p(σ_q(x)) = σ_q(σ_p(x)): the order of conditions does not change which rows are left",
    before="WHERE PREDICT(m, x) > 0.9 AND a % 10 = 0",
    after="WHERE a % 10 = 0 AND PREDICT(m, x) > 0.9",
    when="a condition without PREDICT stands behind one with it, and both are functions of the row",
    why="DuckDB computes conditions in the order in which they are written until it has measured them",
    databases="expensive predicate placement",
    learning="a cheap filter before the model, a cascade",
    example="""CREATE MODEL price INPUT (size FLOAT) PARAMETERS (w FLOAT INIT 2) AS SELECT w * size AS prediction;
CREATE TABLE shops AS SELECT i AS id, i::FLOAT AS size FROM range(100) AS r(i);
SELECT id FROM shops WHERE PREDICT(price, size) > 50 AND id % 10 = 0""",
)
def cheap_conditions_first(query: QueryText) -> Iterator[Rewriting]:
    for block in query.blocks:
        dear = [p for p in block.conditions if p.calls]
        cheap = [p for p in block.conditions if not p.calls]
        wanted = [*cheap, *dear]
        if not dear or not cheap or list(block.conditions) == wanted:
            continue
        if not all(query.is_fixed(p) for p in wanted):
            continue
        texts = [p.place.source for p in wanted]
        edits = [Edit(p.place, text) for p, text in zip(block.conditions, texts, strict=True)]
        yield query.rewriting(block, edits)
