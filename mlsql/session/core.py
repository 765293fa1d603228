"""The session: one database, its models, and the table of what runs which statement."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import InternalError, ProgrammingError
from ..executor.catalog import Catalog
from ..executor.storage import Storage
from ..parser import split
from ..parser.statements import Statement
from ..progress import Progress
from .models import Models

if TYPE_CHECKING:
    import pyarrow as pa

    from ..executor.clock import Clock
    from ..executor.results import Rows
    from ..optimizer.machine import Machine

S = TypeVar("S")
Run = Callable[["Session", Any], "Rows"]
RUNS: dict[type, Run] = {}
FILES = ("predict", "create", "train", "machine", "look", "evaluate", "explain")  # what needs least comes first
NUMBERS = itertools.count(1)


def runs(statement: type[S]) -> Callable[[Callable[[Session, S], Rows]], Callable[[Session, S], Rows]]:
    """Enter the function below as what runs a kind of statement."""

    def enter(run: Callable[[Session, S], Rows]) -> Callable[[Session, S], Rows]:
        RUNS[statement] = run
        return run

    return enter


def runner(statement: type) -> Run:
    """What runs a kind of statement. Files are imported in their order until one has entered it in the table: a TRAIN
    does not wait for what EXPLAIN needs."""
    for file in FILES:
        if statement in RUNS:
            break
        import_module(f".{file}", __package__)
    if statement not in RUNS:
        raise InternalError(f"nothing runs {statement.__name__}")
    return RUNS[statement]


class Session:
    """A database that is open, and what this session has set.

    ``progress`` is told how training goes (see ``progress``); None: nobody is. Models that predict are planned without
    the rules in ``without``, and tell ``clock`` the time of every operator, if there is one.
    """

    def __init__(self, path: str = ":memory:", read_only: bool = False, progress: Progress | None = None) -> None:
        self.storage = Storage(path, read_only)
        self.catalog = Catalog(self.storage)
        self.models = Models(self.catalog)
        self.progress = progress
        self.null_prediction = False
        self.optimizer = True  # whether plans and queries are rewritten
        self.compile = "auto"  # whether plans are compiled: auto, always, never
        self.blas = "auto"  # the library of compiled matrix products: auto, openblas, mkl
        self.scorings: dict[Any, Any] = {}  # plans made for single queries, by what they were made of
        self.machine_choice: str | None = None  # SET mlsql_machine; None: what the environment says
        self._machine: Machine | None = None
        self.notices: list[str] = []  # what the last statement wants its user to know
        self.clock: Clock | None = None
        self.without: tuple[str, ...] = ()
        self.held: list[str] = []  # tables that the last statement reads under private names
        self.number = next(NUMBERS)  # DuckDB's functions belong to all connections of a database

    def statements(self, text: str, parameters: Any = None, *, apart: bool = False) -> Iterator[Statement]:
        """The statements of a text, each parsed when it is asked for; ``apart`` as in ``parser.split``."""
        try:
            text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which DuckDB cannot take
            raise ProgrammingError("the statement is not valid Unicode text") from None
        return split(text, parameters, apart=apart)

    def hold(self, table: pa.Table) -> str:
        """A private name under which this session's statement, and no later one, can read a table."""
        name = f"mlsql table {self.number}.{len(self.held) + 1}"
        self.storage.register(name, table)
        self.held.append(name)
        return name

    def notice(self, text: str) -> None:
        """Tell the user of the statement that is running something that is neither a row nor an error."""
        self.notices.append(text)

    def release(self) -> None:
        """Forget the tables of the statement before."""
        for name in self.held:
            self.storage.unregister(name)
        self.held = []

    @contextlib.contextmanager
    def observed(self, clock: Clock, without: Sequence[str]) -> Iterator[None]:
        """Models predict with a clock, planned without some rules."""
        self.clock, self.without = clock, tuple(without)
        try:
            yield
        finally:
            self.clock, self.without = None, ()

    def run(self, statement: Statement) -> Rows:
        """Run one statement."""
        self.release()
        self.notices.clear()
        return runner(type(statement))(self, statement)

    def execute(self, text: str, parameters: Any = None) -> Rows:
        """Run all statements of a text; the rows of the last one."""
        rows = None
        for statement in self.statements(text, parameters):
            if rows is not None:
                rows.close()
            rows = self.run(statement)
        assert rows is not None
        return rows

    def machine(self) -> Machine:
        """The machine that plans are costed for: measured, quickly at first use, or the assumed one if that is set."""
        if self._machine is None:
            from .machine import find_machine

            self._machine = find_machine(self.catalog, self.machine_choice)
        return self._machine

    def known_machine(self) -> Machine:
        """The same, but the assumed machine as long as this one was not measured."""
        if self._machine is None:
            from .machine import assumed, known_machine

            self._machine = known_machine(self.catalog, self.machine_choice)
            return self._machine or assumed()
        return self._machine

    def forget_machine(self) -> None:
        """Find the machine anew when it is next asked for."""
        self._machine = None

    def close(self) -> None:
        """Close the database."""
        self.storage.close()
