"""SHOW and DESCRIBE."""

from __future__ import annotations

from typing import Any

from ..errors import ProgrammingError, suggest
from ..executor.results import Rows
from ..explain.rulebook import before_and_after
from ..optimizer.rule import RULES, TEXTS
from ..parser.statements import DescribeModel, ExplainRule, ShowLayers, ShowModels, ShowRules, ShowTraining
from ..planner.binder import bind_model
from ..planner.functions import FUNCTIONS
from ..planner.layers import standard_layers
from ..planner.model import ModelParameter
from ..types import shape_text
from .core import Session, runs
from .models import sizes_of
from .per_group import groups_of_version, label_classes
from .predict import select
from .rows import table_rows
from .rules import every_rule, rules_table


@runs(ShowModels)
def show_models(session: Session, statement: ShowModels) -> Rows:
    """A row a model."""
    return session.storage.table_rows(session.catalog.models())


@runs(ShowTraining)
def show_training(session: Session, statement: ShowTraining) -> Rows:
    """A row a run, or a row an epoch of the last run."""
    name = None if statement.model is None else session.models.find(statement.model).name
    return session.storage.table_rows(session.catalog.training(statement.what, name))


@runs(ExplainRule)
def explain_rule(session: Session, statement: ExplainRule) -> Rows:
    """What a rule of the optimizer does, when, why, and an example on which it fires."""
    rules = every_rule()
    rule = rules.get(str(statement.rule).lower())
    if rule is None:
        hint = suggest(str(statement.rule), rules) or "SHOW RULES lists them"
        raise ProgrammingError(f"there is no rule {statement.rule}", place=statement.rule.place, hint=hint)
    parts = {name: getattr(rule, name) for name in TEXTS}
    if rule.name in RULES:
        before, after = before_and_after(rule) or ("", "")
        parts |= {"example before": before, "example after": after}
    return table_rows(session, {"part": list(parts), "text": list(parts.values())})


@runs(ShowLayers)
def show_layers(session: Session, statement: ShowLayers) -> Rows:
    """A row a function or layer that a model can call."""
    found = {f.name: (f.usage, f.doc) for f in FUNCTIONS.values()}
    found |= {layer.name: (layer.usage, layer.doc) for layer in standard_layers().values()}
    rows = [found[name] for name in sorted(found)]
    return table_rows(session, {"layer": [u for u, _ in rows], "description": [d.split("\n\n")[0] for _, d in rows]})


@runs(ShowRules)
def show_rules(session: Session, statement: ShowRules) -> Rows:
    """A row a rule of the optimizer."""
    return session.storage.table_rows(rules_table())


@runs(DescribeModel)
def describe(session: Session, statement: DescribeModel) -> Rows:
    """A row an input, target, parameter and output of a model, with its type."""
    if not statement.explicit and session.catalog.find(str(statement.model)) is None:
        return select(session, statement.sql)
    version = session.models.version(statement.model)
    definition = session.models.definition(statement.model)
    model = bind_model(definition, sizes_of(version) if version else {})
    rows: list[tuple[str, str, str, str]] = []
    inputs = {f"{r}.{n}": t for r, part in model.parts.items() for n, t in part.type_texts.items() if n in part.inputs}
    rows += [("input", name, inputs.get(name) or model.type_texts[name], "") for name in inputs or model.inputs]
    rows += [("target", name, model.type_texts[name], "") for name in model.targets]
    if version:
        groups = groups_of_version(session, version)
        if groups is not None:
            rows += [("per", c, type_text, f"{len(groups.keys)} groups") for c, type_text in groups.columns.items()]
        for column, keys in label_classes(version).items():
            role = "keys" if column in model.vocabularies else "classes"
            rows.append((role, column, keys.type_text, keys.shown()))
    for name, p in model.parameters.items():
        role = "parameter" if p.statistic is None else "statistic"
        detail = detail_of(p, version.parameters[name] if version and p.statistic is not None else None)
        rows.append((role, name, f"{p.node.element}{shape_text(p.node.shape)}", detail))
    for name, node in model.columns.items():
        element = (node.type.element.column and model.type_texts[node.type.element.column]) or str(node.type.element)
        detail = "what PREDICT returns" if name == model.prediction else ""
        rows.append(("output", name, f"{element}{shape_text(node.type.shape)}", detail))
    names = ("role", "name", "type", "detail")
    return table_rows(session, dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


def detail_of(parameter: ModelParameter, value: Any) -> str:
    """How a parameter starts; of a statistic, what it came to."""
    if parameter.statistic is not None:
        if value is None:
            return "known once the model is trained"
        first = value.reshape(-1)[:10].tolist()
        more = ", ..." if value.size > len(first) else ""
        return f"{first[0]:g}" if not value.shape else f"[{', '.join(f'{v:g}' for v in first)}{more}]"
    initial = parameter.initial
    text = str(initial.value) if initial.kind == "LITERAL" else initial.kind
    arguments = f"({', '.join(f'{a:g}' for a in initial.arguments)})" if initial.arguments else ""
    unknown = f" UNKNOWN {parameter.unknown}" if parameter.unknown else ""
    return f"INIT {text}{arguments}{unknown}{' FROZEN' if parameter.frozen else ''}"
