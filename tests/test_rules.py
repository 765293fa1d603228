"""Every rule of the optimizer, by the text that teaches it: it fires on its example and changes no value.

The example is taken all the way: bound, simplified, differentiated, optimized, over a whole table and over batches of
one. The loss and the gradients must be the same with all rules, without the one, and with none at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import pytest
from support import (
    ALL_BUT_EXPAND,
    TABLE,
    bind,
    in_double,
    moved,
    parameters,
    random_leaves,
    run,
    with_gradients,
)

from mlsql.errors import InternalError
from mlsql.optimizer.rule import RULES, Rule
from mlsql.optimizer.stages import STAGES, optimize, simplify
from mlsql.planner.node import OPERATORS
from mlsql.planner.ops import Add, Index, Parameter, constant
from mlsql.planner.plan import Plan
from mlsql.types import DOUBLE, FLOAT, RowSet

every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
BATCH = RowSet("batch", 4)


def examples(rule: Rule) -> Iterator[Plan]:
    """The loss of a rule's example, over all rows of a table and over a batch; the select's columns beside it."""
    model = bind(rule.example)
    assert model.loss is not None, f"the example of {rule.name} minimizes nothing"
    plan = Plan({**model.columns, "loss": model.loss}, model.names)
    for index in (None, Index(BATCH, TABLE)):
        yield plan.replaced(moved(model, plan, TABLE, index))


@every_rule
def test_a_rule_says_all_of_itself(rule: Rule) -> None:
    for part in ("name", "law", "before", "after", "when", "why", "example"):
        assert getattr(rule, part).strip(), f"{rule.name} has no {part}"
    assert rule.before != rule.after
    assert rule.stage in [name for name, _ in STAGES], f"{rule.name} is in no stage that runs"
    assert set(rule.on) <= set(OPERATORS.values())


@every_rule
def test_a_rule_fires_on_its_example(rule: Rule) -> None:
    fired = set()
    for plan in examples(rule):
        fired |= {s.rule.name for s in simplify(plan, wanted=["loss"]).steps}
        fired |= {s.rule.name for s in with_gradients(plan.keep(["loss"])).steps}
    assert rule.name in fired, f"{rule.name} does not fire on {rule.example}; these do: {sorted(fired)}"


@every_rule
def test_a_step_keeps_the_type(rule: Rule) -> None:
    for plan in examples(rule):
        optimized = with_gradients(plan.keep(["loss"]))
        assert all(s.after is None or s.before.type == s.after.type for s in optimized.steps)
        for p in parameters(plan.keep(["loss"])):
            assert optimized.plan.outputs[f"by {p.name}"].type == p.type
        assert optimized.plan.outputs["loss"].type == plan.outputs["loss"].type


@every_rule
def test_a_rule_changes_no_value(rule: Rule) -> None:
    for plan in examples(rule):
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


@every_rule
def test_a_rule_can_be_switched_off(rule: Rule) -> None:
    if rule.stage in ("prune", "share"):
        pytest.skip("says what is so by itself")
    for plan in examples(rule):
        steps = with_gradients(plan.keep(["loss"]), (rule.name,)).steps
        assert rule.name not in {s.rule.name for s in steps}


@every_rule
def test_optimizing_twice_changes_nothing_more(rule: Rule) -> None:
    for plan in examples(rule):
        once = with_gradients(plan.keep(["loss"])).plan
        twice = optimize(once)
        assert [s.rule.name for s in twice.steps if s.before is not s.after] == []
        assert twice.plan.outputs == once.outputs


def test_a_rule_that_changes_a_type_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Rule("wrong", "simplify", "", "", "", "", "", "", (Add,), lambda n: constant(0.0, DOUBLE))
    monkeypatch.setitem(RULES, "wrong", wrong)
    plan = Plan({"y": Add(Parameter("a", FLOAT), Parameter("b", FLOAT))})
    with pytest.raises(InternalError, match="the rule wrong turned FLOAT into DOUBLE"):
        optimize(plan)


def test_rules_without_an_end_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    swap = Rule("swap", "simplify", "", "", "", "", "", "", (Add,), lambda n: Add(n.y, n.x))
    monkeypatch.setitem(RULES, "swap", swap)
    plan = Plan({"y": Add(Parameter("a", FLOAT), Parameter("b", FLOAT))})
    with pytest.raises(InternalError, match="do not come to an end; the last was swap"):
        optimize(plan)
