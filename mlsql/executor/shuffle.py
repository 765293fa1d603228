"""Random orders of many rows, faster than one swap after another all over memory.

Every row draws a bucket, the buckets follow one another, and each is shuffled by itself, in the cache: every order is
as likely as any other (Rao, "Generation of random permutations of given number of elements using random sampling
numbers", 1961; Sandelius, "A simple randomization procedure", 1962).
"""

from __future__ import annotations

import numpy as np

from .device import Array
from .kernels import compiled

BUCKET_ROWS = 4096  # rows of a bucket, on average: 32 kB of positions


@compiled()
def _shuffle(rows: Array, keys: Array, draws: Array, starts: Array, out: Array) -> None:
    buckets = starts.shape[0] - 1
    for i in range(rows.shape[0]):
        starts[keys[i] + 1] += 1
    for b in range(buckets):
        starts[b + 1] += starts[b]
    place = starts[:-1].copy()
    for i in range(rows.shape[0]):
        k = keys[i]
        out[place[k]] = rows[i]
        place[k] += 1
    for b in range(buckets):
        first = starts[b]
        for i in range(starts[b + 1] - first - 1, 0, -1):  # Fisher and Yates; the draw is scaled to 0 .. i
            j = np.int64((np.uint64(draws[first + i]) * np.uint64(i + 1)) >> np.uint64(32))
            row = out[first + i]
            out[first + i] = out[first + j]
            out[first + j] = row


def shuffled(rows: Array, rng: np.random.Generator) -> Array:
    """The positions ``rows`` (int64) in a random order."""
    count = len(rows)
    buckets = max(1, min(1 << 16, count // BUCKET_ROWS))
    keys = rng.integers(0, buckets, count, np.uint16)
    draws = rng.integers(0, 1 << 32, count, np.uint32)
    out = np.empty(count, np.int64)
    _shuffle(rows, keys, draws, np.zeros(buckets + 1, np.int64), out)
    return out
