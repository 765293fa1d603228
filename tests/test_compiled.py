"""Compiled training: the generated module does what interpreted steps do, for random models and every solver.

Most tests run the module's text as plain Python, number by number, with NumPy's functions in place of the compiled
ones: that shows whether the text is right. Some compile it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_text import Plain, PlainTrainer, turns_of
from random_models import bound, model_text, value

import mlsql
from mlsql.errors import ProgrammingError
from mlsql.executor.compiled import lower, tiles
from mlsql.executor.compiled.pace import Pace
from mlsql.executor.compiled.source import compiled
from mlsql.executor.compiled.trainer import CompiledTrainer
from mlsql.executor.initialize import draw
from mlsql.executor.train import Limits, LoopPlan, Stride, Tally, Trainer
from mlsql.optimizer.cost import Machine
from mlsql.parser import parse
from mlsql.planner.model import Model
from mlsql.planner.node import Node, walk
from mlsql.planner.ops import Column, Positions
from mlsql.session import compiling
from mlsql.session.training_plan import check_learnable, plan_training, read_settings
from mlsql.types import TypeProblem

__all__ = ["turns_of"]  # a fixture
Array = Any
SOLVERS = (
    "SGD (learning_rate = 0.01, batch_size = {b})",
    "SGD (learning_rate = 0.01, momentum = 0.9, nesterov = true, batch_size = {b})",
    "ADAM (batch_size = {b}, weight_decay = 0.01)",
    "ADAMW (batch_size = {b}, schedule = 'cosine', warmup_steps = 2)",
    "RMSPROP (batch_size = {b}, momentum = 0.5)",
    "ADAGRAD (batch_size = {b}, clip_norm = 0.1)",
    "GD (momentum = 0.9)",
)


# -- random models -----------------------------------------------------------------------------------------------------


def loop_of(seed: int) -> tuple[Model, LoopPlan, bool, int, int]:
    """A random model's training loop: the model, the plan, whether it is full-batch, its rows, its batch size."""
    rng = random.Random(~seed)
    model = bound(model_text(seed), rng)
    rows = model.rows.rows if model.skeleton is not None else rng.randint(1, 9)
    rows = rows or 9
    size = rng.randint(1, rows)
    solver = rng.choice(SOLVERS).format(b=size)
    (statement,) = parse(f"TRAIN m ON t WITH {solver}")
    settings = read_settings(statement)
    assert model.loss is not None
    check_learnable(model, model.loss, statement.model.place)
    loop = plan_training(model, settings, rows, rows, subset=False, machine=Machine()).loop
    return model, loop, settings.full_batch, rows, size


def trained(kind: type[Trainer], case: tuple[Model, LoopPlan, bool, int, int], seed: int, **options: Any) -> Trainer:
    """The trainer after two epochs."""
    trainer = fresh(kind, case, seed, **options)
    trainer.run(Limits(epochs=2))
    return trainer


def fresh(kind: type[Trainer], case: tuple[Model, LoopPlan, bool, int, int], seed: int, **options: Any) -> Any:
    """A trainer of the case."""
    model, loop, full, rows, size = case
    outputs = [loop.loss, loop.rate, *loop.updates.values()]
    columns = {n.name: value(n, seed) for n in walk(outputs) if isinstance(n, (Column, Positions))}
    first = {n: np.asarray(draw(p, seed)) for n, p in model.parameters.items()}
    constants: dict[Node, Array] = {p.node: first[n] for n, p in model.parameters.items()}
    batch = None if full or loop.index is None else size
    return kind(
        loop, columns, first, constants, batch_size=batch, table_rows=rows, seed=seed, stop_on_nan=False, **options
    )


def differences(expected: Trainer, found: Trainer, tolerance: float) -> list[str]:
    """Which states and losses are not close to one another, infinities and NaN being equal to themselves."""
    told = []
    pairs: list[tuple[str, Array, Array]] = [(s.name, a, found.states[s]) for s, a in expected.states.items()]
    losses = zip(expected.log, found.log, strict=True)
    pairs += [(f"loss {a.epoch}", np.array(a.loss), np.array(b.loss)) for a, b in losses]
    for name, a, b in pairs:
        if not np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True):
            told.append(f"{name}: {a} is not {b}")
    return told


