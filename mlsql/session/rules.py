"""The optimizer's rules as rows: for SHOW RULES, and as the relation ``mlsql.rules``.

The rules are those of this version of mlsql. The relation in the database is brought up to date when it is read.
"""

from __future__ import annotations

import re

import pyarrow as pa

from ..optimizer.rule import QUERY_RULES, RULES, TEXTS, Rule
from .core import Session
from .rows import small_table

FIELDS = [name for name in TEXTS if name != "example"]
MENTIONED = re.compile(r'\bmlsql"?\s*\.\s*"?rules\b', re.IGNORECASE)


def every_rule() -> dict[str, Rule]:
    """The rules about plans and those about queries, by name; they enter themselves where they are loaded."""
    from ..optimizer import stages  # noqa: F401
    from .query import plan  # noqa: F401

    return RULES | QUERY_RULES


def rules_table() -> pa.Table:
    """A row a rule."""
    return small_table({f: [getattr(r, f) for r in every_rule().values()] for f in FIELDS})


def keep_rules(session: Session, text: str) -> None:
    """Bring the relation up to date for a statement that names it. A database that is only read stays as it is."""
    if MENTIONED.search(text) and not session.storage.read_only:
        session.catalog.save_rules(rules_table())
