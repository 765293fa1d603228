"""The cost model: what operators say they do, what a machine makes of it, and where the machine's rates come from."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_operators import DOUBLE, OPERATORS, all_samples

import mlsql
from mlsql.executor import calibrate, measured
from mlsql.executor.device import Identity, identity
from mlsql.executor.storage import Storage
from mlsql.optimizer.cost import FREE, chunk_seconds, price, seconds, step_seconds, total
from mlsql.optimizer.frequency import Frequency
from mlsql.optimizer.machine import LIKE, Machine
from mlsql.planner import scalar
from mlsql.planner.node import Node
from mlsql.planner.ops import (
    Add,
    Column,
    Concat,
    Constant,
    Contract,
    GroupJoin,
    Index,
    KeySum,
    LogSumExp,
    Max,
    Multiply,
    Parameter,
    Positions,
    Reshape,
    ScatterAdd,
    Segment,
    Sigmoid,
    Softmax,
    Sum,
    Take,
    Tanh,
    Transpose,
    constant,
)
from mlsql.planner.work import Access, Work
from mlsql.session import machine as session_machine
from mlsql.session.core import Session
from mlsql.types import BOOLEAN, FLOAT, RowSet, Symbol

MACHINE = Machine()
SAMPLES = [(name, i, n) for name, cls in OPERATORS.items() for i, n in enumerate(all_samples(cls, DOUBLE))]
each_sample = pytest.mark.parametrize("node", [n for _, _, n in SAMPLES], ids=[f"{name}-{i}" for name, i, _ in SAMPLES])


def rows(count: int, name: str = "t") -> RowSet:
    return RowSet(name, count)


def col(count: int, *shape: int, name: str = "x", element: Any = FLOAT) -> Column:
    return Column(name, rows(count), element, shape)


# -- what operators say ------------------------------------------------------------------------------------------------


@each_sample
def test_work_counts_the_flops_that_flops_does(node: Node) -> None:
    assert node.work().total_flops == node.flops()


@each_sample
def test_every_operator_has_a_price(node: Node) -> None:
    time = seconds(node, MACHINE)
    assert math.isfinite(time)
    assert (time == 0) == (isinstance(node, FREE) or node.work() == Work())


@each_sample
def test_only_views_and_leaves_are_free(node: Node) -> None:
    if node.work() == Work():
        assert node.is_view or isinstance(node, FREE) or not node.inputs


def test_a_view_that_has_to_be_copied_is_not_free() -> None:
    turned = Transpose(col(1000, 8, 8), (1, 0))
    assert seconds(turned, MACHINE) == 0
    assert seconds(Reshape(turned, (64,)), MACHINE) > 0
    assert seconds(Reshape(col(1000, 8, 8), (64,)), MACHINE) == 0


def grown(count: int) -> dict[str, Node]:
    """An operator of every kind over so many rows."""
    t, small = rows(count), rows(100, "groups")
    x, y, column = col(count, 16), col(count, 16, name="y"), col(count)
    w, key = Parameter("w", FLOAT, (16, 8)), Positions("k", t, small)
    table = Parameter("table", FLOAT, (100, 16))
    return {
        "map": Add(x, y),
        "softplus": Sigmoid(x),
        "fold": Sum(x, True),
        "fold in a row": Max(x, False, (0,)),
        "softmax": Softmax(x),
        "log_sum_exp": LogSumExp(x),
        "matmul": Contract("rk,ko->ro", x, w),
        "gradient": Contract("rk,ro->ko", x, col(count, 8, name="z")),
        "gemv": Contract("rk,k->r", x, Parameter("v", FLOAT, (16,))),
        "einsum": Contract("rk,rk->r", x, y),
        "outer": Contract("ri,ro->rio", x, y),
        "take": Take(Column("d", small, FLOAT, (16,)), key),
        "segment": Segment(x, key, small),
        "group join": GroupJoin(table, key, key, small),
        "scatter": ScatterAdd(table, (x,), (key,), (constant(1.0),)),
        "key sum": KeySum((x,), (key,), key, 100),
        "concat": Concat((x, y), 0),
        "column": Multiply(column, column),
    }


@pytest.mark.parametrize("name", list(grown(1)))
@given(st.integers(2, 1_000_000), st.integers(2, 1_000_000))
def test_more_rows_never_cost_less(name: str, a: int, b: int) -> None:
    """From two rows on: the gradient of one is an outer product, which takes NumPy longer than BLAS takes for two."""
    fewer, more = sorted((a, b))
    assert seconds(grown(fewer)[name], MACHINE) <= seconds(grown(more)[name], MACHINE) * (1 + 1e-9)


@pytest.mark.parametrize("name", list(grown(1)))
def test_a_million_rows_cost_about_ten_times_a_hundred_thousand(name: str) -> None:
    ratio = seconds(grown(1_000_000)[name], MACHINE) / seconds(grown(100_000)[name], MACHINE)
    assert 5 < ratio < 60, "ten times as much, and more where it leaves the cache"


def test_unknown_sizes_count_as_one() -> None:
    x = Column("x", RowSet("t", None), FLOAT, (Symbol("KEYS(a)"), 3))
    for node in (Add(x, x), Sum(x, True), Contract("rak,rak->r", x, x)):
        assert 0 < seconds(node, MACHINE) < 1e-4


def test_plain_numbers_cost_next_to_nothing() -> None:
    number = Multiply(constant(0.1), Add(constant(1.0), constant(2.0)))
    assert number.is_number
    assert seconds(number, MACHINE) < MACHINE.call / 2
    assert not Multiply(Parameter("p", FLOAT, ()), constant(2.0)).is_number
    assert not Constant((1.0, 2.0), FLOAT, (2,)).is_number


def test_each_function_of_an_expression_is_a_pass() -> None:
    work = Sigmoid(col(1000)).work()
    assert dict(work.flops) == {"add": 1000, "divide": 1000, "exp": 1000, "negative": 1000}
    assert work.total_calls == 4
    assert scalar.with_numbers("1 / (1 + exp(-x))", frozenset()) == 2
    assert scalar.with_numbers("x * y", frozenset(["y"])) == 1


def test_a_stretched_operand_starts_a_loop_for_each_row() -> None:
    loops = {name: dict(n.work().loops)["loop"] for name, n in {
        "as one": Add(col(50, 8), col(50, 8, name="y")),
        "a row's number": Add(col(50, 8), col(50, 1, name="y")),
        "a bias": Add(col(50, 8), Parameter("b", FLOAT, (8,))),
        "a number": Add(col(50, 8), constant(1.0)),
        "one for all axes": Add(col(50, 2, 4), col(50, 1, 1, name="y")),
    }.items()}  # fmt: skip
    assert loops == {"as one": 1, "a row's number": 50, "a bias": 50, "a number": 1, "one for all axes": 50}


def test_a_fold_starts_a_loop_for_each_run_of_its_axes() -> None:
    loops = [
        dict(n.work().loops)["fold"]
        for n in (Sum(col(50, 8), True, (0,)), Sum(col(50, 8), True), Sum(col(50, 8), False, (0,)))
    ]
    assert loops == [1, 50, 50]


def test_the_product_behind_a_contraction() -> None:
    w = Parameter("w", FLOAT, (16, 8))
    assert Contract("rk,ko->ro", col(50, 16), w).work().products == ((1, 50, 8, 16),)
    assert Contract("rk,ro->ko", col(50, 16), col(50, 8, name="y")).work().products == ((1, 16, 8, 50),)
    assert Contract("rik,rko->rio", col(50, 3, 16), col(50, 16, 8, name="y")).work().products == ((50, 3, 8, 16),)
    assert Contract("rik,ko->rio", col(50, 3, 16), w).work().products == ((1, 150, 8, 16),)
    assert not Contract("rk,rk->r", col(50, 16), col(50, 16, name="y")).work().products


# -- what a machine makes of it ----------------------------------------------------------------------------------------


def test_conversion_and_double_precision_cost() -> None:
    x, flags = col(100_000), col(100_000, name="f", element=BOOLEAN)
    assert seconds(Multiply(x, flags), MACHINE) > seconds(Multiply(x, x), MACHINE)
    wide = Column("x", rows(100_000), DOUBLE)
    assert seconds(Tanh(wide), MACHINE) > seconds(Tanh(x), MACHINE)


def test_the_size_of_a_table_is_felt_by_who_takes_from_it() -> None:
    def times(is_fresh: bool) -> list[float]:
        sizes = (1 << 10, 1 << 22, 1 << 25, 1 << 30)
        return [price(Work(gathered=(Access(1000, 64, size, is_fresh),)), MACHINE) for size in sizes]

    for found in times(True), times(False):
        assert found == sorted(found) and found[0] < found[-1]
    assert times(True)[1] > times(False)[1], "what is taken again may still be in the cache"


def test_the_rows_of_a_batch_are_other_rows_at_every_step() -> None:
    t, batch, small = rows(1000), rows(10, "batch"), rows(100, "d")
    index, at = Index(batch, t), Positions("at", t, small)
    x, d = Column("x", t, FLOAT, (4,)), Column("d", small, FLOAT, (4,))
    fresh = [n.work().gathered[0].is_fresh for n in (Take(x, index), Take(d, Take(at, index)), Take(d, at))]
    assert fresh == [True, True, False]


def test_a_shared_node_counts_once_and_a_step_as_often_as_it_runs() -> None:
    t, batch = rows(1000), rows(10, "batch")
    x = Tanh(Column("x", t, FLOAT))
    taken = Take(x, Index(batch, t))
    both = [Add(taken, taken), Multiply(taken, taken)]
    once = seconds(x, MACHINE)
    step = sum(seconds(n, MACHINE) for n in (taken, *both))
    assert total(both, MACHINE, {Frequency.ONCE: 1, Frequency.STEP: 100}) == pytest.approx(once + 100 * step)
    assert step_seconds(both, MACHINE) == pytest.approx(MACHINE.step + step)
    assert chunk_seconds([x], MACHINE) == pytest.approx(MACHINE.chunk + MACHINE.bind + once)


def test_every_function_has_a_rate_and_a_description() -> None:
    names = {*scalar.OPERATORS.values(), *scalar.FUNCTIONS}
    assert set(MACHINE.function) == names | {f"{n}_double" for n in names}
    listed = list(MACHINE.rates())
    assert len({name for name, *_ in listed}) == len(listed)
    assert all(value > 0 and unit and what for _, value, unit, what in listed)


def test_estimates_are_kept_for_each_machine() -> None:
    node = Tanh(col(12345, 7))
    fast = dataclasses.replace(MACHINE, functions=tuple((n, 2 * v) for n, v in MACHINE.functions))
    assert seconds(node, fast) < seconds(node, MACHINE) == seconds(node, MACHINE)
    began = time.perf_counter()
    for _ in range(1000):
        seconds(node, MACHINE)
    assert time.perf_counter() - began < 0.05, "a search asks thousands of times"


def test_what_is_not_measured_goes_with_what_it_is_like() -> None:
    usual = {name: value for name, value, *_ in MACHINE.rates()}
    made = Machine.measured({"gemm_small": usual["gemm_small"] * 2, "tanh": usual["tanh"] / 2}, "cpu", 4, "2", "today")
    assert made.gemm == pytest.approx(2 * MACHINE.gemm) and made.gemv == MACHINE.gemv
    assert made.function["erf"] == pytest.approx(MACHINE.function["erf"] / 2)
    assert made.function["exp"] == MACHINE.function["exp"]
    units = {name: unit for name, _, unit, _ in MACHINE.rates()}
    assert all(units[a].endswith("/s") == units[b].endswith("/s") for a, b in LIKE.items())


# -- measuring ---------------------------------------------------------------------------------------------------------


def test_a_calibration_gives_known_rates_of_two_digits() -> None:
    known = {name for name, *_ in MACHINE.rates()}
    found = calibrate.calibrate(thorough=False)
    assert {"call", "add", "exp", "bandwidth", "gather_row", "far_gather"} <= set(found) <= known
    assert all(v > 0 and math.isfinite(v) and v == float(f"{v:.2g}") for v in found.values())
    assert found["exp"] < found["add"] and found["gather_row"] < found["far_gather_row"]


def test_a_thorough_calibration_leaves_out_nothing_but_what_blas_may_not_give() -> None:
    found = calibrate.calibrate(thorough=True)
    missing = {name for name, *_ in MACHINE.rates()} - set(found)
    assert missing <= {"gemm_medium", "gemm", "gemm_double", "gemv", "far_gemv", "pack"}, "on a busy machine"


def test_a_product_that_stalls_is_left_out() -> None:
    bench = calibrate.Bench(3, 0.0, 0.01, patience=0.02)
    bench.rates["product_call"] = 1e-6
    calibrate.threaded(bench, "gemm", lambda: time.sleep(0.005), 1e9, 1e12)
    assert "gemm" not in bench.rates
    bench.patience = 0.02
    calibrate.threaded(bench, "gemm", lambda: time.sleep(0.001), 1e9, 1e10)
    assert 1e10 < bench.rates["gemm"] < 1e12


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of its own, a process that has measured nothing, and a calibration that costs nothing."""
    monkeypatch.delenv("MLSQL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MLSQL_MACHINE", "measured")
    monkeypatch.setattr(session_machine, "_of_this_process", {})
    monkeypatch.setattr(calibrate, "calibrate", lambda *, thorough: {"call": 2e-7 if thorough else 1e-7, "add": 1e10})
    yield tmp_path / "cache" / "mlsql" / "machine.json"


