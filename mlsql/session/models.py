"""Stored models, parsed and bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import IntegrityError, ProgrammingError, listed, suggest
from ..executor.catalog import Catalog, StoredModel, StoredVersion
from ..executor.device import Array
from ..executor.initialize import draw
from ..executor.vocabulary import Keys
from ..parser import parse
from ..parser.statements import CreateModel, Name
from ..planner.binder import bind_model
from ..planner.model import Model, classes_symbol
from ..planner.node import Node
from ..types import Symbol


class Models:
    """The models of a database. Definitions are parsed once, and again when they change."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.parsed: dict[str, CreateModel] = {}

    def find(self, name: Name) -> StoredModel:
        """The stored model of a name. Raises ProgrammingError if there is none, with the nearest name as a hint."""
        found = self.catalog.find(str(name))
        if found is None:
            known = self.catalog.names()
            hint = suggest(str(name), known) or (f"models are {listed(known)}" if known else "there are no models yet")
            raise ProgrammingError(f'there is no model "{name}"', place=name.place, hint=hint)
        return found

    def definition(self, name: Name) -> CreateModel:
        """The CREATE MODEL statement of a stored model."""
        stored = self.find(name)
        if stored.definition not in self.parsed:
            [statement, *rest] = parse(stored.definition)
            if rest or not isinstance(statement, CreateModel):
                raise IntegrityError(
                    f'the definition of model "{stored.name}" is damaged', hint="DROP MODEL still works"
                )
            self.parsed[stored.definition] = statement
        return self.parsed[stored.definition]

    def version(self, name: Name, version: int | None = None) -> StoredVersion | None:
        """A trained version, the current one by default; None if the model was never trained.

        Raises ProgrammingError for a version that does not exist.
        """
        found = self.catalog.load_version(str(name), version)
        if found is None and version is not None:
            known = self.catalog.versions(str(name))
            hint = f"versions are {listed(known)}" if known else "it was never trained"
            raise ProgrammingError(f'model "{name}" has no version {version}', place=name.place, hint=hint)
        return found

    def trained(self, name: Name, version: int | None = None) -> tuple[Model, StoredVersion | None]:
        """The model bound with the sizes of a version, ready to predict.

        Raises ProgrammingError if it was never trained and some parameter has no value without training.
        """
        definition = self.definition(name)
        stored = self.version(name, version)
        if stored is None:
            model = bind_model(definition)
            if not model.has_values:
                raise ProgrammingError(
                    f'model "{name}" was never trained', place=name.place, hint=f"TRAIN {name} ON ... first"
                )
            return model, None
        return bind_model(definition, sizes_of(stored)), stored


def sizes_of(version: StoredVersion) -> dict[Any, int]:
    """The sizes that the training data told."""
    return sizes_told(version.classes)


def sizes_told(classes: Mapping[str, Keys]) -> dict[Any, int]:
    """How many classes each target has, and how many keys each vocabulary."""
    told: dict[Any, int] = {}
    for name, keys in classes.items():
        told |= {classes_symbol(name): len(keys), Symbol(name): len(keys)}
    return told


def parameter_arrays(model: Model, version: StoredVersion | None) -> Mapping[Node, Array]:
    """The value of every parameter of a model: of the version, else what its declaration says."""
    stored = {} if version is None else version.parameters
    return {p.node: stored[name] if name in stored else draw(p, 0) for name, p in model.parameters.items()}
