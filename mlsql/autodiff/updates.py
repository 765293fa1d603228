"""Update rules: what turns a gradient into new weights. (An *optimizer* here rewrites plans.)

A transform is a pair of pure functions over plans: which vectors it carries from step to step, and how it turns the
gradient into a better direction. A solver is a chain of transforms; the last one scales by the learning rate. All
weights lie in one flat vector, so each operator runs once a step, however many layers there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from ..planner.node import Node
from ..planner.ops import Add, Divide, Multiply, Power, Sqrt, Subtract, cast, like
from ..record import record
from ..types import DOUBLE

Slots = Mapping[str, Node]
Update = Callable[[Node, Node, Slots, Node], tuple[Node, dict[str, Node]]]


@record
class Transform:
    """``slots`` are the vectors it carries (zeros at first); ``update(direction, weights, slots, step)`` gives the new
    direction and the new slots. ``step`` counts from 1. One that does not descend leaves the weights as they are."""

    slots: tuple[str, ...]
    update: Update
    descends: bool = True


GRADIENT = Transform(("gradient",), lambda g, w, slots, step: (w, {"gradient": g}), descends=False)


def chain(*transforms: Transform) -> Transform:
    """Transforms one after another, each working on the direction of the one before."""

    def update(direction: Node, weights: Node, slots: Slots, step: Node) -> tuple[Node, dict[str, Node]]:
        new: dict[str, Node] = {}
        for t in transforms:
            direction, changed = t.update(direction, weights, slots, step)
            new |= changed
        return direction, new

    return Transform(tuple(s for t in transforms for s in t.slots), update)


def scaled(x: Node, factor: float) -> Node:
    """``factor`` times ``x``."""
    return Multiply(x, like(factor, x))


def add_decay(rate: float) -> Transform:
    """Adds ``rate`` times the weights to the direction: the gradient of rate/2 * |w|^2."""
    return Transform((), lambda g, w, slots, step: (Add(g, scaled(w, rate)) if rate else g, {}))


def momentum(decay: float, nesterov: bool) -> Transform:
    """The velocity v <- decay * v + g, or with Nesterov's correction g + decay * v.

    Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013.
    """
    if not decay:
        return Transform((), lambda g, w, slots, step: (g, {}))

    def update(g: Node, w: Node, slots: Slots, step: Node) -> tuple[Node, dict[str, Node]]:
        velocity = Add(scaled(slots["velocity"], decay), g)
        return (Add(g, scaled(velocity, decay)) if nesterov else velocity), {"velocity": velocity}

    return Transform(("velocity",), update)


def running_mean(old: Node, new: Node, decay: float) -> Node:
    """decay * old + (1 - decay) * new."""
    return Add(scaled(old, decay), scaled(new, 1 - decay))


def counted(x: Node, g: Node) -> Node:
    """A function of the step in no wider a type than the gradient's; steps that an array counts are DOUBLE."""
    return cast(x, g.type.element) if x.type.element == DOUBLE else x


def scale_by_adam(beta1: float, beta2: float, epsilon: float) -> Transform:
    """m / (sqrt(v) + epsilon) with m and v the bias-corrected running means of g and g*g.

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015.
    """

    def update(g: Node, w: Node, slots: Slots, step: Node) -> tuple[Node, dict[str, Node]]:
        m = running_mean(slots["first_moment"], g, beta1)
        v = running_mean(slots["second_moment"], Multiply(g, g), beta2)
        correction1 = counted(Subtract(like(1, step), Power(like(beta1, step), step)), g)
        correction2 = counted(Sqrt(Subtract(like(1, step), Power(like(beta2, step), step))), g)
        size = Add(Divide(Sqrt(v), correction2), like(epsilon, v))
        return Divide(Divide(m, size), correction1), {"first_moment": m, "second_moment": v}

    return Transform(("first_moment", "second_moment"), update)


