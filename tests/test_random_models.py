"""The optimizer against random models: whatever rules are on or off, the loss and the gradients are the same.

A seed gives a model, numbers of rows, values for all leaves, and a way to train it: over all rows or over a batch, with
the parameters by themselves or in one flat vector, as TRAIN has them. Its loss and its gradients are planned without
any rule, with all rules and without some of them, and computed in DOUBLE. ``-m slow`` takes more models, and each rule
that fires off by itself; ``-s`` shows which rules fired how often.
"""

from __future__ import annotations

import functools
import inspect
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from random_models import bound, model_text, value
from support import ALL_BUT_EXPAND, batched, in_double, moved, run

import mlsql
from mlsql.autodiff.gradient import gradients
from mlsql.autodiff.training import gradients_of, spans_of, view_of
from mlsql.errors import InternalError
from mlsql.executor.run import leaves
from mlsql.optimizer.cost import Machine
from mlsql.optimizer.frequency import Frequency
from mlsql.optimizer.memo import Memo
from mlsql.optimizer.rewriter import Rewriter
from mlsql.optimizer.rule import RULES, Rule, Step
from mlsql.optimizer.search import Goal
from mlsql.optimizer.stages import optimize, run_stage, simplify
from mlsql.planner.model import Model
from mlsql.planner.node import Node
from mlsql.planner.ops import (
    Absolute,
    Add,
    Constant,
    Contract,
    GroupJoin,
    Index,
    Multiply,
    Parameter,
    Power,
    Transpose,
    like,
)
from mlsql.planner.plan import Plan
from mlsql.types import DOUBLE, UNIT, RowSet, TypeProblem

SEEDS, SHARE = 500, 25  # how many models, and how many of them are one test
TOLERANCE = 1e-5

Array = Any
Span = tuple[str, int, int]  # the output that holds a gradient, from where to where


# -- a model, planned --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """The model of a seed, and how it is trained: rows of a batch (None: all rows), sampled members of groups, whether
    the parameters lie in flat vectors."""

    seed: int
    text: str
    model: Model
    batch: int | None
    fan_out: tuple[int, ...]
    flat: bool


def case(seed: int) -> Case:
    """The case of a seed. Raises ProgrammingError if its text is none of the language's."""
    text, rng = model_text(seed), random.Random(~seed)
    model = bound(text, rng)
    batch = rng.randint(1, model.rows.rows or 6) if rng.random() < 0.5 else None
    fan_out = (1, 2) if batch and model.skeleton is not None and rng.random() < 0.3 else ()
    return Case(seed, text, model, batch, fan_out, rng.random() < 0.5)


@dataclass(frozen=True)
class Planned:
    """The plan of a loss and its gradients, how it came about, and where the values of parameters go and come from."""

    plan: Plan
    steps: tuple[Step, ...]
    states: Mapping[Node, list[Parameter]]  # vectors and tables, and the parameters that lie in them end to end
    spans: Mapping[str, Span]  # where the gradient by each parameter is to be found


def planned(c: Case, without: Collection[str] = (), lot: int | None = None, **options: Any) -> Planned:
    """The loss and its gradients, planned as TRAIN does: simplified, batched, differentiated, optimized.

    The rules in ``without`` stay off. With a ``lot`` any plan is taken that the search could take. ``options`` go to
    ``optimize``.
    """
    assert c.model.loss is not None
    simple = simplify(in_double(Plan({**c.model.columns, "loss": c.model.loss})), without, wanted=["loss"])
    loss = over_rows(c, simple.plan)
    learned = [Parameter(n, DOUBLE, p.node.shape) for n, p in c.model.parameters.items() if not p.frozen]
    try:
        found = in_vectors(loss, learned) if c.flat else by_themselves(loss, learned)
    except TypeProblem:  # which TRAIN tells the user: no parameter can change this loss
        found = by_themselves(loss, learned)
    if lot is not None:
        drawn, steps = any_plan(simplify(found.plan).plan, random.Random(lot))
        drawn = run_stage("simplify", run_stage("expand", drawn, steps), steps)
        return replace(found, plan=drawn, steps=tuple(steps))
    best = optimize(found.plan, without, **options)
    return replace(found, plan=best.plan, steps=(*simple.steps, *best.steps))


