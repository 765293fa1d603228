"""Text in, statements out: frozen dataclasses that say what was asked, with the place of every part.

The room knows words and punctuation. It does not know which tables, models or functions exist, and nothing of plans:
a sqlglot tree is handed on as it is, for the binder to read. Only a reader of text may enter.
"""
