"""Models over several relations, trained through SQL beside PyTorch: the loss curve to 1e-4, from equal first weights.

The references are written in plain PyTorch with dense adjacency matrices or scatters, each the textbook's formula;
where PyTorch Geometric is installed its layers are compared too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_references import Table, arrow, literal, parameters

import mlsql

DATA = Path(__file__).parent.parent / "examples" / "data"
RATE = 0.01


@pytest.fixture
def db() -> Iterator[Any]:
    with mlsql.connect(progress=False) as connection:
        yield connection


def losses(db: Any) -> list[float]:
    """The losses of the last run, an epoch each."""
    return [loss for (loss,) in db.execute(LOG).fetchall()]


LOG = "SELECT loss FROM mlsql.training_log WHERE run_id = (SELECT max(run_id) FROM mlsql.training_log) ORDER BY epoch"


def weights(seed: int, **shapes: tuple[int, ...]) -> Table:
    """First values of parameters."""
    rng = np.random.default_rng(seed)
    return {name: (0.4 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}


def declared(given: Table) -> str:
    """``PARAMETERS (...)`` with first values; a SQL type names the innermost size first."""
    types = {name: "".join(f"[{n}]" for n in reversed(values.shape)) for name, values in given.items()}
    return "PARAMETERS (" + ", ".join(f"{n} FLOAT{types[n]} INIT {literal(v)}" for n, v in given.items()) + ")"


def adam_curve(loss_of: Callable[..., torch.Tensor], given: Table, epochs: int) -> tuple[list[float], Table]:
    """The losses of PyTorch's Adam over the whole data, and the weights at the end."""
    leaves = {name: torch.nn.Parameter(torch.tensor(values)) for name, values in given.items()}
    optimizer = torch.optim.Adam(leaves.values(), lr=RATE)
    curve = []
    for _ in range(epochs):
        optimizer.zero_grad()
        loss = loss_of(**leaves)
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    return curve, {name: leaf.detach().numpy() for name, leaf in leaves.items()}


def compare(db: Any, model: str, curve: Sequence[float], learned: Table) -> None:
    """The run went the way of the reference, and there was a way to go."""
    np.testing.assert_allclose(losses(db), curve, rtol=1e-4)
    assert curve[-1] < 0.7 * curve[0]
    for name, values in parameters(db, model).items():
        np.testing.assert_allclose(values, learned[name], atol=1e-3, err_msg=name)


# -- Zachary's karate club ---------------------------------------------------------------------------------------------


def karate() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The symmetric adjacency matrix, the club that each member joined, and the members whose club is told."""
    edges = np.loadtxt(DATA / "karate_edges.csv", delimiter=",", skiprows=1, dtype=int)
    clubs = np.loadtxt(DATA / "karate_nodes.csv", delimiter=",", skiprows=1, dtype=str)[:, 1]
    adjacency = np.zeros((34, 34), np.float32)
    adjacency[edges[:, 0], edges[:, 1]] = adjacency[edges[:, 1], edges[:, 0]] = 1
    return adjacency, (clubs != "Mr. Hi").astype(int), np.array([0, 1, 32, 33])


def karate_tables(db: Any, label: np.ndarray, known: np.ndarray) -> None:
    """``nodes``, where the label of a member who is not told of is NULL, and ``edges`` with their normalization."""
    db.register("given", arrow({"id": np.arange(34), "x": np.eye(34, dtype=np.float32), "club": label}))
    told = ", ".join(map(str, known))
    db.execute(f"CREATE TABLE nodes AS SELECT id, x, CASE WHEN id IN ({told}) THEN club END AS label FROM given")
    db.execute(
        f"""CREATE TABLE edges AS
        WITH friends AS (FROM '{DATA}/karate_edges.csv'),
             looped AS (FROM friends UNION ALL SELECT dst, src FROM friends UNION ALL SELECT id, id FROM nodes),
             degrees AS (SELECT dst AS id, count(*) AS degree FROM looped GROUP BY dst)
        SELECT src, dst, 1 / sqrt(s.degree * d.degree) AS w
        FROM looped JOIN degrees s ON s.id = src JOIN degrees d ON d.id = dst"""
    )


GCN = """
CREATE MODEL club {parameters}
INPUT nodes (id BIGINT, x FLOAT[34]), edges (src BIGINT, dst BIGINT, w FLOAT)
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


