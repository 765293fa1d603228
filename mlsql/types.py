"""What a value is before it has a value: which rows it has, what its elements are, what shape a row's entry has.

A column is a tensor per row. ``pixels FLOAT[64]`` of a table of N rows is one array N×64; a parameter lives on the
*unit* row set, which has a single row. Sizes that only data can tell stay symbols until training sees the data.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import ProgrammingError


@dataclass(frozen=True)
class Symbol:
    """A size that is known only from data, such as the number of classes of a column."""

    name: str

    def __str__(self) -> str:
        return self.name


Dim = int | Symbol
Shape = tuple[Dim, ...]


@dataclass(frozen=True)
class Element:
    """The type of one number in a tensor.

    ``kind`` is one of float, integer, boolean, category, text. A category is a class index at run time and one of the
    classes of ``column`` wherever a person sees it. A text is any SQL type that is no number; plans never hold one.
    """

    name: str
    kind: str
    storage: str
    bytes: int
    column: str | None = None

    def __str__(self) -> str:
        return self.name


FLOAT = Element("FLOAT", "float", "float32", 4)
DOUBLE = Element("DOUBLE", "float", "float64", 8)
INTEGER = Element("INTEGER", "integer", "int32", 4)
BIGINT = Element("BIGINT", "integer", "int64", 8)
BOOLEAN = Element("BOOLEAN", "boolean", "bool", 1)
ELEMENTS = {e.name: e for e in (FLOAT, DOUBLE, INTEGER, BIGINT, BOOLEAN)}


def category(column: str) -> Element:
    """The element type of the classes of ``column``: an index from 0 into its sorted distinct values."""
    return Element(f"CLASS OF {column}", "category", "int64", 8, column)


def text(type_text: str) -> Element:
    """The element type of a column that is no number: only functions that DuckDB computes for us can read it."""
    return Element(type_text, "text", "object", 0)


@dataclass(frozen=True)
class RowSet:
    """A set of rows that values can be attached to, and how many rows it is expected to have (None: unknown)."""

    name: str
    rows: int | None = None

    def __str__(self) -> str:
        return self.name


UNIT = RowSet("unit", 1)


@dataclass(frozen=True)
class Type:
    """The type of every value in a plan: a row set, an element type, the shape of one row's entry."""

    rows: RowSet
    element: Element
    shape: Shape = ()

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def entry_size(self) -> int | None:
        """Numbers in one row's entry; None while a size is symbolic."""
        size = 1
        for d in self.shape:
            if isinstance(d, Symbol):
                return None
            size *= d
        return size

    @property
    def size(self) -> int | None:
        """Numbers in all rows together; None while unknown."""
        entry = self.entry_size
        return None if entry is None or self.rows.rows is None else entry * self.rows.rows

    def with_(self, *, rows: RowSet | None = None, element: Element | None = None, shape: Shape | None = None) -> Type:
        """This type with some of its parts replaced."""
        return Type(
            self.rows if rows is None else rows,
            self.element if element is None else element,
            self.shape if shape is None else shape,
        )

    def __str__(self) -> str:
        return f"{self.element}{shape_text(self.shape)}" + ("" if self.rows == UNIT else f" per row of {self.rows}")


def total(*sizes: Dim) -> Dim:
    """The sum of sizes; while one of them is open, a symbol that says so: ``7 + KEYS(island)``."""
    known = sum(s for s in sizes if isinstance(s, int))
    if all(isinstance(s, int) for s in sizes):
        return known
    words = ([str(known)] if known else []) + [str(s) for s in sizes if isinstance(s, Symbol)]
    return Symbol(" + ".join(words))


def concrete(shape: Shape) -> tuple[int, ...]:
    """A shape without open sizes. Raises TypeProblem if one is known only from data that is not there yet."""
    for d in shape:
        if isinstance(d, Symbol):
            raise TypeProblem(f"the size {d} is known only once the model is trained")
    return tuple(d for d in shape if isinstance(d, int))


def shape_text(shape: Shape) -> str:
    """A shape as SQL writes it: the innermost (last) size comes first, as in ``FLOAT[10][784]`` for 784×10."""
    return "".join(f"[{d}]" for d in reversed(shape))


class TypeProblem(ProgrammingError):
    """Operands that do not fit. The binder adds the place in the text."""


def broadcast_shapes(*shapes: Shape) -> Shape:
    """NumPy's broadcasting rule, applied inside a row: sizes align from the last, and 1 stretches."""
    rank = max((len(s) for s in shapes), default=0)
    out: list[Dim] = []
    for i in range(rank):
        size: Dim = 1
        for s in shapes:
            d = s[i - rank + len(s)] if i - rank + len(s) >= 0 else 1
            if d == 1 or d == size:
                continue
            if size != 1:
                words = " and ".join(shape_text(s) or "a single number" for s in shapes)
                raise TypeProblem(f"shapes {words} do not fit together")
            size = d
        out.append(size)
    return tuple(out)


def common_rows(*rows: RowSet) -> RowSet:
    """The one row set that operands share; the unit row set goes with any."""
    found = UNIT
    for r in rows:
        if r in (UNIT, found):
            continue
        if found != UNIT:
            raise TypeProblem(f'rows of "{found}" and rows of "{r}" do not match up')
        found = r
    return found


def promote(*elements: Element) -> Element:
    """The element type of arithmetic: DOUBLE if any operand is, else FLOAT."""
    for e in elements:
        if e.kind == "category":
            raise TypeProblem(f'"{e.column}" is a class label, not a number', hint="use it in CROSS_ENTROPY or LABEL")
    return DOUBLE if DOUBLE in elements else FLOAT
