"""The search: what the laws find together, where it pays and where not.

The plans are those of whole training runs. What is asserted is what runs in a step and what runs once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Mapping

import numpy as np
import pytest
from support import MANY_STEPS, bind, bind_rows, in_double, loss_of, moved, parameters, random_leaves, run

from mlsql.autodiff.gradient import gradients
from mlsql.optimizer import memo as memos
from mlsql.optimizer.choice import Choice, Cycle
from mlsql.optimizer.frequency import Frequency, frequencies
from mlsql.optimizer.memo import Memo
from mlsql.optimizer.rewriter import Rewriter
from mlsql.optimizer.rule import RULES, Rule
from mlsql.optimizer.search import Goal
from mlsql.optimizer.stages import Optimized, optimize, simplify
from mlsql.planner.node import Node
from mlsql.planner.ops import Concat, Contract, Exp, GroupJoin, Index, Log, Moment, Parameter
from mlsql.planner.plan import Plan
from mlsql.types import FLOAT, RowSet

EXPLORING = [r.name for r in RULES.values() if r.stage == "explore"]


def goal(steps: float, memory: int | None = None) -> Goal:
    return Goal(runs={Frequency.ONCE: 1, Frequency.STEP: steps}, memory=memory)


def trained(plan: Plan, aim: Goal, without: Collection[str] = ()) -> Optimized:
    """The loss and its gradients by all that learns, planned for a goal."""
    sources = [p for p in parameters(plan) if not p.frozen]
    loss = simplify(plan.keep(["loss"])).plan.outputs["loss"]
    outputs = {"loss": loss, **{f"by {p.name}": g for p, g in zip(sources, gradients(loss, sources), strict=True)}}
    return optimize(Plan(outputs, plan.names), without, goal=aim)


def each_step(found: Optimized) -> list[Node]:
    """What runs in every step."""
    often = frequencies(found.plan.outputs.values())
    return [n for n in found.plan.nodes() if often[n] == Frequency.STEP]


def reads_rows(nodes: Collection[Node], at_least: int = 2) -> bool:
    """Whether some node of a step has rows, or reads something that has."""
    return any((n.type.rows.rows or 0) >= at_least for m in nodes for n in (m, *m.inputs))


def table(text: str, rows: int) -> Plan:
    """The loss of a model over a table of so many rows."""
    plan = loss_of(bind(text))
    return resized(plan, {"table": rows})


def resized(plan: Plan, rows: Mapping[str, int]) -> Plan:
    """The plan with other numbers of rows."""
    sets = {r for n in plan.nodes() for r in n.row_sets()}
    return plan.over({r: RowSet(r.name, rows[r.name]) for r in sets if r.name in rows}, {})


LINEAR = (
    "CREATE MODEL m INPUT (x FLOAT[32]) TARGET (y FLOAT) AS SELECT LINEAR(x, 1) AS z "
    "MINIMIZE AVG((z - y) ** 2) + 0.1 * L2(z.weight)"
)


def test_least_squares_reads_its_rows_once() -> None:
    """The loss and the gradient of 200 steps over a million rows need the rows' moments only."""
    found = trained(table(LINEAR, 1_000_000), goal(200))
    assert not reads_rows(each_step(found))
    assert {n.type.shape for n in found.plan.nodes() if isinstance(n, Moment)} >= {(32, 32), (32,), ()}
    assert {"contract_is_moment", "moment_of_sum", "moment_of_product"} <= {s.rule.name for s in found.steps}


def test_the_way_to_the_gram_matrix_leads_over_a_worse_plan() -> None:
    """Taking a product apart costs more, until its parts need no rows: a search by single improvements stops before."""
    steps = [s for s in trained(table(LINEAR, 1_000_000), goal(200)).steps if s.stage == "explore"]
    assert all(s.cost_before is not None and s.cost_after is not None for s in steps)
    assert any(s.cost_after > s.cost_before for s in steps)
    assert steps[-1].cost_after < steps[0].cost_before / 4


def test_moments_are_not_worth_two_steps() -> None:
    found = trained(table(LINEAR.replace("32", "512"), 100_000), goal(2))
    assert not [n for n in found.plan.nodes() if isinstance(n, Moment) and n.type.rank == 2]


