"""Rewritings of queries that call PREDICT: each rule on its example, random queries, and how often a model runs.

A query gives the same rows with every rule, without each, and without any.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlsql
from mlsql.executor.predict import Predictor
from mlsql.executor.thresholds import crossing
from mlsql.optimizer.rule import QUERY_RULES, Rule
from mlsql.optimizer.stages import optimize
from mlsql.parser import parse
from mlsql.planner.ops import Column, Exp, Multiply, Sigmoid, Tanh, constant
from mlsql.planner.plan import Plan
from mlsql.session import Session
from mlsql.session.query import constants, inline
from mlsql.session.query.plan import ORDER, query_plan
from mlsql.types import FLOAT, RowSet

every_rule = pytest.mark.parametrize("rule", QUERY_RULES.values(), ids=QUERY_RULES)


@pytest.fixture
def session() -> Iterator[Session]:
    made = Session()
    yield made
    made.close()


def plan(session: Session, query: str, without: Sequence[str] = ()) -> tuple[str, list[str]]:
    """The text that DuckDB runs for a query, and the rules that fired."""
    [statement] = parse(query)
    text, steps, _ = query_plan(session, statement, without)
    return text, [s.rule.name for s in steps]


def rows(session: Session, query: str, on: bool = True) -> list[tuple[Any, ...]]:
    """The rows of a query, with all rules or none."""
    session.optimizer = on
    try:
        return session.execute(query).fetchall()
    finally:
        session.optimizer = True


def fired(session: Session, query: str) -> list[str]:
    return plan(session, query)[1]


def rounded(found: list[tuple[Any, ...]]) -> Counter[str]:
    """Rows as a multiset, numbers to five digits; the two zeros are one."""
    return Counter(str([float(f"{v:.5g}") + 0.0 if isinstance(v, float) else v for v in row]) for row in found)


def same(session: Session, query: str, *, ordered: bool = False) -> None:
    """The query gives the same rows with all rules and without any."""
    on, off = rows(session, query), rows(session, query, on=False)
    assert rounded(on) == rounded(off), query
    if ordered:
        assert [rounded([r]) for r in on] == [rounded([r]) for r in off], query


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of rows that models were run on."""
    found: list[int] = []
    plain = Predictor.__call__

    def counted(self: Predictor, *columns: Any) -> Any:
        found.append(len(columns[0]))
        return plain(self, *columns)

    monkeypatch.setattr(Predictor, "__call__", counted)
    return found


# -- rules -------------------------------------------------------------------------------------------------------------


def script(session: Session, rule: Rule) -> str:
    """The query of a rule's example, when all before it has been run."""
    *before, query = rule.example.split(";\n")
    for statement in before:
        session.execute(statement)
    return query


def test_every_rule_has_its_turn() -> None:
    assert {name for name, _ in ORDER} == QUERY_RULES.keys()


@every_rule
def test_a_rule_says_all_of_itself(rule: Rule, session: Session) -> None:
    for part in ("law", "before", "after", "when", "why", "example"):
        assert getattr(rule, part).strip()
    [(stage,)] = [r[1:2] for r in session.execute("SHOW RULES").fetchall() if r[0] == rule.name]
    assert stage == "query"
    assert ("law", rule.law) in session.execute(f"EXPLAIN RULE {rule.name}").fetchall()


@every_rule
def test_a_rule_fires_on_its_example_and_can_be_turned_off(rule: Rule, session: Session) -> None:
    query = script(session, rule)
    assert rule.name in fired(session, query)
    assert rule.name not in plan(session, query, [rule.name])[1]
    session.optimizer = False
    assert not fired(session, query)


@every_rule
def test_a_rule_keeps_the_rows(rule: Rule, session: Session) -> None:
    query = script(session, rule)
    every = rounded(rows(session, query, on=False))
    assert rounded(rows(session, query)) == every
    assert rounded(session.storage.run(plan(session, query, [rule.name])[0]).fetchall()) == every
    others = [name for name in QUERY_RULES if name != rule.name]
    assert rounded(session.storage.run(plan(session, query, others)[0]).fetchall()) == every


# -- how often a model runs --------------------------------------------------------------------------------------------

