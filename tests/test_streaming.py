"""Training over more rows than MEMORY holds: what a person sees, what is left behind, the blocks that bring rows."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlsql
from mlsql.executor.dataset import HeldShare, split_positions
from mlsql.executor.spill import Layout, Spill
from mlsql.executor.storage import Storage
from mlsql.executor.streaming import Cut, Staging, Streamed, cut

Array = Any
LAYOUT = Layout({"x": (np.dtype("f4"), (2,)), "k": (np.dtype("i8"), ()), "b": (np.dtype(bool), ())})

MODELS = """
CREATE TABLE others AS SELECT * FROM rows WHERE n = 1 LIMIT 1000;
CREATE MODEL net INPUT (x FLOAT[24]) TARGET (y FLOAT)
AS SELECT LINEAR(TANH(LINEAR(x, 8)), 1) AS prediction MINIMIZE AVG((prediction - y) ** 2);
CREATE MODEL classes INPUT (x FLOAT[24]) TARGET (c VARCHAR)
AS SELECT LINEAR(x, CLASSES(c)) AS s, ARGMAX(s) AS prediction MINIMIZE AVG(CROSS_ENTROPY(s, c));
CREATE MODEL labels INPUT (x FLOAT[24]) TARGET (k INTEGER)
AS SELECT LINEAR(x, 3) AS s, ARGMAX(s) AS prediction MINIMIZE AVG(CROSS_ENTROPY(s, k));
CREATE MODEL learned INPUT (x FLOAT[24], z FLOAT, c VARCHAR) TARGET (y FLOAT)
AS SELECT LINEAR(FEATURES(STANDARD_SCALER(x), IMPUTE(z, 'mean'), ONE_HOT(c)), 1) AS prediction
MINIMIZE AVG((prediction - y) ** 2);
"""
TOLD = "SELECT current_setting('memory_limit')"
MEMORY = "MEMORY '200KB'"  # the columns of net take 2 MB
MORE = "MEMORY '1300KB'"  # where something validates: this is done over more rows at a time


def filled(connection: mlsql.Connection) -> None:
    """Rows whose numbers, classes, weights and gaps are random, and the models."""
    rng, count = np.random.default_rng(5), 20_000
    x = rng.normal(size=(count, 24)).astype("f4")
    columns = {
        "x": pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), 24),
        "y": pa.array(np.sin(x[:, 0]) + x[:, 1] * x[:, 2] / 4),
        "k": pa.array((x[:, 0] > 0) + (x[:, 1] > 0).astype(int)),
        "c": pa.array([f"k{i}" for i in rng.integers(0, 5, count)]),
        "n": pa.array(rng.integers(1, 3, count)),
        "z": pa.array(x[:, 3], mask=rng.random(count) < 0.1),
    }
    connection.register("given", pa.table(columns))
    connection.execute("CREATE TABLE rows AS FROM given")
    connection.execute(MODELS)


@pytest.fixture(scope="module")
def made() -> Iterator[mlsql.Connection]:
    with mlsql.connect(progress=False) as connection:
        filled(connection)
        yield connection


@pytest.fixture
def db(made: mlsql.Connection) -> mlsql.Connection:
    return made


def notices(cursor: Any) -> str:
    return "\n".join(str(message) for _, message in cursor.messages)


def trained(db: mlsql.Connection, model: str, clauses: str) -> tuple[tuple[Any, ...], list[Any], str]:
    """Steps, rows and losses of a TRAIN from scratch, the bits of its parameters, and what it told."""
    cursor = db.execute(f"TRAIN {model} ON rows FROM SCRATCH {clauses}")
    [row] = cursor.fetchall()
    bits = db.execute(
        "SELECT p.name, p.sha256 FROM mlsql.parameters p JOIN mlsql.models m "
        "ON p.model = m.name AND p.version = m.current_version WHERE m.name = ? ORDER BY 1",
        [model],
    ).fetchall()
    return row[4:8], bits, notices(cursor)


def spill_files() -> list[str]:
    """The open files of this process that no folder names; some are those of others."""
    folder = Path("/proc/self/fd")
    links = [os.readlink(f) for f in folder.iterdir() if f.is_symlink()]
    return [to for to in links if to.startswith(tempfile.gettempdir()) and to.endswith("(deleted)")]


# -- what a person sees ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model, clauses",
    [
        ("net", ""),
        ("net", "VALIDATE 20 PERCENT"),
        ("net", "VALIDATE ON others"),
        ("net", "WEIGHT BY n"),
        ("classes", "VALIDATE 10 PERCENT"),
        ("labels", ""),
        ("learned", ""),
        ("learned", "VALIDATE 20 PERCENT"),
    ],
)
def test_without_a_shuffle_the_bits_are_those_of_rows_in_memory(db, model: str, clauses: str) -> None:
    solver = "WITH ADAM (epochs = 2, shuffle = false, batch_size = 48)"
    in_memory = trained(db, model, f"{clauses} {solver}")
    streamed = trained(db, model, f"{clauses} {solver} {MORE if 'VALIDATE' in clauses else MEMORY}")
    assert streamed[:2] == in_memory[:2]
    assert "the rows are streamed" in streamed[2] and "streamed" not in in_memory[2]


def test_a_shuffle_is_reproducible_and_as_good_as_in_memory(db) -> None:
    solver = "VALIDATE ON others WITH ADAM (epochs = 5, learning_rate = 0.01, batch_size = 32, seed = {})"
    in_memory, first, again, other = (
        trained(db, "net", f"{solver.format(seed)} {memory}")
        for seed, memory in ((1, ""), (1, MORE), (1, MORE), (2, MORE))
    )
    assert first[:2] == again[:2] and first[1] != other[1] and first[1] != in_memory[1]
    assert first[0][:2] == in_memory[0][:2] == (5 * 625, 20_000)
    assert first[0][3] == pytest.approx(in_memory[0][3], rel=0.2) and first[0][3] < 0.2


def test_training_goes_on_from_a_version_and_stops_for_any_reason(db) -> None:
    first = trained(db, "net", f"WITH SGD (learning_rate = 0.05) {MEMORY}")
    [row] = db.execute(f"TRAIN net ON rows WITH SGD (epochs = 1, learning_rate = 0.05) {MEMORY}").fetchall()
    assert row[6] < first[0][2]
    [row] = db.execute(f"TRAIN net ON rows WITH SGD (steps = 20) {MEMORY}").fetchall()
    assert row[4] == 20 and row[9] == "steps"
    [row] = db.execute(f"TRAIN net ON rows UNTIL loss < 100 WITH SGD {MEMORY}").fetchall()
    assert row[3] == 1 and row[9] == "UNTIL"


def test_explain_tells_how_rows_are_streamed(db) -> None:
    lines = [line for (line,) in db.execute(f"EXPLAIN TRAIN net ON rows WITH SGD {MEMORY}").fetchall()]
    [told] = [line for line in lines if "streamed" in line]
    cursor = db.execute(f"TRAIN net ON rows FROM SCRATCH WITH SGD (epochs = 1) {MEMORY}")
    assert told in notices(cursor) and told.startswith("the rows are streamed: ") and "2 MB on disk" in told
    assert any(
        "streamed" in line for (line,) in db.execute(f"EXPLAIN ANALYZE TRAIN net ON rows WITH SGD {MEMORY}").fetchall()
    )


@pytest.mark.parametrize(
    "clauses, hint",
    [
        ("WITH GD", "WITH ADAM (batch_size = 512) the rows are streamed"),
        ("WITH LBFGS", "WITH ADAM (batch_size = 512) the rows are streamed"),
        ("WITH SGD (batch_size = 100000)", "a smaller batch_size"),
        ("PER (k) WITH SGD", "PER needs all rows in memory"),
    ],
)
def test_what_cannot_be_streamed_says_what_would_do(db, clauses: str, hint: str) -> None:
    with pytest.raises(mlsql.OperationalError, match="the run does not fit into 200 KB: its columns take about") as e:
        db.execute(f"TRAIN net ON rows {clauses} {MEMORY}")
    assert hint in str(e.value)
    with pytest.raises(mlsql.OperationalError, match="does not fit") as e:
        db.execute(f"TRAIN labels ON rows WITH SGD (class_weight = 'balanced') {MEMORY}")
    assert "without class_weight" in str(e.value)


# -- what is left behind -----------------------------------------------------------------------------------------------


class Stop:
    """A progress display at which somebody presses Ctrl-C."""

    def __init__(self) -> None:
        self.files = len(spill_files())

    def start(self, **facts: object) -> None:
        assert len(spill_files()) > self.files

    def update(self, standing: object) -> None:
        raise KeyboardInterrupt

    def stop(self) -> None:
        pass


def left_behind(db: mlsql.Connection) -> tuple[list[str], int, list[Any], list[Any]]:
    """Files, threads, tables and settings that a TRAIN could leave."""
    threads = sum(t.name.startswith("mlsql-rows") for t in threading.enumerate())
    tables = db.execute("SELECT table_name FROM duckdb_tables() WHERE temporary").fetchall()
    return spill_files(), threads, tables, db.execute(TOLD).fetchall()


def test_nothing_is_left_behind(db) -> None:
    before = left_behind(db)
    assert before[1:3] == (0, [])
    trained(db, "learned", f"VALIDATE 10 PERCENT WITH SGD (epochs = 1) {MORE}")
    assert left_behind(db) == before
    with pytest.raises(mlsql.OperationalError, match="the loss became"):
        db.execute(f"TRAIN net ON rows WITH SGD (learning_rate = 1e30) {MEMORY}")
    assert left_behind(db) == before
    replaced = "(SELECT * REPLACE (CASE WHEN row_number() OVER () = 15000 THEN {} ELSE {} END AS {}) FROM rows)"
    with pytest.raises(mlsql.DataError, match="has the label 7 in row 15000;"):
        db.execute(f"TRAIN labels ON {replaced.format(7, 'k', 'k')} WITH SGD {MEMORY}")
    with pytest.raises(mlsql.DataError, match='column "y" has a NULL in row 15000'):
        db.execute(f"TRAIN net ON {replaced.format('NULL', 'y', 'y')} WITH SGD {MEMORY}")
    with pytest.raises(mlsql.DataError, match="no rows to train on"):
        db.execute(f"TRAIN net ON (SELECT * FROM rows LIMIT 0) WITH SGD {MEMORY}")
    with pytest.raises(mlsql.DataError, match="no rows to validate on"):
        db.execute(f"TRAIN net ON rows VALIDATE ON (SELECT * FROM rows LIMIT 0) WITH SGD {MORE}")
    assert left_behind(db) == before


def test_nothing_is_left_behind_by_ctrl_c() -> None:
    with mlsql.connect(progress=Stop()) as connection:
        filled(connection)
        before = left_behind(connection)
        with pytest.raises(KeyboardInterrupt) as stopped:
            connection.execute(f"TRAIN net ON rows WITH SGD {MEMORY}")
        assert left_behind(connection) == before
        assert "the version before it stays" in str(stopped.value.__notes__)


def test_a_full_disk_is_one_clear_error(db) -> None:
    before, limits = left_behind(db), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    try:
        with pytest.raises(mlsql.OperationalError, match=r"no room is left in .* for the rows") as e:
            db.execute(f"TRAIN net ON rows WITH SGD {MEMORY}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "TMPDIR" in str(e.value)
    assert left_behind(db) == before


CONSTANT = 128e6  # what a run may take beside MEMORY: DuckDB's least, its threads, what allocators keep

GROWTH = """
import sys, mlsql
from pathlib import Path
from mlsql.executor.footprint import resident