def train_gcn(db: Any, given: Table, epochs: int) -> None:
    _, label, known = karate()
    karate_tables(db, label, known)
    db.execute(GCN.format(parameters=declared(given)))
    db.execute(
        "TRAIN club ON nodes AS nodes, edges AS edges "
        f"WITH ADAM (learning_rate = {RATE}, batch_size = ALL, epochs = {epochs})"
    )


def test_a_graph_convolutional_network_goes_the_way_that_torch_goes(db):
    """Kipf and Welling 2017, on the karate club: two labels a club are known, the others are NULL."""
    given = weights(1, w1=(34, 16), b1=(16,), w2=(16, 2), b2=(2,))
    train_gcn(db, given, 100)

    adjacency, label, known = karate()
    looped = adjacency + np.eye(34, dtype=np.float32)
    root = np.sqrt(looped.sum(axis=1))
    a, y, told = torch.tensor(looped / np.outer(root, root)), torch.tensor(label), torch.tensor(known)

    def scores(w1, b1, w2, b2):
        return a @ (torch.relu(a @ w1 + b1) @ w2) + b2

    def loss_of(**p):
        return torch.nn.functional.cross_entropy(scores(**p)[told], y[told])

    curve, learned = adam_curve(loss_of, given, 100)
    compare(db, "club", curve, learned)
    rows = db.execute("SELECT id, prediction FROM PREDICT(club, nodes AS nodes, edges AS edges) ORDER BY id").fetchall()
    expected = scores(**{n: torch.tensor(v) for n, v in learned.items()}).argmax(axis=1)
    assert [prediction for _, prediction in rows] == expected.tolist()
    assert np.sum(expected.numpy() != label) <= 2


def test_a_graph_convolutional_network_goes_the_way_that_torch_geometric_goes(db):
    geometric = pytest.importorskip("torch_geometric.nn")
    given = weights(2, w1=(34, 8), b1=(8,), w2=(8, 2), b2=(2,))
    train_gcn(db, given, 100)

    adjacency, label, known = karate()
    edges = torch.tensor(np.array(np.nonzero(adjacency)))
    x, y, told = torch.eye(34), torch.tensor(label), torch.tensor(known)
    first, second = geometric.GCNConv(34, 8), geometric.GCNConv(8, 2)

    def loss_of(w1, b1, w2, b2):
        def layer(made, w, b, h):
            names = {"lin.weight": w.T, "bias": b}
            return torch.func.functional_call(made, names, (h, edges))

        scores = layer(second, w2, b2, torch.relu(layer(first, w1, b1, x)))
        return torch.nn.functional.cross_entropy(scores[told], y[told])

    curve, learned = adam_curve(loss_of, given, 100)
    compare(db, "club", curve, learned)


# -- GraphSAGE ---------------------------------------------------------------------------------------------------------

SAGE = """
CREATE MODEL sage {parameters}
INPUT nodes (id BIGINT, x FLOAT[5]), edges (src BIGINT, dst BIGINT)
TARGET nodes (label INTEGER)
AS WITH
  around AS (SELECT e.dst AS id, AVG(n.x) AS x FROM edges e JOIN nodes n ON n.id = e.src GROUP BY e.dst),
  hidden AS (SELECT n.id, RELU(n.x @ self_1 + COALESCE(a.x, 0) @ around_1 + b1) AS h
             FROM nodes n LEFT JOIN around a ON a.id = n.id),
  around_2 AS (SELECT e.dst AS id, AVG(n.h) AS h FROM edges e JOIN hidden n ON n.id = e.src GROUP BY e.dst)
SELECT n.id, n.h @ self_2 + COALESCE(a.h, 0) @ around_2 + b2 AS logits, ARGMAX(logits) AS prediction
FROM hidden n LEFT JOIN around_2 a ON a.id = n.id
MINIMIZE AVG(CROSS_ENTROPY(logits, label))
"""
SAGE_SHAPES = {
    "self_1": (5, 8), "around_1": (5, 8), "b1": (8,), "self_2": (8, 3), "around_2": (8, 3), "b2": (3,)
}  # fmt: skip


