"""EVALUATE: a model's predictions beside the truth, and what they amount to, computed by DuckDB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa

from ..errors import DataError, ProgrammingError, listed, suggest
from ..executor.catalog import StoredVersion
from ..executor.dataset import match, quoted
from ..executor.results import Rows
from ..parser.statements import Evaluate
from ..planner.binder import taken_from
from ..planner.model import Model
from ..planner.node import Node, walk
from ..planner.ops import Column, Pick, Sigmoid, Softmax, Softplus
from ..record import record
from .core import Session, runs
from .metrics import METRICS, PAIRS, PER_CLASS, RANKED, TOTALS, Metric
from .per_group import check_columns, groups_of_version
from .predict import without_predict
from .query.functions import (
    class_type,
    create_function,
    function_call,
    function_name,
    leaf_arguments,
    output_type,
    predictor,
    read_inputs,
)
from .relational_predict import evaluated_relations
from .rows import table_rows


@record
class Task:
    """What a model predicts: a number, one of some classes, or yes and no.

    ``scores`` is the plan of the classes' probabilities, or of the probability of yes.
    """

    kind: str
    target: Column
    scores: Node | None


@runs(Evaluate)
def evaluate(session: Session, statement: Evaluate) -> Rows:
    """One row: the model, its version, how many rows, and the metrics asked for or those that suit the target."""
    model, version = session.models.trained(statement.model, statement.version)
    task = task_of(model, statement)
    metrics = chosen(statement, task)
    sql, values = metrics_sql(session, statement, model, version, task, metrics)
    names = [m.name for m in metrics]
    table = session.storage.query(sql, values)
    [counts] = table.select(["rows", "nulls"]).to_pylist()
    if counts["rows"] == 0:
        raise DataError("there are no rows to evaluate on", place=statement.on.place)
    if counts["nulls"]:
        raise DataError(
            f'the target "{task.target.name}" is NULL in {counts["nulls"]} of {counts["rows"]} rows',
            place=statement.on.place,
            hint=f"WHERE {task.target.name} IS NOT NULL",
        )
    number = pa.array([version.version if version else None], pa.int64() if version else pa.float64())
    head = {"model": [str(statement.model)], "version": number, "rows": [counts["rows"]]}
    return table_rows(session, {**head, **{name: table.column(name) for name in names}})


def evaluation_sql(session: Session, statement: Evaluate) -> tuple[str, Mapping[str, object]]:
    """The query that EVALUATE runs, with its parameters."""
    model, version = session.models.trained(statement.model, statement.version)
    task = task_of(model, statement)
    return metrics_sql(session, statement, model, version, task, chosen(statement, task))


def task_of(model: Model, statement: Evaluate) -> Task:
    """What kind of prediction it is, told from the target's type and the loss. One target is needed."""
    if len(model.targets) != 1:
        raise ProgrammingError(
            f'EVALUATE compares one TARGET, and model "{statement.model}" has {len(model.targets)}',
            place=statement.model.place,
        )
    [target] = model.targets.values()
    nodes = list(walk([model.loss])) if model.loss is not None else []
    picked = [n.x for n in nodes if isinstance(n, Pick) and taken_from(n.index) is target]
    if target.type.element.kind == "boolean":
        soft = [n.x for n in nodes if isinstance(n, Softplus)]
        return Task("yes/no", target, Sigmoid(soft[0]) if soft else None)
    if picked or target.type.element.kind == "category":
        return Task("classes", target, Softmax(picked[0]) if picked else None)
    if target.type.shape:
        raise ProgrammingError("EVALUATE compares single values, not tensors", place=statement.model.place)
    return Task("number", target, None)


def chosen(statement: Evaluate, task: Task) -> list[Metric]:
    """The metrics asked for, else those that suit the task. Raises ProgrammingError for one that does not."""
    if not statement.metrics:
        needs_scores = ("auc", "log_loss")
        suit = [m for m in METRICS.values() if task.kind in m.tasks and m.is_default]
        return [m for m in suit if task.scores is not None or m.name not in needs_scores]
    found: list[Metric] = []
    for name in statement.metrics:
        metric = METRICS.get(name.name.lower())
        if metric is None:
            hint = suggest(name.name, METRICS) or f"metrics are {listed(METRICS)}"
            raise ProgrammingError(f"unknown metric {name.name}", place=name.place, hint=hint)
        if task.kind not in metric.tasks or (task.scores is None and metric.name in ("auc", "log_loss")):
            suited = listed(m.name for m in METRICS.values() if task.kind in m.tasks)
            message = f'{metric.name} does not suit the target "{task.target.name}"'
            raise ProgrammingError(message, place=name.place, hint=f"metrics that do are {suited}")
        found.append(metric)
    return found


