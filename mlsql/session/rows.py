"""Results of our own statements, as rows like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ..executor.arrow import from_list
from ..executor.results import Column

if TYPE_CHECKING:
    from ..executor.results import Rows
    from .core import Session

SQL_TYPES = {str: "VARCHAR", bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE", type(None): "DOUBLE"}


def table_rows(session: Session, columns: Mapping[str, Sequence[Any] | pa.Array | pa.ChunkedArray]) -> Rows:
    """Rows from columns by name."""
    return session.storage.table_rows(small_table(columns))


def small_table(columns: Mapping[str, Sequence[Any] | pa.Array | pa.ChunkedArray]) -> pa.Table:
    """An Arrow table of columns by name, without what Arrow loads to look through a list."""
    known = (pa.Array, pa.ChunkedArray)
    return pa.table({name: c if isinstance(c, known) else from_list(c) for name, c in columns.items()})


def one_row(session: Session, values: Mapping[str, Any]) -> Rows:
    """A single row; what is unknown is a DOUBLE."""
    columns = [Column(name, SQL_TYPES[type(v)]) for name, v in values.items()]
    return session.storage.value_rows([tuple(values.values())], columns)


def message_rows(session: Session, message: str) -> Rows:
    """A single row that says what was done."""
    return one_row(session, {"message": message})


def lines_rows(session: Session, lines: Sequence[str]) -> Rows:
    """Text, a row a line, in a column called plan."""
    return table_rows(session, {"plan": list(lines)})
