"""Random models: a text of the model language for every seed, with sizes and values for all that it reads.

Everything is written that rules look for: arithmetic with neutral elements, constants in every place, negations,
powers, stable forms by hand, layers over one-hot vectors and concatenations, slices of slices, chains of products; over
relations also star joins, messages along edges, pairs of rows, unions and groups. Functions that are not defined
everywhere get arguments for which they are, so that every value is finite.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from support import Array, bind, random_array

from mlsql.planner.model import Model
from mlsql.planner.node import Node
from mlsql.planner.ops import Column, Index, Positions
from mlsql.planner.skeleton import Group, Join, Union, rows_symbol
from mlsql.types import Symbol

Shape = tuple[int, ...]
KEYS = 3  # whole numbers are below it


# -- expressions -------------------------------------------------------------------------------------------------------


@dataclass
class Writer:
    """Writes random expressions of a wanted shape over the names in ``scope``.

    ``keys`` are columns of whole numbers. With ``layers`` it may write what brings parameters of its own.
    """

    rng: random.Random
    scope: Mapping[Shape, Sequence[str]]
    keys: Sequence[str] = ()
    layers: bool = True

    def __call__(self, shape: Shape, depth: int) -> str:
        """An expression of so many levels at most."""
        if depth <= 0 or self.rng.random() < 0.1:
            return self.leaf(shape)
        forms = (*ANY, *ANY, *(SCALAR, VECTOR, MATRIX)[len(shape)])
        text = None
        while text is None:
            text = self.one_of(forms)(self, shape, depth - 1)
        return text

    def one_of(self, choices: Sequence[Any]) -> Any:
        return self.rng.choice(choices)

    def size(self) -> int:
        """A size of a vector; one of a single number is a case of its own."""
        return self.rng.choice((1, 2, 3, 3, 4))

    def leaf(self, shape: Shape) -> str:
        """A name of that shape, or what makes one of others."""
        names = self.scope.get(shape, ())
        if names and self.rng.random() < 0.85:
            return self.one_of(names)
        match shape:
            case ():
                return self.constant()
            case (n,):
                return f"[{', '.join(self.leaf(()) for _ in range(n))}]"
            case (a, b):
                return f"RESHAPE({self.leaf((a * b,))}, {a}, {b})"
        raise ValueError(shape)

    def constant(self) -> str:
        return self.one_of(("0", "1", "2", "3", "0.5", "(-1)", "(-2)", "1.5", "0.1", "(-0.7)"))

    def key(self) -> str | None:
        return self.one_of(self.keys) if self.keys else None

    def tame(self, shape: Shape, depth: int) -> str:
        """An expression with values of a few ones at most."""
        return self.one_of((self.leaf(shape), f"TANH({self(shape, depth)})", f"2 * SIN({self(shape, depth)})"))

    def positive(self, shape: Shape, depth: int) -> str:
        """An expression with values from 0.5 on."""
        x = self(shape, depth)
        return self.one_of(
            (f"(0.5 + ABS({x}))", f"(0.5 + SOFTPLUS({x}))", f"(({x}) ** 2 + 0.5)", f"GREATEST({x}, 0.5)")
        )

    def condition(self, shape: Shape, depth: int) -> str:
        """A comparison, or several."""
        a, b, sign = self(shape, depth), self(shape, depth), self.one_of(("<", "<=", ">", ">=", "<>"))
        single = f"{a} {sign} {b}"
        other = f"{self(shape, depth)} > {self.constant()}"
        return self.one_of((single, single, f"{single} AND {other}", f"{single} OR {other}", f"NOT ({single})",
                            f"{a} BETWEEN -0.3 AND 0.8"))  # fmt: skip


Form = Callable[[Writer, Shape, int], str | None]


def arithmetic(w: Writer, s: Shape, d: int) -> str:
    """Two of one shape, or one and a number that is repeated."""
    x, y = w(s, d), w(w.one_of((s, s, ())), d)
    if w.rng.random() < 0.5:
        x, y = y, x
        x = f"({w.leaf(s)} + {x})" if s else x  # the shape of the whole
    sign = w.one_of("+-**")
    return f"({x} {sign} {y})" if w.rng.random() < 0.8 else f"({x} / {w.one_of((w.positive(s, d), '3', '-4', '1'))})"


def known(w: Writer, s: Shape, d: int) -> str:
    """Arithmetic that does nothing, or can be said in fewer words."""
    x, y = w(s, d), w(s, d)
    return w.one_of((
        f"({x} * 1)", f"(1 * {x})", f"({x} + 0)", f"(0 + {x})", f"({x} - 0)", f"(0 - {x})", f"({x} / 1)", f"({x} ** 1)",
        f"({x} + {x})", f"(2 * (3 * {x}))", f"(({x} * 0.5) * 4)", f"({x} * (2 + 3))", f"({x} / (1 + 1) ** 2)",
        f"(-(-{x}))", f"(-{x})", f"({x} - (-{y}))", f"({x} + (-{y}))", f"((-{x}) + {y})", f"((-{x}) * {y})",
        f"({x} * (-{y}))", f"((-{x}) * (-{y}))", f"(-({x} - {y}))", f"((-{x}) / 4)", f"(-3 * (-{x}))", f"((-{x}) * 2)",
        f"CAST({x} AS DOUBLE)", f"CAST(CAST({x} AS FLOAT) AS DOUBLE)",
    ))  # fmt: skip


def power(w: Writer, s: Shape, d: int) -> str:
    """In brackets, since a sign before a power belongs to its base."""
    x, y = w.tame(s, d), w.positive(s, d)
    text = w.one_of((f"({x}) ** 2", f"({x}) ** 3", f"{y} ** 0.5", f"{y} ** -1", f"{y} ** -0.7", f"({x}) ** 0",
                     f"1.3 ** ({x})", f"POWER({x}, 2)"))  # fmt: skip
    return f"({text})"


def function(w: Writer, s: Shape, d: int) -> str:
    names = "TANH SIGMOID RELU LEAKY_RELU GELU SILU SOFTPLUS LOG_SIGMOID SIN COS ERF ABS SIGN".split()
    if w.rng.random() < 0.7:
        return f"{w.one_of(names)}({w(s, d)})"
    x, y = w.tame(s, d), w.positive(s, d)
    return w.one_of((f"EXP({x})", f"LN({y})", f"LOG({y})", f"SQRT({y})", f"LN(EXP({x}))", f"LN(SIGMOID({x}))",
                     f"LN(1 - SIGMOID({x}))", f"(-LN(SIGMOID(-({x}))))"))  # fmt: skip


def choice(w: Writer, s: Shape, d: int) -> str:
    x, y = w(s, d), w(s, d)
    condition = w.condition(w.one_of((s, ())), d)
    return w.one_of((
        f"CASE WHEN {condition} THEN {x} ELSE {y} END", f"CASE WHEN {condition} THEN {x} ELSE 0 * {y} END",
        f"GREATEST({x}, {y})", f"LEAST({x}, {y}, 0.4)", f"GREATEST({x}, 0)", f"CLIP({x}, -0.7, 0.9)",
    ))  # fmt: skip


ANY: tuple[Form, ...] = (arithmetic, arithmetic, known, known, power, function, function, choice)


def folded(w: Writer, s: Shape, d: int) -> str:
    """One number of a tensor."""
    shape = w.one_of(((w.size(),), (w.size(), w.size())))
    name = w.one_of("SUM_OF SUM_OF MAX_OF MIN_OF MEAN_OF L1 L2 NORM".split())
    return f"{name}({w(shape, d)})"


def dot(w: Writer, s: Shape, d: int) -> str:
    n = w.size()
    return w.one_of((f"DOT({w((n,), d)}, {w((n,), d)})", f"SUM_OF({w((n,), d)} * {w((n,), d)})"))


def entry(w: Writer, s: Shape, d: int) -> str | None:
    """A number at a known position, or at one that the row tells."""
    n, m, key = w.size(), w.size(), w.key()
    x, y = (w.one_of((w(shape, d), w.leaf(shape))) for shape in ((n,), (n, m)))
    forms = [f"{named(x)}[{w.rng.randint(1, n)}]", f"{named(y)}[{n}][{w.rng.randint(1, m)}]"]
    forms += [f"PICK({w((KEYS,), d)}, {key})"] * 2 if key else []
    return w.one_of(forms)


def pieces(w: Writer, s: Shape, d: int) -> str:
    """A vector that is read piece by piece."""
    n = w.rng.choice((3, 4))
    x = named(w.leaf((n,)))
    return f"({x}[1] * {w(s, d)} + DOT({x}[2:3], {w((2,), d)}))"


def named(text: str) -> str:
    """An expression that a position can stand behind."""
    return f"({text})"


def likelihood(w: Writer, s: Shape, d: int) -> str | None:
    """Losses, and losses by hand."""
    x, y = w(s, d), w(s, d)
    key, scores, tame = w.key(), w((KEYS,), d), w.tame((KEYS,), d)
    forms = [
        f"BINARY_CROSS_ENTROPY({x}, SIGMOID({y}))", f"HUBER({x}, {y})", f"HUBER({x}, {y}, 0.5)", f"HINGE({x}, {y})",
        f"SQUARED_ERROR({x}, {y})", f"ABSOLUTE_ERROR({x}, {y})", f"LOG_SUM_EXP({scores})",
        f"KL(SOFTMAX({tame}), SOFTMAX({tame} * 0.5))",
    ]  # fmt: skip
    if key:
        forms += [f"CROSS_ENTROPY({scores}, {key})", f"(-PICK(LN(SOFTMAX({tame})), {key}))",
                  f"(-LN(PICK(SOFTMAX({tame}), {key})))", f"PICK(LOG_SOFTMAX({scores}), {key})"] * 2  # fmt: skip
    return w.one_of(forms)


def read(w: Writer, d: int) -> str:
    """What a layer reads: a vector, perhaps with one-hot vectors in it."""
    inner, key = w((w.size(),), d), w.key()
    if key is None or w.rng.random() < 0.4:
        return inner
    wide = f"ONE_HOT({key}, {w.rng.choice((3, 4))})"
    return w.one_of((wide, f"CONCAT({inner}, {wide})", f"CONCAT({wide}, {inner}, {w.leaf(())}, {wide})"))


def number_layer(w: Writer, s: Shape, d: int) -> str | None:
    return f"LINEAR({read(w, d)}, 1)" if w.layers else None


def whole_number(w: Writer, s: Shape, d: int) -> str | None:
    key = w.key()
    return (
        w.one_of(
            (f"({key} * 0.5)", f"ARGMAX({w((KEYS,), d)}) * 0.3", f"CASE WHEN {key} = 1 THEN {w(s, d)} ELSE 0.2 END")
        )
        if key
        else None
    )


SCALAR: tuple[Form, ...] = (
    *(folded, dot, entry, pieces, likelihood, likelihood, number_layer, number_layer, whole_number),
)


def layer(w: Writer, s: Shape, d: int) -> str | None:
    return linear(read(w, d), s[0]) if w.layers else None


def linear(x: str, size: int) -> str:
    """A vector, of one number too, by a layer."""
    return f"LINEAR({x}, {size})" if size > 1 else f"[LINEAR({x}, 1)]"


def parts(w: Writer, s: Shape, d: int) -> str | None:
    """A vector of numbers and vectors, end to end; concatenations of concatenations."""
    if s[0] == 1:
        return f"[{w((), d)}]"
    if w.rng.random() < 0.3:
        return f"[{', '.join(w((), d) for _ in range(s[0]))}]"
    cut = w.rng.randint(1, s[0] - 1)
    first, second = w.one_of((w((cut,), d), w.leaf((cut,)))), w((s[0] - cut,), d)
    return f"CONCAT({first}, {second})" if cut > 1 else f"CONCAT({w((), d)}, {second})"


def section(w: Writer, s: Shape, d: int) -> str:
    """A slice of something longer, or a row of a matrix."""
    more = w.rng.randint(0, 2)
    start = 1 + w.rng.randint(0, more)
    x = w.one_of((w((s[0] + more,), d), w.leaf((s[0] + more,))))
    whole = f"{named(x)}[{start}:{start + s[0] - 1}]"
    n = w.size()
    return w.one_of((whole, whole, f"{named(w((n, s[0]), d))}[{w.rng.randint(1, n)}]"))


def product(w: Writer, s: Shape, d: int) -> str:
    """A vector times one matrix or two, many of them square, which hides a transpose too many."""
    n, m = w.one_of((s[0], s[0], w.size())), w.size()
    v, a = w((n,), d), w((n, s[0]), d)
    b, c = w((n, m), d), w((m, s[0]), d)
    return w.one_of((
        f"MATMUL({v}, {a})", f"({named(v)} @ {named(a)})", f"MATMUL({w((s[0], n), d)}, {v})",
        f"MATMUL({v}, TRANSPOSE({w((s[0], n), d)}))", f"MATMUL({v}, TRANSPOSE({w.leaf((s[0], n))}))",
        f"MATMUL(TRANSPOSE({a}), {v})", f"EINSUM('i,ij->j', {v}, {a})",
        f"MATMUL(MATMUL({v}, {b}), {c})", f"MATMUL({v}, MATMUL({b}, {c}))",
    ))  # fmt: skip


def spread(w: Writer, s: Shape, d: int) -> str:
    return w.one_of((f"SOFTMAX({w(s, d)})", f"LOG_SOFTMAX({w(s, d)})", f"LN(SOFTMAX({w.tame(s, d)}))"))


def flattened(w: Writer, s: Shape, d: int) -> str:
    """A vector out of a matrix."""
    n = w.size()
    columns, rows = w((n, s[0]), d), w((s[0], n), d)
    name = w.one_of(("SUM_OF", "MAX_OF", "MIN_OF"))
    return w.one_of((f"{name}({columns}, 1)", f"{name}({rows}, 2)", f"RESHAPE({w((1, s[0]), d)}, {s[0]})"))


def looked_up(w: Writer, s: Shape, d: int) -> str | None:
    """A row of a table, by an index or by a one-hot vector."""
    key = w.key()
    if key is None:
        return None
    forms = [f"MATMUL(ONE_HOT({key}, {KEYS}), {w((KEYS, s[0]), d)})"]
    forms += [f"EMBED({key}, {s[0]})"] * 2 if w.layers else []
    forms += [f"ONE_HOT({key}, {s[0]})"] if s[0] >= KEYS else []
    return w.one_of(forms)


VECTOR: tuple[Form, ...] = (layer, layer, layer, parts, section, product, spread, flattened, looked_up)


def turned(w: Writer, s: Shape, d: int) -> str:
    a, b = s
    same, other, flat = w(s, d), w((b, a), d), w((a * b,), d)
    return w.one_of((
        f"TRANSPOSE({other})", f"TRANSPOSE(TRANSPOSE({same}))", f"TRANSPOSE(TRANSPOSE({same}) * 1)",
        f"RESHAPE({flat}, {a}, {b})", f"RESHAPE(RESHAPE({same}, {a * b}), {a}, {b})", f"RESHAPE({other}, {a}, {b})",
    ))  # fmt: skip


def matrix_product(w: Writer, s: Shape, d: int) -> str:
    (a, b), n = s, w.one_of((*s, w.size()))
    return w.one_of((
        f"MATMUL({w((a, n), d)}, {w((n, b), d)})", f"MATMUL(TRANSPOSE({w((n, a), d)}), {w((n, b), d)})",
        f"EINSUM('i,j->ij', {w((a,), d)}, {w((b,), d)})", f"EINSUM('ij,jk->ik', {w((a, n), d)}, {w((n, b), d)})",
        f"TRANSPOSE(MATMUL({w((b, n), d)}, {w((n, a), d)}))",
    ))  # fmt: skip


def matrix_layer(w: Writer, s: Shape, d: int) -> str | None:
    return f"LINEAR({w((s[0], w.size()), d)}, {s[1]})" if w.layers and s[1] > 1 else None


MATRIX: tuple[Form, ...] = (turned, turned, matrix_product, matrix_product, matrix_layer)


# -- models over one relation ------------------------------------------------------------------------------------------


@dataclass
class Declared:
    """Columns or parameters that are written into a statement, and the names that they give to expressions."""

    texts: list[str] = field(default_factory=list)
    scope: dict[Shape, list[str]] = field(default_factory=dict)

    def add(self, name: str, shape: Shape, rest: str = "", prefix: str = "") -> None:
        self.texts.append(f"{name} DOUBLE{''.join(f'[{n}]' for n in reversed(shape))}{rest}")
        self.scope.setdefault(shape, []).append(prefix + name)

    def __str__(self) -> str:
        return ", ".join(self.texts)


def merged(*scopes: Mapping[Shape, Sequence[str]]) -> dict[Shape, list[str]]:
    """All names of several scopes."""
    found: dict[Shape, list[str]] = {}
    for scope in scopes:
        for shape, names in scope.items():
            found.setdefault(shape, []).extend(names)
    return found


def some_shapes(rng: random.Random, count: int) -> list[Shape]:
    """Numbers, vectors and matrices, many of them square."""
    sizes = (1, 2, 3, 3, 4)
    found: list[Shape] = []
    for _ in range(count):
        n, m = rng.choice(sizes), rng.choice(sizes)
        found += rng.choices([(), (n,), (n, rng.choice((n, m)))], (3, 3, 2))
    return found


def some_parameters(rng: random.Random) -> Declared:
    """Parameters, a few of them frozen."""
    found = Declared()
    for i, shape in enumerate([(), *some_shapes(rng, rng.randint(1, 4))]):
        found.add(f"p{i}", shape, " FROZEN" if i and rng.random() < 0.25 else "")
    return found


def plain_model(rng: random.Random) -> str:
    """A model over the rows of one table."""
    inputs, learned = Declared(), some_parameters(rng)
    for i, shape in enumerate(some_shapes(rng, rng.randint(1, 4))):
        inputs.add(f"x{i}", shape)
    keys = [f"k{i}" for i in range(rng.randint(0, 2))]
    scope = merged(inputs.scope, learned.scope)
    items: list[str] = []
    weights: list[str] = []
    for i in range(rng.randint(1, 3)):
        (shape,) = some_shapes(rng, 1)
        text = Writer(rng, scope, keys)(shape, rng.randint(2, 3))
        items.append(f"{text} AS y{i}")
        scope.setdefault(shape, []).extend([f"y{i}"] * 3)
        weights += [f"y{i}.weight"] if "LINEAR(" in text else []
    scope.setdefault((), []).extend(["t"] * 2)
    loss = some_loss(Writer(rng, scope, [*keys, "label"], layers=False), regularizers(rng, learned, weights))
    columns = ", ".join([str(inputs), *(f"{k} INTEGER" for k in keys)])
    return (f"CREATE MODEL m PARAMETERS ({learned}) INPUT ({columns}) TARGET (t DOUBLE, label INTEGER) "
            f"AS SELECT {', '.join(items)} MINIMIZE {loss}")  # fmt: skip


def regularizers(rng: random.Random, learned: Declared, weights: Sequence[str]) -> list[str]:
    names = [n for shape, names in learned.scope.items() if shape for n in names] + list(weights)
    return [f"{rng.choice(('L1', 'L2'))}({n})" for n in names]


def some_loss(w: Writer, penalties: Sequence[str]) -> str:
    """An aggregate over rows, alone or among others; perhaps a penalty on the size of parameters."""
    a, b = (f"{w.one_of('AVG AVG SUM MIN MAX'.split())}({w((), 3)})" for _ in range(2))
    forms = [a, a, a, f"-{a}", f"0.5 * {a}", f"{a} / COUNT(*)", f"SQRT({a} ** 2 + 1)", f"{a} + {b}", f"TANH({a}) * {b}"]
    text = w.one_of(forms)
    if penalties and w.rng.random() < 0.4:
        text = f"{text} + {w.one_of(('0.1', '1e-2', '1'))} * {w.one_of(penalties)}"
    return text


# -- models over several relations -------------------------------------------------------------------------------------


@dataclass
class Relation:
    """A relation of INPUT: its keys and its columns."""

    name: str
    keys: Sequence[str]
    columns: Declared

    def __str__(self) -> str:
        return f"{self.name} ({', '.join([*(f'{k} BIGINT' for k in self.keys), *self.columns.texts])})"

    def scope(self, alias: str) -> dict[Shape, list[str]]:
        """The columns' names behind an alias."""
        return {shape: [f"{alias}.{n}" for n in names] for shape, names in self.columns.scope.items()}


