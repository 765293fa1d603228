"""The select of a model over relations is a query: without parameters PREDICT gives the rows that DuckDB gives.

Random tables with duplicate keys, keys without a partner and NULL keys; the reference is DuckDB running the same text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mlsql

INPUT = "INPUT a (k BIGINT, x DOUBLE, s VARCHAR), b (k BIGINT, y DOUBLE, t VARCHAR), c (j BIGINT, z DOUBLE)"

QUERIES = {
    "projection": "SELECT k, x * 2 + 1 AS v FROM a",
    "star": "SELECT * FROM a",
    "star without": "SELECT * EXCLUDE (s) FROM a",
    "filter": "SELECT k, x FROM a WHERE x > 0 AND s <> 'q'",
    "text": "SELECT x, upper(s) || '!' AS u FROM a",
    "inner join": "SELECT a.k, x - y AS v, t FROM a JOIN b ON a.k = b.k",
    "using": "SELECT k, x + y AS v FROM a JOIN b USING (k)",
    "left join": "SELECT a.k, x, COALESCE(y, -1) AS v, y FROM a LEFT JOIN b ON a.k = b.k",
    "right join": "SELECT b.k, y, COALESCE(x, 0) AS v FROM a RIGHT JOIN b ON a.k = b.k",
    "full join": "SELECT COALESCE(x, 0) - COALESCE(y, 0) AS v FROM a FULL JOIN b ON a.k = b.k",
    "cross join": "SELECT x * z AS v FROM a CROSS JOIN c",
    "comma join": "SELECT x * z AS v FROM a, c WHERE a.k = c.j",
    "three relations": "SELECT x, y, z FROM a JOIN b ON a.k = b.k LEFT JOIN c ON c.j = b.k",
    "self join": "SELECT p.x - q.x AS v FROM a p JOIN a q ON p.k = q.k",
    "join on text": "SELECT x, y FROM a JOIN b ON a.s = b.t AND x < y",
    "join and filter": "SELECT x + y AS v FROM a JOIN b ON a.k = b.k WHERE y > 0 OR s = 'q'",
    "is null": "SELECT CASE WHEN y IS NULL THEN 0 ELSE 1 END AS there, x FROM a LEFT JOIN b USING (k)",
    "case of null": "SELECT CASE WHEN y > 0 THEN 1.0 ELSE 2.0 END AS v FROM a LEFT JOIN b USING (k)",
    "case between nulls": "SELECT CASE WHEN x > 1 THEN x ELSE y END AS v FROM a LEFT JOIN b USING (k)",
    "and of null": "SELECT x > y AND x < 0 AS v, x > y OR x < 0 AS w FROM a FULL JOIN b ON a.k = b.k",
    "not of null": "SELECT NOT (x > y) AS v, y BETWEEN 0 AND x AS w FROM a LEFT JOIN b USING (k)",
    "greatest of null": "SELECT GREATEST(x, y) AS v, LEAST(x, y, 1) AS w FROM a FULL JOIN b ON a.k = b.k",
    "one row": "SELECT k, x - m AS v FROM a JOIN (SELECT AVG(z) AS m FROM c) q ON x > 0",
    "one row first": "SELECT k, m FROM (SELECT AVG(z) AS m FROM c) q JOIN a ON a.x > 0 WHERE s = 'q'",
    "count of null": "SELECT s, COUNT(k) AS n, COUNT(s) AS m, COUNT(x + 1) AS c, COUNT(k) FILTER (WHERE x > 0) AS f "
    "FROM a GROUP BY s",
    "count in join": "SELECT b.t, COUNT(a.k) AS n, COUNT(a.s) AS m, COUNT(a.x) AS c FROM b LEFT JOIN a USING (k) "
    "GROUP BY b.t",
    "group by": "SELECT k, SUM(x) AS s, AVG(x) AS m, MIN(x) AS l, MAX(x) AS h, COUNT(*) AS n FROM a GROUP BY k",
    "group by text": "SELECT s, SUM(x) AS v FROM a GROUP BY s",
    "group by two": "SELECT k, s, COUNT(*) AS n FROM a GROUP BY k, s",
    "group by all": "SELECT k, s, SUM(x) AS v FROM a GROUP BY ALL",
    "group by position": "SELECT k, SUM(x) AS v FROM a GROUP BY 1",
    "group by expression": "SELECT k % 2 AS odd, SUM(x) AS v FROM a GROUP BY k % 2",
    "group by alias": "SELECT k % 2 AS odd, AVG(x) AS v FROM a GROUP BY odd",
    "groups of a join": "SELECT a.k, SUM(x * y) AS v, COUNT(*) AS n FROM a JOIN b ON a.k = b.k GROUP BY a.k",
    "nulls in groups": "SELECT a.s, SUM(y) AS v, AVG(y) AS m, COUNT(y) AS n, MAX(y) AS h "
    "FROM a LEFT JOIN b ON a.k = b.k GROUP BY a.s",
    "filter clause": "SELECT k, SUM(x) FILTER (WHERE x > 0) AS v, COUNT(*) FILTER (WHERE s = 'p') AS n "
    "FROM a GROUP BY k",
    "around aggregates": "SELECT k, SUM(x) / COUNT(*) + MAX(x) AS v FROM a GROUP BY k",
    "fold": "SELECT SUM(x) AS v, AVG(x) AS m, MIN(x) AS l, MAX(x) AS h, COUNT(*) AS n FROM a",
    "distinct": "SELECT DISTINCT k, s FROM a",
    "distinct then join": "SELECT d.k, COUNT(*) AS n FROM (SELECT DISTINCT k FROM a) d JOIN b USING (k) GROUP BY d.k",
    "union all": "SELECT k, x FROM a UNION ALL SELECT k, y FROM b",
    "union of three": "SELECT x AS v FROM a UNION ALL SELECT y FROM b UNION ALL SELECT z FROM c",
    "groups of a union": "SELECT k, SUM(v) AS s FROM (SELECT k, x AS v FROM a UNION ALL SELECT k, y FROM b) GROUP BY k",
    "with": "WITH d AS (SELECT k, x * 2 AS x2 FROM a WHERE x > -1) SELECT d.k, x2 + y AS v FROM d JOIN b USING (k)",
    "with columns": "WITH d (u, v) AS (SELECT k, x FROM a) SELECT u, v FROM d",
    "groups joined back": "WITH m AS (SELECT k, AVG(x) AS m FROM a GROUP BY k) "
    "SELECT a.k, a.x - m.m AS v FROM a JOIN m ON a.k = m.k",
    "groups of groups": "WITH m AS (SELECT k, s, SUM(x) AS v FROM a GROUP BY k, s) "
    "SELECT k, MAX(v) AS v, COUNT(*) AS n FROM m GROUP BY k",
    "two hops": "WITH one AS (SELECT b.k, SUM(a.x) AS h FROM a JOIN b ON a.k = b.k GROUP BY b.k), "
    "two AS (SELECT c.j, AVG(one.h) AS h FROM one JOIN c ON one.k = c.j GROUP BY c.j) SELECT j, h FROM two",
    "in a query": "SELECT k, x FROM a WHERE k IN (SELECT k FROM b WHERE y > 0)",
    "scalar query": "SELECT k, x - (SELECT AVG(x) FROM a) AS v FROM a",
    "fold beside rows": "WITH m AS (SELECT AVG(y) AS m FROM b) SELECT a.x - m.m AS v FROM a, m",
    "left join of groups": "SELECT c.j, COALESCE(m.v, 0) AS v, m.v AS w FROM c "
    "LEFT JOIN (SELECT k, SUM(x) AS v FROM a GROUP BY k) m ON m.k = c.j",
    "left join of a left join": "SELECT c.z, m.y FROM c LEFT JOIN "
    "(SELECT a.k, b.y FROM a LEFT JOIN b ON a.k = b.k) m ON m.k = c.j",
}  # fmt: skip

numbers = st.floats(-4, 4, width=16)
keys = st.one_of(st.none(), st.integers(0, 4))
texts = st.one_of(st.none(), st.sampled_from("pqr"))


def tables(draw: Any) -> dict[str, pa.Table]:
    """Three small tables; every key of theirs may be missing, doubled or NULL."""
    a = draw(st.lists(st.tuples(keys, numbers, texts), min_size=1, max_size=8))
    b = draw(st.lists(st.tuples(keys, numbers, texts), min_size=1, max_size=8))
    c = draw(st.lists(st.tuples(st.integers(0, 4), numbers), min_size=1, max_size=5))
    return {
        "a": pa.table({"k": pa.array([r[0] for r in a], pa.int64()), "x": [r[1] for r in a], "s": column(a, 2)}),
        "b": pa.table({"k": pa.array([r[0] for r in b], pa.int64()), "y": [r[1] for r in b], "t": column(b, 2)}),
        "c": pa.table({"j": [r[0] for r in c], "z": [r[1] for r in c]}),
    }


def column(rows: list[tuple[Any, ...]], i: int) -> pa.Array:
    return pa.array([r[i] for r in rows], pa.string())


@pytest.fixture(scope="module")
def db() -> Iterator[mlsql.dbapi.Connection]:  # type: ignore[name-defined]
    connection = mlsql.connect(progress=False)
    for number, query in enumerate(QUERIES.values()):
        connection.execute(f"CREATE MODEL q{number} {INPUT} AS {query}")
    yield connection
    connection.close()


@pytest.mark.parametrize("name", QUERIES)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_select_without_parameters_is_a_query(db: Any, name: str, data: st.DataObject) -> None:
    given_tables = tables(data.draw)
    for table, rows in given_tables.items():
        db.register(table, rows)
    number, query = list(QUERIES).index(name), QUERIES[name]
    expected = sorted(map(comparable, db.execute(query).fetchall()), key=str)
    try:
        found = db.execute(f"SELECT * FROM PREDICT(q{number}, a, b, c)").fetchall()
    except mlsql.OperationalError as problem:
        assert "no row is left" in str(problem)
        assert not expected or "(" in query  # or a part of the query has no rows
        return
    except mlsql.DataError as problem:
        assert "NULL" in str(problem)  # a NULL that a tensor would be made of
        return
    assert agree(sorted(map(comparable, found), key=str), expected), (found, expected)


def comparable(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(round(float(v), 6) + 0.0 if isinstance(v, (int, float)) and v is not None else v for v in row)


def agree(found: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> bool:
    return len(found) == len(expected) and all(
        len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
        for a, b in zip(found, expected, strict=True)
    )


def same(x: Any, y: Any) -> bool:
    if isinstance(x, float) and isinstance(y, float):
        return math.isclose(x, y, rel_tol=1e-5, abs_tol=1e-5)
    return bool(x == y)
