"""EXPLAIN: the plan of a statement, how it came about, what it takes. Only ANALYZE runs the statement.

``options`` reads what is asked for; ``train`` and ``forward`` make the view of a plan, ``steps`` the rows of its
rewritings, ``analyze`` runs it with a clock. What a view looks like is the business of the room ``explain``.
"""

from . import gradient, statement

__all__ = ["gradient", "statement"]
