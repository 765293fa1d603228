"""Work: what one evaluation of an operator does, by the resource whose time it takes.

Operators declare it; ``optimizer/cost.py`` gives every part its measured rate. So an operator knows nothing of
machines, and a machine nothing of operators.
"""

from __future__ import annotations

import math

from ..record import record

Counts = tuple[tuple[str, int], ...]
Product = tuple[int, int, int, int]


@record
class Access:
    """Rows of a table that are read or written in no order: so many rows, of so many bytes, out of so large a table.

    ``is_fresh``: each time other rows, as a batch takes them; else the same ones again, which a cache may still hold.
    """

    rows: int
    row_bytes: int
    table_bytes: int
    is_fresh: bool = False

    @property
    def bytes(self) -> int:
        return self.rows * self.row_bytes


# rows, columns and summed length of the products at which libraries of them are compared; "narrow" is the last layer of
# a classifier, "shallow" the gradient of its inputs
PRODUCT_SIZES = {str(n): (n, n, n) for n in (32, 128, 512, 1024)}
PRODUCT_SIZES |= {"narrow": (256, 10, 512), "shallow": (256, 512, 10)}
THIN = 20  # the longest side by which a product counts as one of these two


def nearest_size(m: int, n: int, k: int) -> str:
    """The name of the size that is most like a product: by its thinnest side, or else by the arithmetic."""
    if k <= THIN:
        return "shallow"
    if min(m, n) <= THIN:
        return "narrow"
    cubes = [name for name in PRODUCT_SIZES if name.isdigit()]
    return min(cubes, key=lambda name: abs(math.log(m * n * k / int(name) ** 3)))


NUMBERS = ("number", "number_function")  # arithmetic without any array


@record
class Work:
    """What an evaluation does.

    ``flops`` counts arithmetic by kind: the name of a scalar function, "product" for what matrix products do, "einsum"
    for sums of products that no matrix product does, "fold" for reductions; together they are ``Node.flops()``.
    ``products`` are the matrix products: how many in a stack, and the sizes m, n and k of each. ``loops`` counts the
    inner loops that a call starts where an operand does not run through memory as one, ``calls`` the calls by kind:
    "call" of an elementwise function, "number_call" of one with a plain number beside an array, "stretched" of one that
    repeats or converts an operand, "fold", "product", "einsum", "compiled" for compiled loops, "number" and
    "number_function" for arithmetic on plain numbers. ``converted`` are numbers whose element type changes on the way.
    """

    flops: Counts = ()
    products: tuple[Product, ...] = ()
    streamed: int = 0  # bytes that are read and written one after another
    gathered: tuple[Access, ...] = ()
    scattered: tuple[Access, ...] = ()
    converted: int = 0
    loops: Counts = ()
    calls: Counts = ()
    is_double: bool = False

    @property
    def total_flops(self) -> int:
        """The arithmetic of all kinds."""
        return sum(n for _, n in self.flops)

    @property
    def total_calls(self) -> int:
        """Kernel calls of all kinds; arithmetic on plain numbers is none."""
        return sum(n for kind, n in self.calls if kind not in NUMBERS)

    @property
    def bytes(self) -> int:
        """Bytes that move, in whatever order."""
        return self.streamed + sum(a.bytes for a in (*self.gathered, *self.scattered))

    def __add__(self, other: Work) -> Work:
        return Work(
            self.flops + other.flops,
            self.products + other.products,
            self.streamed + other.streamed,
            self.gathered + other.gathered,
            self.scattered + other.scattered,
            self.converted + other.converted,
            self.loops + other.loops,
            self.calls + other.calls,
            self.is_double or other.is_double,
        )


NOTHING = Work()
CALL: Counts = (("call", 1),)
COMPILED: Counts = (("compiled", 1),)