def some_relation(rng: random.Random, name: str, keys: Sequence[str], letter: str) -> Relation:
    """A relation with a number and a few other columns."""
    columns = Declared()
    for i, shape in enumerate([(), *some_shapes(rng, rng.randint(1, 2))]):
        columns.add(f"{letter}{i}", shape)
    return Relation(name, keys, columns)


def statement(learned: Declared, relations: Sequence[Relation], target: str, select: str, loss: str) -> str:
    inputs = ", ".join(map(str, relations))
    return f"CREATE MODEL m PARAMETERS ({learned}) INPUT {inputs} {target} AS {select} MINIMIZE {loss}"


def where(rng: random.Random, column: str) -> str:
    return f" WHERE {column} > {rng.choice(('0', '-0.5'))}" if rng.random() < 0.25 else ""


def loss_over(rng: random.Random, learned: Declared, outputs: Mapping[Shape, Sequence[str]], target: str = "") -> str:
    """A loss over the columns of a select."""
    scope = merged(learned.scope, {(): [target] * 3} if target else {}, *[outputs] * 6)
    return some_loss(Writer(rng, scope, layers=False), regularizers(rng, learned, []))


def star(rng: random.Random) -> str:
    """Facts with one to three dimensions, each as it is or after a layer, joined to the inside or to the left."""
    learned, facts = some_parameters(rng), some_relation(rng, "facts", ["k0", "k1", "k2"], "f")
    dimensions = [some_relation(rng, f"dim{i}", ["id", "m"], "d") for i in range(rng.randint(1, 3))]
    makers = some_relation(rng, "makers", ["id"], "m")
    scopes, sources, ctes = [facts.scope("f"), learned.scope], ["facts f"], []
    for i, d in enumerate(dimensions):
        alias, source, names = f"d{i}", d.name, d.scope(f"d{i}")
        if rng.random() < 0.5:
            (shape,) = some_shapes(rng, 1)
            scope, rows = merged(learned.scope, d.scope(d.name), d.scope(d.name)), d.name
            if rng.random() < 0.6:  # a snowflake: the dimension is a join itself
                scope, rows = merged(scope, makers.scope("makers")), f"{d.name} JOIN makers ON makers.id = {d.name}.m"
            text = Writer(rng, scope)(shape, rng.randint(0, 2))
            ctes.append(f"e{i} AS (SELECT {d.name}.id, {text} AS h FROM {rows}{where(rng, d.name + '.d0')})")
            source, names = f"e{i}", {shape: [f"d{i}.h"] * 2}
        kind = "JOIN"
        if rng.random() < 0.3:
            kind, names = "LEFT JOIN", {(): [f"COALESCE({n}, 0.5)" for n in names.get((), ())]}
        sources.append(f"{kind} {source} {alias} ON {alias}.id = f.k{i}")
        scopes += [names] * 2
    write = Writer(rng, merged(*scopes))
    (shape,) = some_shapes(rng, 1)
    select = f"SELECT {write(shape, 3)} AS a, {write((), 3)} AS b FROM {' '.join(sources)}{where(rng, 'f.f0')}"
    select = f"WITH {', '.join(ctes)} {select}" if ctes else select
    loss = loss_over(rng, learned, merged({shape: ["a"]}, {(): ["b"]}), "t")
    return statement(learned, [facts, *dimensions, makers], "TARGET facts (t DOUBLE)", select, loss)


