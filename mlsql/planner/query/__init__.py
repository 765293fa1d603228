"""The select of a model over relations, bound: CTEs, joins, filters, groups and unions become positions and plans.

What no parameter reaches is a *key* and stays SQL (``keys.py``, ``planner/skeleton.py``); what learns becomes a plan
over the row sets that the keys make. ``select.py`` reads a query, ``tables.py`` its FROM clause, ``groups.py`` and
``unions.py`` what their names say; ``relations.py`` is what a name can mean. A binder of models is the ``host``.
"""

from .relations import Frame, Origin, Relation, Value
from .select import QueryBinder

__all__ = ["Frame", "Origin", "QueryBinder", "Relation", "Value"]
