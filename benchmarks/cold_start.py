"""From a cold process to the first training step of a small network: seconds, and what of them is the libraries' own.

python benchmarks/cold_start.py [--rounds 15] [--json benchmarks/results/cold_start.json]

Each program runs in a new process, one round each in turn; files are in the page cache and modules compiled to
bytecode. The first step is interpreted, ``compiled`` waits for its code to be compiled, ``compiled before`` finds it in
the cache. ``reached`` is from the start of a process until the last line of its program is done, ``elapsed`` until it
has ended, ``processor`` is what it computed on all cores.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from sides import Report, arguments, keep, machine, summary

ROWS, INPUTS, HIDDEN, CLASSES = 256, 4, 32, 3
IMPORT = "import mlsql\n"
CONNECT = IMPORT + "con = mlsql.connect('cold.duckdb')\n"
FIRST_STEP = "con.execute('TRAIN net ON points WITH SGD (batch_size = ALL, epochs = 1)').fetchall()\n"
COMPILE = "con.execute(\"SET mlsql_compile = 'always'\")\n"
DONE = "\nimport time; print(time.monotonic(), flush=True)"  # the same clock in all processes
FORGET = "import os, shutil; shutil.rmtree(os.environ['MLSQL_CACHE'] + '/compiled', ignore_errors=True)\n"
TORCH = f"""
import torch
x, label = torch.rand({ROWS}, {INPUTS}), torch.arange({ROWS}) % {CLASSES}
net = torch.nn.Sequential(
    torch.nn.Linear({INPUTS}, {HIDDEN}), torch.nn.ReLU(), torch.nn.Linear({HIDDEN}, {CLASSES}))
update = torch.optim.SGD(net.parameters(), lr=0.1)
torch.nn.functional.cross_entropy(net(x), label).backward()
update.step()
"""
KINDS = ("reached", "elapsed", "processor")
PROGRAMS = {
    "python": "pass",
    "libraries": "import numpy, pyarrow, duckdb, sqlglot",
    "import mlsql": IMPORT,
    "connect": CONNECT,
    "first step": CONNECT + FIRST_STEP,
    "compiled": CONNECT + FORGET + COMPILE + FIRST_STEP,
    "compiled before": CONNECT + COMPILE + FIRST_STEP,
    "torch": TORCH,
}


def database(file: Path) -> None:
    """A file with a small table and a network."""
    import mlsql

    with mlsql.connect(str(file), progress=False) as con:
        numbers = ", ".join("random()" for _ in range(INPUTS))
        con.execute(
            f"CREATE TABLE points AS SELECT [{numbers}]::FLOAT[{INPUTS}] AS x, i % {CLASSES} AS label "
            f"FROM range({ROWS}) r(i)"
        )
        con.execute(
            f"CREATE MODEL net INPUT (x FLOAT[{INPUTS}]) TARGET (label INTEGER) AS SELECT RELU(LINEAR(x, {HIDDEN})) AS "
            f"hidden, LINEAR(hidden, {CLASSES}) AS logits MINIMIZE AVG(CROSS_ENTROPY(logits, label))"
        )


def run(program: str, folder: Path, environment: Mapping[str, str]) -> dict[str, float]:
    """What a new process takes, in seconds, under the names of the report."""
    shutil.copy(folder / "fresh.duckdb", folder / "cold.duckdb")
    command = [sys.executable, "-c", program + DONE]
    before, began = os.times(), time.monotonic()
    told = subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    elapsed, after = time.monotonic() - began, os.times()
    return {
        "reached": float(told.split()[-1]) - began,
        "elapsed": elapsed,
        "processor": sum(after[2:4]) - sum(before[2:4]),
    }


def measure(rounds: int) -> Report:
    """Medians of all programs, rounds alternating, and how they compare round by round with the first step."""
    found: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in PROGRAMS} for kind in KINDS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database(folder / "fresh.duckdb")
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"PYTHONPYCACHEPREFIX": str(folder / "bytecode"), "MLSQL_CACHE": str(folder / "cache")}
        for warm_up in (True, *[False] * rounds):
            for name, program in PROGRAMS.items():
                seconds = run(program, folder, environment)
                for kind in () if warm_up else KINDS:
                    found[kind][name].append(seconds[kind])
    least = {name: min(seconds) for name, seconds in found["reached"].items()}
    return {**{kind: summary(found[kind], "first step") for kind in KINDS}, "least": least}


if __name__ == "__main__":
    options = arguments(__doc__, rounds=15).parse_args()
    found = measure(options.rounds)
    for name in PROGRAMS:
        reached, elapsed, computed = (found[kind]["seconds"][name] for kind in KINDS)
        within = f"{reached:6.3f} s, at least {found['least'][name]:6.3f} s"
        print(f"{name:15} {within}; ended {elapsed:6.3f} s, computed {computed:6.3f} s")
    keep({"machine": machine("pyarrow", "sqlglot", "torch"), "rounds": options.rounds, **found}, options.json)
