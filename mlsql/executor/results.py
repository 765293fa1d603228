"""What a statement returns: rows that are read once, as Python values or as Arrow.

A live result occupies its connection, for DuckDB runs one statement at a time on it. :meth:`Rows.buffer` takes the
rest into memory when another statement wants the connection; whoever reads the rows does not notice.
"""

from __future__ import annotations

import importlib
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ..errors import Error, InterfaceError, NotSupportedError
from ..record import record

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 32_768
Values = list[tuple[Any, ...]]


@record
class Column:
    """A result's column: its name, and its type as SQL writes it."""

    name: str
    type: str


def library(name: str) -> Any:
    """An optional library, which is asked for before any row is given out."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        hint = "pip install mlsql[dataframes]; fetchall() and fetch_arrow_table() do without"
        raise NotSupportedError(f"a DataFrame of {name} takes {name}, which is not installed", hint=hint) from None


class Rows(ABC):
    """The rows of one statement, each of which is given out once.

    ``counts_changes`` is set for the row by which DuckDB reports how many rows an INSERT changed or that a SET
    succeeded: a program may want it, a person rarely does.
    """

    counts_changes = False
    rowcount = -1

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self._is_closed = False
        self._is_lent = False  # whether a reader has been given out

    @property
    def description(self) -> list[tuple[str, str, None, None, None, None, None]] | None:
        """PEP 249's seven facts a column, of which a name and a type are known; None if there are no columns."""
        return [(c.name, c.type, None, None, None, None, None) for c in self.columns] or None

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, or None after the last."""
        found = self.fetchmany(1)
        return found[0] if found else None

    def fetchmany(self, size: int = 1) -> Values:
        """The next ``size`` rows, fewer at the end."""
        self._check_open()
        if size < 0:
            raise InterfaceError(f"cannot fetch {size} rows")
        return self._fetch(size)

    def fetchall(self) -> Values:
        """All rows that are left."""
        self._check_open()
        return self._fetch(None)

    def arrow(self) -> pa.Table:
        """All rows that are left, as Arrow."""
        self._check_open()
        return self._arrow()

    @abstractmethod
    def reader(self, batch_rows: int = BATCH_ROWS) -> pa.RecordBatchReader:
        """The rows that are left as a stream of Arrow batches of ``batch_rows`` rows, the last one smaller."""

    def df(self) -> Any:
        """All rows that are left, as a pandas DataFrame. Raises NotSupportedError without pandas."""
        library("pandas")
        return self.arrow().to_pandas()

    def pl(self) -> Any:
        """All rows that are left, as a polars DataFrame. Raises NotSupportedError without polars."""
        return library("polars").from_arrow(self.arrow())

    @abstractmethod
    def buffer(self) -> None:
        """Take the rows that are left into memory, so that the connection is free for another statement.

        An error among them is kept for whoever fetches that far: the other statement has no part in it.
        """

    def close(self) -> None:
        """Give up the rows that are left. Fetching from then on is an InterfaceError; a reader can still be read."""
        if not self._is_closed:
            self._is_closed = True
            if not self._is_lent:
                self.release()

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while (row := self.fetchone()) is not None:
            yield row

    @abstractmethod
    def _fetch(self, size: int | None) -> Values: ...

    @abstractmethod
    def _arrow(self) -> pa.Table: ...

    @abstractmethod
    def release(self) -> None:
        """Let go of the connection and of the rows that are left."""

    def _check_open(self) -> None:
        if self._is_closed:
            raise InterfaceError("the result is closed")


class ArrowRows(Rows):
    """Rows that arrive as Arrow batches: a query's stream, or a table that is already there.

    ``to_values`` turns a batch into the Python values that DuckDB would give for it.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        schema: pa.Schema,
        batches: Iterator[pa.RecordBatch],
        to_values: Callable[[pa.RecordBatch, Sequence[Column]], Values],
        release: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(columns)
        self._schema = schema
        self._batches = batches
        self._to_values = to_values
        self._source_release = release
        self._batch: pa.RecordBatch | None = None
        self._values: Values = []  # of _batch, once someone asks for Python values
        self._at = 0  # rows of _batch that are given out

    def buffer(self) -> None:
        batches: list[pa.RecordBatch] = []
        try:
            batches.extend(self._batches)
            self._batches = iter(batches)
        except Error as e:
            self._batches = _until(batches, e)

    def peek(self) -> None:
        """Wait for the first rows, so that an error among them belongs to the statement and not to a fetch.

        A short result is read to its end, which frees the connection.
        """
        first = next(self._batches, None)
        if first is None:
            return
        ahead = [first]
        if first.num_rows < BATCH_ROWS and (second := next(self._batches, None)) is not None:
            ahead.append(second)
        self._batches = _chain(ahead, self._batches)

    def reader(self, batch_rows: int = BATCH_ROWS) -> pa.RecordBatchReader:
        import pyarrow as pa

        self._check_open()
        if batch_rows < 1:
            raise InterfaceError(f"a batch cannot have {batch_rows} rows")
        self._is_lent = True
        return pa.RecordBatchReader.from_batches(self._schema, self._resized(batch_rows))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows that are left, as they came: none is copied."""
        self._check_open()
        self._is_lent = True
        return self._rest()

    def _fetch(self, size: int | None) -> Values:
        rows: Values = []
        while size is None or len(rows) < size:
            if self._batch is None and not self._advance():
                break
            assert self._batch is not None
            if not self._values:
                self._values = self._to_values(self._batch, self.columns)
            end = len(self._values) if size is None else self._at + size - len(rows)
            rows += self._values[self._at : end]
            self._at = min(end, len(self._values))
            if self._at == len(self._values):
                self._batch, self._values = None, []
        return rows

    def _advance(self) -> bool:
        """Move to the next batch that has rows; False at the end."""
        for batch in self._batches:
            if batch.num_rows:
                self._batch, self._values, self._at = batch, [], 0
                return True
        return False

    def _rest(self) -> Iterator[pa.RecordBatch]:
        """The batches that are left, the first one without the rows that are given out."""
        while self._batch is not None or self._advance():
            assert self._batch is not None
            batch, self._batch, self._values = self._batch, None, []
            yield batch.slice(self._at) if self._at else batch

    def _arrow(self) -> pa.Table:
        import pyarrow as pa

        return pa.Table.from_batches(list(self._rest()), self._schema)

    def _resized(self, rows: int) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        held: list[pa.RecordBatch] = []
        count = 0
        for batch in self._rest():
            held.append(batch)
            count += batch.num_rows
            if count < rows:
                continue
            whole = held[0] if len(held) == 1 else pa.concat_batches(held)
            for start in range(0, count - rows + 1, rows):
                yield whole.slice(start, rows)
            left = count % rows
            held, count = ([whole.slice(count - left)] if left else []), left
        if held:
            yield pa.concat_batches(held)

    def release(self) -> None:
        self._batches, self._batch, self._values = iter(()), None, []
        self._source_release()


class LiveRows(Rows):
    """Rows that DuckDB's connection hands out itself: for types that Arrow cannot carry, and for what is no SELECT.

    Without a connection they are Python values that are already there.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        connection: Any,
        translated: Callable[[], AbstractContextManager[None]],
        to_arrow: Callable[[Values, Sequence[Column]], pa.Table],
        release: Callable[[], None],
        values: Values | None = None,
    ) -> None:
        super().__init__(columns)
        self._connection = connection if columns else None  # None once the rows are in memory
        self._translated = translated
        self._to_arrow = to_arrow
        self._end_result = release
        self._values: Values = values or []
        self._at = 0
        self._failure: Error | None = None

    def buffer(self) -> None:
        if self._connection is not None:
            try:
                with self._translated():
                    self._values, self._at = self._connection.fetchall(), 0
            except Error as e:
                self._failure = e
            self._connection = None

    def reader(self, batch_rows: int = BATCH_ROWS) -> pa.RecordBatchReader:
        """As in :class:`Rows`; but the rows are all in memory first, since DuckDB has no other way to Arrow here."""
        return self.arrow().to_reader(batch_rows)

    def _fetch(self, size: int | None) -> Values:
        if self._connection is not None:
            with self._translated():
                found: Values = self._connection.fetchall() if size is None else self._connection.fetchmany(size)
            return found
        if self._failure is not None:
            raise self._failure
        end = len(self._values) if size is None else self._at + size
        rows = self._values[self._at : end]
        self._at += len(rows)
        return rows

    def _arrow(self) -> pa.Table:
        if self._connection is None:
            return self._to_arrow(self._fetch(None), self.columns)
        with self._translated(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "makes an extra copy": known, and there is no other way
            found = self._connection.to_arrow_table()
        self._connection = None
        return found if found is not None else self._to_arrow([], self.columns)

    def release(self) -> None:
        self._values = []
        if self._connection is not None:
            self._connection = None
            self._end_result()


def _chain(ahead: list[pa.RecordBatch], rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from ahead
    yield from rest


def _until(batches: list[pa.RecordBatch], failure: Error) -> Iterator[pa.RecordBatch]:
    yield from batches
    raise failure


_PLAIN = re.compile(r"U?(TINY|SMALL|BIG)?INT(EGER)?|UINTEGER|FLOAT|DOUBLE|BOOLEAN|VARCHAR|BLOB|DECIMAL\(\d+,\d+\)")
_SQL_TYPES = {
    "bool": "BOOLEAN",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "string": "VARCHAR",
    "large_string": "VARCHAR",
}
_NARROWED = re.compile(r"\b(HUGEINT|UUID)\b")
_LOSSY = re.compile(r"\b(UHUGEINT|BIT|BIGNUM|TUPLE|TIME WITH TIME ZONE|UNION|VARIANT|GEOMETRY)\b")


def is_faithful_in_arrow(type_text: str) -> bool:
    """Whether values of a type come back from Arrow as they were, at most with the cast that Converter does."""
    return _LOSSY.search(type_text) is None


class Converter:
    """Between Arrow and Python values, exactly as DuckDB converts them: DuckDB does it, on a connection of its own.

    The connection is made when it is first needed: most results are numbers and strings, and those need none.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._made: Any = None

    def values(self, batch: pa.RecordBatch, columns: Sequence[Column]) -> Values:
        """A batch's rows as Python values; the columns say which types Arrow has narrowed."""
        if all(_PLAIN.fullmatch(c.type) for c in columns):
            return list(zip(*(c.to_pylist() for c in batch.columns), strict=True))
        connection = self._connection()
        for field in batch.schema:
            if getattr(field.type, "tz", None):
                connection.execute("SET TimeZone = ?", [field.type.tz]).fetchall()
        relation = connection.from_arrow(self._numbered(batch))
        found: Values = relation.project(", ".join(_restored(i, c.type) for i, c in enumerate(columns))).fetchall()
        return found

    def table(self, rows: Values, columns: Sequence[Column]) -> pa.Table:
        """Rows of Python values as the Arrow table that DuckDB would have made of them."""
        connection = self._connection()
        nulls = tuple(None for _ in columns)
        typed = ", ".join(f"col{i}::{c.type} AS c{i}" for i, c in enumerate(columns))
        relation = connection.values(*(rows or [nulls])).project(typed)
        return relation.to_arrow_table().slice(0, len(rows)).rename_columns([c.name for c in columns])

    def types(self, schema: pa.Schema) -> list[str]:
        """The columns' types as SQL writes them."""
        plain = [_SQL_TYPES.get(str(f.type)) for f in schema]
        found = [t for t in plain if t is not None]
        if len(found) == len(plain):
            return found
        empty = schema.empty_table().rename_columns([f"c{i}" for i in range(len(schema))])
        return [str(t) for t in self._connection().from_arrow(empty).types]

    def close(self) -> None:
        """Give the connection back, if there is one."""
        if self._made is not None:
            self._made.close()
            self._made = None

    def _connection(self) -> Any:
        if self._made is None:
            self._made = self._connect()
        return self._made

    @staticmethod
    def _numbered(batch: pa.RecordBatch) -> pa.Table:
        """The batch under the names c0, c1 ...: a result may have a name twice, a table may not."""
        import pyarrow as pa

        names = [f"c{i}" for i in range(batch.num_columns)]
        return pa.Table.from_batches([batch]).rename_columns(names)


def _restored(i: int, type_text: str) -> str:
    return f"c{i}::{type_text}" if _NARROWED.search(type_text) else f"c{i}"
