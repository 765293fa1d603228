"""What a rule is: a law with its before and after, the condition, the reason, an example, and the rewriting itself.

The text that teaches a rule is the text that the tests run: every rule must fire on its example, keep the type, and
leave the loss and the gradients as they were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from ..planner.node import Node
from ..record import record

Rewrite = Callable[..., Node | None]


@record
class Rule:
    """One rule of the optimizer.

    ``databases`` and ``learning`` are the names by which either field knows it, for a reader who comes from there.
    ``apply`` gives the node that replaces its argument, or None where the rule does not apply. It is asked only about
    nodes of the operators in ``on``. With ``with_readers`` it also gets the nodes that read each node of the plan; an
    output of the plan is among its own readers.
    """

    name: str
    stage: str
    law: str
    before: str
    after: str
    when: str
    why: str
    databases: str
    learning: str
    example: str
    on: tuple[type[Node], ...]
    apply: Rewrite
    with_readers: bool = False


RULES: dict[str, Rule] = {}
ALWAYS_ON = {  # stages whose rules no plan can do without, and why
    "prune": "what nobody reads has no place in a plan",
    "expand": "its operators have no kernels of their own",
    "share": "equal parts of a plan are one object from the start",
}
TEXTS = tuple(f.name for f in fields(Rule) if f.type == "str")  # what a rule says of itself, in the order of reading


def rule(
    *on: type[Node],
    law: str,
    before: str,
    after: str,
    why: str,
    databases: str,
    learning: str,
    example: str,
    when: str = "always",
    stage: str = "simplify",
    with_readers: bool = False,
) -> Callable[[Rewrite], Rewrite]:
    """Declare the function below as the rewriting of a rule that has its name."""

    def declare(apply: Rewrite) -> Rewrite:
        name = apply.__name__
        RULES[name] = Rule(
            name, stage, law, before, after, when, why, databases, learning, example, on, apply, with_readers
        )
        return apply

    return declare


QUERY_RULES: dict[str, Rule] = {}
"""Rules about queries that call PREDICT, in the order in which they are tried. Their before and after are SQL."""


def query_rule(
    *,
    law: str,
    before: str,
    after: str,
    when: str,
    why: str,
    databases: str,
    learning: str,
    example: str,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare the function below as the rewriting of a rule about queries that has its name.

    It is asked about a query and yields the rewritings that it allows. The example is a script that ends in a query on
    which the rule fires.
    """

    def declare(apply: Callable[..., Any]) -> Callable[..., Any]:
        name = apply.__name__
        QUERY_RULES[name] = Rule(name, "query", law, before, after, when, why, databases, learning, example, (), apply)
        return apply

    return declare


@record
class Step:
    """One rewriting that happened: which rule, and the node before and after (None: it is gone).

    The costs are estimated seconds of the whole run before and after; None for rules that need no cost to be right.
    ``place`` are the nodes that changed places in the plan, where they are others than those that the rule saw.
    """

    stage: str
    rule: Rule
    before: Node
    after: Node | None
    cost_before: float | None = None
    cost_after: float | None = None
    place: tuple[Node, Node] | None = None


@record
class QueryStep:
    """One rewriting of a query: which rule, the SQL before and after, the estimated seconds of both."""

    stage: str
    rule: Rule
    before: str
    after: str
    cost_before: float | None = None
    cost_after: float | None = None


@record
class Alternative:
    """Something that was considered and lost: a rewriting, a solver, a place where a part could run.

    ``seconds`` is the estimated time of the whole run with it, ``chosen_seconds`` that of what was taken.
    """

    kind: str  # "rewrite", "solver" or "place"
    name: str
    what: str
    seconds: float | None
    chosen_seconds: float | None
    reason: str
    rule: Rule | None = None
    before: Node | None = None
    after: Node | None = None
