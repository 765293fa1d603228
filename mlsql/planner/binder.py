"""CREATE MODEL to a typed plan: every name resolved, every shape checked, before anything runs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from sqlglot import exp

from ..errors import Place, ProgrammingError
from ..parser.statements import ColumnDeclaration, CreateModel, Expression, Initializer, ParameterDeclaration
from ..types import BOOLEAN, FLOAT, UNIT, Dim, RowSet, Shape, Symbol, TypeProblem, category, shape_text
from .expressions import ExpressionBinder
from .functions import Fold
from .model import DataColumn, IndexCheck, Initial, Model, ModelParameter, classes_symbol
from .node import Node, walk
from .nulls import Nulls
from .ops import Column, Parameter, Pick, Take, cast
from .ops import Place as PlaceNode
from .query import QueryBinder
from .relations import Frame, Relation, Value
from .skeleton import TABLE, Skeleton, Text, quoted, rows_symbol

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
        return _ModelBinder(statement, sizes or {}).bind(minimize or statement.minimize, weight)
    except RecursionError:
        place = statement.select.place
        raise ProgrammingError("an expression is nested too deeply", place=place, hint="give parts names") from None


class _ModelBinder:
    def __init__(self, statement: CreateModel, sizes: Mapping[Symbol, int]) -> None:
        self.statement = statement
        self.sizes = sizes
        self.categories = self.find_categories()
        self.parameters: dict[str, ModelParameter] = {}
        self.names: dict[Node, str] = {}
        self.nulls = Nulls()
        self.data: dict[Column, DataColumn] = {}
        self.keys: dict[str, dict[str, None]] = {}
        self.labels: dict[str, Node] = {}
        self.is_relational = bool(statement.relations) or reads_relations(statement.select.tree)
        self.inputs = {key_of(d): self.input_column(d) for d in statement.inputs if self.is_tensor(d)}
        self.targets = {d.name: self.target_column(d) for d in statement.target}
        self.weight_columns: dict[str, Column] = {}
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

    def is_tensor(self, d: ColumnDeclaration) -> bool:
        """Whether an input is a number; in a model over relations it may be a key of any type."""
        if d.element is None and not self.is_relational:
            raise ProgrammingError(
                f'the input "{d.name}" is {d.type_text}, and a model computes with numbers',
                place=d.place,
                hint="encode it in the query that the model reads, or make it the TARGET",
            )
        return d.element is not None

    def input_column(self, d: ColumnDeclaration) -> Column:
        assert d.element is not None
        return self.leaf(Column(key_of(d), self.rows_of(d), d.element, d.shape), "{0}", d)

    def target_column(self, d: ColumnDeclaration) -> Column:
        if d.element is None and NESTED.search(d.type_text):
            raise ProgrammingError(f"{d.type_text} cannot be a TARGET: a class label is a single value", place=d.place)
        if d.name in self.categories:
            return self.nullable(Column(key_of(d), self.rows_of(d), category(d.name)), d)
        assert d.element is not None
        return self.nullable(Column(key_of(d), self.rows_of(d), d.element, d.shape), d)

    def rows_of(self, d: ColumnDeclaration) -> RowSet:
        """The row set of a declared column."""
        return self.row_set(d.relation or INPUT.name)

    def nullable(self, column: Column, d: ColumnDeclaration) -> Column:
        """A target of a model over relations may be NULL where it is not known: its loss is then NULL, too."""
        if not self.is_relational:
            return self.leaf(column, "{0}", d)
        known = self.leaf(Column(f"{column.name} known", column.rows, BOOLEAN), "{0} IS NOT NULL", d)
        if not self.knows(known.name):
            self.nulls.declare(column, known)
        filler = "{0}" if column.element.kind == "category" or column.shape else "coalesce({0}, 0)"
        return self.leaf(column, filler, d)

    def leaf(self, column: Column, sql: str, d: ColumnDeclaration) -> Column:
        """Enter a leaf of the plan with the SQL that computes it from a declared column."""
        self.data[column] = DataColumn(column, sql, (d.name,))
        self.names[column] = column.name
        return column

    def check_names(self) -> None:
        """Two columns or parameters of one name would make every use of it a guess."""
        seen: set[str] = set()
        columns: tuple[ColumnDeclaration | ParameterDeclaration, ...] = (*self.statement.inputs, *self.statement.target)
        declared = (*columns, *self.statement.parameters)
        relations = {r.lower() for r in self.statement.relations}
        for d in declared:
            name = (key_of(d) if isinstance(d, ColumnDeclaration) else d.name).lower()
            if name in seen:
                raise ProgrammingError(f'"{d.name}" is declared twice', place=d.place)
            seen.add(name)
        for t in self.statement.target:
            self.check_relation(t, relations)
        names = [d.name.lower() for d in self.statement.target]
        for d in self.statement.target:
            if names.count(d.name.lower()) > 1:
                raise ProgrammingError(f'"{d.name}" is declared twice', place=d.place)

    def check_relation(self, target: ColumnDeclaration, relations: set[str]) -> None:
        """A target belongs to one of the relations of INPUT."""
        if target.relation.lower() in (relations or {""}):
            return
        if target.relation:
            message, hint = f'INPUT has no relation "{target.relation}"', f"INPUT {target.relation} (...)"
        else:
            message = f'TARGET does not say of which relation "{target.name}" is a column'
            hint = f"TARGET {self.statement.relations[0]} ({target.name} {target.type_text})"
        raise ProgrammingError(message, place=target.place, hint=hint)

    def classes(self, column: str) -> Dim:
        """The number of classes of a target, a symbol until data has told it."""
        match = next((c for c in self.categories if c.lower() == column.lower()), None)
        if match is None:
            targets = ", ".join(self.targets) or "none"
            raise TypeProblem(f'"{column}" is not a TARGET column', hint=f"targets are: {targets}")
        symbol = classes_symbol(match)
        return self.sizes.get(symbol, symbol)

    # -- relations: planner.query.Host ---------------------------------------------------------------------------------

    def relation_names(self) -> list[str]:
        """The names of the model's own relations."""
        return list(self.statement.relations) or [INPUT.name]

    def relation(self, name: str) -> Relation | None:
        """One of the model's own relations, with the columns of INPUT."""
        found = next((r for r in self.relation_names() if r.lower() == name.lower()), None)
        if found is None:
            return None
        values = [
            Value(d.name, self.inputs.get(key_of(d)), self.key_text(found, d.name), d.type_text, (found, d.name))
            for d in self.statement.inputs
            if (d.relation or INPUT.name) == found
        ]
        return Relation(self.row_set(found), tuple(values), {found: None})

    def key_text(self, relation: str, column: str) -> Text:
        """The column text of a declared column; who asks for it makes it one that is read as a key."""

        def text() -> str:
            self.keys.setdefault(relation, {})[column] = None
            return f"{TABLE}.{quoted(column)}"

        return text

    def expressions(
        self,
        place: Place,
        scope: dict[str, Node],
        *,
        hidden: Mapping[str, str] | None = None,
        fold: Fold | None = None,
        inner: ExpressionBinder | None = None,
    ) -> ExpressionBinder:
        """A binder of expressions in a scope, with the model's parameters in it."""
        targets = {
            n.lower(): f'"{n}" is a TARGET: it is not known when the model predicts, so only MINIMIZE may read it'
            for n in self.targets
        }
        return ExpressionBinder(
            place,
            {n.lower(): p.node for n, p in self.parameters.items()} | scope,
            own_parameter=self.layer_parameter,
            classes=self.classes,
            hidden=targets | dict(hidden or {}),
            fold=fold,
            inner=inner,
            nulls=self.nulls,
            subquery=self.subquery,
        )

    def subquery(self, tree: exp.Expression) -> Node:
        """A query of one value in brackets, in place of an expression."""
        binder = self.query_binder
        relation, _ = binder.query(tree, binder.known)
        if relation.rows != UNIT or len(relation.values) != 1 or relation.values[0].node is None:
            raise binder.problem(tree, "a query in place of a value must give one number", "SELECT AVG(x) FROM ...")
        return relation.values[0].node

    def row_set(self, name: str) -> RowSet:
        """The row set of a name, with its number of rows once data has told it."""
        return RowSet(name, self.sizes.get(rows_symbol(name)))

    def knows(self, fact: str) -> bool:
        """Whether data has told that something always holds."""
        return Symbol(fact) in self.sizes

    def name_node(self, node: Node, name: str) -> None:
        """Remember what a reader of the statement calls a node."""
        if not isinstance(node, (Column, Parameter)):
            self.names.setdefault(node, name)

    # -- parameters --------------------------------------------------------------------------------------------------

    def declare_parameters(self) -> None:
        """The parameters of PARAMETERS (...)."""
        for d in self.statement.parameters:
            if d.element.kind != "float":
                raise ProgrammingError(f"a parameter is FLOAT or DOUBLE, not {d.element}", place=d.place)
            node = Parameter(d.name, d.element, d.shape)
            self.add_parameter(node, initial_of(d.initializer, d.shape), d.frozen)

    def add_parameter(self, node: Parameter, initial: Initial, frozen: bool = False) -> None:
        self.parameters[node.name] = ModelParameter(node, initial, frozen)
        self.names[node] = node.name

    def layer_parameter(self, role: str, shape: Shape, initializer: str) -> Parameter:
        """A parameter of a layer, named by the alias; a second layer under one alias counts on: weight_2."""
        name, count = f"{self.alias}.{role}", 2
        while name in self.parameters:
            name, count = f"{self.alias}.{role}_{count}", count + 1
        node = Parameter(name, FLOAT, shape)
        self.add_parameter(node, Initial(initializer))
        return node

    # -- the statement -------------------------------------------------------------------------------------------------

    def bind(self, minimize: Expression | None, weight: Expression | Node | None) -> Model:
        self.declare_parameters()
        if self.is_relational:
            return self.bind_relations(minimize, weight)
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
            names=self.names,
            data=self.data,
        )

    def bind_relations(self, minimize: Expression | None, weight: Expression | Node | None) -> Model:
        """A model over relations: its select is a query, and its skeleton the part of it that does not learn."""
        select = self.statement.select
        self.query_binder = binder = QueryBinder(self, select.place)
        relation, frame = binder.query(select.tree, {})
        columns = {v.name: v.node for v in relation.values if v.node is not None}
        keys = {v.name: v.text() for v in relation.values if v.node is None and v.text is not None}
        if not columns:
            raise ProgrammingError("a model needs at least one column that is a number", place=select.place)
        scope = self.loss_scope(relation, frame, columns)
        fold = Fold(relation.rows)
        weigh = self.expressions(select.place, scope, fold=fold)
        weigh.hidden = self.unreachable(relation)
        if isinstance(weight, Expression):
            weight = self.checked_weight(weight, weigh.bind(weight.tree), relation.rows)
        weigh.weight = weight
        loss = None if minimize is None else self.checked_loss(minimize, weigh.at(minimize.place).bind(minimize.tree))
        by_lower = {name.lower(): name for name in columns}
        return Model(
            name=self.statement.model.name,
            rows=relation.rows,
            inputs=self.inputs,
            targets=self.targets,
            parameters=self.parameters,
            columns=columns,
            prediction=by_lower.get("prediction") or list(columns)[-1],
            loss=loss,
            weight=weight,
            categories=self.categories,
            type_texts={key_of(d): d.type_text for d in self.statement.inputs}
            | {d.name: d.type_text for d in self.statement.target},
            index_checks=self.find_index_checks([*columns.values(), *([loss] if loss is not None else [])]),
            names=self.names,
            skeleton=Skeleton({r: self.row_set(r) for r in self.relation_names()}, tuple(binder.steps), self.keys),
            data=self.data,
            labels=self.labels,
            nulls=self.nulls,
            keys=keys,
            outputs=tuple(v.name for v in relation.values),
            scalars=frozenset(binder.scalars),
        )

    def loss_scope(self, relation: Relation, frame: Frame | None, columns: Mapping[str, Node]) -> dict[str, Node]:
        """What MINIMIZE can read: the select's columns, those of its FROM clause, and the targets of its rows."""
        scope: dict[str, Node] = {}
        if frame is not None and frame.rows == relation.rows:
            scope |= self.query_binder.scope(frame).nodes
        for d in self.statement.target:
            if (d.relation or INPUT.name) in relation.origins:
                origin = relation.origins[d.relation or INPUT.name]
                column = self.targets[d.name]
                node = self.labels[d.name] = column if origin is None else Take(column, origin)
                scope |= {d.name.lower(): node, f"{d.relation}.{d.name}".lower(): node}
        return scope | {n.lower(): node for n, node in columns.items()}

    def unreachable(self, relation: Relation) -> dict[str, str]:
        """Why a target cannot be read: the rows do not stem from one row of its relation each."""
        return {
            d.name.lower(): f'the rows of the select do not come from one row of "{d.relation or INPUT.name}" each, so '
            f'"{d.name}" has no value in them'
            for d in self.statement.target
            if (d.relation or INPUT.name) not in relation.origins
        }

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
        return ExpressionBinder(place, scope, own_parameter=self.layer_parameter, classes=self.classes, hidden=hidden)

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
                column = Column(found.name, INPUT, FLOAT)
                self.data[column] = DataColumn(column, "{0}", (found.name,))
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
        whole = Place(self.statement.text, 0, len(self.statement.text.rstrip()))
        places = {key_of(d): d.place for d in (*self.statement.inputs, *self.statement.target)}
        for node in walk(roots):
            if isinstance(node, (Pick, PlaceNode)) and isinstance(taken_from(node.index), Column):
                size = node.x.type.shape[0] if isinstance(node, Pick) else node.size
                column = taken_from(node.index)
                assert isinstance(column, Column)
                place = places.get(column.name, whole)
                name = column.type.element.column
                if name is not None and size != self.classes(name):
                    raise ProgrammingError(
                        f'there are {size} scores for the {self.classes(name)} classes of "{name}"',
                        place=place,
                        hint=f"write CLASSES({name}) in place of {size}",
                    )
                checks[column, size] = IndexCheck(column, size, place)
        return tuple(checks.values())


def key_of(d: ColumnDeclaration) -> str:
    """The name of a declared column in plans: ``relation.column`` where relations have names."""
    return f"{d.relation}.{d.name}" if d.relation else d.name


def taken_from(node: Node) -> Node:
    """What is left of a node without the Takes around it."""
    while isinstance(node, Take):
        node = node.x
    return node


def reads_relations(tree: exp.Expression) -> bool:
    """Whether a select says itself what it reads."""
    return not isinstance(tree, exp.Select) or any(tree.args.get(part) for part in ("from_", "with_", "joins"))


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
