"""Kernels that sample the members of groups."""

from __future__ import annotations

from typing import Any

import numpy as np

from .device import Array
from .kernels import Groups, compiled


@compiled()
def _next(state: Any) -> Any:
    """SplitMix64's next state and number (Steele, Lea and Flood, 2014)."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    z = state
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state, z ^ (z >> np.uint64(31))


@compiled()
def _sample(index: Array, starts: Array, order: Array, step: int, seed: int, count: int, out: Array) -> None:
    """Reservoir sampling of each group (Vitter, "Random Sampling with a Reservoir", 1985)."""
    for i, g in enumerate(index):
        start, size = starts[g], starts[g + 1] - starts[g]
        base = i * count
        state, _ = _next(np.uint64(seed) ^ np.uint64(step) * np.uint64(0x9E3779B97F4A7C15))
        state ^= np.uint64(g) * np.uint64(0xD1B54A32D192ED03)
        for k in range(count):
            out[base + k] = order[start + k] if k < size else 0
        for k in range(count, size):
            state, number = _next(state)
            slot = number % np.uint64(k + 1)
            if slot < np.uint64(count):
                out[base + np.int64(slot)] = order[start + k]


def group_sample(index: Array, groups: Groups, step: float, seed: int, count: int, out: Array) -> None:
    """At most ``count`` members of each group of ``index``, drawn without replacement; 0 in the slots that are left."""
    _sample(index, groups.starts, groups.order, int(step), seed, count, out)


def sample_there(index: Array, groups: Groups, count: int, out: Array) -> None:
    """Which slots hold a member."""
    sizes = (groups.starts[1:] - groups.starts[:-1]).take(index)
    np.less(np.arange(count), sizes[:, None], out=out.reshape(len(index), count))


def sample_slots(count: int, out: Array) -> None:
    """The group of the batch that each slot belongs to."""
    np.floor_divide(np.arange(len(out)), count, out=out)
