"""Whether a training run is compiled: estimated with the rates of the machine, and said in EXPLAIN."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..executor.device import cores
from ..figures import duration
from ..optimizer.cost import Machine, price, step_seconds
from ..optimizer.frequency import Frequency
from ..record import record
from .core import Session
from .training_plan import Planned, Settings

if TYPE_CHECKING:
    from ..executor.compiled.source import Compiled

LOADING = 0.03  # seconds to load LLVM and a module that is compiled already
WORTH_SHARING = 2e-5  # seconds of a step from which on threads that share it save more than they wait for each other
MEETING = 1.2e-6  # seconds that sharing the loops of a shorter step has to save for each time that the threads meet
WORTH_A_LOOK = 0.2  # seconds of a run from which on it pays to make the module's text and look for it
WRITING = 0.01  # seconds to write another text: all that threads could save of shorter runs


@record
class Compilation:
    """What was decided: the module if the run is compiled, whether it waits for it, and why (empty: a short run)."""

    module: Compiled | None
    wait: bool
    reason: str
    seconds: float | None = None  # of all steps, if they are compiled


def may_compile(session: Session, settings: Settings) -> bool:
    """Whether a run can be compiled at all: not where the user forbids it, nor if a solver drives its steps itself."""
    return session.compile != "never" and settings.solver.needs is None


def compilation(session: Session, planned: Planned, settings: Settings) -> Compilation:
    """Compile if what a run saves by it is estimated to be longer than compiling takes.

    A deterministic run does not ask whether the module is there already: what is decided must not depend on that.
    """
    if not may_compile(session, settings):
        return Compilation(None, False, "")
    steps, machine = planned.runs[Frequency.STEP], planned.machine
    loop = planned.loop
    interpreted = step_seconds([loop.loss, loop.rate, *loop.updates.values()], machine) * steps
    forced = session.compile == "always" or settings.in_tiles
    wait = forced or bool(settings.options["deterministic"])
    if interpreted < WORTH_A_LOOK and not forced:
        return Compilation(None, False, "")
    module = module_of(session, planned, settings)
    if isinstance(module, str):
        return Compilation(None, False, f"interpreted: {module}")
    fast = compiled_seconds(module, machine) * steps
    compiling = module.compile_seconds(machine.compile_line)
    told = f"all steps take about {duration(interpreted)} interpreted, {duration(fast)} compiled"
    told += f" and {duration(compiling)} to compile"
    if settings.in_tiles:
        told += "; interpreted they do not fit into MEMORY"
    if forced or interpreted - fast > compiling:
        return Compilation(module, wait, f"compiled: {told}", fast)
    if not wait and interpreted - fast > loading(module):
        return Compilation(module, wait, f"compiled: {told}, which was done before", fast)
    return Compilation(None, False, f"interpreted: {told}")


def module_of(session: Session, planned: Planned, settings: Settings) -> Compiled | str:
    """The module of a run, for as many threads as its steps are worth, or why it has none.

    Where threads save little, code that is there already is preferred to other code that would have to be compiled.
    """
    from ..executor.compiled.source import compiled
    from .blas import chooser

    is_deterministic, machine = bool(settings.options["deterministic"]), planned.machine
    library = chooser(session.blas, machine, is_deterministic)
    module, steps = compiled(planned.loop, blas=library), planned.runs[Frequency.STEP]
    if isinstance(module, str) or is_deterministic:
        return module
    alone = compiled_seconds(module, machine)
    if alone < MEETING or (alone * steps < WRITING and loading(module) < math.inf):
        return module
    shared = compiled(planned.loop, cores(), library)
    if isinstance(shared, str) or alone >= WORTH_SHARING:
        return shared
    together = compiled_seconds(shared, machine) + MEETING * shared.meetings
    saved = (alone - together) * steps
    return shared if saved > pause(shared, machine) - pause(module, machine) and saved > 0 else module


def compiled_seconds(module: Compiled, machine: Machine) -> float:
    """The estimated time of a step. Threads share loops; the rate of matrix products is that of all cores already."""
    threads = module.team.shares
    return sum(price(w, machine) / (1 if w.products else threads) for w in module.work())


def pause(module: Compiled, machine: Machine) -> float:
    """The estimated seconds until a module can run."""
    return min(loading(module), module.compile_seconds(machine.compile_line))


def loading(module: Compiled) -> float:
    """The seconds until a module that was compiled before can run; infinite for one that was not."""
    from ..executor.compiled.modules import is_loaded, is_ready

    if is_loaded(module.source):
        return 0.0
    return LOADING if is_ready(module.source) else math.inf
