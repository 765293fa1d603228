"""What the tests of plans share: models from text, random arrays for leaves, differences, counted arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlsql.autodiff.gradient import gradients
from mlsql.executor.device import namespace
from mlsql.executor.run import Executable, evaluate, executable, leaves
from mlsql.explain import example
from mlsql.explain.example import TABLE, moved
from mlsql.explain.example import bind_rows as bind_rows
from mlsql.optimizer.frequency import Frequency
from mlsql.optimizer.rule import RULES
from mlsql.optimizer.search import Goal
from mlsql.optimizer.stages import Optimized, optimize, simplify
from mlsql.parser import parse
from mlsql.planner.binder import bind_model
from mlsql.planner.model import Model, classes_symbol
from mlsql.planner.node import Node, walk
from mlsql.planner.ops import (
    Cast,
    Column,
    Constant,
    Index,
    Multiply,
    Parameter,
    Positions,
    Reshape,
    State,
    Sum,
)
from mlsql.planner.plan import Plan
from mlsql.types import DOUBLE, FLOAT, UNIT, RowSet, Symbol

Array = Any
MANY_STEPS = Goal(runs={Frequency.ONCE: 1, Frequency.STEP: 1e6})  # so that what can be computed once, is
ALL_BUT_EXPAND = tuple(r.name for r in RULES.values() if r.stage != "expand")


# -- models ------------------------------------------------------------------------------------------------------------


def bind(text: str, sizes: Mapping[Symbol, int] | None = None, **classes: int) -> Model:
    """The model of one CREATE MODEL, with the number of classes of its categorical targets, and other sizes."""
    (statement,) = parse(text)
    return bind_model(statement, {**(sizes or {}), **{classes_symbol(c): n for c, n in classes.items()}})


def batched(model: Model, count: int, *, simple: bool = False, fan_out: Sequence[int] = ()) -> Node:
    """The loss of a model over relations, for a batch of so many rows of its select; TRAIN has it simplified first."""
    assert model.loss is not None
    loss = simplify(Plan({"loss": model.loss})).plan.outputs["loss"] if simple else model.loss
    return example.batched(loss, model, count, fan_out)


def loss_of(model: Model) -> Plan:
    """The loss of a model over TABLE, before any rule has seen it."""
    assert model.loss is not None
    plan = Plan({"loss": model.loss}, model.names)
    return moved(model, plan, TABLE)


def in_double(plan: Plan) -> Plan:
    """The plan with leaves, constants and conversions to FLOAT made DOUBLE, so that differences are exact enough."""

    def change(n: Node) -> Node:
        match n:
            case Column(name, rows, element, shape) if element == FLOAT:
                return Column(name, rows, DOUBLE, shape)
            case Parameter(name, element, shape, frozen) if element == FLOAT:
                return Parameter(name, DOUBLE, shape, frozen)
            case Constant(values, element, shape) if element == FLOAT:
                return Constant(values, DOUBLE, shape)
            case Cast(x, element) if element == FLOAT:
                return Cast(x, DOUBLE)
        return n

    return plan.rewritten(change)


def parameters(plan: Plan) -> list[Parameter]:
    """The parameters that a plan reads."""
    return [n for n in plan.nodes() if isinstance(n, Parameter)]


def with_gradients(plan: Plan, without: Collection[str] = ()) -> Optimized:
    """The whole way of a loss through the optimizer: simplified, differentiated by every parameter, optimized."""
    sources = parameters(plan)
    simple = simplify(plan, without)
    loss = simple.plan.outputs["loss"]
    outputs = {"loss": loss, **{f"by {p.name}": g for p, g in zip(sources, gradients(loss, sources), strict=True)}}
    best = optimize(Plan(outputs, simple.plan.names), without, goal=MANY_STEPS)
    return Optimized(best.plan, (*simple.steps, *best.steps), best.alternatives)


# -- arrays ------------------------------------------------------------------------------------------------------------


def random_array(n: Node, rng: np.random.Generator, count: int | None = None, *, positive: bool = False) -> Array:
    """Values for a leaf: numbers of magnitude 0.3 to 1.7, away from where functions have kinks; indexes below 3."""
    rows = n.type.rows
    shape = (() if rows == UNIT else (count or rows.rows or 1,)) + n.type.shape
    match n.type.element.kind:
        case "integer" | "category":
            value: Array = rng.integers(0, 3, shape)
        case "boolean":
            value = rng.integers(0, 2, shape)
        case _:
            value = rng.uniform(0.3, 1.7, shape) * (1 if positive else rng.choice([-1, 1], shape))
    return np.asarray(value, n.type.element.storage)


def random_leaves(outputs: Collection[Node], seed: int = 0, *, positive: bool = False) -> dict[Node, Array]:
    """Values for every leaf of a plan."""
    rng = np.random.default_rng(seed)
    found = [n for n in walk(outputs) if isinstance(n, (Column, Positions, Parameter, State, Index))]
    return {n: random_array(n, rng, positive=positive) for n in sorted(found, key=repr)}


def row_sets(outputs: Collection[Node]) -> dict[RowSet, int]:
    """Every row set of a plan, with as many rows as it was planned for."""
    return {r: r.rows or 1 for n in walk(outputs) for r in n.row_sets()}


def run(plan: Plan, arrays: Mapping[Node, Array]) -> dict[str, Array]:
    """The outputs of a plan, as arrays."""
    found = evaluate(plan, arrays, row_sets(plan.outputs.values()))
    return {k: np.asarray(v) for k, v in found.items()}


def value_of(node: Node, arrays: Mapping[Node, Array]) -> Array:
    """The value of one node."""
    return run(expanded(Plan({"value": node})), arrays)["value"]


def expanded(plan: Plan) -> Plan:
    """The plan with composite operators taken apart, and nothing else changed."""
    return optimize(plan, without=ALL_BUT_EXPAND).plan


def weighted_sum(node: Node, name: str = "weights") -> Node:
    """A single number that depends on every number of a node: its sum times a leaf of weights."""
    t = node.type
    weights: Node = Parameter(name, DOUBLE, t.shape) if t.rows == UNIT else Column(name, t.rows, DOUBLE, t.shape)
    total = Sum(Multiply(node, weights), t.rows != UNIT, tuple(range(t.rank)))
    return Reshape(total, ())


def differences(loss: Node, sources: Sequence[Node], arrays: Mapping[Node, Array], step: float = 1e-6) -> list[Array]:
    """The derivative of a loss by each source, from central differences of its value."""
    outputs = list(expanded(Plan({"loss": loss})).outputs.values())
    held = {n: np.array(a) for n, a in arrays.items()}
    with np.errstate(all="ignore"):
        function = executable(outputs, varying=leaves(outputs)).bind(held, row_sets(outputs))
        indexes = [held[n] for n in walk(outputs) if isinstance(n, Index)]
        found = []
        for source in sources:
            slope = np.zeros(held[source].shape)
            for place in np.ndindex(*slope.shape):
                before = held[source][place]
                values = []
                for side in (1, -1):
                    held[source][place] = before + side * step
                    values.append(function(*indexes)[0])
                held[source][place] = before
                slope[place] = (values[0] - values[1]) / (2 * step)
            found.append(slope)
    return found


# -- counted arithmetic ------------------------------------------------------------------------------------------------


@dataclass
class Meter:
    """What generated code did: operations on numbers that are not positions, and the types it computed in."""

    flops: int = 0
    types: set[str] = field(default_factory=set)

    def note(self, operations: int, operands: Sequence[Any], out: Any) -> None:
        """Arithmetic on whole numbers into whole numbers is address arithmetic, and not counted."""
        arrays = [a.dtype for a in operands if isinstance(a, np.ndarray)]
        if out.dtype.kind == "i":
            return
        self.flops += operations
        self.types |= {str(np.result_type(*arrays, out.dtype) if out.dtype.kind == "f" else out.dtype)}


class Counted(np.ndarray):
    """An array that reports the arithmetic done with it to ``meter``, views included."""

    meter: Meter

    def __array_finalize__(self, source: Any) -> None:
        self.meter = getattr(source, "meter", None)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = (), **options: Any) -> Any:
        plain = [a.view(np.ndarray) if isinstance(a, Counted) else a for a in inputs]
        into = tuple(a.view(np.ndarray) if isinstance(a, Counted) else a for a in out)
        result = getattr(ufunc, method)(*plain, **({"out": into} if out else {}), **options)
        shown = into[0] if into else plain[0] if result is None else np.asarray(result)
        if method == "reduce":
            operations = np.size(plain[0])
        elif method == "at":
            operations = np.broadcast_to(plain[2], (*np.shape(plain[1]), *plain[0].shape[1:])).size
        elif ufunc is np.matmul:
            operations = 2 * shown.size * np.shape(plain[0])[-1]
        else:
            operations = shown.size
        operands = [] if "dtype" in options else plain[:1] + plain[2:] if method == "at" else plain
        self.meter.note(operations, operands, shown)
        return out[0] if out else result

    def argmax(self, *arguments: Any, **options: Any) -> Any:
        self.meter.flops += self.size
        return self.view(np.ndarray).argmax(*arguments, **options)


def counted(array: Array, meter: Meter) -> Counted:
    """An array, watched."""
    made = np.asarray(array).view(Counted)
    made.meter = meter
    return made


# compiled loops: the operations on each number of the rows that they read, given their arguments
COMPILED_FOLDS: dict[str, Callable[..., int]] = {
    "add_rows": lambda x, index, out: len(index) * out[0].size,
    "sum_groups": lambda x, groups, out: len(groups.order) * out[0].size,
    "best_of_groups": lambda x, groups, largest, out: len(groups.order) * out[0].size,
    "add_joined": lambda x, source, group, weight, out: len(group) * out[0].size * (1 if weight is None else 2),
    "sum_joined": lambda x, joined, weight, out: len(joined.order) * out[0].size * (1 if weight is None else 2),
    "pair_dots": lambda x, i, y, j, out: 2 * len(i) * x[0].size,
    "group_sample": lambda index, groups, step, seed, count, out: 0,
    "sample_there": lambda index, groups, count, out: 0,
    "sample_slots": lambda count, out: 0,
    "joined_dots": lambda x, joined, y, out: 2 * len(joined.order) * x[0].size,
}


def metered(kernel: Callable[..., None], operations: Callable[..., int], meter: Meter) -> Callable[..., None]:
    """A compiled loop that reports to ``meter``, which sees nothing of what goes on inside one."""

    def run(*arguments: Any) -> None:
        operands = [a for a in arguments if isinstance(a, Counted) and a.dtype.kind == "f"]
        meter.note(operations(*arguments), operands, arguments[-1])
        kernel(*(a.view(np.ndarray) if isinstance(a, Counted) else a for a in arguments))

    return run


def measure(node: Node, arrays: Mapping[Node, Array]) -> Meter:
    """What the generated code of a node does when it runs once."""
    (output,) = expanded(Plan({"value": node})).outputs.values()
    program = executable([output], varying=leaves([output])).program
    meter = Meter()

    def einsum(spec: str, x: Array, y: Array, out: Array) -> None:
        operands, _, kept = spec.partition("->")
        sizes = dict(zip(operands.replace(",", ""), (*x.shape, *y.shape), strict=True))
        every = int(np.prod([sizes[c] for c in sizes]))
        meter.note(every * (2 if set(sizes) - set(kept) else 1), [x, y], out)
        np.einsum(spec, x.view(np.ndarray), y.view(np.ndarray), out=out.view(np.ndarray))

    def where(condition: Array, x: Array, y: Array, out: Array) -> None:
        meter.note(out.size, [], out)  # copies
        out[...] = np.where(condition, x, y)

    def compiled(name: str, per_number: int) -> Callable[..., None]:
        """A compiled loop over the rows of x, with so many operations for each of its numbers."""

        def call(x: Array, *rest: Any) -> None:
            if per_number:
                meter.note(per_number * x.size, [x], rest[-1])
            helper(x.view(np.ndarray), *(a.view(np.ndarray) if isinstance(a, Counted) else a for a in rest))

        helper = namespace()[name]
        return call

    names = namespace()
    names |= {name: metered(names[name], folds, meter) for name, folds in COMPILED_FOLDS.items()}
    loops = {"add_scaled_rows": 2, "put_rows": 0, "find_first": 0, "add_to_first": 1, "copy_first": 0}
    names |= {name: compiled(name, operations) for name, operations in loops.items()}

    def moment(spec: str, x: Array, y: Array, out: Array) -> None:
        einsum(spec, counted(x.astype(float), meter), counted(y.astype(float), meter), out)

    names |= {"einsum": einsum, "moment": moment, "where": where, "empty": lambda *a: counted(np.empty(*a), meter)}
    exec(compile(program.source, "<counted>", "exec"), names)
    rows = row_sets([output])
    arena = program.allocate(names["empty"])
    step = names["prepare"](
        arena, *(rows[r] for r in program.row_counts), *(counted(arrays[n], meter) for n in program.arrays)
    )
    with np.errstate(all="ignore"):
        step(*(arrays[n] for n in program.arguments))
    return meter


def bound_step(outputs: Sequence[Node], arrays: Mapping[Node, Array], **options: Any) -> Callable[..., Any]:
    """step() of some outputs over given leaves."""
    made: Executable = executable(outputs, **options)
    rows = row_sets([*outputs, *options.get("updates", {}).values()])
    return made.bind(arrays, rows)  # type: ignore[no-any-return]
