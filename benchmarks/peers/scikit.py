"""scikit-learn: MLPClassifier for networks; for logistic regression SGDClassifier, which makes a step of every row."""

from __future__ import annotations

import time

import numpy as np

from .contender import Contender, Unable
from .problem import MOMENTUM, RATE, Problem, Weights


class Perceptron(Contender):
    """MLPClassifier by SGD with momentum, an epoch a call of ``partial_fit``."""

    def __init__(self, problem: Problem) -> None:
        from sklearn.neural_network import MLPClassifier

        super().__init__(problem)
        self.x, self.y = problem.data()
        self.net = MLPClassifier(
            problem.sizes[1:-1], solver="sgd", alpha=0, batch_size=problem.batch, learning_rate_init=RATE,
            momentum=MOMENTUM, nesterovs_momentum=False, shuffle=problem.shuffle, random_state=0,
        )  # fmt: skip
        self.net.partial_fit(self.x[: problem.batch], self.y[: problem.batch], classes=np.arange(problem.sizes[-1]))

    def restart(self, first: Weights) -> None:
        self.net.coefs_ = [np.ascontiguousarray(w.T) for w, _ in first]
        self.net.intercepts_ = [b.copy() for _, b in first]
        del self.net._optimizer  # holds the momentum; partial_fit makes a new one

    def epoch(self) -> float:
        self.net.partial_fit(self.x, self.y)
        return float(self.net.loss_)

    def curve(self, first: Weights, epochs: int) -> list[float]:
        self.net.set_params(shuffle=False)
        return super().curve(first, epochs)


class Logistic(Contender):
    """SGDClassifier: the same model, loss and passes over the rows, but a step a row and no momentum."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.x, self.y = problem.data()

    def seconds(self) -> float:
        from sklearn.linear_model import SGDClassifier

        problem = self.problem
        model = SGDClassifier(
            loss="log_loss", penalty=None, learning_rate="constant", eta0=RATE / problem.batch, tol=None,
            max_iter=problem.epochs, shuffle=problem.shuffle, random_state=0,
        )  # fmt: skip
        began = time.perf_counter()
        model.fit(self.x, self.y)
        return (time.perf_counter() - began) / (problem.epochs * problem.steps)

    def restart(self, first: Weights) -> None:
        raise Unable("a fit of scikit-learn's begins at zero")

    def epoch(self) -> float:
        raise Unable("a step of every row has other losses")