def scale_by_rms(decay: float, epsilon: float) -> Transform:
    """g / (sqrt(v) + epsilon) with v the running mean of g*g.

    Tieleman and Hinton, "Neural Networks for Machine Learning", lecture 6.5, 2012.
    """

    def update(g: Node, w: Node, slots: Slots, step: Node) -> tuple[Node, dict[str, Node]]:
        v = running_mean(slots["mean_square"], Multiply(g, g), decay)
        return Divide(g, Add(Sqrt(v), like(epsilon, v))), {"mean_square": v}

    return Transform(("mean_square",), update)


def scale_by_sum_of_squares(epsilon: float) -> Transform:
    """g / (sqrt(s) + epsilon) with s the sum of all g*g so far.

    Duchi, Hazan and Singer, "Adaptive Subgradient Methods", 2011.
    """

    def update(g: Node, w: Node, slots: Slots, step: Node) -> tuple[Node, dict[str, Node]]:
        s = Add(slots["square_sum"], Multiply(g, g))
        return Divide(g, Add(Sqrt(s), like(epsilon, s))), {"square_sum": s}

    return Transform(("square_sum",), update)


def descend(transform: Transform, rate: Node) -> Transform:
    """The end of every chain: the weights move against the direction by the learning rate."""
    if not transform.descends:
        return transform

    def update(g: Node, w: Node, slots: Slots, step: Node) -> tuple[Node, dict[str, Node]]:
        direction, new = transform.update(g, w, slots, step)
        return Subtract(w, Multiply(direction, rate)), new

    return Transform(transform.slots, update)


@record
class Option:
    """An option of WITH: its default says its type; it allows values from ``least`` to just ``below``."""

    name: str
    default: Any
    doc: str
    least: float | None = None
    choices: tuple[str, ...] = ()
    kind: type | None = None  # for a default of None
    below: float | None = None

    @property
    def type(self) -> type:
        return self.kind or type(self.default)


class Needs(Enum):
    """What a solver that knows more than the gradient needs of a loss. The value of a member says it to users."""

    QUADRATIC = "a loss that is quadratic in the parameters"
    CONVEX = "a smooth loss of scores that are linear in the parameters"
    SMOOTH = "a loss over all rows that has a slope"


@record
class Solver:
    """A way to train: its options beside the common ones, and the chain that they make.

    A solver that ``needs`` something decides by itself where to go next: its step computes the loss and the gradient of
    all rows in DOUBLE, and leaves the weights alone. ``common`` are the common options that it knows (None: all),
    ``epochs`` how many it does if nobody says. ``expected`` is the number of steps that it takes to the minimum of a
    well-scaled convex loss, as a rule of thumb (None: it is not chosen unless asked for).
    """

    name: str
    doc: str
    options: tuple[Option, ...]
    build: Callable[[Mapping[str, Any]], Transform]
    full_batch: bool = False
    needs: Needs | None = None
    common: tuple[str, ...] | None = None
    epochs: int = 10
    expected: int | None = None


SOLVERS: dict[str, Solver] = {}

DECAY = Option("weight_decay", 0.0, "adds this times the weights to the gradient", 0)
EPSILON = Option("epsilon", 1e-8, "keeps the division finite", 0)


def solver(
    name: str, *options: Option, full_batch: bool = False, **facts: Any
) -> Callable[[Callable[[Mapping[str, Any]], Transform]], Callable[[Mapping[str, Any]], Transform]]:
    """Declare the function below as a solver; its docstring is what users read. ``facts`` are fields of Solver."""

    def declare(build: Callable[[Mapping[str, Any]], Transform]) -> Callable[[Mapping[str, Any]], Transform]:
        SOLVERS[name] = Solver(name, (build.__doc__ or "").strip(), options, build, full_batch, **facts)
        return build

    return declare


def learning_rate(default: float) -> Option:
    return Option("learning_rate", default, "how far a step moves the weights", 0)


MOMENTUM = (
    Option("momentum", 0.0, "how much of the last step's velocity is kept", 0, below=1),
    Option("nesterov", False, "looks ahead along the velocity"),
)


