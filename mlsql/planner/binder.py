"""CREATE MODEL to a typed plan: every name resolved, every shape checked, before anything runs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from sqlglot import exp

from ..errors import Place, ProgrammingError
from ..parser.statements import ColumnDeclaration, CreateModel, Expression, Initializer, ParameterDeclaration
from ..types import DOUBLE, FLOAT, UNIT, Dim, RowSet, Shape, Symbol, TypeProblem, category, shape_text, text
from .data import Data, Leaves
from .expressions import ExpressionBinder
from .functions import Fold
from .model import IndexCheck, Initial, Model, ModelParameter, Statistic, classes_symbol
from .node import Node, walk
from .nulls import unfilled
from .ops import Column, Parameter, Pick, Take, cast
from .ops import Place as PlaceNode

INPUT = RowSet("input")
NESTED = re.compile(r"STRUCT|MAP|UNION|\[", re.IGNORECASE)


def bind_model(
    statement: CreateModel,
    sizes: Mapping[Symbol, int] | None = None,
    *,
    minimize: Expression | None = None,
    weight: Expression | Node | None = None,
) -> Model:
    """Bind a model. ``sizes`` are the sizes that data has told; ``minimize`` and ``weight`` come from TRAIN.

    Raises ProgrammingError, with the place in the statement, for whatever does not fit.
    """
    try:
        return binder_for(statement)(statement, sizes or {}).bind(minimize or statement.minimize, weight)
    except RecursionError:
        place = statement.select.place
        raise ProgrammingError("an expression is nested too deeply", place=place, hint="give parts names") from None


def binder_for(statement: CreateModel) -> type[ModelBinder]:
    """What binds a model: one over one relation, or one over several, which is loaded when it is first needed."""
    if not is_relational(statement):
        return ModelBinder
    from .relational import RelationalBinder

    return RelationalBinder


def is_relational(statement: CreateModel) -> bool:
    """Whether a model says itself what it reads: it has relations with names, or FROM."""
    tree = statement.select.tree
    has_from = any(tree.args.get(part) for part in ("from_", "with_", "joins"))
    return bool(statement.relations) or not isinstance(tree, exp.Select) or has_from


class ModelBinder:
    """Binds a model over one relation, whose columns are those of INPUT."""

    def __init__(self, statement: CreateModel, sizes: Mapping[Symbol, int]) -> None:
        self.statement = statement
        self.sizes = sizes
        self.categories = self.find_categories()
        self.parameters: dict[str, ModelParameter] = {}
        self.names: dict[Node, str] = {}
        self.inputs = {key_of(d): self.input_column(d) for d in statement.inputs}
        self.targets = {d.name: self.target_column(d) for d in statement.target}
        self.weight_columns: dict[str, Column] = {}
        declared = {
            d.name.lower(): Data("{0}", (d.name,), d.name, d.element, d.shape, d.type_text) for d in statement.inputs
        }
        self.leaves = Leaves(INPUT, declared, [*self.inputs, *self.targets], self.sizes)
        self.check_names()
        self.alias = "model"

    # -- columns -----------------------------------------------------------------------------------------------------

    def find_categories(self) -> tuple[str, ...]:
        """The targets whose classes come from data: those that are no numbers, and those named in CLASSES or LABEL."""
        trees = [e.tree for e in (self.statement.select, self.statement.minimize) if e is not None]
        named: set[str] = set()
        for tree in trees:
            for call in tree.find_all(exp.Anonymous):
                if str(call.this).upper() in ("CLASSES", "LABEL") and call.expressions:
                    named.add(call.expressions[-1].name.lower())
        return tuple(d.name for d in self.statement.target if d.element is None or d.name.lower() in named)

    def input_column(self, d: ColumnDeclaration) -> Column:
        return self.named(Column(d.name, INPUT, d.element or text(d.type_text), d.shape), d.name)

    def target_column(self, d: ColumnDeclaration) -> Column:
        if d.element is None and NESTED.search(d.type_text):
            raise ProgrammingError(f"{d.type_text} cannot be a TARGET: a class label is a single value", place=d.place)
        if d.name in self.categories:
            return self.named(Column(d.name, INPUT, category(d.name)), d.name)
        assert d.element is not None
        return self.named(Column(d.name, INPUT, d.element, d.shape), d.name)

    def named(self, node: Column, name: str) -> Column:
        self.names[node] = name
        return node

    def name_node(self, node: Node, name: str) -> None:
        """Remember what a reader of the statement calls a node."""
        if not isinstance(node, (Column, Parameter)):
            self.names.setdefault(node, name)

    def check_names(self) -> None:
        """Two columns or parameters of one name would make every use of it a guess."""
        seen: set[str] = set()
        columns: tuple[ColumnDeclaration | ParameterDeclaration, ...] = (*self.statement.inputs, *self.statement.target)
        declared = (*columns, *self.statement.parameters)
        for d in declared:
            if d.name.lower() in seen:
                raise ProgrammingError(f'"{d.name}" is declared twice', place=d.place)
            seen.add(d.name.lower())

    def classes(self, column: str) -> Dim:
        """The number of classes of a target, a symbol until data has told it."""
        match = next((c for c in self.categories if c.lower() == column.lower()), None)
        if match is None:
            targets = ", ".join(self.targets) or "none"
            raise TypeProblem(f'"{column}" is not a TARGET column', hint=f"targets are: {targets}")
        symbol = classes_symbol(match)
        return self.sizes.get(symbol, symbol)

    # -- parameters --------------------------------------------------------------------------------------------------

    def declare_parameters(self) -> None:
        """The parameters of PARAMETERS (...)."""
        for d in self.statement.parameters:
            if d.element.kind != "float":
                raise ProgrammingError(f"a parameter is FLOAT or DOUBLE, not {d.element}", place=d.place)
            node = Parameter(d.name, d.element, d.shape, d.frozen)
            self.add_parameter(ModelParameter(node, initial_of(d.initializer, d.shape), d.frozen))

    def add_parameter(self, parameter: ModelParameter) -> Parameter:
        self.parameters[parameter.node.name] = parameter
        self.names[parameter.node] = parameter.node.name
        return parameter.node

    def layer_parameter(
        self, role: str, shape: Shape, initializer: str, arguments: tuple[float, ...] = (), unknown: str | None = None
    ) -> Parameter:
        """A parameter of a layer, named by the alias; a second layer under one alias counts on: weight_2."""
        name, count = f"{self.alias}.{role}", 2
        while name in self.parameters:
            name, count = f"{self.alias}.{role}_{count}", count + 1
        initial = Initial(initializer, arguments)
        return self.add_parameter(ModelParameter(Parameter(name, FLOAT, shape), initial, unknown=unknown))

    def statistic(self, label: str, value: Statistic, shape: Shape) -> Parameter:
        """The parameter that holds a statistic; what is asked for twice is computed once."""
        while label in self.parameters and self.parameters[label].statistic != value:
            label += "'"
        node = Parameter(label, DOUBLE, shape, frozen=True)
        return self.add_parameter(ModelParameter(node, Initial("STATISTIC"), True, value))

    # -- the statement -------------------------------------------------------------------------------------------------

    def bind(self, minimize: Expression | None, weight: Expression | Node | None) -> Model:
        self.declare_parameters()
        columns = self.bind_select()
        bound_weight = self.bind_weight(weight, columns) if isinstance(weight, Expression) else weight
        loss = self.bind_loss(minimize, columns, bound_weight) if minimize is not None else None
        by_lower = {name.lower(): name for name in columns}
        return Model(
            name=self.statement.model.name,
            rows=INPUT if self.inputs or self.targets else UNIT,
            inputs=self.inputs,
            targets=self.targets,
            parameters=self.parameters,
            columns=columns,
            prediction=by_lower.get("prediction") or list(columns)[-1],
            loss=loss,
            weight=bound_weight,
            weight_columns=self.weight_columns,
            categories=self.categories,
            type_texts={d.name: d.type_text for d in (*self.statement.inputs, *self.statement.target)},
            index_checks=self.find_index_checks([*columns.values(), *([loss] if loss is not None else [])]),
            data=self.leaves.data,
            vocabularies=self.leaves.vocabularies,
            sql_checks=tuple(self.leaves.checks),
            names=self.names,
        )

    def bind_select(self) -> dict[str, Node]:
        """The columns of the select, each in the scope of the ones before it."""
        select = self.statement.select
        tree = select.tree
        if not isinstance(tree, exp.Select):
            raise ProgrammingError("a model is a SELECT", place=select.place)
        binder = self.binder(select.place, {})
        for part, clause in tree.args.items():
            if clause and part not in ("expressions", "kind"):
                self.refuse_clause(part, clause, binder)
        columns: dict[str, Node] = {}
        for item in tree.expressions:
            name = item.alias_or_name or (str(item.this).lower() if isinstance(item, exp.Anonymous) else "")
            name = name or f"column_{len(columns) + 1}"
            if name.lower() in (n.lower() for n in columns):
                raise binder.problem(item, f'the column "{name}" is there twice')
            self.alias = name
            binder.scope = self.scope(columns)
            node = binder.bind(item.unalias())
            columns[name] = node
            self.name_node(node, name)
        if not columns:
            raise ProgrammingError("a model needs at least one column", place=select.place)
        return columns

    def refuse_clause(self, part: str, clause: object, binder: ExpressionBinder) -> None:
        """FROM, WHERE and the like have no place in a model over one relation."""
        word = {"from_": "FROM", "with_": "WITH", "joins": "JOIN", "group": "GROUP BY"}.get(part, part.upper())
        first = clause[0] if isinstance(clause, list) else clause
        place = binder.place(first) if isinstance(first, exp.Expression) else None
        raise ProgrammingError(
            f"{word} cannot stand in a model over one relation",
            place=place,
            hint="it reads its INPUT; filter and join in the table that TRAIN and PREDICT are given",
        )

    def scope(self, columns: Mapping[str, Node]) -> dict[str, Node]:
        """What a name may mean: inputs, parameters, and earlier columns, which hide inputs of their name."""
        scope: dict[str, Node] = {n.lower(): c for n, c in self.inputs.items()}
        scope |= {n.lower(): p.node for n, p in self.parameters.items()}
        return scope | {n.lower(): node for n, node in columns.items()}

    def binder(self, place: Place, scope: dict[str, Node]) -> ExpressionBinder:
        hidden = {
            n.lower(): f'"{n}" is a TARGET: it is not known when the model predicts, so only MINIMIZE may read it'
            for n in self.targets
        }
        return ExpressionBinder(
            place,
            scope,
            own_parameter=self.layer_parameter,
            own_statistic=self.statistic,
            leaves=self.leaves,
            classes=self.classes,
            hidden=hidden,
        )

    def loss_binder(self, place: Place, columns: Mapping[str, Node], weight: Node | None) -> ExpressionBinder:
        scope = {n.lower(): c for n, c in self.targets.items()} | self.scope(columns)
        rows = INPUT if self.inputs or self.targets else UNIT
        return ExpressionBinder(place, scope, classes=self.classes, fold=Fold(rows), weight=weight)

    def bind_weight(self, weight: Expression, columns: Mapping[str, Node]) -> Node:
        """The weight of a row: a number that does not depend on what is learned.

        It may read any column of the training rows, declared or not.
        """
        binder = self.loss_binder(weight.place, columns, None)
        for found in weight.tree.find_all(exp.Column):
            if not found.table and found.name.lower() not in binder.scope:
                column = self.named(Column(found.name, INPUT, FLOAT), found.name)
                self.weight_columns[found.name] = binder.scope[found.name.lower()] = column
        return self.checked_weight(weight, binder.bind(weight.tree), INPUT)

    def checked_weight(self, weight: Expression, node: Node, rows: RowSet) -> Node:
        """A weight must be one number a row, and may not learn."""
        node = node if node.type.element.kind == "float" else cast(node, FLOAT)
        if node.type.rows != rows or node.type.shape:
            raise ProgrammingError("WEIGHT BY needs one number a row", place=weight.place)
        if any(isinstance(n, Parameter) for n in walk([node])):
            raise ProgrammingError("a weight cannot depend on a parameter", place=weight.place)
        return node

    def bind_loss(self, minimize: Expression, columns: Mapping[str, Node], weight: Node | None) -> Node:
        return self.checked_loss(minimize, self.loss_binder(minimize.place, columns, weight).bind(minimize.tree))

    def checked_loss(self, minimize: Expression, loss: Node) -> Node:
        """A loss must be a single number."""
        if loss.type.rows != UNIT:
            raise ProgrammingError(
                "MINIMIZE needs one number, and this is one for each row",
                place=minimize.place,
                hint=f"AVG({minimize.place.source.strip()})",
            )
        if loss.type.shape:
            raise ProgrammingError(
                f"MINIMIZE needs one number, and this is {loss.type.element}{shape_text(loss.type.shape)}",
                place=minimize.place,
                hint="SUM_OF folds a tensor into one number",
            )
        if loss.type.element.kind != "float":
            raise ProgrammingError(f"MINIMIZE needs a number, not {loss.type.element}", place=minimize.place)
        return loss

    def find_index_checks(self, roots: list[Node]) -> tuple[IndexCheck, ...]:
        """Integer columns that are used as positions: training checks that their values are in range."""
        checks: dict[tuple[Node, Dim], IndexCheck] = {}
        places = {key_of(d): d.place for d in (*self.statement.inputs, *self.statement.target)}
        for node in walk(roots):
            column = taken_from(node.index) if isinstance(node, (Pick, PlaceNode)) else node
            if isinstance(node, (Pick, PlaceNode)) and isinstance(column, Column) and column.name in places:
                size = node.x.type.shape[0] if isinstance(node, Pick) else node.size
                label = column.type.element.column
                if label is not None and size != self.classes(label):
                    raise ProgrammingError(
                        f'there are {size} scores for the {self.classes(label)} classes of "{label}"',
                        place=places[column.name],
                        hint=f"write CLASSES({label}) in place of {size}",
                    )
                checks[column, size] = IndexCheck(column, size, places[column.name])
        return tuple(checks.values())


def key_of(d: ColumnDeclaration) -> str:
    """The name of a declared column in plans: ``relation.column`` where relations have names."""
    return f"{d.relation}.{d.name}" if d.relation else d.name


def taken_from(node: Node) -> Node:
    """What is left of a node without the Takes, and the fillers of missing rows, around it."""
    while (inner := node.x if isinstance(node, Take) else unfilled(node)) is not node:
        node = inner
    return node


def initial_of(declared: Initializer | None, shape: Shape) -> Initial:
    """How a declared parameter starts: as it says; otherwise Xavier for tensors and zero for single numbers."""
    if declared is None:
        return Initial("XAVIER" if shape else "ZEROS")
    given = literal_shape(declared.value, declared) if declared.kind == "LITERAL" else ()
    if given not in ((), shape):
        raise ProgrammingError(
            f"the parameter is {shape_text(shape) or 'a single number'}, and INIT gives {shape_text(given)}",
            place=declared.place,
            hint="a single number fills a tensor",
        )
    if declared.kind == "NORMAL" and not 0 <= declared.arguments[0] < math.inf:
        raise ProgrammingError("NORMAL takes a standard deviation of at least 0", place=declared.place)
    if declared.kind == "UNIFORM" and not -math.inf < declared.arguments[0] <= declared.arguments[1] < math.inf:
        raise ProgrammingError("UNIFORM takes a lower and an upper bound", place=declared.place)
    return Initial(declared.kind, declared.arguments, declared.value)


def literal_shape(value: Any, declared: Initializer) -> Shape:
    """The shape of a number or a nested list of numbers; every list of one depth must have the same length."""
    if not isinstance(value, list):
        return ()
    inner = {literal_shape(entry, declared) for entry in value}
    if len(inner) != 1:
        raise ProgrammingError("the lists in INIT differ in length", place=declared.place)
    return (len(value), *inner.pop())