def message(
    rng: random.Random, name: str, source: str, column: str, shape: Shape, learned: Declared, out: Shape
) -> str:
    """A layer of a graph network: what neighbours say along edges, gathered at each node, and a function of it."""
    fold = rng.choice("SUM SUM SUM AVG MAX MIN".split())
    any_message = Writer(rng, merged(learned.scope, {shape: [column] * 3, (): ["e.e0"]}))
    said = rng.choice((column, column, f"e.e0 * {column}", f"{column} * e.e0", any_message(shape, 2)))
    gathered = f"{fold}({said})"
    write = Writer(rng, merged(learned.scope, {shape: [gathered] * 2}))
    value = gathered if out == shape and rng.random() < 0.3 else write(out, 2)
    value = value if gathered in value else f"{write.one_of(('TANH', 'RELU'))}({linear(gathered, out[0])})"
    return f"{name} AS (SELECT e.dst AS id, {value} AS h FROM edges e JOIN {source} s ON s.id = e.src GROUP BY e.dst)"


def graph(rng: random.Random) -> str:
    """Messages along edges, one layer or two, and a readout that may meet the nodes again."""
    learned, nodes = some_parameters(rng), some_relation(rng, "nodes", ["id"], "n")
    edges = Relation("edges", ["src", "dst"], Declared())
    edges.columns.add("e0", ())
    nodes.columns.add("n9", (2,))
    n, m, r = (rng.choice((1, 2, 3)) for _ in range(3))
    write = Writer(rng, merged(learned.scope, nodes.scope("nodes"), nodes.scope("nodes")))
    first = rng.choice((linear("nodes.n9", n), linear("nodes.n9", n), linear(write.leaf((m,)), n), write((n,), 2)))
    ctes = [f"h AS (SELECT id, {first} AS h FROM nodes{where(rng, 'nodes.n0')})"]
    ctes.append(message(rng, "m1", "h", "s.h", (n,), learned, (m,)))
    last, shape = "m1", (m,)
    if rng.random() < 0.5:
        ctes.append(message(rng, "m2", "m1", "s.h", (m,), learned, (r,)))
        last, shape = "m2", (r,)
    scope = {shape: [f"{last}.h"] * 6}
    source, target = last, ""
    if rng.random() < 0.6:
        source, target = f"{last} JOIN nodes ON nodes.id = {last}.id", "TARGET nodes (t DOUBLE)"
        scope = merged(scope, nodes.scope("nodes"))
    (out,) = some_shapes(rng, 1)
    write = Writer(rng, merged(learned.scope, scope))
    select = f"WITH {', '.join(ctes)} SELECT {last}.id, {write(out, 2)} AS a, {write((), 2)} AS b FROM {source}"
    loss = loss_over(rng, learned, merged({out: ["a"]}, {(): ["b"]}), "t" if target else "")
    return statement(learned, [nodes, edges], target, select, loss)