def outcome(seed: int, kind: type[CompiledTrainer], tolerance: float = 2e-3, threads: int = 1) -> str:
    """What became of a seed: "the same", what differs, or why it is not compiled."""
    try:
        case = loop_of(seed)
    except (ProgrammingError, TypeProblem):
        return "no model"
    module = compiled(case[1], threads)
    if isinstance(module, str):
        return f"interpreted: {module}"
    expected = trained(Trainer, case, seed)
    runs = []
    for count in {1, threads}:
        runs.append(fresh(kind, case, seed, module=module, wait=True, notice=pytest.fail))
        runs[-1].pace = Pace([count])
        runs[-1].run(Limits(epochs=2))
    told = [*differences(expected, runs[0], tolerance), *differences(runs[0], runs[-1], 0.0)]
    return "\n".join(told) or "the same"


@pytest.mark.parametrize("share", range(5))
def test_the_text_of_random_models_is_right(share: int) -> None:
    check_texts(range(share * 25, share * 25 + 25), 1)


@pytest.mark.usefixtures("turns_of")
@pytest.mark.parametrize("share", range(5))
def test_the_text_for_several_threads_is_right(share: int) -> None:
    check_texts(range(share * 25, share * 25 + 25), 2)


def check_texts(seeds: Sequence[int], threads: int) -> list[int]:
    """Random models, of which most can be compiled, and these give what they should; returns which."""
    found = {seed: outcome(seed, PlainTrainer, threads=threads) for seed in seeds}
    wrong = {s: told for s, told in found.items() if told != "the same" and not told.startswith(("no model", "interp"))}
    assert not wrong, wrong
    right = [s for s, told in found.items() if told == "the same"]
    assert len(right) > 0.6 * len(seeds)
    return right