TABLES = """CREATE MODEL waves INPUT (a FLOAT, b FLOAT) PARAMETERS (w FLOAT[2] INIT [0.5, 2])
AS SELECT SIN(a * w[1] + b * w[2]) AS prediction, prediction > 0 AS up;
CREATE TABLE facts AS SELECT i AS id, i % 12 AS k, (i % 7)::FLOAT AS a, i % 3 AS "odd name" FROM range(5000) AS r(i);
CREATE TABLE dims AS SELECT i AS id, i::FLOAT AS x, 'n' || i AS name FROM range(12) AS r(i)"""


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("SELECT f.id, PREDICT(waves, d.x, 1) FROM facts AS f JOIN dims AS d ON f.k = d.id", 12),
        ("SELECT *, PREDICT(waves, d.x, 1).up FROM facts AS f LEFT JOIN dims AS d ON f.k = d.id", 12),
        ("SELECT d.*, PREDICT(waves, d.x, 1) AS p, p + 1 FROM facts AS f, dims AS d WHERE f.k = d.id", 12),
        ("SELECT name, avg(PREDICT(waves, x, x)) FROM facts AS f, dims AS d WHERE f.k = d.id GROUP BY ALL", 12),
        ("WITH e AS (SELECT * FROM dims) SELECT sum(PREDICT(waves, x, 1)) FROM facts JOIN e ON k = e.id", 12),
        (
            "SELECT f.id, PREDICT(waves, d.x, f.a) FROM facts f JOIN dims d ON k = d.id ORDER BY f.id DESC LIMIT 100",
            100,
        ),
        ("SELECT *, PREDICT(waves, a, a) FROM facts ORDER BY id LIMIT 100", 100),
        ("SELECT id, PREDICT(waves, a, b) FROM (SELECT *, a AS b FROM facts) ORDER BY id LIMIT 60", 60),
        ("SELECT * FROM PREDICT(waves, (SELECT *, a AS b FROM facts)) WHERE k < 3 ORDER BY id LIMIT 5", 5),
        ("SELECT id FROM facts WHERE PREDICT(waves, a, a) > 0 AND id % 10 = 3", 500),
    ],
)
def test_a_model_runs_as_often_as_it_must(session: Session, runs: list[int], query: str, count: int) -> None:
    session.execute(TABLES)
    found = rows(session, query)
    assert sum(runs) == count
    off = rows(session, query, on=False)
    assert rounded(found) == rounded(off)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT f.id, PREDICT(waves, d.x, random()) FROM facts AS f JOIN dims AS d ON f.k = d.id",  # varies
        "SELECT f.id, PREDICT(waves, d.x, f.a) FROM facts AS f JOIN dims AS d ON f.k = d.id",  # reads both sides
        "SELECT d, PREDICT(waves, d.x, d.x) FROM facts AS f JOIN dims AS d ON f.k = d.id",  # the row as a value
        "SELECT d.rowid, PREDICT(waves, d.x, d.x) FROM facts AS f JOIN dims AS d ON f.k = d.id",
        "SELECT COLUMNS('x'), PREDICT(waves, d.x, d.x) FROM facts AS f JOIN dims AS d ON f.k = d.id",
        "SELECT main.d.x, PREDICT(waves, d.x, d.x) FROM facts AS f JOIN dims AS d ON f.k = d.id",
        "SELECT PREDICT(waves, d.x, d.x) FROM facts AS f SEMI JOIN dims AS d ON f.k = d.id",
        "SELECT id, PREDICT(waves, a, a) FROM facts ORDER BY PREDICT(waves, a, a) LIMIT 100",
        "SELECT id, PREDICT(waves, a, a) AS p FROM facts ORDER BY p, id LIMIT 100",
        "SELECT id, PREDICT(waves, a, a) AS p FROM facts ORDER BY 2, id LIMIT 100",
        "SELECT -id AS id, PREDICT(waves, a, a) FROM facts ORDER BY id LIMIT 100",
        "SELECT -id AS id, * FROM PREDICT(waves, (SELECT id, a, a AS b FROM facts)) ORDER BY id LIMIT 100",
        "SELECT f.id, (SELECT max(PREDICT(waves, d.x, 1)) FROM dims AS d) FROM facts AS f JOIN dims AS d ON f.k = d.id",
        "SELECT (SELECT max(PREDICT(waves, a, k)) FROM (SELECT a, 1 AS k FROM facts)) FROM facts WHERE k = 3",
        "SELECT id, random(), PREDICT(waves, a, a) FROM facts ORDER BY id LIMIT 100",
        "SELECT DISTINCT k, PREDICT(waves, a, a) FROM facts ORDER BY k LIMIT 100",
        "SELECT PREDICT(waves, a, a) FROM facts UNION ALL SELECT PREDICT(waves, x, x) FROM dims ORDER BY 1 LIMIT 9",
        "SELECT id, k, PREDICT(waves, a, a) FROM facts WHERE random() > 2 AND PREDICT(waves, a, a) > 0 LIMIT 3",
    ],
)
def test_what_is_not_understood_stays(session: Session, query: str) -> None:
    session.execute(TABLES)
    try:
        assert not fired(session, query)
    except mlsql.Error:  # the query itself is wrong
        with pytest.raises(mlsql.Error):
            rows(session, query, on=False)


