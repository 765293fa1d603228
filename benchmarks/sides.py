"""Contenders side by side: each in a process of its own, one round each in turn.

A process of its own keeps thread pools apart and makes the peak of memory that of one contender. Rounds alternate, and
ratios are taken round by round, since absolute times depend on who else uses the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

Report = dict[str, Any]


class Side:
    """A contender in a child process: ``python SCRIPT --side NAME ARGUMENT...``, which calls ``serve``."""

    def __init__(self, script: str, name: str, arguments: Sequence[str] = ()) -> None:
        self.name = name
        command = [sys.executable, script, "--side", name, *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, request: str) -> Report:
        """What the contender answers to a request; RuntimeError if it has died."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} died; its last words are above")
        return json.loads(line)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Ends the contender."""
        self.process.communicate()


def serve(answers: Mapping[str, Callable[[], Report]]) -> None:
    """Answers the requests that come on standard input, a line each, until it ends; ``ready`` and ``peak`` are ours."""
    every = {**answers, "ready": dict, "peak": lambda: {"megabytes": peak_megabytes()}}
    for line in sys.stdin:
        print(json.dumps(every[line.strip()]()), flush=True)


def peak_megabytes() -> float:
    """The most resident memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def alternate(sides: Sequence[Side], rounds: int, request: str = "round", pause: float = 0.0) -> dict[str, list[float]]:
    """The seconds that each contender reports, ``rounds`` times in turn.

    A pause before each lets the threads of the one before go to sleep: some pools wait actively for a while.
    """
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            time.sleep(pause)
            seconds[side.name].append(side.ask(request)["seconds"])
    return seconds


def summary(times: Mapping[str, Sequence[float]], first: str = "mlsql", unit: str = "seconds") -> Report:
    """Medians, and the median of the round-by-round ratios of ``first`` to the others."""
    found: Report = {unit: {name: statistics.median(t) for name, t in times.items()}}
    if first in times:
        found[f"{first}_over"] = {
            name: statistics.median(a / b for a, b in zip(times[first], t, strict=True))
            for name, t in times.items()
            if name != first
        }
    return found


def largest_difference(curve: Sequence[float], reference: Sequence[float]) -> float:
    """The largest relative difference of two loss curves of one length."""
    a, b = np.asarray(curve), np.asarray(reference)
    return float(np.max(np.abs(a - b) / np.abs(b)))


def hold_curves(curves: Mapping[str, Sequence[float]], tolerance: float = 1e-4) -> Report:
    """Each curve's largest difference from the last one; AssertionError if one exceeds the tolerance."""
    *others, reference = curves
    found = {name: largest_difference(curves[name], curves[reference]) for name in others}
    for name, difference in found.items():
        assert difference <= tolerance, f"the losses of {name} differ from those of {reference} by {difference:.1e}"
    return found


def arguments(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """What every benchmark can be told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    return parser


def keep(found: Report, path: Path | None) -> None:
    """Write the figures to a file, if one was named."""
    if path:
        path.write_text(json.dumps(found, indent=2) + "\n")


def machine(*packages: str) -> Report:
    """What the figures were measured on, and with which versions of the named packages."""
    facts: Report = {"processor": processor(), "cores": os.cpu_count(), "load_average": os.getloadavg()[0]}
    facts |= {"python": platform.python_version(), "blas": blas()}
    for package in ("numpy", "duckdb", *packages):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = None
    return facts


def blas() -> str:
    """The library that NumPy was built to take its matrix products from, and its version."""
    built: Any = np.show_config(mode="dicts")
    found = built["Build Dependencies"]["blas"]
    return f"{found['name']} {found['version']}"


def processor() -> str:
    """The processor's name, from /proc/cpuinfo where there is one."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def parameters(con: Any, model: str) -> dict[str, np.ndarray]:
    """The parameters of a model's current version, from the catalog."""
    rows = con.execute(
        "SELECT p.name, p.element, p.shape, p.data FROM mlsql.parameters p JOIN mlsql.models m "
        "ON p.model = m.name AND p.version = m.current_version WHERE m.name = ?",
        [model],
    ).fetchall()
    dtypes = {"FLOAT": "<f4", "DOUBLE": "<f8"}
    return {name: np.frombuffer(data, dtypes[element]).reshape(shape) for name, element, shape, data in rows}


def losses(con: Any) -> list[float]:
    """The losses of the last run, an epoch each."""
    rows = con.execute(
        "SELECT loss FROM mlsql.training_log WHERE run_id = (SELECT max(run_id) FROM mlsql.training_log) ORDER BY epoch"
    ).fetchall()
    return [loss for (loss,) in rows]
