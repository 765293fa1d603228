"""The Python interface: PEP 249, Arrow and DataFrames, several cursors over one transaction."""

import subprocess
import sys
import threading
import time

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mlsql


@pytest.fixture
def con():
    with mlsql.connect() as con:
        yield con


def test_the_module_is_pep_249():
    assert (mlsql.apilevel, mlsql.threadsafety, mlsql.paramstyle) == ("2.0", 1, "qmark")
    assert issubclass(mlsql.DataError, mlsql.DatabaseError)
    assert issubclass(mlsql.DatabaseError, mlsql.Error)
    assert issubclass(mlsql.InterfaceError, mlsql.Error)
    assert isinstance(mlsql.__version__, str)
    with pytest.raises(AttributeError):
        _ = mlsql.nope


def test_a_connection_has_the_errors(con):
    for name in ("Warning", "Error", "InterfaceError", "DatabaseError", "DataError", "OperationalError"):
        assert getattr(con, name) is getattr(mlsql, name)
    with pytest.raises(con.ProgrammingError):
        con.execute("SELEC 1")


def test_importing_is_quick_and_loads_no_engine():
    program = """
import sys, time
start = time.perf_counter()
import mlsql
assert time.perf_counter() - start < 0.3
assert not {"duckdb", "numpy", "pyarrow", "sqlglot", "pandas", "polars"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# Fetching


def test_fetching(con):
    cur = con.cursor()
    assert cur.description is None
    assert cur.execute("SELECT range AS a, 'x' AS b FROM range(7)") is cur
    assert [d[:2] for d in cur.description] == [("a", "BIGINT"), ("b", "VARCHAR")]
    assert all(len(d) == 7 for d in cur.description)
    assert cur.rowcount == -1
    assert cur.fetchone() == (0, "x")
    assert cur.fetchmany() == [(1, "x")]
    cur.arraysize = 2
    assert cur.fetchmany() == [(2, "x"), (3, "x")]
    assert cur.fetchmany(size=1) == [(4, "x")]
    assert list(cur) == [(5, "x"), (6, "x")]
    assert cur.fetchone() is None
    assert cur.fetchall() == []
    assert cur.connection is con
    cur.setinputsizes([1])
    cur.setoutputsize(1)


def test_parameters(con):
    assert con.execute("SELECT ?, ?", (1, "a")).fetchall() == [(1, "a")]
    assert con.execute("SELECT $name", {"name": None}).fetchall() == [(None,)]
    with pytest.raises(mlsql.Error):
        con.execute("SELECT ?")
    with pytest.raises(mlsql.Error):
        con.execute("SELECT 1", [1])


def test_executemany_is_all_or_nothing(con):
    con.execute("CREATE TABLE t (a INTEGER)")
    con.cursor().executemany("INSERT INTO t VALUES (?)", [[1], (2,)])
    with pytest.raises(mlsql.DataError):
        con.executemany("INSERT INTO t VALUES (?)", [[3], ["x"]])
    assert con.execute("FROM t").fetchall() == [(1,), (2,)]
    con.executemany("INSERT INTO t VALUES (?)", [])
    assert con.execute("FROM t").fetchall() == [(1,), (2,)]


def test_several_statements(con):
    assert con.execute("CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1); FROM t").fetchall() == [(1,)]


def test_cursors_keep_their_own_results(con):
    first = con.execute("FROM range(100000)")
    second = con.execute("FROM range(100000, 200000)")
    assert first.fetchone() == (0,)
    assert second.fetchone() == (100000,)
    con.execute("CREATE TABLE t AS SELECT 1 AS a")
    assert len(first.fetchall()) == len(second.fetchall()) == 99999


def test_an_error_leaves_no_result(con):
    cur = con.execute("SELECT 1")
    with pytest.raises(mlsql.ProgrammingError):
        cur.execute("SELECT * FROM nope")
    with pytest.raises(mlsql.InterfaceError, match="no result"):
        cur.fetchall()
    assert cur.execute("SELECT 2").fetchall() == [(2,)]


# Arrow and DataFrames


def test_arrow(con):
    assert con.execute("SELECT 1 AS a").fetch_arrow_table().to_pylist() == [{"a": 1}]
    sizes = [b.num_rows for b in con.execute("FROM range(10)").fetch_record_batch(rows_per_batch=4)]
    assert sizes == [4, 4, 2]
    assert pa.table(con.execute("SELECT 1 AS a")).to_pylist() == [{"a": 1}]


def test_dataframes(con):
    assert con.execute("SELECT 1 AS a").df().equals(pd.DataFrame({"a": [1]}, dtype="int32"))
    assert con.execute("SELECT 1 AS a").pl()["a"].to_list() == [1]
    assert pl.DataFrame(con.execute("SELECT 1 AS a"))["a"].to_list() == [1]
    assert pl.read_database("SELECT 1 AS a, 'x' AS b", con).rows() == [(1, "x")]


@pytest.mark.parametrize(("method", "name"), [("df", "pandas"), ("pl", "polars")])
def test_without_its_library_a_frame_is_an_error_that_costs_no_row(con, method, name, monkeypatch):
    cursor = con.execute("SELECT 1 AS a")
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(mlsql.NotSupportedError, match=f"takes {name}, which is not installed"):
        getattr(cursor, method)()
    assert cursor.fetchall() == [(1,)]


def test_half_a_reader_goes_on_after_another_statement(con):
    cur = con.execute("FROM range(100000)")
    reader = cur.fetch_record_batch(1000)
    assert reader.read_next_batch().num_rows == 1000
    con.execute("CREATE TABLE t AS SELECT 1 AS a")
    assert reader.read_next_batch()["range"][0].as_py() == 1000
    cur.execute("SELECT 1")
    cur.close()
    assert reader.read_all().num_rows == 98000


@pytest.mark.parametrize(
    "table",
    [pd.DataFrame({"a": [1, 2]}), pl.DataFrame({"a": [1, 2]}), pa.table({"a": [1, 2]})],
    ids=["pandas", "polars", "arrow"],
)
def test_register(table, con):
    con.register("my table", table)
    assert con.execute('SELECT sum(a) FROM "my table"').fetchall() == [(3,)]
    con.unregister("my table")
    with pytest.raises(mlsql.ProgrammingError):
        con.execute('FROM "my table"')


def test_a_result_is_a_source_of_the_next_statement(con):
    con.register("big", con.execute("FROM range(200000)").fetch_record_batch(1000))
    assert con.execute("SELECT count(*) FROM big").fetchall() == [(200000,)]


# Transactions


def test_transactions(con):
    con.commit()
    con.rollback()
    con.begin()
    con.execute("CREATE TABLE t (a INTEGER)")
    con.rollback()
    con.begin()
    con.execute("CREATE TABLE t (a INTEGER)")
    con.commit()
    con.execute("BEGIN")
    con.cursor().execute("INSERT INTO t VALUES (1)")
    assert con.cursor().execute("FROM t").fetchall() == [(1,)]
    con.rollback()
    assert con.execute("FROM t").fetchall() == []
    con.begin()
    with pytest.raises(mlsql.OperationalError):
        con.begin()
    con.rollback()


def test_training_belongs_to_the_transaction(con):
    con.execute("CREATE TABLE t AS SELECT range::FLOAT AS x, 2 * range::FLOAT AS y FROM range(10)")
    con.execute(
        "CREATE MODEL m INPUT (x FLOAT) TARGET (y FLOAT) AS SELECT LINEAR(x, 1) AS prediction "
        "MINIMIZE AVG(SQUARED_ERROR(prediction, y))"
    )
    con.begin()
    con.execute("TRAIN m ON t WITH SGD (learning_rate = 0.01, epochs = 2, seed = 1)")
    assert con.execute("SELECT count(PREDICT(m, x)) FROM t").fetchall() == [(10,)]
    con.rollback()
    with pytest.raises(mlsql.Error, match="train"):
        con.execute("SELECT PREDICT(m, x) FROM t").fetchall()
    con.execute("TRAIN m ON t WITH SGD (learning_rate = 0.01, epochs = 2, seed = 1)")
    assert con.execute("SELECT count(PREDICT(m, x)) FROM t").fetchall() == [(10,)]


def test_the_same_predictions_whatever_way_they_are_fetched(con):
    con.execute("CREATE MODEL double INPUT (x FLOAT) PARAMETERS (w FLOAT INIT 2) AS SELECT w * x AS prediction")
    sql = "SELECT PREDICT(double, range::FLOAT) AS p FROM range(50000)"
    expected = [float(2 * i) for i in range(50000)]
    assert [p for (p,) in con.execute(sql).fetchall()] == expected
    assert con.execute(sql).fetch_arrow_table()["p"].to_pylist() == expected
    assert con.execute(sql).pl()["p"].to_list() == expected
    assert pa.Table.from_batches(con.execute(sql).fetch_record_batch(7000))["p"].to_pylist() == expected


# Closing


def test_a_closed_cursor(con):
    cur = con.execute("SELECT 1")
    with con.execute("SELECT 1") as other:
        assert other.fetchall() == [(1,)]
    cur.close()
    cur.close()
    for use in (cur.fetchall, cur.fetchone, cur.df, lambda: cur.execute("SELECT 1"), lambda: list(cur)):
        with pytest.raises(mlsql.InterfaceError):
            use()
    assert con.execute("SELECT 1").fetchall() == [(1,)]


def test_a_closed_connection():
    con = mlsql.connect()
    cur = con.execute("FROM range(1000000)")
    con.close()
    con.close()
    for use in (cur.fetchall, con.begin, con.commit, lambda: con.execute("SELECT 1"), lambda: con.register("a", 1)):
        with pytest.raises(mlsql.InterfaceError, match="closed"):
            use()
    cur.close()


def test_a_file_can_be_opened_again_after_closing(tmp_path):
    path = tmp_path / "a.duckdb"
    with mlsql.connect(path) as con:
        con.execute("CREATE TABLE t AS SELECT 1 AS a")
        con.begin()
        con.execute("INSERT INTO t VALUES (2)")
    with mlsql.connect(str(path), read_only=True) as con:
        assert con.execute("FROM t").fetchall() == [(1,)]
        with pytest.raises(mlsql.Error, match="read-only"):
            con.execute("INSERT INTO t VALUES (2)")


def test_a_file_that_cannot_be_opened(tmp_path):
    with pytest.raises(mlsql.OperationalError):
        mlsql.connect(tmp_path / "nowhere" / "a.duckdb")


def test_interrupt(con):
    threading.Timer(0.3, con.interrupt).start()
    start = time.monotonic()
    with pytest.raises(mlsql.OperationalError, match="Interrupted"):
        con.execute("SELECT sum(a.range * b.range + 1) FROM range(1000000) a, range(200000) b").fetchall()
    assert time.monotonic() - start < 5
    assert con.execute("SELECT 1").fetchall() == [(1,)]


@pytest.mark.parametrize("ending", ["", "con.close()", "del con", "cur = con.execute('FROM range(9999999)')"])
def test_a_program_exits_silently(ending):
    program = f"""