def test_rows_that_a_model_refuses_raise_an_error_only_where_they_are_in_the_result(session: Session) -> None:
    session.execute(TABLES)
    session.execute("INSERT INTO dims VALUES (100, NULL, 'nowhere')")
    same(session, "SELECT f.id, PREDICT(waves, d.x, 1) FROM facts AS f JOIN dims AS d ON f.k = d.id")
    query = "SELECT d.id, PREDICT(waves, d.x, 1) FROM facts AS f RIGHT JOIN dims AS d ON f.k = d.id"
    assert fired(session, query) == ["predict_below_join"]
    with pytest.raises(mlsql.DataError, match='column "a" has a NULL'):
        rows(session, query)
    session.null_prediction = True
    same(session, query)


def test_a_failing_argument_below_a_join_fails_only_where_it_is_read(session: Session) -> None:
    session.execute(TABLES)
    session.execute("CREATE TABLE texts AS SELECT id, id::VARCHAR AS t FROM dims UNION ALL SELECT 100, 'none'")
    query = "SELECT f.id, PREDICT(waves, t::FLOAT, 1) FROM facts AS f JOIN texts ON f.k = texts.id"
    assert fired(session, query) == ["predict_below_join"]
    same(session, query)
    with pytest.raises(mlsql.Error, match="Could not convert"):
        rows(session, query.replace("JOIN texts ON", "RIGHT JOIN texts ON"))


def test_a_view_and_a_table_that_is_filled(session: Session) -> None:
    session.execute(TABLES)
    session.execute("CREATE VIEW v AS SELECT * FROM dims")
    same(session, "SELECT f.id, PREDICT(waves, v.x, 1) FROM facts AS f JOIN v ON f.k = v.id")
    fill = (
        "CREATE OR REPLACE TABLE filled AS SELECT f.id, PREDICT(waves, v.x, 1) AS p FROM facts AS f JOIN v ON k = v.id"
    )
    assert fired(session, fill) == ["predict_below_join"]
    session.execute(fill)
    on = session.execute("FROM filled").fetchall()
    session.optimizer = False
    session.execute(fill)
    assert rounded(on) == rounded(session.execute("FROM filled").fetchall())


# -- random queries ----------------------------------------------------------------------------------------------------

names = st.sampled_from(["f.a", 'f."odd name"', "d.x", "d.x + 1", "coalesce(d.x, 0)", "f.k", "1", "f.a * d.x"])
outputs = st.sampled_from(["", ".prediction", ".up", ".total", ".chance", ".half"])
joins = st.sampled_from(["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
conditions = st.sampled_from(
    [
        "PREDICT(m, f.a, d.x).chance > 0.6",
        "PREDICT(m, f.a, f.k).chance BETWEEN 0.2 AND 0.7",
        "f.k = 3",
        "d.x = 1",
        "f.k > 2",
        "d.id IS NOT NULL",
        "d.x < 4 OR f.id > 3",
        "PREDICT(m, f.a, d.x) > 2",
        "f.id % 2 = 0",
    ]
)


@st.composite
def calls(draw: st.DrawFn) -> str:
    return f"PREDICT(m, {draw(names)}, {draw(names)}){draw(outputs)}"


@st.composite
def queries(draw: st.DrawFn) -> str:
    """A query over two tables: what stands in it is drawn, and the order of its rows is total where it is cut."""
    columns = draw(st.lists(st.one_of(calls(), st.sampled_from(["f.id", "d.name", "f.*", "*"])), max_size=2))
    shown = ", ".join([*columns, f'{draw(calls())} AS "last one"'])
    text = f"SELECT {shown} FROM facts AS f {draw(joins)} dims AS d ON f.k = d.id"
    where = draw(st.lists(conditions, max_size=2))
    text += f" WHERE {' AND '.join(f'({c})' if 'OR' in c else c for c in where)}" if where else ""
    end = draw(st.sampled_from(["", "LIMIT", "PREDICT", "GROUP"]))
    if end == "LIMIT":
        text += f" ORDER BY f.id, d.id LIMIT {draw(st.integers(0, 5))}"
    elif end == "PREDICT":
        text += f" ORDER BY f.k DESC, {draw(calls())}"
    elif end == "GROUP" and "*" not in "".join(columns):
        text = f'WITH q AS ({text}) SELECT count(*), sum("last one"::INT), min("last one") FROM q'
    return text


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Any], list[Any], bool]:
    """Rows of both tables, with NULLs or without; most facts find a dimension."""
    nulls = draw(st.booleans())
    numbers = st.one_of(st.none(), st.integers(-3, 3)) if nulls else st.integers(-3, 3)
    facts = draw(st.lists(st.tuples(st.integers(0, 4), numbers), min_size=4, max_size=25))
    ids = draw(st.lists(st.integers(0, 4), max_size=4, unique=True))
    return facts, [(i, draw(numbers)) for i in ids], nulls and draw(st.booleans())