def pairs(rng: random.Random) -> str:
    """Rows of one relation beside each other: along links, or where a key is the same."""
    learned, nodes = some_parameters(rng), some_relation(rng, "nodes", ["id"], "n")
    links = some_relation(rng, "links", ["a", "b"], "l")
    n = rng.choice((1, 2, 3))
    text = Writer(rng, merged(learned.scope, nodes.scope("nodes")))((n,), 2)
    scope = merged(learned.scope, {(n,): ["p.h", "q.h"] * 2})
    if rng.random() < 0.6:
        source = "links l JOIN h p ON p.id = l.a JOIN h q ON q.id = l.b"
        relations, scope = [nodes, links], merged(scope, links.scope("l"))
    else:
        source, relations = "h p JOIN h q ON p.id = q.id", [nodes]
    write = Writer(rng, scope)
    first = rng.choice(("DOT(p.h, q.h)", write((), 2)))
    select = f"WITH h AS (SELECT id, {text} AS h FROM nodes) SELECT {first} AS a, {write((n,), 2)} AS b FROM {source}"
    loss = loss_over(rng, learned, {(): ["a"], (n,): ["b"]})
    return statement(learned, relations, "", select, loss)


def groups(rng: random.Random) -> str:
    """Groups of rows, of a join or of a union, which may be grouped or joined once more."""
    learned = some_parameters(rng)
    a, b = some_relation(rng, "a", ["k"], "x"), some_relation(rng, "b", ["k"], "y")
    n = rng.choice((1, 2, 3))
    if rng.random() < 0.5:
        of_a, of_b = (Writer(rng, merged(learned.scope, r.scope(r.name)))((n,), 2) for r in (a, b))
        rows = f"(SELECT k, {of_a} AS h FROM a{where(rng, 'a.x0')} UNION ALL SELECT k, {of_b} FROM b) u"
        scope, key = {(n,): ["u.h"] * 3}, "u.k"
    else:
        rows, scope, key = "a JOIN b ON a.k = b.k", merged(a.scope("a"), b.scope("b")), "a.k"
        rows, scope = (rows, scope) if rng.random() < 0.6 else (f"a{where(rng, 'a.x0')}", a.scope("a"))
    write = Writer(rng, merged(learned.scope, scope, scope))
    fold = lambda shape: f"{rng.choice('SUM AVG MIN MAX'.split())}({write(shape, 2)})"  # noqa: E731
    few = f"COALESCE({fold(())} FILTER (WHERE {'a.x0 > 0' if key == 'a.k' else 'u.k > 0'}), 0.3)"
    items = [f"{key} AS k", f"{fold((n,))} AS s", f"{rng.choice((fold(()), fold(()), few))} AS c"]
    inner, outputs = f"SELECT {', '.join(items)} FROM {rows} GROUP BY {key}", {(n,): ["s"], (): ["c"]}
    ending = rng.random()
    if ending < 0.3:  # back to the rows
        write = Writer(rng, merged(learned.scope, a.scope("a"), {(n,): ["g.s"] * 2, (): ["g.c"] * 2}))
        inner = f"WITH g AS ({inner}) SELECT {write((n,), 2)} AS s, {write((), 2)} AS c FROM a JOIN g ON g.k = a.k"
    elif ending < 0.5:  # rows without groups
        items = [f"{write((n,), 2)} AS s", f"{write((), 2)} AS c"]
        inner = f"SELECT {', '.join(items)} FROM {rows}"
    return statement(learned, [a, b], "", inner, loss_over(rng, learned, outputs))


