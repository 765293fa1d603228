"""Where a rising function crosses a value, exactly: in the numbers of its own type, by its own kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..planner.ops import Column
from ..planner.plan import Plan
from .device import Array
from .run import executable, leaves, resized

WAYS = 4096  # points at which the function is computed at a time
AROUND = 2048  # numbers on each side of the crossing at which it is checked


def crossing(plan: Plan, column: Column, reached: Callable[[Array], Array]) -> float | None:
    """The smallest value of the plan's column for which ``reached`` holds of its one output; infinity stands for none.

    None if the kernels do not rise around it, as rounding may have it.
    """
    type_ = np.dtype(column.type.element.storage)
    [output], part = resized(list(plan.outputs.values()), column.type.rows, WAYS)
    column = Column(column.name, part, column.element)
    run = executable([output], varying=leaves([output]))
    low, high = _number(type_.type("-inf")), _number(type_.type("inf"))

    def holds(numbers: Array) -> Array:
        values = _value(numbers, type_)
        with np.errstate(all="ignore"):
            return reached(np.array(run.bind({column: values}, {part: len(values)})()[0]))

    if not holds(np.array([high]))[0]:
        return float("nan")
    while low < high:
        points = np.linspace(low, high, WAYS - 1).astype(np.int64).clip(low, high)
        points = np.unique(np.append(points, high))
        first = int(holds(points).argmax())
        high, low = int(points[first]), int(points[first - 1]) + 1 if first else int(points[first])
    around = np.arange(max(high - AROUND, _number(type_.type("-inf"))), min(high + AROUND, _number(type_.type("inf"))))
    if not np.array_equal(holds(around), around >= high):
        return None
    return float(_value(np.array([high]), type_)[0])


def neighbours(value: float, storage: str) -> Array:
    """A number of a type and those beside it, rising."""
    middle = _number(np.dtype(storage).type(value))
    return _value(np.arange(middle - 2, middle + 3), np.dtype(storage))


def _number(value: Array) -> int:
    """The place of a number among all numbers of its type."""
    bits = int(np.asarray(value).view(f"i{value.dtype.itemsize}"))
    return bits if bits >= 0 else -(bits & (2 ** (8 * value.dtype.itemsize - 1) - 1))


def _value(places: Array, type_: np.dtype[np.generic]) -> Array:
    """The numbers at some places."""
    bits = f"i{type_.itemsize}"
    size = np.abs(places).astype(bits).view(type_)
    return np.where(places < 0, -size, size).astype(type_)
