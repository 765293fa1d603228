"""The parser: a statement, and what is read from it; or the error, with the place drawn."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from sqlglot import exp

from mlsql.errors import Error, NotSupportedError, ProgrammingError
from mlsql.parser import is_complete, node_place, parse, split
from mlsql.parser.statements import (
    Calibrate,
    CreateModel,
    DescribeModel,
    DropModel,
    Evaluate,
    Explain,
    ExplainGradient,
    SelectSql,
    SetOption,
    ShowLayers,
    ShowModels,
    ShowRules,
    Train,
)
from mlsql.parser.tokens import dialect
from mlsql.types import BIGINT, BOOLEAN, DOUBLE, FLOAT, INTEGER


def one(text: str, parameters: Any = None) -> Any:
    """The only statement of a text."""
    (statement,) = parse(text, parameters)
    return statement


def error(text: str, parameters: Any = None) -> str:
    """The error that a text ends in, as a person sees it."""
    with pytest.raises(Error) as caught:
        parse(text, parameters)
    return str(caught.value)


def drawn(text: str) -> str:
    """An expected error, written with the indent of the test."""
    return textwrap.dedent(text).strip("\n").replace("|   ", "    ")


def tree(expression: str) -> exp.Expression:
    """The tree of an expression of the model language."""
    model = one(f"CREATE MODEL m AS SELECT {expression} AS e")
    return model.select.tree.expressions[0].this


# CREATE MODEL


def test_a_model_without_input():
    text = (
        "CREATE MODEL lecture PARAMETERS (a FLOAT INIT 2, b FLOAT INIT 1) AS SELECT (a + b) * (b + 1) AS e MINIMIZE e"
    )
    model = one(text)
    assert isinstance(model, CreateModel)
    assert (str(model.model), model.or_replace, model.if_not_exists) == ("lecture", False, False)
    assert [(p.name, p.element, p.shape, p.initializer.value, p.frozen) for p in model.parameters] == [
        ("a", FLOAT, (), 2, False),
        ("b", FLOAT, (), 1, False),
    ]
    assert (model.inputs, model.input_from, model.target) == ((), None, ())
    assert model.select.place.source == "SELECT (a + b) * (b + 1) AS e"
    assert model.minimize.place.source == "e"
    assert model.text == text


def test_a_model_with_columns():
    model = one("""
        CREATE OR REPLACE MODEL IF NOT EXISTS s.digits -- numbers as people write them
          INPUT (pixels FLOAT[64], "a b" DOUBLE) TARGET (label INTEGER)
        AS SELECT LINEAR(pixels, 10) AS logits
        MINIMIZE AVG(CROSS_ENTROPY(logits, label)) + 1e-4 * L2(logits.weight);
    """)
    assert (model.model.schema, model.model.name, model.or_replace, model.if_not_exists) == ("s", "digits", True, True)
    assert [(c.name, c.element, c.shape, c.type_text) for c in model.inputs] == [
        ("pixels", FLOAT, (64,), "FLOAT[64]"),
        ("a b", DOUBLE, (), "DOUBLE"),
    ]
    assert model.inputs[1].place.source == '"a b" DOUBLE'
    assert [(c.name, c.element) for c in model.target] == [("label", INTEGER)]
    assert model.minimize.place.source == "AVG(CROSS_ENTROPY(logits, label)) + 1e-4 * L2(logits.weight)"
    assert model.text.startswith("CREATE OR REPLACE MODEL") and model.text.endswith("L2(logits.weight)")


def test_input_from_a_query():
    model = one("CREATE MODEL p INPUT FROM (SELECT * FROM a JOIN b USING (k)) TARGET (kind VARCHAR) AS SELECT 1 AS x")
    assert model.input_from.text == "(SELECT * FROM a JOIN b USING (k))"
    assert model.input_from_place.source == "FROM (SELECT * FROM a JOIN b USING (k))"
    assert [(c.name, c.element, c.type_text) for c in model.target] == [("kind", None, "VARCHAR")]
    assert one("CREATE MODEL p INPUT FROM s.t AS SELECT 1").input_from.text == "s.t"
    assert one("CREATE MODEL p INPUT FROM 'a.csv' AS SELECT 1").input_from.text == "'a.csv'"


@pytest.mark.parametrize(
    ("type_text", "element", "shape"),
    [
        ("FLOAT[10][784]", FLOAT, (784, 10)),
        ("REAL", FLOAT, ()),
        ("double precision [3]", DOUBLE, (3,)),
        ("DECIMAL(10, 2)", DOUBLE, ()),
        ("smallint", INTEGER, ()),
        ("UINTEGER", BIGINT, ()),
        ("BOOL[2]", BOOLEAN, (2,)),
        ("VARCHAR(20)", None, ()),
        ("ENUM('a', 'b')", None, ()),
        ("TIMESTAMP WITH TIME ZONE", None, ()),
        ("STRUCT(a INTEGER, b VARCHAR)", None, ()),
    ],
)
def test_column_types(type_text, element, shape):
    (column,) = one(f"CREATE MODEL m TARGET (x {type_text}) AS SELECT 1").target
    assert (column.element, column.shape, column.type_text) == (element, shape, type_text)


@pytest.mark.parametrize(
    ("text", "kind", "arguments", "value"),
    [
        ("XAVIER", "XAVIER", (), None),
        ("normal(0.1)", "NORMAL", (0.1,), None),
        ("UNIFORM(-1, +.5)", "UNIFORM", (-1.0, 0.5), None),
        ("-2.5", "LITERAL", (), -2.5),
        ("1e-3", "LITERAL", (), 0.001),
        ("(-1)", "LITERAL", (), -1),
        ("[[1, -2], [3, 4]]", "LITERAL", (), [[1, -2], [3, 4]]),
    ],
)
def test_initial_values(text, kind, arguments, value):
    (parameter,) = one(f"CREATE MODEL m PARAMETERS (w FLOAT[2][2] INIT {text} FROZEN) AS SELECT w").parameters
    found = parameter.initializer
    assert (found.kind, found.arguments, found.value, found.place.source) == (kind, arguments, value, text)
    assert parameter.frozen


def test_minimize_begins_a_clause_only_where_one_can_begin():
    model = one("CREATE MODEL m AS SELECT minimize, x.minimize + 1 AS minimize FROM minimize MINIMIZE AVG(minimize)")
    assert model.select.place.source == "SELECT minimize, x.minimize + 1 AS minimize FROM minimize"
    assert model.minimize.place.source == "AVG(minimize)"
    assert one("CREATE MODEL m AS SELECT minimize FROM t").minimize is None
    assert one("CREATE MODEL m AS SELECT a * minimize FROM t").minimize is None
    assert one("CREATE MODEL m AS SELECT * FROM (SELECT 1 AS a) MINIMIZE (c)").minimize.place.source == "(c)"
    assert one("CREATE MODEL m AS SELECT * MINIMIZE -c").minimize.place.source == "-c"


def test_a_select_may_begin_with_with():
    model = one("CREATE MODEL m AS WITH h AS (SELECT 1 AS a) SELECT a FROM h, materialized(x) MINIMIZE SUM(a)")
    assert isinstance(model.select.tree, exp.Select)
    assert [cte.alias for cte in model.select.tree.ctes] == ["h"]


# Expressions of the model language


def test_every_call_is_anonymous():
    calls = (
        "RELU(x), concat(a, b), LOG(x), EXP(x), COUNT(*), ARGMAX(x), PREDICT(m, a, b, c), NORM(x), SLICE(x, 1), IF(x)"
    )
    found = one(f"CREATE MODEL m AS SELECT {calls}").select.tree.expressions
    assert {type(call) for call in found} == {exp.Anonymous}
    assert [call.this for call in found][:3] == ["RELU", "concat", "LOG"]
    assert isinstance(tree("COUNT(*)").expressions[0], exp.Star)


def test_features_take_a_star():
    (star,) = tree("FEATURES(* EXCLUDE (id, year))").expressions
    assert [c.name for c in star.args["except_"]] == ["id", "year"]


def test_unknown_is_an_argument_by_name():
    call = tree("EMBED(a, 3, UNKNOWN MEAN)")
    assert isinstance(call.expressions[-1], exp.Kwarg)
    assert (call.expressions[-1].this.name, call.expressions[-1].expression.name) == ("UNKNOWN", "MEAN")


@pytest.mark.parametrize(
    "text", ["f(a, unknown)", "f(unknown, b)", "f(a, unknown IS NULL)", "f(a, unknown + b)", "unknown"]
)
def test_a_column_may_still_be_called_unknown(text):
    assert not list(tree(text).find_all(exp.Kwarg))


def test_no_trace_of_the_marks_is_left():
    text = "SELECT f(x -> g(x)) FROM t TABLESAMPLE reservoir (20 PERCENT), h(1) AS k(a, b) JOIN u USING (a)"
    select = one(f"CREATE MODEL m AS {text}").select.tree
    assert "mlsql_call_" not in select.sql(dialect()).lower()
    assert {call.this for call in select.find_all(exp.Anonymous)} == {"f", "g", "h"}


def test_syntax_of_its_own_stays_typed():
    assert isinstance(tree("CAST(x AS FLOAT)"), exp.Cast)
    assert isinstance(tree("x::DOUBLE"), exp.Cast)
    assert isinstance(tree("CASE WHEN a > 1 THEN b ELSE c END"), exp.Case)
    assert isinstance(tree("x IN (1, 2)"), exp.In)
    assert isinstance(tree("SUM(x) OVER (PARTITION BY y)"), exp.Window)


def test_the_matrix_product():
    product = tree("a + b @ c @ d * 2")
    assert product.sql() == "a + b <-> c <-> d * 2"
    assert isinstance(product, exp.Add) and isinstance(product.expression, exp.Mul)
    assert isinstance(product.expression.this, exp.Distance)


def test_powers_are_as_in_duckdb():
    assert duckdb.sql("SELECT -2 ** 2, 2 ** 3 ** 2").fetchall() == [(4.0, 64.0)]
    assert isinstance(tree("-x ** 2").this, exp.Neg)
    assert isinstance(tree("a ** b ** c").this, exp.Pow)


def test_indexes_stay_as_written():
    assert tree("a[1]").expressions[0].this == "1"
    assert tree("a[i]").expressions[0].name == "i"
    assert isinstance(tree("a[-1]").expressions[0], exp.Neg)
    part = tree("a[1:3]").expressions[0]
    assert isinstance(part, exp.Slice) and (part.this.this, part.expression.this) == ("1", "3")
    assert [e.this for e in tree("a[1, 2]").expressions] == ["1", "2"]
    assert tree("a[1]").sql(dialect()) == "a[1]"


def test_every_name_knows_its_place():
    text = "/* $1 */ SELECT 1;\n CREATE MODEL m AS SELECT -- a\n RELU(xs, 3) AS e MINIMIZE SUM((e - ys) * 2)"
    model = parse(text)[1]
    for node in [*model.select.tree.walk(), *model.minimize.tree.walk()]:
        if "start" in node.meta:
            assert text[node.meta["start"] : node.meta["end"] + 1] in (node.name, node.this)
    assert node_place(model.minimize.tree, text).source == "SUM((e - ys) * 2)"
    assert node_place(model.minimize.tree.expressions[0].this, text).source == "e - ys"
    assert node_place(model.minimize.tree, text).line == 3


# TRAIN


def test_train_with_all_clauses():
    train = one("""
        TRAIN s.digits ON (SELECT * FROM t WHERE a IN (1, 2)) VALIDATE ON u WEIGHT BY w * 2 MINIMIZE AVG((p - y) ** 2)
        WITH adam (Learning_Rate = 1e-3, betas = [0.9, .999], on_nan = 'stop', shuffle = false, batch_size = ALL,
              seed=-1)
        UNTIL loss < 0.1 AND epoch > 3 WITHIN 30 SECONDS FROM SCRATCH
    """)
    assert isinstance(train, Train)
    assert (str(train.model), train.on.text, train.validate.text) == (
        "s.digits",
        "(SELECT * FROM t WHERE a IN (1, 2))",
        "u",
    )
    assert train.weight.place.source == "w * 2"
    assert train.minimize.place.source == "AVG((p - y) ** 2)"
    assert (train.solver, train.solver_place.source) == ("ADAM", "adam")
    assert {o.name: o.value for o in train.options} == {
        "learning_rate": 0.001,
        "betas": (0.9, 0.999),
        "on_nan": "stop",
        "shuffle": False,
        "batch_size": "ALL",
        "seed": -1,
    }
    assert [o.value_place.source for o in train.options][:3] == ["1e-3", "[0.9, .999]", "'stop'"]
    assert train.until.place.source == "loss < 0.1 AND epoch > 3"
    assert (train.within_seconds, train.from_scratch) == (30.0, True)


def test_train_says_little():
    train = one("TRAIN digits")
    assert (train.on, train.validate, train.solver, train.options, train.from_scratch) == (None, None, None, (), False)


def test_clauses_of_train_come_in_any_order():
    train = one("TRAIN m FROM SCRATCH UNTIL weight < 3 VALIDATE 20 PERCENT WITH GD ON read_csv('a.csv')")
    assert train.from_scratch and train.validate == 20.0 and train.on.text == "read_csv('a.csv')"
    assert train.until.place.source == "weight < 3" and train.solver == "GD"


def test_columns_may_have_the_names_of_clauses():
    train = one("TRAIN train ON validate UNTIL until < within AND validate.minimize > 1 WEIGHT BY weight + minimize")
    assert train.on.text == "validate"
    assert train.until.place.source == "until < within AND validate.minimize > 1"
    assert train.weight.place.source == "weight + minimize"


@pytest.mark.parametrize("query", ["t", "s.t", 'c."s x".t', "'a.parquet'", "range(10)", "(FROM t)", "((SELECT 1))"])
def test_what_can_stand_after_on(query):
    assert one(f"TRAIN m ON {query} WITH SGD").on.text == query


# Several relations


def test_inputs_and_targets_of_several_relations():
    model = one("""
        CREATE MODEL m INPUT nodes (id BIGINT, x FLOAT[3]), edges (src BIGINT, dst BIGINT) TARGET nodes (label INTEGER)
        AS WITH h AS (SELECT id, x * 2 AS h FROM nodes) SELECT e.dst, SUM(h.h) AS s
        FROM edges e JOIN h ON h.id = e.src GROUP BY e.dst
    """)
    assert isinstance(model, CreateModel)
    assert model.relations == ("nodes", "edges")
    assert [(d.relation, d.name) for d in model.inputs] == [
        ("nodes", "id"), ("nodes", "x"), ("edges", "src"), ("edges", "dst")
    ]  # fmt: skip
    assert [(d.relation, d.name) for d in model.target] == [("nodes", "label")]
    assert one("CREATE MODEL m INPUT (x FLOAT) TARGET (y FLOAT) AS SELECT x").relations == ()


def test_train_on_several_relations():
    train = one("""
        TRAIN m ON a, (SELECT * FROM b WHERE x > 1) AS edges, s.c AS nodes
        VALIDATE ON d, e AS nodes WITH SGD (batch_size = 4) SAMPLE 10, 5 FROM SCRATCH
    """)
    given = [(q.text, q.name) for q in (train.on, *train.others)]
    assert given == [("a", "a"), ("(SELECT * FROM b WHERE x > 1)", "edges"), ("s.c", "nodes")]
    assert [(q.text, q.name) for q in (train.validate, *train.validate_others)] == [("d", "d"), ("e", "nodes")]
    assert (train.sample, train.sample_place.source, train.from_scratch) == ((10, 5), "10, 5", True)
    assert one("TRAIN m ON (SELECT 1)").on.name is None
    assert one("TRAIN m ON t SAMPLE 3").sample == (3,)


def test_a_column_may_be_called_sample():
    train = one("TRAIN sample ON sample MINIMIZE AVG(sample - 1) WEIGHT BY sample")
    assert (train.on.text, train.weight.place.source, train.sample) == ("sample", "sample", ())


def test_predict_and_evaluate_over_several_relations():
    evaluate = one("EVALUATE m ON a AS nodes, b WITH (accuracy)")
    assert [(q.text, q.name) for q in (evaluate.on, *evaluate.others)] == [("a", "nodes"), ("b", "b")]
    (call,) = one("SELECT * FROM PREDICT(m VERSION 2, t AS nodes, (SELECT 1) AS edges) WHERE x > 1").predicts
    assert (call.is_table, call.version, [a.name for a in call.arguments]) == (True, 2, ["nodes", "edges"])


# The other statements


def test_evaluate():
    evaluate = one("EVALUATE m VERSION 3 ON 'f.parquet' WITH (accuracy, f1)")
    assert isinstance(evaluate, Evaluate)
    assert (evaluate.version, evaluate.on.text, [str(m) for m in evaluate.metrics]) == (
        3,
        "'f.parquet'",
        ["accuracy", "f1"],
    )
    assert one("EVALUATE m ON t").metrics == ()


def test_drop_and_show():
    assert one("DROP MODEL IF EXISTS s.m;") == DropModel(one("DROP MODEL IF EXISTS s.m;").model, True)
    assert parse("SHOW MODELS; show layers; SHOW RULES") == [ShowModels(), ShowLayers(), ShowRules()]
    assert parse("calibrate;") == [Calibrate()]


def test_describe():
    described = one("DESCRIBE digits")
    assert isinstance(described, DescribeModel)
    assert (described.model.name, described.explicit, described.sql.text) == ("digits", False, "DESCRIBE digits")
    assert one("DESC MODEL s.digits").explicit
    assert one("DESCRIBE model").model.name == "model"
    assert isinstance(one("DESCRIBE SELECT 1"), SelectSql)
    assert isinstance(one("DESCRIBE 'a.csv'"), SelectSql)


def test_set():
    option = one("SET mlsql_null_prediction = true")
    assert isinstance(option, SetOption) and (option.name, option.value) == ("mlsql_null_prediction", True)
    assert one("SET SESSION mlsql_seed TO ?", [3]).value == 3
    assert isinstance(one("SET threads = 1"), SelectSql)


def test_explain_a_statement_of_ours():
    explain = one("EXPLAIN (STEPS, FORMAT json, without (a, b)) TRAIN m ON t")
    assert isinstance(explain, Explain) and isinstance(explain.statement, Train)
    assert {o.name: o.value for o in explain.options} == {"STEPS": True, "FORMAT": "json", "WITHOUT": ("a", "b")}
    assert not explain.analyze
    assert one("EXPLAIN ANALYZE TRAIN m").analyze and one("EXPLAIN (ANALYZE) TRAIN m").analyze
    assert isinstance(one("EXPLAIN GRADIENT m"), ExplainGradient)
    assert isinstance(one("EXPLAIN CREATE MODEL m AS SELECT 1").statement, CreateModel)


def test_explain_a_query():
    assert one("EXPLAIN (LOGICAL) SELECT ?", [1]).statement.values == [1]
    explain = one("EXPLAIN SELECT PREDICT(m, a) FROM t")
    assert explain.statement.predicts[0].model.name == "m"


@pytest.mark.parametrize(
    "text",
    [
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE SELECT 1",
        "EXPLAIN (ANALYZE, FORMAT json) SELECT 1",
        "EXPLAIN (SELECT 1)",
        "explain describe x",
    ],
)
def test_explain_of_duckdb_is_duckdbs(text):
    assert one(text) == SelectSql(text, place=one(text).place)


# PREDICT


def test_predict_in_an_expression():
    text = "SELECT id, PREDICT(digits VERSION 3, pixels => a[1, 2], f(x, y)).probability AS p FROM t"
    (call,) = one(text).predicts
    assert (call.model.name, call.version, call.output, call.is_table) == ("digits", 3, "probability", False)
    assert [(a.name, a.place.source) for a in call.arguments] == [("pixels", "a[1, 2]"), (None, "f(x, y)")]
    assert call.place.source == "PREDICT(digits VERSION 3, pixels => a[1, 2], f(x, y)).probability"
    assert one(text).text == text


def test_predict_as_a_table():
    text = "SELECT * FROM PREDICT(s.m, (SELECT PREDICT(n) AS p, {'a': 1, 'b': 2} FROM t, u)) x WHERE PREDICT(o) > 1"
    calls = one(text).predicts
    assert [(str(c.model), c.is_table) for c in calls] == [("s.m", True), ("n", False), ("o", False)]
    assert calls[0].arguments[0].place.source == "(SELECT PREDICT(n) AS p, {'a': 1, 'b': 2} FROM t, u)"


@pytest.mark.parametrize(
    ("query", "is_table"),
    [
        ("FROM t, PREDICT(m, t)", True),
        ("SELECT * FROM t JOIN PREDICT(m, t) ON true", True),
        ("SELECT * FROM a JOIN b ON a.x = b.x, PREDICT(m, t)", True),
        ("SELECT * FROM (PREDICT(m, t) JOIN u USING (k))", True),
        ("SELECT a, PREDICT(m, t)", False),
        ("SELECT * FROM t WHERE x IS DISTINCT FROM PREDICT(m, t)", False),
        ("SELECT * FROM t ORDER BY a, PREDICT(m, t)", False),
        ("SELECT EXTRACT(year FROM PREDICT(m, t))", False),
        ("SELECT * FROM t JOIN u ON PREDICT(m, t) > 1", False),
        ("SELECT * FROM (SELECT a, PREDICT(m, t) FROM t)", False),
        ("SELECT * FROM (VALUES (1, PREDICT(m, t)))", False),
        ("INSERT INTO x SELECT PREDICT(m, t) FROM t", False),
        ("CREATE TABLE x AS FROM PREDICT(m, t)", True),
        ("COPY (FROM PREDICT(m, t)) TO 'a.csv'", True),
    ],
)
def test_where_predict_is_a_table(query, is_table):
    assert [c.is_table for c in one(query).predicts] == [is_table]


# Soft words: what is DuckDB's stays DuckDB's


@pytest.mark.parametrize(
    "text",
    [
        "SELECT model, train, predict, evaluate, minimize FROM train JOIN model USING (predict)",
        "CREATE TABLE predict (a INTEGER)",
        "CREATE TABLE model (train INTEGER, evaluate INTEGER)",
        "INSERT INTO predict (a) VALUES (1)",
        "CREATE INDEX i ON predict (a)",
        "WITH predict (a) AS (SELECT 1) FROM predict",
        "WITH x AS (SELECT 1), predict(a) AS (SELECT 2) FROM predict",
        "SELECT * FROM t AS predict(a)",
        "SELECT s.predict(1)",
        "SELECT 'PREDICT(m, x)' -- PREDICT(m)",
        "SELECT $$ TRAIN m; $$",
        "SHOW TABLES",
        "SHOW model",
        "DROP TABLE model",
        "DROP TABLE IF EXISTS models",
        "CREATE OR REPLACE TEMP TABLE model AS SELECT 1",
        "ALTER TABLE model RENAME TO train",
        "SELECT 1; SELECT 2;",
        "SELECT 'a;b'; /* ; */ SELECT 1",
        "SELECT 'not closed",
        "SELEC 1",
        "FROM t SELECT a @ b",
        "",
        " -- nothing\n",
    ],
)
def test_verbatim(text):
    assert one(text, [1]) == SelectSql(text, place=one(text).place)
    assert one(text, [1]).values == [1]


WORDS = """model train a 1 'x;' "q""t" , + ( ) [ { $$ -- /* */ ? ; predict minimize FROM SELECT @ é $1 . '"""


@given(st.lists(st.sampled_from([*WORDS.split(), "\n"])).map(" ".join))
@example("/* /* */ */ 1")
def test_a_query_passes_verbatim(rest):
    text = "SELECT " + rest.replace(";", "; SELECT ")
    assume(not re.search(r"predict[^a-z]*\(", text))
    (statement,) = parse(text, {"a": 1})
    assert (statement.text, statement.predicts, statement.values) == (text, (), {"a": 1})


@given(st.text(alphabet="TRAINCE MODLUSW()[],;'\"$?*/-+.@=<>:19abé\n"))
@example("CREATE MODEL m AS SELECT a b c")
def test_only_errors_of_ours_come_out(text):
    for start in ("", "TRAIN m ", "CREATE MODEL m AS SELECT ", "SELECT PREDICT(", "EXPLAIN (", "EVALUATE m ON "):
        try:
            parse(start + text)
        except Error as found:
            assert "Token" not in str(found) and "\x1b" not in str(found)


# Placeholders


def test_placeholders_in_our_words_become_literals():
    train = one(
        "TRAIN m ON (SELECT * FROM t WHERE a = ?) WITH ADAM (learning_rate = ?, betas = ?, seed = ?) UNTIL loss < ?",
        ["x;", -0.5, [0.9, 0.99], np.int64(3), 1e-3],
    )
    assert (train.on.text, train.on.values) == ("(SELECT * FROM t WHERE a = $p1)", {"p1": "x;"})
    assert [o.value for o in train.options] == [-0.5, (0.9, 0.99), 3]
    assert train.until.tree.sql() == "loss < 0.001"


def test_placeholders_in_a_model():
    model = one(
        "CREATE MODEL m PARAMETERS (w FLOAT[2] INIT $w) INPUT FROM (FROM t WHERE d > $d) "
        "AS SELECT a -$x AS e MINIMIZE e",
        {"w": np.array([1.0, -2.0]), "d": "it's", "X": -1},
    )
    assert model.parameters[0].initializer.value == [1.0, -2.0]
    assert (model.input_from.text, model.input_from.values) == ("(FROM t WHERE d > $d)", {"d": "it's"})
    assert model.select.tree.expressions[0].this.sql() == "a - (-1)"
    assert model.text == (
        "CREATE MODEL m PARAMETERS (w FLOAT[2] INIT [1.0, -2.0]) INPUT FROM (FROM t WHERE d > 'it''s') "
        "AS SELECT a -(-1) AS e MINIMIZE e"
    )
    assert model.input_from_place.text == model.text
    assert model.input_from_place.source == "FROM (FROM t WHERE d > 'it''s')"
    assert one(model.text).text == model.text


@given(
    st.one_of(
        st.integers(-(10**18), 10**18),
        st.floats(allow_nan=False, allow_infinity=False),
        st.lists(st.floats(-1e30, 1e30), min_size=1),
    )
)
def test_a_literal_reads_back(value):
    model = one("CREATE MODEL m PARAMETERS (w FLOAT INIT ?) AS SELECT w", [value])
    assert model.parameters[0].initializer.value == value
    assert one(model.text).parameters[0].initializer.value == value


def test_placeholders_beside_predict():
    query = one("SELECT ?, PREDICT(m, x => ?), $2", ["a", "b"])
    assert (query.text, query.values) == ("SELECT $p1, PREDICT(m, x => $p2), $p2", {"p1": "a", "p2": "b"})
    assert query.predicts[0].arguments[0].place.source == "$p2"
    assert one("SELECT $a, PREDICT(m)", {"a": 1}).text == "SELECT $a, PREDICT(m)"


def test_parameters_belong_to_the_last_statement():
    first, second = parse("SELECT 1; TRAIN m WITH SGD (seed = ?)", [7])
    assert (first.values, second.options[0].value) == (None, 7)
    assert "no value was given" in error("TRAIN m WITH SGD (seed = ?); SELECT ?", [7])


def test_too_few_and_too_many_parameters():
    assert error("TRAIN m WITH SGD (seed = ?)") == drawn("""
        line 1, column 26: no value was given for placeholder 1
        |   TRAIN m WITH SGD (seed = ?)
        |                            ^
        hint: given: no parameters at all
    """)
    assert "too many parameters: 2 given, 1 used" in error("TRAIN m WITH SGD (seed = ?)", [1, 2])
    assert "no placeholder for b" in error("SELECT PREDICT(m), $a", {"a": 1, "b": 2})
    assert "cannot be mixed" in error("TRAIN m WITH SGD (seed = ?, a = $b)", {"b": 1})
    assert "finite" in error("TRAIN m UNTIL loss < ?", [float("nan")])
    assert "of type object" in error("TRAIN m WITH SGD (seed = ?)", [object()])


# Scripts


def test_a_script_is_cut_at_semicolons():
    text = """
-- a script
CREATE TABLE t AS SELECT 'a;b' AS "x;y"; ;
TRAIN m ON t; /* ; */
SELECT $$ ; $$;
SELECT PREDICT(m, x) FROM t
"""
    first, train, third, last = parse(text)
    assert first.text == """CREATE TABLE t AS SELECT 'a;b' AS "x;y\""""
    assert first.place.line == 3 and train.place.line == 4 and train.model.place.line == 4
    assert third.text == "SELECT $$ ; $$"
    assert last.text == "\n\n\n\n\nSELECT PREDICT(m, x) FROM t"  # blank lines keep the line number
    assert last.predicts[0].place.line == last.place.line == 6


def test_an_error_leaves_the_statements_before_it():
    statements = split("SELECT 1; TRAIN a; TRAIN; SELECT 2")
    assert [type(next(statements)) for _ in range(2)] == [SelectSql, Train]
    with pytest.raises(ProgrammingError, match="a model's name"):
        next(statements)


@pytest.mark.parametrize("text", ["SELECT 1;", "SELECT ';';", "TRAIN m; -- done", "SELECT $$;$$ ;\n"])
def test_complete(text):
    assert is_complete(text)


@pytest.mark.parametrize("text", ["", "SELECT 1", "SELECT ';", "-- ;", "SELECT 1 /* ;", "SELECT $$ ;", 'SELECT "a;'])
def test_incomplete(text):
    assert not is_complete(text)


# Errors


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "TRIAN m ON t",
            """
            line 1, column 1: there is no statement "TRIAN"
            |   TRIAN m ON t
            |   ^^^^^
            hint: did you mean "TRAIN"?
            """,
        ),
        (
            "SELECT 1;\nCREATE OR REPLACE MODL x AS SELECT 1",
            """
            line 2, column 19: there is no statement "CREATE OR REPLACE MODL"
            |   CREATE OR REPLACE MODL x AS SELECT 1
            |                     ^^^^
            hint: did you mean "MODEL"?
            """,
        ),
        (
            "TRAIN m ON t VALIDATE 9 PERCENT FROM SCRATCH PER (g) WHIT ADAM",
            """
            line 1, column 54: expected WEIGHT BY, MINIMIZE, WITH, UNTIL, WITHIN, MEMORY or SAMPLE, found "WHIT"
            |   TRAIN m ON t VALIDATE 9 PERCENT FROM SCRATCH PER (g) WHIT ADAM
            |                                                        ^^^^
            hint: did you mean "WITH"?
            """,
        ),
        (
            "TRAIN m MINIMIZE AVG(x) WHIT ADAM",
            """
            line 1, column 25: unexpected "WHIT"
            |   TRAIN m MINIMIZE AVG(x) WHIT ADAM
            |                           ^^^^
            hint: did you mean "WITH"?
            """,
        ),
        (
            "CREATE MODEL m PARAMETER (a FLOAT) AS SELECT a",
            """
            line 1, column 16: expected PARAMETERS, INPUT, TARGET or AS, found "PARAMETER"
            |   CREATE MODEL m PARAMETER (a FLOAT) AS SELECT a
            |                  ^^^^^^^^^
            hint: did you mean "PARAMETERS"?
            """,
        ),
        (
            "CREATE MODEL m AS\nSELECT a AS e\nMINIMISE AVG(e)",
            """
            line 3, column 1: unexpected "MINIMISE"
            |   MINIMISE AVG(e)
            |   ^^^^^^^^
            hint: did you mean "MINIMIZE"?
            """,
        ),
        (
            "CREATE MODEL m INPUT (x FLOAT[]) AS SELECT x",
            """
            line 1, column 30: a length is needed here
            |   CREATE MODEL m INPUT (x FLOAT[]) AS SELECT x
            |                                ^^
            hint: write FLOAT[64]: one tensor of 64 numbers a row
            """,
        ),
        (
            "SELECT PREDICT(3, x)",
            """
            line 1, column 16: expected a model's name, found "3"
            |   SELECT PREDICT(3, x)
            |                  ^
            """,
        ),
        (
            "CREATE MODEL m AS SELECT RELU(a",
            """
            line 1, column 30: this "(" is never closed
            |   CREATE MODEL m AS SELECT RELU(a
            |                                ^
            """,
        ),
    ],
)
def test_an_error_is_drawn(text, expected):
    assert error(text) == drawn(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("EVALUTE m ON t", 'did you mean "EVALUATE"?'),
        ("EXPLAIN TRIAN m ON t", 'did you mean "TRAIN"?'),
        ("DROP MODLE m", 'did you mean "MODEL"?'),
        ("CREATE MODEL m INPUTS (a FLOAT) AS SELECT a", 'did you mean "INPUT"?'),
        ("CREATE MODEL m TARGETS (a FLOAT) AS SELECT a", 'did you mean "TARGET"?'),
        ("CREATE MODEL m INPUT FORM t AS SELECT a", 'did you mean "FROM"?'),
        ("CREATE MODEL m INPUT (a FLOAT) INPUT (b FLOAT) AS SELECT a", "INPUT stands twice"),
        ("CREATE MODEL m PARAMETERS (w FLAOT) AS SELECT w", 'did you mean "FLOAT"?'),
        ("CREATE MODEL m PARAMETERS (w VARCHAR) AS SELECT w", "a parameter is a number, not VARCHAR"),
        ("CREATE MODEL m PARAMETERS (w FLOAT INIT XAVER) AS SELECT w", 'did you mean "XAVIER"?'),
        ("CREATE MODEL m PARAMETERS (w FLOAT INIT NORMAL(1, 2)) AS SELECT w", "NORMAL takes 1 number, not 2"),
        ("CREATE MODEL m PARAMETERS () AS SELECT w", "nothing stands between these brackets"),
        ("CREATE MODEL m PARAMETERS (a FLOAT,) AS SELECT w", "something is missing beside this comma"),
        ("CREATE MODEL m", "expected PARAMETERS, INPUT, TARGET or AS, the statement ends"),
        ("CREATE MODEL m AS", "expected SELECT or WITH"),
        ("CREATE MODEL m AS UPDATE t", 'expected SELECT or WITH, found "UPDATE"'),
        ("CREATE MODEL m AS SELECT a b c", 'unexpected "c"'),
        ("CREATE MODEL m AS SELECT a +", 'something is missing beside "+"'),
        ("CREATE MODEL m AS SELECT f(a,,b)", "something is missing before this comma"),
        ("CREATE MODEL m AS SELECT a AS", "a name is missing after AS"),
        ("CREATE MODEL m AS SELECT a)", 'this ")" closes nothing'),
        ("CREATE MODEL m AS SELECT @b", '"@" needs an expression on its left'),
        ("CREATE MODEL m AS SELECT a MINIMIZE b, c", "expected a single expression"),
        ("TRAIN m ON t ON u", "ON stands twice"),
        ("TRAIN m WITH SGD WITH ADAM", "WITH stands twice"),
        ("TRAIN m ON SELECT 1", "write (SELECT ...)"),
        ("TRAIN m ON (t)", "expected a query between these brackets"),
        ("TRAIN m ON", "expected a table, a file in quotes"),
        ("TRAIN m WITH SGD (learning_rate 0.1)", 'expected "=", found "0.1"'),
        ("TRAIN m WITH SGD (learning_rate =)", "expected a value"),
        ("TRAIN m VALIDATE 120 PERCENT", "between 0 and 100"),
        ("TRAIN m VALIDATE 20", "expected PERCENT"),
        ("TRAIN m WITHIN 3 YEARS", "expected SECONDS"),
        ("TRAIN m UNTIL", "expected an expression"),
        ("TRAIN 3", "expected a model's name"),
        ("EVALUATE m", "expected VERSION or ON, the statement ends"),
        ("EVALUATE m ON t WITH accuracy", 'expected "("'),
        ("DROP MODEL", "expected a model's name or IF EXISTS"),
        ("SHOW MODELS x", 'unexpected "x"'),
        ("SET mlsql_seed 3", 'expected TO or "="'),
        ("EXPLAIN GRADIENT", "expected a model's name"),
        ("SELECT PREDICT()", "nothing stands between these brackets"),
        ("SELECT PREDICT(a + b)", 'found "+"'),
        ("SELECT PREDICT(m, x, VERSION 3)", "write PREDICT(model VERSION 3, ...)"),
        ("SELECT PREDICT(m, x).3", "expected the name of an output"),
        ("SELECT PREDICT(m, x => )", "expected a value"),
        ("SELECT PREDICT(m", 'this "(" is never closed'),
        ("FROM PREDICT(m)", "PREDICT in FROM takes a model and a table or (query)"),
    ],
)
def test_what_is_wrong_is_said(text, message):
    with pytest.raises(ProgrammingError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert caught.value.place is not None


@pytest.mark.parametrize(
    "text",
    [
        "RESUME TRAIN m",
        "CREATE LAYER f(x) AS x + 1",
        "DROP LAYER f",
        "TRAIN ON t",
        "CREATE MODEL m AS SELECT a <-> b",
    ],
)
def test_what_this_version_does_not_have(text):
    with pytest.raises(NotSupportedError) as caught:
        parse(text)
    assert caught.value.place is not None


def test_alter_show_training_and_explain_rule() -> None:
    rename, rollback, runs, log, rule = parse(
        "ALTER MODEL a RENAME TO s.b; ALTER MODEL a ROLLBACK TO VERSION 2; SHOW TRAINING; "
        "SHOW TRAINING LOG FOR m; EXPLAIN RULE take_last"
    )
    assert (str(rename.model), str(rename.new)) == ("a", "s.b")
    assert (str(rollback.model), rollback.version) == ("a", 2)
    assert (runs.what, runs.model) == ("RUNS", None)
    assert (log.what, str(log.model)) == ("LOG", "m")
    assert str(rule.rule) == "take_last"