STAR = (
    "CREATE MODEL m INPUT facts (d BIGINT, e BIGINT, z FLOAT, y FLOAT), dims (id BIGINT, x FLOAT[50]), "
    "others (id BIGINT, x FLOAT[50]) AS SELECT LINEAR(CONCAT([z], d.x, e.x), 1) AS s, y "
    "FROM facts f JOIN dims d ON d.id = f.d JOIN others e ON e.id = f.e "
    "MINIMIZE AVG(BINARY_CROSS_ENTROPY(s, y))"
)


def star(facts: int, dims: int, text: str = STAR) -> Plan:
    model = bind_rows(text, {"facts": facts, "dims": dims, "others": dims})
    assert model.loss is not None
    return Plan({"loss": model.loss}, model.names)


def test_a_layer_over_wide_dimensions_is_computed_a_dimension_row() -> None:
    found = trained(star(1_000_000, 1_000), goal(200))
    products = [n for n in each_step(found) if isinstance(n, Contract) and 50 in (*n.x.type.shape, *n.y.type.shape)]
    assert len(products) == 4, "forward and backward, of two dimensions"
    assert all((n.x.type.rows.rows or 0) <= 1_000 and (n.y.type.rows.rows or 0) <= 1_000 for n in products)
    assert not [n for n in found.plan.nodes() if isinstance(n, Concat) and n.type.size == 101 * 1_000_000]


def test_a_layer_over_dimensions_that_are_as_long_as_the_facts_stays_whole() -> None:
    found = trained(star(10_000, 20_000), goal(200))
    assert [n for n in found.plan.nodes() if isinstance(n, Concat) and n.type.size == 101 * 10_000]


GRAPH = (
    "CREATE MODEL m INPUT nodes (id BIGINT, x FLOAT[20]), edges (src BIGINT, dst BIGINT, w FLOAT) AS WITH "
    "h AS (SELECT id, LINEAR(x, {hidden}) AS h FROM nodes), "
    "s AS (SELECT e.dst AS id, RELU(SUM(e.w * h.h)) AS h FROM edges e JOIN h ON h.id = e.src GROUP BY e.dst), "
    "g AS (SELECT id, LINEAR(h, {out}) AS h FROM s), "
    "t AS (SELECT e.dst AS id, SUM(e.w * g.h) AS h FROM edges e JOIN g ON g.id = e.src GROUP BY e.dst) "
    "SELECT id, h AS z FROM t MINIMIZE AVG(SUM_OF(h * h))"
)


def graph(hidden: int, out: int) -> Plan:
    text = GRAPH.format(hidden=hidden, out=out)
    model = bind_rows(text, {"nodes": 10_000, "edges": 100_000})
    assert model.loss is not None
    plan = Plan({"loss": model.loss}, model.names)
    return resized(plan, {n.type.rows.name: 10_000 for n in plan.nodes() if n.type.rows.name.startswith("grouped")})


@pytest.mark.parametrize(("hidden", "out"), [(64, 4), (4, 64)])
def test_what_is_narrower_goes_along_the_edges(hidden: int, out: int) -> None:
    """A (H W) or (A H) W, whichever is narrower, forward and backward; A X of the first layer never changes."""
    found = trained(graph(hidden, out), goal(100))
    joins = [n for n in each_step(found) if isinstance(n, GroupJoin)]
    assert {n.type.shape for n in joins} == {(min(hidden, out),)}
    assert len(joins) == 2


FROZEN = (
    "CREATE MODEL m INPUT (x FLOAT[32]) TARGET (y FLOAT) PARAMETERS (a FLOAT[64][32] INIT HE FROZEN) "
    "AS SELECT TANH(x @ a) AS h, LINEAR(h, 1) AS z MINIMIZE AVG((z - y) ** 2)"
)


def batches(text: str, rows: int, size: int) -> Plan:
    """The loss over a batch of a table."""
    model, table = bind(text), RowSet("table", rows)
    assert model.loss is not None
    return moved(model, Plan({"loss": model.loss}, model.names), table, Index(RowSet("batch", size), table))


def test_a_frozen_layer_runs_once_a_row_and_not_once_an_epoch() -> None:
    found = trained(batches(FROZEN, 20_000, 32), goal(20 * 625))
    assert not [n for n in each_step(found) if isinstance(n, Contract) and 32 in n.x.type.shape]
    assert [n for n in found.plan.nodes() if isinstance(n, Contract) and n.type.rows.rows == 20_000]


