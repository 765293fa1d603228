"""The suite: training steps, the first step of a new process, and prediction, against what a user would pick instead.

One command measures every row of the table in one run: contenders take turns, medians of the rounds are shown, and in
brackets mlsql's time over theirs, the median of the ratios of the rounds. Every contender is a process of its own, all
are held to the same two cores. benchmarks/README.md tells what is compared and how the physical limit is computed.

    python benchmarks/suite.py [--rounds 7] [--quick] [--json benchmarks/results/suite.json]
    python benchmarks/suite.py --check      # the loss curves of all contenders agree to 1e-4
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from peers import cold, scoring
from peers.by_hand import ByHand
from peers.contender import Contender, Unable
from peers.engine import Engine
from peers.jax_scan import Scan
from peers.limit import Limit
from peers.problem import Problem, Weights
from peers.pytorch import Compiled, Eager
from peers.scikit import Logistic, Perceptron
from sides import Report, Side, alternate, arguments, hold_curves, keep, machine, serve, summary

PROBLEMS = [
    Problem("64-32-10, batch 32", (64, 32, 10), 32, 2000),
    Problem("64-128-10, batch 32", (64, 128, 10), 32, 2000),
    Problem("784-128-10, batch 64", (784, 128, 10), 64, 500),
    Problem("784-512-10, batch 256", (784, 512, 10), 256, 100),
    Problem("784-1024-1024-10, batch 512", (784, 1024, 1024, 10), 512, 20),
    Problem("2048-2048-2048-1000, batch 1024", (2048, 2048, 2048, 1000), 1024, 3),
    Problem("32-64-64-10, batch 16384", (32, 64, 64, 10), 16384, 12),
    Problem("logistic, 5 M x 35, batch 256", (35, 1), 256, 5_000_000 // 256, 10),
    Problem("logistic, 5 M x 35, batch 256, in order", (35, 1), 256, 5_000_000 // 256, 10, shuffle=False),
]
PEERS: dict[str, Callable[[Problem], Contender | Limit]] = {
    "mlsql": Engine,
    "pytorch eager": Eager,
    "torch.compile": Compiled,
    "jax scan": Scan,
    "scikit-learn": lambda problem: (Logistic if problem.binary else Perceptron)(problem),
    "numpy by hand": ByHand,
    "limit": Limit,
}
EPOCHS = 3  # of a loss curve


# -- a contender's process ---------------------------------------------------------------------------------------------


def serve_training(name: str, problem: Problem, weights: Path, warm_up: float) -> None:
    """Answers with seconds a step, loss curves and facts; says why, if this contender cannot run here."""

    @functools.cache
    def contender() -> Any:
        return PEERS[name](problem)

    def start() -> Report:
        """The first round, in which it compiles what it compiles; mlsql compiles beside training and takes longer."""
        made = contender()
        began = time.perf_counter()
        made.seconds()
        taken = time.perf_counter() - began
        made.warm(warm_up)
        return {"first_round_seconds": taken}

    def draw() -> Report:
        arrays: dict[str, np.ndarray] = {}
        for number, (w, b) in enumerate(contender().drawn()):
            arrays |= {f"w{number}": w, f"b{number}": b}
        np.savez(weights, **arrays)
        return {}

    def curve() -> Report:
        given = np.load(weights)
        first: Weights = [(given[f"w{i}"], given[f"b{i}"]) for i in range(len(problem.layers))]
        return {"losses": contender().curve(first, EPOCHS)}

    serve(
        {
            "start": lambda: attempted(start),
            "round": lambda: {"seconds": contender().seconds()},
            "draw": draw,
            "curve": lambda: attempted(curve),
            "facts": lambda: contender().facts(),
        }
    )


def attempted(call: Callable[[], Report]) -> Report:
    """The answer, or why the contender has none on this machine."""
    try:
        return call()
    except Unable as reason:
        return {"unable": str(reason)}
    except ModuleNotFoundError as missing:
        return {"unable": f"{missing.name} is not installed"}


# -- what is measured --------------------------------------------------------------------------------------------------


def side(name: str, problem: Problem, *options: object) -> Side:
    """A contender in a process of its own, given a problem and options of this command."""
    return Side(__file__, name, ["--problem", problem.to_json(), *map(str, options)])


def training(problem: Problem, names: Iterable[str], rounds: int, warm_up: float) -> Report:
    """Median seconds of a step of each contender, and why one has none."""
    found: Report = {"problem": dataclasses.asdict(problem), "unable": {}, "first_round_seconds": {}}
    ready = []
    for name in names:
        contender = side(name, problem, "--warm-up", warm_up)
        answer = contender.ask("start")
        if "unable" in answer:
            found["unable"][name] = answer["unable"]
            contender.close()
            continue
        found["first_round_seconds"] |= {name: answer["first_round_seconds"]} if name != "limit" else {}
        ready.append(contender)
    found |= summary(alternate(ready, rounds, pause=0.3))
    found["facts"] = {contender.name: contender.ask("facts") for contender in ready}
    for contender in ready:
        contender.close()
    return found


def cold_start(names: Iterable[str], rounds: int) -> Report:
    """Median seconds from starting a process to the end of its first training step."""
    times: dict[str, list[float]] = {}
    unable: dict[str, str] = {}
    for turn in range(rounds + 1):
        for name in [n for n in names if n in cold.PROGRAMS and n not in unable]:
            try:
                seconds = cold.seconds(name)
            except RuntimeError as failed:
                unable[name] = str(failed)
                times.pop(name, None)
                continue
            if turn:  # the first turn brings files into the system's cache
                times.setdefault(name, []).append(seconds)
    return {"unable": unable, **summary(times)}


def prediction(rows: int, rounds: int) -> Report:
    """Median seconds and peak memory of predicting a table; AssertionError if the sums of predictions differ."""
    reports: dict[str, list[Report]] = {name: [] for name in scoring.RUNS}
    unable: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.duckdb"
        scoring.create(path, rows)
        for _ in range(rounds):
            for name in [n for n in reports if n not in unable]:
                contender = Side(__file__, name, ["--database", str(path)])
                answer = contender.ask("run")
                if "unable" in answer:
                    unable[name] = answer["unable"]
                else:
                    reports[name].append({**answer, **contender.ask("peak")})
                contender.close()
    ran = {name: runs for name, runs in reports.items() if runs}
    first, *others = (runs[-1]["sum"] for runs in ran.values())
    assert all(abs(other - first) < 1e-4 * max(1, abs(first)) for other in others), (first, others)
    found = summary({name: [r["seconds"] for r in runs] for name, runs in ran.items()}, next(iter(ran)))
    peaks = {name: statistics.median(r["megabytes"] for r in runs) for name, runs in ran.items()}
    return {"rows": rows, "unable": unable, **found, "peak_megabytes": peaks}


def check(problem: Problem, names: Iterable[str]) -> Report:
    """How far the loss curves differ from that of NumPy in 64 bits; AssertionError if by more than 1e-4."""
    small = dataclasses.replace(problem, steps=min(problem.steps, 40), epochs=1)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.npz"
        curves = {}
        for name in ["mlsql", *(n for n in names if n not in ("mlsql", "numpy by hand", "limit")), "numpy by hand"]:
            contender = side(name, small, "--weights", weights)
            if name == "mlsql":
                contender.ask("draw")
            answer = contender.ask("curve")
            if "unable" not in answer:
                curves[name] = answer["losses"]
            contender.close()
    differences = hold_curves(curves)
    print(f"{problem.title}: " + ", ".join(f"{name} {d:.0e}" for name, d in differences.items()), flush=True)
    return {"curves": curves, "differ_by": differences}


# -- the table ---------------------------------------------------------------------------------------------------------


def table(rows: dict[str, Report], names: Iterable[str], unit: str, factor: float) -> str:
    """A Markdown table: a row a problem, a column a contender, its median and in brackets mlsql's time over it."""
    columns = list(names)
    lines = [f"| {unit} | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    for title, found in rows.items():
        cells = [cell(found, name, factor) for name in columns]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(found: Report, name: str, factor: float) -> str:
    """A contender's median and ratio, or why there is none."""
    if name not in found["seconds"]:
        return str(found["unable"].get(name, "-"))
    value = found["seconds"][name] * factor
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    ratio = found.get("mlsql_over", {}).get(name)
    return shown if ratio is None else f"{shown} ({ratio:.2f})"


def prediction_table(found: Report) -> str:
    """A Markdown table of the prediction's contenders."""
    first = next(iter(found["seconds"]))
    lines = [
        f"| PREDICT, {found['rows']:,} rows | seconds | {first} / this | peak MB |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, seconds in found["seconds"].items():
        ratio = found[f"{first}_over"].get(name, 1)
        lines.append(f"| {name} | {seconds:.2f} | {ratio:.2f} | {found['peak_megabytes'][name]:,.0f} |")
    lines += [f"| {name} | {reason} | | |" for name, reason in found["unable"].items()]
    return "\n".join(lines)


def remarks(rows: dict[str, Report]) -> Iterable[str]:
    """What mlsql said about each problem, and what all epochs took where there are several."""
    for title, found in rows.items():
        for notice in found["facts"].get("mlsql", {}).get("code", []):
            yield f"{title}: {notice}"
        epochs, steps = found["problem"]["epochs"], found["problem"]["steps"]
        if epochs > 1:
            shown = ", ".join(f"{name} {s * epochs * steps:.3g} s" for name, s in found["seconds"].items())
            yield f"{title}: {epochs} epochs take {shown}"


# -- the command -------------------------------------------------------------------------------------------------------


def quick(problem: Problem) -> Problem:
    """The same shape with less to do."""
    steps = max(2, problem.steps // (10 if problem.binary else 2))
    return dataclasses.replace(problem, title=problem.title.replace("5 M", "0.5 M"), steps=steps)


def main(options: argparse.Namespace) -> None:
    """Runs what was asked for, and prints a table as soon as it is complete."""
    problems = [quick(p) if options.quick else p for p in PROBLEMS if options.only in p.title]
    names = [n for n in PEERS if not options.peers or n == "mlsql" or n in options.peers.split(",")]
    packages = ("mlsql", "numba", "pyarrow", "torch", "jax", "scikit-learn")
    found: Report = {
        "machine": machine(*packages),
        "cores_used": len(os.sched_getaffinity(0)),
        "rounds": options.rounds,
    }
    if options.check:
        keep(found | {"check": {p.title: check(p, names) for p in problems}}, options.json)
        return
    found["training"] = {}
    for problem in problems:
        found["training"][problem.title] = training(problem, names, options.rounds, options.warm_up)
        print(table({problem.title: found["training"][problem.title]}, names, "µs a step", 1e6), flush=True)
        keep(found, options.json)
    if not options.only:
        found["cold start"] = cold_start(names, options.rounds)
        found["prediction"] = prediction(500_000 if options.quick else 5_000_000, min(options.rounds, 5))
        keep(found, options.json)
    print("\n" + table(found["training"], names, "µs a step", 1e6))
    if not options.only:
        print("\n" + table({"first step of a new process": found["cold start"]}, names, "ms", 1e3))
        print("\n" + prediction_table(found["prediction"]))
    print("\n" + "\n".join(remarks(found["training"])))


if __name__ == "__main__":
    parser = arguments(__doc__, rounds=7)
    parser.add_argument("--quick", action="store_true", help="fewer steps and rows; a few minutes in all")
    parser.add_argument("--check", action="store_true", help="compare loss curves instead of times")
    parser.add_argument("--only", default="", help="training problems whose title holds this, and nothing else")
    parser.add_argument("--peers", default="", help="these contenders beside mlsql, with commas between")
    parser.add_argument("--warm-up", type=float, default=10, help="seconds that mlsql trains before the clock counts")
    parser.add_argument(
        "--cores", type=int, default=2, help="to which all contenders are held: 1 where others use the machine"
    )
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--problem", type=Problem.from_json, help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--database", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.problem:
        serve_training(given.side, given.problem, given.weights, given.warm_up)
    elif given.database:
        serve({"run": lambda: attempted(lambda: scoring.RUNS[given.side](given.database))})
    else:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.cores])
        main(given)