def most():
    return 1024 * next(int(l.split()[1]) for l in Path("/proc/self/status").open() if l.startswith("VmHWM"))

db = mlsql.connect(sys.argv[1], progress=False)
train = "TRAIN net ON {} FROM SCRATCH WITH SGD (epochs = 2, batch_size = 4096) MEMORY '12MB'"
db.execute(train.format("(SELECT * FROM rows LIMIT 5000)"))
before = resident()
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
cursor = db.execute(train.format("rows"))
assert "the rows are streamed" in str(cursor.messages), cursor.messages
print(most() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell")
def test_memory_grows_by_no_more_than_memory_allows(tmp_path: Path) -> None:
    path, rows, width = str(tmp_path / "rows.duckdb"), 470_000, 64
    numbers = np.random.default_rng(1).random(rows * width, np.float32)
    with mlsql.connect(path, progress=False) as db:
        x = pa.FixedSizeListArray.from_arrays(pa.array(numbers), width)
        db.register("given", pa.table({"x": x, "y": pa.array(numbers[:rows])}))
        db.execute("CREATE TABLE rows AS FROM given")
        db.execute(
            f"CREATE MODEL net INPUT (x FLOAT[{width}]) TARGET (y FLOAT) "
            "AS SELECT LINEAR(x, 1) AS prediction MINIMIZE AVG((prediction - y) ** 2)"
        )
    done = subprocess.run([sys.executable, "-c", GROWTH, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) < 12e6 + CONSTANT


@pytest.mark.parametrize("limit", ["18.8GiB", "1500MB", "123456789B", "-1"])
def test_a_limit_of_the_database_is_put_back(limit: str) -> None:
    with contextlib.closing(Storage()) as storage:
        storage.rows(f"SET memory_limit = '{limit}'")
        [(before,)] = storage.rows(TOLD)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError), storage.limited(50 << 20), storage.limited(40 << 20):
                assert storage.rows(TOLD) != [(before,)]
                raise ZeroDivisionError
            assert storage.rows(TOLD) == [(before,)]


# -- the blocks --------------------------------------------------------------------------------------------------------


def numbered(first: int, behind: int) -> dict[str, Array]:
    k = np.arange(first, behind)
    return {"x": np.stack([k, -k], 1), "k": k, "b": k % 2 == 0}


def spilled(found: Cut, chunk: int) -> Spill:
    """Rows with a number each, which come in batches of ``chunk``."""
    staging = Staging(LAYOUT, found, seed=1)
    for first in range(0, found.rows, chunk):
        behind = min(first + chunk, found.rows)
        staging.add(numbered(first, behind), behind - first)
    return staging.done()


def epochs(spill: Spill, found: Cut, count: int) -> list[list[Array]]:
    """The rows of each block of some epochs, by number."""
    feed, seen = Streamed(spill, found, seed=1), []
    for _ in range(count):
        seen.append([])
        for block in feed.blocks():
            k = block.columns["k"][block.order]
            for name, expected in (("x", np.stack([k, -k], 1)), ("b", k % 2 == 0)):
                np.testing.assert_array_equal(block.columns[name][block.order], expected)
            seen[-1].append(k)
    feed.close()
    return seen


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 100), st.booleans(), st.integers(1, 60))
def test_an_epoch_has_every_row_once_in_whole_batches(
    rows: int, batch: int, most: int, shuffle: bool, chunk: int
) -> None:
    found = cut(rows, min(batch, rows), most, shuffle)
    if found is None:
        assert most < 2 * batch + rows**0.5 + 1
        return
    assert found.capacity <= most
    spill = spilled(found, chunk)
    first, second = epochs(spill, found, 2)
    for blocks in (first, second):
        assert len(blocks) == found.blocks
        assert all(len(b) % found.batch_size == 0 for b in blocks[:-1])
        order = np.concatenate(blocks)
        np.testing.assert_array_equal(np.sort(order) if shuffle else order, np.arange(rows))
    again = epochs(spilled(found, 7), found, 2)  # whatever the batches in which rows come
    assert [list(map(list, blocks)) for blocks in (first, second)] == [list(map(list, blocks)) for blocks in again]
    spill.close()