def neighbours() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directed edges among 60 nodes, some of which nobody points to, features, and labels that neighbours tell."""
    rng = np.random.default_rng(3)
    src, dst = rng.integers(0, 60, 200), rng.integers(0, 50, 200)
    x = rng.normal(size=(60, 5)).astype(np.float32)
    mean = np.zeros((60, 60), np.float32)
    np.add.at(mean, (dst, src), 1)
    mean /= np.maximum(mean.sum(axis=1, keepdims=True), 1)
    return np.stack([src, dst]), x, np.argmax((x + 2 * mean @ x)[:, :3], axis=1)


def train_sage(db: Any, given: Table) -> None:
    (src, dst), x, label = neighbours()
    db.register("nodes", arrow({"id": np.arange(60) * 10, "x": x, "label": label}))
    db.register("edges", arrow({"src": src * 10, "dst": dst * 10}))
    db.execute(SAGE.format(parameters=declared(given)))
    db.execute(
        "TRAIN sage ON nodes AS nodes, edges AS edges "
        f"WITH ADAM (learning_rate = {RATE}, batch_size = ALL, epochs = 100)"
    )


def test_graphsage_over_whole_neighbourhoods_goes_the_way_that_torch_goes(db):
    """Hamilton, Ying and Leskovec 2017 with the mean aggregator; a node without neighbours hears a zero."""
    given = weights(4, **SAGE_SHAPES)
    train_sage(db, given)

    (src, dst), x, label = neighbours()
    count = torch.zeros(60, 1).index_add(0, torch.tensor(dst), torch.ones(200, 1)).clamp(min=1)
    inputs, y = torch.tensor(x), torch.tensor(label)

    def mean(h):
        return torch.zeros(60, h.shape[1]).index_add(0, torch.tensor(dst), h[torch.tensor(src)]) / count

    def loss_of(self_1, around_1, b1, self_2, around_2, b2):
        h = torch.relu(inputs @ self_1 + mean(inputs) @ around_1 + b1)
        return torch.nn.functional.cross_entropy(h @ self_2 + mean(h) @ around_2 + b2, y)

    curve, learned = adam_curve(loss_of, given, 100)
    compare(db, "sage", curve, learned)


def test_graphsage_goes_the_way_that_torch_geometric_goes(db):
    geometric = pytest.importorskip("torch_geometric.nn")
    given = weights(5, **SAGE_SHAPES)
    train_sage(db, given)

    edges, x, label = neighbours()
    first, second = geometric.SAGEConv(5, 8), geometric.SAGEConv(8, 3)

    def loss_of(self_1, around_1, b1, self_2, around_2, b2):
        def layer(made, own, around, b, h):
            names = {"lin_l.weight": around.T, "lin_l.bias": b, "lin_r.weight": own.T}
            return torch.func.functional_call(made, names, (h, torch.tensor(edges)))

        h = torch.relu(layer(first, self_1, around_1, b1, torch.tensor(x)))
        return torch.nn.functional.cross_entropy(layer(second, self_2, around_2, b2, h), torch.tensor(label))

    curve, learned = adam_curve(loss_of, given, 100)
    compare(db, "sage", curve, learned)


# -- embeddings --------------------------------------------------------------------------------------------------------


def drawn(db: Any, model: str, rows: str) -> Table:
    """The first values that mlsql draws: they stay as they are through a step of rate 1e-30."""
    db.execute(f"TRAIN {model} ON {rows} WITH SGD (learning_rate = 1e-30, batch_size = ALL, steps = 1)")
    return {name: values.copy() for name, values in parameters(db, model).items()}


def sgd_curve(loss_of: Callable[..., torch.Tensor], given: Table, rows: int, batch: int, epochs: int) -> list[float]:
    """Epoch by epoch, the average over the batches, in the order of the rows, of the losses of PyTorch's SGD."""
    leaves = {name: torch.nn.Parameter(torch.tensor(values)) for name, values in given.items()}
    optimizer = torch.optim.SGD(leaves.values(), lr=0.5)
    curve = []
    for _ in range(epochs):
        total = []
        for start in range(0, rows, batch):
            optimizer.zero_grad()
            loss = loss_of(slice(start, start + batch), **leaves)
            loss.backward()
            optimizer.step()
            total.append(loss.item())
        curve.append(float(np.mean(total)))
    return curve


