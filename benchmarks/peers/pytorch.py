"""PyTorch, eager or compiled: the loop that its tutorials teach, without a DataLoader, with the fused update rule."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from .contender import Contender, Unable
from .problem import MOMENTUM, RATE, Problem, Weights


class Eager(Contender):
    """Batches are gathered from tensors in memory; the losses are added up without leaving PyTorch."""

    def __init__(self, problem: Problem) -> None:
        import torch

        super().__init__(problem)
        x, y = problem.data()
        self.x = torch.from_numpy(x)
        self.y = torch.from_numpy(y).float() if problem.binary else torch.from_numpy(y).long()
        modules: list[Any] = []
        for inputs, outputs in problem.layers:
            modules += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
        self.net = torch.nn.Sequential(*modules[:-1])
        self.optimizer = torch.optim.SGD(self.net.parameters(), RATE, MOMENTUM, fused=True)
        self.loss_of = torch.nn.BCEWithLogitsLoss() if problem.binary else torch.nn.CrossEntropyLoss()
        self.loss = self.batch_loss
        self.shuffle = problem.shuffle

    def batch_loss(self, index: Any) -> Any:
        """The loss of the rows of an index."""
        score = self.net(self.x[index])
        return self.loss_of(score[:, 0] if self.problem.binary else score, self.y[index])

    def restart(self, first: Weights) -> None:
        import torch

        with torch.no_grad():
            flat = [torch.from_numpy(array) for layer in first for array in layer]
            for parameter, value in zip(self.net.parameters(), flat, strict=True):
                parameter.copy_(value)
                if "momentum_buffer" in self.optimizer.state.get(parameter, {}):
                    self.optimizer.state[parameter]["momentum_buffer"].zero_()

    def epoch(self) -> float:
        import torch

        problem, total = self.problem, torch.zeros(())
        order = torch.randperm(problem.rows) if self.shuffle else None
        for start in range(0, problem.rows, problem.batch):
            rows = slice(start, start + problem.batch)
            self.optimizer.zero_grad()
            loss = self.loss(rows if order is None else order[rows])
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
        return total.item() / problem.steps

    def curve(self, first: Weights, epochs: int) -> list[float]:
        self.shuffle = False
        return super().curve(first, epochs)

    def facts(self) -> dict[str, Any]:
        import torch

        lines = [line.strip(" -") for line in torch.__config__.show().splitlines()]
        return {**super().facts(), "libraries": [x for x in lines if "Kernel Library" in x or "MKL-DNN" in x]}


class Compiled(Eager):
    """torch.compile of gather, network and loss, for the shapes at hand; their gradient is compiled with them."""

    def __init__(self, problem: Problem) -> None:
        import torch

        super().__init__(problem)
        self.loss = torch.compile(self.batch_loss, dynamic=False) if problem.shuffle else self.sliced()

    def sliced(self) -> Any:
        """Slices are cut outside: a start that changes would be compiled again and again."""
        import torch

        def loss(x: Any, y: Any) -> Any:
            score = self.net(x)
            return self.loss_of(score[:, 0] if self.problem.binary else score, y)

        compiled = torch.compile(loss, dynamic=False)
        return lambda rows: compiled(self.x[rows], self.y[rows])

    def seconds(self) -> float:
        with compiling():
            return super().seconds()

    def curve(self, first: Weights, epochs: int) -> list[float]:
        self.loss = self.sliced()
        with compiling():
            return super().curve(first, epochs)


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Unable, where torch.compile fails, as it does without a C++ compiler."""
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError, InvalidCxxCompiler

    try:
        yield
    except (TorchDynamoException, InductorError, InvalidCxxCompiler) as failed:
        raise Unable(f"does not compile: {str(failed).splitlines()[0].partition(' in ')[0]}") from failed