def over_rows(c: Case, plan: Plan) -> Node:
    """The loss over all rows, or over those of a batch."""
    if c.model.skeleton is None:
        table = RowSet("table", 1 + c.seed % 7)
        index = Index(RowSet("batch", c.batch), table) if c.batch else None
        return moved(c.model, plan, table, index).outputs["loss"]
    loss = plan.outputs["loss"]
    return batched(replace(c.model, loss=loss), c.batch, fan_out=c.fan_out) if c.batch else loss


def any_plan(plan: Plan, rng: random.Random) -> tuple[Plan, list[Step]]:
    """A plan that the search could take, drawn by lot from all that it knows, whatever it costs; and what it is drawn
    of."""
    memo = Memo(plan.outputs.values(), Rewriter("explore"), Rewriter("simplify"))
    memo.explore()
    made: dict[int, Node] = {}
    steps: list[Step] = []

    def make(number: int, above: frozenset[int]) -> Node | None:
        """A value of a group, made of groups that are not made of it."""
        if number in made or number in above:
            return made.get(number)
        members = memo.groups[number].members
        for member in rng.sample(members, len(members)):
            inputs = [make(memo.group(n), above | {number}) for n in member.node.inputs]
            if None not in inputs:
                made[number] = member.node.with_inputs(n for n in inputs if n is not None)
                if member.rule is not None and member.before is not None:
                    steps.append(Step("explore", member.rule, member.before, member.node))
                return made[number]
        return None

    drawn = {name: make(memo.group(n), frozenset()) for name, n in plan.outputs.items()}
    return Plan({name: n or plan.outputs[name] for name, n in drawn.items()}, plan.names), steps


def by_themselves(loss: Node, learned: list[Parameter]) -> Planned:
    """The gradient by each parameter."""
    slopes = {f"by {p.name}": g for p, g in zip(learned, gradients(loss, learned), strict=True)}
    spans = {p.name: (f"by {p.name}", 0, p.type.entry_size or 1) for p in learned}
    return Planned(Plan({"loss": loss, **slopes}), (), {}, spans)


def in_vectors(loss: Node, learned: list[Parameter]) -> Planned:
    """The gradient by the flat vector in which the parameters lie, and by each table."""
    places = spans_of(loss, learned)
    (loss,) = Plan({"loss": loss}).replaced({p: view_of(p, *span) for p, span in places.items()}).outputs.values()
    flat, tables, _ = gradients_of(loss, places)
    outputs = {str(s.name): g for s, g in flat.items()} | {t.table.name: t.of_table() for t in tables if t.rows}
    states: dict[Node, list[Parameter]] = {}
    spans: dict[str, Span] = {}
    for p, (state, start, stop) in places.items():
        states.setdefault(state, []).append(p)
        if state.name in outputs:
            spans[p.name] = (state.name, start, stop) if state in flat else (state.name, 0, p.type.entry_size or 1)
    return Planned(Plan({"loss": loss, **outputs}), (), states, spans)


def computed(c: Case, p: Planned) -> dict[str, Array]:
    """The loss and the gradient by every parameter, by name; nothing for one that is not read."""
    arrays = {n: value(n, c.seed) for n in p.plan.nodes() if isinstance(n, Index)}
    for n in leaves(list(p.plan.outputs.values())):
        parts = p.states.get(n)
        arrays[n] = value(n, c.seed) if parts is None else np.concatenate([value(q, c.seed).ravel() for q in parts])
        arrays[n] = arrays[n].reshape(n.type.shape) if parts is not None else arrays[n]
    found = run(p.plan, arrays)
    return {"loss": found["loss"]} | {n: found[o].ravel()[i:j] for n, (o, i, j) in p.spans.items()}


# -- one model, in several plans ---------------------------------------------------------------------------------------


def settings(c: Case, fired: Collection[str], thorough: bool) -> Iterator[tuple[str, Collection[str], dict[str, Any]]]:
    """What a model is planned with: a name, the rules that stay off, and what ``optimize`` is told beside."""
    rng = random.Random(c.seed)
    off = [name for name in ALL_BUT_EXPAND if rng.random() < 0.3]
    yield f"without {', '.join(off)}", off, {}
    single = sorted(set(fired) & set(ALL_BUT_EXPAND))
    for name in single if thorough else rng.sample(single, min(1, len(single))):
        yield f"without {name}", (name,), {}
    for lot in range(5 if thorough else 1):
        goal = any_goal(rng)
        yield f"with {goal}", (), {"goal": goal}
        yield f"drawn by lot {lot}", (), {"lot": lot}