@given(queries(), tables())
@settings(max_examples=80, deadline=None)
def test_random_queries_give_the_same_rows(query: str, data: tuple[list[Any], list[Any], bool]) -> None:
    """The rules that only many rows pay for are told that they always pay."""
    with pytest.MonkeyPatch.context() as patch:
        for family in (constants, inline):
            patch.setattr(family, "CHUNK_ROWS", -1)
        check_random(query, *data)


def check_random(query: str, facts: list[Any], dims: list[Any], null_prediction: bool) -> None:
    """One query over some rows. Where a NULL is an error without rules, they may do without the row, and need not."""
    session = Session()
    session.execute(
        "CREATE MODEL m INPUT (a FLOAT, b FLOAT) PARAMETERS (w FLOAT[2] INIT [2, 0.5], o FLOAT[2] INIT [1, 0]) "
        "AS SELECT a * w[1] + b * w[2] AS total, total > 1 AS up, total * a AS prediction, "
        "SIGMOID(total) AS chance, DOT([a, b], o) AS half"
    )
    session.execute('CREATE TABLE facts (id INT, k INT, a FLOAT, "odd name" DOUBLE)')
    session.execute("CREATE TABLE dims (id INT, x FLOAT, name TEXT)")
    for i, (k, a) in enumerate(facts):
        session.execute("INSERT INTO facts VALUES ($1, $2, $3, $4)", [i, k, a, a])
    for k, x in dims:
        session.execute("INSERT INTO dims VALUES ($1, $2, $3)", [k, x, f"n{x}"])
    session.null_prediction = null_prediction
    try:
        rows(session, query, on=False)
    except mlsql.DataError:
        return
    same(session, query)
    session.close()


# -- models as SQL -----------------------------------------------------------------------------------------------------

