"""The catalog: models, versions, parameters and runs are tables, and a version is there whole or not at all."""

import dataclasses
import math
import sys

import numpy as np
import pyarrow as pa
import pytest

import mlsql.errors as errors
from mlsql.executor.catalog import Catalog, TrainingRun
from mlsql.executor.storage import Storage
from mlsql.executor.train import EpochLog
from mlsql.executor.vocabulary import Keys

RUN = TrainingRun(
    model="digits",
    solver="ADAM",
    options='{"batch_size": 32}',
    seed=7,
    statement="TRAIN digits ON t",
    seconds=1.5,
    epochs=2,
    steps=20,
    rows=100,
    loss=0.25,
    validation_loss=None,
    stopped_because="epochs",
)
LOG = [
    EpochLog(1, 10, 0.5, None, 0.1, 1000.0, 0.7),
    EpochLog(2, 20, 0.25, None, 0.05, 1000.0, 1.5),
]
PARAMETERS = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([0.1, math.pi], np.float64),
    "scale": np.array(2.5, np.float32),
    "none": np.zeros((0, 3), np.float32),
}
CLASSES = {"species": ("VARCHAR", ["Adelie", "Chinstrap", "Gentoo's"]), "year": ("INTEGER", ["2007", "2008"])}


@pytest.fixture
def storage():
    storage = Storage()
    yield storage
    storage.close()


@pytest.fixture
def catalog(storage):
    catalog = Catalog(storage)
    catalog.save_model("digits", "CREATE MODEL digits ...", "definition", replace=False)
    return catalog


def save(catalog, parameters=PARAMETERS, classes=CLASSES, log=LOG, **changes):
    keys = {name: Keys(type_text, pa.array(texts)) for name, (type_text, texts) in classes.items()}
    return catalog.save_version("digits", parameters, keys, dataclasses.replace(RUN, **changes), log)


def count(catalog, table):
    return catalog.rows(f"SELECT count(*) FROM mlsql.{table}")[0][0]


# Models


def test_a_model_is_found_whatever_its_case(catalog):
    found = catalog.find("DIGITS")
    assert (found.name, found.sql, found.definition, found.current_version) == (
        "digits",
        "CREATE MODEL digits ...",
        "definition",
        None,
    )
    assert catalog.find("nope") is None
    assert catalog.names() == ["digits"]


def test_a_name_may_hold_any_character(catalog):
    name = 'mlsql.my "own" model\'s; DROP'
    catalog.save_model(name, "sql with mlsql.models in it", "d", replace=False)
    assert catalog.find(name).name == name
    assert catalog.find(name).sql == "sql with mlsql.models in it"
    assert catalog.drop_model(name)


def test_an_empty_database_has_no_models(storage):
    catalog = Catalog(storage)
    assert catalog.names() == []
    assert catalog.find("digits") is None
    assert catalog.load_version("digits") is None
    assert catalog.versions("digits") == []
    assert catalog.models().num_rows == 0
    assert not catalog.drop_model("digits")
    assert storage.run("SELECT * FROM mlsql.models").fetchall() == []


def test_models_lists_what_there_is(catalog):
    assert catalog.models().to_pylist()[0]["version"] is None
    save(catalog)
    [row] = catalog.models().to_pylist()
    assert (row["name"], row["version"], row["parameters"]) == ("digits", 1, 9)
    assert (row["solver"], row["rows"], row["loss"]) == ("ADAM", 100, 0.25)


def test_replacing_and_dropping_take_the_versions_but_not_the_runs(catalog):
    save(catalog)
    catalog.save_model("Digits", "new", "new", replace=True)
    assert catalog.names() == ["Digits"]
    assert catalog.load_version("digits") is None
    for table in ("model_versions", "parameters", "classes"):
        assert count(catalog, table) == 0
    assert (count(catalog, "training_runs"), count(catalog, "training_log")) == (1, 2)
    assert catalog.drop_model("DIGITS")
    assert not catalog.drop_model("DIGITS")
    assert count(catalog, "training_runs") == 1


# Versions


def test_a_version_comes_back_as_it_was(catalog):
    assert save(catalog) == 1
    version = catalog.load_version("Digits")
    assert version.version == 1
    assert {n: (k.type_text, k.texts.to_pylist()) for n, k in version.classes.items()} == CLASSES
    assert set(version.parameters) == set(PARAMETERS)
    for name, value in PARAMETERS.items():
        found = version.parameters[name]
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        assert found.tobytes() == value.tobytes()
        assert found.flags.writeable


def test_special_numbers_keep_their_bits(catalog):
    value = np.array([math.nan, math.inf, -math.inf, -0.0, 5e-324], np.float64)
    save(catalog, {"w": value})
    assert catalog.load_version("digits").parameters["w"].tobytes() == value.tobytes()


def test_any_memory_layout_is_stored_in_row_major_order(catalog):
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    save(catalog, {"t": value.T, "step": value[:, ::2], "big": value.astype(">f4")})
    found = catalog.load_version("digits").parameters
    np.testing.assert_array_equal(found["t"], value.T)
    np.testing.assert_array_equal(found["step"], value[:, ::2])
    np.testing.assert_array_equal(found["big"], value)


def test_blobs_are_little_endian(catalog):
    save(catalog, {"w": np.array([1.0], np.float32)})
    assert catalog.rows("SELECT data, shape, element FROM mlsql.parameters") == [(b"\x00\x00\x80\x3f", [1], "FLOAT")]


