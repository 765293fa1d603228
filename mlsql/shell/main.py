"""``mlsql [DATABASE] [-c SQL] [-f FILE]``: run statements and print what they give."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from ..errors import Error
from .table import MAX_ROWS, table_text

DESCRIPTION = """\
Run SQL, and statements that create, train and use models, on a DuckDB database.

Without -c and -f statements are read from standard input. The first one that fails
ends the run with status 1."""

EXAMPLES = """\
examples:
  mlsql -f examples/digits.sql
  mlsql models.duckdb -c "SHOW MODELS"
  echo "SELECT 42" | mlsql"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = parse_arguments(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a letter shows a question mark
    try:
        return run(options)
    except Error as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        notes = getattr(stop, "__notes__", [])
        print("; ".join(["interrupted", *notes]), file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as problem:
        print(f"Error: cannot write the result: {problem.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        "mlsql", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("database", nargs="?", default=":memory:", help="a database file; in memory by default")
    parser.add_argument("-c", dest="sources", action="append", metavar="SQL", type=Text, help="run these statements")
    parser.add_argument("-f", dest="sources", action="append", metavar="FILE", type=File, help="run this file")
    parser.add_argument("--read-only", action="store_true", help="open the database for reading")
    parser.add_argument("--version", action=Version, nargs=0, help="print the version")
    return parser.parse_args(arguments)


class Version(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> None:
        from .. import __version__

        print(f"mlsql {__version__}")
        parser.exit()


class Text(str):
    """Statements given with -c."""


class File(str):
    """The name of a file given with -f."""


def run(options: argparse.Namespace) -> int:
    """Open the database and run every source in order."""
    from ..progress import TerminalProgress
    from ..session import Session

    progress = TerminalProgress(sys.stderr) if sys.stderr.isatty() else None
    session = Session(options.database, options.read_only, progress)
    try:
        for text in sources(options):
            try:
                run_text(session, text, sys.stdout)
            except Error as error:
                if options.sources or not sys.stdin.isatty():
                    raise
                print(f"Error: {error}", file=sys.stderr)  # who types can type it again
    finally:
        session.close()
    return 0


def sources(options: argparse.Namespace) -> Iterator[str]:
    """The texts to run: those of -c and -f in their order, else standard input."""
    if options.sources:
        for source in options.sources:
            yield read(source) if isinstance(source, File) else source
    elif sys.stdin.isatty():
        yield from typed(sys.stdin)
    else:
        yield decoded(sys.stdin.buffer.read())


def read(name: str) -> str:
    """The text of a file. Raises Error if it cannot be read."""
    try:
        with open(name, encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8 text"
        raise Error(f"cannot read {name}: {reason}") from None


def decoded(text: bytes) -> str:
    """What was piped in. Raises Error if it is not UTF-8 text."""
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Error("standard input is not UTF-8 text") from None


def typed(stream: TextIO) -> Iterator[str]:
    """Statements as a person types them, each ended by a semicolon."""
    from ..parser import is_complete

    text = ""
    while True:
        print("mlsql> " if not text else "  ...> ", end="", file=sys.stderr, flush=True)
        line = stream.readline()
        if not line:
            if text.strip():
                yield text
            return
        text += line
        if is_complete(text):
            yield text
            text = ""


def run_text(session: Any, text: str, out: TextIO) -> None:
    """Run statements one after another and print their rows."""
    for statement in session.statements(text, apart=True):
        rows = session.run(statement)
        for notice in session.notices:
            print(f"notice: {notice}", file=sys.stderr)
        if rows.description and not rows.counts_changes:
            columns = [(name, type_text) for name, type_text, *_ in rows.description]
            is_text = columns[0] == ("plan", "VARCHAR")
            found = rows.fetchall() if is_text else rows.fetchmany(MAX_ROWS + 1)
            shown = found if is_text else found[:MAX_ROWS]
            print(table_text(columns, shown, more=len(found) > len(shown)), end="\n\n", file=out, flush=True)
        rows.close()
