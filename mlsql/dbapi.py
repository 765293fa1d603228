"""PEP 249: connections and cursors over one session.

DuckDB's own cursors are connections of their own and share no transaction. These share one session: several cursors
see one transaction, and each keeps its own result, which is taken into memory when another statement needs the way.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import errors
from .errors import InterfaceError

if TYPE_CHECKING:
    import pyarrow as pa

    from .executor.results import Rows

Parameters = Sequence[Any] | Mapping[str, Any] | None


class Connection:
    """An open database. Used in a ``with`` block it closes at the end."""

    Warning = errors.Warning
    Error = errors.Error
    InterfaceError = errors.InterfaceError
    DatabaseError = errors.DatabaseError
    DataError = errors.DataError
    OperationalError = errors.OperationalError
    IntegrityError = errors.IntegrityError
    InternalError = errors.InternalError
    ProgrammingError = errors.ProgrammingError
    NotSupportedError = errors.NotSupportedError

    def __init__(self, path: str = ":memory:", read_only: bool = False, progress: Any = None) -> None:
        from .session import Session

        if progress is None and sys.stderr.isatty():
            from .progress import TerminalProgress

            progress = TerminalProgress(sys.stderr)
        self._session: Session | None = Session(str(path), read_only, progress or None)

    @property
    def session(self) -> Any:
        """The session. Raises InterfaceError once the connection is closed."""
        if self._session is None:
            raise InterfaceError("the connection is closed")
        return self._session

    def cursor(self) -> Cursor:
        """A new cursor; all cursors of a connection share its transaction."""
        return Cursor(self)

    def execute(self, statement: str, parameters: Parameters = None) -> Cursor:
        """Run statements on a new cursor, which is returned."""
        return self.cursor().execute(statement, parameters)

    def executemany(self, statement: str, parameters: Iterable[Parameters]) -> Cursor:
        """Run a statement once for each of the parameters on a new cursor, which is returned."""
        return self.cursor().executemany(statement, parameters)

    def begin(self) -> None:
        """Open a transaction; without one every statement is a transaction of its own."""
        self.session.storage.begin()

    def commit(self) -> None:
        """Commit the open transaction, if there is one."""
        if self.session.storage.in_transaction:
            self.session.storage.commit()

    def rollback(self) -> None:
        """Undo the open transaction, if there is one."""
        if self.session.storage.in_transaction:
            self.session.storage.rollback()

    def register(self, name: str, table: Any) -> None:
        """Let statements read a pandas or polars DataFrame, an Arrow table or a reader under a name."""
        self.session.storage.register(name, table)

    def unregister(self, name: str) -> None:
        """Take back what ``register`` gave."""
        self.session.storage.unregister(name)

    def interrupt(self) -> None:
        """Stop the statement that another thread is running on this connection."""
        self.session.storage.interrupt()

    def close(self) -> None:
        """Close the database. A transaction that is open is undone; closing twice is no error."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Cursor:
    """Runs statements and gives out the rows of the last one.

    ``messages`` holds what the last statement wants its user to know, as pairs of an exception class and a text.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.messages: list[tuple[type[Exception], str]] = []
        self.arraysize = 1
        self._rows: Rows | None = None
        self._is_closed = False

    # -- running -------------------------------------------------------------------------------------------------------

    def execute(self, statement: str, parameters: Parameters = None) -> Cursor:
        """Run one or more statements; parameters are for the last one."""
        session = self._open().session
        if not isinstance(statement, str):
            raise InterfaceError(f"a statement is a text, not {type(statement).__name__}")
        self._forget()
        try:
            self._rows = session.execute(statement, parameters)
        finally:
            self.messages = [(errors.Warning, text) for text in session.notices]
        return self

    def executemany(self, statement: str, parameters: Iterable[Parameters]) -> Cursor:
        """Run a statement once for each of the parameters, as one transaction."""
        storage = self._open().session.storage
        with storage.transaction():
            for values in parameters:
                self.execute(statement, values)
        return self

    # -- rows ----------------------------------------------------------------------------------------------------------

    @property
    def description(self) -> list[tuple[str, str, None, None, None, None, None]] | None:
        """A tuple a column, of which the first is its name and the second its SQL type; None without a result."""
        return None if self._rows is None else self._rows.description

    @property
    def rowcount(self) -> int:
        """-1: DuckDB does not say how many rows there are before they are fetched."""
        return -1

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, or None after the last."""
        return self._result().fetchone()

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """The next ``size`` rows (``arraysize`` by default), fewer at the end."""
        return self._result().fetchmany(self.arraysize if size is None else size)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows that are left."""
        return self._result().fetchall()

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self._result())

    def fetch_arrow_table(self) -> pa.Table:
        """All rows that are left, as an Arrow table."""
        return self._result().arrow()

    def fetch_record_batch(self, rows_per_batch: int = 1_000_000) -> pa.RecordBatchReader:
        """The rows that are left as a stream of Arrow batches."""
        return self._result().reader(rows_per_batch)

    def df(self) -> Any:
        """All rows that are left, as a pandas DataFrame."""
        return self._result().df()

    def pl(self) -> Any:
        """All rows that are left, as a polars DataFrame."""
        return self._result().pl()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The rows that are left through Arrow's C interface: pyarrow, polars, pandas and DuckDB read a cursor."""
        return self._result().reader().__arrow_c_stream__(requested_schema)

    # -- the rest of PEP 249 -------------------------------------------------------------------------------------------

    def setinputsizes(self, sizes: Sequence[Any]) -> None:
        """Nothing: DuckDB needs no sizes."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Nothing: DuckDB needs no sizes."""

    def close(self) -> None:
        """Close the cursor and give up its rows."""
        self._forget()
        self._is_closed = True

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self) -> Connection:
        if self._is_closed:
            raise InterfaceError("the cursor is closed")
        return self.connection

    def _result(self) -> Rows:
        _ = self._open().session
        if self._rows is None:
            raise InterfaceError("there is no result: execute a statement first")
        return self._rows

    def _forget(self) -> None:
        if self._rows is not None:
            self._rows.close()
            self._rows = None
