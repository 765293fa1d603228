"""One view of a plan in every format: each is valid for what reads it; no operator, rule or statement is left out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from support import bind
from test_operators import all_samples

import mlsql
from mlsql.executor.codegen import generate
from mlsql.executor.device import COMPILED
from mlsql.executor.run import leaves
from mlsql.executor.scalars import numbers_of
from mlsql.explain.build import Described
from mlsql.explain.formats import as_json, dot, mermaid
from mlsql.explain.terms import KINDS, place
from mlsql.explain.trace import trace
from mlsql.explain.tree import DEEPEST, WIDTH, tree
from mlsql.explain.view import Actual, Operator, PlanView, Root
from mlsql.figures import duration, number, rate, share
from mlsql.optimizer.rule import ALWAYS_ON, RULES
from mlsql.optimizer.stages import optimize
from mlsql.planner.node import OPERATORS, Node, walk
from mlsql.planner.ops import Add, Column, Exp
from mlsql.planner.plan import Plan
from mlsql.types import FLOAT, RowSet

NETWORK = """CREATE MODEL net INPUT (v FLOAT[4]) TARGET (k INTEGER) AS
SELECT RELU(LINEAR(v / 2, 8)) AS hidden, LINEAR(hidden, 3) AS scores, ARGMAX(scores) AS best
MINIMIZE AVG(CROSS_ENTROPY(scores, k))"""

STATEMENTS = (
    "TRAIN net ON t",
    "TRAIN net ON t WITH SGD (momentum = 0.9, epochs = 2) VALIDATE 20 PERCENT",
    "TRAIN net ON t PER (shop) WITH GD (epochs = 2)",
    'CREATE MODEL m INPUT (x FLOAT) AS SELECT LN(x) < 3 AS "a ""quoted"" one"',
    "SELECT PREDICT(net, v) FROM t",
    "SELECT * FROM PREDICT(net, t)",
    "EVALUATE net ON t",
)


@pytest.fixture(scope="module")
def connection() -> Iterator[mlsql.Connection]:
    connection = mlsql.connect(progress=False)
    connection.execute(
        "CREATE TABLE t AS SELECT [i / 50, 1, i % 7, 2]::FLOAT[4] AS v, (i % 3)::INTEGER AS k, i % 2 AS shop "
        "FROM range(90) AS r(i)"
    )
    connection.execute(NETWORK)
    connection.execute("TRAIN net ON t WITH SGD (epochs = 1)")
    yield connection
    connection.close()


def one(connection: mlsql.Connection, statement: str) -> str:
    """The one value that a statement gives."""
    [(value,)] = connection.execute(statement).fetchall()
    return value


def lines(connection: mlsql.Connection, statement: str) -> list[str]:
    return [line for (line,) in connection.execute(statement).fetchall()]


# -- formats -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statement", STATEMENTS)
def test_json_is_valid_and_whole(connection, statement):
    for plan in json.loads(one(connection, f"EXPLAIN (FORMAT json) {statement}"))["plans"]:
        operators = {o["id"]: o for o in plan["operators"]}
        assert {r["operator"] for r in plan["roots"]} <= operators.keys()
        assert {i for o in operators.values() for i in o["inputs"]} <= operators.keys()
        assert all(o["database"] and o["network"] and o["doc"] and o["type"] for o in operators.values())
        assert all(s["law"] and s["why"] for s in plan["steps"])


@pytest.mark.parametrize("side", ["STEPS", "ALTERNATIVES"])
def test_json_of_a_side_has_the_rows_of_that_side(connection, side):
    rows = connection.execute(f"EXPLAIN ({side}) TRAIN net ON t").fetchall()
    found = json.loads(one(connection, f"EXPLAIN ({side}, FORMAT json) TRAIN net ON t"))
    assert list(found) == [side.lower()]
    assert len(found[side.lower()]) == len(rows)


TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|->|[\w.]+|[{}\[\];=,]')


@pytest.mark.parametrize("statement", STATEMENTS)
def test_dot_follows_its_grammar(connection, statement):
    """Every statement is an attribute, a node, an edge or a subgraph, and edges join nodes that are declared."""
    text = one(connection, f"EXPLAIN (FORMAT dot) {statement}")
    tokens = TOKEN.findall(text)
    assert tokens[:3] == ["digraph", "plan", "{"]
    assert tokens.count("{") == tokens.count("}")
    string = r'"(?:[^"\\]|\\.)*"'
    shapes = (
        rf"\w+=(?:\w+|{string});",
        r"node \[.*\];",
        rf"\w+ \[label={string}(?:, shape=oval)?\];",
        r"\w+ -> \w+;",
        r"subgraph cluster_\d+ \{",
        r"digraph plan \{",
        r"\}",
    )
    for line in text.split("\n"):
        assert any(re.fullmatch(s, line.strip()) for s in shapes), line
    declared = set(re.findall(r"^\s*(\w+) \[label", text, re.MULTILINE))
    assert {n for pair in re.findall(r"(\w+) -> (\w+);", text) for n in pair} <= declared


@pytest.mark.parametrize("statement", STATEMENTS)
def test_mermaid_follows_its_grammar(connection, statement):
    text = one(connection, f"EXPLAIN (FORMAT mermaid) {statement}")
    first, *rest = text.split("\n")
    assert first == "flowchart BT"
    label = r'"[^"]+"'
    shapes = (rf"subgraph p\d+\[{label}\]", rf"\w+\[{label}\]", rf"\w+\(\[{label}\]\)", r"\w+ --> \w+", "end")
    for line in rest:
        assert any(re.fullmatch(s, line.strip()) for s in shapes), line
    assert sum(line.strip().startswith("subgraph") for line in rest) == sum(line.strip() == "end" for line in rest)


def test_special_letters_are_escaped():
    odd = PlanView('a "b" <c> #d \\e', "", (Root("r", 0),), (operator(0, formula='x < "y" & \\z'),), None)
    assert r"label=\"" not in dot([odd], "")
    assert r'"a \"b\" <c> #d \\e"' in dot([odd], "")
    assert "a #quot;b#quot; #lt;c#gt; #35;d" in mermaid([odd], "")


# -- the tree ----------------------------------------------------------------------------------------------------------


def operator(i: int, inputs: tuple[int, ...] = (), **facts) -> Operator:
    """An operator of which little is known."""
    known = {"name": f"n{i}", "formula": f"f({', '.join(f'n{j}' for j in inputs)})", "operator": "f", "kind": "map"}
    known |= {"database": "d", "network": "n", "doc": "D.", "has_rows": False, "rows": None, "type": "FLOAT"}
    known |= {"when": "", "runs": 1, "flops": 1, "bytes": 4, "seconds": 1e-6, "place": "NumPy"}
    return Operator(id=i, inputs=inputs, **(known | facts))


def drawn(*operators: Operator, roots: tuple[int, ...]) -> list[str]:
    """The tree alone, without columns."""
    view = PlanView("t", "", tuple(Root(f"r{i}", i) for i in roots), operators, None)
    width = len("└ r9 ← n9 = f(n9, n9, n9)") + 2 * len(operators)
    return [line[:width].split("  FLOAT")[0].rstrip() for line in tree(view)[2:]]


def test_what_several_read_stands_once_under_the_first():
    found = drawn(operator(0), operator(1, (0,)), operator(2, (0,)), operator(3, (1, 2)), roots=(3,))
    assert found == [
        "└ r3 ← n3 = f(n1, n2)",
        "  ├ n1 = f(n0)",
        "  │ └ n0 = f()",
        "  └ n2 = f(n0)",
    ]


def test_two_roots_of_one_operator():
    assert drawn(operator(0), roots=(0, 0)) == ["├ r0 ← n0 = f()", "└ r0 ← n0"]


def test_a_root_that_another_reads_stands_as_a_root():
    found = drawn(operator(0), operator(1, (0,)), roots=(1, 0))
    assert found == ["├ r1 ← n1 = f(n0)", "└ r0 ← n0 = f()"]


def test_a_deep_plan_goes_straight_down():
    chain = [operator(i, (i - 1,) if i else ()) for i in range(3 * DEEPEST)]
    text = tree(PlanView("t", "", (Root("r", len(chain) - 1),), tuple(chain), 1.0))
    leads = [re.match(r"[│├└ ]*", line)[0] for line in text[2 : 2 + len(chain)]]
    assert max(map(len, leads)) <= 2 * DEEPEST + 2
    assert len({line.split(" = ")[0].strip("│├└ ") for line in text[2 : 2 + len(chain)]}) == len(chain)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_tree_shows_every_operator_once_and_fits_the_screen(connection, statement):
    text = lines(connection, f"EXPLAIN {statement}")
    plans = json.loads(one(connection, f"EXPLAIN (FORMAT json) {statement}"))["plans"]
    trees = [line for line in text if line.startswith(("├", "└", "│", "  "))]
    assert all(len(line) <= WIDTH for line in text)
    for plan in plans:
        for o in plan["operators"]:
            if o["formula"] not in (o["name"], f"{o['kind']} {o['name']}"):
                assert sum(f" {o['name']} = {o['formula']}"[:30] in line for line in trees) == 1, o["name"]


def test_operators_take_no_longer_than_the_whole(connection):
    """The rest of the whole are numbers that stand in the formulas of others."""
    [plan] = json.loads(one(connection, "EXPLAIN (FORMAT json) TRAIN net ON t"))["plans"]
    assert 0.5 * plan["seconds"] < sum(o["total_seconds"] for o in plan["operators"]) <= plan["seconds"] * (1 + 1e-9)


def test_a_misestimate_is_marked_if_it_matters():
    def ran(seconds: float) -> Operator:
        return operator(0, actual=Actual(runs=10, rows=1, seconds=seconds, flops=10, bytes=40))

    assert not ran(1.9e-5).is_misestimated(2e-5)
    assert ran(2.1e-5).is_misestimated(2e-5)
    assert ran(0.4e-5).is_misestimated(2e-5)
    assert not ran(2.1e-5).is_misestimated(1.0)  # less than a hundredth of it all
    assert not operator(0).is_misestimated(1.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0"),
        (1.26e-6, "1.3 µs"),
        (9.9951e-4, "1 ms"),
        (0.0123, "12.3 ms"),
        (1, "1 s"),
        (119, "119 s"),
        (7200, "120 min"),
    ],
)
def test_times(seconds, text):
    assert duration(seconds) == text


def test_counts_shares_and_rates():
    assert [number(n) for n in (None, 0, 999, 12_345, 1_234_567, 2e9, 3e12)] == [
        "?",
        "0",
        "999",
        "12.3k",
        "1.23M",
        "2G",
        "3T",
    ]
    assert [share(p, 1.0) for p in (None, 0.0001, 0.0123, 0.5)] == ["", "", "1.2%", "50%"]
    assert share(1.0, 0.0) == ""
    assert rate(2e9, 1.0) == "2"
    assert rate(0, 1.0) == ""


# -- nothing is left out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_every_operator_has_terms_and_a_docstring(name):
    assert OPERATORS[name].kind in KINDS
    assert (OPERATORS[name].__doc__ or "").strip()


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_every_operator_is_drawn_in_every_format(name):
    for node in all_samples(OPERATORS[name], FLOAT):
        described = Described({})
        roots = described.roots({"out": node})
        view = PlanView("t", "", roots, tuple(described.operators.values()), 1.0)
        assert any(line.startswith("└ ") for line in tree(view))
        assert json.loads(as_json([view], ""))["plans"][0]["operators"][-1]["operator"] == name
        assert "p0r0" in dot([view], "") and "p0r0" in mermaid([view], "")


@pytest.mark.parametrize("name", sorted(n for n, cls in OPERATORS.items() if cls.kind not in ("iterate", "counter")))
def test_where_an_operator_runs_is_what_its_code_calls(name):
    """The library of a kernel is read from the code that is generated for it, in another way than EXPLAIN does."""
    for node in all_samples(OPERATORS[name], FLOAT):
        simple = optimize(Plan({"out": node})).plan.outputs["out"] if node.expand() else node
        if not node.inputs or node.is_view or simple is not node:
            continue
        nodes = list(walk([node]))
        source = generate([node], varying=leaves([node])).source
        own = source.partition(f"# {node.operator_name()}")[2] or source
        compiled = [f for listed in COMPILED.values() for f in listed.split() if f"{f}(" in own]
        expected = "Numba" if compiled else "BLAS" if re.search(r"\b(matmul|moment)\(", own) else None
        found = place(node, numbers_of(nodes, [node]))
        assert found == expected if expected else found in ("NumPy", "SciPy", "Python"), (node, own)


def test_terms_are_those_of_operators_that_there_are():
    assert KINDS.keys() == {o.kind for o in OPERATORS.values()}


@pytest.mark.parametrize("rule", sorted(n for n, r in RULES.items() if r.stage not in ALWAYS_ON))
def test_every_rule_can_be_left_out_of_its_example(connection, rule):
    text = lines(connection, f"EXPLAIN (WITHOUT ({rule})) {RULES[rule].example}")
    assert any(line.startswith(f"without {rule}: ") for line in text)
    steps = connection.execute(f"EXPLAIN (STEPS, WITHOUT ({rule})) {RULES[rule].example}").fetchall()
    assert rule not in {step[1] for step in steps}


@pytest.mark.parametrize("rule", sorted(n for n, r in RULES.items() if r.stage in ALWAYS_ON))
def test_a_rule_that_no_plan_can_do_without_says_so(connection, rule):
    with pytest.raises(mlsql.ProgrammingError, match=f"the rule {rule} cannot be left out: "):
        connection.execute(f"EXPLAIN (WITHOUT ({rule})) TRAIN net ON t")


def test_every_step_keeps_loss_and_weights(connection):
    for statement in STATEMENTS[:3]:
        steps = connection.execute(f"EXPLAIN (STEPS) {statement}").fetchall()
        assert steps
        assert all(difference is None or difference < 1e-5 for *_, difference, _ in steps)
        assert all(difference is None or difference < 1e-5 for *_, difference in steps)
        assert any(difference is not None for *_, difference in steps)


# -- ANALYZE -----------------------------------------------------------------------------------------------------------


def test_analyze_measures_every_operator_that_runs(connection):
    [plan] = json.loads(one(connection, "EXPLAIN ANALYZE (FORMAT json) TRAIN net ON t WITH SGD (batch_size = 32)"))[
        "plans"
    ]
    assert plan["actual_seconds"] > 0
    computed = [o for o in plan["operators"] if o["inputs"] and o["place"]]
    assert computed
    assert all(o["actual"] is not None and o["actual"]["seconds"] >= 0 for o in computed)
    assert sum(o["actual"]["seconds"] for o in computed) > 0
    steps = {o["actual"]["runs"] for o in computed if o["when"] != "once"}
    assert steps == {30}  # 10 epochs of 3 batches
    rows = {o["actual"]["rows"] for o in computed if o["when"] == "forward" and o["has_rows"]}
    assert rows == {30.0}  # 90 rows in batches of 32, 32 and 26
    assert sum(o["actual"]["seconds"] for o in computed) < plan["actual_seconds"]


def test_analyze_gives_the_weights_that_train_gives(connection):
    for name in ("plain", "timed"):
        connection.execute(NETWORK.replace("net", name))
    connection.execute("TRAIN plain ON t WITH ADAM (epochs = 3)")
    connection.execute("EXPLAIN ANALYZE TRAIN timed ON t WITH ADAM (epochs = 3)")
    weights = "SELECT name, sha256 FROM mlsql.parameters WHERE model = '{}' ORDER BY name"
    plain, timed = (connection.execute(weights.format(name)).fetchall() for name in ("plain", "timed"))
    assert plain == timed and plain


def test_a_query_is_not_timed_after_analyze(connection):
    connection.execute("EXPLAIN ANALYZE SELECT PREDICT(net, v) FROM t")
    before = connection.execute("SELECT PREDICT(net, v) FROM t").fetchall()
    assert len(before) == 90


def test_a_trace_ends_with_the_plan_that_came_out():
    model = bind(NETWORK)
    start = Plan({**model.columns, "loss": model.loss}, model.names)
    found = optimize(start, wanted=["loss"])
    graph: dict[int, Node] = {}
    history = trace([(start, found.steps, found.plan)])
    for change in (history.starts[0], *history.changes):
        for at in change.gone:
            del graph[at]
        graph |= {at: node for at, (node, _) in change.set.items()}
    assert set(graph.values()) == set(found.plan.nodes())


def test_described_names_are_unique():
    x = Column("exp", RowSet("t", 3), FLOAT)
    described = Described({})
    described.roots({"a": Exp(Exp(x)), "b": Add(Exp(x), x)})
    names = [o.name for o in described.operators.values()]
    assert len(set(names)) == len(names)
