"""Expressions of the model language, bound to typed plans: names become nodes, operators become operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlglot import exp

from ..errors import NotSupportedError, Place, ProgrammingError, listed, suggest
from ..parser import node_place
from ..parser.statements import Expression
from ..types import BOOLEAN, ELEMENTS, FLOAT, INTEGER, Dim, Element, Shape, TypeProblem, promote
from . import features, ops, scalar  # noqa: F401  (features enter themselves among the functions)
from .arguments import Arguments
from .data import Data, Leaves, Value, composed, one_hot
from .functions import FUNCTIONS, Fold, Function
from .layers import Layer, standard_layers
from .model import Statistic
from .node import Node
from .nulls import Nulls, both, filled
from .ops import Constant, Parameter, Slice, cast

ARITHMETIC: Mapping[type[exp.Expression], type[Node]] = {
    exp.Add: ops.Add,
    exp.Sub: ops.Subtract,
    exp.Mul: ops.Multiply,
    exp.Div: ops.Divide,
    exp.Pow: ops.Power,
}
COMPARISONS: Mapping[type[exp.Expression], type[Node]] = {
    exp.LT: ops.Less,
    exp.LTE: ops.LessEqual,
    exp.GT: ops.Greater,
    exp.GTE: ops.GreaterEqual,
    exp.EQ: ops.Equal,
    exp.NEQ: ops.NotEqual,
}
HE = ("RELU", "LEAKY_RELU", "GELU", "SILU")  # activations that halve the variance; He et al., 2015


LATER = "LAYER_NORM RMS_NORM BATCH_NORM DROPOUT CONV2D MAX_POOL2D AVG_POOL2D LSTM GRU ATTENTION".split()


class ExpressionBinder:
    """Binds expressions in a scope.

    ``scope`` maps lower-case names to nodes. ``own_parameter`` makes a parameter for a layer (name, shape,
    initializer); without it layers that learn are not allowed. It is the ``Context`` that functions are given.
    """

    def __init__(
        self,
        place: Place,
        scope: dict[str, Node],
        *,
        own_parameter: Callable[..., Parameter] | None = None,
        own_statistic: Callable[[str, Statistic, Shape], Parameter] | None = None,
        leaves: Leaves | None = None,
        classes: Callable[[str], Dim] | None = None,
        fold: Fold | None = None,
        inner: ExpressionBinder | None = None,
        weight: Node | None = None,
        hidden: Mapping[str, str] | None = None,
        nulls: Nulls | None = None,
        subquery: Callable[[exp.Expression], Node] | None = None,
    ) -> None:
        self.text = place.text
        self.whole = place
        self.scope = scope
        self.fold, self.inner = fold, inner
        self.weight = weight
        self.nulls = nulls or Nulls()
        self.filter: Node | None = None
        self.subquery = subquery
        self.hidden = hidden or {}
        self.activation = "XAVIER"
        self._own_parameter = own_parameter
        self._own_statistic = own_statistic
        self._leaves = leaves
        self._classes = classes

    # -- what functions ask: planner.functions.Context -------------------------------------------------------------

    def parameter(
        self, role: str, shape: Shape, initializer: str, arguments: tuple[float, ...] = (), unknown: str | None = None
    ) -> Parameter:
        if self._own_parameter is None:
            raise TypeProblem(
                "a layer with parameters of its own cannot stand here", hint="give it a column of the select"
            )
        return self._own_parameter(role, shape, initializer, arguments, unknown)

    @property
    def has_leaves(self) -> bool:
        """Whether anything can be read of the rows of INPUT here."""
        return self._leaves is not None

    @property
    def leaves(self) -> Leaves:
        if self._leaves is None:
            raise TypeProblem("what learns from the data cannot stand here", hint="give it a column of the select")
        return self._leaves

    def statistic(self, x: Data, label: str, aggregate: str, shape: Shape | None = None) -> Parameter:
        self.leaves.value(x)  # raises for what is no number
        assert self._own_statistic is not None
        statistic = Statistic(aggregate, x.sql, x.reads, x.fill)
        name = f"{label}({self.leaves.name(x)})"
        parameter = self._own_statistic(name, statistic, x.shape if shape is None else shape)
        self.leaves.learned(x, parameter.name)
        return parameter

    def node(self, value: Value) -> Node:
        """The plan of what a function gives; a category is one-hot."""
        if isinstance(value, Node):
            return value
        if isinstance(value, Data) and value.size is None and value.element is not None:
            return self.leaves.value(value)
        return one_hot(self.leaves.category(value) if isinstance(value, Data) else value)

    def number(self, *nodes: Node) -> tuple[Node, ...]:
        """The nodes as numbers of one element type: DOUBLE if one of them is, else FLOAT; constants follow."""
        fixed = [n.type.element for n in nodes if not isinstance(n, Constant)]
        element = promote(*(fixed or [FLOAT]))
        return tuple(self.converted(n, element) for n in nodes)

    def converted(self, node: Node, element: Element) -> Node:
        """A node with another element type. Where a whole number is missing, it holds what is safe to compute with."""
        there = None if node.type.element.kind == "float" else self.nulls.flag(node)
        return cast(node, element) if there is None else filled(there, cast(node, element))

    def classes(self, column: str) -> Dim:
        if self._classes is None:
            raise TypeProblem("classes of a column are known only in a model")
        return self._classes(column)

    def there(self, *nodes: Node) -> Node | None:
        """Where all of the nodes have a value and FILTER holds; None: in every row."""
        return both([*map(self.nulls.flag, nodes), self.filter])

    # -- places ------------------------------------------------------------------------------------------------------

    def place(self, tree: exp.Expression) -> Place:
        """Where an expression stands: from its first word to its last."""
        return node_place(tree, self.text) or self.whole

    def at(self, place: Place) -> ExpressionBinder:
        """This binder for an expression that stands elsewhere."""
        self.text, self.whole = place.text, place
        return self

    def problem(self, tree: exp.Expression, message: str, hint: str | None = None) -> ProgrammingError:
        return ProgrammingError(message, place=self.place(tree), hint=hint)

    # -- the walk ----------------------------------------------------------------------------------------------------

    def bind(self, tree: exp.Expression) -> Node:
        """The plan of an expression. Raises ProgrammingError with the place of what does not fit."""
        try:
            return self.dispatch(tree)
        except TypeProblem as problem:
            problem.at(self.place(tree))
            raise

    def dispatch(self, tree: exp.Expression) -> Node:
        match tree:
            case exp.Paren():
                return self.bind(tree.this)
            case exp.Column():
                return self.column(tree)
            case exp.Literal():
                return self.literal(tree)
            case exp.Boolean():
                return Constant((float(bool(tree.this)),), BOOLEAN)
            case exp.Neg():
                (x,) = self.number(self.bind(tree.this))
                return (
                    Constant(tuple(-v for v in x.values), x.element, x.shape)
                    if isinstance(x, Constant)
                    else ops.Negate(x)
                )
            case exp.Distance():  # how the parser writes x @ y
                return ops.matmul(*self.number(self.bind(tree.this), self.bind(tree.expression)))
            case exp.Case() | exp.If():
                return self.case(tree)
            case exp.Cast():
                return self.cast(tree)
            case exp.Array():
                return ops.stack(self.number(*(self.bind(e) for e in tree.expressions)))
            case exp.Bracket():
                return self.bracket(tree)
            case exp.Between():
                x, low, high = self.number(*(self.bind(tree.args[k]) for k in ("this", "low", "high")))
                return ops.And(ops.GreaterEqual(x, low), ops.LessEqual(x, high))
            case exp.And() | exp.Or():
                x, y = self.condition(tree.this), self.condition(tree.expression)
                if isinstance(tree, exp.And):
                    return self.nulls.decided(ops.And(x, y), x, y, (ops.Not(x), ops.Not(y)))
                return self.nulls.decided(ops.Or(x, y), x, y, (x, y))
            case exp.Not():
                return ops.Not(self.condition(tree.this))
            case exp.Anonymous():
                return self.node(self.call(tree))
            case exp.Is():
                return self.is_null(tree)
            case exp.Filter():
                return self.filtered(tree)
            case exp.Subquery() if self.subquery is not None:
                return self.subquery(tree)
        if type(tree) in ARITHMETIC:
            return ARITHMETIC[type(tree)](*self.number(self.bind(tree.this), self.bind(tree.expression)))
        if type(tree) in COMPARISONS:
            return COMPARISONS[type(tree)](*self.comparable(self.bind(tree.this), self.bind(tree.expression)))
        raise self.unknown(tree)

    def unknown(self, tree: exp.Expression) -> ProgrammingError:
        """The error for a construct of SQL that the model language does not have."""
        hints: dict[type[exp.Expression], str] = {
            exp.Null: "a tensor cannot be NULL",
            exp.Subquery: "a model reads the columns of its INPUT; join before, in the table that it is given",
            exp.Select: "a model reads the columns of its INPUT; join before, in the table that it is given",
            exp.Window: "window functions belong in the query that the model reads",
            exp.IntDiv: "use / for division",
            exp.Star: "name the columns",
        }
        words = tree.sql(dialect="duckdb")
        return self.problem(tree, f"{words} is not part of the model language", hints.get(type(tree)))

    def is_null(self, tree: exp.Is) -> Node:
        """x IS NULL; sqlglot writes IS NOT NULL as NOT (x IS NULL)."""
        if not isinstance(tree.expression, exp.Null):
            raise self.problem(tree, "IS takes NULL")
        there = self.nulls.flag(self.bind(tree.this))
        return Constant((0.0,), BOOLEAN) if there is None else self.nulls.declare(ops.Not(there), None)

    def filtered(self, tree: exp.Filter) -> Node:
        """An aggregate over the rows for which a condition holds: SUM(x) FILTER (WHERE y > 0)."""
        rows = self.inner or self
        condition = rows.condition(tree.expression.this)
        self.filter = both([condition, self.nulls.flag(condition)])
        try:
            return self.bind(tree.this)
        finally:
            self.filter = None

    def column(self, tree: exp.Column) -> Node:
        name = ".".join(p.name for p in tree.parts)
        found = self.scope.get(name.lower())
        if found is not None and found.type.element.kind == "text":
            raise self.problem(
                tree,
                f'"{name}" is {found.type.element}, and a number is needed here',
                f"FEATURES({name}), ONE_HOT({name}) and EMBED({name}, size) make numbers of it",
            )
        if found is not None:
            return found
        if name.lower() in self.hidden:
            raise self.problem(tree, self.hidden[name.lower()])
        known = [n for n in self.scope if "." in n or "." not in name]
        message = f'unknown column "{name}"'
        raise self.problem(
            tree, message, suggest(name, known) or (f"known are {listed(sorted(known))}" if known else None)
        )

    def literal(self, tree: exp.Literal) -> Node:
        if tree.is_string:
            raise self.problem(tree, "text is not a number")
        return ops.constant(float(tree.this))

    def condition(self, tree: exp.Expression) -> Node:
        """A condition; one over columns that are no numbers is DuckDB's to compute, and NULL counts as false."""
        read = Arguments(self)
        if read.reads_text(tree):
            return self.leaves.value(composed("coalesce({0}, FALSE)", read.sql(tree), element=BOOLEAN))
        node = self.bind(tree)
        if node.type.element != BOOLEAN:
            raise self.problem(tree, f"expected a condition, got {node.type.element}", "compare it, as in x > 0")
        return node

    def comparable(self, x: Node, y: Node) -> tuple[Node, ...]:
        """Operands of a comparison: whole numbers stay whole if both are."""
        whole = [n.type.element.kind in ("integer", "boolean") for n in (x, y)]
        constants = [isinstance(n, Constant) and all(v == int(v) for v in n.values) for n in (x, y)]
        if any(whole) and all(w or c for w, c in zip(whole, constants, strict=True)):
            element = next(n.type.element for n, w in zip((x, y), whole, strict=True) if w)
            element = INTEGER if element == BOOLEAN else element
            return tuple(cast(n, element) for n in (x, y))
        return self.number(x, y)

    def case(self, tree: exp.Case | exp.If) -> Node:
        """CASE WHEN ... THEN ... ELSE ... END, from the last branch to the first."""
        branches = tree.args["ifs"] if isinstance(tree, exp.Case) else [tree]
        default = tree.args.get("default") or tree.args.get("false")
        if default is None:
            raise self.problem(tree, "CASE needs an ELSE: a tensor cannot be NULL")
        out = self.bind(default)
        for branch in reversed(branches):
            if tree.this is not None and isinstance(tree, exp.Case):
                chosen: Node = ops.Equal(*self.comparable(self.bind(tree.this), self.bind(branch.this)))
            else:
                chosen = self.condition(branch.this)
            out = self.nulls.chosen(chosen, *self.number(self.bind(branch.args["true"]), out))
        return out

    def cast(self, tree: exp.Cast) -> Node:
        element: Element | None = ELEMENTS.get({"REAL": "FLOAT"}.get(str(tree.to.this.value), str(tree.to.this.value)))
        if element is None or element.kind != "float":
            raise self.problem(tree, f"a tensor can be cast to FLOAT or DOUBLE, not to {tree.to.sql(dialect='duckdb')}")
        return cast(self.bind(tree.this), element)

    def bracket(self, tree: exp.Bracket) -> Node:
        """x[i] and x[i:j], counted from 1 and with both ends, as in DuckDB."""
        x = self.bind(tree.this)
        if x.type.rank == 0:
            raise self.problem(tree, "a single number has no positions")
        size = ops.int_size(x, 0)
        if len(tree.expressions) != 1:
            raise self.problem(tree, "one position at a time", "write x[i][j]")
        (inner,) = tree.expressions
        if isinstance(inner, exp.Slice):
            start = self.whole_number(inner.this) if inner.args.get("this") is not None else 1
            stop = self.whole_number(inner.expression) if inner.args.get("expression") is not None else size
            return Slice(x, 0, self.position(start, size) - 1, self.position(stop, size))
        at = self.position(self.whole_number(inner), size)
        return ops.drop_axis(Slice(x, 0, at - 1, at), 0)

    @staticmethod
    def position(written: int, size: int) -> int:
        """A position counted from 1; a negative one counts from the end."""
        return written + size + 1 if written < 0 else written

    def known_number(self, tree: exp.Expression) -> float | None:
        """The value of an expression of numbers; None if it is none."""
        return number_of(self.bind(tree))

    def whole_number(self, tree: exp.Expression) -> int:
        value = self.known_number(tree)
        if value is None or value != int(value):
            raise self.problem(tree, "expected a whole number")
        return int(value)

    # -- calls ---------------------------------------------------------------------------------------------------------

    def is_known(self, tree: exp.Anonymous) -> bool:
        """Whether a call is of a function or layer of the model language."""
        return str(tree.this).upper() in {*FUNCTIONS, *standard_layers(), *LATER}

    def call(self, tree: exp.Anonymous) -> Value:
        name = str(tree.this).upper()
        if name in FUNCTIONS:
            return self.call_function(FUNCTIONS[name], tree)
        layers = standard_layers()
        if name in layers:
            return self.call_layer(layers[name], tree)
        if name in LATER:
            raise NotSupportedError(f"{name} is not in this version", place=self.place(tree))
        hint = suggest(name, [*FUNCTIONS, *layers])
        if name == "NULLIF":
            hint = "write it in the query that the model reads"
        raise self.problem(tree, f"unknown function {name}", hint)

    def call_function(self, function: Function, tree: exp.Anonymous) -> Value:
        arguments = tree.expressions
        if function.is_aggregate and len(arguments) == 1 and isinstance(arguments[0], exp.Star):
            arguments = []
        by_name = [a for a in arguments if isinstance(a, (exp.Kwarg, exp.PropertyEQ))]
        arguments = [a for a in arguments if a not in by_name]
        repeated = next((p for p in function.parameters if p.kind is p.VAR_POSITIONAL), None)
        single = [p for p in function.parameters if p is not repeated]
        least = sum(1 for p in single if p.default is p.empty) + (repeated is not None)
        if len(arguments) < least or (repeated is None and len(arguments) > len(single)):
            raise self.arity(tree, function.usage)
        outer, self.activation = self.activation, "HE" if function.name in HE else "XAVIER"
        parameters = [*single, *[repeated] * (len(arguments) - len(single))] if repeated else single
        read = Arguments(self.inner if self.inner is not None and function.is_aggregate else self)
        values = [read.argument(p, a) for p, a in zip(parameters, arguments, strict=False) if p is not None]
        named = dict(read.named(function, single[len(arguments) :], a) for a in by_name)
        self.activation = outer
        return function.build(self, *values, **named)

    def call_layer(self, layer: Layer, tree: exp.Anonymous) -> Node:
        """A layer of the model language: its body, bound with its arguments in scope."""
        given = tree.expressions
        least = len(layer.arguments) - len(layer.defaults)
        if not least <= len(given) <= len(layer.arguments):
            raise self.arity(tree, layer.usage)
        outer, self.activation = self.activation, "HE" if layer.name in HE else "XAVIER"
        scope = {a: self.bind(g) for a, g in zip(layer.arguments, given, strict=False)}
        self.activation = outer
        for name in layer.arguments[len(given) :]:
            scope[name] = ops.constant(layer.defaults[name])
        inner = ExpressionBinder(layer.expression.place, scope, fold=self.fold, weight=self.weight, nulls=self.nulls)
        try:
            return inner.dispatch(layer.expression.tree)
        except ProgrammingError as problem:  # the culprit is the call, not the layer's own text
            raise ProgrammingError(
                f"{layer.name}: {problem.message}", place=self.place(tree), hint=problem.hint
            ) from None

    def arity(self, tree: exp.Anonymous, usage: str) -> ProgrammingError:
        count = len(tree.expressions)
        return self.problem(tree, f"{usage} does not take {count} argument{'' if count == 1 else 's'}")


def number_of(node: Node) -> float | None:
    """The value of arithmetic over known numbers; None if it is not known, or there is none."""
    if isinstance(node, Constant):
        return node.value
    values = [number_of(n) for n in node.inputs]
    known = [v for v in values if v is not None]
    if not isinstance(node, ops.Map) or len(known) < len(values):
        return None
    try:
        return float(scalar.evaluate(node.expression, dict(zip(node.names(), known, strict=True))))
    except (ArithmeticError, ValueError):
        return None


def bind_expression(expression: Expression, scope: Mapping[str, Node], **options: Any) -> Node:
    """The plan of a stand-alone expression, such as the condition of UNTIL."""
    return ExpressionBinder(expression.place, dict(scope), **options).bind(expression.tree)
