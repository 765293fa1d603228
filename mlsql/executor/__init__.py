"""Plans in, rows out: the room where numbers are computed and where they are kept.

``storage.py`` talks to DuckDB and is the only file that imports it; ``results.py`` is what every statement returns;
``catalog.py`` keeps models, their versions and their training in tables. The other files run plans. NumPy and what
compiles for it may enter here and nowhere else; no text of the dialect may.
"""
