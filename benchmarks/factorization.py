"""Matrix factorization by mini-batches: mlsql beside PyTorch's sparse embeddings, seconds an epoch and peak memory.

Koren, Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems", 2009: a rating is the dot product
of a learned row for its user and one for its item. 10 M ratings of 100,000 users and 20,000 items, rank 32, SGD.
Ratings come from factors of rank 8 and noise; users and items are drawn evenly, which is the hardest case for caches.

The peer is ``torch.nn.Embedding(sparse=True)`` with ``torch.optim.SGD`` at the batch size at which it is fastest of
1024, 4096, 16384 and 65536 (``--batch-size`` skips that search); mlsql takes the same. Both visit the rows in a new
order every epoch while the clock runs. Curves are compared in the order of the table, from mlsql's first weights, which
are read from its catalog after a step whose learning rate is 1e-30.

    python benchmarks/factorization.py [--rounds 3] [--peers-only] [--json benchmarks/results/factorization.json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from sides import Report, Side, alternate, arguments, hold_curves, keep, losses, machine, parameters, serve, summary

RATINGS, USERS, ITEMS, RANK = 10_000_000, 100_000, 20_000, 32
BATCH_SIZES = (1024, 4096, 16384, 65536)
RATE, CURVE = 0.1, 4  # the rate is that of one rating: the loss is an average, so a batch of b takes RATE * b / 2

MODEL = f"""
CREATE MODEL taste INPUT (user_id BIGINT, item_id BIGINT) TARGET (rating FLOAT)
AS SELECT EMBED(user_id, {RANK}) AS u, EMBED(item_id, {RANK}) AS v, DOT(u, v) AS prediction
MINIMIZE AVG((prediction - rating) ** 2)
"""


def ratings() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users, items and what they think of each other. Every user and every item occurs."""
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, USERS, RATINGS), rng.integers(0, ITEMS, RATINGS)
    user[:USERS], item[-ITEMS:] = np.arange(USERS), np.arange(ITEMS)
    u, v = (rng.standard_normal((n, 8), dtype=np.float32) for n in (USERS, ITEMS))
    rating = 0.3 * rng.standard_normal(RATINGS, dtype=np.float32)
    for start in range(0, RATINGS, 1_000_000):  # in pieces, so that the peak of memory is not this function's
        rows = slice(start, start + 1_000_000)
        rating[rows] += 0.35 * np.einsum("rk,rk->r", u[user[rows]], v[item[rows]])
    return user, item, rating


def mlsql_side(weights: Path) -> None:
    """Serves epochs of TRAIN."""
    import pyarrow as pa

    import mlsql

    con = mlsql.connect(progress=False)
    con.register("given", pa.table(dict(zip(("user_id", "item_id", "rating"), ratings(), strict=True))))
    con.execute("CREATE TABLE ratings AS SELECT * FROM given")
    con.unregister("given")
    con.execute(MODEL)
    con.execute("TRAIN taste ON ratings WITH SGD (learning_rate = 1e-30, batch_size = 1024, steps = 1)")
    drawn = parameters(con, "taste")
    np.savez(weights, u=drawn["u.embedding"][:USERS], v=drawn["v.embedding"][:ITEMS])
    train = (
        f"TRAIN taste ON ratings WITH SGD (learning_rate = {RATE / 2 * options.batch_size}, "
        f"batch_size = {options.batch_size}, epochs = %d, shuffle = %s)"
    )

    def curve() -> Report:
        con.execute(train % (CURVE, "false"))
        return {"losses": losses(con)}

    def epoch() -> Report:
        con.execute(train % (1, "true"))
        [(rate,)] = con.execute(
            "SELECT rows_per_second FROM mlsql.training_log ORDER BY run_id DESC, epoch DESC LIMIT 1"
        ).fetchall()
        return {"seconds": RATINGS / rate}

    serve({"curve": curve, "round": epoch})