import mlsql
con = mlsql.connect()
con.execute("CREATE MODEL double INPUT (x FLOAT) PARAMETERS (w FLOAT INIT 2) AS SELECT w * x AS prediction")
assert con.execute("SELECT PREDICT(double, 3.0)").fetchall() == [(6.0,)]
{ending}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_progress_is_told_and_can_be_turned_off():
    told = []

    class Progress:
        def start(self, **facts):
            told.append(("start", facts["model"]))

        def update(self, standing):
            told.append(("update", standing.epoch))

        def stop(self):
            told.append(("stop", None))

    for progress in (Progress(), False):
        con = mlsql.connect(progress=progress)
        con.execute("CREATE TABLE t AS SELECT range::FLOAT AS x, 2 * range::FLOAT AS y FROM range(10)")
        con.execute(
            "CREATE MODEL m INPUT (x FLOAT) TARGET (y FLOAT) AS SELECT LINEAR(x, 1) AS prediction "
            "MINIMIZE AVG(SQUARED_ERROR(prediction, y)); "
            "TRAIN m ON t WITH SGD (learning_rate = 0.01, epochs = 2, seed = 1)"
        )
        con.close()
    assert told[0] == ("start", "m")
    assert told[-1] == ("stop", None)
    assert told.count(("stop", None)) == 1


@pytest.mark.parametrize("optimizer", ["true", "false"])
def test_a_column_in_which_predict_stands_is_named_as_it_was_written(optimizer):
    con = mlsql.connect()
    con.execute("CREATE MODEL twice INPUT (x FLOAT) PARAMETERS (w FLOAT INIT 2) AS SELECT x * w AS prediction")
    con.execute("CREATE TABLE d AS SELECT i AS id, i::FLOAT AS x FROM range(10) r(i)")
    con.execute("CREATE TABLE f AS SELECT i % 10 AS k FROM range(1000) r(i)")
    con.execute(f"SET mlsql_optimizer = {optimizer}")
    names = {
        "SELECT id,  1 +\n PREDICT(twice, x) FROM d": ["id", "1 + PREDICT(twice, x)"],
        "SELECT max(PREDICT(twice, d.x)) FROM f JOIN d ON d.id = f.k": ["max(PREDICT(twice, d.x))"],
        "SELECT PREDICT(twice, x), -PREDICT(twice, x) AS less FROM d": ["prediction", "less"],
    }  # fmt: skip
    for query, expected in names.items():
        assert [c[0] for c in con.execute(query).description] == expected
