"""PREDICT and joins: a model that reads one side runs once a row of that side."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from ...executor.dataset import quoted
from ...optimizer.rule import QUERY_RULES, Alternative, query_rule
from ...parser.blocks import Block, Item, Piece
from ...parser.statements import PredictCall
from .context import PASS, Edit, QueryText, Rewriting

NAME = r'(?:\w+|"(?:[^"]|"")+")'
PLAIN_COLUMN = re.compile(rf"(?:{NAME}\s*\.\s*)?({NAME})")
JOINS = ("", "LEFT", "RIGHT", "FULL", "CROSS")


@query_rule(
    law="f(join(a, b).x) = join(f(a.x), b): a join repeats rows, and a function of a row has one value for all of them",
    before="SELECT PREDICT(m, d.x) FROM t JOIN d ON t.k = d.k",
    after="SELECT d.p FROM t JOIN (SELECT *, PREDICT(m, d.x) AS p FROM d) AS d ON t.k = d.k",
    when="all that the arguments read is of one side, and this side has fewer rows than the join. A row that the model "
    "cannot take gives NULL below, and is predicted once more above, so that only rows of the result raise an error",
    why="the model runs once a row of the side instead of once a row of the join",
    databases="projection below a join; an expensive expression below a join",
    learning="factorized inference: one prediction a distinct entity",
    example="""CREATE MODEL price INPUT (size FLOAT) PARAMETERS (w FLOAT INIT 2) AS SELECT w * size AS prediction;
