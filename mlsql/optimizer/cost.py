"""What a plan costs: the time of each operator on a machine whose rates are known, times how often it runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..planner.node import Node, walk
from ..planner.ops import Column, Constant, Contract, Count, Counter, Index, Parameter, Positions, State
from .frequency import SINGLE, Runs, frequencies

FREE = (Column, Positions, Parameter, State, Index, Counter, Count, Constant)


@dataclass(frozen=True)
class Machine:
    """Rates of a machine, as ``CALIBRATE`` measures them. The defaults are those of an ordinary core."""

    call: float = 1e-6  # seconds that each kernel takes before it does anything
    flops: float = 2e9  # elementwise operations a second
    gemm: float = 5e10  # flops a second of a large matrix product
    bandwidth: float = 1e10  # bytes a second that go to and from memory


def is_free(node: Node) -> bool:
    """Whether a node takes no time: it is a leaf, or its input seen differently."""
    return node.is_view or isinstance(node, FREE)


def seconds(node: Node, machine: Machine) -> float:
    """The estimated time of one evaluation of a node, its inputs being there."""
    if is_free(node):
        return 0.0
    rate = machine.gemm if isinstance(node, Contract) else machine.flops
    return machine.call + max(node.flops() / rate, node.bytes() / machine.bandwidth)


def total(outputs: Iterable[Node], machine: Machine, runs: Runs = SINGLE) -> float:
    """The estimated time of a whole run of a plan: a shared node counts once, each node as often as it runs."""
    often = frequencies(outputs := list(outputs))
    return sum(seconds(n, machine) * runs[often[n]] for n in walk(outputs))
