"""What a statement says: one frozen dataclass a statement, and the pieces they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from sqlglot import exp

from ..errors import Place
from ..record import record
from ..types import Element, Shape


@record
class Name:
    """A model's name as written, ``[schema.]name``."""

    name: str
    place: Place
    schema: str | None = None

    def __str__(self) -> str:
        in_main = self.schema is None or self.schema.lower() == "main"
        return self.name if in_main else f"{self.schema}.{self.name}"


@record
class Query:
    """SQL for DuckDB that can stand after FROM: a table, a file in quotes, a function call or ``(SELECT ...)``.

    Placeholders are renamed to ``$p1, $p2 ...`` (or keep their names) and ``values`` holds what this text needs.
    ``name`` is the relation that it is: its alias, or else the table's own name.
    """

    text: str
    place: Place
    values: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)
    name: str | None = None


@record
class Expression:
    """A piece of the model language: sqlglot's tree, and where it stands. Its nodes' ``meta`` has start and end."""

    tree: exp.Expression
    place: Place


@record
class ColumnDeclaration:
    """``pixels FLOAT[64]`` in INPUT or TARGET. ``element`` is None for a type that is no number's.

    ``relation`` is empty in a model over one relation that has no name.
    """

    name: str
    element: Element | None
    shape: Shape
    type_text: str
    place: Place
    relation: str = ""


@record
class Initializer:
    """``INIT HE``, ``INIT NORMAL(0.1)``, ``INIT 2``: kind is a word, or LITERAL with the value in ``value``."""

    kind: str
    arguments: tuple[float, ...] = ()
    value: float | list[Any] | None = None
    place: Place | None = None


@record
class ParameterDeclaration:
    """``w FLOAT[10][784] INIT XAVIER FROZEN`` in PARAMETERS."""

    name: str
    element: Element
    shape: Shape
    initializer: Initializer | None
    frozen: bool
    place: Place


@record
class CreateModel:
    """``CREATE [OR REPLACE] MODEL [IF NOT EXISTS] name [PARAMETERS] [INPUT] [TARGET] AS select [MINIMIZE]``."""

    model: Name
    or_replace: bool
    if_not_exists: bool
    parameters: tuple[ParameterDeclaration, ...]
    inputs: tuple[ColumnDeclaration, ...]
    input_from: Query | None
    target: tuple[ColumnDeclaration, ...]
    select: Expression
    minimize: Expression | None
    text: str  # the statement with every placeholder replaced by its literal
    input_from_place: Place | None = None  # in ``text``: ``FROM query``, where its columns are to stand

    @property
    def relations(self) -> tuple[str, ...]:
        """The names of its relations, in the order of INPUT; none for a model over one relation without a name."""
        return tuple(dict.fromkeys(d.relation for d in self.inputs if d.relation))


@record
class Option:
    """``learning_rate = 0.1`` in WITH: a number, a string, a boolean, or a bare word as a string."""

    name: str
    value: Any
    place: Place
    value_place: Place


@record
class Train:
    """``TRAIN model [ON query [AS relation], ...] [PER (...)]`` and its other clauses.

    ``on`` is the first relation, ``others`` are the further ones; ``sample`` is how many rows each GROUP BY takes at
    most of a group, from the one nearest to the output on. ``per`` are the columns whose values say which group a row
    belongs to; every group gets parameters of its own.
    """

    model: Name
    on: Query | None
    validate: Query | float | None  # a query, or a percentage of the rows
    weight: Expression | None
    minimize: Expression | None
    solver: str | None
    solver_place: Place | None
    options: tuple[Option, ...]
    until: Expression | None
    within_seconds: float | None
    from_scratch: bool
    place: Place
    others: tuple[Query, ...] = ()
    validate_others: tuple[Query, ...] = ()
    sample: tuple[int, ...] = ()
    sample_place: Place | None = None
    per: tuple[Name, ...] = ()
    memory: int | None = None  # bytes
    memory_place: Place | None = None


@record
class Evaluate:
    """``EVALUATE model [VERSION n] ON query [AS relation], ... [WITH (metric, ...)]``."""

    model: Name
    version: int | None
    on: Query
    metrics: tuple[Name, ...]
    place: Place
    others: tuple[Query, ...] = ()


@record
class Explain:
    """``EXPLAIN [ANALYZE] [(option [value], ...)] statement``; option names are upper case."""

    statement: Statement
    options: tuple[Option, ...]
    analyze: bool
    place: Place


@record
class ExplainGradient:
    """``EXPLAIN GRADIENT model``."""

    model: Name


@record
class DropModel:
    """``DROP MODEL [IF EXISTS] name``."""

    model: Name
    if_exists: bool


@record
class RenameModel:
    """``ALTER MODEL a RENAME TO b``."""

    model: Name
    new: Name


@record
class RollbackModel:
    """``ALTER MODEL a ROLLBACK TO VERSION n``: an earlier version becomes the current one."""

    model: Name
    version: int


@record
class ShowTraining:
    """``SHOW TRAINING [RUNS | LOG] [FOR model]``."""

    what: str  # RUNS or LOG
    model: Name | None


@record
class ExplainRule:
    """``EXPLAIN RULE name``: one rule of the optimizer."""

    rule: Name


@record
class ShowModels:
    """``SHOW MODELS``."""


@record
class ShowLayers:
    """``SHOW LAYERS``: the functions, layers and losses of the model language."""


@record
class Calibrate:
    """``CALIBRATE``: measure this machine."""


@record
class ShowRules:
    """``SHOW RULES``: the optimizer's rules."""


@record
class DescribeModel:
    """``DESCRIBE [MODEL] name``. Without the word MODEL it is DuckDB's if no such model exists."""

    model: Name
    explicit: bool  # the word MODEL was written
    sql: SelectSql  # what DuckDB gets if there is no such model


@record
class SetOption:
    """``SET mlsql_name = value``, an option of mlsql's own."""

    name: str
    value: Any
    place: Place


@record
class Argument:
    """One argument of PREDICT: its SQL stands at ``place``; ``name`` is set if ``name => sql`` or, of a table,
    ``sql AS name`` was written, and ``whole`` spans both."""

    name: str | None
    place: Place
    whole: Place


@record
class PredictCall:
    """``PREDICT(model [VERSION n] [, argument ...])[.output]`` inside a statement of DuckDB's.

    ``place`` spans the whole call, ``.output`` included. A table call stands in FROM, and its arguments are tables
    or queries in brackets, one a relation of the model. An argument may hold further calls; they are listed beside
    this one, in order of their start.
    """

    model: Name
    version: int | None
    arguments: tuple[Argument, ...]
    output: str | None
    output_place: Place | None
    is_table: bool
    place: Place
    is_column: bool = False  # a whole column of a select, without a name


@record
class SelectSql:
    """Any statement of DuckDB's, verbatim in ``text``, and the PREDICT calls in it.

    Without PREDICT the text is untouched and ``values`` is what the caller gave. With PREDICT placeholders are
    renamed as in :class:`Query`, so that calls can be rewritten in any order.
    """

    text: str
    predicts: tuple[PredictCall, ...] = ()
    values: Any = field(default=None, hash=False, compare=False)
    place: Place | None = None


Statement = (
    CreateModel
    | Train
    | Evaluate
    | Explain
    | ExplainGradient
    | ExplainRule
    | DropModel
    | RenameModel
    | RollbackModel
    | ShowTraining
    | Calibrate
    | ShowModels
    | ShowLayers
    | ShowRules
    | DescribeModel
    | SetOption
    | SelectSql
)
