"""The rule book: every rule of the optimizer as a page for people, with what it does to its example.

``docs/rules.md`` is this text, with the rules about queries that ``session/query`` enters; ``scripts/rules.sh`` writes
it again.
"""

from __future__ import annotations

import itertools
import re
import sys

from ..optimizer.rule import QUERY_RULES, RULES, Rule
from ..optimizer.stages import STAGES
from ..planner.node import walk
from .example import firing
from .formula import formula
from .steps import result_text

DEPTH = 4  # of the formulas; deeper parts are "..."

HEAD = """\
# The rules of the optimizer

Each rule is a law, with the condition under which it may be used and the reason why it helps. The optimizer knows
nothing else: what it does to a plan is a series of these steps, and `EXPLAIN (STEPS)` lists them for any statement.
`SHOW RULES` and `EXPLAIN RULE name` tell the same as this page, which is generated from the rules (`scripts/rules.sh`).

Every rule stands with the names by which databases and machine learning know it, and with an example. What is shown
under an example is the first thing that the rule does to its loss or gradient, in the names of the statement.
`tests/test_rules.py` runs each example with the rule on and off: the loss and the gradients are the same.
`tests/test_query_rewrites.py` does so with the rules about queries: the rows are the same.
"""


def book() -> str:
    """The whole of it, as Markdown: the stages, then a section a family and a page a rule."""
    parts = [HEAD, stages()]
    rules_of_all = (*RULES.values(), *QUERY_RULES.values())
    for module, rules in itertools.groupby(rules_of_all, lambda r: r.apply.__module__):
        parts += [f"## {title(module)}\n\n{plain(sys.modules[module].__doc__ or '')}\n", *map(page, rules)]
    return "\n".join(parts)


def stages() -> str:
    """The order in which the optimizer runs its rules, and why."""
    lines = [f"{number}. **{name}**: {why}" for number, (name, why) in enumerate(STAGES, 1)]
    return "\n".join(["## Stages\n", *lines, ""])


def title(module: str) -> str:
    """The name of a family of rules: that of its file; families of rules about queries say so."""
    room, _, name = module.rpartition(".")
    words = name.replace("_", " ")
    return f"Queries: {words}" if room.endswith("query") else words.capitalize()


def plain(docstring: str) -> str:
    """A docstring as Markdown."""
    return docstring.strip().replace("``", "`")


def page(rule: Rule) -> str:
    """One rule: what it says of itself, and its example with what becomes of it."""
    table = {
        "Law": code(rule.law),
        "Before": code(rule.before),
        "After": code(rule.after),
        "When": rule.when,
        "Why": rule.why,
        "Databases": rule.databases,
        "Machine learning": rule.learning,
        "Stage": rule.stage,
    }
    rows = [f"| {name} | {cell(text)} |" for name, text in table.items()]
    return "\n".join([f"### {rule.name}\n", "| | |", "| --- | --- |", *rows, "", example(rule)])


def code(text: str) -> str:
    """A formula as code; words as they are."""
    return f"`{text}`" if re.search(r"[=(*]|^\w$", text) else text


def cell(text: str) -> str:
    """Text in a table: a bar would end its cell, a star begin emphasis."""
    signs = text.replace("|", r"\|")
    return signs if "`" in text else signs.replace("*", r"\*")


def example(rule: Rule) -> str:
    """The statement on which a rule fires, and what it does there."""
    sql = f"```sql\n{laid_out(rule.example)};\n```\n"
    done = before_and_after(rule)
    return sql if done is None else f"{sql}\n```text\n   {done[0]}\n=> {done[1]}\n```\n"


def before_and_after(rule: Rule) -> tuple[str, str] | None:
    """What a rule first does on its example, as formulas; None where that is no rewriting of a plan.

    A part that only one side has is written out, since it is what the rule is about; what both have keeps its name.
    """
    found = firing(rule)
    if found is None:
        return None
    step, names = found
    both = set(walk([step.before])) & set(walk([step.after or step.before]))
    shared = {node: name for node, name in names.items() if node in both}
    return formula(step.before, shared, DEPTH), result_text(step, lambda n: formula(n, shared, DEPTH))


def laid_out(sql: str) -> str:
    """A statement with each of its clauses and common table expressions on a line."""
    clause = r" (?=(?:AS (?:SELECT|WITH)|MINIMIZE|INPUT|TARGET|PARAMETERS)\b)"
    return re.sub(clause + r"|(?<=\)) (?=SELECT\b)|(?<=\),) (?=\w+ AS \(SELECT\b)", "\n", sql)