def test_versions_count_up_and_older_ones_stay(catalog):
    assert [save(catalog, {"w": np.full(2, i, np.float32)}) for i in range(3)] == [1, 2, 3]
    assert catalog.versions("DIGITS") == [1, 2, 3]
    assert catalog.load_version("digits").parameters["w"].tolist() == [2, 2]
    assert catalog.load_version("digits", 1).parameters["w"].tolist() == [0, 0]
    assert catalog.load_version("digits", 9) is None
    assert catalog.find("digits").current_version == 3


def test_only_floats_are_parameters(catalog):
    with pytest.raises(KeyError):
        save(catalog, {"w": np.array([1])})
    assert catalog.versions("digits") == []


@pytest.mark.parametrize("change", ["data = 'x'::BLOB", "data = concat(data, 'x'::BLOB)", "sha256 = ''"])
def test_a_damaged_parameter_is_named(change, catalog):
    save(catalog)
    save(catalog)
    catalog.rows(f"UPDATE mlsql.parameters SET {change} WHERE name = 'b' AND version = 2")
    with pytest.raises(errors.IntegrityError, match="digits version 2, parameter b"):
        catalog.load_version("digits")
    assert catalog.load_version("digits", 1) is not None


@pytest.mark.parametrize("stop", [KeyboardInterrupt, errors.OperationalError("no space")])
def test_a_version_is_there_whole_or_not_at_all(stop, catalog, monkeypatch):
    save(catalog)

    def fail(*_):
        raise stop

    monkeypatch.setattr(catalog, "_save_log", fail)
    with pytest.raises(stop if isinstance(stop, type) else type(stop)):
        save(catalog)
    assert catalog.versions("digits") == [1]
    assert catalog.find("digits").current_version == 1
    assert count(catalog, "training_runs") == 1
    assert not catalog.storage.in_transaction


def test_a_callers_rollback_takes_the_version_back(catalog):
    catalog.storage.begin()
    save(catalog)
    assert catalog.load_version("digits").version == 1
    catalog.storage.rollback()
    assert catalog.load_version("digits") is None
    assert count(catalog, "training_runs") == 0


# Runs


def test_a_run_and_its_log_are_kept(catalog):
    save(catalog)
    save(catalog, seed=8)
    assert catalog.rows("SELECT run_id, model, version, solver, seed FROM mlsql.training_runs ORDER BY run_id") == [
        (1, "digits", 1, "ADAM", 7),
        (2, "digits", 2, "ADAM", 8),
    ]
    assert catalog.rows("SELECT epoch, step, loss, learning_rate FROM mlsql.training_log WHERE run_id = 2") == [
        (1, 10, 0.5, 0.1),
        (2, 20, 0.25, 0.05),
    ]
    [(options,)] = catalog.rows("SELECT options ->> 'batch_size' FROM mlsql.training_runs LIMIT 1")
    assert options == "32"


def test_a_log_may_be_empty_and_hold_what_is_no_number(catalog):
    save(catalog, log=[])
    save(catalog, log=[EpochLog(1, 1, math.nan, math.inf, 0.1, 1.0, 1.0)])
    [(loss, validation_loss)] = catalog.rows("SELECT loss, validation_loss FROM mlsql.training_log")
    assert math.isnan(loss)
    assert validation_loss == math.inf


def test_a_run_without_a_version(catalog):
    catalog.save_failed_run(dataclasses.replace(RUN, loss=math.nan, stopped_because="interrupted"))
    assert catalog.rows("SELECT version, stopped_because FROM mlsql.training_runs") == [(None, "interrupted")]
    assert catalog.find("digits").current_version is None


# Databases


def test_the_catalog_outlives_the_program(tmp_path):
    path = str(tmp_path / "a.duckdb")
    storage = Storage(path)
    catalog = Catalog(storage)
    catalog.save_model("digits", "s", "d", replace=False)
    save(catalog)
    storage.close()
    storage = Storage(path, read_only=True)
    catalog = Catalog(storage)
    assert catalog.load_version("digits").parameters["b"].tolist() == PARAMETERS["b"].tolist()
    with pytest.raises(errors.ProgrammingError, match="read-only"):
        save(catalog)
    storage.close()


def test_a_read_only_database_that_never_had_a_model(tmp_path):
    path = str(tmp_path / "a.duckdb")
    Storage(path).close()
    storage = Storage(path, read_only=True)
    catalog = Catalog(storage)
    assert catalog.names() == []
    assert catalog.find("digits") is None
    assert catalog.load_version("digits") is None
    assert catalog.models().num_rows == 0
    storage.close()


@pytest.mark.parametrize("name", ["mlsql.duckdb", 'it\'s "odd" name.duckdb'])
def test_a_database_of_any_name(name, tmp_path):
    if sys.platform == "win32" and '"' in name:
        pytest.skip("no such file name there")
    storage = Storage(str(tmp_path / name))
    catalog = Catalog(storage)
    catalog.save_model("digits", "s", "d", replace=False)
    assert save(catalog) == 1
    storage.close()


def test_models_stay_where_they_are_after_use(catalog):
    catalog.storage.rows("ATTACH ':memory:' AS other")
    catalog.storage.rows("USE other")
    assert save(catalog) == 1
    assert catalog.models().num_rows == 1
    assert catalog.drop_model("digits")