def torch_side(weights: Path) -> None:
    """Serves epochs of PyTorch."""
    import torch

    user, item, rating = (torch.from_numpy(a) for a in ratings())
    given = np.load(weights)
    u, v = (torch.nn.Embedding.from_pretrained(torch.from_numpy(given[n].copy()), False, sparse=True) for n in "uv")

    def step(index: torch.Tensor | slice, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        optimizer.zero_grad()
        prediction = (u(user[index]) * v(item[index])).sum(axis=1)
        loss = torch.nn.functional.mse_loss(prediction, rating[index])
        loss.backward()
        optimizer.step()
        return loss.detach()

    def epoch(batch_size: int, shuffle: bool, limit: int = RATINGS) -> Report:
        began, total = time.perf_counter(), torch.zeros(())
        optimizer = torch.optim.SGD([u.weight, v.weight], RATE / 2 * batch_size)
        order = torch.randperm(RATINGS) if shuffle else None
        starts = range(0, limit, batch_size)
        for start in starts:
            rows = slice(start, min(start + batch_size, RATINGS))
            total += step(rows if order is None else order[rows], optimizer) * (rows.stop - start)
        return {"seconds": time.perf_counter() - began, "loss": total.item() / limit}

    def curve() -> Report:
        return {"losses": [epoch(options.batch_size, shuffle=False)["loss"] for _ in range(CURVE)]}

    def sizes() -> Report:
        """Seconds of an epoch at each batch size, from a fifth of an epoch; the weights stay as they are."""
        kept = [p.weight.detach().clone() for p in (u, v)]
        found = {size: 5 * epoch(size, True, RATINGS // 5)["seconds"] for size in BATCH_SIZES}
        with torch.no_grad():
            for layer, before in zip((u, v), kept, strict=True):
                layer.weight.copy_(before)
        return {"seconds": found}

    def profile() -> Report:
        with torch.profiler.profile() as taken:
            epoch(options.batch_size, True, 50 * options.batch_size)
        events = sorted(taken.key_averages(), key=lambda e: -e.self_cpu_time_total)[:12]
        return {"ms_of_50_steps": {e.key: round(e.self_cpu_time_total / 1000, 1) for e in events}}

    serve(
        {
            "sizes": sizes,
            "curve": curve,
            "round": lambda: epoch(options.batch_size, shuffle=True),
            "profile": profile,
        }
    )


def draw(weights: Path) -> None:
    """First weights for the peer where mlsql does not run."""
    rng = np.random.default_rng(1)
    drawn = {name: rng.standard_normal((n, RANK), dtype=np.float32) for name, n in (("u", USERS), ("v", ITEMS))}
    np.savez(weights, **{name: 0.1 * values for name, values in drawn.items()})


def start(name: str, weights: Path, batch_size: int) -> Side:
    """A contender that has loaded its data."""
    side = Side(__file__, name, ["--weights", str(weights), "--batch-size", str(batch_size)])
    side.ask("ready")
    return side


def measure(weights: Path) -> Report:
    """Seconds of an epoch, peak memory and agreement of the curves."""
    found: Report = {}
    batch_size = options.batch_size
    if not batch_size:
        draw(weights)
        searcher = start("torch", weights, BATCH_SIZES[0])
        found["torch_seconds_by_batch_size"] = searcher.ask("sizes")["seconds"]
        searcher.close()
        batch_size = int(min(found["torch_seconds_by_batch_size"].items(), key=lambda pair: pair[1])[0])
    found["batch_size"] = batch_size
    if options.peers_only:
        draw(weights)
    sides = [start(name, weights, batch_size) for name in (["torch"] if options.peers_only else ["mlsql", "torch"])]
    curves = {side.name: side.ask("curve")["losses"] for side in sides}
    found |= {"curves": curves, "curves_differ_by": hold_curves(curves)}
    found |= summary(alternate(sides, options.rounds))
    found["peak_megabytes"] = {side.name: side.ask("peak")["megabytes"] for side in sides}
    if options.profile:
        found["profile"] = sides[-1].ask("profile")
    for side in sides:
        side.close()
    return found


if __name__ == "__main__":
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--batch-size", type=int, default=0, help="0: the one at which PyTorch is fastest")
    parser.add_argument("--peers-only", action="store_true")
    parser.add_argument("--profile", action="store_true", help="where the peer's time goes, by PyTorch's operators")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        (mlsql_side if options.side == "mlsql" else torch_side)(options.weights)
    else:
        with tempfile.TemporaryDirectory() as folder:
            result = {"machine": machine("torch"), **measure(Path(folder) / "weights.npz")}
        print(json.dumps(result, indent=2))
        keep(result, options.json)
