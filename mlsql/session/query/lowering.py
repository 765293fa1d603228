"""PREDICT in a statement of DuckDB's: every call becomes a function of DuckDB's that runs the model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from ...errors import Error, Place, ProgrammingError, listed, suggest
from ...executor.catalog import StoredVersion
from ...executor.dataset import match, quoted
from ...parser.blocks import blocks
from ...parser.statements import PredictCall, Query, SelectSql
from ...planner.model import Model
from ..core import Session
from ..per_group import check_columns, groups_of_version
from .functions import (
    ALL_OUTPUTS,
    Variant,
    computing,
    function_call,
    leaf_arguments,
    leaves_of,
    output_type,
    predict_function,
    predictor,
    read_inputs,
)

SOURCE, OUTPUTS = '"mlsql source"', '"mlsql outputs"'  # names that no column is likely to have


@dataclass
class Found:
    """What the calls of one statement name: read once, however often the statement is rewritten.

    ``variants`` are further outputs by name (see ``Variant``); ``foreign`` says of a model's name whether PREDICT is
    a macro of the caller's there; ``functions`` are DuckDB's by what they compute.
    """

    models: dict[tuple[str, int | None], tuple[Model, StoredVersion | None]] = field(default_factory=dict)
    variants: dict[str, Variant] = field(default_factory=dict)
    foreign: dict[str, bool] = field(default_factory=dict)
    functions: dict[tuple[str, int | None, str, Variant | None], str] = field(default_factory=dict)


class Lowering:
    """Turns the calls of one statement into SQL."""

    def __init__(self, session: Session, statement: SelectSql, found: Found | None = None) -> None:
        self.session, self.statement, self.found = session, statement, found or Found()
        self.variants = self.found.variants
        self.names = names_of_columns(statement)

    def trained(self, call: PredictCall) -> tuple[Model, StoredVersion | None]:
        """The model of a call; its parameters are read once a statement, however often it is called."""
        key = (str(call.model).lower(), call.version)
        if key not in self.found.models:
            self.found.models[key] = self.session.models.trained(call.model, call.version)
        return self.found.models[key]

    def function(self, call: PredictCall, output: str, variant: Variant | None = None) -> str:
        """The function that computes an output of a call's model."""
        key = (str(call.model).lower(), call.version, output, computing(variant))
        if key not in self.found.functions:
            self.found.functions[key] = predict_function(self.session, call, *self.trained(call), output, variant)
        return self.found.functions[key]

    def between(self, start: int, end: int) -> str:
        """The text of a span, outermost calls replaced; each takes care of the calls in its arguments."""
        text, at = "", start
        for call in self.statement.predicts:
            if at <= call.place.start and call.place.end <= end:
                text += self.verbatim(at, call.place.start) + self.named(call)
                at = call.place.end
        return text + self.verbatim(at, end) + self.names.get(end, "")

    def verbatim(self, start: int, end: int) -> str:
        """The text of a span as it was written, and the names of columns that end in it."""
        text, at = "", start
        for place in sorted(p for p in self.names if start <= p < end):
            text, at = text + self.statement.text[at:place] + self.names[place], place
        return text + self.statement.text[at:end]

    def named(self, call: PredictCall) -> str:
        """The call's SQL; a column of a select gets the output's name, as any other column would."""
        text = self.call(call)
        if not call.is_column or self.is_of_duckdb(call):
            return text
        return f"{text} AS {quoted(self.column_name(call))}"

    def column_name(self, call: PredictCall) -> str:
        """The name that a call gives to a column."""
        variant = self.variants.get(call.output or "")
        return asked_for(call, self.trained(call)[0]) if variant is None else variant.output

    def is_of_duckdb(self, call: PredictCall) -> bool:
        """Whether the caller has a macro called predict and means that: the new words are soft."""
        name = str(call.model).lower()
        if name not in self.found.foreign:
            sql = "SELECT 1 FROM duckdb_functions() WHERE lower(function_name) = 'predict' LIMIT 1"
            there = self.session.catalog.find(name) is not None
            self.found.foreign[name] = not there and bool(self.session.storage.rows(sql))
        return self.found.foreign[name]

    def argument(self, place: Place) -> str:
        return self.between(place.start, place.end)

    def call(self, call: PredictCall) -> str:
        if self.is_of_duckdb(call):
            return self.statement.text[call.place.start : call.place.end]
        model, version = self.trained(call)
        variant = self.variants.get(call.output or "")
        output = asked_for(call, model) if variant is None else variant.output
        groups = groups_of_version(self.session, version)
        if not model.inputs and groups is None:
            return self.constant_call(call, model, version, output)
        if model.skeleton is not None:
            return relations_call(self, call, model, version)
        if call.is_table:
            return self.table_call(call, model, version)
        function = self.function(call, output, variant)
        given = self.arguments(call, model, [] if groups is None else list(groups.columns))
        leaves = leaves_of(self.session, model, version, variant)
        lenient = variant is not None and variant.lenient
        return function_call(function, leaves, leaf_arguments(model, leaves, given, groups, lenient))

    def arguments(self, call: PredictCall, model: Model, group_columns: Sequence[str]) -> dict[str, str]:
        """The SQL of every input, and of the columns of PER: as given, by name, or the row's columns of that name."""
        inputs = list(model.inputs)
        by_lower = {name.lower(): name for name in (*inputs, *group_columns)}
        by_row = {name: quoted(name) for name in group_columns}
        if not call.arguments:
            return by_row | {name: quoted(name) for name in inputs}
        positional = [a for a in call.arguments if a.name is None]
        if len(positional) > len(inputs):
            raise ProgrammingError(
                f'model "{call.model}" takes {len(inputs)} inputs, {listed(inputs)}; got {len(call.arguments)}',
                place=call.place,
            )
        given = {name: self.argument(a.place) for name, a in zip(inputs, positional, strict=False)}
        for a in call.arguments:
            if a.name is None:
                continue
            name = by_lower.get(a.name.lower())
            if name is None or name in given:
                problem = "has no input" if name is None else "is given twice the input"
                names = list(by_lower.values())
                hint = (suggest(a.name, names) if name is None else None) or f"its inputs are {listed(names)}"
                raise ProgrammingError(f'model "{call.model}" {problem} "{a.name}"', place=a.whole, hint=hint)
            given[name] = self.argument(a.place)
        missing = [name for name in inputs if name not in given]
        if missing:
            raise ProgrammingError(
                f'model "{call.model}" takes {len(inputs)} inputs; {listed(missing)} is missing', place=call.place
            )
        same = {name: given[by_lower[name.lower()]] for name in group_columns if by_lower[name.lower()] in given}
        return by_row | given | same

    def table_call(self, call: PredictCall, model: Model, version: StoredVersion | None) -> str:
        """PREDICT as a table: the table's columns and the model's."""
        if len(call.arguments) != 1:  # of a model over one relation
            raise ProgrammingError("PREDICT as a table takes a model and one table or (query)", place=call.place)
        function = self.function(call, ALL_OUTPUTS)
        source = self.argument(call.arguments[0].place).strip()
        columns_there = self.columns_of(source, call, model, version)
        outputs = {name.lower() for name in model.columns}
        hidden = [quoted(name) for name in columns_there if name.lower() in outputs]  # the model's column wins
        shown = f"* EXCLUDE ({', '.join(hidden)})" if hidden else "*"
        groups = groups_of_version(self.session, version)
        names = [*model.inputs, *(groups.columns if groups else ())]
        columns = leaf_arguments(model, model.input_leaves, {n: f"{SOURCE}.{quoted(n)}" for n in names}, groups)
        outputs_there = function_call(function, model.input_leaves, columns)
        inner = f"SELECT {shown}, {outputs_there} AS {OUTPUTS} FROM {source} AS {SOURCE}"
        return f"(SELECT * EXCLUDE ({OUTPUTS}), unnest({OUTPUTS}) FROM ({inner}))"

    def columns_of(self, source: str, call: PredictCall, model: Model, version: StoredVersion | None) -> list[str]:
        """The table's columns, checked to hold the model's inputs.

        Empty where the table cannot be looked at by itself (a CTE, a row of a table before it): DuckDB will say.
        """
        query = Query(source, call.arguments[0].place)
        try:
            described = self.session.storage.describe(source)
        except Error:
            return []
        match(self.session.storage, query, model, read_inputs(model))
        groups = groups_of_version(self.session, version)
        if groups is not None:
            check_columns(self.session, groups, query)
        return [name for name, _ in described]

    def constant_call(self, call: PredictCall, model: Model, version: StoredVersion | None, output: str) -> str:
        """A model without inputs has one value: it stands in the text as a literal."""
        if call.arguments and not call.is_table:
            raise ProgrammingError(f'model "{call.model}" takes no inputs', place=call.place)
        wanted = list(model.columns) if output == ALL_OUTPUTS else [output]
        values = predictor(self.session, model, version, wanted)(pa.array([True]))
        literals = [f"CAST('{values[n][0].as_py()}' AS {output_type(model.columns[n].type, '')})" for n in wanted]
        if output != ALL_OUTPUTS:
            return literals[0]
        columns = [f"{v} AS {quoted(n)}" for n, v in zip(wanted, literals, strict=True)]
        return f"(SELECT *, {', '.join(columns)} FROM {self.argument(call.arguments[0].place)})"


