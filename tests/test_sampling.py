"""SAMPLE: what is drawn, that small groups are whole, and that nothing is on average left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import mlsql
from mlsql.executor.kernels import group_rows
from mlsql.executor.sampling import group_sample, sample_there

SIZES = (1, 2, 5, 40, 0, 7)
GROUP = np.random.default_rng(0).permutation(np.repeat(np.arange(len(SIZES)), SIZES))  # the group of every row
MEMBERS = [set(np.flatnonzero(g == GROUP)) for g in range(len(SIZES))]
COUNT = 5


def drawn(index: list[int], step: int, seed: int = 3, count: int = COUNT) -> list[list[int]]:
    """The members that a step draws for each group of a batch."""
    groups = group_rows(GROUP, len(SIZES))
    slots, there = np.empty(len(index) * count, np.int64), np.empty(len(index) * count, bool)
    group_sample(np.array(index), groups, float(step), seed, count, slots)
    sample_there(np.array(index), groups, count, there)
    return [list(s[t]) for s, t in zip(slots.reshape(-1, count), there.reshape(-1, count), strict=True)]


def test_members_are_distinct_members_of_their_group() -> None:
    for step in range(50):
        for g, found in zip((3, 5, 2, 0, 4, 1), drawn([3, 5, 2, 0, 4, 1], step), strict=True):
            assert set(found) <= MEMBERS[g]
            assert len(found) == len(set(found)) == min(COUNT, SIZES[g])
            if SIZES[g] <= COUNT:
                assert found == sorted(MEMBERS[g])  # a small group is whole, in the order of its rows


def test_the_draw_is_of_the_seed_the_step_and_the_group() -> None:
    assert drawn([3, 5], 1) == drawn([3, 5], 1)
    assert drawn([5, 3], 1) == drawn([3, 5], 1)[::-1], "the place in the batch does not matter"
    assert len({tuple(drawn([3], step)[0]) for step in range(30)}) == 30
    assert len({tuple(drawn([3], 1, seed)[0]) for seed in range(30)}) == 30
    alike = np.repeat(np.arange(2), 20)  # groups of one size draw other places
    slots = np.empty(2 * COUNT, np.int64)
    group_sample(np.arange(2), group_rows(alike, 2), 1.0, 3, COUNT, slots)
    assert list(slots[:COUNT]) != list(slots[COUNT:] - 20)


@pytest.mark.parametrize("count", [1, 2, 5, 39])
def test_every_member_is_drawn_as_often(count: int) -> None:
    """4000 draws of ``count`` of 40: each member's share lies within five standard deviations; so do pairs'."""
    draws, size = 4000, SIZES[3]
    seen = np.zeros((draws, len(GROUP)), bool)
    for step in range(draws):
        seen[step, drawn([3], step, count=count)[0]] = True
    seen = seen[:, sorted(MEMBERS[3])]
    share = count / size
    np.testing.assert_allclose(seen.mean(axis=0), share, atol=5 * np.sqrt(share * (1 - share) / draws))
    pair = count * (count - 1) / (size * (size - 1))
    both = (seen.T.astype(float) @ seen)[~np.eye(size, dtype=bool)] / draws
    np.testing.assert_allclose(both, pair, atol=5 * np.sqrt(max(pair * (1 - pair), 1e-4) / draws))


def test_the_average_of_a_sample_is_not_biased() -> None:
    values = np.random.default_rng(1).normal(size=len(GROUP))
    means = [values[drawn([3], step)[0]].mean() for step in range(4000)]
    expected = values[sorted(MEMBERS[3])].mean()
    assert abs(np.mean(means) - expected) < 5 * np.std(means) / np.sqrt(len(means))


# -- in training -------------------------------------------------------------------------------------------------------

MODEL = """
CREATE MODEL m INPUT nodes (id BIGINT, x FLOAT[3]), edges (src BIGINT, dst BIGINT, w FLOAT) TARGET nodes (y FLOAT)
AS WITH
  around AS (SELECT e.dst AS id, AVG(n.x) AS x, MAX(n.x) AS h FROM edges e JOIN nodes n ON n.id = e.src GROUP BY e.dst),
  hidden AS (SELECT n.id, TANH(LINEAR(n.x, 4) + LINEAR(COALESCE(a.x, 0), 4) + LINEAR(COALESCE(a.h, 0), 4)) AS h
             FROM nodes n LEFT JOIN around a ON a.id = n.id),
  around_2 AS (SELECT e.dst AS id, SUM(e.w * n.h) AS h, COUNT(*) AS c
               FROM edges e JOIN hidden n ON n.id = e.src GROUP BY e.dst)
SELECT n.id, LINEAR(n.h, 1) + LINEAR(a.h, 1) + 0.1 * a.c AS prediction FROM hidden n JOIN around_2 a ON a.id = n.id
MINIMIZE AVG((prediction - y) ** 2)
"""
LOG = """
SELECT loss, validation_loss FROM mlsql.training_log
WHERE run_id = (SELECT max(run_id) FROM mlsql.training_log) ORDER BY epoch
"""


@pytest.fixture(scope="module")
def db() -> Iterator[Any]:
    """A graph of 40 nodes, most of which hear of 6 others; some hear of nobody."""
    rng = np.random.default_rng(2)
    src, dst = rng.integers(0, 40, 210), rng.integers(0, 35, 210)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    nodes = pa.table({
        "id": np.arange(40),
        "x": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 3),
        "y": np.sin(x.sum(axis=1)),
    })  # fmt: skip
    with mlsql.connect(progress=False) as connection:
        connection.register("nodes", nodes)
        connection.register("edges", pa.table({"src": src, "dst": dst, "w": rng.normal(size=210).astype(np.float32)}))
        connection.execute(MODEL)
        yield connection


def log(db: Any, clause: str, seed: int = 5, batch: int = 8) -> list[tuple[float, float]]:
    """The losses of a run from scratch."""
    db.execute(
        "TRAIN m ON nodes, edges VALIDATE 20 PERCENT FROM SCRATCH "
        f"WITH ADAM (learning_rate = 0.02, batch_size = {batch}, epochs = 4, seed = {seed}) {clause}"
    )
    found: list[tuple[float, float]] = db.execute(LOG).fetchall()
    return found


def test_fan_outs_of_the_largest_group_leave_nothing_out(db: Any) -> None:
    [(largest,)] = db.execute("SELECT max(n) FROM (SELECT count(*) AS n FROM edges GROUP BY dst)").fetchall()
    whole = log(db, "")
    np.testing.assert_allclose(log(db, f"SAMPLE {largest}, {largest}"), whole, rtol=1e-5)
    np.testing.assert_allclose(log(db, f"SAMPLE {largest + 3}"), whole, rtol=1e-5)
    assert not np.allclose(log(db, "SAMPLE 2, 2"), whole, rtol=1e-3)


def test_the_same_seed_draws_the_same(db: Any) -> None:
    first = log(db, "SAMPLE 2, 2")
    assert log(db, "SAMPLE 2, 2") == first
    assert log(db, "SAMPLE 2, 2", seed=6) != first


def test_the_loss_of_validation_is_over_whole_groups(db: Any) -> None:
    """With a rate of nearly zero it is what it is without SAMPLE, whatever is drawn."""
    run = "TRAIN m ON nodes, edges VALIDATE 20 PERCENT FROM SCRATCH WITH SGD (learning_rate = 1e-30, batch_size = 8)"
    losses = []
    for clause in ("", "SAMPLE 1, 1"):
        db.execute(f"{run} {clause}")
        losses.append([v for _, v in db.execute(LOG).fetchall()])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)
