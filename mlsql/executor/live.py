"""What lives on a connection of DuckDB's beside its tables: the open result, Python functions, a call that runs."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from .. import errors
from .results import Rows

Signature = tuple[tuple[str, ...], str]


class OpenResult:
    """The result that occupies the connection, if there is one, and how to end it once nobody holds it any longer."""

    def __init__(self) -> None:
        self._rows: weakref.ref[Rows] | None = None
        self._end: Callable[[], None] = lambda: None

    def set(self, rows: Rows, end: Callable[[], None] = lambda: None) -> None:
        """Remember a result. An Arrow stream needs no ``end``: it closes itself when it is dropped."""
        self._rows, self._end = weakref.ref(rows), end

    def make_way(self) -> None:
        """Free the connection and keep what can still be read."""
        if self._rows is not None:
            rows = self._rows()
            if rows is not None:
                rows.buffer()
            else:
                self._end()
            self._rows = None

    def close(self) -> None:
        """Free the connection and keep nothing."""
        rows = self._rows() if self._rows is not None else None
        if rows is not None:
            rows.release()
        self._rows = None


class Functions:
    """The Python functions of one connection: what each calls now, its types, and the error one has raised.

    It stands apart from Storage because DuckDB holds the functions: a function that held Storage would keep it alive.
    """

    def __init__(self) -> None:
        self.calls: dict[str, Callable[..., Any]] = {}
        self.signatures: dict[str, Signature] = {}
        self.provisional: set[str] = set()  # created in a transaction that may yet be rolled back
        self.failure: BaseException | None = None


class MemoryLimit:
    """A limit on what DuckDB takes besides what it has.

    Cached pages of tables on disk do not count as what it has: they can go. Inside of another limit it is what DuckDB
    had when that one began. A limit is that of the database, for all of its connections, and never higher than theirs.
    """

    def __init__(self) -> None:
        self.held: int | None = None  # bytes that DuckDB had as the outermost limit began

    @contextlib.contextmanager
    def set(self, connection: Any, memory: int) -> Iterator[None]:
        """Inside, DuckDB may take so many bytes more. A connection of our own sets it, whatever is open on theirs."""
        with contextlib.closing(connection.cursor()) as other:
            used = "sum(memory_usage_bytes) FILTER (tag <> 'BASE_TABLE')"
            sql = f"SELECT current_setting('memory_limit'), {used} FROM duckdb_memory()"
            [(before, held)] = other.execute(sql).fetchall()
            outermost, self.held = self.held, int(held) if self.held is None else self.held
            try:
                if self.held + memory < size_of(before):
                    other.execute(f"SET memory_limit = '{self.held + memory}B'")
                yield
            finally:
                self.held = outermost
                other.execute(f"SET memory_limit = '{as_before(before)}'")


def as_before(told: str) -> str:
    """A limit that DuckDB tells as it told one before: to a tenth, whose middle is told as the same again."""
    number, _, unit = told.partition(" ")
    return "-1" if unit == "PiB" else f"{float(number) + 0.05}{unit}"  # so many are none


def size_of(text: str) -> float:
    """The bytes of a size as DuckDB writes it: ``18.8 GiB``."""
    number, _, unit = text.partition(" ")
    return float(number) * 1024.0 ** ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"].index(unit)


def guarded(functions: Functions, name: str, *arguments: Any) -> Any:
    """Call a function; keep the error that DuckDB would turn into text."""
    try:
        return functions.calls[name](*arguments)
    except BaseException as e:
        if functions.failure is None and isinstance(e, errors.Error | KeyboardInterrupt):
            functions.failure = e
        raise


def attended(call: Callable[[], Any], connection: Any) -> Any:
    """``call()``, so that Ctrl-C stops it: the main thread waits in Python, where the signal arrives.

    DuckDB looks for signals itself, but not while it fills a stream's buffer.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    outcome: list[Any] = []
    failure: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            outcome.append(call())
        except BaseException as e:
            failure.append(e)
        finally:
            done.set()

    threading.Thread(target=work, daemon=True).start()
    try:
        # Short waits, since a signal does not end one where another library (polars) has put its own handler before
        # Python's; and not join(), which in Python 3.11 takes an interrupted thread for one that has ended.
        while not done.wait(0.05):
            pass
    except KeyboardInterrupt:
        while not done.is_set():
            connection.interrupt()
            done.wait(0.05)
        raise
    if failure:
        raise failure[0]
    return outcome[0]
