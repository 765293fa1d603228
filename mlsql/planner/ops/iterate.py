"""Iterate: the training loop as an operator. It holds state, a body that makes the next state, and a loss."""

from __future__ import annotations

from typing import ClassVar

from ...types import FLOAT, UNIT, Type, TypeProblem
from ..node import Node, operator
from .leaf import State


@operator
class Iterate(Node):
    """Runs its body step after step: each ``updates[i]`` becomes the value of ``states[i]`` in the next step.

    ``steps`` is the number of steps of an epoch, ``epochs`` the most epochs that are run.
    """

    kind: ClassVar[str] = "iterate"
    solver: str
    epochs: int
    steps: int
    states: tuple[Node, ...]
    updates: tuple[Node, ...]
    loss: Node

    def infer(self) -> Type:
        for state, update in zip(self.states, self.updates, strict=True):
            if not isinstance(state, State) or state.type != update.type:
                raise TypeProblem(f"the update {update.type} does not have the type of its state {state.type}")
        if self.loss.type != Type(UNIT, self.loss.type.element):
            raise TypeProblem("a loss must be a single number")
        return Type(UNIT, FLOAT)
