"""Storage: DuckDB underneath, exactly as it is, with results that survive the next statement."""

import datetime
import decimal
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import mlsql.errors as errors
from mlsql.executor.storage import Storage


@pytest.fixture
def storage():
    with closing(Storage()) as s:
        yield s


@contextmanager
def closing(storage):
    try:
        yield storage
    finally:
        storage.close()


def ctrl_c(after):
    threading.Timer(after, lambda: os.kill(os.getpid(), signal.SIGINT)).start()


SLOW = "SELECT sum(a.range * b.range + 1) FROM range(1000000) a, range(200000) b"
SLOW_BATCH = "SELECT a.range FROM range(1000000) a, range(200000) b WHERE a.range * b.range = -1"


# Values

QUERIES = [
    "SELECT 1, 2.5::DOUBLE, 'x', true, NULL, 1.50::DECIMAL(5,2), 'b'::BLOB",
    "SELECT sum(range), max(range)::UHUGEINT FROM range(10)",
    "SELECT 170141183460469231731687303715884105727::HUGEINT, [1::HUGEINT]",
    "SELECT '6ac3a2a5-a4e5-4c78-a0e5-8d1e02c0b6a2'::UUID AS u, [u]",
    "SELECT DATE '2024-02-29', TIMESTAMP '2024-02-29 10:00:00.5', TIME '10:00', INTERVAL 1 MONTH",
    "SELECT 'infinity'::DATE, 'infinity'::TIMESTAMP, '290000-01-01'::TIMESTAMP, '-44-01-01'::DATE",
    "SELECT [1, 2], [1, 2]::INTEGER[2], [[1.5]]::FLOAT[1][], [], [NULL]",
    "SELECT {'a': 1, 'b': [1]}, MAP {'a': 1}, row(1, 2), union_value(n := 1)",
    "SELECT 'a'::ENUM('a', 'b'), '101'::BIT, '{\"a\": 1}'::JSON, '10:00:00+02'::TIMETZ",
    'SELECT 1 AS a, 2 AS a, 3 AS "A"',
    "SELECT 1 WHERE false",
    "SHOW TABLES",
    "DESCRIBE SELECT 1 AS a",
    "SUMMARIZE SELECT 1 AS a",
    "EXPLAIN SELECT 1",
    "VALUES (1, 'a'), (2, NULL)",
    "FROM range(3)",
    "PIVOT (SELECT 1 AS a, 2 AS b) ON a USING sum(b)",
    "CREATE TABLE t (a INTEGER)",
    "CREATE TABLE t AS SELECT 1 AS a",
    "CREATE TABLE t AS SELECT 1 AS a; INSERT INTO t VALUES (2) RETURNING a + 1 AS b",
    "CREATE TABLE t AS SELECT 1 AS a; SELECT * FROM t",
    "SELECT 1; SELECT 2",
    "CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1), (2)",
    "SET threads = 1",
    "PRAGMA database_size",
    "",
    "-- nothing",
]


@pytest.mark.parametrize("sql", QUERIES)
@pytest.mark.parametrize("is_buffered", [False, True])
def test_rows_are_what_duckdb_gives(sql, is_buffered, storage):
    con = duckdb.connect()
    result = con.execute(sql)
    description = result and result.description
    expected = result.fetchall() if description else []
    rows = storage.run(sql)
    if is_buffered:
        storage.query("SELECT 1")
    assert rows.description == (description and [(d[0], str(d[1]), *d[2:]) for d in description])
    found = rows.fetchall()
    assert found == expected
    assert [[type(v) for v in row] for row in found] == [[type(v) for v in row] for row in expected]


@pytest.mark.parametrize("sql", [q for q in QUERIES[:22] if "UNION" not in q.upper() and "EXPLAIN" not in q])
@pytest.mark.parametrize("is_buffered", [False, True])
def test_arrow_is_what_duckdb_gives(sql, is_buffered, storage):
    *first, last = sql.split(";")
    con = duckdb.connect()
    con.execute(";".join(first)).fetchall() if first else None
    expected = con.sql(last).to_arrow_table()
    rows = storage.run(sql)
    if is_buffered:
        storage.query("SELECT 1")
    table = rows.arrow()
    assert table.schema == expected.schema
    assert table.num_rows == expected.num_rows
    assert table.equals(expected) or "CREATE" in sql


