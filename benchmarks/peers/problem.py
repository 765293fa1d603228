"""A network or a logistic regression to train by SGD with momentum, its data, and the work of a step."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import numpy as np

RATE, MOMENTUM = 0.01, 0.9

Weights = list[tuple[np.ndarray, np.ndarray]]  # of each layer a matrix (outputs, inputs) and a bias (outputs,)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Layers of ``sizes`` with RELU between them, trained on ``steps * batch`` rows, ``epochs`` times.

    The loss is softmax cross entropy of the last layer, or binary cross entropy where that has one output. Rows are
    visited in a new order every epoch, or with ``shuffle`` false in that of the table.
    """

    title: str
    sizes: tuple[int, ...]
    batch: int
    steps: int
    epochs: int = 1
    shuffle: bool = True

    @property
    def rows(self) -> int:
        """Rows of the table; every batch is full."""
        return self.steps * self.batch

    @property
    def binary(self) -> bool:
        """Whether the target is yes or no."""
        return self.sizes[-1] == 1

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Inputs and outputs of each layer."""
        return list(itertools.pairwise(self.sizes))

    @property
    def parameters(self) -> int:
        """How many numbers are learned."""
        return sum(inputs * outputs + outputs for inputs, outputs in self.layers)

    @property
    def flops(self) -> int:
        """Additions and multiplications of a step's matrix products.

        A layer's output, its weights' gradient and, for all layers but the first, its inputs' gradient.
        """
        products = [2 * self.batch * inputs * outputs for inputs, outputs in self.layers]
        return 3 * sum(products) - products[0]

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Standard normal inputs; labels by chance, or for a yes/no target from a logistic model."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.rows, self.sizes[0]), dtype=np.float32)
        if not self.binary:
            return x, rng.integers(0, self.sizes[-1], self.rows).astype(np.int32)
        score = x @ (0.25 * rng.standard_normal(self.sizes[0], dtype=np.float32)) - 0.5
        return x, rng.random(self.rows) < 1 / (1 + np.exp(-score))

    def first_weights(self) -> Weights:
        """Normal weights of variance 2 / inputs, and zeros."""
        rng = np.random.default_rng(1)
        return [
            (math.sqrt(2 / n) * rng.standard_normal((m, n), dtype=np.float32), np.zeros(m, np.float32))
            for n, m in self.layers
        ]

    def to_json(self) -> str:
        """The problem as an argument of a command."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Problem:
        """The problem that was written so."""
        fields = json.loads(text)
        return cls(**{**fields, "sizes": tuple(fields["sizes"])})