weights = st.floats(0.125, 3, width=32).flatmap(lambda w: st.sampled_from([w, -w]))  # a zero is another rule's
FORMS = {
    "linear": "DOT([a, b, c], w) + w[1]",
    "logistic": "SIGMOID(DOT([a, b, c], w))",
    "network": "DOT(GREATEST([a * w[1], b * w[2], c - w[3]] @ u, 0), w)",
    "tanh": "TANH(a * w[1] + b) * ABS(c) - EXP(b * w[2])",
    "scaler": "(a - w[1]) / 2.5 + LEAST(b, w[2]) + GREATEST(c, a)",
    "vector": "DOT(v, w) * 2 + a",
    "vectors": "DOT(GREATEST(v @ u, 0), w)",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(w=st.lists(weights, min_size=3, max_size=3), u=st.lists(weights, min_size=9, max_size=9))
@settings(max_examples=12, deadline=None)
def test_a_model_as_sql_agrees_with_its_function(form: str, w: list[float], u: list[float]) -> None:
    session = Session()
    nested = [u[i : i + 3] for i in (0, 3, 6)]
    uses_v = "v" in form.replace("DOT(v", "v") and ("(v" in form)
    declared = "a FLOAT, b FLOAT, c FLOAT" + (", v FLOAT[3]" if uses_v else "")
    session.execute(
        f"CREATE MODEL m INPUT ({declared}) PARAMETERS (w FLOAT[3] INIT {w}, u FLOAT[3][3] INIT {nested}) "
        f"AS SELECT {form} AS y"
    )
    session.execute(
        "CREATE TABLE t AS SELECT i AS id, i % 7 - 3.5 AS a, (i % 11)::FLOAT / 3 AS b, i % 5 AS c, "
        "[i % 3, i % 4 - 1.5, 0.5]::FLOAT[3] AS v FROM range(3000) AS r(i)"
    )
    query = "SELECT id, PREDICT(m) AS y FROM t ORDER BY id"
    assert "inline_as_sql" in fired(session, query)
    found, wanted = (np.array([y for _, y in rows(session, query, on=on)], float) for on in (True, False))
    scale = np.maximum(np.abs(wanted), 1 + np.abs(np.array([*w, *u])).max() ** 3)
    assert np.abs(found - wanted).max() <= 2e-6 * scale.max()
    session.close()


def test_rows_with_nulls_go_to_the_function(session: Session) -> None:
    session.execute(
        "CREATE MODEL m INPUT (a FLOAT, v FLOAT[2]) PARAMETERS (w FLOAT[2] INIT [2, 3]) AS SELECT DOT(v, w) + a AS y"
    )
    session.execute("CREATE TABLE t AS SELECT i AS id, i::FLOAT AS a, [i, 1]::FLOAT[] AS v FROM range(3000) AS r(i)")
    query = "SELECT id, PREDICT(m) AS y FROM t"
    assert fired(session, query) == ["inline_as_sql"]
    same(session, query)
    for value, message in (
        ("NULL, [1, 2]", "NULL"),
        ("1, NULL", "NULL"),
        ("1, [1, NULL]", "NULL"),
        ("1, [1, 2, 3]", "list of 3"),
    ):
        session.execute("DELETE FROM t WHERE id < 0")
        session.execute(f"INSERT INTO t VALUES (-1, {value})")
        for on in (True, False):
            with pytest.raises(mlsql.DataError, match=message):
                rows(session, query, on=on)
    session.execute("DELETE FROM t WHERE id < 0")
    session.execute("INSERT INTO t VALUES (-1, NULL, [1, 2])")
    session.null_prediction = True
    same(session, query)


@pytest.mark.parametrize("value", ["'nan'", "'inf'", "'-inf'", "3e38", "-0.0"])
def test_a_model_as_sql_follows_the_kernels_where_numbers_end(session: Session, value: str) -> None:
    session.execute(
        "CREATE MODEL m INPUT (a FLOAT) PARAMETERS (w FLOAT INIT 3) "
        "AS SELECT GREATEST(a * w, 0) - LEAST(a, 1) AS y, SIGMOID(a) AS s"
    )
    session.execute(f"CREATE TABLE t AS SELECT {value}::FLOAT AS a FROM range(3000)")
    for query in ("SELECT any_value(PREDICT(m).s) FROM t", "SELECT any_value(PREDICT(m)) FROM t"):
        assert fired(session, query) == ["inline_as_sql"]
        [(on,)], [(off,)] = rows(session, query), rows(session, query, on=False)
        assert on == off or (on != on and off != off), value


# -- rising functions --------------------------------------------------------------------------------------------------

RISING = {"sigmoid": lambda z: Sigmoid(z), "tanh": lambda z: Tanh(z), "exp": lambda z: Multiply(constant(2.0), Exp(z))}


@pytest.mark.parametrize("function", RISING.values(), ids=RISING)
@given(limit=st.floats(-1.5, 2.5, width=32))
@settings(max_examples=25, deadline=None)
def test_a_threshold_is_exact(function: Any, limit: float) -> None:
    """Of the threshold's neighbours exactly those from it on reach the limit, by the kernel itself."""
    rows_ = RowSet("points", 4096)
    column = Column("z", rows_, FLOAT)
    found = optimize(Plan({"y": function(column)})).plan
    at = crossing(found, column, lambda y: y >= limit)
    if at is None or at != at or at == float("-inf"):
        return
    from mlsql.executor.run import evaluate

    z = np.float32(at)
    points = [z]
    for _ in range(200):
        points = [np.nextafter(points[0], np.float32("-inf")), *points, np.nextafter(points[-1], np.float32("inf"))]
    array = np.array(points, np.float32)
    column_ = Column("z", RowSet("points", len(array)), FLOAT)
    y = evaluate(optimize(Plan({"y": function(column_)})).plan, {column_: array}, {column_.rows: len(array)})["y"]
    assert np.array_equal(y >= np.float32(limit), array >= z)


@pytest.mark.parametrize(
    "condition",
    [
        *(
            f"PREDICT(m, a) {op} {c}"
            for op, c in itertools.product((">", ">=", "<", "<="), ("0.5", "0.9", "0", "1", "2", "-1", "0.88079708"))
        ),
        "PREDICT(m, a) BETWEEN 0.2 AND 0.8",
        "0.3 < PREDICT(m, a)",
    ],
)
def test_a_comparison_inside_of_a_sigmoid_passes_the_same_rows(session: Session, condition: str) -> None:
    session.execute("CREATE MODEL m INPUT (a FLOAT) PARAMETERS (w FLOAT INIT 1) AS SELECT SIGMOID(a * w) AS p")
    session.execute(
        "CREATE TABLE t AS SELECT (i - 1500) / 20 AS a FROM range(3000) AS r(i) "
        "UNION ALL SELECT unnest(['inf', '-inf', 'nan', '2'])::FLOAT"
    )
    same(session, f"SELECT a FROM t WHERE {condition}")


def test_the_boundary_itself_stays_where_it_was(session: Session) -> None:
    """Neighbouring numbers around the threshold, without the SQL form, so that both sides use one kernel."""
    session.execute("CREATE MODEL m INPUT (a FLOAT) PARAMETERS (w FLOAT INIT 1) AS SELECT SIGMOID(a) AS p")
    values, z = [], np.float32(2.19)
    for _ in range(3000):
        values.append(float(z))
        z = np.nextafter(z + np.float32(5e-6), np.float32("inf"))
    session.execute("CREATE TABLE t AS SELECT unnest($1::FLOAT[]) AS a", [values])
    query = "SELECT count(*) FROM t WHERE PREDICT(m, a) > 0.9"
    text, names = plan(session, query, ["inline_as_sql"])
    assert names == ["monotone_comparison"]
    assert session.storage.run(text).fetchall() == rows(session, query, on=False)


# -- constants and zeros -----------------------------------------------------------------------------------------------

PEOPLE = """CREATE MODEL pay INPUT (country VARCHAR, age FLOAT) TARGET (y FLOAT)
AS SELECT LINEAR(FEATURES(country, age), 1) AS prediction MINIMIZE AVG((prediction - y) ** 2);
CREATE TABLE people AS SELECT CASE i % 3 WHEN 0 THEN 'SG' WHEN 1 THEN 'DE' ELSE 'sg' END AS country,
  (i % 50)::FLOAT AS age, i % 3 + i % 50 AS y, i AS id FROM range(30000) AS r(i);
TRAIN pay ON people WITH GD (epochs = 20)"""


def test_an_equality_makes_a_look_up_constant(session: Session) -> None:
    session.execute(PEOPLE)
    query = "SELECT id, PREDICT(pay, country, age) AS p FROM people WHERE country = 'SG'"
    text, names = plan(session, query)
    assert "fixed_inputs" in names
    assert "country AS" not in text.partition("WHERE")[0]
    same(session, query)
    same(session, "SELECT id, PREDICT(pay) AS p FROM people WHERE country = 'sg' AND PREDICT(pay) > 1")
    same(session, "SELECT id, PREDICT(pay, 'DE', age) AS p FROM people")
    same(session, "SELECT id, PREDICT(pay, 'nowhere', age) AS p FROM people")


def test_text_that_is_compared_loosely_is_not_constant(session: Session) -> None:
    session.execute(PEOPLE)
    session.execute(
        "CREATE TABLE loose AS SELECT * FROM people; ALTER TABLE loose ALTER country TYPE VARCHAR COLLATE NOCASE"
    )
    query = "SELECT id, PREDICT(pay, country, age) AS p FROM loose WHERE country = 'sg'"
    assert len(rows(session, query)) == 20000
    same(session, query)


def test_a_column_with_zero_weights_is_not_read(session: Session, runs: list[int]) -> None:
    session.execute(
        "CREATE MODEL m INPUT (a FLOAT, b FLOAT, c FLOAT) PARAMETERS (w FLOAT[3] INIT [2, 0, 1]) "
        "AS SELECT SIN(DOT([a, b, c], w)) AS y"
    )
    session.execute("CREATE TABLE t AS SELECT i::FLOAT AS a, NULL::FLOAT AS b, 1 AS c FROM range(3000) AS r(i)")
    query = "SELECT sum(PREDICT(m, a, b, c)) FROM t"
    assert fired(session, query) == ["zero_weights"]
    [(value,)] = rows(session, query)  # a NULL that is not read raises nothing
    assert value == pytest.approx(float(np.sin(2 * np.arange(3000, dtype=np.float32) + 1).sum()), abs=1e-2)
    with pytest.raises(mlsql.DataError):
        rows(session, query, on=False)
    session.null_prediction = True  # now a NULL in any input is to be seen in the result
    assert not fired(session, query)
    assert rows(session, query) == [(None,)]