def convolution(rng: random.Random) -> str:
    """A graph convolution of one layer or two as textbooks have it: a layer, a sum along the edges, a function."""
    learned, nodes = some_parameters(rng), Relation("nodes", ["id"], Declared())
    edges = Relation("edges", ["src", "dst"], Declared())
    nodes.columns.add("n1", (rng.choice((1, 2, 3)),))
    edges.columns.add("e0", ())
    last, ctes = "nodes", []
    for i in range(rng.choice((1, 2, 2))):
        size = rng.choice((1, 2, 3))
        before, after = (rng.choice(("({})", "({})", "TANH({})", "RELU({})")) for _ in range(2))
        layer = linear(f"{last}.n1" if last == "nodes" else f"{last}.h", size)
        ctes.append(f"h{i} AS (SELECT id, {before.format(layer)} AS h FROM {last})")
        said = rng.choice((f"e.e0 * h{i}.h", f"h{i}.h", f"e.e0 * ({linear(f'h{i}.h', size)})"))
        total = after.format(f"SUM({said})")
        ctes.append(
            f"m{i} AS (SELECT e.dst AS id, {total} AS h FROM edges e JOIN h{i} ON h{i}.id = e.src GROUP BY e.dst)"
        )
        last = f"m{i}"
    select = f"WITH {', '.join(ctes)} SELECT {last}.id, {linear(f'{last}.h', rng.choice((1, 2)))} AS z FROM {last}"
    loss = rng.choice(
        ("AVG(L2(z))", "SUM(SUM_OF(SIGMOID(z)))", "AVG(SUM_OF(z))", "AVG(L2(z - 0.3)) + 0.1 * L2(z.weight)")
    )
    return statement(learned, [nodes, edges], "", select, loss)


