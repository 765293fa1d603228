"""The rules about queries, run over the text of a statement until none helps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, cast

from ...errors import Error
from ...optimizer.rule import QUERY_RULES, Alternative, QueryStep, Rule
from ...parser.statements import SelectSql
from ..core import Session
from . import constants, inline, joins, limits, monotone, outputs  # noqa: F401  (their rules enter themselves in QUERY_RULES)
from .context import QueryText, Rewriting

ORDER = (
    ("unread_outputs", "a table that becomes a column is open to all other rules"),
    ("limit_below_predict", "where PREDICT stays a table"),
    ("predict_above_limit", "before what looks at joins: ten rows need no other help"),
    ("predict_below_join", "while the arguments are still columns of one side"),
    ("fixed_inputs", "once every call stands where it stays"),
    ("zero_weights", "with what is left of the inputs"),
    ("monotone_comparison", "before what is left of the model is written out"),
    ("monotone_order", "the same"),
    ("inline_as_sql", "what is left to compute, where it is computed best"),
    ("cheap_conditions_first", "last: what the other rules left of PREDICT in WHERE"),
)

MOST_STEPS = 30  # rewritings of one statement
QUERIES = ("SELECT", "WITH", "FROM", "(")
FILLS = ("CREATE", "INSERT")

Signature = list[tuple[str, str]]


def rewritten(session: Session, statement: SelectSql, without: Collection[str] = ()) -> str:
    """The text that DuckDB runs for a statement."""
    return query_plan(session, statement, (*without, *session.without))[0]


def query_plan(
    session: Session, statement: SelectSql, without: Collection[str] = ()
) -> tuple[str, Sequence[QueryStep], Sequence[Alternative]]:
    """The text that DuckDB runs for a statement, the rewritings that led there, and what was considered and lost.

    ``without`` names rules that stay off. An error in the statement is told of the text as it was written.
    """
    query = QueryText(session, statement)
    plain = query.lowered()
    if not session.optimizer or not is_open(query):
        return plain, (), ()
    signature = signature_of(session, plain, statement.values)
    if signature is None:
        return plain, (), ()
    steps: list[QueryStep] = []
    text = plain
    for rule in (QUERY_RULES[name] for name, _ in ORDER):
        while rule.name not in without and len(steps) < MOST_STEPS:
            found = applied(rule, query, signature)
            if found is None:
                break
            query, text, step = found
            steps.append(step)
    return text, steps, query.known.alternatives


def is_open(query: QueryText) -> bool:
    """Whether the statement is one that the rules can do something for."""
    first = query.text.split(None, 1)[0].upper() if query.text.strip() else ""
    kind = first if first in (*QUERIES, *FILLS) else first[:1]
    calls = query.statement.predicts
    if kind not in (*QUERIES, *FILLS) or not calls or "from" not in query.text.lower():
        return False
    ours = [c for c in calls if not query.lowering.is_of_duckdb(c)]
    return len(ours) == len(calls) and all(query.model(c)[0].skeleton is None for c in calls)


def signature_of(session: Session, text: str, values: Any) -> Signature | None:
    """The names and types of what a query gives, which no rewriting may change; None if DuckDB refuses it.

    A statement that is no query has none: it is enough that DuckDB takes it.
    """
    try:
        if text.split(None, 1)[0].upper() in FILLS:
            session.storage.rows(f"EXPLAIN {text}", values)
            return []
        return [(str(name), str(type_)) for name, type_, *_ in session.storage.rows(f"DESCRIBE {text}", values)]
    except Error:
        return None


def applied(rule: Rule, query: QueryText, signature: Signature) -> tuple[QueryText, str, QueryStep] | None:
    """The first rewriting of a rule that DuckDB takes for a query with the same columns."""
    for candidate in cast("Iterator[Rewriting]", rule.apply(query)):
        new = query.rewritten(candidate.text)
        text = new.lowered()
        if signature_of(query.session, text, new.statement.values) == signature:
            step = QueryStep(
                "query", rule, candidate.before, candidate.after, candidate.cost_before, candidate.cost_after
            )
            return new, text, step
    return None
