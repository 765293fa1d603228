"""Every rule of the optimizer, by the text that teaches it: it fires on its example and changes no value.

The example is taken all the way: bound, simplified, differentiated, optimized, over a whole table and over batches of
one. The loss and the gradients must be the same with all rules, without the one, and with none at all.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
from support import (
    ALL_BUT_EXPAND,
    MANY_STEPS,
    bind,
    bind_rows,
    in_double,
    parameters,
    random_leaves,
    run,
    with_gradients,
)

import mlsql.session.query.plan  # noqa: F401  (its rules are in the book too)
from mlsql.autodiff.gradient import gradients
from mlsql.autodiff.training import gradients_of, spans_of, view_of
from mlsql.errors import InternalError
from mlsql.executor.run import executable, leaves
from mlsql.explain.example import BATCH, COUNTS, plans
from mlsql.explain.rulebook import before_and_after, book
from mlsql.optimizer.rewriter import Rewriter
from mlsql.optimizer.rule import RULES, TEXTS, Rewrite, Rule
from mlsql.optimizer.search import considered
from mlsql.optimizer.stages import STAGES, optimize, run_stage, simplify
from mlsql.planner.node import OPERATORS, Node
from mlsql.planner.ops import (
    Add,
    Column,
    Concat,
    Contract,
    GroupJoin,
    Index,
    Multiply,
    Pad,
    Parameter,
    Place,
    Positions,
    Segment,
    State,
    Take,
    Tanh,
    constant,
)
from mlsql.planner.plan import Plan
from mlsql.types import BIGINT, DOUBLE, FLOAT, RowSet

every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
DOCS = Path(__file__).parent.parent / "docs"


NODES, EDGES, GROUPS = RowSet("nodes", 6), RowSet("edges", 8), RowSet("groups", 3)
SOURCE, TARGET = Positions("source", EDGES, NODES), Positions("target", EDGES, NODES)
LABELLED, CHECKED = (Positions(name, RowSet(name, 4), NODES) for name in ("labelled", "checked"))  # some of the nodes


def learned(*shape: int) -> Node:
    """A column of the nodes that a parameter reaches."""
    return Tanh(Multiply(Column("x", NODES, FLOAT, shape), Parameter("w", FLOAT, shape)))


@every_rule
def test_a_rule_says_all_of_itself(rule: Rule) -> None:
    for part in TEXTS:
        assert getattr(rule, part).strip(), f"{rule.name} has no {part}"
    assert rule.before != rule.after
    assert rule.stage in [name for name, _ in STAGES], f"{rule.name} is in no stage that runs"
    assert set(rule.on) <= set(OPERATORS.values())


@every_rule
def test_a_rule_fires_on_its_example(rule: Rule) -> None:
    fired = set()
    for plan in plans(rule.example):
        fired |= {s.rule.name for s in simplify(plan, wanted=["loss"]).steps}
        fired |= {s.rule.name for s in with_gradients(plan.keep(["loss"])).steps}
        fired |= {rule.name} if sides_of(plan, rule) else set()
    assert rule.name in fired, f"{rule.name} does not fire on {rule.example}; these do: {sorted(fired)}"


@every_rule
def test_a_step_keeps_the_type(rule: Rule) -> None:
    for plan in plans(rule.example):
        optimized = with_gradients(plan.keep(["loss"]))
        assert all(s.after is None or s.before.type == s.after.type for s in optimized.steps)
        for p in parameters(plan.keep(["loss"])):
            assert optimized.plan.outputs[f"by {p.name}"].type == p.type
        assert optimized.plan.outputs["loss"].type == plan.outputs["loss"].type


@every_rule
def test_a_rule_changes_no_value(rule: Rule) -> None:
    for plan in plans(rule.example):
        exact = in_double(plan.keep(["loss"]))
        arrays = random_leaves(list(exact.outputs.values()), seed=7, positive=True)
        values = {
            "all rules": run(with_gradients(exact).plan, arrays),
            f"without {rule.name}": run(with_gradients(exact, without_or_less(rule)).plan, arrays),
            "no rule": run(with_gradients(exact, ALL_BUT_EXPAND).plan, arrays),
        }
        for label, found in values.items():
            assert found.keys() == values["no rule"].keys()
            for name, value in found.items():
                np.testing.assert_allclose(value, values["no rule"][name], 1e-5, 1e-9, err_msg=f"{name}, {label}")


def without_or_less(rule: Rule) -> Collection[str]:
    """This rule switched off, unless without it no plan would run."""
    return () if rule.stage == "expand" else (rule.name,)


def sides_of(plan: Plan, rule: Rule) -> list[tuple[Node, Node]]:
    """Both sides of all that the search makes with a rule of a loss and its gradients."""
    loss = simplify(plan.keep(["loss"])).plan.outputs["loss"]
    outputs = [loss, *gradients(loss, parameters(plan))]
    simple = simplify(Plan({str(i): n for i, n in enumerate(outputs)})).plan
    steps = considered(simple, Rewriter("explore"), Rewriter("simplify"))
    return [(s.before, s.after) for s in steps if s.rule is rule and s.after is not None]


@every_rule
def test_all_that_the_search_considers_is_the_same(rule: Rule) -> None:
    """Whether it is taken or not: both sides of every rewriting, on random rows."""
    for plan in plans(rule.example):
        sides = sides_of(in_double(plan), rule)
        every = Plan({str(i): n for i, n in enumerate(n for pair in sides for n in pair)})
        nodes = run_stage("expand", every, [])
        values = list(run(nodes, random_leaves(list(nodes.outputs.values()), seed=3)).values()) if sides else []
        for (before, after), x, y in zip(sides, values[::2], values[1::2], strict=True):
            np.testing.assert_allclose(x, y, 1e-9, 1e-9, err_msg=f"{before} and {after}")


@every_rule
def test_a_rule_can_be_switched_off(rule: Rule) -> None:
    if rule.stage in ("prune", "share"):
        pytest.skip("says what is so by itself")
    for plan in plans(rule.example):
        steps = with_gradients(plan.keep(["loss"]), (rule.name,)).steps
        assert rule.name not in {s.rule.name for s in steps}


@every_rule
def test_optimizing_twice_changes_nothing_more(rule: Rule) -> None:
    for plan in plans(rule.example):
        once = with_gradients(plan.keep(["loss"])).plan
        twice = optimize(once, goal=MANY_STEPS)
        assert [s.rule.name for s in twice.steps if s.before is not s.after] == []
        assert twice.plan.outputs == once.outputs


def rules_that_fired(plan: Plan) -> set[str]:
    return {s.rule.name for s in simplify(plan).steps}


def test_a_column_that_others_read_too_is_not_computed_twice() -> None:
    """Taking first would leave f on all rows and add f on the taken ones."""
    h = learned(2)
    alone, shared = Take(h, LABELLED), GroupJoin(h, SOURCE, TARGET, NODES)
    assert "take_first" in rules_that_fired(Plan({"loss": alone}))
    assert "take_first" not in rules_that_fired(Plan({"loss": alone, "sums": shared}))
    assert "take_first" not in rules_that_fired(Plan({"loss": alone, "all": h}))
    assert "take_first" not in rules_that_fired(Plan({"loss": alone, "other": Take(h, CHECKED)})), "8 rows of 6"


def test_rows_are_not_taken_first_where_more_are_taken_than_there_are() -> None:
    assert "take_first" not in rules_that_fired(Plan({"y": Take(learned(2), SOURCE)}))


def test_a_batch_s_look_up_in_a_table_of_parameters_stays_one() -> None:
    """The update of the table is to see which rows a step touches."""
    batch = Index(BATCH, NODES)
    bag = Take(Parameter("table", FLOAT, (9, 2)), Take(Column("key", NODES, BIGINT), batch))
    assert rules_that_fired(Plan({"y": Segment(bag, batch, GROUPS)})) == set()
    tables = {Parameter("table", FLOAT, (9, 2)): set(), State("table", FLOAT, (9, 2)): {"join_and_group"}}
    for table, fired in tables.items():
        assert rules_that_fired(Plan({"y": Segment(Take(table, SOURCE), TARGET, GROUPS)})) == fired


def test_without_folding_factors_are_gathered_all_the_same() -> None:
    """Of three numbers any two could be gathered, for ever."""
    w = Parameter("w", FLOAT)
    two, three = constant(2.0), constant(3.0)
    plan = Plan({"y": Multiply(two, Multiply(three, w)), "z": Multiply(two, Multiply(three, two))})
    assert {s.rule.name for s in simplify(plan, ("fold_constants",)).steps} == {"gather_factors"}


def test_rows_of_a_table_of_parameters_stay_where_they_are_read() -> None:
    batch = Index(RowSet("batch", 2), NODES)
    fixed = Take(Column("x", NODES, FLOAT, (2,)), batch)
    learned_rows = Take(State("table", FLOAT, (9, 2)), Take(Column("key", NODES, BIGINT), batch))
    assert rules_that_fired(Plan({"y": Add(fixed, learned_rows)})) == set()


def test_a_join_under_a_group_by_is_written_to_memory_nowhere() -> None:
    """Neither forward nor backward: no node has an entry of the messages' width a joined row."""
    model = bind_rows(RULES["join_and_group"].example, COUNTS)
    assert model.loss is not None and model.skeleton is not None
    joined = model.skeleton.steps[0].rows
    plan = with_gradients(Plan({"loss": model.loss}, model.names)).plan
    assert not [n for n in plan.nodes() if n.type.rows == joined and n.type.shape]


