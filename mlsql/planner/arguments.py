"""The arguments of functions, each read as the function's signature says: the last word of its annotation.

Beside plans, numbers and texts these are columns, SQL over columns, what FEATURES takes, words such as UNKNOWN MEAN.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from ..errors import listed, suggest
from ..parser.tokens import dialect
from ..types import BOOLEAN, DOUBLE, Dim, TypeProblem
from .data import HOLE, Category, Data, Value, composed
from .functions import FUNCTIONS, Function
from .node import Node

if TYPE_CHECKING:
    from .expressions import ExpressionBinder

NESTED = re.compile(r"STRUCT|MAP|UNION|VARIANT|\[", re.IGNORECASE)
UNKNOWNS = ("ZEROS", "MEAN", "ERROR")


class Arguments:
    """Reads arguments for an expression's binder."""

    def __init__(self, binder: ExpressionBinder) -> None:
        self.binder = binder

    def argument(self, parameter: inspect.Parameter, tree: exp.Expression) -> Any:
        """An argument by its position."""
        return self.read(str(parameter.annotation).removesuffix(" | None").rpartition(".")[2].rstrip("'>"), tree)

    def named(self, function: Function, still_open: list[inspect.Parameter], tree: exp.Expression) -> tuple[str, Any]:
        """``name => value``, or two words such as UNKNOWN MEAN: an argument that is not given by its position."""
        name = tree.this.name
        parameter = next((p for p in still_open if p.name == name.lower() and p.default is not p.empty), None)
        if parameter is None:
            raise self.binder.problem(tree, f"{function.name} takes no {name} here", function.usage)
        return parameter.name, self.argument(parameter, tree.expression)

    def read(self, kind: str, tree: exp.Expression) -> Any:
        """An argument of a kind."""
        readers: Mapping[str, Callable[[Any], Any]] = {
            "Node": self.binder.bind,
            "int": self.binder.whole_number,
            "Size": self.size,
            "str": self.text,
            "ColumnName": self.column_name,
            "Data": self.data,
            "Known": self.known,
            "Key": self.key,
            "Feature": self.feature,
            "Numbers": self.numbers,
            "Filling": self.filling,
            "Unknown": self.unknown,
            "Argument": lambda tree: lambda kind: self.read(kind, tree),
        }
        return readers[kind](tree)

    def size(self, tree: exp.Expression) -> Dim:
        """A whole number above 0, or CLASSES(column)."""
        if isinstance(tree, exp.Anonymous) and str(tree.this).upper() == "CLASSES":
            if len(tree.expressions) != 1 or not isinstance(tree.expressions[0], exp.Column):
                raise self.binder.arity(tree, "CLASSES(column)")
            try:
                return self.binder.classes(tree.expressions[0].name)
            except TypeProblem as problem:
                raise problem.at(self.binder.place(tree)) from None
        size = self.binder.whole_number(tree)
        if size < 1:
            raise self.binder.problem(tree, f"a size must be at least 1, not {size}")
        return size

    def text(self, tree: exp.Expression) -> str:
        """A text in quotes."""
        if not isinstance(tree, exp.Literal) or not tree.is_string:
            raise self.binder.problem(tree, "expected a text in quotes")
        return str(tree.this)

    def column_name(self, tree: exp.Expression) -> str:
        """The name of a column, which is not read."""
        if not isinstance(tree, exp.Column):
            raise self.binder.problem(tree, "expected the name of a column")
        return str(tree.name)

    # -- data --------------------------------------------------------------------------------------------------------

    def data(self, tree: exp.Expression) -> Data:
        """SQL over columns of INPUT: a column, a function that gives one, or an expression of DuckDB's."""
        match tree:
            case exp.Paren():
                return self.data(tree.this)
            case exp.Column():
                return self.column(tree)
            case exp.Anonymous() if gives(tree, "Data"):
                found = self.call(tree)
                assert isinstance(found, Data)
                return found
            case exp.Anonymous() if gives(tree, "Category"):
                hint = "it can stand in FEATURES, in EMBED and by itself"
                raise self.binder.problem(tree, f"{str(tree.this).upper()} cannot stand in another function", hint)
        return self.sql(tree)

    def column(self, tree: exp.Column) -> Data:
        """A column of INPUT."""
        found = self.declared(tree)
        if found is None:
            node = self.binder.column(tree)  # raises for what is not there at all
            raise self.binder.problem(
                tree,
                f'"{tree.sql(dialect=dialect())}" is computed by the model, and a column of INPUT is needed here',
                "what is learned from data is learned before training" if node.inputs else None,
            )
        if found.element is None and NESTED.search(found.declared):
            raise self.binder.problem(tree, f'"{found.text}" is {found.declared}: only its parts can be features')
        return found

    def declared(self, tree: exp.Column) -> Data | None:
        """The column of INPUT that a name means, None if it means something else."""
        name = ".".join(p.name for p in tree.parts).lower()
        leaves = self.binder.leaves
        return leaves.declared[name] if leaves.is_own(name, self.binder.scope.get(name)) else None

    def reads_text(self, tree: exp.Expression) -> bool:
        """Whether an expression reads a column of INPUT that is no number."""
        if not self.binder.has_leaves:
            return False
        found = (self.declared(column) for column in tree.find_all(exp.Column))
        return any(data is not None and data.element is None for data in found)

    def call(self, tree: exp.Anonymous) -> Value:
        try:
            return self.binder.call(tree)
        except TypeProblem as problem:
            problem.at(self.binder.place(tree))
            raise

    def sql(self, tree: exp.Expression) -> Data:
        """An expression that DuckDB computes, with the columns in it."""
        if tree.find(exp.Query, exp.Window) is not None:
            hint = "compute it in the table that the model is given"
            raise self.binder.problem(tree, "only one row's columns can be read here", hint)
        parts: list[Data] = []

        def hole(node: exp.Expression) -> exp.Expression:
            if isinstance(node, exp.Column) or (isinstance(node, exp.Anonymous) and gives(node, "Data")):
                parts.append(self.data(node))
                return exp.Var(this=f"{{{len(parts) - 1}}}")
            if isinstance(node, exp.Literal) and HOLE.search(node.this):  # a text that only looks like a hole
                return exp.Var(this="('" + node.this.replace("'", "''").replace("{", "{' || '") + "')")
            return node

        place = self.binder.place(tree)
        template = tree.transform(hole).sql(dialect=dialect())
        if not parts:
            raise self.binder.problem(tree, f"{template} reads no column", "a column of INPUT is needed here")
        found = composed(template, *parts, element=DOUBLE)
        self.binder.leaves.check(found, place)
        return found

    def known(self, tree: exp.Expression) -> Node | None:
        """Where an expression is not NULL, as a flag a row (None: everywhere); a column of INPUT may be of any type."""
        data = self.declared(tree) if isinstance(tree, exp.Column) and self.binder.has_leaves else None
        if data is None:
            return self.binder.nulls.flag(self.binder.bind(tree))
        return self.binder.leaves.value(composed("{0} IS NOT NULL", data, element=BOOLEAN))

    def key(self, tree: exp.Expression) -> Data | Category:
        """What can be looked up: SQL over columns, or buckets."""
        if isinstance(tree, exp.Anonymous) and gives(tree, "Category"):
            found = self.call(tree)
            assert isinstance(found, Category)
            return found
        return self.data(tree)

    def feature(self, tree: exp.Expression) -> Value | list[Data]:
        """Anything that can be made a part of a vector."""
        if isinstance(tree, exp.Star):
            return self.star(tree)
        if isinstance(tree, exp.Column) and isinstance(tree.this, exp.Star):
            return self.star(tree.this, tree.table.lower())
        if isinstance(tree, exp.Column) and self.declared(tree) is not None:
            return self.column(tree)
        if isinstance(tree, exp.Anonymous) and not self.binder.is_known(tree):
            return self.sql(tree)
        return self.call(tree) if isinstance(tree, exp.Anonymous) else self.binder.bind(tree)

    def star(self, tree: exp.Star, table: str = "") -> list[Data]:
        """``*``, ``t.*`` or ``* EXCLUDE (a, b)``: columns of INPUT, in their order."""
        declared = self.binder.leaves.declared
        left_out = {e.name.lower(): e for e in tree.args.get("except_") or ()}
        for name, e in left_out.items():
            if name not in declared and name not in self.binder.hidden:
                known = [d.text for d in self.binder.leaves.columns()]
                hint = suggest(e.name, known) or f"columns are {listed(known)}"
                raise self.binder.problem(e, f'there is no column "{e.name}" to leave out', hint)
        dropped = [declared[name] for name in left_out if name in declared]
        of_table = [d for name, d in declared.items() if name.startswith(f"{table}.")]
        found = [d for d in (of_table if table else self.binder.leaves.columns()) if d not in dropped]
        if not found:
            raise self.binder.problem(tree, f'there is no column of "{table}" here')
        for d in found:
            if d.element is None and NESTED.search(d.declared):
                hint = f"* EXCLUDE ({d.text})"
                raise self.binder.problem(tree, f'"{d.text}" is {d.declared}: only its parts can be features', hint)
        return found

    def numbers(self, tree: exp.Expression) -> list[float]:
        """A list of numbers."""
        if not isinstance(tree, exp.Array):
            raise self.binder.problem(tree, "expected a list of numbers", "[18, 30, 65]")
        return [self.number(e) for e in tree.expressions]

    def number(self, tree: exp.Expression) -> float:
        value = self.binder.known_number(tree)
        if value is None:
            raise self.binder.problem(tree, "expected a number")
        return value

    def filling(self, tree: exp.Expression) -> str | float:
        """What IMPUTE fills with: a word in quotes or a number."""
        if isinstance(tree, exp.Literal) and tree.is_string:
            return str(tree.this).lower()
        return self.number(tree)

    def unknown(self, tree: exp.Expression) -> str:
        """What EMBED does with a key that it does not know."""
        word = tree.name.upper() if isinstance(tree, (exp.Column, exp.Var)) else ""
        if word not in UNKNOWNS:
            raise self.binder.problem(
                tree, "UNKNOWN takes ZEROS, MEAN or ERROR", suggest(word, UNKNOWNS) if word else None
            )
        return word


def gives(tree: exp.Anonymous, kind: str) -> bool:
    """Whether a call is one of a function of ours that gives Data, or a Category."""
    function = FUNCTIONS.get(str(tree.this).upper())
    return function is not None and function.gives == kind
