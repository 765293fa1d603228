"""Training and prediction of one model for every group of rows: which rows fill the slots of each group, step by step.

The plans that run here are those of ``autodiff/per_group.py``. A group's rows lie in as many slots a step as any
group's; a group with fewer rows repeats its first, in slots that do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import DataError, suggest
from ..planner.model import DataColumn
from ..planner.node import Node
from ..planner.ops import Column, Positions
from ..planner.plan import Plan
from ..record import record
from ..types import RowSet, concrete
from .dataset import balanced_weights, split_positions
from .device import Array
from .load import to_arrow
from .predict import Predictor
from .run import executable, leaves
from .train import LoopPlan, Trainer

SLOTS, REAL, NUMBERS = "slots", "real", "group number"  # what the positions of a plan by groups are called
GATHERED_NUMBERS = 50_000  # parameters that are copied to their rows in the time that one more group takes by itself


def rows_by_group(numbers: Array, chosen: Array | None, groups: int) -> list[Array]:
    """The rows of each group in the table's order, of all rows or the chosen ones."""
    rows = np.arange(len(numbers)) if chosen is None else chosen
    order = rows[np.argsort(numbers[rows], kind="stable")]
    return np.split(order, np.cumsum(np.bincount(numbers[rows], minlength=groups))[:-1])


def split_by_group(numbers: Array, groups: int, percent: float, seed: int) -> tuple[Array, Array]:
    """The positions of the rows that are kept and of a random share of each group's rows that is held out, the rows
    that would be if the group were alone, each in order."""
    kept, held = [], []
    for rows in rows_by_group(numbers, None, groups):
        stay, out = split_positions(len(rows), percent, seed)
        kept.append(rows[stay])
        held.append(rows[out])
    return np.sort(np.concatenate(kept)), np.sort(np.concatenate(held))


def balanced_by_group(labels: Array, numbers: Array) -> Array:
    """A weight for each row so that within a group all its classes count the same."""
    weights = np.empty(len(labels), np.float32)
    for rows in rows_by_group(numbers, None, int(numbers.max(initial=0)) + 1):
        weights[rows] = balanced_weights(labels[rows])
    return weights


class Slots:
    """The rows of groups, seen as slots: a group of n rows fills its first n, and repeats a row of its own behind."""

    def __init__(self, rows: Sequence[Array]) -> None:
        self.sizes = np.array([len(r) for r in rows])
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.everything = np.append(np.concatenate(rows), 0)  # a group without rows finds something to read, too

    def window(self, first: int, width: int) -> tuple[Array, Array]:
        """The row in each of ``width`` slots from ``first`` on, and whether the slot counts, group after group."""
        place = np.arange(first, first + width)
        real = place < self.sizes[:, None]
        rows = self.everything[self.starts[:, None] + np.where(real, place, 0)]
        return rows.reshape(-1), real.astype(np.int64).reshape(-1)


def positions(rows: Sequence[Array], width: int) -> dict[str, Array]:
    """The positions that a plan by groups reads, by name, where ``width`` slots a group hold all its rows."""
    slots, real = Slots(rows).window(0, width)
    return {SLOTS: slots, REAL: real, NUMBERS: np.arange(len(rows))}


