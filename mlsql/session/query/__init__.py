"""Queries that call PREDICT: what the optimizer makes of them before DuckDB gets them.

A rule looks at the SELECTs of a statement (``parser.blocks``) and gives the text of a better one, in the same dialect,
so that the next rule reads it as it would read what a person has written: what no rule touches stays verbatim.
``plan.py`` runs the rules, ``lowering.py`` turns what is left of PREDICT into functions of DuckDB's, ``functions.py``
makes these. Every other file is a family of rules.
"""
