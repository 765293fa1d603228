"""A query engine whose plans can learn: models and training in SQL, planned by one optimizer.

This module is the Python interface, PEP 249's: :func:`connect` gives a connection whose cursors run statements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import (
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Warning,
)

if TYPE_CHECKING:
    from .dbapi import Connection

apilevel = "2.0"
threadsafety = 1
paramstyle = "qmark"


def connect(path: str = ":memory:", read_only: bool = False, progress: Any = None) -> Connection:
    """Open a database file, or a database in memory.

    ``progress`` shows how training goes: None, on a terminal only; False, never; or an object as
    ``mlsql.progress`` describes it. Raises OperationalError if the file cannot be opened.
    """
    from .dbapi import Connection

    return Connection(path, read_only, progress)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mlsql")
    raise AttributeError(f"module 'mlsql' has no attribute {name!r}")


__all__ = [
    "DataError",
    "DatabaseError",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Warning",
    "apilevel",
    "connect",
    "paramstyle",
    "threadsafety",
]
