"""Imports run one way, and each library has the one place where it is used."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import mlsql

HOME = Path(mlsql.__file__ or mlsql.__path__[0]).resolve()
HOME = HOME.parent if HOME.is_file() else HOME
FILES = sorted(HOME.rglob("*.py"))

# A room, and the rooms that it may import; every room may import from itself.
MAY_IMPORT: dict[str, set[str]] = {
    "record": set(),  # what every room may import: how it declares its dataclasses
    "errors": {"record"},
    "types": {"errors"},
    "figures": set(),  # counts and times as people say them
    "parser": {"errors", "types"},
    "planner.core": {"errors", "types"},  # node, work, scalar, plan and ops: what the rooms below work on
    "planner": {"errors", "types", "parser", "planner.core"},
    "autodiff": {"errors", "types", "planner.core"},
    "optimizer": {"errors", "types", "figures", "planner.core"},
    "executor": {"errors", "types", "parser", "planner", "planner.core", "progress"},
    "explain": {"errors", "types", "figures", "parser", "planner", "planner.core", "autodiff", "optimizer", "executor"},
    "session": {
        *("errors", "types", "parser", "planner", "planner.core", "autodiff", "optimizer", "executor", "explain"),
        *("progress", "figures"),
    },
    "progress": {"figures"},  # what training tells while it runs, and how a terminal shows it
    "dbapi": {"errors", "types", "session", "executor", "parser", "progress"},
    "mlsql": {"errors", "types", "dbapi"},  # connect() and the PEP 249 names
    "__main__": {"shell"},  # python -m mlsql
    "shell": {"errors", "session", "mlsql", "parser", "progress"},
}
CORE = ("node", "work", "scalar", "plan", "ops")

# A library, and the files that may import it.
PLACES: dict[str, tuple[str, ...]] = {
    "sqlglot": (
        *("parser/", "planner/query/"),
        *(f"planner/{name}.py" for name in ("arguments", "binder", "expressions", "relational")),
    ),
    "duckdb": ("executor/storage.py",),
    "numpy": ("executor/",),
    "scipy": ("executor/",),
    "numba": ("executor/",),
    "llvmlite": ("executor/compiled/", *(f"executor/{name}.py" for name in ("assembly", "shuffle", "transposing"))),
    "cupy": ("executor/",),
    "pyarrow": ("executor/", "session/", "dbapi.py"),
    "pandas": ("executor/",),
    "polars": ("executor/",),
    "torch": (),
    "sklearn": (),
}


def room(parts: tuple[str, ...]) -> str:
    """The room of a module, given its path below mlsql."""
    if not parts:
        return "mlsql"
    if parts[0] == "planner" and parts[1:2] and parts[1] in CORE:
        return "planner.core"
    return parts[0]


def module_of(file: Path) -> tuple[str, ...]:
    parts = file.relative_to(HOME).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def is_module(parts: tuple[str, ...]) -> bool:
    place = HOME.joinpath(*parts)
    return place.is_dir() or place.with_suffix(".py").is_file()


def imported(file: Path) -> set[tuple[str, ...]]:
    """What a file imports, inside functions too: paths below mlsql, or ("", library)."""
    here = module_of(file)
    package = here if file.name == "__init__.py" else here[:-1]
    found: set[tuple[str, ...]] = set()
    for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(n, ast.Import):
            for alias in n.names:
                first, *rest = alias.name.split(".")
                found.add(tuple(rest) if first == "mlsql" else ("", first))
        elif isinstance(n, ast.ImportFrom):
            words = tuple(n.module.split(".")) if n.module else ()
            if n.level == 0 and words[0] != "mlsql":
                found.add(("", words[0]))
                continue
            base = (*package[: len(package) - n.level + 1], *words) if n.level else words[1:]
            found |= {(*base, a.name) if is_module((*base, a.name)) else base for a in n.names}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(HOME)))
def test_a_file_imports_only_what_stands_before_it(file: Path) -> None:
    mine = room(module_of(file))
    assert mine in MAY_IMPORT, f"the room {mine} is not in the design: say here what it may import"
    for target in imported(file):
        if target[:1] == ("",):
            continue
        theirs = room(target)
        assert theirs in MAY_IMPORT[mine] | {mine, "record"}, f"{'.'.join(target)} cannot be imported into {mine}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(HOME)))
def test_a_library_is_imported_in_its_place_only(file: Path) -> None:
    path = file.relative_to(HOME).as_posix()
    for target in imported(file):
        if target[:1] == ("",) and target[1] in PLACES:
            assert path.startswith(PLACES[target[1]] or ("nowhere",)), f"{path} imports {target[1]}"


def test_the_table_has_no_way_back() -> None:
    """Following MAY_IMPORT from any room never leads back to it."""
    for start in MAY_IMPORT:
        seen, left = set(), list(MAY_IMPORT[start])
        while left:
            here = left.pop()
            if here not in seen:
                seen.add(here)
                left += MAY_IMPORT[here]
        assert start not in seen, start
