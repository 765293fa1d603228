"""First values of parameters, drawn from a seed: each from a stream of its own, so that adding one changes no other."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable

import numpy as np

from ..errors import ProgrammingError
from ..planner.model import Initial, ModelParameter
from ..types import concrete
from .device import Array

Draw = Callable[[np.random.Generator, tuple[int, ...], Initial], Array]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many inputs and outputs a weight connects: its first and its last size."""
    return (shape[0] if shape else 1), (shape[-1] if len(shape) > 1 else 1)


def xavier(rng: np.random.Generator, shape: tuple[int, ...], initial: Initial) -> Array:
    """Uniform within sqrt(6 / (inputs + outputs)) (Glorot and Bengio, 2010)."""
    limit = math.sqrt(6 / sum(fans(shape)))
    return rng.uniform(-limit, limit, shape)


def he(rng: np.random.Generator, shape: tuple[int, ...], initial: Initial) -> Array:
    """Uniform within sqrt(6 / inputs), for layers before a rectifier (He et al., 2015)."""
    limit = math.sqrt(6 / fans(shape)[0])
    return rng.uniform(-limit, limit, shape)


def literal(rng: np.random.Generator, shape: tuple[int, ...], initial: Initial) -> Array:
    """The values that the declaration gives; a single number fills the tensor."""
    values = np.array(initial.value, dtype=float)
    if values.shape not in ((), shape):
        raise ProgrammingError(f"INIT gives a tensor of {values.shape} for a parameter of {shape}")
    return np.broadcast_to(values, shape)


INITIALIZERS: dict[str, Draw] = {
    "XAVIER": xavier,
    "HE": he,
    "LITERAL": literal,
    "ZEROS": lambda rng, shape, initial: np.zeros(shape),
    "ONES": lambda rng, shape, initial: np.ones(shape),
    "NORMAL": lambda rng, shape, initial: rng.normal(0, initial.arguments[0], shape),
    "UNIFORM": lambda rng, shape, initial: rng.uniform(initial.arguments[0], initial.arguments[1], shape),
}


def draw(parameter: ModelParameter, seed: int) -> Array:
    """The first value of a parameter for a seed. The same seed and name give the same bits."""
    node = parameter.node
    rng = np.random.default_rng([seed, zlib.crc32(node.name.lower().encode())])
    value = INITIALIZERS[parameter.initial.kind](rng, concrete(node.shape), parameter.initial)
    array = np.array(value, dtype=node.element.storage)
    return array if parameter.unknown is None else settled(parameter, array, "ZEROS")


def settled(parameter: ModelParameter, value: Array, unknown: str | None = None) -> Array:
    """A table with the row of unknown keys, its last, as declared: zeros, or the average of the others. (Or a table of
    each group, all of them in one array.)"""
    kind = unknown or parameter.unknown
    if kind is None:
        return value
    out = value.copy()
    table = np.moveaxis(out, -len(parameter.node.shape), 0)  # a view with the keys in front
    table[-1] = table[:-1].mean(axis=0, dtype=np.float64) if kind == "MEAN" and len(table) > 1 else 0
    return out
