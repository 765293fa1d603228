"""Functions that learn from the data, once, what they do to it: averages, quantiles, categories, keys.

DuckDB computes what they read; what they learn is stored with the version, as parameters that nothing changes and as
vocabularies. A ``Data`` argument is an SQL expression over the columns of INPUT, a ``Key`` one whose values are looked
up or buckets, a ``Feature`` anything that FEATURES can make numbers of.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..types import BIGINT, BOOLEAN, DOUBLE, FLOAT, INTEGER, Dim, Symbol, TypeProblem, total
from . import ops
from .data import Category, Data, Value, composed, one_hot
from .functions import Context, Size, function
from .model import Find
from .node import Node
from .ops import Concat, Constant, Reshape, Take

Key = Data | Category
Feature = Value | list[Data]
Numbers = list[float]
Filling = str | float
Unknown = str
Argument = Callable[[str], Any]  # reads itself as what it is asked for

# a NULL counts as the average; a column that never changes has no deviation, however its average is rounded
DEVIATION = "CASE WHEN min({v}) < max({v}) THEN stddev_pop({v}) * sqrt(count({v}) / count(*)) ELSE 0 END"
AVERAGE = "coalesce(avg({v}), 0)"
MEDIAN = "coalesce(median({v}), 0)"
MOST_FREQUENT = (  # of those that are as frequent, the smallest
    "coalesce(-list_reverse_sort(list_transform(map_entries(histogram({v})), "
    "lambda e: struct_pack(n := e.value, k := -e.key)))[1].k, 0)"
)
ONE_IF_ZERO = "coalesce(nullif({spread}, 0), 1)"  # a column that never changes is divided by 1
KEYS_OF_K: Any = Symbol("KEYS(k)")
MANY = 64  # categories from which on FEATURES learns a vector for each instead of a weight


def scaled(c: Context, x: Data, center: tuple[str, str], spread: tuple[str, str]) -> Node:
    """(x - center) / spread, each a label and an aggregate; computed in DOUBLE, as x may be far from 0."""
    where = c.statistic(x, *center)
    width = c.statistic(x, spread[0], ONE_IF_ZERO.replace("{spread}", spread[1]))
    out = ops.Divide(ops.Subtract(ops.cast(c.leaves.value(x), DOUBLE), where), width)
    return out if x.element == DOUBLE else ops.cast(out, FLOAT)


@function("STANDARD_SCALER")
def standard_scaler(c: Context, x: Data) -> Node:
    """(x - average) / standard deviation of the training rows; of a tensor, position by position."""
    return scaled(c, x, ("avg", AVERAGE), ("stddev", DEVIATION))


@function("MIN_MAX_SCALER")
def min_max_scaler(c: Context, x: Data) -> Node:
    """(x - minimum) / (maximum - minimum) of the training rows, from 0 to 1; of a tensor, position by position."""
    return scaled(c, x, ("min", "coalesce(min({v}), 0)"), ("range", "max({v}) - min({v})"))


@function("ROBUST_SCALER")
def robust_scaler(c: Context, x: Data) -> Node:
    """(x - median) / interquartile range of the training rows, which outliers hardly move; position by position."""
    spread = "quantile_cont({v}, 0.75) - quantile_cont({v}, 0.25)"
    return scaled(c, x, ("median", MEDIAN), ("interquartile_range", spread))


@function("IMPUTE")
def impute(c: Context, x: Data, value: Filling) -> Data:
    """x with NULLs filled: 'mean', 'median' or 'most_frequent' of the training rows, or a number."""
    aggregates = {"mean": ("avg", AVERAGE), "median": ("median", MEDIAN), "most_frequent": ("mode", MOST_FREQUENT)}
    if x.shape or x.element is None:
        raise TypeProblem(f"IMPUTE fills a number, and {x.text} is none", hint="COALESCE(column, 'a value') fills text")
    if not isinstance(value, str):
        return composed(f"coalesce({{0}}, {value!r})", x, element=DOUBLE)
    if value not in aggregates:
        raise TypeProblem(f"IMPUTE fills with 'mean', 'median', 'most_frequent' or a number, not '{value}'")
    filling = c.statistic(x, *aggregates[value])
    return replace(x, element=DOUBLE, fill=filling.name)


@function("ONE_HOT")
def one_hot_of(c: Context, k: Argument, size: Size = KEYS_OF_K) -> Node:
    """A vector of zeros with a 1 at position k, counted from 0. Without a size k is any column: its sorted distinct
    values in the training rows are the positions, and a value that is none of them gives zeros."""
    if size is KEYS_OF_K:
        return one_hot(category(c, k("Key")))
    return ops.Place(ops.one(), k("Node"), size)  # type: ignore[arg-type]


def category(c: Context, key: Key) -> Category:
    """A key as one of its categories."""
    return key if isinstance(key, Category) else c.leaves.category(key)


@function("HASH_BUCKET")
def hash_bucket(c: Context, x: Data, size: int) -> Data:
    """One of ``size`` buckets by a hash (MD5) of x as text: categories without a vocabulary. By itself one-hot."""
    if size < 1:
        raise TypeProblem(f"HASH_BUCKET needs at least 1 bucket, not {size}")
    hashed = composed(f"CAST(md5_number(CAST({{0}} AS VARCHAR)) % {size} AS BIGINT)", x, element=BIGINT, size=size)
    return replace(hashed, text=f"HASH_BUCKET({x.text}, {size})")


@function("FEATURE_CROSS")
def feature_cross(c: Context, *x: Data) -> Data:
    """Every combination of values that the training rows have, as one category. By itself one-hot."""
    if len(x) < 2:
        raise TypeProblem("FEATURE_CROSS takes at least two columns")
    parts = ", ".join(f"CAST({{{i}}} AS VARCHAR)" for i in range(len(x)))
    crossed = composed(f"CAST(json_array({parts}) AS VARCHAR)", *x)
    return replace(crossed, text=f"FEATURE_CROSS({', '.join(p.text for p in x)})")


@function("BUCKETIZE")
def bucketize(c: Context, x: Data, boundaries: Numbers) -> Data:
    """The bucket that x falls into: one more than boundaries, each from a boundary up to below the next. By itself
    one-hot; NULL is in none."""
    if not boundaries or any(a >= b for a, b in itertools.pairwise(boundaries)):
        raise TypeProblem("BUCKETIZE takes boundaries in rising order", hint="BUCKETIZE(x, [18, 30, 65])")
    if x.element is None or x.shape:
        raise TypeProblem(f"BUCKETIZE takes a number, and {x.text} is none")
    cases = " ".join(f"WHEN {{0}} < {b!r} THEN {i}" for i, b in enumerate(boundaries))
    sql = f"CASE WHEN {{0}} IS NULL THEN NULL {cases} ELSE {len(boundaries)} END"
    words = ", ".join(f"{b:g}" for b in boundaries)
    cut = composed(sql, x, element=BIGINT, size=len(boundaries) + 1)
    return replace(cut, text=f"BUCKETIZE({x.text}, [{words}])")


@function("QUANTILE_BUCKETIZE")
def quantile_bucketize(c: Context, x: Data, size: int) -> Category:
    """One of ``size`` buckets that hold equally many training rows each. By itself one-hot."""
    if size < 2:
        raise TypeProblem(f"QUANTILE_BUCKETIZE needs at least 2 buckets, not {size}")
    if x.shape:
        raise TypeProblem(f"QUANTILE_BUCKETIZE takes a number, and {x.text} is none")
    shares = ", ".join(f"{i} / {size}" for i in range(1, size))
    empty = ", ".join(["0"] * (size - 1))
    bounds = c.statistic(x, f"quantiles_{size}", f"coalesce(quantile_cont({{v}}, [{shares}]), [{empty}])", (size - 1,))
    above = ops.GreaterEqual(ops.cast(c.leaves.value(x), DOUBLE), bounds)
    bucket = ops.cast(Reshape(ops.Sum(ops.cast(above, FLOAT), False, (0,)), ()), BIGINT)
    return Category(bucket, bucket, ops.one(), size)


@function("EMBED")
def embed(c: Context, key: Key, size: int, unknown: Unknown = "ZEROS") -> Node:
    """A learned vector for every key that the training rows have: a row of the table ``embedding``. A key that they do
    not have, and NULL, give zeros, the average vector (UNKNOWN MEAN), or an error (UNKNOWN ERROR)."""
    if size < 1:
        raise TypeProblem(f"a size must be at least 1, not {size}")
    return embedded(c, key, size, "embedding", unknown)


def embedded(c: Context, key: Key, size: int, role: str, unknown: str) -> Node:
    """The rows of a table of parameters by key. The table's last row is that of unknown keys."""
    if unknown == "ERROR" and isinstance(key, Data):
        rows: Dim = c.leaves.keys(key) if key.size is None else key.size
        row = c.leaves.found(key, Find.KEY) if key.size is None else c.leaves.value(key)
        return Take(c.parameter(role, (rows, size), "NORMAL", (0.1,)), row)
    found = category(c, key)
    last = "MEAN" if unknown == "MEAN" else "ZEROS"
    table = c.parameter(role, (total(found.size, 1), size), "NORMAL", (0.1,), unknown=last)
    taken = Take(table, found.row)
    # the row of what is unknown is no key's: rows without a key teach it nothing
    return taken if unknown == "MEAN" or isinstance(found.known, Constant) else ops.Multiply(found.known, taken)


