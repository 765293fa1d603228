"""The language reference runs, and leaves nothing out: every function, option, metric and catalog column is in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mlsql
from mlsql.autodiff.options import COMMON
from mlsql.autodiff.updates import SOLVERS
from mlsql.executor.catalog import TABLES
from mlsql.session.metrics import METRICS

TEXT = (Path(__file__).parent.parent / "docs" / "language.md").read_text(encoding="utf-8")
CODE = set(re.findall(r"`([^`\n]+)`", TEXT))
BLOCK = re.compile(r"^```sql\n(.*?)^```\n(?:\n?^```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def test_every_sql_block_of_the_reference_runs_and_gives_what_stands_under_it():
    """Blocks run in order, in one database; a text block under one holds the rows of its last statement."""
    connection = mlsql.connect(progress=False)
    for sql, expected in BLOCK.findall(TEXT):
        cursor = connection.execute(sql)
        rows = cursor.fetchall() if cursor.description else []
        if expected:
            assert [shown(row) for row in rows] == expected.splitlines(), sql
    connection.close()


def shown(row: tuple[object, ...]) -> str:
    return " | ".join(f"{v:.4g}" if isinstance(v, float) else "NULL" if v is None else str(v) for v in row).rstrip()


def layers() -> list[tuple[str, str]]:
    connection = mlsql.connect(progress=False)
    rows = connection.execute("SHOW LAYERS").fetchall()
    connection.close()
    return rows


@pytest.mark.parametrize(("usage", "description"), layers())
def test_every_function_is_described_as_show_layers_has_it(usage, description):
    plain = description.replace("``", "`").replace("|", "\\|").replace("\n", " ")
    assert f"| `{usage}` | {plain} |" in TEXT


@pytest.mark.parametrize("name", [*SOLVERS, *METRICS, *(o.name for o in COMMON)])
def test_every_solver_metric_and_option_is_in_the_reference(name):
    assert name in CODE


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=lambda s: s.name)
def test_the_options_of_each_solver_stand_with_their_defaults(solver):
    [line] = [line for line in TEXT.splitlines() if line.startswith(f"| `{solver.name}` |")]
    for option in solver.options:
        value = str(option.default).lower() if isinstance(option.default, bool) else f"{option.default:g}"
        assert f"`{option.name}` {value}" in line


def test_every_relation_of_the_catalog_stands_with_its_columns():
    found = re.findall(r"CREATE TABLE IF NOT EXISTS (mlsql\.\w+) \((.*?)\n\);", TABLES, re.DOTALL)
    assert found
    for table, body in found:
        columns = re.findall(r"(?:^|,)\s*(\w+) [A-Z]", body)
        [line] = [line for line in TEXT.splitlines() if line.startswith(f"| `{table}` |")]
        assert [c for c in columns if f"`{c}`" not in line] == []