def any_goal(rng: random.Random) -> Goal:
    """A machine and numbers of runs under which any alternative may look like the cheapest."""
    rates = {f: 10 ** rng.uniform(*((-9, -3) if default < 1 else (4, 12))) for f, default in RATES.items()}
    runs = {f: 10 ** rng.uniform(0, 6) for f in Frequency}
    return Goal(Machine(**rates), runs, rng.choice((None, 0, 1_000)))


RATES = {n: p.default for n, p in inspect.signature(Machine).parameters.items() if isinstance(p.default, float)}


@dataclass(frozen=True)
class Outcome:
    """What came of a seed: which rules fired how often, the plans that differ from the plain one, or an error."""

    seed: int
    fired: Counter[str]
    finite: bool = True
    problem: str = ""
    rejected: str = ""


def outcome(seed: int, thorough: bool = False) -> Outcome:
    """Plan and compute the model of a seed in all its settings, and compare."""
    try:
        c = case(seed)
    except mlsql.ProgrammingError as error:
        return Outcome(seed, Counter(), rejected=f"seed {seed}: {error}\n{model_text(seed)}")
    plain = planned(c, ALL_BUT_EXPAND)
    expected = computed(c, plain)
    finite = all(np.all(np.isfinite(v)) for v in expected.values())
    best = planned(c)
    fired = Counter(s.rule.name for s in best.steps)
    seen, problems = set[tuple[Node, ...]](), []
    others = [(name, planned(c, off, **o)) for name, off, o in settings(c, fired, thorough)]
    for name, p in [("all rules", best), *others]:
        fired |= Counter(s.rule.name for s in p.steps)
        outputs = tuple(p.plan.outputs.values())
        if outputs not in seen:
            seen.add(outputs)
            problems += [f"{name}: {d}" for d in differences(expected, computed(c, p))]
    return Outcome(seed, fired, finite, "\n".join([f"seed {seed}", c.text, *problems]) if problems else "")


def differences(expected: Mapping[str, Array], found: Mapping[str, Array]) -> list[str]:
    """The values that are not the same. What one side leaves out is zero; a stable form may have a value where the
    plain one has none, but not the other way round."""
    lines = []
    for name in {**expected, **found}:
        a, b = (np.asarray(side.get(name, 0.0)) for side in (expected, found))
        known = np.isfinite(a)
        size = np.where(known, a, 0.0)
        same = np.abs(size - np.where(known, b, 0.0)) <= TOLERANCE * np.maximum(1, np.abs(size))  # NaN is never
        if not np.all(same):
            lines.append(f"{name} is {b}, not {a}")
    return lines


def told(found: Collection[Outcome]) -> str:
    """All that is wrong, each with the rules without which it is right: those to look at first."""
    lines = []
    for o in found:
        if o.problem:
            c = case(o.seed)
            expected = computed(c, planned(c, ALL_BUT_EXPAND))
            names = sorted(set(o.fired) & set(ALL_BUT_EXPAND))
            right = [n for n in names if not differences(expected, computed(c, planned(c, (n,))))]
            lines += [o.problem, f"all is well without one of these: {', '.join(right) or 'none'}\n"]
    return "\n".join(lines)


@functools.cache
def outcomes(share: int) -> list[Outcome]:
    """The outcomes of one share of the seeds."""
    return [outcome(seed) for seed in range(share * SHARE, (share + 1) * SHARE)]