# -- FEATURES ----------------------------------------------------------------------------------------------------------


@function("FEATURES")
def features(c: Context, *x: Feature) -> Node:
    """One vector of all that is given: numbers standardized with NULLs at the average, categories one-hot (embedded if
    there are more than 64), dates taken apart, each with a flag for NULL where the training rows have NULLs.
    ``*`` and ``* EXCLUDE (a, b)`` are the columns of INPUT."""
    given = [v for item in x for v in (item if isinstance(item, list) else [item])]
    if not given:
        raise TypeProblem("FEATURES needs at least one column")
    parts = [ops.cast(as_vector(n), FLOAT) for value in given for n in encoded(c, value)]
    return Concat(tuple(parts), 0)


def as_vector(x: Node) -> Node:
    """The numbers of one row's entry as a vector."""
    if x.type.rank == 1:
        return x
    size = x.type.entry_size
    if size is None:
        raise TypeProblem("a matrix whose size is known only from data is no feature")
    return Reshape(x, (size,))


def encoded(c: Context, value: Value) -> list[Node]:
    """The numbers that one of the arguments becomes."""
    if isinstance(value, Category):
        return [one_hot(value)]
    if isinstance(value, Node):
        return [*c.number(value)]
    if value.shape:
        return [standard_scaler(c, value)]
    if value.size is not None:
        return [categories(c, value)]
    date = next((parts for prefix, parts in DATES.items() if value.declared.upper().startswith(prefix)), None)
    if date is not None:
        numbers = [composed(f"{part}({{0}})", value, element=INTEGER) for part in date]
        return [*(standardized(c, n) for n in numbers), *null_flag(c, value)]
    if value.element is None:
        return [categories(c, value), *null_flag(c, value)]
    if value.element.kind == "boolean":
        flag = composed("coalesce({0}, FALSE)", value, element=value.element)
        return [c.leaves.value(flag), *null_flag(c, value)]
    return [standardized(c, value), *null_flag(c, value)]


