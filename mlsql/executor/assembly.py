"""Small loops written for LLVM by hand: they are there sooner than Numba could be loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

WORD, INT, BYTES = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()
NOTHING = ir.VoidType()


class Steps:
    """Inside of a loop: where it is, and the values that each of its rounds hands on to the next one."""

    def __init__(self, at: Any, values: Sequence[Any]) -> None:
        self.at, self.values = at, list(values)


def engine(module: ir.Module) -> Any:
    """What holds the machine code of a module, for this processor."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten()
    )
    made = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), target)
    made.finalize_object()
    return made


@contextlib.contextmanager
def steps(builder: ir.IRBuilder, start: Any, stop: Any, step: int, values: Sequence[Any] = ()) -> Iterator[Steps]:
    """The code inside runs for ``start`` and every step-th number behind it that is below ``stop``, at least once.

    What it leaves in ``values`` the next round finds there, and after the last one whoever is behind the loop.
    """
    before, inside, behind = builder.block, builder.append_basic_block(), builder.append_basic_block()
    builder.branch(inside)
    builder.position_at_end(inside)
    phis = [builder.phi(v.type) for v in (start, *values)]
    for phi, value in zip(phis, (start, *values), strict=True):
        phi.add_incoming(value, before)
    found = Steps(phis[0], phis[1:])
    yield found
    following = builder.add(found.at, found.at.type(step))
    for phi, value in zip(phis, (following, *found.values), strict=True):
        phi.add_incoming(value, builder.block)
    builder.cbranch(builder.icmp_unsigned("<", following, stop), inside, behind)
    builder.position_at_end(behind)


def least(builder: ir.IRBuilder, x: Any, y: Any) -> Any:
    """The smaller one of two numbers without a sign, or of each two of two vectors."""
    return builder.select(builder.icmp_unsigned("<", x, y), x, y)
