"""The skeleton of a model over several relations: its joins, filters, groups and unions, without any tensor.

Keys never depend on a parameter. So the relational part of a model is SQL over the keys alone, which DuckDB runs once,
before anything is learned; it leaves vectors of positions, along which tensors are taken and summed ever after.

Every row set has a table of its own for DuckDB: a column ``#`` with the number of the row, from 0, and the columns that
some key needs. A *column text* is SQL over such a table, in which ``TABLE`` stands for the table's alias.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import field

from ..errors import Place
from ..record import by_identity, record
from ..types import RowSet, Symbol
from .ops import Column, Positions

TABLE = "\0"  # no name and no text of a statement holds it
ROW = '"#"'


def rows_symbol(name: str) -> Symbol:
    """The number of rows of a row set, before the data is seen."""
    return Symbol(f"rows of {name}")


def table_name(rows: RowSet) -> str:
    """The name under which DuckDB finds the table of a row set."""
    return quoted(f"mlsql rows of {rows.name}")


def quoted(name: str) -> str:
    """A name as SQL writes it when it may be anything."""
    return '"' + name.replace('"', '""') + '"'


def at(text: str, alias: str) -> str:
    """A column text for a table of this alias."""
    return text.replace(TABLE, alias)


@by_identity
class Step:
    """One derived row set: how it is found, from where in the statement, and the leaves of plans that it fills.

    ``exports`` are the columns that its table holds beside the row's number, by column text; they are asked for while
    the model is bound, since only then it shows which keys are needed. ``leaves`` are columns of the plan that are
    read from the table, by the name of an export; ``flags`` say where one is not NULL.
    """

    rows: RowSet
    place: Place
    exports: dict[str, str] = field(default_factory=dict)
    leaves: dict[Column, str] = field(default_factory=dict)
    flags: dict[Column, str] = field(default_factory=dict)

    def shown(self) -> str:
        """The step for people: its SQL, with row sets under their own names."""
        return self.rows.name

    def export(self, text: str) -> str:
        """The column text, over this step's table, of an expression that it is asked to hold."""
        name = self.exports.setdefault(text, f"c{len(self.exports)}")
        return f"{TABLE}.{quoted(name)}"


@by_identity
class Joined:
    """One side of a join: its row set, its alias in the SQL, and the positions of its rows.

    ``matched`` says which rows of the join have one; None where all have, as in an inner join. ``optional`` is whether
    the join allows for rows without one.
    """

    over: RowSet
    alias: str
    positions: Positions
    matched: Column | None = None
    optional: bool = False


@by_identity
class Join(Step):
    """Rows that come from one row of each side: a join, or a filter where there is a single side.

    ``words`` is what stands after FROM. Exports are texts over the aliases of the sides. The rows are in the order of
    the first side's rows, then the second's, and so on.
    """

    sides: tuple[Joined, ...] = ()
    words: list[str] = field(default_factory=list)

    @property
    def sql(self) -> str:
        """What stands after FROM."""
        return " ".join(word for word in self.words if word)

    def query(self) -> str:
        """The rows' positions on each side and the exports, in any order."""
        positions = [f"{s.alias}.{ROW} AS {quoted(f'p{i}')}" for i, s in enumerate(self.sides)]
        exports = [f"{text} AS {quoted(name)}" for text, name in self.exports.items()]
        return f"SELECT {', '.join([*positions, *exports])} FROM {self.sql}"

    def shown(self) -> str:
        """``FROM edges AS s0 JOIN nodes AS s1 ON ...``."""
        return f"FROM {plain(self.sql)}"


@by_identity
class Group(Step):
    """The groups of a row set, sorted by their keys. Its exports are the keys: column texts over ``over``."""

    over: RowSet = field(default_factory=lambda: RowSet("nothing"))
    positions: Positions | None = None

    def query(self) -> str:
        """A row a group: its number and its keys."""
        keys = ", ".join(quoted(name) for name in self.exports.values())
        inner = ", ".join(f"{at(text, 'r')} AS {quoted(name)}" for text, name in self.exports.items())
        order = f"row_number() OVER (ORDER BY {keys}) - 1 AS {ROW}"
        return f"SELECT {order}, {keys} FROM (SELECT DISTINCT {inner} FROM {table_name(self.over)} AS r)"

    def shown(self) -> str:
        """``FROM joined_1 GROUP BY dst``."""
        return f"FROM {self.over.name} GROUP BY {', '.join(plain(at(t, self.over.name)) for t in self.exports)}"

    def members(self) -> str:
        """The number of each row and that of its group; NULL is a group of its own, as in SQL."""
        same = " AND ".join(
            f"{at(text, 'r')} IS NOT DISTINCT FROM g.{quoted(name)}" for text, name in self.exports.items()
        )
        tables = f"{table_name(self.over)} AS r JOIN {table_name(self.rows)} AS g ON {same}"
        return f"SELECT r.{ROW} AS member, g.{ROW} AS p FROM {tables}"


@by_identity
class Union(Step):
    """The rows of one row set after those of another. An export is a column text over each, between TABLEs."""

    parts: tuple[RowSet, ...] = ()
    positions: tuple[Positions, ...] = ()
    pairs: dict[str, tuple[str, ...]] = field(default_factory=dict)  # the texts of an export over the parts

    def export_pair(self, texts: tuple[str, ...]) -> str:
        """The column text, over this step's table, of a column that has these texts over the parts."""
        key = "\n".join(texts)
        self.pairs[key] = texts
        return self.export(key)

    def query(self, starts: tuple[int, ...]) -> str:
        """The rows of all parts; ``starts`` are the numbers of their first rows."""
        selects = []
        for i, (part, start) in enumerate(zip(self.parts, starts, strict=True)):
            columns = [f"r.{ROW} + {start} AS {ROW}"]
            columns += [f"{at(self.pairs[key][i], 'r')} AS {quoted(name)}" for key, name in self.exports.items()]
            selects.append(f"SELECT {', '.join(columns)} FROM {table_name(part)} AS r")
        return " UNION ALL ".join(selects)

    def shown(self) -> str:
        """``FROM a UNION ALL FROM b``."""
        return " UNION ALL ".join(f"FROM {part.name}" for part in self.parts)


def plain(sql: str) -> str:
    """SQL with the private names of tables replaced by those of their row sets, and no quotes that are not needed."""
    sql = sql.replace(table_name(RowSet(""))[:-1], '"')
    return re.sub(r'"([a-z_][a-z0-9_]*)"', r"\1", sql)


@record
class Skeleton:
    """The steps in the order in which they can run, and what they read of the model's own relations.

    ``keys`` are the columns of each relation that a key reads; ``relations`` their row sets by name.
    """

    relations: Mapping[str, RowSet] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    keys: Mapping[str, dict[str, None]] = field(default_factory=dict)


Text = Callable[[], str]  # asks for a column text: only what is asked for is read and kept
