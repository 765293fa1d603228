"""NumPy as a careful person writes it: every array preallocated, one flat vector of weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from .contender import Contender
from .problem import MOMENTUM, RATE, Problem, Weights


class ByHand(Contender):
    """Forward and backward pass with ``out=`` everywhere. In 64 bits it is the reference of the loss curves."""

    def __init__(self, problem: Problem, dtype: Any = np.float32) -> None:
        super().__init__(problem)
        self.dtype, self.shuffle = dtype, problem.shuffle
        self.x, self.y = problem.data()
        self.x = self.x.astype(dtype, copy=False)
        self.y = self.y.astype(dtype if problem.binary else np.int32)
        size, batch = problem.parameters, problem.batch
        self.weights, self.momentum, self.gradient, self.change = (np.zeros(size, dtype) for _ in range(4))
        self.layers, self.gradients = self.views(self.weights), self.views(self.gradient)
        self.values = [np.empty((batch, n), dtype) for n in problem.sizes]
        self.slopes = [np.empty((batch, n), dtype) for n in problem.sizes]
        self.active = [np.empty((batch, n), bool) for n in problem.sizes]
        self.labels, self.column = np.empty(batch, self.y.dtype), np.empty((batch, 1), dtype)
        self.every = np.arange(batch)

    def views(self, flat: np.ndarray) -> Weights:
        """Matrices (inputs, outputs) and biases that lie in a flat vector."""
        found, start = [], 0
        for n, m in self.problem.layers:
            end = start + n * m
            found.append((flat[start:end].reshape(n, m), flat[end : end + m]))
            start = end + m
        return found

    def restart(self, first: Weights) -> None:
        for (w, b), (given_w, given_b) in zip(self.layers, first, strict=True):
            w[...], b[...] = given_w.T, given_b
        self.momentum[...] = 0

    def epoch(self) -> float:
        problem, total = self.problem, 0.0
        order = np.random.permutation(problem.rows) if self.shuffle else None
        for start in range(0, problem.rows, problem.batch):
            rows = slice(start, start + problem.batch)
            if order is None:
                self.values[0], self.labels = self.x[rows], self.y[rows]
            else:
                self.x.take(order[rows], 0, self.values[0], "clip")
                self.y.take(order[rows], 0, self.labels, "clip")
            total += self.step()
        return total / problem.steps

    def step(self) -> float:
        """One update; the loss before it."""
        for number, (w, b) in enumerate(self.layers):
            out = self.values[number + 1]
            np.matmul(self.values[number], w, out)
            np.add(out, b, out)
            if number + 1 < len(self.layers):
                np.maximum(out, 0, out=out)
        loss = self.binary_loss() if self.problem.binary else self.softmax_loss()
        for number in reversed(range(len(self.layers))):
            w, slope, given = self.layers[number][0], self.slopes[number + 1], self.values[number]
            np.matmul(given.T, slope, self.gradients[number][0])
            np.add.reduce(slope, 0, None, self.gradients[number][1])
            if number:
                np.matmul(slope, w.T, self.slopes[number])
                np.greater(given, 0, self.active[number])
                np.multiply(self.slopes[number], self.active[number], self.slopes[number])
        np.multiply(self.momentum, MOMENTUM, self.momentum)
        np.add(self.momentum, self.gradient, self.momentum)
        np.multiply(self.momentum, RATE, self.change)
        np.subtract(self.weights, self.change, self.weights)
        return loss

    def softmax_loss(self) -> float:
        """The average cross entropy; leaves its gradient in the last slopes."""
        z, p, labels = self.values[-1], self.slopes[-1], self.labels
        np.maximum.reduce(z, 1, None, self.column, True)
        np.subtract(z, self.column, z)
        np.exp(z, p)
        np.add.reduce(p, 1, None, self.column, True)
        np.divide(p, self.column, p)
        loss = float((np.log(self.column[:, 0]) - z[self.every, labels]).mean())
        p[self.every, labels] -= 1
        np.multiply(p, 1 / self.problem.batch, p)
        return loss

    def binary_loss(self) -> float:
        """The average cross entropy of yes or no; leaves its gradient in the last slopes."""
        z, slope = self.values[-1][:, 0], self.slopes[-1][:, 0]
        loss = float((np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))) - self.labels * z).mean())
        np.negative(z, slope)
        np.exp(slope, slope)
        np.add(slope, 1, slope)
        np.reciprocal(slope, slope)
        np.subtract(slope, self.labels, slope)
        np.multiply(slope, 1 / self.problem.batch, slope)
        return loss

    def curve(self, first: Weights, epochs: int) -> list[float]:
        """In 64 bits."""
        exact = ByHand(self.problem, np.float64)
        exact.shuffle = False
        return Contender.curve(exact, first, epochs)