def test_a_one_hot_part_of_a_layer_is_looked_up() -> None:
    model = bind("CREATE MODEL m INPUT (x FLOAT[2], k INTEGER, y FLOAT, j INTEGER) AS SELECT "
                 "LINEAR(CONCAT(x, y, ONE_HOT(k, 4), ONE_HOT(j, 5)), 3) AS z MINIMIZE AVG(SUM_OF(z * z))")  # fmt: skip
    assert model.loss is not None
    plan = with_gradients(Plan({"loss": model.loss}, model.names)).plan
    assert not [n for n in plan.nodes() if isinstance(n, (Place, Pad))]
    (by_weight,) = [n for n in plan.outputs.values() if n.type.shape == (12, 3)]
    assert isinstance(by_weight, Concat)
    assert [type(p) for p in by_weight.parts] == [Contract, Segment, Segment]


def test_the_flat_gradient_is_put_together_from_its_parts() -> None:
    """No zeros are written and added, and every part is computed in its place."""
    model = bind("CREATE MODEL m INPUT (x FLOAT[2], k INTEGER) AS SELECT "
                 "LINEAR(CONCAT(x, ONE_HOT(k, 4)), 3) AS z MINIMIZE AVG(SUM_OF(z * z))")  # fmt: skip
    assert model.loss is not None
    plan = simplify(Plan({"loss": model.loss}, model.names)).plan
    spans = spans_of(plan.outputs["loss"], parameters(plan))
    plan = plan.replaced({p: view_of(p, *span) for p, span in spans.items()})
    by_vector, tables, _ = gradients_of(plan.outputs["loss"], spans)
    assert not tables
    (flat,) = optimize(Plan({str(vector.name): g for vector, g in by_vector.items()})).plan.outputs.values()
    assert isinstance(flat, Concat) and len(flat.parts) == 3
    placed = executable([flat, flat], varying=leaves([flat])).program.layout.placed
    assert len(placed) == 3


