"""Models, versions, parameters and runs as tables in the schema ``mlsql`` of the database: they are data.

Anybody can query, join, copy and back them up. Parameters are little-endian arrays with a SHA-256 checksum and are
never changed in place; a new version gets new rows, in one transaction, so a reader sees the old version or the new.
A dropped model takes its versions along. Its runs and their log stay: they say what was done, as a log should. Times
are UTC.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import IntegrityError
from ..record import record
from .arrow import from_numpy
from .device import Array, Identity
from .storage import Parameters, Storage
from .train import EpochLog
from .vocabulary import Keys, registered

TABLES = """
CREATE SCHEMA IF NOT EXISTS mlsql;
CREATE TABLE IF NOT EXISTS mlsql.models (
    name VARCHAR NOT NULL, sql VARCHAR NOT NULL, definition VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL, current_version INTEGER
);
CREATE TABLE IF NOT EXISTS mlsql.model_versions (
    model VARCHAR NOT NULL, version INTEGER NOT NULL, created_at TIMESTAMP NOT NULL, run_id BIGINT NOT NULL,
    rows BIGINT, loss DOUBLE, validation_loss DOUBLE
);
CREATE TABLE IF NOT EXISTS mlsql.parameters (
    model VARCHAR NOT NULL, version INTEGER NOT NULL, name VARCHAR NOT NULL, element VARCHAR NOT NULL,
    shape INTEGER[] NOT NULL, sha256 VARCHAR NOT NULL, data BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS mlsql.classes (
    model VARCHAR NOT NULL, version INTEGER NOT NULL, column_name VARCHAR NOT NULL, position INTEGER NOT NULL,
    value VARCHAR NOT NULL, type VARCHAR NOT NULL
);
CREATE TABLE IF NOT EXISTS mlsql.training_runs (
    run_id BIGINT NOT NULL, model VARCHAR NOT NULL, version INTEGER, solver VARCHAR NOT NULL, options JSON NOT NULL,
    seed BIGINT NOT NULL, statement VARCHAR NOT NULL, started_at TIMESTAMP NOT NULL, seconds DOUBLE NOT NULL,
    epochs INTEGER NOT NULL, steps BIGINT NOT NULL, rows BIGINT NOT NULL, loss DOUBLE, validation_loss DOUBLE,
    stopped_because VARCHAR NOT NULL
);
CREATE TABLE IF NOT EXISTS mlsql.training_log (
    run_id BIGINT NOT NULL, model VARCHAR NOT NULL, version INTEGER, epoch INTEGER NOT NULL, step BIGINT NOT NULL,
    loss DOUBLE, validation_loss DOUBLE, learning_rate DOUBLE NOT NULL, rows_per_second DOUBLE NOT NULL,
    seconds DOUBLE NOT NULL
);
CREATE TABLE IF NOT EXISTS mlsql.machine (
    name VARCHAR NOT NULL, value DOUBLE NOT NULL, unit VARCHAR NOT NULL, description VARCHAR NOT NULL,
    processor VARCHAR NOT NULL, cores INTEGER NOT NULL, numpy VARCHAR NOT NULL, measured_at TIMESTAMP NOT NULL
);
"""
VERSIONED = ("model_versions", "parameters", "classes")
Classes = Mapping[str, Keys]


@record
class StoredModel:
    """A model's definition: ``sql`` as it was written, ``definition`` without anything that could change."""

    name: str
    sql: str
    definition: str
    current_version: int | None


@record
class StoredVersion:
    """What training gave: parameters by name, and the classes and keys of every vocabulary."""

    version: int
    parameters: Mapping[str, Array]
    classes: Classes
    digest: str  # of the parameters' checksums and the vocabularies: what the version computes is known by it


@record
class TrainingRun:
    """One run of TRAIN, whether it gave a version or not."""

    model: str
    solver: str
    options: str
    seed: int
    statement: str
    seconds: float
    epochs: int
    steps: int
    rows: int
    loss: float | None
    validation_loss: float | None
    stopped_because: str


class Catalog:
    """The tables of schema ``mlsql``. Names of models are found without regard to case, as SQL's are."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        # with its database, so that USE does not lead away from it and a file called mlsql.duckdb is not taken for it
        self.schema = '"' + storage.database.replace('"', '""') + '".mlsql'
        if not storage.read_only:
            with storage.transaction():
                for statement in TABLES.split(";"):
                    if statement.strip():
                        self._run(statement)

    @property
    def is_there(self) -> bool:
        """Whether the tables exist; a database that is only read may never have had a model."""
        return not self.storage.read_only or self.has_table("models")

    def has_table(self, name: str) -> bool:
        """Whether a table is there: another program may have made the file, or an older version."""
        sql = "SELECT 1 FROM duckdb_tables() WHERE database_name = ? AND schema_name = 'mlsql' AND table_name = ?"
        return bool(self.storage.rows(sql, [self.storage.database, name]))

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """A query of the catalog; no rows if there is no catalog."""
        return self._run(sql, list(values)) if self.is_there else []

    def _run(self, sql: str, values: Parameters = None) -> list[tuple[Any, ...]]:
        return self.storage.rows(self._qualified(sql), values)

    def _qualified(self, sql: str) -> str:
        return re.sub(r"\bmlsql\b", lambda _: self.schema, sql)

    # -- models --------------------------------------------------------------------------------------------------------

    def find(self, name: str) -> StoredModel | None:
        """The model of a name, or None."""
        sql = "SELECT name, sql, definition, current_version FROM mlsql.models WHERE lower(name) = lower(?)"
        return next((StoredModel(*row) for row in self.rows(sql, name)), None)

    def names(self) -> list[str]:
        """The names of all models, sorted."""
        return [name for (name,) in self.rows("SELECT name FROM mlsql.models ORDER BY name")]

    def models(self) -> pa.Table:
        """A row a model: its current version, how many numbers it holds, how it was trained."""
        if not self.is_there:
            return pa.table({"name": pa.array([], pa.string())})
        sql = """SELECT m.name, m.current_version AS version,
                      (SELECT CAST(sum(octet_length(data) // CASE element WHEN 'DOUBLE' THEN 8 ELSE 4 END) AS BIGINT)
                       FROM mlsql.parameters p
                       WHERE p.model = m.name AND p.version = m.current_version) AS parameters,
                      r.solver, r.rows, r.loss, r.validation_loss, m.created_at, v.created_at AS trained_at
               FROM mlsql.models m
               LEFT JOIN mlsql.model_versions v ON v.model = m.name AND v.version = m.current_version
               LEFT JOIN mlsql.training_runs r ON r.run_id = v.run_id
               ORDER BY m.name"""
        return self.storage.query(self._qualified(sql))

    def save_model(self, name: str, sql: str, definition: str, replace: bool) -> None:
        """Store a definition. With ``replace`` a model of that name goes first, with its versions."""
        with self.storage.transaction():
            if replace:
                self.drop_model(name)
            self._run("INSERT INTO mlsql.models VALUES (?, ?, ?, ?, NULL)", [name, sql, definition, now()])

    def drop_model(self, name: str) -> bool:
        """Remove a model with its versions; whether there was one."""
        found = self.find(name)
        if found is None:
            return False
        with self.storage.transaction():
            self._run("DELETE FROM mlsql.models WHERE name = ?", [found.name])
            for table in VERSIONED:
                self._run(f"DELETE FROM mlsql.{table} WHERE model = ?", [found.name])
        return True

    def rename_model(self, name: str, new: str) -> None:
        """Give a model, its versions and its runs another name."""
        found = self.find(name)
        old = found.name if found else name
        with self.storage.transaction():
            self._run("UPDATE mlsql.models SET name = ? WHERE name = ?", [new, old])
            for table in (*VERSIONED, "training_runs", "training_log"):
                self._run(f"UPDATE mlsql.{table} SET model = ? WHERE model = ?", [new, old])

    def use_version(self, name: str, version: int) -> None:
        """Make an earlier version the current one; the later ones stay."""
        self._run("UPDATE mlsql.models SET current_version = ? WHERE lower(name) = lower(?)", [version, name])

    def training(self, what: str, name: str | None) -> pa.Table:
        """The runs, or the log of the last run, of one model or of all, newest run first."""
        if what == "LOG":
            columns, source = "*", "training_log l"
            last = "run_id = (SELECT max(run_id) FROM mlsql.training_log WHERE lower(model) = lower(l.model))"
        else:
            columns, source, last = "* EXCLUDE (statement)", "training_runs", "TRUE"
        order = "model, epoch" if what == "LOG" else "run_id DESC"
        chosen = "TRUE" if name is None else "lower(model) = lower($name)"
        sql = f"SELECT {columns} FROM mlsql.{source} WHERE {last} AND {chosen} ORDER BY {order}"
        return self.storage.query(self._qualified(sql), {} if name is None else {"name": name})

    # -- the machine ---------------------------------------------------------------------------------------------------

    def machine(self, identity: Identity) -> tuple[dict[str, float], str] | None:
        """The rates that were measured on a machine, and when; None if it was not measured, or not here."""
        if not self.has_table("machine"):
            return None
        sql = "SELECT name, value, measured_at FROM mlsql.machine WHERE processor = ? AND cores = ? AND numpy = ?"
        rows = self._run(sql, [identity.processor, identity.cores, identity.numpy])
        return ({name: value for name, value, _ in rows}, str(rows[0][2])) if rows else None

    def save_machine(self, identity: Identity, measured_at: str, rates: pa.Table) -> None:
        """Keep the rates of a machine (name, value, unit, description) in place of those it had before."""
        mine = [identity.processor, identity.cores, identity.numpy]
        with self.storage.transaction():
            self._run("DELETE FROM mlsql.machine WHERE processor = ? AND cores = ? AND numpy = ?", mine)
            with registered(self.storage, "mlsql_rates", rates):
                sql = "INSERT INTO mlsql.machine SELECT *, ?, ?, ?, CAST(? AS TIMESTAMP) FROM mlsql_rates"
                self._run(sql, [*mine, measured_at])

    # -- the optimizer -------------------------------------------------------------------------------------------------

    def save_rules(self, rules: pa.Table) -> None:
        """Keep the optimizer's rules as the relation ``mlsql.rules``; nothing is written if they are there."""
        with registered(self.storage, "mlsql_rules_now", rules):
            self._run("CREATE TABLE IF NOT EXISTS mlsql.rules AS SELECT * FROM mlsql_rules_now LIMIT 0")
            new, old = "SELECT * FROM mlsql_rules_now", "SELECT * FROM mlsql.rules"
            changed = self._run(f"({new} EXCEPT {old}) UNION ALL ({old} EXCEPT {new})")
            if changed:
                self._run(f"CREATE OR REPLACE TABLE mlsql.rules AS {new}")

    # -- versions ------------------------------------------------------------------------------------------------------

    def versions(self, name: str) -> list[int]:
        """The versions of a model that are kept."""
        sql = "SELECT version FROM mlsql.model_versions WHERE lower(model) = lower(?) ORDER BY version"
        return [version for (version,) in self.rows(sql, name)]

    def load_version(self, name: str, version: int | None = None) -> StoredVersion | None:
        """A version, by default the current one; None if there is none.

        Raises IntegrityError if a parameter is not what was stored.
        """
        found = self.find(name)
        number = version if version is not None else found.current_version if found else None
        if found is None or number is None or number not in self.versions(name):
            return None
        sql = "SELECT name, element, shape, sha256, data FROM mlsql.parameters WHERE model = ? AND version = ?"
        rows = self.rows(sql, found.name, number)
        parameters = {
            p: decoded(f"{found.name} version {number}, parameter {p}", element, shape, checksum, data)
            for p, element, shape, checksum, data in rows
        }
        classes = self.load_classes(found.name, number)
        digest = hashlib.sha256(repr(sorted(row[:4] for row in rows)).encode())
        for column, keys in classes.items():
            digest.update("\0".join([column, keys.type_text, *keys.texts.to_pylist()]).encode())
        return StoredVersion(number, parameters, classes, digest.hexdigest())

    def load_classes(self, model: str, version: int) -> dict[str, Keys]:
        """The vocabularies of a version, by name."""
        of_version = "FROM mlsql.classes WHERE model = ? AND version = ?"
        found = self.rows(f"SELECT DISTINCT column_name, type {of_version} ORDER BY column_name", model, version)
        texts = self._qualified(f"SELECT value {of_version} AND column_name = ? ORDER BY position")
        return {
            name: Keys(type_text, self.storage.query(texts, [model, version, name]).column(0).combine_chunks())
            for name, type_text in found
        }

    def save_version(
        self,
        name: str,
        parameters: Mapping[str, Array],
        classes: Classes,
        run: TrainingRun,
        log: Sequence[EpochLog],
    ) -> int:
        """Store what a run gave as the next version, and make it the current one, all or nothing."""
        found = self.find(name)
        model = found.name if found else name
        with self.storage.transaction():
            version = max([*self.versions(model), 0]) + 1
            run_id = self._save_run(run, version)
            self._run(
                "INSERT INTO mlsql.model_versions VALUES (?, ?, ?, ?, ?, ?, ?)",
                [model, version, now(), run_id, run.rows, run.loss, run.validation_loss],
            )
            kept = [(model, version, parameter, *encoded(value)) for parameter, value in parameters.items()]
            if kept:
                rows = ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * len(kept))
                self._run(f"INSERT INTO mlsql.parameters VALUES {rows}", [*itertools.chain(*kept)])
            for column, keys in classes.items():
                self._save_classes(model, version, column, keys)
            self._save_log(run_id, model, version, log)
            self._run("UPDATE mlsql.models SET current_version = ? WHERE name = ?", [version, model])
        return version

    def _save_classes(self, model: str, version: int, column: str, keys: Keys) -> None:
        rows = pa.table({"position": from_numpy(np.arange(len(keys), dtype=np.int32)), "value": keys.texts})
        with registered(self.storage, "mlsql_keys", rows):
            self._run(
                "INSERT INTO mlsql.classes SELECT $model, $version, $column, position, value, $type FROM mlsql_keys",
                {"model": model, "version": version, "column": column, "type": keys.type_text},
            )

    def save_failed_run(self, run: TrainingRun) -> None:
        """Record a run that gave no version."""
        with self.storage.transaction():
            self._save_run(run, None)

    def _save_run(self, run: TrainingRun, version: int | None) -> int:
        [(run_id,)] = self._run("SELECT coalesce(max(run_id), 0) + 1 FROM mlsql.training_runs")
        self._run(
            "INSERT INTO mlsql.training_runs "
            "SELECT $run_id, $model, $version, $solver, $options, $seed, $statement, "
            "$started_at, $seconds, "
            "$epochs, $steps, $rows, $loss, $validation_loss, $stopped_because",
            {
                "run_id": run_id,
                "version": version,
                "started_at": now() - timedelta(seconds=run.seconds),
                **asdict(run),
            },
        )
        return int(run_id)

    def _save_log(self, run_id: int, model: str, version: int, log: Sequence[EpochLog]) -> None:
        names = [f.name for f in fields(EpochLog)]
        columns = {name: [getattr(entry, name) for entry in log] for name in names}
        unnested = ", ".join(f"unnest(${name})" for name in names)
        self._run(
            f"INSERT INTO mlsql.training_log SELECT $run_id, $model, $version, {unnested}",
            {"run_id": run_id, "model": model, "version": version, **columns},
        )


def now() -> datetime:
    """The time in UTC, without a zone: DuckDB needs another package to fetch times with one."""
    return datetime.now(UTC).replace(tzinfo=None)


def encoded(value: Array) -> tuple[str, list[int], str, bytes]:
    """A parameter as element type, shape, checksum and little-endian bytes in row-major order."""
    element = {"float32": "FLOAT", "float64": "DOUBLE"}[value.dtype.name]
    data = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<")).tobytes()
    return element, list(value.shape), hashlib.sha256(data).hexdigest(), data


def decoded(what: str, element: str, shape: Sequence[int], checksum: str, data: bytes) -> Array:
    """The array of a stored parameter. Raises IntegrityError if its bytes are not the ones that were stored."""
    if hashlib.sha256(data).hexdigest() != checksum:
        raise IntegrityError(
            f"{what} is damaged: its checksum does not match", hint="use another version, or TRAIN again"
        )
    dtype = np.dtype({"FLOAT": "<f4", "DOUBLE": "<f8"}[element])
    return np.frombuffer(data, dtype).reshape(tuple(shape)).astype(dtype.newbyteorder("="))