def linear_model(rng: random.Random) -> str:
    """Least squares, a logistic regression and their like, over a table or over facts with their dimensions."""
    learned, facts = some_parameters(rng), Relation("facts", ["k0", "k1"], Declared())
    dimensions = [Relation(f"dim{i}", ["id"], Declared()) for i in range(rng.choice((0, 0, 1, 2)))]
    for r, name in ((facts, "x"), *((d, "y") for d in dimensions)):
        r.columns.add(f"{name}0", ())
        r.columns.add(f"{name}1", (rng.choice((1, 2, 3)),))
    prefix, size = "f." if dimensions else "", rng.choice((1, 1, 2))
    read = [f"{prefix}x0", f"{prefix}x1"] + [f"d{i}.y{rng.randint(0, 1)}" for i in range(len(dimensions))]
    rng.shuffle(read)
    layer = f"LINEAR(CONCAT({', '.join(read)}), {size})"
    score = rng.choice(
        (layer, layer, f"{layer} * 2", f"-{layer}", f"{layer} + p0 * {prefix}x0", f"({layer} - 0.5) / 3")
    )
    z = "z" if size == 1 else f"z[{rng.choice((1, 2))}]"
    losses = [
        f"({z} - t) ** 2", f"(t - {z}) ** 2", f"0.3 * ({z} - t) ** 2", f"({z} - t) * ({z} - 1)", z, f"{z} * t",
        f"BINARY_CROSS_ENTROPY({z}, SIGMOID(t))", f"HUBER({z}, t)", "L2(z - [t, 1])" if size == 2 else "L2([z, t])",
    ]  # fmt: skip
    loss = f"{rng.choice(('AVG', 'SUM'))}({rng.choice(losses)})"
    loss += rng.choice(("", " + 0.1 * L2(z.weight)", " / COUNT(*)"))
    if not dimensions:
        return (f"CREATE MODEL m PARAMETERS ({learned}) INPUT ({facts.columns}) TARGET (t DOUBLE) "
                f"AS SELECT {score} AS z MINIMIZE {loss}")  # fmt: skip
    joins = " ".join(f"JOIN dim{i} d{i} ON d{i}.id = f.k{i}" for i in range(len(dimensions)))
    select = f"SELECT {score} AS z FROM facts f {joins}"
    return statement(learned, [facts, *dimensions], "TARGET facts (t DOUBLE)", select, loss)