def all_outcomes() -> list[Outcome]:
    return [o for share in range(SEEDS // SHARE) for o in outcomes(share)]


# -- the tests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", range(SEEDS // SHARE))
def test_rules_change_no_loss_and_no_gradient(share: int) -> None:
    assert not told(outcomes(share))


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SEEDS // SHARE, 3 * SEEDS // SHARE))
def test_no_single_rule_changes_a_loss_or_a_gradient(share: int) -> None:
    """More seeds, with each rule that fires off by itself."""
    assert not told([outcome(seed, thorough=True) for seed in range(share * SHARE, (share + 1) * SHARE)])


def test_nearly_all_texts_are_models_with_finite_values() -> None:
    found = all_outcomes()
    rejected = [o.rejected for o in found if o.rejected]
    assert len(rejected) <= 0.05 * SEEDS, "\n\n".join(rejected)
    assert sum(not o.finite for o in found) <= 0.02 * SEEDS


def test_every_rule_fires() -> None:
    models = Counter(name for o in all_outcomes() for name in set(o.fired))
    times = sum((o.fired for o in all_outcomes()), Counter())
    print(f"\nof {SEEDS} models:", *(f"{r}: {n} ({times[r]} times)" for r, n in models.most_common()), sep="\n  ")
    assert [name for name, r in RULES.items() if name not in models and r.stage not in NOT_OF_TRAINING] == []


NOT_OF_TRAINING = {"query"}  # stages that no plan of a loss goes through


# -- that a wrong rule would be seen -----------------------------------------------------------------------------------


def larger(r: Rule) -> Rule:
    """The rule gone wrong: what it gives is half as large again."""

    def apply(*arguments: Any) -> Node | None:
        node = r.apply(*arguments)
        is_other = node is not None and node is not arguments[0] and node.type.element == DOUBLE
        return Multiply(node, like(1.5, node)) if is_other else node

    return replace(r, apply=apply)


BACK = {
    "aggregate_before_product": "aggregate_after_product",
    "aggregate_after_product": "aggregate_before_product",
}


def caught(name: str, wrong: Rule, where: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a wrong rule in place of the one of that name is shown by a model on which the rule ``where`` fires: by a
    value, or since the rules come to no end."""
    seeds = [o.seed for o in all_outcomes() if where in o.fired]
    monkeypatch.setitem(RULES, name, wrong)
    if name in BACK:  # there and back again a wrong value would be made of itself, which no plan can be drawn from
        monkeypatch.setitem(RULES, BACK[name], replace(RULES[BACK[name]], apply=lambda node: None))
    for seed in seeds:
        try:
            if outcome(seed).problem:
                return True
        except InternalError:
            return True
    return False


@pytest.mark.parametrize("name", [n for n, r in RULES.items() if r.stage not in ("prune", "share", *NOT_OF_TRAINING)])
def test_a_rule_gone_wrong_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert caught(name, larger(RULES[name]), name, monkeypatch)


def without_count(node: Node) -> Node | None:
    """group_join(x W + b) = group_join(x W) + b: right where every group has one row."""
    match node:
        case GroupJoin(Add(Contract() as y, b)) if b.type.rows == UNIT:
            return Add(node.with_inputs([y, *node.inputs[1:]]), b)
    return None


def without_weight(node: Node) -> Node | None:
    """group_join(x, i, j, w) = group_join(x, i, j): right where w is 1."""
    assert isinstance(node, GroupJoin)
    return node.weight and GroupJoin(node.x, node.source, node.group, node.rows, None, node.size)


def as_if_symmetric(node: Node) -> Node | None:
    """AᵀB = AB: right where A is symmetric."""
    assert isinstance(node, Contract)
    inputs = [n.x if isinstance(n, Transpose) else n for n in node.inputs]
    return node.with_inputs(inputs) if [n.type for n in inputs] == [n.type for n in node.inputs] else None


def without_sign(node: Node) -> Node | None:
    """x ** 3 = |x| ** 3: right where x is positive."""
    match node:
        case Power(x, Constant() as c) if c.value == 3 and x.type == node.type:
            return Multiply(Absolute(x), Multiply(x, x))
    return None


# which rule gives way to the law, on which models it is tried (those on which a rule fires), on which operator
SOMETIMES: Mapping[Callable[[Node], Node | None], tuple[str, str, type[Node]]] = {
    without_count: ("aggregate_first", "aggregate_first", GroupJoin),
    without_weight: ("aggregate_first", "join_and_group", GroupJoin),
    as_if_symmetric: ("contract_transposed", "contract_transposed", Contract),
    without_sign: ("power_to_product", "power_to_product", Power),
}


@pytest.mark.parametrize("law", SOMETIMES, ids=lambda law: law.__name__)
def test_a_law_that_holds_only_sometimes_is_caught(
    law: Callable[[Node], Node | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, where, operator = SOMETIMES[law]
    assert caught(name, replace(RULES[name], on=(operator,), apply=law), where, monkeypatch)
