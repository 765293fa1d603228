"""The compiled loops under joins and group-bys, on random positions: against SciPy, each other, and other threads."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from support import weighted_sum

from mlsql.autodiff.gradient import gradients
from mlsql.executor import kernels
from mlsql.executor.run import evaluate, executable
from mlsql.planner.node import Node
from mlsql.planner.ops import Column, GroupJoin, Multiply, Positions, Segment, SegmentMax, SegmentMin, Take
from mlsql.planner.plan import Plan
from mlsql.types import BIGINT, DOUBLE, RowSet

Array = Any


@st.composite
def joins(draw: Any) -> dict[str, Any]:
    """A table, and joined rows by group: groups without rows, groups of all rows, and no joined rows at all."""
    size, groups, joined = draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.integers(0, 12))
    shape = draw(st.sampled_from([(), (1,), (3,), (2, 2)]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return {
        "x": rng.normal(size=(size, *shape)),
        "y": rng.normal(size=(groups, *shape)),
        "weight": rng.normal(size=joined),
        "source": rng.integers(0, draw(st.integers(1, size)), joined),
        "group": rng.integers(0, draw(st.integers(1, groups)), joined),
    }


def leaves(join: dict[str, Any], fixed: bool) -> dict[str, Node]:
    """The leaves of a join's arrays; positions that may change come as columns."""
    sets = {k: RowSet(k, len(join[k])) for k in ("x", "y", "weight")}
    found: dict[str, Node] = {k: Column(k, sets[k], DOUBLE, join[k].shape[1:]) for k in sets}
    for name, over in (("source", "x"), ("group", "y")):
        rows = sets["weight"]
        found[name] = Positions(name, rows, sets[over]) if fixed else Column(name, rows, BIGINT)
    return found


def values(join: dict[str, Any], nodes: dict[str, Node], **wanted: Node) -> list[Array]:
    """What some nodes over a join's leaves are."""
    rows = {n.type.rows: len(join[k]) for k, n in nodes.items()}
    return list(evaluate(Plan(wanted), {n: join[k] for k, n in nodes.items()}, rows).values())


