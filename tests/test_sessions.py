"""A model answers with what it has learned, whatever was dropped, replaced, renamed or rolled back before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import mlsql

CREATE = "CREATE MODEL m PARAMETERS (w FLOAT INIT {}) INPUT (x FLOAT) AS SELECT w * x AS p"
ASK = "SELECT PREDICT(m, 1)"


@pytest.fixture
def con() -> Iterator[mlsql.dbapi.Connection]:
    with mlsql.connect(progress=False) as connection:
        yield connection


def test_after_drop_and_create(con: mlsql.dbapi.Connection) -> None:
    con.execute("CREATE TABLE t AS SELECT 1::FLOAT AS x")
    answers = []
    for rate in (0.1, 0.2):
        con.execute(CREATE.format(1))
        con.execute(f"TRAIN m ON t MINIMIZE AVG(p) WITH GD (learning_rate = {rate}, steps = 1)")
        answers.append(con.execute(ASK).fetchone()[0])
        con.execute("DROP MODEL m")
    assert answers == pytest.approx([0.9, 0.8])


def test_after_rename(con: mlsql.dbapi.Connection) -> None:
    con.execute(CREATE.format(2))
    con.execute(ASK)
    con.execute("ALTER MODEL m RENAME TO n")
    con.execute(CREATE.format(3))
    assert con.execute("SELECT PREDICT(m, 1), PREDICT(n, 1)").fetchone() == (3, 2)


def test_after_rollback_of_replace(con: mlsql.dbapi.Connection) -> None:
    con.execute(CREATE.format(2))
    assert con.execute(ASK).fetchone() == (2,)
    con.begin()
    con.execute(CREATE.format(3).replace("CREATE", "CREATE OR REPLACE"))
    assert con.execute(ASK).fetchone() == (3,)
    con.rollback()
    assert con.execute(ASK).fetchone() == (2,)


def test_other_input_types_inside_a_transaction(con: mlsql.dbapi.Connection) -> None:
    con.execute(CREATE.format(2))
    con.execute(ASK)
    con.begin()
    con.execute("CREATE OR REPLACE MODEL m INPUT (x DOUBLE, y DOUBLE) AS SELECT x + y AS p")
    assert con.execute("SELECT PREDICT(m, 1, 2)").fetchone() == (3,)
    con.commit()


def test_two_connections_to_one_file(tmp_path: Path) -> None:
    path = str(tmp_path / "models.duckdb")
    with mlsql.connect(path, progress=False) as one, mlsql.connect(path, progress=False) as two:
        one.execute(CREATE.format(2))
        assert one.execute(ASK).fetchone() == two.execute(ASK).fetchone() == (2,)
        two.execute(CREATE.format(5).replace("CREATE", "CREATE OR REPLACE"))
        assert one.execute(ASK).fetchone() == two.execute(ASK).fetchone() == (5,)


def test_the_model_s_column_wins_over_the_table_s(con: mlsql.dbapi.Connection) -> None:
    con.execute(CREATE.format(2))
    con.execute("CREATE TABLE scored AS SELECT 3::FLOAT AS x, -1 AS p")
    cursor = con.execute("SELECT * FROM PREDICT(m, scored)")
    assert [d[0] for d in cursor.description] == ["x", "p"]
    assert cursor.fetchall() == [(3, 6)]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("TRAIN m ON t MINIMIZE SUM(p) WITH SGD (epochs = 1)", None),
        ("TRAIN m ON t MINIMIZE AVG(p) UNTIL validation_loss < 1", "there is no validation_loss without VALIDATE"),
        ("TRAIN m ON t MINIMIZE AVG(p) UNTIL loss > [1, 2]", "UNTIL needs a condition"),
        ("TRAIN m ON t MINIMIZE AVG(p) WITH SGD (seed = 18446744073709551616)", "seed must be below"),
        ("CREATE MODEL k PARAMETERS (w FLOAT INIT NORMAL(-1)) AS SELECT w", "NORMAL takes a standard deviation"),
        (
            "CREATE MODEL k PARAMETERS (w FLOAT INIT UNIFORM(1, 0)) AS SELECT w",
            "UNIFORM takes a lower and an upper bound",
        ),
        ("CREATE MODEL k INPUT (x FLOAT) TARGET (c STRUCT(a INT)) AS SELECT x", "a class label is a single value"),
        ("CREATE MODEL k INPUT (x FLOAT[2]) AS SELECT EINSUM('é,é->', x, x) AS p", "EINSUM takes a specification"),
        (f"CREATE MODEL k INPUT (x FLOAT) AS SELECT {'+'.join(['x'] * 3000)} AS p", "nested too deeply"),
        ("SELECT '\ud800'", "not valid Unicode"),
    ],
)
def test_odd_statements(con: mlsql.dbapi.Connection, statement: str, message: str | None) -> None:
    con.execute("CREATE TABLE t AS SELECT i::FLOAT AS x FROM range(60) AS r(i)")
    con.execute(CREATE.format(1))
    if message is None:
        con.execute(statement)
    else:
        with pytest.raises(mlsql.ProgrammingError, match=message):
            con.execute(statement)


def test_a_damaged_definition(con: mlsql.dbapi.Connection) -> None:
    con.execute(CREATE.format(1))
    con.execute("UPDATE mlsql.models SET definition = 'garbage'")
    with pytest.raises(mlsql.IntegrityError, match="definition of model"):
        con.execute(ASK)
    con.execute("DROP MODEL m")
