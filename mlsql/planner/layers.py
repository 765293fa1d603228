"""The layers that are written in the model language: ``CREATE LAYER name(argument, ...) AS expression``."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

from ..parser import expression
from ..parser.statements import Expression
from ..record import record

LAYER = re.compile(
    r"(?P<doc>(?:--[^\n]*\n)*)CREATE LAYER (?P<name>\w+)\((?P<arguments>[^)]*)\)\s+AS\s+(?P<body>[^;]+);"
)


@record
class Layer:
    """A layer: its arguments, the default of those that have one, and its body."""

    name: str
    arguments: tuple[str, ...]
    defaults: dict[str, float]
    body: str
    doc: str

    @property
    def usage(self) -> str:
        """``CLIP(x, low, high)``."""
        words = [f"{a} = {self.defaults[a]:g}" if a in self.defaults else a for a in self.arguments]
        return f"{self.name}({', '.join(words)})"

    @property
    def expression(self) -> Expression:
        """The body, parsed when the layer is first used."""
        return _parsed(self.body)


@cache
def _parsed(body: str) -> Expression:
    return expression(body)


@cache
def standard_layers() -> dict[str, Layer]:
    """The layers of ``layers.sql`` by name."""
    text = resources.files(__package__).joinpath("layers.sql").read_text(encoding="utf-8")
    layers = {}
    for found in LAYER.finditer(text):
        arguments = [a.partition("=") for a in found["arguments"].split(",")]
        doc = " ".join(line.lstrip("- ") for line in found["doc"].strip().splitlines())
        layers[found["name"]] = Layer(
            found["name"],
            tuple(a.strip() for a, _, _ in arguments),
            {a.strip(): float(v) for a, equals, v in arguments if equals},
            found["body"],
            doc,
        )
    return layers