@settings(max_examples=60, deadline=None)
@given(joins(), st.booleans())
def test_a_join_and_a_group_by_are_adjoint(join: dict[str, Any], fixed: bool) -> None:
    """<take(x, i), y> = <x, segment(y, i)>: each is the other's gradient."""
    nodes = leaves(join, fixed)
    x, index = nodes["x"], nodes["source"]
    y = Take(nodes["y"], nodes["group"])
    taken, joined, summed = values(join, nodes, a=Take(x, index), b=y, c=Segment(y, index, x.type.rows))
    np.testing.assert_allclose(np.sum(taken * joined), np.sum(join["x"] * summed), rtol=1e-10, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(joins(), st.booleans(), st.booleans())
def test_a_group_join_is_a_join_under_a_group_by(join: dict[str, Any], fixed: bool, weighted: bool) -> None:
    nodes = leaves(join, fixed)
    x, source, group, weight = (nodes[k] for k in ("x", "source", "group", "weight"))
    taken = Take(x, source)
    apart = Segment(Multiply(weight, taken) if weighted else taken, group, nodes["y"].type.rows)
    in_one = GroupJoin(x, source, group, nodes["y"].type.rows, weight if weighted else None)
    a, b = values(join, nodes, a=apart, b=in_one)
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    entries = np.broadcast_to(join["weight"] if weighted else 1.0, join["source"].shape)
    matrix = scipy.sparse.coo_array((entries, (join["group"], join["source"])), (len(join["y"]), len(join["x"])))
    expected = matrix.tocsr() @ join["x"].reshape(len(join["x"]), -1)
    np.testing.assert_allclose(b, expected.reshape(join["y"].shape), rtol=1e-12, atol=1e-13)


@settings(max_examples=40, deadline=None)
@given(joins(), st.booleans())
def test_the_best_of_a_group_is_numpy_s(join: dict[str, Any], fixed: bool) -> None:
    nodes = leaves(join, fixed)
    taken, group, rows = Take(nodes["x"], nodes["source"]), nodes["group"], nodes["y"].type.rows
    largest, smallest = values(join, nodes, a=SegmentMax(taken, group, rows), b=SegmentMin(taken, group, rows))
    for k in range(len(join["y"])):
        mine = join["x"][join["source"][join["group"] == k]]
        np.testing.assert_array_equal(largest[k], mine.max(0) if len(mine) else 0)
        np.testing.assert_array_equal(smallest[k], mine.min(0) if len(mine) else 0)


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_any_number_of_threads_gives_the_same_bits(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    size, rows = 20_000, 100_000
    x, y, weight = (rng.normal(size=s).astype(kind) for s in ((size, 8), (size, 8), rows))
    source, group = rng.integers(0, size, rows), np.minimum(rng.zipf(1.3, rows) - 1, size - 1)  # a few have most rows
    joined = kernels.join_rows(source, group, size, size)
    groups = kernels.group_rows(group, size)
    found = []
    for count in (1, 2, 5):
        monkeypatch.setattr(kernels, "cores", lambda count=count: count)
        outs = [np.full((size, 8), 9, kind) for _ in range(4)] + [np.full(rows, 9, kind)]
        kernels.sum_joined(x, joined, weight, outs[0])
        kernels.sum_joined(x, joined, None, outs[1])
        kernels.sum_groups(x[source], groups, outs[2])
        kernels.best_of_groups(x[source], groups, True, outs[3])
        kernels.joined_dots(x, joined, y, outs[4])
        found.append([o.tobytes() for o in outs])
    assert found[0] == found[1] == found[2]
    one_by_one = np.empty((size, 8), kind)
    kernels.add_rows(x[source], group, one_by_one)
    assert one_by_one.tobytes() == found[0][2], "the order of a group's rows is that of the table"


def test_nan_is_the_best_of_its_group_as_in_numpy() -> None:
    x, out = np.array([[1.0], [np.nan], [3.0], [4.0]]), np.empty((2, 1))
    groups = kernels.group_rows(np.array([0, 0, 0, 1]), 2)
    for largest in (True, False):
        kernels.best_of_groups(x, groups, largest, out)
        np.testing.assert_array_equal(out, [[np.nan], [4.0]])


def test_no_position_reaches_outside_an_array() -> None:
    """As Take does, a position outside counts as the nearest one inside."""
    x, wild, tame = np.arange(6.0).reshape(3, 2), np.array([-5, 99, 1]), np.array([0, 2, 1])
    weight = np.ones(3)
    for index in (wild, tame):
        outs = [np.empty((3, 2)) for _ in range(4)]
        kernels.add_rows(x, index, outs[0])
        kernels.sum_groups(x, kernels.group_rows(index, 3), outs[1])
        kernels.add_joined(x, index, index, weight, outs[2])
        kernels.sum_joined(x, kernels.join_rows(index, index, 3, 3), weight, outs[3])
        dots = [np.empty(3), np.empty(3)]
        kernels.pair_dots(x, index, x, index, dots[0])
        kernels.joined_dots(x, kernels.join_rows(index, index, 3, 3), x, dots[1])
        expected = x[[0, 2, 1]]
        for out in outs:
            np.testing.assert_array_equal(out, x if out is not outs[0] and out is not outs[1] else expected)
        for found in dots:
            np.testing.assert_array_equal(found, np.sum(expected**2, 1))


def test_tables_without_rows_give_zeros() -> None:
    none, index = np.empty((0, 2)), np.array([0, 1])
    out, dots = np.ones((3, 2)), np.ones(2)
    kernels.add_joined(none, index, index, None, out)
    assert not out.any()
    out.fill(1)
    kernels.sum_joined(none, kernels.join_rows(index, index, 0, 3), None, out)
    assert not out.any()
    kernels.pair_dots(none, index, out, index, dots)
    assert not dots.any()
    kernels.sum_groups(np.ones((2, 2)), kernels.group_rows(index, 0), np.empty((0, 2)))


def test_joined_rows_are_put_in_order_once_for_all_that_read_them() -> None:
    """One order by group for the sums and the gradient of the weights, one by source for the gradient of the table."""
    nodes, edges = RowSet("nodes", 5), RowSet("edges", 9)
    x, weight = Column("x", nodes, DOUBLE, (2,)), Column("weight", edges, DOUBLE)
    source, target = (Positions(name, edges, nodes) for name in ("source", "target"))
    loss = weighted_sum(GroupJoin(x, source, target, nodes, weight))
    outputs = [loss, *gradients(loss, [x, weight])]
    before, _, step = executable(outputs, varying=[x, weight]).program.source.partition("def run_step")
    assert before.count("join_rows(") == 2
    assert step.count("sum_joined(") == 2
    assert step.count("joined_dots(") == 1
    assert "join_rows(" not in step


def test_a_model_that_needs_no_compiled_loop_loads_none() -> None:
    program = (
        "import sys, mlsql; c = mlsql.connect(progress=False); "
        "c.execute('CREATE MODEL m INPUT (x FLOAT) TARGET (y FLOAT) AS SELECT LINEAR(x, 1) AS z "
        "MINIMIZE AVG((z - y) ** 2)'); "
        "c.execute('TRAIN m ON (SELECT 1.0 AS x, 2.0 AS y) WITH SGD (epochs = 1)'); "
        "assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