def test_time_with_time_zone_needs_no_pytz_as_arrow(storage):
    rows = storage.run("SELECT TIMESTAMPTZ '2024-01-01 00:00:00+00' AS t")
    assert rows.description[0][1] == "TIMESTAMP WITH TIME ZONE"
    assert rows.arrow().schema.field("t").type.unit == "us"


def test_parameters(storage):
    assert storage.run("SELECT ? + 1, ?", [1, "a"]).fetchall() == [(2, "a")]
    assert storage.run("SELECT $a", {"a": [1, 2]}).fetchall() == [([1, 2],)]
    assert storage.run("SELECT ?", (uuid.UUID(int=1),)).fetchall() == [(uuid.UUID(int=1),)]
    assert storage.run("SELECT 1", []).fetchall() == [(1,)]
    assert storage.query("SELECT ? AS a", [3]).to_pylist() == [{"a": 3}]
    assert storage.rows("SELECT $a", {"a": decimal.Decimal("1.5")}) == [(decimal.Decimal("1.5"),)]
    with pytest.raises(errors.ProgrammingError):
        storage.run("SELECT ?")
    with pytest.raises(errors.ProgrammingError):
        storage.run("SELECT ?", [1, 2])


def test_local_variables_are_no_tables(storage):
    df = pa.table({"a": [1]})
    with pytest.raises(errors.ProgrammingError, match="df"):
        storage.run("SELECT * FROM df")
    storage.register("df", df)
    assert storage.run("SELECT * FROM df").fetchall() == [(1,)]
    storage.unregister("df")
    storage.unregister("df")
    with pytest.raises(errors.ProgrammingError):
        storage.run("SELECT * FROM df")
    with pytest.raises(errors.Error):
        storage.register("x", 5)


def test_a_reader_can_be_registered(storage):
    reader = pa.RecordBatchReader.from_batches(pa.schema({"a": pa.int64()}), iter([pa.record_batch({"a": [1, 2]})]))
    storage.register("r", reader)
    assert storage.run("SELECT sum(a) FROM r").fetchall() == [(3,)]


# Reading


def test_fetching_in_pieces(storage):
    rows = storage.run("FROM range(100000)")
    assert rows.fetchone() == (0,)
    assert rows.fetchmany(2) == [(1,), (2,)]
    assert len(rows.fetchmany(50000)) == 50000
    assert next(iter(rows)) == (50003,)
    assert rows.arrow()["range"].to_pylist() == list(range(50004, 100000))
    assert rows.fetchone() is None
    assert rows.fetchall() == []
    assert rows.arrow().num_rows == 0
    with pytest.raises(errors.InterfaceError):
        rows.fetchmany(-1)


def test_the_reader_gives_batches_of_the_size_asked_for(storage):
    sizes = [b.num_rows for b in storage.run("FROM range(100000)").reader(30000)]
    assert sizes == [30000, 30000, 30000, 10000]
    rows = storage.run("FROM range(10)")
    rows.fetchone()
    assert [b.num_rows for b in rows.reader(4)] == [4, 4, 1]
    assert [b.num_rows for b in storage.run("SELECT 1::UHUGEINT FROM range(5)").reader(3)] == [3, 2]
    with pytest.raises(errors.InterfaceError):
        storage.run("SELECT 1").reader(0)


def test_a_result_survives_the_next_statement(storage):
    first = storage.run("SELECT range, range::UHUGEINT FROM range(100000)")
    assert first.fetchone() == (0, 0)
    second = storage.run("SELECT range FROM range(100000)")
    reader = second.reader(1000)
    assert reader.read_next_batch().num_rows == 1000
    storage.rows("CREATE TABLE t AS FROM range(3)")
    third = storage.run("FROM t")
    storage.rows("DROP TABLE t")
    assert len(first.fetchall()) == 99999
    assert reader.read_all().num_rows == 99000
    assert third.fetchall() == [(0,), (1,), (2,)]


def test_a_result_that_nobody_holds_is_dropped(storage):
    storage.run("SELECT 1::UHUGEINT FROM range(10000000)")
    storage.run("FROM range(10000000)")
    storage.begin()
    storage.run("SELECT 1::UHUGEINT FROM range(10000000)")
    assert storage.rows("SELECT 1") == [(1,)]
    storage.commit()