def metrics_sql(
    session: Session,
    statement: Evaluate,
    model: Model,
    version: StoredVersion | None,
    task: Task,
    metrics: list[Metric],
) -> tuple[str, Mapping[str, object]]:
    """The query that scores the rows and computes the metrics."""
    predictions, values = predictions_sql(session, statement, model, version, task)
    classes = class_list(version, task)
    judged = "label" if task.kind == "yes/no" else "TRUE"
    is_ranked = any(m.name == "auc" for m in metrics)
    kept = "MATERIALIZED" if is_ranked else "NOT MATERIALIZED"  # what is read once need not be there as a whole
    parts = [
        f"predictions AS NOT MATERIALIZED ({predictions})",
        f"scored AS {kept} (SELECT actual, s.predicted, {scores_sql(task, classes)} FROM predictions)",
    ]
    if task.kind == "number":
        parts.append(TOTALS.strip())
    else:
        parts += [PAIRS.strip(), PER_CLASS.format(judged=judged).strip()]
    if is_ranked:
        parts.append(RANKED.format(classes=classes).strip())
    wanted = ", ".join(["rows", "nulls", *(f"{m.sql} AS {quoted(m.name)}" for m in metrics)])
    return f"WITH {', '.join(parts)} SELECT {wanted} FROM totals", values


def predictions_sql(
    session: Session, statement: Evaluate, model: Model, version: StoredVersion | None, task: Task
) -> tuple[str, Mapping[str, object]]:
    """A query with a row a row: the target as ``actual``, and ``s``, a struct of what the model says."""
    if model.skeleton is not None:
        table = evaluated_relations(
            session, statement, model, version, lambda m: scored_model(m, task_of(m, statement)).columns
        )
        name = quoted(session.hold(table))
        return f"SELECT actual, {{'predicted': predicted, 'probability': probability}} AS s FROM {name}", {}
    if statement.others:
        raise ProgrammingError("the model reads one relation", place=statement.others[0].place)
    query = without_predict(session, statement.on)
    scored = scored_model(model, task)
    source = match(session.storage, query, model, {**read_inputs(scored), task.target.name: task.target})
    function = scoring_function(session, statement, scored, version, task)
    given = {name: quoted(column) for name, (column, _) in source.columns.items()}
    groups = groups_of_version(session, version)
    if groups is not None:
        check_columns(session, groups, query)
        given = {c: quoted(c) for c in groups.columns} | given
    inputs = leaf_arguments(scored, scored.input_leaves, given, groups)
    actual = quoted(source.columns[task.target.name][0])
    scores = function_call(function, scored.input_leaves, inputs)
    return f"SELECT {actual} AS actual, {scores} AS s FROM {query.text}", query.values


def class_list(version: StoredVersion | None, task: Task) -> str:
    """The classes in the order of their probabilities, as SQL."""
    column = task.target.type.element.column
    if task.kind == "yes/no":
        return "[TRUE]"
    if version is not None and column is not None:
        keys = version.classes[column]
        return "[" + ", ".join(f"CAST({literal(v)} AS {keys.type_text})" for v in keys.texts.to_pylist()) + "]"
    size = task.scores.type.shape[-1] if task.scores is not None else 0
    return f"range({size})"


def literal(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def scores_sql(task: Task, classes: str) -> str:
    """The probabilities of the classes, and that of the actual one."""
    if task.scores is None:
        return "NULL AS probabilities, NULL AS of_actual"
    if task.kind == "yes/no":
        of_actual = "CASE WHEN actual THEN s.probability ELSE 1 - s.probability END"
        return f"[s.probability] AS probabilities, {of_actual} AS of_actual"
    return (
        f"CAST(s.probability AS FLOAT[]) AS probabilities, "
        f"CAST(s.probability AS FLOAT[])[list_position({classes}, actual)] AS of_actual"
    )


def scored_model(model: Model, task: Task) -> Model:
    """The model with the columns that EVALUATE reads: the prediction, and the probabilities where there are any."""
    columns = {"predicted": model.columns[model.prediction]}
    return replace(model, columns=columns | ({"probability": task.scores} if task.scores is not None else {}))


def scoring_function(
    session: Session, statement: Evaluate, model: Model, version: StoredVersion | None, task: Task
) -> str:
    """A DuckDB function that gives the columns of the scored model."""
    columns = model.columns
    run = predictor(session, model, version, list(columns))
    is_yes = task.kind == "yes/no" and columns["predicted"].type.element.kind == "float"
    types = {n: output_type(c.type, class_type(version, c)) for n, c in columns.items()}
    types["predicted"] = "BOOLEAN" if is_yes else types["predicted"]

    def score(*arguments: pa.ChunkedArray) -> pa.Array:
        values = run(*arguments)
        if is_yes:
            from pyarrow import compute

            values["predicted"] = compute.greater_equal(values["predicted"], 0.5)
        return pa.StructArray.from_arrays([values[n] for n in columns], list(columns))

    name = function_name(session, "evaluate", statement.model, version)
    struct = f"STRUCT({', '.join(f'{n} {t}' for n, t in types.items())})"
    return create_function(session, name, score, model.input_leaves, version, struct)
