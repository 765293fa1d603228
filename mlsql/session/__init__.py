"""One statement's way through the house, from text to rows: the only room that knows all the others.

``core.py`` holds the session; every other file says how one kind of statement is run, and enters that in the table
with ``@runs(Statement)``.
"""

from .core import Session

__all__ = ["Session"]