@solver("SGD", learning_rate(0.01), *MOMENTUM, DECAY, expected=10_000)
def sgd(o: Mapping[str, Any]) -> Transform:
    """Stochastic gradient descent, with momentum if asked: w <- w - learning_rate * v, v <- momentum * v + g."""
    return chain(add_decay(o["weight_decay"]), momentum(o["momentum"], o["nesterov"]))


@solver("GD", learning_rate(0.1), *MOMENTUM, DECAY, full_batch=True, expected=500)
def gd(o: Mapping[str, Any]) -> Transform:
    """Gradient descent: SGD with the whole table as one batch."""
    return sgd(o)


BETAS = (
    Option("beta1", 0.9, "decay of the gradient's running mean", 0, below=1),
    Option("beta2", 0.999, "decay of the squared gradient's running mean", 0, below=1),
)


@solver("ADAM", learning_rate(0.001), *BETAS, EPSILON, DECAY, expected=5_000)
def adam(o: Mapping[str, Any]) -> Transform:
    """Adam: each weight's step is scaled by running means of its gradient and squared gradient."""
    return chain(add_decay(o["weight_decay"]), scale_by_adam(o["beta1"], o["beta2"], o["epsilon"]))


@solver(
    "ADAMW", learning_rate(0.001), *BETAS, EPSILON, Option("weight_decay", 0.01, "shrinks the weights beside Adam", 0)
)
def adamw(o: Mapping[str, Any]) -> Transform:
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter, 2019)."""
    return chain(scale_by_adam(o["beta1"], o["beta2"], o["epsilon"]), add_decay(o["weight_decay"]))


@solver(
    "RMSPROP", learning_rate(0.01), Option("decay", 0.99, "decay of the squared gradient's mean", 0, below=1), EPSILON,
    *MOMENTUM[:1], DECAY,
)  # fmt: skip
def rmsprop(o: Mapping[str, Any]) -> Transform:
    """RMSProp: each weight's step is divided by the running root mean square of its gradient."""
    return chain(add_decay(o["weight_decay"]), scale_by_rms(o["decay"], o["epsilon"]), momentum(o["momentum"], False))


@solver("ADAGRAD", learning_rate(0.01), Option("epsilon", 1e-10, "keeps the division finite", 0), DECAY)
def adagrad(o: Mapping[str, Any]) -> Transform:
    """AdaGrad: each weight's step is divided by the root of the sum of its squared gradients."""
    return chain(add_decay(o["weight_decay"]), scale_by_sum_of_squares(o["epsilon"]))


def tolerance(default: float, doc: str) -> Option:
    return Option("tolerance", default, doc, 0, below=1)


@solver(
    "NORMAL_EQUATIONS", full_batch=True, needs=Needs.QUADRATIC, common=("seed", "class_weight"), epochs=1,
    expected=1,
)  # fmt: skip
def normal_equations(o: Mapping[str, Any]) -> Transform:
    """The minimum of a quadratic loss at once: its gradient is H w + c, and w solves H w = -c."""
    return GRADIENT


ITERATIONS = ("epochs", "seed", "patience", "class_weight")


@solver(
    "NEWTON", tolerance(1e-10, "stops when a step can lower the loss by less than this, relatively"), full_batch=True,
    needs=Needs.CONVEX, common=ITERATIONS, epochs=100, expected=8,
)  # fmt: skip
def newton(o: Mapping[str, Any]) -> Transform:
    """Newton's method with the exact Hessian (IRLS for logistic and Poisson regression), damped so that the loss never
    rises."""
    return GRADIENT


@solver(
    "LBFGS", Option("history", 10, "how many of the last steps the curvature is estimated from", 1),
    tolerance(1e-6, "stops when no slope is larger than this times the largest at the start, or 1"), full_batch=True,
    needs=Needs.SMOOTH, common=ITERATIONS, epochs=200, expected=30,
)  # fmt: skip
def lbfgs(o: Mapping[str, Any]) -> Transform:
    """L-BFGS: curvature from the last steps, and a line search that satisfies the strong Wolfe conditions (Liu and
    Nocedal, 1989; Moré and Thuente, 1994)."""
    return GRADIENT