FAMILIES: Mapping[str, tuple[Callable[[random.Random], str], int]] = {
    "plain": (plain_model, 5),
    "linear": (linear_model, 3),
    "convolution": (convolution, 2),
    "star": (star, 2),
    "graph": (graph, 3),
    "pairs": (pairs, 1),
    "groups": (groups, 2),
}


def model_text(seed: int) -> str:
    """The text of the model of a seed."""
    rng = random.Random(seed)
    write = rng.choices([f for f, _ in FAMILIES.values()], [n for _, n in FAMILIES.values()])[0]
    return write(rng)


# -- sizes and values --------------------------------------------------------------------------------------------------


def bound(text: str, rng: random.Random) -> Model:
    """The model over random numbers of rows. Raises ProgrammingError if the text is none of the language's."""
    first = bind(text)
    sizes = {v.symbol: KEYS for v in first.vocabularies.values()}
    if first.skeleton is None:
        return bind(text, sizes)
    rows = {name: rng.randint(1, 9) for name in first.skeleton.relations}
    for step in first.skeleton.steps:
        match step:
            case Join(sides=(side, *_)):
                same = rng.random() < 0.3
                rows[step.rows.name] = rows[side.over.name] if same else rng.randint(1, 12)
                if same and not side.optional and rng.random() < 0.5:
                    sizes[Symbol(f"{step.rows.name} is its first side")] = 1
            case Union(parts=parts):
                rows[step.rows.name] = sum(rows[p.name] for p in parts)
            case Group(over=over):
                rows[step.rows.name] = rng.randint(1, rows[over.name])
    return bind(text, sizes | {rows_symbol(name): count for name, count in rows.items()})


def value(leaf: Node, seed: int) -> Array:
    """The value of a leaf, the same in every plan that reads it. Every group has a row; a union is all of its parts."""
    rng = np.random.default_rng([seed, zlib.crc32(repr(leaf).encode())])
    if isinstance(leaf, Column) and leaf.name.endswith(" known") and seed % 3:
        return np.ones(leaf.rows.rows or 1, bool)  # targets that are all there
    if not isinstance(leaf, (Positions, Index)):
        return random_array(leaf, rng)
    count, over = leaf.rows.rows or 1, leaf.over.rows or 1
    if isinstance(leaf, Positions) and " in grouped" in leaf.name:
        return rng.permutation(np.arange(count) % over)
    if isinstance(leaf, Positions) and leaf.name.startswith("union"):
        start = 0 if leaf.name.endswith(".0") else over - count
        return np.arange(start, start + count)
    return rng.integers(0, over, count)
