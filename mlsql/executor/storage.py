"""DuckDB, as the rest of mlsql sees it: one connection, its statements, its transactions, its Python functions.

This is the only file that imports duckdb. Every error that DuckDB raises leaves here as mlsql's error of the same
PEP 249 name, its message untouched.

DuckDB runs one statement at a time on a connection: while a result is open, it refuses everything else. Storage
therefore remembers the open result and buffers it before the next statement, so that nobody above has to care.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import duckdb

from .. import errors
from ..errors import InterfaceError, NotSupportedError, OperationalError
from .failures import translation
from .live import Functions, MemoryLimit, OpenResult, Signature, attended, guarded
from .results import BATCH_ROWS, ArrowRows, Column, Converter, LiveRows, Rows, is_faithful_in_arrow

if TYPE_CHECKING:
    import pyarrow as pa

Parameters = Sequence[Any] | Mapping[str, Any] | None


class Storage:
    """A database file, or a database in memory, over one connection of DuckDB's.

    Raises OperationalError if the file cannot be opened: another process has it, it is no database, its folder does
    not exist.
    """

    def __init__(self, path: str = ":memory:", read_only: bool = False) -> None:
        self.path = str(path)
        self.read_only = read_only
        self._connection = _open(self.path, read_only)
        self._functions = Functions()
        self._converter = Converter(_private)
        self._open = OpenResult()
        self._limit = MemoryLimit()
        self._finalizer = weakref.finalize(self, _close, self._connection, self._converter, self._open)
        with self.translated():
            # else a table name that does not exist would be looked up among our own local variables
            self._connection.execute("SET python_enable_replacements = false").fetchall()
        self.database = str(self.rows("SELECT current_database()")[0][0])

    # Statements

    def run(self, sql: str, parameters: Parameters = None) -> Rows:
        """The caller's SQL as DuckDB runs it, several statements included; the last one's rows, read as they come."""
        con = self._free()
        with self.translated():
            return self._stream(con, sql, parameters) or self._execute(con, sql, parameters)

    def query(self, sql: str, parameters: Parameters = None) -> pa.Table:
        """A query of mlsql's own, as an Arrow table."""
        con = self._free()
        with self.translated():
            return con.sql(sql, params=_given(parameters)).to_arrow_table()

    def rows(self, sql: str, parameters: Parameters = None) -> list[tuple[Any, ...]]:
        """A statement of mlsql's own, as Python values."""
        con = self._free()
        with self.translated():
            con.execute(sql, _given(parameters))
            return con.fetchall() if con.description else []

    def read(self, sql: str, parameters: Parameters = None, batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """A query of mlsql's own, as Arrow batches of about so many rows, as DuckDB makes them: none is copied."""
        con = self._free()
        with self.translated():
            return self._arrow_rows(con.sql(sql, params=_given(parameters)), batch_rows).batches()

    def attend(self, read: Callable[[], None]) -> None:
        """``read()``, which reads a stream to its end, so that Ctrl-C stops it."""
        attended(read, self._connection)

    def describe(self, from_item: str, parameters: Parameters = None) -> list[tuple[str, str]]:
        """Name and type of each column of what could stand after FROM."""
        con = self._free()
        with self.translated():
            relation = con.sql(f"SELECT * FROM {from_item}", params=_given(parameters))
            return list(zip(relation.columns, map(str, relation.types), strict=True))

    def estimated_rows(self, query: str, parameters: Parameters = None) -> int | None:
        """How many rows DuckDB expects a query to give, without running it; None where it does not say.

        For a table that is the number of its rows, give or take what was deleted; beyond a join or a filter it is
        what DuckDB's own optimizer works with.
        """
        rows = self.rows(f"EXPLAIN (FORMAT json) {query}", parameters)
        plan = json.loads(rows[0][-1]) if rows else []
        return estimate(plan[0]) if plan else None

    def distinct_values(self, table: str, column: str) -> int | None:
        """About how many distinct values a column of a table has, as DuckDB counted them when the rows were written.

        ``table`` and ``column`` are SQL. None for a view, an empty table, and where DuckDB keeps no such count: nothing
        is read but one row. The count is HyperLogLog's, of a sample of the rows, and deleted rows may be in it.
        """
        try:
            rows = self.rows(f"SELECT stats({column}) FROM {table} LIMIT 1")
        except errors.Error:
            return None
        found = rows[0][0] if rows else None
        count = found.get("approx_unique") if isinstance(found, dict) else None
        return None if count is None else int(count)

    def table_rows(self, table: pa.Table) -> Rows:
        """An Arrow table as the result of a statement."""
        with self.translated():
            types = self._converter.types(table.schema)
        columns = [Column(n, t) for n, t in zip(table.column_names, types, strict=True)]
        return ArrowRows(columns, table.schema, iter(table.to_batches()), self._to_values)

    def value_rows(self, rows: list[tuple[Any, ...]], columns: Sequence[Column]) -> Rows:
        """Rows of Python values as the result of a statement; Arrow is made of them only if somebody asks for it."""
        return LiveRows(columns, None, self.translated, self._to_table, lambda: None, rows)

    # Transactions

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, begun by whatever means; one that has failed and waits for ROLLBACK counts.

        DuckDB does not say, but outside of a transaction every statement gets a new transaction number.
        """
        try:
            first, second = (self.rows("SELECT txid_current()") for _ in range(2))
        except OperationalError as e:
            if isinstance(e.__cause__, duckdb.TransactionException):
                return True
            raise
        return first == second

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Inside of a transaction that is already open, its owner decides which."""
        if self.in_transaction:
            yield
            return
        self.begin()
        try:
            yield
        except BaseException:
            with contextlib.suppress(errors.Error):  # the first error is the one to tell
                self.rollback()
            raise
        self.commit()

    def begin(self) -> None:
        """Open a transaction. Raises OperationalError if there is one."""
        con = self._free()
        with self.translated():
            con.begin()

    def commit(self) -> None:
        """Commit the open transaction. Raises OperationalError if there is none, or if it has failed."""
        con = self._free()
        with self.translated():
            con.commit()

    def rollback(self) -> None:
        """Undo the open transaction. Raises OperationalError if there is none."""
        con = self._free()
        with self.translated():
            con.rollback()

    # What a statement can see beside the tables

    def register(self, name: str, obj: Any) -> None:
        """Let statements read a DataFrame, an Arrow table or a reader under a name."""
        con = self._free()
        with self.translated():
            con.register(name, obj)

    def unregister(self, name: str) -> None:
        """Take back what register gave; an unknown name is no error."""
        con = self._free()
        with self.translated():
            con.unregister(name)

    def function(self, name: str, call: Callable[..., Any], parameter_types: Sequence[str], return_type: str) -> None:
        """Create or replace an SQL function over Arrow arrays: ``call`` gets a ChunkedArray an argument.

        An error of mlsql's that ``call`` raises reaches whoever reads the statement's result. Raises
        NotSupportedError if the name stands for other types and a transaction is open: DuckDB cannot undo a removal.
        """
        con = self._free()
        self._mend_functions()
        signature = (tuple(parameter_types), return_type)
        known = self._functions.signatures.get(name)
        self._functions.calls[name] = call
        if known == signature:
            return
        is_inside = self.in_transaction
        if known is not None and is_inside:
            raise NotSupportedError(f'function "{name}" cannot change its types in a transaction', hint="COMMIT first")
        with self.translated():
            if known is not None:
                con.remove_function(name)
            self._create_function(con, name, signature)
        self._functions.signatures[name] = signature
        if is_inside:
            self._functions.provisional.add(name)

    def has_function(self, name: str) -> bool:
        """Whether function() has made a function of this name that is still there."""
        self._free()
        self._mend_functions()
        return name in self._functions.signatures

    # The connection

    @contextlib.contextmanager
    def limited(self, memory: int) -> Iterator[None]:
        """Inside, DuckDB may take at most so many bytes more than it has now: see :class:`MemoryLimit`."""
        with self.translated(), self._limit.set(self._connection, memory):
            yield

    def interrupt(self) -> None:
        """Stop the statement that another thread is running; it raises an error there."""
        if not self.is_closed:
            self._connection.interrupt()

    @property
    def is_closed(self) -> bool:
        return not self._finalizer.alive

    def close(self) -> None:
        """Close the database; an open result is lost. Closing twice is no error."""
        self._finalizer()

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Inside, whatever DuckDB raises becomes the error of mlsql's that it is."""
        try:
            yield
        except (duckdb.Error, RuntimeError, OSError, ValueError) as e:
            # a RuntimeError is Ctrl-C, an OSError or a ValueError an error that came through Arrow's stream
            failure, self._functions.failure = self._functions.failure, None
            better = translation(e) if failure is None else failure
            if better is e:
                raise
            raise better from e

    def _free(self) -> Any:
        """The connection, with nothing open on it."""
        if self.is_closed:
            raise InterfaceError("the connection is closed")
        with self.translated():
            self._open.make_way()
        self._functions.failure = None  # of a statement whose rows nobody has read
        return self._connection

    def _stream(self, con: Any, sql: str, parameters: Parameters) -> Rows | None:
        """A single SELECT through Arrow, which streams and is several times faster. None if that is not possible.

        What DuckDB refuses is left to execute(), whose messages show the place in the text.
        """
        try:
            statements = con.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                return None
            relation = con.sql(statements[0], params=_given(parameters))
        except duckdb.Error:
            return None
        if relation is None or not all(is_faithful_in_arrow(str(t)) for t in relation.types):
            return None
        rows = self._arrow_rows(relation, BATCH_ROWS)
        rows.peek()
        return rows

    def _arrow_rows(self, relation: Any, batch_rows: int) -> ArrowRows:
        reader = attended(lambda: relation.to_arrow_reader(batch_rows), self._connection)
        columns = [Column(n, str(t)) for n, t in zip(relation.columns, relation.types, strict=True)]
        rows = ArrowRows(columns, reader.schema, self._batches(reader), self._to_values, reader.close)
        self._open.set(rows)
        return rows

    def _batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        try:
            while True:
                with self.translated():
                    batch = attended(partial(_next_batch, reader), self._connection)
                if batch is None:
                    return
                yield batch
        except BaseException:
            reader.close()  # a reader that has failed would still hold the connection
            raise

    def _execute(self, con: Any, sql: str, parameters: Parameters) -> Rows:
        attended(lambda: con.execute(sql, _given(parameters)), con)
        columns = [Column(d[0], str(d[1])) for d in con.description or ()]
        kind = con.extract_statements(sql)[-1].type if columns else None
        end = con.abort if kind == duckdb.StatementType.SELECT else con.complete
        rows = LiveRows(columns, con, self.translated, self._to_table, end)
        is_report = columns in ([Column("Count", "BIGINT")], [Column("Success", "BOOLEAN")])
        rows.counts_changes = is_report and kind != duckdb.StatementType.SELECT
        self._open.set(rows, end)
        return rows

    def _to_values(self, batch: pa.RecordBatch, columns: Sequence[Column]) -> list[tuple[Any, ...]]:
        with self.translated():
            return self._converter.values(batch, columns)

    def _to_table(self, rows: list[tuple[Any, ...]], columns: Sequence[Column]) -> pa.Table:
        with self.translated():
            return self._converter.table(rows, columns)

    def _create_function(self, con: Any, name: str, signature: Signature) -> None:
        types = [con.type(t) for t in signature[0]]
        call = partial(guarded, self._functions, name)
        # DuckDB counts the parameters of what it is given, and *arguments would be one
        names = [inspect.Parameter(f"c{i}", inspect.Parameter.POSITIONAL_ONLY) for i in range(len(types))]
        call.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
        con.create_function(name, call, types, con.type(signature[1]), type="arrow", null_handling="special")

    def _mend_functions(self) -> None:
        """Forget the functions that a ROLLBACK took away.

        DuckDB's catalog forgets such a function but its Python side does not, and then the name can neither be used
        nor created nor removed. Once another connection has created it again, it can be removed properly.
        """
        provisional = self._functions.provisional
        if not provisional or self.in_transaction:
            return
        for name in list(provisional):
            found = self.rows("SELECT 1 FROM duckdb_functions() WHERE function_name = ? LIMIT 1", [name])
            if not found:
                signature = self._functions.signatures.pop(name)
                with self.translated(), contextlib.closing(self._connection.cursor()) as other:
                    self._create_function(other, name, signature)
                    self._connection.remove_function(name)
            provisional.discard(name)


def _open(path: str, read_only: bool) -> Any:
    try:
        return duckdb.connect(path, read_only=read_only)
    except duckdb.Error as e:
        message = str(e)
        if "Could not set lock" in message:
            raise OperationalError(
                f'another process has "{path}" open\n{message}',
                hint="close it there, or open the file read-only in both; within one program, share one connection",
            ) from e
        if "different configuration" in message:
            raise OperationalError(
                f'this program already has "{path}" open with other settings\n{message}',
                hint="open it with the same read_only, or close the other connection first",
            ) from e
        raise translation(e) from e


def _private() -> Any:
    """A small database in memory for conversions."""
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("SET python_enable_replacements = false").fetchall()
    return connection


def _close(connection: Any, converter: Converter, result: OpenResult) -> None:
    """Without this, even at the program's end, DuckDB complains on stderr about Python functions that are left."""
    result.close()  # a stream that outlives the connection would end the program with an abort
    converter.close()
    connection.close()


def estimate(node: dict[str, Any]) -> int | None:
    """The expected rows of a plan as DuckDB explains it: those of the topmost operator that has an estimate.

    Of a LIMIT, DuckDB itself expects no rows, or all that are below.
    """
    name, facts = node["name"], node.get("extra_info", {})
    below = [estimate(child) for child in node.get("children", [])]
    first = below[0] if below else None
    limit = facts.get("Limit", facts.get("Top"))
    if limit is not None:
        bounds = [first, int(limit) if str(limit).isdigit() else None]
    elif facts.get("Join Type") == "SEMI":  # how it fetches the rows of an ORDER BY with LIMIT
        bounds = below
    elif name in ("PROJECTION", "ORDER_BY") and first is not None:
        bounds = [first]
    elif name == "UNION":
        return None if None in below else sum(n for n in below if n is not None)
    else:
        text = facts.get("Estimated Cardinality")
        bounds = [0 if name == "EMPTY_RESULT" else first if text is None else int(text)]
    known = [n for n in bounds if n is not None]
    return min(known) if known else None


def _given(parameters: Parameters) -> Any:
    """Parameters as DuckDB takes them: a list, a dict, or None for none."""
    if not parameters:
        return None
    return dict(parameters) if isinstance(parameters, Mapping) else list(parameters)


def _next_batch(reader: pa.RecordBatchReader) -> pa.RecordBatch | None:
    try:
        return reader.read_next_batch()
    except StopIteration:
        return None
