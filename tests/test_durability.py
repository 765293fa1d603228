"""A database outlives its process: the same bits in the next one, the old version after a kill or Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mlsql

SETUP = """
CREATE TABLE points AS
SELECT [sin(i), cos(i), i / 1000]::FLOAT[3] AS x, (sin(i) > 0)::INTEGER AS side FROM range(1000) AS r(i);
CREATE MODEL net INPUT (x FLOAT[3]) TARGET (side INTEGER)
AS SELECT TANH(LINEAR(x, 16)) AS hidden, LINEAR(hidden, 2) AS logits, ARGMAX(logits) AS prediction
MINIMIZE AVG(CROSS_ENTROPY(logits, side));
TRAIN net ON points WITH ADAM (epochs = 2, seed = 5);
"""
PREDICTIONS = "SELECT PREDICT(net, x).logits FROM points"
ENDLESS = "TRAIN net ON points WITH SGD (epochs = 1000000)"


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = str(tmp_path / "models.duckdb")
    with mlsql.connect(path, progress=False) as connection:
        connection.execute(SETUP)
    return path


def predictions(path: str) -> list[tuple[float, ...]]:
    with mlsql.connect(path, progress=False) as connection:
        return connection.execute(PREDICTIONS).fetchall()


def test_another_process_predicts_the_same_bits(database: str) -> None:
    code = f"import mlsql; print(mlsql.connect({database!r}, progress=False).execute({PREDICTIONS!r}).fetchall())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == repr(predictions(database))
    assert done.stderr == ""


def test_the_same_statement_gives_the_same_bits(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        path = str(tmp_path / name)
        with mlsql.connect(path, progress=False) as connection:
            connection.execute(SETUP)
            found.append(connection.execute("SELECT name, sha256 FROM mlsql.parameters ORDER BY name").fetchall())
    assert found[0] == found[1]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_a_stopped_train_leaves_the_old_version(database: str, how: signal.Signals) -> None:
    before = predictions(database)
    running = subprocess.Popen(
        [sys.executable, "-m", "mlsql", database, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    time.sleep(3)
    assert running.poll() is None
    running.send_signal(how)
    running.communicate(timeout=20)
    assert predictions(database) == before
    with mlsql.connect(database, progress=False) as connection:
        runs = connection.execute("SELECT version, stopped_because FROM mlsql.training_runs ORDER BY run_id").fetchall()
    assert runs[0] == (1, "epochs")
    assert runs[1:] == ([] if how == signal.SIGKILL else [(None, "interrupted")])


def test_a_damaged_parameter_is_found(database: str) -> None:
    with mlsql.connect(database, progress=False) as connection:
        connection.execute("UPDATE mlsql.parameters SET data = data || '\\x00'::BLOB WHERE name = 'logits.bias'")
        with pytest.raises(mlsql.IntegrityError, match=r"net version 1, parameter logits.bias is damaged"):
            connection.execute(PREDICTIONS).fetchall()


def test_an_older_version_predicts_after_a_training_that_diverged(database: str) -> None:
    before = predictions(database)
    with mlsql.connect(database, progress=False) as connection:
        with pytest.raises(mlsql.OperationalError, match=r"the last good loss was|no finite loss before it"):
            connection.execute("TRAIN net ON points WITH SGD (learning_rate = 1e38, epochs = 20)")
        assert connection.execute(PREDICTIONS).fetchall() == before
