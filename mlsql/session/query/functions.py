"""The functions of DuckDB's that run models: their names, their types, what they compute."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from ...errors import Error
from ...executor.catalog import StoredVersion
from ...executor.compiled.switch import Switch
from ...executor.dataset import by_source, leaf_sql, lookups, quoted, sql_type
from ...executor.device import Array
from ...executor.load import leaf_arrays
from ...executor.per_group import GroupPredictor
from ...executor.predict import CHUNK_ROWS, LenientPredictor, Predictor
from ...executor.specialize import specialized
from ...executor.vocabulary import typed
from ...optimizer.stages import optimize, simplify
from ...parser.statements import Name, PredictCall
from ...planner.model import DataColumn, Model
from ...planner.monotone import inside
from ...planner.node import Node
from ...planner.ops import Column, Parameter
from ...planner.plan import Plan
from ...record import record
from ...types import BOOLEAN, UNIT, Element, RowSet, Type
from ..core import Session
from ..models import parameter_arrays
from ..per_group import Groups, groups_of_version, predictor_of_groups

ALL_OUTPUTS = "*"
OF_ARRAYS = " of arrays"  # behind the name of a function of lists
WORD = r'(?:\w+|"(?:[^"]|"")+")'
COLUMN_AS_LIST = re.compile(rf"CAST\(({WORD}(?:\.{WORD})*) AS \w+(?:\[\])+\)")


@record
class Variant:
    """What computes an output in another way than PREDICT by itself does. Texts name it as they name an output.

    ``lenient``: a row that would raise an error gives NULL. ``final``: no rule looks at the call again. ``fixed`` are
    inputs whose SQL is constant in this query. ``inside``: the argument of the monotone function that the output is.
    ``only_read``: zero weights and fixed inputs are worked into the plan, and what it then does not read is not asked
    of DuckDB.
    """

    output: str
    lenient: bool = False
    final: bool = False
    fixed: tuple[tuple[str, str], ...] = ()
    inside: bool = False
    only_read: bool = False

    @property
    def name(self) -> str:
        """Names that no column is likely to have, and that a person can read."""
        words = [f"inside of {self.output}" if self.inside else self.output]
        words += [f"for {name} = {sql}" for name, sql in self.fixed]
        words += ["or NULL"] * self.lenient + ["again"] * self.final + ["reading what counts"] * self.only_read
        return "mlsql " + " ".join(words)


@record
class Scoring:
    """What a function computes: a plan, the leaves that DuckDB brings for it, the values of its parameters."""

    plan: Plan
    leaves: Sequence[DataColumn]
    parameters: Mapping[Node, Array]


def predict_function(
    session: Session,
    call: PredictCall,
    model: Model,
    version: StoredVersion | None,
    output: str,
    variant: Variant | None = None,
) -> str:
    """The name of the DuckDB function that computes one output of a model, or all of them as a struct."""
    name = function_name(session, "predict", call.model, version, output, computing(variant))
    if session.storage.has_function(name):
        return quoted(name)
    wanted = list(model.columns) if output == ALL_OUTPUTS else [output]
    scoring = scored(session, model, version, wanted, variant)
    run = predictor_of(session, model, version, scoring, lenient=variant is not None and variant.lenient)
    types = [output_type(n.type, class_type(version, n)) for n in scoring.plan.outputs.values()]

    def one(*columns: Any) -> pa.Array:
        return run(*columns)[output]

    def every(*columns: Any) -> pa.Array:
        values = run(*columns)
        return pa.StructArray.from_arrays([values[n] for n in wanted], wanted)

    struct = f"STRUCT({', '.join(f'{quoted(n)} {t}' for n, t in zip(wanted, types, strict=True))})"
    leaves, gives = scoring.leaves, struct if output == ALL_OUTPUTS else types[0]
    return create_function(session, name, every if output == ALL_OUTPUTS else one, leaves, version, gives)


def create_function(
    session: Session,
    name: str,
    call: Callable[..., pa.Array],
    leaves: Sequence[DataColumn],
    version: StoredVersion | None,
    gives: str,
) -> str:
    """Have DuckDB know a function of leaves, and another one of the same leaves as ARRAYs (see ``function_call``)."""
    types = leaf_types(leaves, version, groups_of_version(session, version))
    arrays = array_types(leaves)
    session.storage.function(name, call, types, gives)
    if arrays:
        session.storage.function(name + OF_ARRAYS, call, [arrays.get(i, t) for i, t in enumerate(types)], gives)
    return quoted(name)


def function_name(
    session: Session,
    what: str,
    model: Name,
    version: StoredVersion | None,
    output: str = "",
    variant: Variant | None = None,
) -> str:
    """A name that stands for one computation: of this definition, these parameters, this output, in this session.

    A model that is dropped, replaced, renamed or rolled back never answers with what another one had learned.
    """
    facts = (
        session.models.find(model).definition,
        version and version.digest,
        session.null_prediction,
        session.without,
        session.clock and id(session.clock),
        session.compile,
        variant,
    )
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
    return f"mlsql {what} {model} {output} {digest} {session.number}".lower()


def predictor(
    session: Session, model: Model, version: StoredVersion | None, wanted: Sequence[str]
) -> Predictor | GroupPredictor:
    """The forward plan of some columns of a model, optimized, with its parameters."""
    return predictor_of(session, model, version, scored(session, model, version, wanted))


def scored(
    session: Session, model: Model, version: StoredVersion | None, wanted: Sequence[str], variant: Variant | None = None
) -> Scoring:
    """What computes some columns of a model."""
    arrays = parameter_arrays(model, version)
    if variant is None or not (variant.only_read or variant.inside):
        return Scoring(forward_plan(model, wanted, session.without), model.input_leaves, arrays)
    key = (
        model.name,
        model.columns[variant.output],
        version and version.digest,
        variant.fixed,
        variant.inside,
        variant.only_read,
    )
    if key not in session.scorings:
        plan = Plan(model.columns, model.names).keep(wanted)
        if variant.inside:
            plan = Plan({n: inside(node)[0] for n, node in plan.outputs.items()}, plan.names)
        fixed = fixed_leaves(session, model, version, dict(variant.fixed))
        assert fixed is not None
        plan, arrays = specialized(simplify(plan).plan, arrays, fixed, lambda p: optimize(p).plan)
        plan = optimize(plan).plan
        leaves = list(model.leaves(plan.outputs.values()).values()) or [NO_COLUMN]
        leaves = leaves if variant.only_read else model.input_leaves
        session.scorings[key] = Scoring(plan, leaves, arrays)
    found: Scoring = session.scorings[key]
    return found


def computing(variant: Variant | None) -> Variant | None:
    """A variant without what says nothing of how it is computed; None for the output as it is."""
    plain = None if variant is None else replace(variant, final=False)
    return None if plain == Variant(plain.output if plain else "") else plain


NO_COLUMN = DataColumn(Column("a row", UNIT, BOOLEAN), "TRUE", ())  # a model that reads nothing has a value a row


def fixed_leaves(
    session: Session, model: Model, version: StoredVersion | None, fixed: Mapping[str, str]
) -> dict[Column, Array] | None:
    """The values of the leaves that read nothing but fixed inputs; None if one of them is not to be had."""
    groups = [g for g in by_source(model.input_leaves) if g[0].reads and fixed.keys() >= set(g[0].reads)]
    classes = version.classes if version else {}
    arrays = parameter_arrays(model, version)
    fillings = {n.name: a for n, a in arrays.items() if isinstance(n, Parameter)}
    found: dict[Column, Array] = {}
    for group in groups:
        text = leaf_sql(group[0], model, fixed)
        [type_text] = leaf_types([group[0]], version, None)
        try:
            column = session.storage.query(f"SELECT CAST({text} AS {type_text}) AS v").column(0)
            values = leaf_arrays(column, group, lookups(session.storage, group, classes), fillings)
        except Error:  # at run time the row is refused, with all that a person wants to know of it
            return None
        found |= {leaf.column: values[leaf.column.name][0] for leaf in group}
    return found


def predictor_of(
    session: Session, model: Model, version: StoredVersion | None, scoring: Scoring, lenient: bool = False
) -> Predictor | GroupPredictor:
    """What runs a plan over columns of Arrow. With ``lenient`` rows that it cannot take give NULL."""
    groups = groups_of_version(session, version)
    classes = {
        n: typed(session.storage, version.classes[node.type.element.column])
        for n, node in scoring.plan.outputs.items()
        if version and node.type.element.column
    }
    one = (LenientPredictor if lenient else Predictor)(
        scoring.plan,
        model.rows,
        by_source(scoring.leaves),
        scoring.parameters,
        classes,
        lookups(session.storage, scoring.leaves, version.classes if version else {}),
        session.null_prediction or lenient,
        session.clock,
        switch_of(session, scoring.plan, model.rows),
    )
    if session.clock is not None:
        session.clock.plans.append((f"model {model.name}: up to {CHUNK_ROWS} rows at a time", one.plan))
    return one if groups is None else predictor_of_groups(one, scoring.plan, model, groups, scoring.parameters)


def switch_of(session: Session, plan: Plan, rows: RowSet) -> Switch | None:
    """What decides when a plan is compiled; None if it never is. With a clock every operator runs by itself."""
    if session.compile == "never" or session.clock is not None or rows == UNIT:
        return None
    return Switch(plan, rows, session.known_machine().compile_line, wait=session.compile == "always")


def forward_plan(model: Model, wanted: Sequence[str], without: Sequence[str] = ()) -> Plan:
    """The optimized plan of some columns of a model, some rules left out."""
    return optimize(Plan(model.columns, model.names), without, wanted=wanted).plan


def read_inputs(model: Model) -> dict[str, Column]:
    """The columns of INPUT that a prediction reads."""
    read = {name for leaf in model.input_leaves for name in leaf.reads}
    return {name: c for name, c in model.inputs.items() if name in read}


def leaf_arguments(
    model: Model, leaves: Sequence[DataColumn], given: Mapping[str, str], groups: Groups | None, lenient: bool = False
) -> list[str]:
    """The arguments of a model's function: what DuckDB computes from the SQL of each input, and the key of the row's
    group where there are groups. With ``lenient`` an argument whose computation fails is NULL."""
    texts = [leaf_sql(group[0], model, given) for group in by_source(leaves)]
    texts = [f"TRY({text})" for text in texts] if lenient else texts
    return texts if groups is None else [*texts, groups.key(given)]


def function_call(function: str, leaves: Sequence[DataColumn], arguments: Sequence[str]) -> str:
    """The SQL of a call of a model's function.

    Where arguments are columns of ARRAYs of the right length, DuckDB need not make lists of them. It knows the type of
    a column when it plans, and only one of the two calls is left then.
    """
    plain, arrays = f"{function}({', '.join(arguments)})", array_types(leaves)
    columns = {i: COLUMN_AS_LIST.fullmatch(arguments[i]) for i in arrays}
    names = {i: found[1] for i, found in columns.items() if found is not None}
    if not names or len(names) < len(arrays):
        return plain
    condition = " AND ".join(f"typeof({name}) = '{arrays[i]}'" for i, name in names.items())
    texts = [f"CAST({names[i]} AS {arrays[i]})" if i in names else a for i, a in enumerate(arguments)]
    return f'CASE WHEN {condition} THEN {function[:-1]}{OF_ARRAYS}"({", ".join(texts)}) ELSE {plain} END'


def array_types(leaves: Sequence[DataColumn]) -> dict[int, str]:
    """The ARRAY types of those arguments that are tensors."""
    types = [(g[0].column.type, g[0].vocabulary) for g in by_source(leaves)]
    return {i: output_type(t, "") for i, (t, vocabulary) in enumerate(types) if t.shape and vocabulary is None}


def leaf_types(leaves: Sequence[DataColumn], version: StoredVersion | None, groups: Groups | None) -> list[str]:
    """The SQL types of the arguments of a model's function: lists, so that a wrong length is ours to report."""
    sources = by_source(leaves)
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


def leaves_of(
    session: Session, model: Model, version: StoredVersion | None, variant: Variant | None
) -> Sequence[DataColumn]:
    """The leaves that the function of an output is called with."""
    if variant is None or not variant.only_read:
        return model.input_leaves
    return scored(session, model, version, [variant.output], variant).leaves
