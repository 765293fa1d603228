"""A graph convolutional network on a whole graph: mlsql beside PyTorch Geometric, seconds of an epoch and peak memory.

Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks", 2017: two layers, 128-64-40, on a
random graph of the size of ogbn-arxiv, 169,343 nodes and 1,166,243 directed edges, with symmetric normalization and
self loops, cross entropy over all nodes, Adam. In-degrees and out-degrees follow a power law with exponent 2.5, as
those of citation graphs roughly do (few nodes have thousands of neighbours, which is what scatter and gather feel).

PyTorch Geometric is no dependency of mlsql: ``pip install torch_geometric``. Two of its ways run: ``pyg`` is
``GCNConv(cached=True)`` over an edge list, ``pyg sparse`` the same layer over a sparse CSR matrix.

First weights are mlsql's, read from its catalog after a run whose learning rate is 1e-30.

    python benchmarks/gcn.py [--rounds 7] [--epochs 3] [--peers-only] [--json benchmarks/results/gcn.json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from sides import Report, Side, alternate, arguments, hold_curves, keep, losses, machine, parameters, serve, summary

NODES, EDGES, INPUTS, HIDDEN, CLASSES = 169_343, 1_166_243, 128, 64, 40
RATE, CURVE = 0.01, 20
SHAPES = {"w1": (INPUTS, HIDDEN), "b1": (HIDDEN,), "w2": (HIDDEN, CLASSES), "b2": (CLASSES,)}
PEERS = ("pyg sparse", "pyg")

MODEL = f"""
CREATE MODEL gcn
PARAMETERS (w1 FLOAT[{HIDDEN}][{INPUTS}], b1 FLOAT[{HIDDEN}] INIT ZEROS,
            w2 FLOAT[{CLASSES}][{HIDDEN}], b2 FLOAT[{CLASSES}] INIT ZEROS)
INPUT nodes (id BIGINT, x FLOAT[{INPUTS}]), edges (src BIGINT, dst BIGINT, w FLOAT)
TARGET nodes (label INTEGER)
AS WITH
  sent AS (SELECT id, x @ w1 AS z FROM nodes),
  hidden AS (SELECT e.dst AS id, RELU(SUM(e.w * s.z) + b1) AS h
             FROM edges e JOIN sent s ON s.id = e.src GROUP BY e.dst),
  sent_2 AS (SELECT id, h @ w2 AS z FROM hidden),
  scored AS (SELECT e.dst AS id, SUM(e.w * s.z) + b2 AS z
             FROM edges e JOIN sent_2 s ON s.id = e.src GROUP BY e.dst)