def names_of_columns(statement: SelectSql) -> dict[int, str]:
    """By where they end, names for columns of a select in which a call stands among other things: as they were written,
    since DuckDB would name them after the function that a call becomes."""
    found = {}
    for block in blocks(statement.text, statement.predicts):
        for column in block.columns:
            whole = len(column.calls) == 1 and column.calls[0].place == column.body
            if column.alias is None and not column.star and column.calls and not whole:
                found[column.body.end] = f" AS {quoted(' '.join(column.body.source.split()))}"
    return found


def lowered(session: Session, statement: SelectSql, found: Found | None = None) -> str:
    """The text with every PREDICT call replaced by SQL that DuckDB understands, and nothing else changed."""
    return Lowering(session, statement, found).between(0, len(statement.text))


def relations_call(rewriter: Lowering, call: PredictCall, model: Model, version: StoredVersion | None) -> str:
    """PREDICT of a model over several relations: what it gives as a table under a private name.

    Its rows are those of the model's select, and they are computed at once: joins and groups need all rows.
    """
    from ..relational_predict import predict_relations

    if not call.is_table:
        relations = ", ".join(f"<table> AS {r}" for r in model.skeleton.relations) if model.skeleton else ""
        raise ProgrammingError(
            f'model "{call.model}" reads relations, so PREDICT stands in FROM',
            place=call.place,
            hint=f"SELECT * FROM PREDICT({call.model}, {relations})",
        )
    values = rewriter.statement.values or {}
    given = []
    for a in call.arguments:
        text = rewriter.argument(a.place)
        used = {k: v for k, v in values.items() if re.search(rf"\${k}\b", text)}
        given.append(Query(text, a.place, used, a.name or text.strip().strip('"').rpartition(".")[2]))
    table = predict_relations(rewriter.session, call, model, version, given)
    return quoted(rewriter.session.hold(table))


def asked_for(call: PredictCall, model: Model) -> str:
    """Which column of the model is asked for."""
    if call.is_table:
        return ALL_OUTPUTS
    if call.output is None:
        return model.prediction
    by_lower = {name.lower(): name for name in model.columns}
    if call.output.lower() not in by_lower:
        hint = suggest(call.output, model.columns) or f"its columns are {listed(model.columns)}"
        raise ProgrammingError(
            f'model "{call.model}" has no column "{call.output}"', place=call.output_place, hint=hint
        )
    return by_lower[call.output.lower()]