@pytest.fixture
def always_tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows at a time wherever kernels can run so, and products by BLAS, however small."""
    monkeypatch.setattr(tiles, "tile_rows", lambda *arguments: 2)
    monkeypatch.setattr(tiles.Group, "pays", lambda group, size, share, shares: True)
    monkeypatch.setattr(lower, "SMALL_PRODUCT", 1)


@pytest.mark.usefixtures("always_tiled", "turns_of")
@pytest.mark.parametrize("threads", (1, 2, 3))
def test_a_step_in_tiles_is_the_same_step(threads: int) -> None:
    seeds = check_texts(range(200, 240), threads)
    modules = [compiled(loop_of(s)[1], threads) for s in seeds]
    assert sum(not isinstance(m, str) and bool(m.tiles) for m in modules) > 20


@pytest.mark.usefixtures("always_tiled")
@pytest.mark.parametrize("threads", (1, 2))
@pytest.mark.parametrize("seed", (4, 17))
def test_compiled_tiles_do_what_their_text_says(seed: int, threads: int) -> None:
    assert outcome(seed, CompiledTrainer, threads=threads) == "the same"


@pytest.mark.parametrize("threads", (1, 2))
@pytest.mark.parametrize("seed", (1, 4, 11, 17, 20, 37))
def test_compiled_modules_do_what_their_text_says(seed: int, threads: int) -> None:
    assert outcome(seed, CompiledTrainer, threads=threads) == "the same"


@pytest.mark.slow
@pytest.mark.parametrize("share", range(8))
def test_many_compiled_modules_do_what_their_text_says(share: int) -> None:
    found = {seed: outcome(seed, CompiledTrainer, threads=1 + seed % 2) for seed in range(share * 25, share * 25 + 25)}
    assert not {s: t for s, t in found.items() if t != "the same" and not t.startswith(("no model", "interp"))}


def test_any_number_of_threads_gives_the_same_bits() -> None:
    case = loop_of(17)
    module = compiled(case[1], 3)
    assert not isinstance(module, str)
    runs = []
    for threads in (1, 2, 3):
        trainer = fresh(CompiledTrainer, case, 17, module=module, wait=True, notice=pytest.fail)
        trainer.pace = Pace([threads])
        trainer.run(Limits(epochs=3))
        runs.append(b"".join(a.tobytes() for a in trainer.states.values()))
    assert runs[0] == runs[1] == runs[2]


class Later:
    """A background process that is done when it has been asked so many times."""

    def __init__(self, source: str, polls: int) -> None:
        self.source, self.polls, self.failure = source, polls, None

    def is_done(self) -> bool:
        self.polls -= 1
        return self.polls < 0

    def module(self) -> Plain:
        return Plain(self.source)


SEED = 28  # of a model whose epoch has five batches


@pytest.mark.parametrize("polls", range(6))
def test_compiled_steps_take_over_between_any_two_batches(polls: int) -> None:
    class Switching(CompiledTrainer):
        def run(self, limits: Limits) -> Any:
            self.compiling = Later(self.module.source, polls)
            return Trainer.run(self, limits)

    case = loop_of(SEED)
    module = compiled(case[1])
    assert not isinstance(module, str)
    expected = trained(Trainer, case, SEED)
    found = trained(Switching, case, SEED, module=module, wait=False, notice=pytest.fail)
    assert not differences(expected, found, 1e-3)
    assert isinstance(found, Switching) and found.compiled_from == polls + 1


# -- how many threads --------------------------------------------------------------------------------------------------


def simulated(pace: Pace, seconds: Mapping[int, float], until: float) -> list[int]:
    """The threads of each stride, where a step takes so long on each number of threads."""
    chosen, now = [], 0.0
    while now < until:
        threads, steps = pace.next()
        chosen.append(threads)
        now += seconds[threads] * steps
        pace.took(threads, steps, seconds[threads] * steps)
    return chosen


def test_the_faster_number_of_threads_goes_on() -> None:
    for fast, slow in ((1, 2), (2, 1)):
        chosen = simulated(Pace([2, 1]), {fast: 1e-4, slow: 4e-4}, 20.0)
        assert chosen.count(slow) < 12 < chosen.count(fast)


def test_threads_that_have_their_cores_back_are_found() -> None:
    pace = Pace([2, 1])
    simulated(pace, {2: 4e-2, 1: 1e-4}, 5.0)
    assert pace.best == 1
    assert simulated(pace, {2: 5e-5, 1: 1e-4}, 10.0)[-1] == 2


# -- from SQL ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def net() -> mlsql.Connection:
    con = mlsql.connect()
    con.execute("CREATE TABLE t AS SELECT [sin(i), cos(i), i % 7]::FLOAT[3] AS x, i % 3 AS label FROM range(500) r(i)")
    con.execute(
        "CREATE MODEL net INPUT (x FLOAT[3]) TARGET (label INTEGER) AS SELECT TANH(LINEAR(x, 20)) AS h, "
        "LINEAR(h, 3) AS logits MINIMIZE AVG(CROSS_ENTROPY(logits, label))"
    )
    return con


TRAIN = "TRAIN net ON t FROM SCRATCH VALIDATE 20 PERCENT WITH ADAM (epochs = 3, seed = 1)"


def test_training_gives_the_same_compiled_and_interpreted(net: mlsql.Connection) -> None:
    found = {}
    for choice in ("never", "always"):
        net.execute(f"SET mlsql_compile = '{choice}'")
        found[choice] = net.execute(TRAIN).fetchone()
    assert found["never"][3:6] == found["always"][3:6]
    assert found["never"][6:8] == pytest.approx(found["always"][6:8], rel=1e-5)


def test_a_step_over_all_rows_that_fits_into_memory_in_tiles_only_is_compiled_at_once() -> None:
    con = mlsql.connect()
    con.execute("CREATE TABLE wide AS SELECT [i % 5, i % 7]::FLOAT[2] AS x, i % 3 AS label FROM range(100000) r(i)")
    con.execute(
        "CREATE MODEL wide_net INPUT (x FLOAT[2]) TARGET (label INTEGER) AS SELECT TANH(LINEAR(x, 64)) AS h, "
        "LINEAR(h, 3) AS logits MINIMIZE AVG(CROSS_ENTROPY(logits, label))"
    )
    run = "TRAIN wide_net ON wide FROM SCRATCH WITH GD (epochs = 2, learning_rate = 0.1, seed = 1)"
    lines = [line for (line,) in con.execute(f"EXPLAIN {run} MEMORY '8MB'").fetchall()]
    assert any("interpreted they do not fit into MEMORY" in line for line in lines)
    assert any("of these run together over tiles of" in line for line in lines)
    con.execute("SET mlsql_compile = 'never'")
    with pytest.raises(mlsql.OperationalError, match="does not fit into 8 MB"):
        con.execute(f"{run} MEMORY '8MB'")
    expected = con.execute(run).fetchone()
    con.execute("SET mlsql_compile = 'auto'")
    found = con.execute(f"{run} MEMORY '8MB'").fetchone()
    assert found[3:6] == expected[3:6] and found[6] == pytest.approx(expected[6], rel=1e-5)


def test_one_compiled_step_is_a_run(net: mlsql.Connection) -> None:
    net.execute("SET mlsql_compile = 'always'")
    columns = net.execute("TRAIN net ON t WITH GD (epochs = 1)").description
    [(steps, loss)] = net.execute("SELECT steps, loss FROM mlsql.training_runs").fetchall()
    assert columns and steps == 1 and math.isfinite(loss)


@given(st.lists(st.tuples(st.floats(width=64), st.integers(1, 1000)), min_size=1), st.randoms())
def test_the_losses_of_an_epoch_are_summed_to_the_same_bits_however_long_strides_are(
    steps: list[tuple[float, int]], random: random.Random
) -> None:
    tallies = Tally(), Tally()
    for at in range(len(steps)):
        tallies[0].add(Stride(*zip(steps[at], strict=True), 0.0))
    at = 0
    while at < len(steps):
        end = random.randint(at + 1, len(steps))
        losses, rows = (np.array(values) for values in zip(*steps[at:end], strict=True))
        with np.errstate(all="ignore"):
            tallies[1].add(Stride(losses, rows, 0.0))
        at = end
    assert tallies[0] == tallies[1] or math.isnan(tallies[0].total)
    assert all(type(t.total) is float and type(t.rows) is int for t in tallies)


def test_explain_tells_how_steps_run(net: mlsql.Connection) -> None:
    net.execute("SET mlsql_compile = 'always'")
    lines = [line for (line,) in net.execute(f"EXPLAIN {TRAIN}").fetchall()]
    assert any(line.startswith("compiled: all steps take about") for line in lines)
    assert any("loops and" in line and "matrix products" in line for line in lines)
    assert any(line.rstrip().endswith("BLAS") for line in lines) and any(" loop 1" in line for line in lines)
    code = "\n".join(line for (line,) in net.execute(f"EXPLAIN (CODE) {TRAIN}").fetchall())
    assert "def steps(" in code and "matmul(" in code and "# h = tanh(" in code
    slots = net.execute(f"EXPLAIN (MEMORY) {TRAIN}").fetchall()
    assert all(size > 0 for _, size, _ in slots)


def test_a_choice_that_is_none_is_an_error(net: mlsql.Connection) -> None:
    with pytest.raises(mlsql.ProgrammingError, match="mlsql_compile is 'auto', 'always' or 'never'"):
        net.execute("SET mlsql_compile = 'sometimes'")


@pytest.mark.parametrize(
    ("epochs", "is_there", "shares"),
    [
        *((1, (), 1), (1, (2,), 2), (1, (1, 2), 1)),
        *((10_000, (1, 2), 2), (100_000, (), 2), (100_000, (1,), 2)),
    ],
)
def test_threads_share_short_steps_where_that_pays(
    epochs: int, is_there: tuple[int, ...], shares: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they save is held against compiling longer, unless that code is there already."""
    monkeypatch.setattr(compiling, "cores", lambda: 2)
    monkeypatch.setattr(compiling, "loading", lambda module: 0.0 if module.team.shares in is_there else math.inf)
    with mlsql.connect(progress=False) as con:
        con.execute("CREATE TABLE rows AS SELECT [i % 7 for z in range(35)]::FLOAT[35] AS x, i % 2 = 0 AS y "
                    "FROM range(2560) r(i)")  # fmt: skip
        con.execute(
            "CREATE MODEL net INPUT (x FLOAT[35]) TARGET (y BOOLEAN) AS SELECT LINEAR(x, 1) AS score "
            "MINIMIZE AVG(BINARY_CROSS_ENTROPY(score, y))"
        )
        con.execute("SET mlsql_compile = 'always'")
        lines = con.execute(
            f"EXPLAIN (CODE) TRAIN net ON rows WITH SGD (batch_size = 256, epochs = {epochs})"
        ).fetchall()
    assert ("meet(gate, thread, threads)" in "\n".join(line for (line,) in lines)) == (shares == 2)
