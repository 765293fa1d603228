"""Which library computes the matrix products of a compiled run, and whether they can be of bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..errors import NotSupportedError, Place
from ..executor import blas
from ..executor.train import LoopPlan
from ..optimizer.frequency import is_learned
from ..optimizer.machine import Machine
from ..planner.node import Node
from ..planner.ops import Contract
from ..planner.ops.contract import Contraction
from ..planner.plan import Plan
from ..planner.work import nearest_size
from ..types import FLOAT

AHEAD = 1.1  # how much faster a library must be than NumPy's, which shares its threads with interpreted steps


def chooser(choice: str, machine: Machine, deterministic: bool) -> Callable[[Contraction], str]:
    """The library of a product: the one that the session has chosen, or the one that was measured to be faster.

    A deterministic run does not ask what was measured.
    """
    if choice != "auto":
        return lambda product: choice
    if deterministic or blas.mkl_path() is None:
        return lambda product: "openblas"

    def faster(product: Contraction) -> str:
        size = nearest_size(*sizes(product))
        ours, mkl = (machine.blas_rate(library, size) for library in ("openblas", "mkl"))
        return "mkl" if mkl > AHEAD * ours > 0 else "openblas"

    return faster


def sizes(product: Contraction) -> tuple[int, int, int]:
    """Rows, columns and summed length of a matrix product."""
    a, b, out = product.letters()
    shared = {*a, *b} - {*out}
    return product.size({*a} - shared), product.size({*b} - shared), product.size(shared)


def check_mkl(place: Place | None) -> None:
    """Raises NotSupportedError if MKL is not installed."""
    if blas.mkl_path() is None:
        raise NotSupportedError("MKL is not installed", place=place, hint=blas.INSTALL)


def check_bf16(place: Place | None) -> None:
    """Raises NotSupportedError if the processor or the library for products of bfloat16 is not there."""
    from ..executor.compiled.bfloat16 import missing

    check_mkl(place)
    lacking = missing()
    if lacking is not None:
        raise NotSupportedError(f"precision = 'bf16': {lacking}", place=place, hint="precision = 'float32'")


def in_bf16(loop: LoopPlan, place: Place) -> LoopPlan:
    """The loop with every matrix product of FLOAT in its steps over operands that are rounded to bfloat16.

    Raises NotSupportedError if there is none.
    """
    from ..executor.compiled.lower import is_product

    def rounded(node: Node) -> Node:
        fits = isinstance(node, Contract) and is_product(node) and node.type.element == FLOAT and is_learned(node)
        return Contract(node.spec, node.x, node.y, True) if fits else node  # type: ignore[attr-defined]

    outputs = {"loss": loop.loss, "rate": loop.rate, **{str(i): n for i, n in enumerate(loop.updates.values())}}
    plan = Plan(outputs, loop.names).rewritten(rounded)
    if not any(isinstance(n, Contract) and n.bf16 for n in plan.nodes()):
        message = "precision = 'bf16': a step has no matrix product of FLOAT that a library computes"
        raise NotSupportedError(message, place=place, hint="precision = 'float32'")
    loss, rate, *new = plan.outputs.values()
    return replace(loop, loss=loss, rate=rate, updates=dict(zip(loop.updates, new, strict=True)), names=plan.names)