def test_a_shuffle_mixes_all_rows_anew_each_epoch() -> None:
    found = cut(4000, 10, 500, True)
    assert found is not None
    first, second = (np.concatenate(e) for e in epochs(spilled(found, 100), found, 2))
    for order in (first, second):
        assert abs(np.corrcoef(order, np.arange(4000))[0, 1]) < 0.06  # the place says nothing of the number
        assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.06  # nor does a row of the next one
        assert (np.diff(order) == 1).mean() < 0.01
    together = [set(map(frozenset, e.reshape(-1, 10))) for e in (first, second)]
    assert not together[0] & together[1]


@settings(deadline=None)
@given(st.integers(0, 5000), st.floats(0, 100), st.integers(0, 3))
def test_a_share_is_the_same_row_by_row_and_at_once(rows: int, percent: float, seed: int) -> None:
    kept, held = split_positions(rows, percent, seed)
    assert len(held) == round(rows * percent / 100)
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held])), np.arange(rows))
    flags = HeldShare(rows, percent, seed)(np.arange(rows))
    np.testing.assert_array_equal(np.flatnonzero(flags), held)


def test_a_share_of_many_rows_is_exact() -> None:
    rows = 2_500_001
    kept, held = split_positions(rows, 12.5, 1)
    assert len(held) == round(rows / 8) and len(kept) + len(held) == rows
    some = np.random.default_rng(1).integers(0, rows, 1000)
    np.testing.assert_array_equal(HeldShare(rows, 12.5, 1)(some), np.isin(some, held))
