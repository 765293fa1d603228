"""A new process up to its first training step: interpreter, imports, a table of 1,000 rows, a step of a network.

The files of the libraries are in the system's cache; nothing else is warm.
"""

from __future__ import annotations

import subprocess
import sys
import time

PYTHON = "print('done', flush=True)"

ENGINE = """
import mlsql
con = mlsql.connect(progress=False)
con.execute("CREATE TABLE rows AS SELECT [random() for _ in range(64)]::FLOAT[64] AS x, (i % 10)::INTEGER AS y "
            "FROM range(1000) AS r(i)")
con.execute("CREATE MODEL net INPUT (x FLOAT[64]) TARGET (y INTEGER) AS SELECT RELU(LINEAR(x, 128)) AS hidden, "
            "LINEAR(hidden, 10) AS score MINIMIZE AVG(CROSS_ENTROPY(score, y))")
con.execute("TRAIN net ON rows WITH SGD (learning_rate = 0.01, momentum = 0.9, batch_size = 32, steps = 1)")
"""

PYTORCH = """
import torch
x, y = torch.rand(1000, 64), torch.arange(1000) % 10
net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
optimizer = torch.optim.SGD(net.parameters(), 0.01, 0.9)
loss_of = torch.nn.CrossEntropyLoss()
def step(x, y):
    loss = LOSS(net(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()
step(x[:32], y[:32])
"""

JAX = """
import jax
import numpy as np
from jax import numpy as jnp
rng = np.random.default_rng(0)
x, y = rng.random((1000, 64), np.float32), np.arange(1000) % 10
weights = [rng.standard_normal(s, np.float32) * 0.1 for s in ((64, 128), (128,), (128, 10), (10,))]
def loss_of(weights, x, y):
    w1, b1, w2, b2 = weights
    score = jax.nn.log_softmax(jnp.maximum(x @ w1 + b1, 0) @ w2 + b2)
    return -jnp.mean(jnp.take_along_axis(score, y[:, None], 1))
@jax.jit
def step(weights, momentum, x, y):
    loss, gradient = jax.value_and_grad(loss_of)(weights, x, y)
    momentum = [0.9 * v + g for v, g in zip(momentum, gradient)]
    return [w - 0.01 * v for w, v in zip(weights, momentum)], momentum, loss
jax.block_until_ready(step(weights, [np.zeros_like(w) for w in weights], x[:32], y[:32]))
"""

SCIKIT = """
import numpy as np
from sklearn.neural_network import MLPClassifier
x, y = np.random.default_rng(0).random((1000, 64), np.float32), np.arange(1000) % 10
net = MLPClassifier(128, solver="sgd", alpha=0, batch_size=32, learning_rate_init=0.01, nesterovs_momentum=False)
net.partial_fit(x[:32], y[:32], classes=np.arange(10))
"""

PROGRAMS = {
    "mlsql": ENGINE,
    "pytorch eager": PYTORCH.replace("LOSS", "loss_of"),
    "torch.compile": PYTORCH.replace("LOSS", "torch.compile(lambda score, y: loss_of(score, y))"),
    "jax scan": JAX,
    "scikit-learn": SCIKIT,
    "limit": "",
}


def seconds(name: str) -> float:
    """From starting the process until it says that the step is done; ModuleNotFoundError if a library is missing."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAMS[name] + PYTHON], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stderr
    said = process.stdout.readline()
    taken = time.perf_counter() - began
    _, errors = process.communicate()
    if said.strip() != "done":
        last = errors.strip().splitlines()[-1] if errors.strip() else "no words"
        raise RuntimeError(f"{name} ended with: {last}")
    return taken
