"""CREATE MODEL over relations to a typed plan: the select as a query, and what each relation has to bring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqlglot import exp

from ..errors import Place, ProgrammingError
from ..parser.statements import ColumnDeclaration, CreateModel, Expression, ParameterDeclaration
from ..types import BOOLEAN, UNIT, Dim, RowSet, Symbol, category
from .binder import INPUT, ModelBinder, key_of, taken_from
from .data import Category, Data, Leaves
from .expressions import ExpressionBinder
from .functions import Fold
from .model import DataColumn, Find, Model
from .node import Node
from .nulls import FILLER, Nulls
from .ops import Column, Take, one
from .query import Frame, Origin, QueryBinder, Relation, Value
from .skeleton import TABLE, Skeleton, Text, quoted, rows_symbol


class RelationalBinder(ModelBinder):
    """Binds a model over relations. It is the ``Host`` that queries are bound for."""

    def __init__(self, statement: CreateModel, sizes: Mapping[Symbol, int]) -> None:
        self.nulls = Nulls()
        self.keys: dict[str, dict[str, None]] = {}
        self.labels: dict[str, Node] = {}
        self.data: dict[str, DataColumn] = {}
        super().__init__(statement, sizes)
        self.inputs = {n: c for n, c in self.inputs.items() if c.element.kind != "text"}
        self.by_relation = {name: self.leaves_of(name) for name in self.relation_names()}
        self.query_binder = QueryBinder(self, statement.select.place)

    # -- columns -----------------------------------------------------------------------------------------------------

    def input_column(self, d: ColumnDeclaration) -> Column:
        column = super().input_column(d)
        return self.leaf(Column(key_of(d), self.rows_of(d), column.element, d.shape), "{0}", d)

    def target_column(self, d: ColumnDeclaration) -> Column:
        """A target may be NULL where it is not known: its loss is then NULL, too."""
        super().target_column(d)
        name, rows = key_of(d), self.rows_of(d)
        known = self.leaf(Column(f"{name} known", rows, BOOLEAN), "{0} IS NOT NULL", d)
        if d.name in self.categories:
            column = Column(name, rows, category(d.name))
            self.data[name] = DataColumn(column, "{0}", (d.name,), d.name, Find.LABEL_OR_NULL)
        else:
            assert d.element is not None
            column = Column(name, rows, d.element, d.shape)
            filler = FILLER if d.element.kind == "float" else 0
            self.leaf(column, "{0}" if d.shape else f"coalesce({{0}}, {filler})", d)
        if not self.knows(known.name):
            self.nulls.declare(column, known)
        return self.named(column, name)

    def leaf(self, column: Column, sql: str, d: ColumnDeclaration) -> Column:
        """Enter a leaf of the plan with the SQL that computes it from a declared column."""
        self.data[column.name] = DataColumn(column, sql, (d.name,))
        return self.named(column, column.name)

    def rows_of(self, d: ColumnDeclaration) -> RowSet:
        """The row set of a declared column."""
        return self.row_set(d.relation or INPUT.name)

    def check_names(self) -> None:
        """Columns are apart by their relation; targets and parameters have one name each."""
        seen: set[str] = set()
        for d in (*self.statement.inputs, *self.statement.target):
            if key_of(d).lower() in seen:
                raise ProgrammingError(f'"{d.name}" is declared twice', place=d.place)
            seen.add(key_of(d).lower())
        alone: set[str] = set()
        once: tuple[ColumnDeclaration | ParameterDeclaration, ...] = (
            *self.statement.target,
            *self.statement.parameters,
        )
        for named in once:
            if named.name.lower() in alone:
                raise ProgrammingError(f'"{named.name}" is declared twice', place=named.place)
            alone.add(named.name.lower())
        for target in self.statement.target:
            self.check_relation(target)

    def check_relation(self, target: ColumnDeclaration) -> None:
        """A target belongs to one of the relations of INPUT."""
        relations = self.statement.relations
        if target.relation.lower() in ([r.lower() for r in relations] or [""]):
            return
        if target.relation:
            message, hint = f'INPUT has no relation "{target.relation}"', f"INPUT {target.relation} (...)"
        else:
            message = f'TARGET does not say of which relation "{target.name}" is a column'
            hint = f"TARGET {relations[0]} ({target.name} {target.type_text})"
        raise ProgrammingError(message, place=target.place, hint=hint)

    def declared_in(self, relation: str) -> list[ColumnDeclaration]:
        """The columns that INPUT declares for a relation."""
        return [d for d in self.statement.inputs if (d.relation or INPUT.name) == relation]

    def leaves_of(self, relation: str) -> Leaves:
        """What can be computed of one relation's columns."""
        declared = {d.name.lower(): data_of(d) for d in self.declared_in(relation)}
        return Leaves(self.row_set(relation), declared, list(self.data), self.sizes)

    # -- planner.query.Host ------------------------------------------------------------------------------------------

    def relation_names(self) -> list[str]:
        """The names of the model's own relations."""
        return list(self.statement.relations) or [INPUT.name]

    def relation(self, name: str) -> Relation | None:
        """One of the model's own relations, with the columns of INPUT."""
        found = next((r for r in self.relation_names() if r.lower() == name.lower()), None)
        if found is None:
            return None
        values = [
            Value(d.name, self.inputs.get(key_of(d)), self.key_text(found, d.name), d.type_text, Origin(found, d.name))
            for d in self.declared_in(found)
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
        origins: Mapping[str, Value] | None = None,
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
            own_statistic=self.statistic,
            leaves=FrameLeaves(self, origins or {}),
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

    # -- the statement -------------------------------------------------------------------------------------------------

    def bind(self, minimize: Expression | None, weight: Expression | Node | None) -> Model:
        """A model over relations: its select is a query, and its skeleton the part of it that does not learn."""
        self.declare_parameters()
        select = self.statement.select
        relation, frame = self.query_binder.query(select.tree, {})
        columns = {v.name: v.node for v in relation.values if v.node is not None}
        if not columns:
            message = "a model needs at least one column that is a number"
            raise next(iter(self.query_binder.passed_on), ProgrammingError(message, place=select.place))
        binder = self.loss_binder_over(relation, frame, columns)
        if isinstance(weight, Expression):
            weight = self.checked_weight(weight, binder.at(weight.place).bind(weight.tree), relation.rows)
        binder.weight = weight
        loss = None if minimize is None else self.checked_loss(minimize, binder.at(minimize.place).bind(minimize.tree))
        return self.model(relation, columns, loss, weight)

    def model(self, relation: Relation, columns: dict[str, Node], loss: Node | None, weight: Node | None) -> Model:
        by_lower = {name.lower(): name for name in columns}
        keys = {v.name: v.text for v in relation.values if v.text is not None and is_handed_on(v.node)}
        whole = Model(
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
            data={name: leaf for leaves in self.by_relation.values() for name, leaf in leaves.data.items()} | self.data,
            vocabularies={n: v for leaves in self.by_relation.values() for n, v in leaves.vocabularies.items()},
            names=self.names,
            skeleton=Skeleton(
                {r: self.row_set(r) for r in self.relation_names()}, tuple(self.query_binder.steps), self.keys
            ),
            labels=self.labels,
            origins=relation.origins,
            nulls=self.nulls,
            keys=keys,
            outputs=tuple(v.name for v in relation.values),
            scalars=frozenset(self.query_binder.scalars),
        )
        return replace(whole, parts={name: self.part(whole, name) for name in self.relation_names()})

    def part(self, whole: Model, relation: str) -> Model:
        """What the model reads of one relation, as a model over that relation alone, by the names of its columns."""
        leaves = self.by_relation[relation]
        rows = leaves.rows
        inputs = {d.name: self.declared_column(d) for d in self.declared_in(relation)}
        targets = {n: c for n, c in self.targets.items() if c.rows == rows}
        return replace(
            whole,
            name=f"{whole.name}, relation {relation}",
            rows=rows,
            inputs=inputs,
            targets=targets,
            parameters={n: p for n, p in whole.parameters.items() if n in leaves.statistics},
            categories=tuple(c for c in whole.categories if c in targets),
            type_texts={d.name: d.type_text for d in (*self.statement.inputs, *self.statement.target)
                        if (d.relation or INPUT.name) == relation},
            data={n: leaf for n, leaf in whole.data.items() if leaf.column.rows == rows},
            vocabularies=leaves.vocabularies,
            sql_checks=tuple(leaves.checks),
            skeleton=None,
        )  # fmt: skip

    def declared_column(self, d: ColumnDeclaration) -> Column:
        """A declared column as rows bring it."""
        return ModelBinder.input_column(self, d)

    def loss_binder_over(
        self, relation: Relation, frame: Frame | None, columns: Mapping[str, Node]
    ) -> ExpressionBinder:
        """A binder for MINIMIZE: it reads the select's columns, those of its FROM clause, and the rows' targets."""
        scope: dict[str, Node] = {}
        if frame is not None and frame.rows == relation.rows:
            scope |= self.query_binder.scope(frame).nodes
        unreachable: dict[str, str] = {}
        for d in self.statement.target:
            of = d.relation or INPUT.name
            if of in relation.origins:
                origin, column = relation.origins[of], self.targets[d.name]
                node = self.labels[d.name] = column if origin is None else Take(column, origin)
                scope |= {d.name.lower(): node, f"{of}.{d.name}".lower(): node}
            else:
                reason = f'the rows of the select do not come from one row of "{of}" each'
                unreachable[d.name.lower()] = f'{reason}, so "{d.name}" has no value in them: join "{of}" to them'
        scope |= {n.lower(): node for n, node in columns.items()}
        binder = self.expressions(self.statement.select.place, scope, fold=Fold(relation.rows))
        binder.hidden = unreachable
        return binder


def is_handed_on(node: Node | None) -> bool:
    """Whether an output is a key as it is, to be read from the table rather than computed."""
    return node is None or isinstance(taken_from(node), Column)


def data_of(d: ColumnDeclaration) -> Data:
    """A declared column as something to compute with before anything is learned."""
    return Data("{0}", (d.name,), key_of(d), d.element, d.shape, d.type_text)


class FrameLeaves(Leaves):
    """What can be computed of the columns in a FROM clause: leaves of their relations, taken to the rows of the clause.

    A column keeps its origin through selects that hand it on; ``origins`` are the columns in scope that have one.
    """

    def __init__(self, host: RelationalBinder, origins: Mapping[str, Value]) -> None:
        self.host = host
        self.declared = {name: self.data_in(v.origin) for name, v in origins.items() if v.origin is not None}

    def data_in(self, origin: Origin) -> Data:
        """A declared column of a relation that is read along a path."""
        leaves = self.host.by_relation[origin.relation]
        return replace(leaves.declared[origin.column.lower()], source=replace(origin, column=""))

    def columns(self) -> list[Data]:
        return list(dict.fromkeys(self.declared.values()))

    def is_own(self, name: str, node: Node | None) -> bool:
        return name in self.declared and (node is None or isinstance(taken_from(node), Column))

    def home(self, data: Data) -> Leaves:
        """The leaves of the relation that an expression is about."""
        assert isinstance(data.source, Origin)
        return self.host.by_relation[data.source.relation]

    def for_frame(self, data: Data, node: Node) -> Node:
        """A value of that relation's rows, for the rows of the clause."""
        assert isinstance(data.source, Origin)
        return node if data.source.path is None else Take(node, data.source.path)

    def value(self, data: Data) -> Node:  # type: ignore[override]
        return self.for_frame(data, self.home(data).value(data))

    def name(self, data: Data) -> str:
        return self.home(data).name(data)

    def check(self, data: Data, place: Place) -> None:
        self.home(data).check(data, place)

    def learned(self, data: Data, parameter: str) -> None:
        self.home(data).learned(data, parameter)

    def open(self, name: str, data: Data, size: Symbol) -> Node:  # type: ignore[override]
        return self.for_frame(data, self.home(data).open(name, data, size))

    def keys(self, data: Data) -> Dim:
        return self.home(data).keys(data)

    def found(self, data: Data, find: Find) -> Node:  # type: ignore[override]
        return self.for_frame(data, self.home(data).found(data, find))

    def category(self, data: Data) -> Category:
        found = self.home(data).category(data)
        assert isinstance(found.known, Column)
        always = self.host.knows(found.known.name)
        return replace(
            found,
            row=self.for_frame(data, found.row),
            inside=self.for_frame(data, found.inside),
            known=one() if always else self.for_frame(data, found.known),
        )