DAY = ("year", "month", "day", "dayofweek", "dayofyear")
DATES = {"TIMESTAMP": (*DAY, "hour"), "DATETIME": (*DAY, "hour"), "DATE": DAY}  # by how the type begins


def standardized(c: Context, x: Data) -> Node:
    """A number with its NULLs at the average, minus the average, by the standard deviation."""
    if x.fill is not None:
        return scaled(c, x, ("avg", AVERAGE), ("stddev", DEVIATION))
    average = c.statistic(x, "avg", AVERAGE)  # which is also that of the filled column
    deviation = c.statistic(x, "stddev", ONE_IF_ZERO.replace("{spread}", DEVIATION))
    filled = c.leaves.value(replace(x, element=DOUBLE, fill=average.name))
    return ops.cast(ops.Divide(ops.Subtract(filled, average), deviation), FLOAT)


def null_flag(c: Context, x: Data) -> list[Node]:
    """1 where the value is NULL, else 0, if some training rows have NULL and others have not."""
    is_null = composed("{0} IS NULL", replace(x, fill=None), element=BOOLEAN)
    kinds = c.leaves.keys(is_null)
    if isinstance(kinds, Symbol):
        return [c.leaves.open(f"NULLs of {x.text}", is_null, Symbol(f"NULLS({x.text})"))]
    return [c.leaves.value(is_null)] if kinds == 2 else []


def categories(c: Context, x: Data) -> Node:
    """One-hot, or a learned vector if there are many categories; its size is fast.ai's rule of thumb."""
    size = c.leaves.keys(x) if x.size is None else x.size
    if isinstance(size, Symbol):
        return c.leaves.open(f"categories of {x.text}", x, size)
    if size <= MANY:
        return one_hot(c.leaves.category(x))
    return embedded(c, x, min(50, round(1.6 * size**0.56)), f"{x.text}.embedding", "ZEROS")