def test_a_frozen_layer_is_computed_for_the_few_rows_that_are_read() -> None:
    found = trained(batches(FROZEN, 5_000_000, 32), goal(100))
    assert not [n for n in found.plan.nodes() if isinstance(n, Contract) and n.type.rows.rows == 5_000_000]


def test_what_does_not_fit_into_memory_is_recomputed() -> None:
    kept = trained(batches(FROZEN, 20_000, 32), goal(20 * 625))
    recomputed = trained(batches(FROZEN, 20_000, 32), goal(20 * 625, memory=1_000_000))
    assert [n for n in kept.plan.nodes() if n.inputs and n.type.rows.rows == 20_000]
    assert not [n for n in recomputed.plan.nodes() if n.inputs and n.type.rows.rows == 20_000]
    reasons = {a.reason for a in recomputed.alternatives}
    assert "needs more memory than MEMORY allows" in reasons


def test_products_are_computed_in_the_cheaper_order() -> None:
    text = (
        "CREATE MODEL m INPUT (x FLOAT[256]) PARAMETERS (a FLOAT[256][256], b FLOAT[1][256]) "
        "AS SELECT (x @ a) @ b AS z MINIMIZE AVG(SUM_OF(EXP(z)))"
    )
    found = trained(table(text, 10_000), goal(10))
    assert not [n for n in each_step(found) if isinstance(n, Contract) and n.type.size == 10_000 * 256]


@pytest.mark.parametrize("name", EXPLORING)
def test_what_a_rule_finds_can_be_done_without(name: str) -> None:
    for plan in (table(LINEAR, 1_000), star(1_000, 10), graph(8, 2)):
        assert name not in {s.rule.name for s in trained(plan, MANY_STEPS, [name]).steps}


def test_exploring_changes_no_value() -> None:
    for plan in (table(LINEAR, 50), star(60, 5), graph(6, 2)):
        small = resized(plan, {n.type.rows.name: 5 for n in plan.nodes() if n.type.rows.name.startswith("grouped")})
        small = resized(small, {"nodes": 7, "edges": 9, "joined_1": small_rows(small, "joined_1")})
        exact = in_double(small)
        arrays = random_leaves(list(exact.outputs.values()), seed=11)
        found = run(trained(exact, MANY_STEPS).plan, arrays)
        plain = run(trained(exact, MANY_STEPS, EXPLORING).plan, arrays)
        for key, value in plain.items():
            np.testing.assert_allclose(found[key], value, 1e-9, 1e-9, err_msg=key)


def small_rows(plan: Plan, name: str) -> int:
    """How many rows a row set has."""
    return next((n.type.rows.rows or 1 for n in plan.nodes() if n.type.rows.name == name), 1)


def test_a_budget_that_runs_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memos, "MAX_EXPRESSIONS", 3)
    found = trained(table(LINEAR, 1_000), goal(200))
    assert found.notes and "the search stopped" in found.notes[0]


def test_an_expression_that_reads_itself_is_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """exp(x) = log(exp(exp(x))) holds, but nothing can be computed of itself."""
    law = Rule("around", "explore", "", "", "", "", "", "", "", "", (Exp,), lambda n: Log(Exp(n)))
    monkeypatch.setitem(RULES, "around", law)
    value = Exp(Parameter("w", FLOAT))
    memo = Memo([value], Rewriter("explore"), Rewriter("simplify", without=["log_of_exp"]))
    memo.explore()
    choice = Choice(memo, goal(1).machine, goal(1).runs, None)
    (around,) = [m for m in memo.groups[memo.group(value)].members if m.rule is law]
    with choice.trial():
        choice.switch(memo.group(value), around)
        with pytest.raises(Cycle):
            choice.is_plan()
    assert choice.node(memo.group(value)) is value
    assert optimize(Plan({"y": value}), ["log_of_exp"]).plan.outputs["y"] is value


def test_the_search_finds_the_same_plan_every_time() -> None:
    """In other processes too, whose hashes are other ones."""
    code = (
        "import sys; sys.path.insert(0, 'tests'); import test_search as t; "
        "f = t.trained(t.star(100_000, 100), t.goal(50)); "
        "print([s.rule.name for s in f.steps], [a.name for a in f.alternatives], list(f.plan.outputs.values()))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1 and said.pop()
