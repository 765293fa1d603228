"""PREDICT with inputs that the query fixes, and models with weights that are zero: the plan is made for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ...executor.predict import CHUNK_ROWS
from ...optimizer.rule import query_rule
from ...parser.blocks import Block, Item, Piece, Reference, argument_piece
from ...parser.conditions import equality, is_literal
from ...parser.statements import PredictCall
from .context import Edit, QueryText, Rewriting
from .functions import Variant, fixed_leaves, leaves_of, scored


@query_rule(
    law="x = c ⟹ f(x, y) = f(c, y): a condition on an input makes it a constant",
    before="SELECT PREDICT(m, country, age) FROM t WHERE country = 'SG'",
    after="SELECT PREDICT(m for country = 'SG', age) FROM t WHERE country = 'SG'",
    when="WHERE compares the column that is an input with a literal, or the input is a literal",
    why="look-ups, one-hot vectors and whatever else depends on it alone is computed once, and its column is not read",
    databases="constant propagation from a predicate",
    learning="model specialization, partial evaluation",
    example="""CREATE MODEL price INPUT (town INTEGER, size FLOAT) PARAMETERS (w FLOAT INIT 2)
AS SELECT w * size + EXP(town / 10) AS prediction;
CREATE TABLE flats AS SELECT i % 10 AS town, i::FLOAT AS size FROM range(100000) AS r(i);
SELECT sum(PREDICT(price, town, size)) FROM flats WHERE town = 3""",
)
def fixed_inputs(query: QueryText) -> Iterator[Rewriting]:
    for block in query.blocks:
        owners = query.owners(block)
        for call in query.open_calls(block):
            variant = query.variant(call)
            if variant.fixed or variant.lenient or variant.inside:
                continue
            fixed = constants_of(query, block, call, owners)
            if fixed:
                yield from specialized_call(query, block, call, replace(variant, fixed=fixed, only_read=True))


@query_rule(
    law="0 · x = 0: a weight that is zero needs no column",
    before="SELECT PREDICT(m, a, b, c) FROM t, where all weights of b are 0",
    after="SELECT PREDICT(m without b, a, c) FROM t",
    when="an input only meets weights that are zero, as a pruned model or one with L1 has them",
    why="the column is not read, and not looked up",
    databases="projection pruning",
    learning="feature pruning, sparsity of L1",
    example="""CREATE MODEL sparse INPUT (a FLOAT, b FLOAT, c FLOAT) PARAMETERS (w FLOAT[3] INIT [2, 0, 1])
AS SELECT SUM_OF(w * [a, b, c]) AS total, DOT([a, b, c], w) AS prediction;
CREATE TABLE wide AS SELECT i::FLOAT AS a, i::FLOAT AS b, i::FLOAT AS c FROM range(100000) AS r(i);
SELECT sum(PREDICT(sparse, a, b, c)) FROM wide""",
)
def zero_weights(query: QueryText) -> Iterator[Rewriting]:
    for block in query.blocks:
        for call in query.open_calls(block):
            variant = query.variant(call)
            if not variant.only_read and not variant.lenient:
                yield from specialized_call(query, block, call, replace(variant, only_read=True))


def specialized_call(query: QueryText, block: Block, call: PredictCall, variant: Variant) -> Iterator[Rewriting]:
    """The block with the calls that are the same as one made for what is known, if this reads less."""
    rows = query.block_rows(block)
    if rows is None or rows <= CHUNK_ROWS or joins_rows(block, call) or not reads_less(query, call, variant):
        return
    same = [c for c in query.open_calls(block) if c.place.source == call.place.source]
    edits = []
    for c in same:
        text = query.call_text(c, variant)
        edits.append(Edit(c.place, f"{text} AS {query.column(c)}" if c.is_column else text))
    before = rows * query.row_seconds(call)
    yield query.rewriting(block, edits, cost_before=before, cost_after=rows * query.seconds_of(call, variant))


def joins_rows(block: Block, call: PredictCall) -> bool:
    """Whether a call is part of a condition on several tables: reading one of them only, it would be asked about rows
    that the join leaves out, and might refuse one."""
    same = [p for p in block.conditions if any(c.place.source == call.place.source for c in p.calls)]
    return len(block.items) > 1 and bool(same)


def reads_less(query: QueryText, call: PredictCall, variant: Variant) -> bool:
    """Whether a variant is called with fewer columns than the call."""
    model, version = query.model(call)
    if fixed_leaves(query.session, model, version, dict(variant.fixed)) is None:
        return False
    # what the output never read is not counted: it is no merit of the rule
    output = scored(query.session, model, version, [variant.output]).plan.outputs.values()
    before = {leaf.column for leaf in model.leaves(output).values()}
    after = {leaf.column for leaf in leaves_of(query.session, model, version, variant)}
    return len(after) < len(before) and query.may_skip(call, variant)


def constants_of(
    query: QueryText, block: Block, call: PredictCall, owners: dict[str, list[Item]] | None
) -> tuple[tuple[str, str], ...]:
    """The inputs of a call that are constant, by name, with their SQL."""
    model, _ = query.model(call)
    positional = [a for a in call.arguments if a.name is None]
    by_name = {a.name.lower(): a for a in call.arguments if a.name is not None}
    by_name |= dict(zip((n.lower() for n in model.inputs), positional, strict=False))
    fixed: dict[str, str] = {}
    for name in model.inputs:
        argument = by_name.get(name.lower())
        if argument is None and call.arguments:
            continue
        text = name if argument is None else argument.place.source.strip()
        if argument is not None and is_literal(text):
            fixed[name] = text
            continue
        piece = None if argument is None else argument_piece(query.text, argument.place, query.statement.predicts)
        reference = Reference("", name, call.place) if piece is None else only_reference(piece)
        value = None if reference is None else compared(query, block, reference, owners)
        if value is not None:
            fixed[name] = value
    return tuple(fixed.items())


def only_reference(piece: Piece) -> Reference | None:
    """The column that an expression is."""
    alone = len(piece.references) == 1 and piece.references[0].place == piece.body
    return piece.references[0] if alone else None


def compared(query: QueryText, block: Block, reference: Reference, owners: dict[str, list[Item]] | None) -> str | None:
    """The SQL of the constant that a column of the block's rows equals."""
    item = query.owner(reference, owners or {})
    if item is None:
        return None
    [type_text] = [t for n, t in query.columns(item, block) or () if n.lower() == reference.name.lower()][:1]
    for condition in block.conditions:
        found = equality(condition, block.tokens)
        if found is None or query.owner(found[0], owners or {}) is not item:
            continue
        if found[0].name.lower() == reference.name.lower() and is_exact(query, type_text, found[1]):
            return f"CAST({found[1]} AS {type_text})"
    return None


def is_exact(query: QueryText, type_text: str, literal: str) -> bool:
    """Whether what equals a literal is the literal: there are two zeros, and text may be compared loosely."""
    if type_text in ("FLOAT", "DOUBLE"):
        return not literal.startswith("'") and float(literal) != 0
    if type_text == "VARCHAR":
        return literal.startswith("'") and not query.has_collations()
    whole = type_text in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
    return whole and literal.lstrip("-").isdigit()