CREATE TABLE shops AS SELECT i AS id, i * 10.0::FLOAT AS size FROM range(10) AS r(i);
CREATE TABLE sales AS SELECT i AS id, i % 10 AS shop FROM range(1000) AS r(i);
SELECT s.id, PREDICT(price, shops.size) AS price FROM sales AS s JOIN shops ON s.shop = shops.id""",
)
def predict_below_join(query: QueryText) -> Iterator[Rewriting]:
    for block in query.blocks:
        if len(block.items) < 2 or any(i.join not in JOINS for i in block.items):
            continue
        owners = query.owners(block)
        seen: set[str] = set()
        for call in query.open_calls(block) if owners is not None else ():
            side = side_of(query, call, owners)
            if side is None or call.place.source in seen or not may_be_wrapped(query, block, side):
                continue
            seen.add(call.place.source)
            costs = costs_of(query, block, call, side)
            if costs is not None and costs[1] < costs[0]:
                yield below(query, block, call, side, costs)
            elif costs is not None:
                lost(query, call, side, costs)


def side_of(query: QueryText, call: PredictCall, owners: dict[str, list[Item]] | None) -> Item | None:
    """The one item that all arguments of a call read."""
    references = query.references(call)
    if not references or owners is None:
        return None
    sides = {query.owner(r, owners) for r in references}
    return next(iter(sides)) if len(sides) == 1 else None


def may_be_wrapped(query: QueryText, block: Block, side: Item) -> bool:
    """Whether nothing in the block would notice that a side has become a query with one more column."""
    names = {name.lower() for name, _ in query.columns(side, block) or ()}
    if not side.alias:
        return False
    tokens = block.tokens
    for i, token in enumerate(tokens):
        in_from = any(item.place.start <= token.start < item.place.end for item in block.items)
        if in_from or token.kind not in ("word", "name"):
            continue
        if token.word in ("ROWID", "COLUMNS", "NATURAL"):
            return False
        after = tokens[i + 1] if i + 1 < len(tokens) else None
        behind = i > 0 and tokens[i - 1].is_symbol(".")
        if token.text.lower() != side.alias.lower():
            continue
        if after is None or not after.is_symbol(".") or behind:
            return False  # the row as a value, or a name with a schema before it
        column = tokens[i + 2]
        if not column.is_symbol("*") and column.text.lower() not in names:
            return False
    return not strange_star(block)


def strange_star(block: Block) -> bool:
    """Whether there is a star that cannot be told to leave a column out."""
    for piece in block.pieces:
        inside = [t for t in block.tokens if piece.place.start <= t.start < piece.place.end]
        if not piece.star and any(t.word in ("EXCLUDE", "REPLACE", "RENAME") for t in inside):
            return True
        if not piece.star and any(t.is_symbol("*") for t in inside) and not piece.plain:
            return True
    return False


def costs_of(query: QueryText, block: Block, call: PredictCall, side: Item) -> tuple[float, float] | None:
    """The estimated seconds of the call above the join and below it."""
    with_ = query.with_(block)
    below_rows = query.rows(f"{with_} SELECT 1 FROM {query.sql(side.place)}")
    above_rows = query.block_rows(block)
    if below_rows is None or above_rows is None or only_filters(block, call, below_rows):
        return None
    row = query.row_seconds(call)
    return above_rows * row, below_rows * row + above_rows * PASS


def only_filters(block: Block, call: PredictCall, rows: float) -> bool:
    """Whether a call stands in WHERE alone: DuckDB moves a condition on one side below an inner join by itself."""
    same = [p for p in block.pieces if any(c.place.source == call.place.source for c in p.calls)]
    return all(p in block.conditions for p in same) and all(i.join in ("", "CROSS") for i in block.items)


def below(query: QueryText, block: Block, call: PredictCall, side: Item, costs: tuple[float, float]) -> Rewriting:
    """The rewriting: the side becomes a query with one more column, which stands in the place of the call."""
    hidden, alias = query.hidden(), quoted(side.alias)
    variant = query.variant(call)
    lenient = query.call_text(call, replace(variant, lenient=True))
    carried = as_text(query, block, call, side)
    added = [
        f"CASE WHEN {hidden} IS NULL THEN CAST({call.arguments[i].place.source} AS VARCHAR) END AS {name}"
        for i, (name, _) in carried.items()
    ]
    columns = ", ".join([f"{lenient} AS {hidden}", *added])
    edits = [Edit(side.place, f"(SELECT *, {columns} FROM {side.place.source}) AS {alias}")]
    for other in same_calls(query, block, call):
        back = [Edit(other.arguments[i].place, f"CAST({alias}.{n} AS {t})") for i, (n, t) in carried.items()]
        again = query.call_text(other, replace(variant, final=True), edits=back)
        text = f"CASE WHEN {alias}.{hidden} IS NULL THEN {again} ELSE {alias}.{hidden} END"
        edits.append(Edit(other.place, f"{text} AS {query.column(other)}" if other.is_column else f"({text})"))
    names = ", ".join([hidden, *(name for name, _ in carried.values())])
    edits += [Edit(c.place, f"{c.place.source} EXCLUDE ({names})") for c in stars(block, side)]
    return query.rewriting(block, edits, cost_before=costs[0], cost_after=costs[1])


def as_text(query: QueryText, block: Block, call: PredictCall, side: Item) -> dict[int, tuple[str, str]]:
    """The arguments that go through the join as text, and only where the model refused the row: by their number a name
    for the text and the type that it is of.

    DuckDB joins by a table of direct places unless a column on that side is a list or an array.
    """
    types = {name.lower(): type_text for name, type_text in query.columns(side, block) or ()}
    found: dict[int, tuple[str, str]] = {}
    for i, argument in enumerate(call.arguments):
        column = PLAIN_COLUMN.fullmatch(argument.place.source.strip())
        name = column[1].strip('"').replace('""', '"').lower() if column else ""
        if types.get(name, "").endswith("]"):
            found[i] = (query.hidden(), types[name])
    return found


def same_calls(query: QueryText, block: Block, call: PredictCall) -> list[PredictCall]:
    """The calls of a block that are the same as one, itself included."""
    return [c for c in query.open_calls(block) if c.place.source == call.place.source]


def stars(block: Block, side: Item) -> list[Piece]:
    """The stars of the select that take in the columns of a side."""
    mine = ("", side.alias.lower())
    return [c for c in block.columns if c.star and c.references[0].qualifier.lower() in mine]


def lost(query: QueryText, call: PredictCall, side: Item, costs: tuple[float, float]) -> None:
    """Remember that a call stays above its join."""
    rule = QUERY_RULES["predict_below_join"]
    reason = f"{side.alias} has no fewer rows than the join"
    what = f"{call.place.source} once a row of {side.alias}"
    query.known.alternatives.append(Alternative("rewrite", rule.name, what, costs[1], costs[0], reason, rule))
