"""What a process loads until its first training step: nothing that the statement does not need.

How long that takes is measured by ``benchmarks/cold_start.py``; here are the modules that would make it longer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

import mlsql

LOOK = "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
CONNECT = "import mlsql, sys\ncon = mlsql.connect(sys.argv[1])\n"
TRAIN = CONNECT + 'con.execute("TRAIN net ON points WITH SGD (epochs = 1, batch_size = 32)").fetchall()'
CLASSES = CONNECT + 'con.execute("TRAIN kinds ON points WITH SGD (epochs = 1, batch_size = 32)").fetchall()'
PREDICT = CONNECT + 'con.execute("SELECT PREDICT(line, x) AS y FROM points LIMIT 3").fetchall()'
EXPLAIN = CONNECT + 'con.execute("EXPLAIN TRAIN net ON points WITH SGD (epochs = 1)").fetchall()'

LIBRARIES = ("numpy", "pyarrow", "duckdb", "sqlglot")
HEAVY = ("pandas", "polars", "scipy", "numba", "llvmlite", "cupy", "torch", "sklearn")
EXPLAINING = ("mlsql.explain", "mlsql.session.explain", "mlsql.session.look", "mlsql.session.evaluate")
RELATIONAL = ("mlsql.planner.query", "mlsql.planner.relational", "mlsql.executor.skeleton", "mlsql.session.relations")
SECOND_ORDER = (
    "mlsql.session.curvature",
    "mlsql.session.candidates",
    "mlsql.executor.solve",
    "mlsql.autodiff.curvature",
)
PREDICTING = ("mlsql.session.query",)
MEASURING = ("mlsql.executor.calibrate",)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a small table, a network, a classifier and a model that is trained."""
    file = tmp_path_factory.mktemp("cold") / "cold.duckdb"
    with mlsql.connect(str(file)) as con:
        con.execute(
            "CREATE TABLE points AS SELECT [i % 3, 1, i % 7]::FLOAT[3] AS x, i % 3 AS label FROM range(100) r(i)"
        )
        hidden = "AS SELECT RELU(LINEAR(x, 8)) AS hidden, LINEAR(hidden, {}) AS z MINIMIZE AVG(CROSS_ENTROPY(z, label))"
        con.execute(f"CREATE MODEL net INPUT (x FLOAT[3]) TARGET (label INTEGER) {hidden.format(3)}")
        con.execute(f"CREATE MODEL kinds INPUT (x FLOAT[3]) TARGET (label VARCHAR) {hidden.format('CLASSES(label)')}")
        fitted = "AS SELECT LINEAR(x, 1) AS y MINIMIZE AVG((y - label) ** 2)"
        con.execute(f"CREATE MODEL line INPUT (x FLOAT[3]) TARGET (label FLOAT) {fitted}")
        con.execute("TRAIN line ON points WITH SGD (epochs = 1)")
    return file


def loaded(program: str, database: Path) -> set[str]:
    """The modules that a new process has loaded when it has run a program."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", program + LOOK, str(database)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return set(json.loads(done.stdout.splitlines()[-1]))


def among(modules: Collection[str], names: Collection[str]) -> list[str]:
    """Those of the names that are loaded, as themselves or through a module inside of them."""
    return [name for name in names if any(m == name or m.startswith(f"{name}.") for m in modules)]


def test_the_import_loads_no_library(database: Path) -> None:
    assert among(loaded("import mlsql", database), (*LIBRARIES, *HEAVY)) == []


def test_a_connection_loads_only_what_every_statement_needs(database: Path) -> None:
    modules = loaded(CONNECT, database)
    rooms = (*EXPLAINING, *RELATIONAL, *SECOND_ORDER, *PREDICTING, *MEASURING, "mlsql.session.train", "mlsql.autodiff")
    assert among(modules, (*HEAVY, "pyarrow.compute", *rooms)) == []


def test_columns_are_laid_side_by_side_without_numba(database: Path) -> None:
    assert among(loaded("import mlsql.executor.transposing", database), ("numba", "scipy", "pandas")) == []


def test_a_statement_of_duckdbs_loads_no_optimizer(database: Path) -> None:
    modules = loaded(CONNECT + 'con.execute("SELECT 42").fetchall()', database)
    rooms = (*EXPLAINING, *RELATIONAL, *SECOND_ORDER, *MEASURING, "mlsql.session.train", "mlsql.autodiff")
    assert among(modules, (*HEAVY, "pyarrow.compute", *rooms)) == []


def test_compiling_is_left_to_another_process(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSQL_CACHE", str(tmp_path))
    statements = ["SET mlsql_compile = 'always'", "TRAIN line ON points WITH SGD (epochs = 1)"]
    statements += ["SELECT PREDICT(line, x) AS y FROM points"]
    program = CONNECT + "".join(f'con.execute("{s}").fetchall()\n' for s in statements)
    modules = loaded(program, database)
    assert among(modules, ("numba",)) == []
    assert len(list((tmp_path / "compiled").iterdir())) == 2, "one that trains, one that predicts"
    assert among(modules | loaded(program, database), HEAVY) == ["llvmlite"]
    assert among(modules, ("mlsql.executor.compiled.machine_code",)) != [], "it is compiled"


def test_training_a_network_loads_neither_pandas_nor_a_compiler_nor_what_other_statements_need(database: Path) -> None:
    modules = loaded(TRAIN, database)
    rooms = (*EXPLAINING, *RELATIONAL, *SECOND_ORDER, *PREDICTING, *MEASURING)
    assert among(modules, (*HEAVY, "pyarrow.compute", *rooms)) == []


def test_a_database_learns_what_the_cache_knows_of_the_machine_without_pandas(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLSQL_CACHE", str(tmp_path))
    monkeypatch.setenv("MLSQL_MACHINE", "measured")
    loaded(CONNECT + 'con.execute("CALIBRATE").fetchall()', database)
    with mlsql.connect(str(database)) as con:
        con.execute("DELETE FROM mlsql.machine")
    assert among(loaded(TRAIN, database), (*HEAVY, "pyarrow.compute")) == []
    with mlsql.connect(str(database)) as con:
        assert con.execute("SELECT count(*) FROM mlsql.machine").fetchall() != [(0,)]


@pytest.mark.parametrize("program", [CLASSES, PREDICT, EXPLAIN], ids=["vocabulary", "predict", "explain"])
def test_arrays_go_to_arrow_and_back_without_pandas(database: Path, program: str) -> None:
    assert among(loaded(program, database), HEAVY) == []
