"""Statements of DuckDB's, and PREDICT in them: every call becomes a function of DuckDB's that runs the model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ..errors import Error, NotSupportedError, Place, ProgrammingError, listed, suggest
from ..executor.catalog import StoredVersion
from ..executor.dataset import by_source, leaf_sql, lookups, match, quoted, sql_type
from ..executor.per_group import GroupPredictor
from ..executor.predict import CHUNK_ROWS, Predictor
from ..executor.results import Rows
from ..executor.vocabulary import typed
from ..optimizer.stages import optimize
from ..parser import parse
from ..parser.statements import Name, PredictCall, Query, SelectSql, SetOption
from ..planner.model import Model
from ..planner.node import Node
from ..planner.ops import Column
from ..planner.plan import Plan
from ..types import Element, Type
from .core import Session, runs
from .models import parameter_arrays
from .per_group import Groups, check_columns, groups_of_version, predictor_of_groups
from .rows import message_rows
from .rules import keep_rules

ALL_OUTPUTS = "*"
SOURCE, OUTPUTS = '"mlsql source"', '"mlsql outputs"'  # names that no column is likely to have


@runs(SelectSql)
def select(session: Session, statement: SelectSql) -> Rows:
    """DuckDB runs the statement, verbatim but for its PREDICT calls."""
    refuse_stored(statement)
    keep_rules(session, statement.text)
    text = rewritten(session, statement)
    try:
        return session.storage.run(text, statement.values)
    except Error as problem:
        if statement.predicts:  # DuckDB draws the text it was given, which the caller never saw
            problem.message = problem.message.partition("\n\nLINE ")[0].rstrip()
        raise


STORED = re.compile(r"\s*(CREATE\b[^(]*?\b(VIEW|MACRO|FUNCTION)\b|PREPARE\b)", re.IGNORECASE)


def refuse_stored(statement: SelectSql) -> None:
    """A call that DuckDB would keep for later would go on with a version that may be gone by then."""
    found = STORED.match(statement.text) if statement.predicts else None
    if found is not None:
        word = (found[2] or "PREPARE").upper()
        raise NotSupportedError(
            f"PREDICT cannot stand in {word}: it would stay at today's version of the model",
            place=statement.predicts[0].place,
            hint="CREATE TABLE ... AS SELECT PREDICT(...) keeps the rows",
        )


def rewritten(session: Session, statement: SelectSql) -> str:
    """The text with every PREDICT call replaced by SQL that DuckDB understands."""
    return _Rewriter(session, statement).between(0, len(statement.text))


def without_predict(session: Session, query: Query) -> Query:
    """A query that TRAIN or EVALUATE reads, with the PREDICT calls in it rewritten."""
    if "predict" not in query.text.lower():
        return query
    [statement] = parse(f"FROM {query.text}", dict(query.values))
    assert isinstance(statement, SelectSql)
    if not statement.predicts:
        return query
    text = rewritten(session, statement)
    return Query(text.partition("FROM")[2], query.place, statement.values)


class _Rewriter:
    def __init__(self, session: Session, statement: SelectSql) -> None:
        self.session, self.statement = session, statement
        self.found: dict[tuple[str, int | None], tuple[Model, StoredVersion | None]] = {}

    def trained(self, call: PredictCall) -> tuple[Model, StoredVersion | None]:
        """The model of a call; its parameters are read once a statement, however often it is called."""
        key = (str(call.model).lower(), call.version)
        if key not in self.found:
            self.found[key] = self.session.models.trained(call.model, call.version)
        return self.found[key]

    def between(self, start: int, end: int) -> str:
        """The text of a span, outermost calls replaced; each takes care of the calls in its arguments."""
        text, at = "", start
        for call in self.statement.predicts:
            if at <= call.place.start and call.place.end <= end:
                text += self.statement.text[at : call.place.start] + self.named(call)
                at = call.place.end
        return text + self.statement.text[at:end]

    def named(self, call: PredictCall) -> str:
        """The call's SQL; a column of a select gets the output's name, as any other column would."""
        text = self.call(call)
        if not call.is_column or self.is_of_duckdb(call):
            return text
        model, _ = self.trained(call)
        return f"{text} AS {quoted(asked_for(call, model))}"

    def is_of_duckdb(self, call: PredictCall) -> bool:
        """Whether the caller has a macro called predict and means that: the new words are soft."""
        if self.session.catalog.find(str(call.model)) is not None:
            return False
        sql = "SELECT 1 FROM duckdb_functions() WHERE lower(function_name) = 'predict' LIMIT 1"
        return bool(self.session.storage.rows(sql))

    def argument(self, place: Place) -> str:
        return self.between(place.start, place.end)

    def call(self, call: PredictCall) -> str:
        if self.is_of_duckdb(call):
            return self.statement.text[call.place.start : call.place.end]
        model, version = self.trained(call)
        output = asked_for(call, model)
        groups = groups_of_version(self.session, version)
        if not model.inputs and groups is None:
            return self.constant_call(call, model, version, output)
        if model.skeleton is not None:
            return relations_call(self, call, model, version)
        if call.is_table:
            return self.table_call(call, model, version)
        function = predict_function(self.session, call, model, version, output)
        given = self.arguments(call, model, [] if groups is None else list(groups.columns))
        return f"{function}({leaf_arguments(model, given, groups)})"

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
        function = predict_function(self.session, call, model, version, ALL_OUTPUTS)
        source = self.argument(call.arguments[0].place).strip()
        columns_there = self.columns_of(source, call, model, version)
        outputs = {name.lower() for name in model.columns}
        hidden = [quoted(name) for name in columns_there if name.lower() in outputs]  # the model's column wins
        shown = f"* EXCLUDE ({', '.join(hidden)})" if hidden else "*"
        groups = groups_of_version(self.session, version)
        names = [*model.inputs, *(groups.columns if groups else ())]
        columns = leaf_arguments(model, {n: f"{SOURCE}.{quoted(n)}" for n in names}, groups)
        inner = f"SELECT {shown}, {function}({columns}) AS {OUTPUTS} FROM {source} AS {SOURCE}"
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


def relations_call(rewriter: _Rewriter, call: PredictCall, model: Model, version: StoredVersion | None) -> str:
    """PREDICT of a model over several relations: what it gives as a table under a private name.

    Its rows are those of the model's select, and they are computed at once: joins and groups need all rows.
    """
    from .relational_predict import predict_relations

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


def predict_function(
    session: Session, call: PredictCall, model: Model, version: StoredVersion | None, output: str
) -> str:
    """The name of the DuckDB function that computes one output of a model, or all of them as a struct."""
    name = function_name(session, "predict", call.model, version, output)
    if session.storage.has_function(name):
        return quoted(name)
    wanted = list(model.columns) if output == ALL_OUTPUTS else [output]
    run = predictor(session, model, version, wanted)
    types = [output_type(model.columns[n].type, class_type(version, model.columns[n])) for n in wanted]

    def one(*columns: Any) -> pa.Array:
        return run(*columns)[output]

    def every(*columns: Any) -> pa.Array:
        values = run(*columns)
        return pa.StructArray.from_arrays([values[n] for n in wanted], wanted)

    parameters = leaf_types(model, version, groups_of_version(session, version))
    struct = f"STRUCT({', '.join(f'{quoted(n)} {t}' for n, t in zip(wanted, types, strict=True))})"
    all_of_them = output == ALL_OUTPUTS
    session.storage.function(name, every if all_of_them else one, parameters, struct if all_of_them else types[0])
    return quoted(name)


def function_name(session: Session, what: str, model: Name, version: StoredVersion | None, output: str = "") -> str:
    """A name that stands for one computation: of this definition, these parameters, this output, in this session.

    A model that is dropped, replaced, renamed or rolled back never answers with what another one had learned.
    """
    facts = (
        session.models.find(model).definition,
        version and version.digest,
        session.null_prediction,
        session.without,
        session.clock and id(session.clock),
    )
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
    return f"mlsql {what} {model} {output} {digest} {session.number}".lower()


def predictor(
    session: Session, model: Model, version: StoredVersion | None, wanted: Sequence[str]
) -> Predictor | GroupPredictor:
    """The forward plan of some columns of a model, optimized, with its parameters."""
    plan = forward_plan(model, wanted, session.without)
    groups = groups_of_version(session, version)
    arrays = parameter_arrays(model, version)
    classes = {
        n: typed(session.storage, version.classes[node.type.element.column])
        for n, node in plan.outputs.items()
        if version and node.type.element.column
    }
    leaves = model.input_leaves
    one = Predictor(
        plan,
        model.rows,
        by_source(leaves),
        arrays,
        classes,
        lookups(session.storage, leaves, version.classes if version else {}),
        session.null_prediction,
        session.clock,
    )
    if session.clock is not None:
        session.clock.plans.append((f"model {model.name}: up to {CHUNK_ROWS} rows at a time", one.plan))
    return one if groups is None else predictor_of_groups(one, plan, model, groups, arrays)


def forward_plan(model: Model, wanted: Sequence[str], without: Sequence[str] = ()) -> Plan:
    """The optimized plan of some columns of a model, some rules left out."""
    return optimize(Plan(model.columns, model.names), without, wanted=wanted).plan


def read_inputs(model: Model) -> dict[str, Column]:
    """The columns of INPUT that a prediction reads."""
    read = {name for leaf in model.input_leaves for name in leaf.reads}
    return {name: c for name, c in model.inputs.items() if name in read}


def leaf_arguments(model: Model, given: Mapping[str, str], groups: Groups | None) -> str:
    """The arguments of a model's function: what DuckDB computes from the SQL of each input, and the key of the row's
    group where there are groups."""
    texts = [leaf_sql(group[0], model, given) for group in by_source(model.input_leaves)]
    return ", ".join(texts if groups is None else [*texts, groups.key(given)])


def leaf_types(model: Model, version: StoredVersion | None, groups: Groups | None) -> list[str]:
    """The SQL types of the arguments of a model's function: lists, so that a wrong length is ours to report."""
    sources = by_source(model.input_leaves)
    classes = version.classes if version else {}
    types = [
        classes[g[0].vocabulary].type_text
        if g[0].vocabulary is not None
        else sql_type(g[0].column.type.element, g[0].column.type.shape)
        for g in sources
    ]
    return types if groups is None else [*types, "VARCHAR"]


