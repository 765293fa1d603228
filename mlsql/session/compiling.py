"""Whether a training run is compiled: estimated with the rates of the machine, and said in EXPLAIN."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..executor.device import cores
from ..figures import duration
from ..optimizer.cost import price, step_seconds
from ..optimizer.frequency import Frequency
from ..record import record
from .core import Session
from .training_plan import Planned, Settings

if TYPE_CHECKING:
    from ..executor.compiled.source import Compiled

LOADING = 0.2  # seconds to load Numba and a module that is compiled already
WORTH_SHARING = 2e-5  # seconds of a step from which on threads that share it save more than they wait for each other
WORTH_A_LOOK = 0.2  # seconds of a run from which on it pays to make the module's text and look for it


@record
class Compilation:
    """What was decided: the module if the run is compiled, whether it waits for it, and why (empty: a short run)."""

    module: Compiled | None
    wait: bool
    reason: str
    seconds: float | None = None  # of all steps, if they are compiled


def compilation(session: Session, planned: Planned, settings: Settings) -> Compilation:
    """Compile if what a run saves by it is estimated to be longer than compiling takes.

    A deterministic run does not ask whether the module is there already: what is decided must not depend on that.
    """
    if session.compile == "never" or settings.solver.needs is not None:  # which drives its steps itself
        return Compilation(None, False, "")
    steps, machine = planned.runs[Frequency.STEP], planned.machine
    loop = planned.loop
    outputs = [loop.loss, loop.rate, *loop.updates.values()]
    interpreted = step_seconds(outputs, machine) * steps
    forced, wait = session.compile == "always", session.compile == "always" or bool(settings.options["deterministic"])
    if interpreted < WORTH_A_LOOK and not forced:
        return Compilation(None, False, "")
    from ..executor.compiled.source import compiled
    from .blas import chooser

    library = chooser(session.blas, machine, bool(settings.options["deterministic"]))
    module = compiled(loop, blas=library)
    if isinstance(module, str):
        return Compilation(None, False, f"interpreted: {module}")
    fast = sum(price(w, machine) for w in module.work()) * steps
    threads = 1 if settings.options["deterministic"] or fast < WORTH_SHARING * steps else cores()
    if threads > 1:
        shared = compiled(loop, threads, library)
        assert not isinstance(shared, str)
        module = shared
    pause = module.compile_seconds(machine.compile_line)
    told = f"all steps take about {duration(interpreted)} interpreted, {duration(fast)} compiled"
    told += f" and {duration(pause)} to compile"
    if forced or interpreted - fast > pause:
        return Compilation(module, wait, f"compiled: {told}", fast)
    if not wait and interpreted - fast > loading(module):
        return Compilation(module, wait, f"compiled: {told}, which was done before", fast)
    return Compilation(None, False, f"interpreted: {told}")


def loading(module: Compiled) -> float:
    """The seconds until a module that was compiled before can run; infinite for one that was not."""
    from ..executor.compiled.modules import is_loaded, is_ready

    if is_loaded(module.source):
        return 0.0
    return LOADING if is_ready(module.source) else math.inf
