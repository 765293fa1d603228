"""Orders that are computed: each holds every row once, and they are as random as training would notice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mlsql.executor import feed, shuffle
from mlsql.executor.device import Array
from mlsql.executor.feed import InMemory
from mlsql.executor.shuffle import Orders

LABELS = {
    "sorted": lambda i, n: i < n // 2,
    "alternating": lambda i, n: i % 2 == 0,
    "in blocks": lambda i, n: i // 100 % 2 == 0,
    "a side of the table": lambda i, n: i % (int(np.sqrt(n - 1)) + 1) < np.sqrt(n) / 2,
}


def drawn(rows: int, rng: np.random.Generator) -> Array:
    return Orders(rows, rng).draw()


@given(st.integers(0, 3000), st.integers(0, 2**32))
def test_every_row_comes_once(rows: int, seed: int) -> None:
    assert np.array_equal(np.sort(drawn(rows, np.random.default_rng(seed))), np.arange(rows))


def test_a_seed_gives_one_order_and_the_next_epoch_another() -> None:
    rng, same = (np.random.default_rng(3) for _ in range(2))
    first = drawn(10_000, rng)
    np.testing.assert_array_equal(first, drawn(10_000, same))
    assert (drawn(10_000, rng) == first).mean() < 0.01


def test_every_row_is_as_likely_to_come_first() -> None:
    rng = np.random.default_rng(5)
    first = [drawn(1000, rng)[0] for _ in range(5000)]
    assert stats.chisquare(np.bincount(first, minlength=1000)).pvalue > 0.001


def test_neighbours_stay_neighbours_as_rarely_as_by_chance() -> None:
    rng = np.random.default_rng(6)
    counts = [(np.abs(np.diff(drawn(1000, rng))) == 1).sum() for _ in range(4000)]
    assert np.mean(counts) == pytest.approx(2, abs=5 * np.sqrt(2 / 4000))


@pytest.mark.parametrize("name", LABELS)
def test_batches_hold_as_many_of_a_label_as_by_chance(name: str) -> None:
    rows, batch, rng = 100_000, 250, np.random.default_rng(7)
    labels = LABELS[name](np.arange(rows), rows)
    share = labels.mean()
    expected = batch * share * (1 - share) * (rows - batch) / (rows - 1)
    found = np.mean([labels[drawn(rows, rng)].reshape(-1, batch).sum(1).var() for _ in range(40)])
    assert found / expected == pytest.approx(1, abs=5 * np.sqrt(2 / (40 * rows / batch)))


def test_fewer_rounds_would_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffle, "ROUNDS", 4)
    shuffle.code.cache_clear()
    try:
        with pytest.raises(AssertionError):
            test_neighbours_stay_neighbours_as_rarely_as_by_chance()
    finally:
        shuffle.code.cache_clear()


@pytest.mark.parametrize(
    "positions", [np.arange(5000), np.arange(0, 10_000, 2), np.arange(3, 5003)], ids=["all", "every other", "a range"]
)
def test_epochs_of_a_large_table_take_its_rows_in_new_orders(positions: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MANY_ROWS", 1000)
    rows = InMemory({}, positions, 100, shuffle=True, seed=1)
    seen: list[Array] = []
    for _ in range(4):
        for block in rows.blocks():
            assert np.array_equal(np.sort(block.order), positions)
            seen.append(block.order.copy())
    rows.close()
    assert all((a == b).mean() < 0.05 for i, a in enumerate(seen) for b in seen[:i])