def output_type(type: Type, classes: str) -> str:
    """The SQL type of an output: an ARRAY for a tensor, the column's own type for a class label."""
    element: Element = type.element
    base = classes if element.column else element.name
    return base + "".join(f"[{d}]" for d in reversed(type.shape))


def class_type(version: StoredVersion | None, node: Node) -> str:
    """The SQL type of the classes that an output names."""
    column = node.type.element.column
    return version.classes[column].type_text if version and column else ""


@runs(SetOption)
def set_option(session: Session, statement: SetOption) -> Rows:
    """SET mlsql_...: options of this session."""
    if statement.name.lower() == "mlsql_machine":
        return set_machine(session, statement)
    if statement.name.lower() != "mlsql_null_prediction":
        hint = "the options are mlsql_machine and mlsql_null_prediction"
        raise ProgrammingError(f"unknown option {statement.name}", place=statement.place, hint=hint)
    if not isinstance(statement.value, bool):
        raise ProgrammingError("mlsql_null_prediction is true or false", place=statement.place)
    session.null_prediction = statement.value
    return message_rows(session, f"mlsql_null_prediction = {str(statement.value).lower()}")


def set_machine(session: Session, statement: SetOption) -> Rows:
    """SET mlsql_machine: whether plans are costed for this machine, or for an assumed one that is the same anywhere."""
    from .machine import CHOICES

    choice = str(statement.value).lower()
    if choice not in CHOICES:
        raise ProgrammingError("mlsql_machine is 'measured' or 'default'", place=statement.place)
    session.machine_choice = choice
    session.forget_machine()
    return message_rows(session, f"mlsql_machine = {choice}")
