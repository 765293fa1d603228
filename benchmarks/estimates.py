"""What the cost model expects beside what plans take: training steps, predictions, and ways to compute the same thing.

Every plan is run several times, and the least time counts, as in the calibration: other processes only ever add time.
Reported are the median of max(estimate / actual, actual / estimate), and how often the estimates put two plans in the
right order: over all pairs whose times differ by more than 1.5, and over the pairs that compute the same value.

    python benchmarks/estimates.py [--rounds 5] [--machine default] [--json benchmarks/results/estimates.json]
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from sides import Report, arguments, keep, machine

from mlsql.executor.calibrate import calibrate
from mlsql.executor.device import identity
from mlsql.executor.predict import Predictor
from mlsql.executor.run import executable, leaves
from mlsql.executor.train import Limits
from mlsql.optimizer.cost import Machine, chunk_seconds, step_seconds, total
from mlsql.parser import parse
from mlsql.planner.node import Node, walk
from mlsql.planner.ops import (
    Add,
    Column,
    Concat,
    Contract,
    Divide,
    Exp,
    GroupJoin,
    Index,
    Multiply,
    PairDot,
    Parameter,
    Positions,
    Segment,
    Sigmoid,
    Slice,
    Subtract,
    Sum,
    Take,
    Tanh,
    constant,
    dot,
)
from mlsql.session.core import Session
from mlsql.session.query.functions import predictor
from mlsql.session.train import prepare, trainer_of
from mlsql.types import FLOAT, INTEGER, UNIT, RowSet

DIFFERENT = 1.5  # times that are closer than this are as good as equal


@dataclass(frozen=True)
class Plan:
    """A plan, its estimate and a run of it. Plans with one ``value`` compute the same: they are alternatives."""

    title: str
    value: str
    cost: Callable[[Sequence[Node], Machine], float]
    nodes: Sequence[Node]
    run: Callable[[], float]  # seconds of one evaluation


# -- statements --------------------------------------------------------------------------------------------------------


def vectors(count: int, size: int, classes: int = 10, **more: Any) -> pa.Table:
    """Random rows: x FLOAT[size], a class, a yes/no outcome, a number."""
    rng = np.random.default_rng(0)
    x = pa.FixedSizeListArray.from_arrays(pa.array(rng.random(count * size, dtype=np.float32)), size)
    label = rng.integers(0, classes, count).astype(np.int32)
    return pa.table({"x": x, "label": label, "y": label % 2 == 0, "z": rng.random(count, dtype=np.float32), **more})


def training(title: str, model: str, tables: dict[str, pa.Table], solver: str, on: str = "t") -> Plan:
    """A step of TRAIN."""
    session = Session()
    for name, table in tables.items():
        session.storage.register(f"given {name}", table)
        session.execute(f'CREATE TABLE {name} AS SELECT * FROM "given {name}"').close()
    session.execute(f"CREATE MODEL m {model}").close()
    [statement] = parse(f"TRAIN m ON {on} FROM SCRATCH WITH {solver}")
    prepared = prepare(session, statement)
    loop = prepared.loop
    outputs = [loop.loss, loop.rate, *loop.updates.values()]
    trainer = trainer_of(session, prepared)
    trainer.stop_on_nan = False

    def run() -> float:
        trainer.log.clear()
        trainer.run(Limits(epochs=3))
        rows = len(trainer.rows) / trainer.steps_per_epoch
        return rows / max(entry.rows_per_second for entry in trainer.log)

    return Plan(title, title, step_seconds, outputs, run)


def prediction(title: str, model: str, table: pa.Table) -> Plan:
    """A chunk of rows through the forward plan, as PREDICT runs it."""
    session = Session()
    session.storage.register("given", table)
    session.execute("CREATE TABLE t AS SELECT * FROM given").close()
    session.execute(f"CREATE MODEL m {model}").close()
    session.execute("TRAIN m ON t WITH SGD (batch_size = 512, steps = 2)").close()
    found, version = session.models.trained(parse("DROP MODEL m")[0].model, None)
    forward = predictor(session, found, version, [found.prediction])
    assert isinstance(forward, Predictor)
    rows = forward.part.rows
    columns = {n.name: array(n) for n in walk(forward.outputs) if isinstance(n, Column)}
    run = timed(lambda: forward.values(columns, forward.parameters, rows))
    return Plan(title, title, chunk_seconds, forward.outputs, run)


# -- plans of our own --------------------------------------------------------------------------------------------------


def array(node: Node) -> np.ndarray:
    """Values for a leaf: random numbers, or positions in what is taken by them."""
    rng = np.random.default_rng(0)
    lead = () if node.type.rows == UNIT else (node.type.rows.rows,)
    if isinstance(node, (Positions, Index)):
        return rng.integers(0, node.over.rows, lead)
    if node.type.element == INTEGER:
        return rng.integers(0, 1000, lead).astype(np.int32)
    return np.asarray(rng.random((*lead, *node.type.shape)), node.type.element.storage)


def timed(call: Callable[[], Any]) -> Callable[[], float]:
    """Seconds of a call, averaged over at least a hundredth of a second."""

    def run() -> float:
        call()
        count, spent = 1, 0.0
        while True:
            began = time.perf_counter()
            for _ in range(count):
                call()
            spent = time.perf_counter() - began
            if spent > 0.01:
                return spent / count
            count *= 4

    return run


def of_nodes(title: str, value: str, node: Node) -> Plan:
    """A node computed from its leaves."""
    read = leaves([node])
    counts = {r: r.rows or 1 for n in walk([node]) for r in n.row_sets()}
    indexes = [n for n in walk([node]) if isinstance(n, Index)]
    made = executable([node], varying=read, arguments=indexes)
    step = made.bind({n: array(n) for n in read}, counts)
    given = [array(n) for n in indexes]
    return Plan(title, value, total, [node], timed(lambda: step(*given)))


def columns(rows: RowSet, *sizes: int) -> list[Node]:
    return [Column(f"c{i}", rows, FLOAT, (n,)) for i, n in enumerate(sizes)]


def weight(*shape: int, name: str = "w") -> Node:
    return Parameter(name, FLOAT, shape)


def linear(x: Node, w: Node) -> Node:
    return Contract("rk,ko->ro", x, w)


def alternatives() -> Iterator[Plan]:
    """Ways to compute one value, of which a law of the optimizer allows each."""
    yield from graph_layers()
    yield from split_layers()
    yield from below_joins()
    yield from least_squares()
    yield from chains()
    yield from fused()


def graph_layers() -> Iterator[Plan]:
    """A(XW) against (AX)W: the smaller of the two widths should go through the edges."""
    for inputs, outputs in ((128, 16), (16, 128), (64, 64)):
        nodes, edges = RowSet("nodes", 20_000), RowSet("edges", 140_000)
        (x,) = columns(nodes, inputs)
        w, source, group = weight(inputs, outputs), Positions("s", edges, nodes), Positions("g", edges, nodes)
        value = f"graph layer {inputs} to {outputs}"
        yield of_nodes(f"{value}, A(XW)", value, GroupJoin(linear(x, w), source, group, nodes))
        yield of_nodes(f"{value}, (AX)W", value, linear(GroupJoin(x, source, group, nodes), w))


def split_layers() -> Iterator[Plan]:
    """A linear layer over joined columns, whole or split per table."""
    for wide, out, dimension in ((50, 16, 1_000), (2, 64, 20_000), (200, 1, 10_000)):
        facts, rows = RowSet("facts", 40_000), RowSet("d", dimension)
        (a,), (b,) = columns(facts, 8), columns(rows, wide)
        w, at = weight(8 + wide, out), Positions("at", facts, rows)
        value = f"layer over a join, {wide} columns of {dimension} rows to {out}"
        yield of_nodes(f"{value}, joined", value, linear(Concat((a, Take(b, at)), 0), w))
        parts = linear(a, Slice(w, 0, 0, 8)), Take(linear(b, Slice(w, 0, 8, 8 + wide)), at)
        yield of_nodes(f"{value}, split", value, Add(*parts))


def below_joins() -> Iterator[Plan]:
    """A function of a row before or after the join."""
    for rows, dimension in ((50_000, 2_000), (5_000, 40_000)):
        facts, d = RowSet("facts", rows), RowSet("d", dimension)
        (x,) = columns(d, 32)
        at, w = Positions("at", facts, d), weight(32, 32)
        value = f"tanh layer of {dimension} rows joined to {rows}"
        yield of_nodes(f"{value}, before", value, Take(Tanh(linear(x, w)), at))
        yield of_nodes(f"{value}, after", value, Tanh(linear(Take(x, at), w)))


def least_squares() -> Iterator[Plan]:
    """The gradient of least squares from the rows, or from the Gram matrix."""
    for rows, size in ((100_000, 32), (64, 256)):
        table = RowSet("t", rows)
        (x,) = columns(table, size)
        y, w, gram, moment = (
            Column("y", table, FLOAT),
            weight(size),
            weight(size, size, name="g"),
            weight(size, name="m"),
        )
        value = f"gradient of least squares, {rows} x {size}"
        error = Subtract(Contract("rk,k->r", x, w), y)
        yield of_nodes(f"{value}, from rows", value, Contract("rk,r->k", x, error))
        yield of_nodes(f"{value}, from the Gram matrix", value, Subtract(Contract("ik,k->i", gram, w), moment))


def chains() -> Iterator[Plan]:
    """The order of a chain of products, and a sum before or after a product."""
    for rows, inner, out in ((4096, 256, 1), (64, 512, 512)):
        table = RowSet("t", rows)
        (x,) = columns(table, inner)
        first, second = weight(inner, inner), weight(inner, out, name="v")
        value = f"chain {rows} x {inner} x {inner} x {out}"
        yield of_nodes(f"{value}, from the left", value, linear(linear(x, first), second))
        yield of_nodes(f"{value}, from the right", value, linear(x, Contract("ik,ko->io", first, second)))
    table = RowSet("t", 50_000)
    (x,) = columns(table, 64)
    w = weight(64, 32)
    yield of_nodes("sum of a layer, after", "sum of a layer", Sum(linear(x, w), True))
    yield of_nodes("sum of a layer, before", "sum of a layer", Contract("k,ko->o", Sum(x, True), w))


def fused() -> Iterator[Plan]:
    """Joins fused with what stands above them."""
    users, rows = RowSet("users", 50_000), RowSet("ratings", 100_000)
    for size in (4, 64):
        (x,), (y,) = columns(users, size), [Column("y", users, FLOAT, (size,))]
        i, j = Positions("i", rows, users), Positions("j", rows, users)
        value = f"dot products of joined rows of {size}"
        yield of_nodes(f"{value}, joined", value, dot(Take(x, i), Take(y, j)))
        yield of_nodes(f"{value}, fused", value, PairDot(x, i, y, j))
        value = f"grouped sums of joined rows of {size}"
        yield of_nodes(f"{value}, joined", value, Segment(Take(x, i), j, users))
        yield of_nodes(f"{value}, fused", value, GroupJoin(x, i, j, users))
    table = RowSet("t", 20_000)
    (x,) = columns(table, 10)
    powers = Exp(x)
    yield of_nodes("softmax of 10, of powers", "softmax of 10", Divide(powers, Sum(powers, False, (0,))))
    s = Sigmoid(x)
    slope = Multiply(s, Subtract(constant(1.0), s))
    yield of_nodes("slope of a sigmoid", "slope of a sigmoid", slope)


# -- the models --------------------------------------------------------------------------------------------------------


def network(inputs: int, *sizes: int, function: str = "RELU", loss: str = "CROSS_ENTROPY(out, label)") -> str:
    """A CREATE MODEL of dense layers."""
    layers, before = [], "x"
    for i, size in enumerate(sizes):
        is_last = i == len(sizes) - 1
        layer = f"LINEAR({before}, {size})"
        before = "out" if is_last else f"h{i}"
        layers.append(f"{layer if is_last else f'{function}({layer})'} AS {before}")
    target = {"l": "label INTEGER", "y": "y BOOLEAN", "z": "z FLOAT"}[loss.rpartition(", ")[2][0]]
    return f"INPUT (x FLOAT[{inputs}]) TARGET ({target}) AS SELECT {', '.join(layers)} MINIMIZE AVG({loss})"


def star(wide: int) -> tuple[str, dict[str, pa.Table]]:
    """Logistic regression over facts and two dimensions of ``wide`` columns."""
    rng = np.random.default_rng(0)
    sizes = {"a": 1_000, "b": 20_000}
    tables = {
        "facts": pa.table({
            **{f"{d}_id": rng.integers(0, n, 200_000) for d, n in sizes.items()},
            "f": rng.random(200_000, dtype=np.float32), "y": rng.random(200_000) < 0.5,
        })
    }  # fmt: skip
    for d, n in sizes.items():
        x = pa.FixedSizeListArray.from_arrays(pa.array(rng.random(n * wide, dtype=np.float32)), wide)
        tables[d] = pa.table({"id": np.arange(n), f"{d}x": x})
    model = (
        f"INPUT facts (a_id BIGINT, b_id BIGINT, f FLOAT), a (id BIGINT, ax FLOAT[{wide}]), "
        f"b (id BIGINT, bx FLOAT[{wide}]) "
        "TARGET facts (y BOOLEAN) AS SELECT LINEAR(ax, 1) + LINEAR(bx, 1) + LINEAR(f, 1) AS score "
        "FROM facts JOIN a ON a.id = a_id JOIN b ON b.id = b_id MINIMIZE AVG(BINARY_CROSS_ENTROPY(score, y))"
    )
    return model, tables


def gcn(nodes: int, edges: int, inputs: int, hidden: int) -> tuple[str, dict[str, pa.Table]]:
    """Two graph convolutions over a random graph."""
    rng = np.random.default_rng(0)
    x = pa.FixedSizeListArray.from_arrays(pa.array(rng.random(nodes * inputs, dtype=np.float32)), inputs)
    loops = np.arange(nodes)
    tables = {
        "nodes": pa.table({"id": loops, "x": x, "label": rng.integers(0, 7, nodes).astype(np.int32)}),
        "edges": pa.table({
            "src": np.concatenate([loops, rng.integers(0, nodes, edges)]),
            "dst": np.concatenate([loops, rng.integers(0, nodes, edges)]),
            "w": rng.random(nodes + edges, dtype=np.float32),
        }),
    }  # fmt: skip
    model = f"""PARAMETERS (w1 FLOAT[{hidden}][{inputs}], w2 FLOAT[7][{hidden}])
        INPUT nodes (id BIGINT, x FLOAT[{inputs}]), edges (src BIGINT, dst BIGINT, w FLOAT)
        TARGET nodes (label INTEGER)
        AS WITH sent AS (SELECT id, x @ w1 AS z FROM nodes),
          hidden AS (SELECT e.dst AS id, RELU(SUM(e.w * s.z)) AS h
                     FROM edges e JOIN sent s ON s.id = e.src GROUP BY e.dst),
          sent_2 AS (SELECT id, h @ w2 AS z FROM hidden),
          scored AS (SELECT e.dst AS id, SUM(e.w * s.z) AS z
                     FROM edges e JOIN sent_2 s ON s.id = e.src GROUP BY e.dst)
        SELECT id, scored.z AS logits FROM scored JOIN nodes USING (id) MINIMIZE AVG(CROSS_ENTROPY(logits, label))"""
    return model, tables


def taste(users: int, rank: int) -> tuple[str, dict[str, pa.Table]]:
    """Matrix factorization."""
    rng = np.random.default_rng(0)
    keys = {"user_id": rng.integers(0, users, 200_000), "item_id": rng.integers(0, users // 5, 200_000)}
    table = pa.table({**keys, "rating": rng.random(200_000, dtype=np.float32)})
    model = (
        "INPUT (user_id BIGINT, item_id BIGINT) TARGET (rating FLOAT) "
        f"AS SELECT EMBED(user_id, {rank}) AS u, EMBED(item_id, {rank}) AS v, DOT(u, v) AS prediction "
        "MINIMIZE AVG((prediction - rating) ** 2)"
    )
    return model, {"t": table}


def statements() -> Iterator[Plan]:
    """Training steps and predictions of the models that people train."""
    yes_no, number = "BINARY_CROSS_ENTROPY(out, y)", "SQUARED_ERROR(out, z)"
    digits, small = {"t": vectors(20_000, 784)}, {"t": vectors(50_000, 64)}
    batches = "SGD (learning_rate = 0.001, batch_size = {})".format
    for size in (64, 1024):
        yield training(f"MLP 784-128-10, batch {size}", network(784, 128, 10), digits, batches(size))
    yield training("MLP 784-128-10, Adam, batch 64", network(784, 128, 10), digits, "ADAM (batch_size = 64)")
    for size in (32, 4096):
        yield training(f"MLP 64-32-10, batch {size}", network(64, 32, 10), small, batches(size))
    yield training("MLP 64-32-10, all rows", network(64, 32, 10), small, "GD (learning_rate = 0.001)")
    deep = network(64, 256, 256, 256, 1, function="TANH", loss=number)
    yield training("tanh 64-256-256-256-1, batch 256", deep, small, batches(256))
    gelu = network(64, 64, 64, 4, function="GELU")
    yield training("GELU 64-64-64-4, Adam, batch 128", gelu, {"t": vectors(50_000, 64, 4)}, "ADAM (batch_size = 128)")
    logistic = network(32, 1, loss=yes_no)
    some, many = {"t": vectors(50_000, 32)}, {"t": vectors(500_000, 32)}
    for size in (32, 8192):
        yield training(f"logistic 32, batch {size}", logistic, some, batches(size))
    yield training("logistic 32, all of 500,000 rows", logistic, many, "GD (learning_rate = 0.001)")
    squares = network(32, 1, loss=number)
    yield training("least squares 32, all of 500,000 rows", squares, many, "GD (learning_rate = 0.001)")
    yield training("softmax 784-10, batch 128", network(784, 10), digits, batches(128))
    for users, rank, size in ((20_000, 32, 1024), (100_000, 8, 16384), (100_000, 64, 4096)):
        title = f"embeddings of {users} x {rank}, batch {size}"
        yield training(title, *taste(users, rank), batches(size))
    yield training("embeddings, Adam, batch 4096", *taste(20_000, 32), "ADAM (batch_size = 4096)")
    on = "facts AS facts, a AS a, b AS b"
    for wide, size in ((8, 4096), (64, 4096), (8, 32768)):
        yield training(f"star join, {wide} columns a dimension, batch {size}", *star(wide), batches(size), on=on)
    for shape in ((2_708, 10_000, 256, 16), (20_000, 140_000, 64, 32)):
        title = f"GCN of {shape[0]} nodes, {shape[2]}-{shape[3]}-7"
        yield training(title, *gcn(*shape), "ADAM (batch_size = ALL)", on="nodes AS nodes, edges AS edges")
    yield prediction("PREDICT MLP 784-128-10", network(784, 128, 10), vectors(4096, 784))
    yield prediction("PREDICT MLP 64-32-10", network(64, 32, 10), vectors(4096, 64))
    yield prediction("PREDICT tanh 64-256-256-256-1", deep, vectors(4096, 64))
    yield prediction("PREDICT logistic 32", logistic, vectors(4096, 32))


# -- the report --------------------------------------------------------------------------------------------------------


def right_share(pairs: Collection[tuple[Report, Report]]) -> Report:
    """How many pairs differ, and for which share of them the estimates stand in the order of the times."""
    apart = [(a, b) for a, b in pairs if max(a["actual"], b["actual"]) > DIFFERENT * min(a["actual"], b["actual"])]
    right = [(a["actual"] < b["actual"]) == (a["estimate"] < b["estimate"]) for a, b in apart]
    return {"pairs": len(right), "right": sum(right) / len(right) if right else None}


def measure(on: Machine, rounds: int, only: str) -> Report:
    """Every plan's estimate and least time, and what they come to."""
    found: list[Report] = []
    for plan in itertools.chain(statements(), alternatives()):
        if only in plan.title:
            actual = min(plan.run() for _ in range(rounds))
            expected = plan.cost(plan.nodes, on)
            found.append({"plan": plan.title, "value": plan.value, "estimate": expected, "actual": actual})
            micros = f"{expected * 1e6:10.1f} us expected, {actual * 1e6:10.1f} us taken"
            print(f"{plan.title:66} {micros}, {expected / actual:.2f}")
    pairs = list(itertools.combinations(found, 2))
    return {
        "plans": len(found),
        "median_ratio": statistics.median(max(r["estimate"] / r["actual"], r["actual"] / r["estimate"]) for r in found),
        "all_pairs": right_share(pairs),
        "alternatives": right_share([(a, b) for a, b in pairs if a["value"] == b["value"]]),
        "each": found,
    }


def machine_of(choice: str) -> Machine:
    """The assumed machine, or this one, measured now."""
    if choice == "default":
        return Machine()
    here = identity()
    rates = calibrate(thorough=choice == "measured")
    return Machine.measured(rates, here.processor, here.cores, here.numpy, "now")


if __name__ == "__main__":
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--machine", choices=("measured", "quick", "default"), default="measured")
    parser.add_argument("--only", default="", help="plans whose title contains this")
    options = parser.parse_args()
    costed_for = machine_of(options.machine)
    result = {"machine": machine(), "rates": options.machine, **measure(costed_for, options.rounds, options.only)}
    print({name: value for name, value in result.items() if name not in ("each", "machine")})
    keep(result, options.json)
