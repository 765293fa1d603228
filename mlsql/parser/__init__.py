"""Text in, statements out: frozen dataclasses that say what was asked, with the place of every part.

The room knows words and punctuation. It does not know which tables, models or functions exist, and nothing of plans:
a sqlglot tree is handed on as it is, for the binder to read. Only a reader of text may enter.

A statement is a dataclass in ``statements.py`` and a parse function with ``@statement("LEAD WORDS")`` above it.
"""

from .expressions import node_place
from .script import expression, parse, split
from .tokens import is_complete

__all__ = ["expression", "is_complete", "node_place", "parse", "split"]
