"""DuckDB's errors as mlsql's: the same PEP 249 name, the same message."""

from __future__ import annotations

from .. import errors

# An error that comes through Arrow's stream keeps only its text; DuckDB begins it with its kind.
PREFIXES = {
    "Invalid Input": "ProgrammingError",
    "Binder": "ProgrammingError",
    "Catalog": "ProgrammingError",
    "Conversion": "DataError",
    "Out of Range": "DataError",
    "Mismatch Type": "DataError",
    "Constraint": "IntegrityError",
    "Out of Memory": "OperationalError",
    "IO": "OperationalError",
    "HTTP": "OperationalError",
    "TransactionContext": "OperationalError",
    "Not implemented": "NotSupportedError",
    "INTERNAL": "InternalError",
}


def translation(error: Exception) -> BaseException:
    """What to raise for an error of DuckDB's; the error itself if it is none of DuckDB's."""
    message = str(error)
    if isinstance(error, RuntimeError) and "interrupted" in message:
        return KeyboardInterrupt()  # DuckDB saw Ctrl-C while it ran
    names = [c.__name__ for c in type(error).__mro__ if c.__module__ == "_duckdb"]
    kind, separator, _ = message.partition(" Error: ")
    if isinstance(error, OSError | ValueError) and separator:
        names = [PREFIXES.get(kind, "DatabaseError")]
    if "InterruptException" in names or kind == "INTERRUPT":
        return errors.OperationalError(message)
    for name in names:
        found = getattr(errors, name, None)
        if isinstance(found, type) and issubclass(found, errors.Error):
            return found(message)
    return error