def test_the_rule_book_is_what_the_rules_say() -> None:
    """Where this fails, scripts/rules.sh writes docs/rules.md again."""
    assert (DOCS / "rules.md").read_text(encoding="utf-8") == book()


@every_rule
def test_the_rule_book_shows_what_a_rule_does_to_its_example(rule: Rule) -> None:
    found = before_and_after(rule)
    assert found is not None, f"{rule.name} does not fire on {rule.example}"
    before, after = found
    assert before and after and before != after


def made_up(name: str, apply: Rewrite) -> Rule:
    """A rule over sums that says nothing of itself."""
    return Rule(**(dict.fromkeys(TEXTS, "") | {"name": name, "stage": "simplify"}), on=(Add,), apply=apply)


def test_a_rule_that_changes_a_type_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "wrong", made_up("wrong", lambda n: constant(0.0, DOUBLE)))
    plan = Plan({"y": Add(Parameter("a", FLOAT), Parameter("b", FLOAT))})
    with pytest.raises(InternalError, match="the rule wrong turned FLOAT into DOUBLE"):
        optimize(plan)


def test_rules_without_an_end_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "swap", made_up("swap", lambda n: Add(n.y, n.x)))
    plan = Plan({"y": Add(Parameter("a", FLOAT), Parameter("b", FLOAT))})
    with pytest.raises(InternalError, match="do not come to an end; the last was swap"):
        optimize(plan)
