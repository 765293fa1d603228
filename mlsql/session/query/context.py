"""A query as the rules see it: its blocks, what DuckDB knows of its tables, what its models cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ...errors import Error, Place
from ...executor.catalog import StoredVersion
from ...executor.dataset import quoted
from ...executor.predict import CHUNK_ROWS
from ...executor.run import resized
from ...optimizer.cost import chunk_seconds
from ...optimizer.rule import Alternative
from ...parser import parse
from ...parser.blocks import Block, Item, Piece, Reference, argument_piece, blocks
from ...parser.statements import PredictCall, SelectSql
from ...planner.model import Model
from ...planner.node import walk
from ...planner.ops import Column
from ...record import record
from ...types import UNIT
from ..core import Session
from ..per_group import groups_of_version
from .functions import Variant, leaves_of, scored
from .lowering import Found, Lowering, asked_for, lowered

FURTHER = 0.25  # what each further column of a row takes, of the time in which a row is passed to a function
PASS = 2e-9  # seconds that DuckDB takes to hand on one value

# functions that DuckDB does not list among its own, or lists as macros, and that are as good as arithmetic
HARMLESS = frozenset(("coalesce", "if", "ifnull", "nullif", "row", "struct_pack", "extract", "cast", "try_cast", "try"))


@record
class Edit:
    """A text in the place of a span."""

    place: Place
    text: str


@record
class Rewriting:
    """A query in the place of another. ``before`` and ``after`` are what a person should look at."""

    text: str
    before: str
    after: str
    cost_before: float | None = None
    cost_after: float | None = None


@dataclass
class Known:
    """What is asked of DuckDB once a statement, and the names that were given in it."""

    columns: dict[str, list[tuple[str, str]] | None] = field(default_factory=dict)
    rows: dict[str, float | None] = field(default_factory=dict)
    volatile: dict[str, bool] = field(default_factory=dict)
    found: Found = field(default_factory=Found)
    hidden: int = 0
    alternatives: list[Alternative] = field(default_factory=list)


class QueryText:
    """The text of one statement that calls PREDICT."""

    def __init__(self, session: Session, statement: SelectSql, known: Known | None = None) -> None:
        self.session, self.statement = session, statement
        self.known = known or Known()
        self.lowering = Lowering(session, statement, self.known.found)

    @property
    def text(self) -> str:
        return self.statement.text

    @cached_property
    def blocks(self) -> list[Block]:
        return blocks(self.text, self.statement.predicts)

    def rewritten(self, text: str) -> QueryText:
        """The query of another text, with the same values and the same knowledge."""
        [statement] = parse(text, dict(self.statement.values or {}))
        assert isinstance(statement, SelectSql)
        return QueryText(self.session, statement, self.known)

    def lowered(self) -> str:
        return lowered(self.session, self.statement, self.known.found)

    def edited(self, edits: Iterable[Edit], inside: Place | None = None) -> str:
        """The text, or a span of it, with some spans replaced; the spans do not overlap."""
        at, end = (inside.start, inside.end) if inside else (0, len(self.text))
        parts: list[str] = []
        for edit in sorted(edits, key=lambda e: e.place.start):
            parts += [self.text[at : edit.place.start], edit.text]
            at = edit.place.end
        return "".join([*parts, self.text[at:end]])

    def rewriting(self, block: Block, edits: Sequence[Edit], **costs: float | None) -> Rewriting:
        """The rewriting that some edits of a block are. A column that has no name keeps the one that DuckDB gave it."""
        named = []
        for column, name in zip(block.columns, self.names(block), strict=True):
            changed = any(column.place.start <= e.place.start and e.place.end <= column.place.end for e in edits)
            if changed and column.alias is None and name is not None and not self.is_named(column):
                end = column.place.end
                named.append(Edit(Place(self.text, end, end), f" AS {quoted(name)}"))
        edits = [*edits, *named]
        return Rewriting(self.edited(edits), block.place.source, self.edited(edits, block.place), **costs)

    @staticmethod
    def is_named(column: Piece) -> bool:
        """Whether a column is a call by itself, which lowering names."""
        return column.star or (len(column.calls) == 1 and column.calls[0].is_column)

    def names(self, block: Block) -> list[str | None]:
        """The names of a block's columns as DuckDB has them; None for a star, and where DuckDB cannot say."""
        key = f"names {self.with_(block)} {self.sql(block.place)}"
        if key not in self.known.columns:
            source = f"({self.with_(block)} {self.sql(block.place)})"
            try:
                self.known.columns[key] = self.session.storage.describe(source, self.values_in(source))
            except Error:
                self.known.columns[key] = None
        found = [name for name, _ in self.known.columns[key] or ()]
        stars = [i for i, c in enumerate(block.columns) if c.star]
        if not stars and len(found) == len(block.columns):
            return list(found)
        count = len(block.columns)
        if len(stars) != 1 or len(found) < count - 1:
            return [None] * count
        behind = count - stars[0] - 1
        return [*found[: stars[0]], None, *found[len(found) - behind :]]

    def hidden(self) -> str:
        """A name for a column that no one else has, quoted."""
        self.known.hidden += 1
        return quoted(f"mlsql value {self.known.hidden}")

    # Calls

    def model(self, call: PredictCall) -> tuple[Model, StoredVersion | None]:
        return self.lowering.trained(call)

    def variant(self, call: PredictCall) -> Variant:
        """How the output of a scalar call is computed."""
        known = self.known.found.variants.get(call.output or "")
        return known if known is not None else Variant(asked_for(call, self.model(call)[0]))

    def call_text(
        self, call: PredictCall, variant: Variant, inside: Place | None = None, edits: Sequence[Edit] = ()
    ) -> str:
        """The call with another way of computing it; ``edits`` are made in its arguments."""
        self.known.found.variants[variant.name] = variant
        end = call.place.end
        if call.output_place is not None:
            end = self.text.rindex(".", call.place.start, call.output_place.start)
        return f"{self.edited(edits, Place(self.text, call.place.start, end)).rstrip()}.{quoted(variant.name)}"

    def column(self, call: PredictCall) -> str:
        """The name that a call gives to a column, quoted."""
        return quoted(self.lowering.column_name(call))

    def is_open(self, call: PredictCall) -> bool:
        """Whether rules may look at a call: of a model that is a function of one row."""
        if call.is_table or self.lowering.is_of_duckdb(call):
            return False
        model, version = self.model(call)
        plain = model.skeleton is None and groups_of_version(self.session, version) is None and bool(model.inputs)
        return plain and not self.variant(call).final

    def may_skip(self, call: PredictCall, variant: Variant) -> bool:
        """Whether a call may go without the columns that a variant does not read: not if a NULL in one must show."""
        model, version = self.model(call)
        read = {leaf.column for leaf in leaves_of(self.session, model, version, variant)}
        fixed = {name for name, _ in variant.fixed}
        skipped = [leaf for leaf in model.input_leaves if leaf.column not in read and not fixed.issuperset(leaf.reads)]
        return not self.session.null_prediction or all(leaf.takes_null for leaf in skipped)

    def open_calls(self, block: Block) -> list[PredictCall]:
        """The calls of a block, outermost, that rules may look at."""
        return [c for p in block.pieces for c in p.calls if self.is_open(c)]

    def references(self, call: PredictCall) -> list[Reference] | None:
        """The columns that the arguments of a call name; None if they are not understood or change by themselves."""
        found: list[Reference] = []
        given: set[str] = set()
        for argument in call.arguments:
            piece = argument_piece(self.text, argument.place, self.statement.predicts)
            if not self.is_fixed(piece):
                return None
            found += piece.references
            given.add((argument.name or "").lower())
        if not call.arguments:
            model, _ = self.model(call)
            found += [Reference("", name, call.place) for name in model.inputs]
        return found

    def is_fixed(self, piece: Piece) -> bool:
        """Whether an expression is understood, and has one value for given columns, wherever it is computed."""
        return piece.plain and not any(self.is_volatile(f) for f in piece.functions)

    def is_volatile(self, function: str) -> bool:
        """Whether a function is none that DuckDB knows to be a scalar function of its arguments alone."""
        if function in HARMLESS:
            return False
        if function not in self.known.volatile:
            sql = "SELECT function_type, stability FROM duckdb_functions() WHERE lower(function_name) = ?"
            found = self.session.storage.rows(sql, [function])
            fixed = bool(found) and all(kind == "scalar" and how != "VOLATILE" for kind, how in found)
            self.known.volatile[function] = not fixed
        return self.known.volatile[function]

    # Tables

    def sql(self, place: Place) -> str:
        """A span of the text as DuckDB takes it."""
        return self.lowering.between(place.start, place.end)

    def columns(self, item: Item, block: Block) -> list[tuple[str, str]] | None:
        """Name and type of the columns of an item of FROM; None if it cannot be looked at by itself."""
        if not item.simple:
            return None
        sql = self.sql(item.source)
        key = f"{self.with_(block)} {sql}"
        if key not in self.known.columns:
            source = f"({self.with_(block)} SELECT * FROM {sql})" if block.before else sql
            try:
                self.known.columns[key] = self.session.storage.describe(source, self.values_in(source))
            except Error:  # it reads what stands outside of it, or is not there: DuckDB will say
                self.known.columns[key] = None
        return self.known.columns[key]

    def with_(self, block: Block) -> str:
        """The WITH clause of a block as DuckDB takes it."""
        return self.sql(block.before) if block.before is not None else ""

    def values_in(self, sql: str) -> Mapping[str, Any]:
        """The values of the placeholders that a part of the statement has."""
        values = self.statement.values or {}
        return {k: v for k, v in values.items() if f"${k}" in sql} if isinstance(values, Mapping) else {}

    def has_collations(self) -> bool:
        """Whether some text may be compared by anything but its characters."""
        sql = """SELECT current_setting('default_collation') <> '' OR EXISTS (
        SELECT 1 FROM (SELECT sql FROM duckdb_tables() UNION ALL SELECT sql FROM duckdb_views() WHERE NOT internal)
        WHERE sql ILIKE '%collate%')"""
        return bool(self.session.storage.rows(sql)[0][0]) or "collate" in self.text.lower()

    def owners(self, block: Block) -> dict[str, list[Item]] | None:
        """For each column's name, in lower case, the items of FROM that have it; None if one is not known."""
        found: dict[str, list[Item]] = {}
        for item in block.items:
            columns = self.columns(item, block)
            if columns is None:
                return None
            for name, _ in columns:
                found.setdefault(name.lower(), []).append(item)
        return found

    def owner(self, reference: Reference, owners: Mapping[str, Sequence[Item]]) -> Item | None:
        """The one item that a column belongs to."""
        having = owners.get(reference.name.lower(), ())
        if reference.qualifier:
            having = [i for i in having if i.alias.lower() == reference.qualifier.lower()]
        return having[0] if len(having) == 1 else None

    # Costs

    def rows(self, sql: str) -> float | None:
        """How many rows DuckDB expects of a query."""
        if sql not in self.known.rows:
            try:
                self.known.rows[sql] = self.session.storage.estimated_rows(sql, self.values_in(sql))
            except Error:
                self.known.rows[sql] = None
        return self.known.rows[sql]

    def block_rows(self, block: Block, *, limited: bool = True) -> float | None:
        """How many rows DuckDB expects to get to the columns of a block's select."""
        source = block.clauses.get("FROM")
        if source is None:
            return 1.0
        cheap = [self.sql(c.place) for c in block.conditions if not c.calls]
        where = f" WHERE {' AND '.join(f'({c})' for c in cheap)}" if cheap else ""
        limit = f" LIMIT {self.sql(block.clauses['LIMIT'])}" if limited and self.streams(block) else ""
        return self.rows(f"{self.with_(block)} SELECT 1 FROM {self.sql(source)}{where}{limit}")

    @staticmethod
    def streams(block: Block) -> bool:
        """Whether a LIMIT stops the block before all of its rows are there."""
        return block.has("LIMIT") and not block.has("GROUP BY", "ORDER BY", "HAVING", "QUALIFY") and not block.distinct

    def row_seconds(self, call: PredictCall) -> float:
        """The estimated time of a call for one row, of many that are computed together."""
        return self.seconds_of(call, self.variant(call))

    def seconds_of(self, call: PredictCall, variant: Variant) -> float:
        """The same, if the output were computed as a variant says."""
        model, version = self.model(call)
        plan = scored(self.session, model, version, [variant.output], replace(variant, lenient=False)).plan
        outputs = list(plan.outputs.values())
        outputs, _ = resized(outputs, model.rows, CHUNK_ROWS) if model.rows != UNIT else (outputs, UNIT)
        columns = sum(isinstance(n, Column) for n in walk(outputs))
        machine = self.session.machine()
        passed = machine.udf_row * (1 + FURTHER * max(0, columns - 1))
        return passed + chunk_seconds(outputs, machine) / CHUNK_ROWS