def new_process() -> None:
    session_machine._of_this_process.clear()


def test_the_file_is_private_and_read_again(cache: Path) -> None:
    assert Session().machine().call == 1e-7
    assert stat.S_IMODE(cache.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600
    content = json.loads(cache.read_text())
    content["rates"]["call"] = 3e-7
    cache.write_text(json.dumps(content))
    assert Session().machine().call == 1e-7, "this process knows it already"
    new_process()
    assert Session().machine().call == 3e-7


def test_only_a_run_that_is_worth_it_waits_until_the_machine_is_measured(cache: Path) -> None:
    con = mlsql.connect()
    con.execute("CREATE TABLE points AS SELECT i / 100.0 AS x, i / 50.0 AS y FROM range(100) r(i)")
    con.execute(
        "CREATE MODEL line INPUT (x FLOAT) TARGET (y FLOAT) AS SELECT LINEAR(x, 1) AS z MINIMIZE AVG((z - y) ** 2)"
    )
    con.execute("TRAIN line ON points WITH SGD (epochs = 1, batch_size = 10)")
    assert not cache.exists() and con.session.known_machine() == MACHINE
    con.execute("EXPLAIN TRAIN line ON points WITH SGD (epochs = 1000000, batch_size = 10)")
    assert cache.exists() and con.session.known_machine().call == 1e-7


@pytest.mark.parametrize(
    "damaged",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"machine": {}}', b'{"machine": {"a": 1}, "rates": {}}',
        {"rates": {"call": "fast"}}, {"rates": {"call": -1.0}}, {"rates": {"call": math.nan}}, {"rates": []},
        {"rates": {}},
        {"machine": {"processor": "another", "cores": 2, "numpy": "2"}},
    ],
)  # fmt: skip
def test_a_damaged_file_or_one_of_another_machine_is_written_anew(cache: Path, damaged: Any) -> None:
    Session().machine()
    good = cache.read_text()
    text = damaged if isinstance(damaged, bytes) else json.dumps(json.loads(good) | damaged).encode()
    cache.write_bytes(text)
    new_process()
    assert Session().machine().call == 1e-7
    assert json.loads(cache.read_text())["rates"] == json.loads(good)["rates"]
    assert [p.name for p in cache.parent.iterdir()] == ["machine.json"], "nothing is left beside it"