SELECT id, scored.z AS logits, ARGMAX(logits) AS prediction FROM scored JOIN nodes USING (id)
MINIMIZE AVG(CROSS_ENTROPY(logits, label))
"""


def power_law(rng: np.random.Generator, count: int, exponent: float = 2.5) -> np.ndarray:
    """Ends of edges: a node is drawn in proportion to a weight whose distribution has a tail of this exponent."""
    weight = (1 - rng.random(NODES)) ** (-1 / (exponent - 1))
    return np.searchsorted(np.cumsum(weight), rng.random(count) * weight.sum()).clip(max=NODES - 1)


def graph() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """src and dst of the edges without self loops, all different, and a class for each node."""
    rng = np.random.default_rng(0)
    pairs = np.unique(power_law(rng, 2 * EDGES) * NODES + power_law(rng, 2 * EDGES))
    pairs = rng.permutation(pairs[pairs // NODES != pairs % NODES])[:EDGES]
    assert len(pairs) == EDGES, "twice as many draws give enough different edges"
    return pairs // NODES, pairs % NODES, rng.integers(0, CLASSES, NODES)


def features(label: np.ndarray) -> np.ndarray:
    """Noise around a centre for each class, so that there is something to learn."""
    rng = np.random.default_rng(2)
    centres = rng.standard_normal((CLASSES, INPUTS), dtype=np.float32)
    return 0.3 * centres[label] + rng.standard_normal((NODES, INPUTS), dtype=np.float32)


def mlsql_side(weights: Path) -> None:
    """Serves epochs of TRAIN."""
    import pyarrow as pa

    import mlsql

    src, dst, label = graph()
    con = mlsql.connect(progress=False)
    x = pa.FixedSizeListArray.from_arrays(pa.array(features(label).reshape(-1)), INPUTS)
    con.register("given_nodes", pa.table({"id": np.arange(NODES), "x": x, "label": label}))
    con.register("given_edges", pa.table({"src": src, "dst": dst}))
    con.execute("CREATE TABLE nodes AS SELECT * FROM given_nodes")
    con.execute(
        """CREATE TABLE edges AS
        WITH looped AS (SELECT src, dst FROM given_edges UNION ALL SELECT id, id FROM nodes),
             degrees AS (SELECT dst AS id, count(*) AS degree FROM looped GROUP BY dst)
        SELECT src, dst, 1 / sqrt(s.degree * d.degree) AS w
        FROM looped JOIN degrees s ON s.id = src JOIN degrees d ON d.id = dst"""
    )
    con.unregister("given_nodes")
    con.unregister("given_edges")
    del x, src, dst
    con.execute(MODEL)
    train = "TRAIN gcn ON nodes AS nodes, edges AS edges "
    con.execute(train + "WITH SGD (learning_rate = 1e-30, batch_size = ALL, steps = 1)")
    np.savez(weights, **parameters(con, "gcn"))
    adam = f"WITH ADAM (learning_rate = {RATE}, batch_size = ALL, epochs = %d)"

    def curve() -> Report:
        con.execute(train + adam % CURVE)
        return {"losses": losses(con)}

    def epochs() -> Report:
        con.execute(train + adam % options.epochs)
        rates = "SELECT median(rows_per_second) FROM mlsql.training_log WHERE run_id = (SELECT max(run_id) FROM "
        [(rate,)] = con.execute(rates + "mlsql.training_log)").fetchall()
        return {"seconds": NODES / rate}

    serve({"curve": curve, "round": epochs})


def pyg_side(weights: Path, sparse: bool) -> None:
    """Serves epochs of PyTorch Geometric."""
    import torch
    from torch_geometric.nn import GCNConv

    src, dst, label = graph()
    x, y = torch.from_numpy(features(label)), torch.from_numpy(label)
    edges = torch.from_numpy(np.stack([src, dst]))
    if sparse:  # the transposed adjacency matrix, as PyTorch Geometric wants it
        edges = torch.sparse_coo_tensor(edges.flip(0), torch.ones(EDGES), (NODES, NODES)).coalesce().to_sparse_csr()
    first, second = GCNConv(INPUTS, HIDDEN, cached=True), GCNConv(HIDDEN, CLASSES, cached=True)
    given = {name: torch.from_numpy(v.reshape(SHAPES[name]).copy()) for name, v in np.load(weights).items()}
    with torch.no_grad():
        for layer, w, b in ((first, "w1", "b1"), (second, "w2", "b2")):
            layer.lin.weight.copy_(given[w].T)
            layer.bias.copy_(given[b])
    optimizer = torch.optim.Adam([*first.parameters(), *second.parameters()], lr=RATE)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(second(torch.relu(first(x, edges)), edges), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    def epochs() -> Report:
        seconds = []
        for _ in range(options.epochs):
            began = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - began)
        return {"seconds": float(np.median(seconds))}

    def profile() -> Report:
        with torch.profiler.profile() as taken:
            step()
        events = sorted(taken.key_averages(), key=lambda e: -e.self_cpu_time_total)[:12]
        return {"ms": {e.key: round(e.self_cpu_time_total / 1000, 1) for e in events}}

    def curve() -> Report:
        return {"losses": [step() for _ in range(CURVE)]}

    serve({"curve": curve, "round": epochs, "profile": profile})


def draw(weights: Path) -> None:
    """First weights for the peers where mlsql does not run: Glorot's."""
    rng = np.random.default_rng(3)
    bounds = {name: (6 / sum(shape)) ** 0.5 * (len(shape) == 2) for name, shape in SHAPES.items()}
    np.savez(weights, **{name: rng.uniform(-b, b, SHAPES[name]).astype(np.float32) for name, b in bounds.items()})


def measure(weights: Path) -> Report:
    """Seconds of an epoch, peak memory and agreement of the curves."""
    names = PEERS if options.peers_only else ("mlsql", *PEERS)
    if options.peers_only:
        draw(weights)
    sides = []
    for name in names:  # one after the other: mlsql writes the weights that the others read
        sides.append(Side(__file__, name, ["--weights", str(weights), "--epochs", str(options.epochs)]))
        sides[-1].ask("ready")
    curves = {side.name: side.ask("curve")["losses"] for side in sides}
    found: Report = {"curves_differ_by": hold_curves(curves)}
    found |= summary(alternate(sides, options.rounds))
    found["last_losses"] = {name: curve[-1] for name, curve in curves.items()}
    found["peak_megabytes"] = {side.name: side.ask("peak")["megabytes"] for side in sides}
    if options.profile:
        found["profile"] = {side.name: side.ask("profile")["ms"] for side in sides if side.name != "mlsql"}
    for side in sides:
        side.close()
    return found


if __name__ == "__main__":
    parser = arguments(__doc__, rounds=7)
    parser.add_argument("--epochs", type=int, default=3, help="epochs of a round")
    parser.add_argument("--peers-only", action="store_true")
    parser.add_argument("--profile", action="store_true", help="where the peers' time goes, by PyTorch's operators")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side == "mlsql":
        mlsql_side(options.weights)
    elif options.side:
        pyg_side(options.weights, sparse=options.side == "pyg sparse")
    else:
        with tempfile.TemporaryDirectory() as folder:
            result = {"machine": machine("torch", "torch_geometric"), **measure(Path(folder) / "weights.npz")}
        print(json.dumps(result, indent=2))
        keep(result, options.json)
