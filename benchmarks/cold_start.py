"""From a cold process to the first training step of a small network: seconds, and what of them is the libraries' own.

python benchmarks/cold_start.py [--rounds 15] [--json benchmarks/results/cold_start.json]

Each program runs in a new process, one round each in turn; files are in the page cache and modules compiled to
bytecode. The first step is interpreted, ``compiled`` waits for its code to be compiled, ``compiled before`` finds it in
the cache. ``elapsed`` is from the start of a process to its end, ``processor`` is what it computed on all cores.
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


def run(program: str, folder: Path, environment: Mapping[str, str]) -> tuple[float, float]:
    """The elapsed and the processor's seconds of a new process."""
    shutil.copy(folder / "fresh.duckdb", folder / "cold.duckdb")
    before, began = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, check=True)
    elapsed, after = time.perf_counter() - began, os.times()
    return elapsed, sum(after[2:4]) - sum(before[2:4])


def measure(rounds: int) -> Report:
    """Medians of all programs, rounds alternating, and how they compare round by round with the first step."""
    elapsed: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    processor: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database(folder / "fresh.duckdb")
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"PYTHONPYCACHEPREFIX": str(folder / "bytecode"), "MLSQL_CACHE": str(folder / "cache")}
        for warm_up in (True, *[False] * rounds):
            for name, program in PROGRAMS.items():
                whole, computed = run(program, folder, environment)
                if not warm_up:
                    elapsed[name].append(whole)
                    processor[name].append(computed)
    return {
        "elapsed": summary(elapsed, "first step"),
        "least": {name: min(t) for name, t in elapsed.items()},
        "processor": summary(processor, "first step"),
    }


if __name__ == "__main__":
    options = arguments(__doc__, rounds=15).parse_args()
    found = measure(options.rounds)
    for name in PROGRAMS:
        elapsed, least, computed = found["elapsed"]["seconds"], found["least"], found["processor"]["seconds"]
        print(f"{name:15} {elapsed[name]:6.3f} s, at least {least[name]:6.3f} s, computed {computed[name]:6.3f} s")
    keep({"machine": machine("pyarrow", "sqlglot", "torch"), "rounds": options.rounds, **found}, options.json)
