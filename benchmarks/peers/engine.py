"""mlsql: the statement TRAIN over a table in memory, nothing but SQL."""

from __future__ import annotations

import math
from typing import Any

from sides import losses, parameters

from .contender import Contender, Unable
from .problem import MOMENTUM, RATE, Problem, Weights

LEAST = 1.0  # seconds of a run that is timed: one that is worth compiled steps takes them


def model(problem: Problem) -> str:
    """The CREATE MODEL of a problem."""
    inputs, *hidden, outputs = problem.sizes
    layers, last = [], "x"
    for number, size in enumerate(hidden, 1):
        layers.append(f"RELU(LINEAR({last}, {size})) AS h{number}")
        last = f"h{number}"
    loss, target = ("BINARY_CROSS_ENTROPY", "BOOLEAN") if problem.binary else ("CROSS_ENTROPY", "INTEGER")
    select = ", ".join([*layers, f"LINEAR({last}, {outputs}) AS score"])
    return (
        f"CREATE MODEL net INPUT (x FLOAT[{inputs}]) TARGET (y {target}) AS SELECT {select} "
        f"MINIMIZE AVG({loss}(score, y))"
    )


class Engine(Contender):
    """Seconds come from the training log: planning and reading the table are not part of a step.

    Whether steps are compiled is left to mlsql, as it is for a user.
    """

    def __init__(self, problem: Problem) -> None:
        import pyarrow as pa

        import mlsql

        super().__init__(problem)
        x, y = problem.data()
        self.con = mlsql.connect(progress=False)
        arrays = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), problem.sizes[0])
        self.con.register("given", pa.table({"x": arrays, "y": y}))
        self.con.execute("CREATE TABLE rows AS SELECT * FROM given")
        self.con.unregister("given")
        self.con.execute(model(problem))
        self.epochs = max(2, problem.epochs)

    def statement(self, limit: str, rate: float = RATE, shuffle: bool = True, within: str = "") -> str:
        """A run from first weights that depend on the seed alone."""
        return (
            f"TRAIN net ON rows FROM SCRATCH WITH SGD (learning_rate = {rate}, momentum = {MOMENTUM}, "
            f"batch_size = {self.problem.batch}, shuffle = {shuffle}, {limit}) {within}"
        )

    def warm(self, seconds: float) -> None:
        """A long run, beside which its steps are compiled where that pays. Later runs are as long as LEAST."""
        if seconds >= 1:
            self.con.execute(self.statement("epochs = 1000000", within=f"WITHIN {int(seconds)} SECONDS"))
        if self.problem.epochs == 1:
            self.epochs = max(2, math.ceil(LEAST / (self.problem.steps * self.seconds())))

    def seconds(self) -> float:
        """Of a step of the last epoch, or averaged over all where the problem asks for several."""
        problem = self.problem
        self.con.execute(self.statement(f"epochs = {self.epochs}", shuffle=problem.shuffle))
        [(rate, all_epochs, step)] = self.con.execute(
            "SELECT rows_per_second, seconds, step FROM mlsql.training_log ORDER BY run_id DESC, epoch DESC LIMIT 1"
        ).fetchall()
        return float(problem.batch / rate if problem.epochs == 1 else all_epochs / step)

    def drawn(self) -> Weights:
        """The first weights of a run: a step this small leaves them as they are. The catalog has (inputs, outputs)."""
        self.con.execute(self.statement("steps = 1", rate=1e-30))
        found = parameters(self.con, "net")
        names = [f"h{number}" for number in range(1, len(self.problem.layers))] + ["score"]
        return [(found[f"{name}.weight"].T, found[f"{name}.bias"]) for name in names]

    def curve(self, first: Weights, epochs: int) -> list[float]:
        """The losses of the log; the first weights are those of ``drawn``."""
        self.con.execute(self.statement(f"epochs = {epochs}", shuffle=False))
        return losses(self.con)

    def restart(self, first: Weights) -> None:
        raise Unable("TRAIN draws its first weights")

    def epoch(self) -> float:
        raise Unable("TRAIN runs whole epochs")

    def facts(self) -> dict[str, Any]:
        """What EXPLAIN and the notices of a run say of the code that it takes."""
        statement = self.statement(f"epochs = {self.epochs}", shuffle=self.problem.shuffle)
        cursor = self.con.execute(statement)
        explained = [str(row[0]) for row in self.con.execute(f"EXPLAIN {statement}").fetchall()]
        told = [line for line in explained if line.startswith(("compiled", "interpreted"))]
        return {**super().facts(), "epochs": self.epochs, "code": [*told, *(text for _, text in cursor.messages)]}