def test_a_place_that_cannot_be_written_is_no_error(cache: Path) -> None:
    cache.parent.parent.write_text("a file where the folder should be")
    assert Session().machine().call == 1e-7
    assert measured.load(identity()) is None


def test_a_relative_cache_folder_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The specification of $XDG_CACHE_HOME says that relative paths are to be ignored."""
    monkeypatch.delenv("MLSQL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert measured.path() == tmp_path / ".cache" / "mlsql" / "machine.json"


# -- the machine of a session ------------------------------------------------------------------------------------------


def kept(session: Session) -> list[tuple[Any, ...]]:
    return session.storage.rows("SELECT name, value FROM mlsql.machine WHERE name IN ('call', 'add') ORDER BY name")


def test_a_database_in_memory_keeps_nothing_by_itself(cache: Path) -> None:
    session = Session()
    assert session.machine().call == 1e-7
    assert kept(session) == []


def test_a_file_keeps_what_was_measured(cache: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "db.duckdb")
    session = Session(path)
    assert session.machine().measured_at
    assert kept(session) == [("add", 1e10), ("call", 1e-7)]
    session.storage.rows("UPDATE mlsql.machine SET value = 5e-7 WHERE name = 'call'")
    session.close()
    cache.unlink()
    new_process()
    again = Session(path, read_only=True)
    assert again.machine().call == 5e-7, "the database's own come first"
    again.close()


def test_opening_and_asking_for_models_measures_nothing(cache: Path, tmp_path: Path) -> None:
    connection = mlsql.connect(str(tmp_path / "db.duckdb"))
    connection.execute("SHOW MODELS").fetchall()
    connection.close()
    assert not cache.exists()


@pytest.mark.parametrize("fails", [False, True])
def test_a_transaction_of_the_caller_is_left_alone(cache: Path, tmp_path: Path, fails: bool) -> None:
    session = Session(str(tmp_path / "db.duckdb"))
    session.storage.rows("CREATE TABLE t (a INTEGER)")
    session.execute("BEGIN").close()
    session.execute("INSERT INTO t VALUES (1)").close()
    assert session.machine().call == 1e-7
    assert session.storage.in_transaction and kept(session) == []
    session.execute("ROLLBACK" if fails else "COMMIT").close()
    assert session.storage.rows("SELECT count(*) FROM t") == [(0 if fails else 1,)]
    session.close()


def test_a_file_without_the_table_is_not_given_it(cache: Path, tmp_path: Path) -> None:
    """A file that an older version made, and one that never had a model: both can be read, and stay as they are."""
    path = str(tmp_path / "old.duckdb")
    Session(path).close()
    storage = Storage(path)
    storage.rows("DROP TABLE mlsql.machine")
    storage.close()
    session = Session(path, read_only=True)
    assert session.machine().call == 1e-7
    assert len(session.execute("CALIBRATE").fetchall()) > 50
    assert session.machine().call == 2e-7, "the process and the cache keep it"
    session.close()
    writable = Session(path)
    writable.storage.rows("DROP TABLE mlsql.machine")
    assert writable.machine().call == 2e-7
    assert not writable.catalog.has_table("machine")
    writable.close()


def test_calibrate_keeps_the_rows_that_it_returns(cache: Path, tmp_path: Path) -> None:
    session = Session(str(tmp_path / "db.duckdb"))
    assert session.machine().call == 1e-7
    found = session.execute("CALIBRATE").fetchall()
    assert session.machine().call == 2e-7
    assert [(n, v, u, d) for n, v, u, d in session.machine().rates()] == found
    assert session.execute("SELECT name, value, unit, description FROM mlsql.machine").fetchall() == found
    session.execute("CALIBRATE").close()
    assert session.storage.rows("SELECT count(*) FROM mlsql.machine") == [(len(found),)]
    session.close()


def test_calibrate_in_a_transaction_belongs_to_it(cache: Path, tmp_path: Path) -> None:
    session = Session(str(tmp_path / "db.duckdb"))
    session.execute("BEGIN").close()
    session.execute("CALIBRATE").close()
    assert kept(session) == [("add", 1e10), ("call", 2e-7)]
    session.execute("ROLLBACK").close()
    assert kept(session) == []
    session.close()


def test_rates_of_another_machine_stay_and_are_not_used(cache: Path, tmp_path: Path) -> None:
    session = Session(str(tmp_path / "db.duckdb"))
    other = Identity("another processor", 64, "9.9")
    session.catalog.save_machine(other, "2020-01-01 00:00:00", session_machine.rate_rows(Machine()))
    assert session.machine().call == 1e-7
    session.execute("CALIBRATE").close()
    names = session.storage.rows("SELECT DISTINCT processor FROM mlsql.machine WHERE cores = 64")
    assert names == [("another processor",)]
    session.close()


def test_the_same_calibration_gives_the_same_estimates(cache: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "db.duckdb")
    first = Session(path)
    first.execute("CALIBRATE").close()
    machine = first.machine()
    first.close()
    again = Session(path)
    assert dataclasses.replace(again.machine()) == dataclasses.replace(machine)
    again.close()


def test_set_chooses_the_assumed_machine(cache: Path) -> None:
    session = Session()
    session.execute("SET mlsql_machine = 'default'").close()
    assert session.machine() == Machine() and not cache.exists()
    session.execute("SET mlsql_machine = 'measured'").close()
    assert session.machine().call == 1e-7


def test_tests_run_on_the_assumed_machine() -> None:
    assert os.environ["MLSQL_MACHINE"] == "default"
    assert Session().machine() == Machine()


# -- cardinalities -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tables() -> Iterator[Storage]:
    storage = Storage()
    storage.rows("CREATE TABLE f AS SELECT i, i % 1000 AS k, CAST(i % 7 AS VARCHAR) AS v FROM range(100000) t(i)")
    storage.rows("CREATE TABLE d AS SELECT i AS k, i * 2 AS w FROM range(1000) t(i)")
    storage.rows("CREATE TABLE empty (a INTEGER)")
    yield storage
    storage.close()


@pytest.mark.parametrize(
    ("query", "parameters", "least", "most"),
    [
        ("SELECT * FROM f", None, 100_000, 100_000),
        ("FROM f LIMIT 10", None, 10, 10),
        ("SELECT * FROM f ORDER BY k LIMIT 7", None, 7, 7),
        ("SELECT * FROM (FROM f LIMIT 5) ORDER BY k", None, 5, 5),
        ("FROM d LIMIT 5000", None, 1000, 1000),
        ("SELECT count(*) FROM f", None, 1, 1),
        ("SELECT * FROM f WHERE false", None, 0, 0),
        ("SELECT k, sum(i) FROM f GROUP BY k", None, 500, 2000),
        ("SELECT * FROM f JOIN d USING (k)", None, 20_000, 500_000),
        ("SELECT * FROM f WHERE i < ?", [1000], 100, 50_000),
        ("SELECT * FROM f UNION ALL SELECT * FROM f", None, 200_000, 200_000),
        ("VALUES (1), (2)", None, 2, 2),
    ],
)
def test_duckdb_says_how_many_rows_to_expect(
    tables: Storage, query: str, parameters: Any, least: int, most: int
) -> None:
    found = tables.estimated_rows(query, parameters)
    assert found is not None and least <= found <= most


def test_duckdb_says_how_many_distinct_values_a_column_has(tables: Storage) -> None:
    assert 700 < (tables.distinct_values("f", "k") or 0) < 1500
    assert tables.distinct_values("f", "v") == 7
    assert tables.distinct_values("empty", "a") is None
    assert tables.distinct_values("f", "nothing") is None