class GroupTrainer(Trainer):
    """Runs a loop plan in which every group has weights of its own.

    ``groups`` are the rows of each group, ``width`` the slots that each has in a step. Every group's rows are
    shuffled as they would be if the group were alone.
    """

    def __init__(
        self,
        plan: LoopPlan,
        columns: Mapping[str, Array],
        initial: Mapping[str, Array],
        constants: Mapping[Node, Array],
        *,
        groups: Sequence[Array],
        width: int,
        seed: int,
        **options: Any,
    ) -> None:
        self.groups, self.width = groups, width
        self.streams = [np.random.default_rng([seed, 1]) for _ in groups]
        self.positions = positions(groups, width)
        super().__init__(plan, columns, initial, constants, rows=np.concatenate(groups), seed=seed, **options)

    def column(self, leaf: Node) -> Array:
        return self.positions[leaf.name] if isinstance(leaf, Positions) else super().column(leaf)

    def row_counts(self, row_sets: Iterable[RowSet], batch_rows: int) -> dict[RowSet, int]:
        """Those of a whole batch: slots that do not count fill it up."""
        return super().row_counts(row_sets, len(self.groups) * self.width)

    def frame(self, rows: int) -> Any:
        """One step() for all."""
        return super().frame(len(self.groups) * self.width)

    def rows_of(self, batch: tuple[Any, ...]) -> int:
        return int(batch[1].sum()) if batch else self.feed.rows

    @property
    def steps_per_epoch(self) -> int:
        return -(-max(map(len, self.groups)) // self.width)

    def batches(self) -> Iterator[tuple[Any, ...]]:
        if self.plan.index is None:
            yield ()
            return
        shuffled = zip(self.streams, self.groups, strict=True)
        order = [stream.permutation(rows) for stream, rows in shuffled] if self.shuffle else self.groups
        slots = Slots(order)
        for step in range(self.steps_per_epoch):
            yield slots.window(step * self.width, self.width)


def group_validation(
    plan: Plan, columns: Mapping[str, Array], groups: Sequence[Array], width: int
) -> Callable[[Mapping[Node, Array]], float]:
    """The loss on held-out rows as a function of the states, all groups at once."""
    fixed = positions(groups, width)
    nodes = list(plan.outputs.values())
    read = leaves(nodes)
    run = executable(nodes, varying=read)
    data: dict[Node, Array] = {n: columns[n.name] for n in read if isinstance(n, Column)}
    data |= {n: fixed[n.name] for n in read if isinstance(n, Positions)}
    counts = {r: r.rows or 1 for r in run.program.row_counts}

    def loss(states: Mapping[Node, Array]) -> float:
        return float(run.bind({**states, **data}, counts)()[0])

    return loss


def stacked_parameters(first: Array, known: Array | None, places: Sequence[int | None]) -> Array:
    """A parameter of every group: group i has entry ``places[i]`` of ``known``, or ``first`` if there is none."""
    out = np.repeat(first[None], len(places), axis=0)
    if known is not None:
        for i, place in enumerate(places):
            if place is not None:
                out[i] = known[place]
    return out


@record
class GroupParameters:
    """What every group has learned, of shape (groups, *shape), and what all of them share."""

    stacked: Mapping[Node, Array]
    shared: Mapping[Node, Array]

    def of(self, group: int) -> dict[Node, Array]:
        """The parameters of one group."""
        return {**self.shared, **{node: array[group] for node, array in self.stacked.items()}}

    @property
    def size(self) -> int:
        """Numbers that one group has learned."""
        return sum(a[:1].size for a in self.stacked.values())


class GroupPredictor:
    """The outputs of a model of every group for columns of Arrow, of which the last holds the row's group as text.

    ``names`` are the groups in their order. With ``nulls`` a row of a group that training has not seen gives NULL,
    without it it raises DataError.
    """

    def __init__(self, rows: _ByNumber, names: Sequence[str]) -> None:
        self.rows, self.names = rows, pa.array(names, pa.string())

    def __call__(self, *columns: pa.Array | pa.ChunkedArray) -> dict[str, pa.Array]:
        """The outputs by name, one row for each row of the columns."""
        from pyarrow import compute

        *inputs, keys = columns
        numbers = compute.index_in(keys, value_set=self.names)
        if numbers.null_count and not self.rows.nulls:
            key = keys.filter(numbers.is_null())[0].as_py()
            known = self.names.to_pylist()
            hint = suggest(key, known) or f"groups are {', '.join(known[:5])}{', ...' if len(known) > 5 else ''}"
            raise DataError(f"the group {key} is none of those that the model was trained on", hint=hint)
        return self.rows(*inputs, numbers)


class _ByNumber(Predictor):
    """A predictor whose last input is the number of the row's group. It has no plan of its own but two predictors.

    Rows are predicted group by group, each with its group's parameters, or all at once with every row reading its
    own: whichever is faster for the groups and the parameters of a chunk.
    """

    def __init__(self, one: Predictor, rows: Predictor | None, number: Column, parameters: GroupParameters) -> None:
        self.one, self.all_at_once, self.by_group, self.number = one, rows, parameters, number.name
        self.names, self.types, self.classes, self.nulls = one.names, one.types, one.classes, one.nulls
        self.lookups, self.fillings = one.lookups, one.fillings
        self.inputs = [*one.inputs, as_it_is(number)]
        self.may_be_null = [*one.may_be_null, False]

    def chunk(self, arrays: Mapping[str, Array], rows: int, start: int) -> list[pa.Array]:
        numbers = arrays[self.number]
        groups = np.unique(numbers)
        if self.all_at_once is not None and len(numbers) * self.by_group.size <= len(groups) * GATHERED_NUMBERS:
            return self.all_at_once.chunk(arrays, rows, start)
        count = len(numbers)
        out = [np.empty((count, *concrete(t.shape)), t.element.storage) for t in self.types]
        order = np.argsort(numbers, kind="stable")
        for chosen in np.split(order, np.searchsorted(numbers[order], groups)[1:]):
            mine = {name: a[chosen] for name, a in arrays.items()}
            values = self.one.values(mine, self.by_group.of(int(numbers[chosen[0]])), len(chosen))
            for whole, part in zip(out, values, strict=True):
                whole[chosen] = part
        return [to_arrow(v, t, count, self.classes.get(n)) for v, (n, t) in zip(out, self.named(), strict=True)]


def as_it_is(column: Column) -> tuple[DataColumn, ...]:
    """A column of Arrow that is read as it is."""
    return (DataColumn(column, "{0}", (column.name,)),)


def group_predictor(
    one: Predictor, rows: Predictor | None, number: Column, parameters: GroupParameters, names: Sequence[str]
) -> GroupPredictor:
    """``one`` predicts rows of a group that share its parameters; ``rows``, where there is one, takes rows of any
    groups, with ``number`` as the last input."""
    return GroupPredictor(_ByNumber(one, rows, number, parameters), names)