def tastes() -> Table:
    """Ratings of rank 2 and noise; keys have gaps, so that a key is not its position."""
    rng = np.random.default_rng(6)
    user, item = rng.integers(0, 30, 640), rng.integers(0, 20, 640)
    u, v = rng.normal(size=(30, 2)), rng.normal(size=(20, 2))
    rating = np.sum(u[user] * v[item], axis=1) + 0.1 * rng.normal(size=640)
    return {"user_id": user * 7 + 3, "item_id": item * 11 - 50, "rating": rating.astype(np.float32)}


def positions(keys: np.ndarray) -> torch.Tensor:
    """Of each key among the sorted distinct ones: the row of its embedding."""
    return torch.tensor(np.unique(keys, return_inverse=True)[1])


def test_matrix_factorization_goes_the_way_that_torch_goes(db):
    """Koren, Bell and Volinsky 2009; batches in the order of the table."""
    table = tastes()
    db.register("ratings", arrow(table))
    db.execute(
        """CREATE MODEL taste INPUT (user_id BIGINT, item_id BIGINT) TARGET (rating FLOAT)
        AS SELECT EMBED(user_id, 4) AS u, EMBED(item_id, 4) AS v, DOT(u, v) AS prediction
        MINIMIZE AVG((prediction - rating) ** 2)"""
    )
    first = drawn(db, "taste", "ratings")
    db.execute("TRAIN taste ON ratings WITH SGD (learning_rate = 0.5, batch_size = 64, epochs = 30, shuffle = false)")

    user, item = (positions(table[key]) for key in ("user_id", "item_id"))
    rating = torch.tensor(table["rating"])

    def loss_of(batch, u, v):
        return (((u[user[batch]] * v[item[batch]]).sum(axis=1) - rating[batch]) ** 2).mean()

    curve = sgd_curve(loss_of, {"u": first["u.embedding"], "v": first["v.embedding"]}, 640, 64, 30)
    np.testing.assert_allclose(losses(db), curve, rtol=1e-4)
    assert curve[-1] < 0.5 * curve[0]


def test_a_factorization_machine_of_keys_goes_the_way_that_torch_goes(db):
    """Rendle 2010, where every column is a key: the embeddings of a row's keys interact in pairs."""
    rng = np.random.default_rng(9)
    keys = {name: rng.integers(0, 12, 512) for name in ("day", "place", "kind")}
    table: Table = {**keys, "y": (np.cos(keys["day"] * keys["place"]) + 0.1 * keys["kind"]).astype(np.float32)}
    db.register("rows", arrow(table))
    db.execute(
        """CREATE MODEL pairs INPUT (day BIGINT, place BIGINT, kind BIGINT) TARGET (y FLOAT)
        AS SELECT EMBED(day, 3) AS a, EMBED(place, 3) AS b, EMBED(kind, 3) AS c,
                  SUM_OF(EMBED(day, 1)) AS a_1, SUM_OF(EMBED(place, 1)) AS b_1, SUM_OF(EMBED(kind, 1)) AS c_1,
                  a_1 + b_1 + c_1 + 0.5 * SUM_OF((a + b + c) ** 2 - a ** 2 - b ** 2 - c ** 2) AS prediction
        MINIMIZE AVG((prediction - y) ** 2)"""
    )
    first = drawn(db, "pairs", "rows")
    db.execute("TRAIN pairs ON rows WITH SGD (learning_rate = 0.5, batch_size = 64, epochs = 20, shuffle = false)")

    at = [positions(table[key]) for key in ("day", "place", "kind")]
    y = torch.tensor(table["y"])

    def loss_of(batch, a, b, c, a_1, b_1, c_1):
        va, vb, vc = (table[rows[batch]] for table, rows in zip((a, b, c), at, strict=True))
        pairs = (va * vb + va * vc + vb * vc).sum(axis=1)
        linear = sum(table[rows[batch]].sum(axis=1) for table, rows in zip((a_1, b_1, c_1), at, strict=True))
        return ((linear + pairs - y[batch]) ** 2).mean()

    given = {name: first[f"{name}.embedding"][:12].reshape(12, -1) for name in ("a", "b", "c", "a_1", "b_1", "c_1")}
    curve = sgd_curve(loss_of, given, 512, 64, 20)
    np.testing.assert_allclose(losses(db), curve, rtol=1e-4)
    assert curve[-1] < 0.7 * curve[0]