def test_closing_a_result(storage):
    for sql in ("FROM range(1000000)", "SELECT 1::BIT FROM range(1000000)"):
        rows = storage.run(sql)
        rows.close()
        rows.close()
        with pytest.raises(errors.InterfaceError):
            rows.fetchall()
        with pytest.raises(errors.InterfaceError):
            rows.arrow()
        assert storage.rows("SELECT 1") == [(1,)]


def test_streaming_does_not_grow():
    program = """
import resource
from mlsql.executor.storage import Storage
storage = Storage()
rows = storage.run("SELECT range AS a, repeat('x', 100) || range AS b FROM range(5000000)")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert sum(b.num_rows for b in rows.reader(50000)) == 5000000
assert sum(b.num_rows for b in storage.read("SELECT repeat('x', 100) || range AS b FROM range(5000000)")) == 5000000
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_dataframes(storage):
    assert storage.run("SELECT 1 AS a").df()["a"].tolist() == [1]
    assert storage.run("SELECT 1 AS a").pl()["a"].to_list() == [1]


def test_a_table_as_a_result(storage):
    rows = storage.table_rows(pa.table({"a": [1, None], "b": ["x", "y"], "c": [[1.0], [2.0]]}))
    assert [d[:2] for d in rows.description] == [("a", "BIGINT"), ("b", "VARCHAR"), ("c", "DOUBLE[]")]
    assert rows.fetchall() == [(1, "x", [1.0]), (None, "y", [2.0])]
    empty = storage.table_rows(pa.table({"a": pa.array([], pa.int32())}))
    assert empty.description[0][:2] == ("a", "INTEGER")
    assert empty.fetchall() == []
    stamp = datetime.datetime(2024, 1, 1)
    assert storage.table_rows(pa.table({"t": [stamp]})).fetchall() == [(stamp,)]


def test_describe(storage):
    assert storage.describe("(SELECT 1 AS a, [1.5::FLOAT]::FLOAT[1] AS b)") == [("a", "INTEGER"), ("b", "FLOAT[1]")]
    assert storage.describe("(SELECT $p1 AS a)", {"p1": "x"}) == [("a", "VARCHAR")]
    with pytest.raises(errors.ProgrammingError, match="nope"):
        storage.describe("nope")


def test_read(storage):
    reader = storage.read("FROM range(10)", batch_rows=4)
    assert [b.num_rows for b in reader] == [4, 4, 2]


# Errors


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELEC 1", errors.ProgrammingError),
        ("SELECT * FROM nope", errors.ProgrammingError),
        ("SELECT nope FROM range(3)", errors.ProgrammingError),
        ("SELECT 'a'::INTEGER", errors.DataError),
        ("SELECT 127::TINYINT + 127::TINYINT", errors.DataError),
        ("SELECT error('boom')", errors.ProgrammingError),
        ("CREATE TABLE t (a INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (1)", errors.IntegrityError),
        ("COMMIT", errors.OperationalError),
        ("SELECT 1; SELECT ?", errors.Error),
        ("FROM 'nope.csv'", errors.OperationalError),
    ],
)
def test_errors_are_duckdbs_word_for_word(sql, kind, storage):
    with pytest.raises(duckdb.Error) as expected:
        duckdb.connect().execute(sql)
    with pytest.raises(kind) as found:
        storage.run(sql)
    assert str(found.value) == str(expected.value)
    assert storage.rows("SELECT 1") == [(1,)]


def test_an_error_late_in_a_stream_keeps_its_class(storage):
    storage.rows("SET threads = 1")
    rows = storage.run("SELECT CASE WHEN range > 5000000 THEN 'x' ELSE '1' END::INTEGER FROM range(9000000)")
    with pytest.raises(errors.DataError, match="Conversion Error: Could not convert string 'x'"):
        rows.fetchall()
    assert storage.rows("SELECT 1") == [(1,)]


@pytest.mark.parametrize("cast", ["", "::BIT"])
def test_an_error_in_the_rest_is_not_the_next_statements(cast, storage):
    storage.rows("SET threads = 1")
    rows = storage.run(f"SELECT CASE WHEN range > 5000000 THEN 'x' ELSE '1' END::INTEGER{cast} FROM range(9000000)")
    assert storage.run("SELECT 1").fetchall() == [(1,)]
    with pytest.raises(errors.DataError, match="Conversion Error"):
        rows.fetchall()


def test_opening_what_cannot_be_opened(tmp_path):
    (tmp_path / "text.duckdb").write_text("hello " * 5000)
    with pytest.raises(errors.OperationalError, match="not a valid DuckDB database file"):
        Storage(str(tmp_path / "text.duckdb"))
    with pytest.raises(errors.OperationalError, match="No such file or directory"):
        Storage(str(tmp_path / "nowhere" / "a.duckdb"))
    with pytest.raises(errors.OperationalError, match="does not exist"):
        Storage(str(tmp_path / "absent.duckdb"), read_only=True)
    with pytest.raises(errors.OperationalError, match="directory"):
        Storage(str(tmp_path))


def test_a_file_that_another_process_has_open(tmp_path):
    path = str(tmp_path / "a.duckdb")
    with closing(Storage(path)):
        program = f"from mlsql.executor.storage import Storage\nStorage({path!r})"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert "OperationalError: another process has" in done.stderr
        assert "hint: close it there" in done.stderr
        with pytest.raises(errors.OperationalError, match="already has"):
            Storage(path, read_only=True)


def test_read_only(tmp_path):
    path = str(tmp_path / "a.duckdb")
    with closing(Storage(path)) as s:
        s.rows("CREATE TABLE t AS SELECT 1 AS a")
    with closing(Storage(path, read_only=True)) as s:
        assert s.rows("FROM t") == [(1,)]
        with pytest.raises(errors.ProgrammingError, match="read-only"):
            s.rows("DROP TABLE t")


def test_a_closed_storage(storage):
    storage.close()
    storage.close()
    assert storage.is_closed
    storage.interrupt()
    for use in (lambda: storage.run("SELECT 1"), lambda: storage.query("SELECT 1"), storage.begin):
        with pytest.raises(errors.InterfaceError, match="closed"):
            use()


# Transactions


def test_a_transaction_is_all_or_nothing(storage):
    storage.rows("CREATE TABLE t (a INTEGER)")
    with storage.transaction():
        assert storage.in_transaction
        storage.rows("INSERT INTO t VALUES (1)")
    with pytest.raises(KeyboardInterrupt), storage.transaction():
        storage.rows("INSERT INTO t VALUES (2)")
        raise KeyboardInterrupt
    with pytest.raises(errors.ProgrammingError, match="nope"), storage.transaction():
        storage.rows("INSERT INTO t VALUES (3)")
        storage.rows("SELECT * FROM nope")
    assert not storage.in_transaction
    assert storage.rows("FROM t") == [(1,)]


def test_a_transaction_joins_the_callers(storage):
    storage.rows("CREATE TABLE t (a INTEGER)")
    storage.run("BEGIN")
    with storage.transaction():
        storage.rows("INSERT INTO t VALUES (1)")
    assert storage.in_transaction
    storage.run("ROLLBACK")
    assert storage.rows("FROM t") == []


def test_a_failed_transaction_waits_for_rollback(storage):
    storage.begin()
    with pytest.raises(errors.ProgrammingError):
        storage.run("SELECT * FROM nope")
    assert storage.in_transaction
    with pytest.raises(errors.OperationalError, match="aborted"):
        storage.run("SELECT 1")
    storage.rollback()
    assert not storage.in_transaction


# Python functions


def plus(n):
    return lambda x: pc.add(x, n)


def test_functions(storage):
    assert not storage.has_function("f")
    storage.function("f", plus(1), ["BIGINT"], "BIGINT")
    assert storage.has_function("f")
    assert storage.run("SELECT sum(f(range)) FROM range(5)").fetchall() == [(15,)]
    storage.function("f", plus(2), ["BIGINT"], "BIGINT")
    assert storage.run("SELECT f(1)").fetchall() == [(3,)]
    storage.function("f", plus(0.5), ["DOUBLE"], "DOUBLE")
    assert storage.run("SELECT f(1)").fetchall() == [(1.5,)]


def test_a_function_over_structs_and_lists(storage):
    def counted(values):
        return pa.array([{"total": sum(v), "count": len(v)} for v in values.to_pylist()])

    storage.function("counted", counted, ["DOUBLE[]"], "STRUCT(total DOUBLE, count BIGINT)")
    assert storage.run("SELECT counted([1, 2]::FLOAT[2]).total").fetchall() == [(3.0,)]


@pytest.mark.parametrize("read", [lambda r: r.fetchall(), lambda r: r.arrow(), lambda r: r.reader().read_all()])
@pytest.mark.parametrize("cast", ["BIGINT", "UHUGEINT"])
def test_an_error_in_a_function_is_raised_itself(read, cast, storage):
    def fail(x):
        if x[-1].as_py() > 500000:
            raise errors.DataError("a NULL", hint="use COALESCE")
        return x

    storage.function("fail", fail, ["BIGINT"], "BIGINT")
    with pytest.raises(errors.DataError) as found:
        storage.run("SELECT fail(700000)")
    assert found.value.hint == "use COALESCE"
    with pytest.raises(errors.DataError, match="a NULL"):
        read(storage.run(f"SELECT fail(range)::{cast} FROM range(1000000)"))
    assert storage.run("SELECT fail(1)").fetchall() == [(1,)]


def test_a_defect_in_a_function_is_duckdbs_error(storage):
    storage.function("fail", lambda x: 1 / 0, ["BIGINT"], "BIGINT")
    with pytest.raises(errors.ProgrammingError, match="ZeroDivisionError"):
        storage.run("SELECT fail(1)")


def test_a_function_made_in_a_transaction_that_is_rolled_back(storage):
    for is_read_before in (False, True):
        storage.begin()
        if is_read_before:
            storage.rows("SELECT abs(1)")
        storage.function("f", plus(1), ["BIGINT"], "BIGINT")
        assert storage.rows("SELECT f(1)") == [(2,)]
        with pytest.raises(errors.NotSupportedError):
            storage.function("f", plus(1.0), ["DOUBLE"], "DOUBLE")
        storage.rollback()
        assert not storage.has_function("f")
        storage.function("f", plus(2), ["BIGINT"], "BIGINT")
        assert storage.rows("SELECT f(1)") == [(3,)]
        storage.begin()
        storage.function("g", plus(1), ["BIGINT"], "BIGINT")
        storage.commit()
        assert storage.has_function("g")
        storage.function("f", plus(2.0), ["DOUBLE"], "DOUBLE")
        storage.close()
        storage.__init__()


# Stopping


@pytest.mark.parametrize(
    "sql", [SLOW, SLOW_BATCH, SLOW_BATCH.replace("a.range FROM", "a.range::BIT FROM"), "SELECT 1; " + SLOW]
)
def test_ctrl_c_stops_a_statement(sql, storage):
    ctrl_c(0.3)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        storage.run(sql).fetchall()
    assert time.monotonic() - start < 5
    assert storage.rows("SELECT 1") == [(1,)]


def test_ctrl_c_stops_a_slow_batch(storage):
    storage.rows("SET threads = 1")
    rows = storage.run(f"SELECT 1::BIGINT AS range FROM range(40000) UNION ALL ({SLOW_BATCH})")
    ctrl_c(0.3)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        rows.fetchall()
    assert time.monotonic() - start < 5
    assert storage.rows("SELECT 1") == [(1,)]


def test_interrupt_from_another_thread(storage):
    threading.Timer(0.3, storage.interrupt).start()
    with pytest.raises(errors.OperationalError, match="Interrupted"):
        storage.query(SLOW)
    assert storage.rows("SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "storage.close()",
        "del storage",
        "rows = storage.run('SELECT f(range) FROM range(9999999)')",
        "rows = storage.run('SELECT f(range)::UHUGEINT FROM range(9999999)'); rows.fetchone()",
    ],
)
def test_a_program_exits_silently(ending):
    program = f"""
from mlsql.executor.storage import Storage
storage = Storage()
storage.function("f", lambda x: x, ["BIGINT"], "BIGINT")
storage.run("SELECT f(1), 1::HUGEINT").fetchall()
{ending}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
