"""Declarations: columns and parameters with their types and initial values."""

from __future__ import annotations

from typing import Any

from ..errors import suggest
from ..types import BIGINT, BOOLEAN, DOUBLE, FLOAT, INTEGER, Element, Shape
from .reader import Reader
from .statements import ColumnDeclaration, Initializer, ParameterDeclaration

# DuckDB's numeric types, each with the element type that holds its values.
NUMERIC: dict[str, Element] = {
    **dict.fromkeys(("FLOAT", "REAL", "FLOAT4"), FLOAT),
    **dict.fromkeys(("DOUBLE", "DOUBLE PRECISION", "FLOAT8", "DECIMAL", "NUMERIC", "DEC"), DOUBLE),
    **dict.fromkeys(("INTEGER", "INT", "INT4", "SIGNED", "SMALLINT", "INT2", "SHORT", "TINYINT", "INT1"), INTEGER),
    **dict.fromkeys(("UTINYINT", "UINT8", "USMALLINT", "UINT16"), INTEGER),
    **dict.fromkeys(("BIGINT", "INT8", "LONG", "INT64", "UINTEGER", "UINT32", "UBIGINT", "UINT64"), BIGINT),
    **dict.fromkeys(("HUGEINT", "UHUGEINT"), BIGINT),
    **dict.fromkeys(("BOOLEAN", "BOOL", "LOGICAL"), BOOLEAN),
}
KINDS = {"XAVIER": 0, "HE": 0, "ZEROS": 0, "ONES": 0, "NORMAL": 1, "UNIFORM": 2}  # how many arguments each takes


def column(read: Reader) -> ColumnDeclaration:
    """``pixels FLOAT[64]``, all of what ``read`` holds."""
    name = read.identifier("a column's name")
    start = read.position
    element, shape = _type(read)
    if element is None:
        read.step(len(read.rest()))
    read.expect_end()
    return ColumnDeclaration(name, element, shape, read.since(start).source, read.since(0))


def parameter(read: Reader) -> ParameterDeclaration:
    """``w FLOAT[10][784] [INIT ...] [FROZEN]``, all of what ``read`` holds."""
    name = read.identifier("a parameter's name")
    place = read.here
    element, shape = _type(read)
    if element is None:
        read.fail(f"a parameter is a number, not {place.source}", place, hint="FLOAT and DOUBLE can learn")
    initializer = _initializer(read) if read.accept("INIT") else None
    frozen = read.accept("FROZEN")
    read.expect_end()
    return ParameterDeclaration(name, element, shape, initializer, frozen, read.since(0))


def _type(read: Reader) -> tuple[Element | None, Shape]:
    """A type. No element means that it is not a number's; what belongs to it may then go on."""
    token = read.next
    if token is None or token.kind not in ("word", "name"):
        read.unexpected("a type")
    read.step()
    element = NUMERIC.get(token.word)
    close = suggest(token.word, ("FLOAT", "DOUBLE", "INTEGER", "BIGINT", "BOOLEAN")) if token.word else None
    if element is None and close and token.word not in ("DATE", "INTERVAL", "POINT"):
        read.fail(f'there is no type "{token.text}"', token.place(read.text), hint=close)
    if element in (DOUBLE, None) and read.at("("):
        read.group()  # DECIMAL(p, s), VARCHAR(n), ENUM(...)
    return element, _shape(read)


def _shape(read: Reader) -> Shape:
    """Any number of ``[n]``. SQL writes the innermost size first, a shape has it last."""
    sizes: list[int] = []
    while read.at("["):
        start = read.position
        read.step()
        if read.accept("]"):
            read.fail(
                "a length is needed here", read.since(start), hint="write FLOAT[64]: one tensor of 64 numbers a row"
            )
        place = read.here
        sizes.append(read.whole_number("a length"))
        if not sizes[-1]:
            read.fail("a length is at least 1", place)
        read.expect("]")
    return tuple(reversed(sizes))


def _initializer(read: Reader) -> Initializer:
    """What follows INIT: the name of a distribution or a literal."""
    start = read.position
    for kind, count in KINDS.items():
        if read.accept(kind):
            arguments = tuple(float(part.number()) for part in read.groups()) if count else ()
            if len(arguments) != count:
                noun = "number" if count == 1 else "numbers"
                read.fail(f"{kind} takes {count} {noun}, not {len(arguments)}", read.since(start))
            return Initializer(kind, arguments, None, read.since(start))
    value = _literal(read)
    return Initializer("LITERAL", (), value, read.since(start))


def _literal(read: Reader) -> Any:
    """A number or a nested list of numbers."""
    place = read.here
    if read.accept("["):
        return read.listed("]", lambda: _literal(read))
    if read.next is not None and read.next.kind == "word":
        read.unexpected("a number or a list")
    if read.next is not None and read.next.kind == "placeholder":
        value = read.value()
        if not _is_numbers(value):
            read.fail("expected a number or a list of numbers", place)
        return _as_list(value)
    return read.number("a number or a list")


def _is_numbers(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(_is_numbers(entry) for entry in value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_list(value: Any) -> Any:
    return [_as_list(entry) for entry in value] if isinstance(value, list | tuple) else value