# -- customers, orders and products ------------------------------------------------------------------------------------

SHOP = """
CREATE MODEL loyal {parameters}
INPUT customers (id BIGINT, x FLOAT[2]), orders (customer_id BIGINT, product_id BIGINT, amount FLOAT),
      products (id BIGINT, x FLOAT[3])
TARGET customers (stays BOOLEAN)
AS WITH
  bought AS (SELECT product_id AS id, LN(1 + SUM(amount)) AS much FROM orders GROUP BY product_id),
  product AS (SELECT p.id, RELU(p.x @ w_p + COALESCE(b.much, 0) * w_m + b_p) AS h
              FROM products p LEFT JOIN bought b USING (id)),
  basket AS (SELECT o.customer_id AS id, AVG(o.amount * p.h) AS h, MAX(o.amount) AS most
             FROM orders o JOIN product p ON p.id = o.product_id GROUP BY o.customer_id)
SELECT c.id, RELU(c.x @ w_c + COALESCE(k.h, 0) @ w_k + COALESCE(k.most, 0) * w_o + b_c) AS hidden,
       DOT(hidden, w) + b AS score, SIGMOID(score) AS prediction
FROM customers c LEFT JOIN basket k ON k.id = c.id
MINIMIZE AVG(BINARY_CROSS_ENTROPY(score, stays))
"""
SHOP_SHAPES: dict[str, tuple[int, ...]] = {
    "w_p": (3, 6), "w_m": (6,), "b_p": (6,), "w_c": (2, 5), "w_k": (6, 5), "w_o": (5,), "b_c": (5,), "w": (5,), "b": ()
}  # fmt: skip


def shop() -> tuple[Table, Table, Table]:
    """Customers, orders and products; some customers never ordered and some products were never bought."""
    rng = np.random.default_rng(10)
    orders: Table = {
        "customer_id": rng.integers(0, 70, 400),
        "product_id": rng.integers(0, 25, 400),
        "amount": rng.gamma(2, 0.5, 400).astype(np.float32),
    }
    products: Table = {"id": np.arange(30), "x": rng.normal(size=(30, 3)).astype(np.float32)}
    quality = np.bincount(orders["customer_id"], products["x"][orders["product_id"], 0] * orders["amount"], 80)
    customers: Table = {"id": np.arange(80), "x": rng.normal(size=(80, 2)).astype(np.float32)}
    customers["stays"] = quality + customers["x"][:, 0] > 0
    return customers, orders, products


def test_a_network_over_customers_orders_and_products_goes_the_way_that_torch_goes(db):
    """A heterogeneous graph: products hear of their orders, customers of the products that they ordered."""
    customers, orders, products = shop()
    for name, table in (("customers", customers), ("orders", orders), ("products", products)):
        db.register(name, arrow(table))
    given = weights(11, **SHOP_SHAPES)
    db.execute(SHOP.format(parameters=declared(given)))
    db.execute(
        "TRAIN loyal ON customers AS customers, orders AS orders, products AS products "
        f"WITH ADAM (learning_rate = {RATE}, batch_size = ALL, epochs = 150)"
    )

    who, what = torch.tensor(orders["customer_id"]), torch.tensor(orders["product_id"])
    amount, x_p, x_c = (torch.tensor(a) for a in (orders["amount"], products["x"], customers["x"]))
    much = torch.log1p(torch.zeros(30).index_add(0, what, amount))
    most = torch.zeros(80).scatter_reduce(0, who, amount, "amax")
    count = torch.zeros(80, 1).index_add(0, who, torch.ones(400, 1)).clamp(min=1)
    stays = torch.tensor(customers["stays"]).float()

    def loss_of(w_p, w_m, b_p, w_c, w_k, w_o, b_c, w, b):
        product = torch.relu(x_p @ w_p + much[:, None] * w_m + b_p)
        basket = torch.zeros(80, 6).index_add(0, who, amount[:, None] * product[what]) / count
        hidden = torch.relu(x_c @ w_c + basket @ w_k + most[:, None] * w_o + b_c)
        return torch.nn.functional.binary_cross_entropy_with_logits(hidden @ w + b, stays)

    curve, learned = adam_curve(loss_of, given, 150)
    compare(db, "loyal", curve, learned)
