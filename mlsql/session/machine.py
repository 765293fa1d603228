"""The machine that estimates are made for, and CALIBRATE, which measures it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..executor import measured
from ..executor.catalog import Catalog, now
from ..executor.device import identity
from ..executor.measured import Measured
from ..executor.results import Rows
from ..optimizer.cost import total
from ..optimizer.machine import Machine
from ..parser.statements import Calibrate
from .core import Session, runs
from .rows import small_table
from .training_plan import Planned, plan_training

if TYPE_CHECKING:
    import pyarrow as pa

    from ..executor.device import Identity

DEFAULT, MEASURED = "default", "measured"
CHOICES = (DEFAULT, MEASURED)
MEASURING = 0.5  # seconds in which a machine is quickly measured, even while others use it, too
VARIABLE = "MLSQL_MACHINE"  # of the environment: what sessions begin with

_of_this_process: dict[Identity, Measured] = {}


def first_choice() -> str:
    """What a new session uses: the measured machine, unless the environment says otherwise."""
    return DEFAULT if os.environ.get(VARIABLE, "").lower() == DEFAULT else MEASURED


def assumed() -> Machine:
    """The machine that is the same everywhere."""
    return Machine()


def known_machine(catalog: Catalog, choice: str | None) -> Machine | None:
    """The machine that a session has chosen (None: as the environment says), if it need not be measured first.

    It is as this database knows it, else as this process or the user's cache does. What the database did not know is
    kept with it if it is a file which may be written, outside of any transaction of the caller's.
    """
    if (choice or first_choice()) == DEFAULT:
        return assumed()
    here = identity()
    known = catalog.machine(here)
    if known is not None:
        return of(here, known)
    known = _of_this_process.get(here) or measured.load(here)
    if known is None:
        return None
    _of_this_process[here] = known
    machine = of(here, known)
    if may_keep(catalog):
        catalog.save_machine(here, known[1], rate_rows(machine))
    return machine


def find_machine(catalog: Catalog, choice: str | None) -> Machine:
    """The machine that a session has chosen, measured quickly if nobody knows it."""
    found = known_machine(catalog, choice)
    if found is None:
        here = identity()
        _of_this_process[here] = measure(here, thorough=False)
        found = known_machine(catalog, choice)
    assert found is not None
    return found


def plan_for(session: Session, *arguments: Any, **options: Any) -> Planned:
    """The plan of a training run, as :func:`plan_training` makes it, for the machine of a session.

    A machine that nobody has measured is measured only if the run is estimated to take longer than that.
    """
    options["optimizer"] = session.optimizer
    planned = plan_training(*arguments, machine=session.known_machine(), **options)
    if run_seconds(planned) > MEASURING and session.machine() != planned.machine:
        return plan_training(*arguments, machine=session.machine(), **options)
    return planned


def run_seconds(planned: Planned) -> float:
    """The estimated time of a whole run."""
    loop = planned.loop
    return total([loop.loss, loop.rate, *loop.updates.values()], planned.machine, planned.runs)


def may_keep(catalog: Catalog) -> bool:
    """Whether rates can be kept in the database without a change that the caller would not expect."""
    storage = catalog.storage
    is_file = not storage.read_only and storage.path != ":memory:" and bool(storage.path)
    return is_file and catalog.has_table("machine") and not storage.in_transaction


def measure(here: Identity, *, thorough: bool) -> Measured:
    """Measure this machine; the user's cache keeps what came out."""
    from ..executor.calibrate import calibrate

    found = calibrate(thorough=thorough), str(now().replace(microsecond=0))
    measured.save(here, found)
    return found


def of(here: Identity, known: Measured) -> Machine:
    """The machine that has these rates."""
    rates, measured_at = known
    return Machine.measured(rates, here.processor, here.cores, here.numpy, measured_at)


def rate_rows(machine: Machine) -> pa.Table:
    """A row a rate; those of libraries of matrix products say which version they are of."""
    titles: Mapping[str, str] = {}
    if any(rate for _, rate in machine.libraries):
        from ..executor.blas import versions

        titles = versions()
    rows = []
    for name, value, unit, description in machine.rates():
        title = titles.get(name.partition("_")[0])
        rows.append((name, value, unit, f"{title}: {description}" if title else description))
    return small_table(dict(zip(("name", "value", "unit", "description"), zip(*rows, strict=True), strict=True)))


@runs(Calibrate)
def run_calibrate(session: Session, statement: Calibrate) -> Rows:
    """Measure this machine and use the rates from now on; a row a rate."""
    here = identity()
    known = _of_this_process[here] = measure(here, thorough=True)
    rows = rate_rows(of(here, known))
    if session.catalog.has_table("machine") and not session.storage.read_only:
        session.catalog.save_machine(here, known[1], rows)
    session.forget_machine()
    return session.storage.table_rows(rows)
