"""A machine in figures for people."""

from __future__ import annotations

import dataclasses

from ..figures import duration, number
from ..optimizer.cost import Machine


def facts(machine: Machine) -> tuple[tuple[str, str], ...]:
    """What an estimate stands on: the most telling figures of a machine, by their names."""
    told = [f for f in dataclasses.fields(machine) if f.metadata.get("telling")]
    values = [(f.name.replace("_", " "), f.metadata["unit"], getattr(machine, f.name)) for f in told]
    return tuple((name, duration(v) if unit == "s" else f"{number(v)} {unit}") for name, unit, v in values)
