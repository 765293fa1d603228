"""Statements in, typed logical plans out.

``node.py`` is what a plan is made of, ``ops/`` holds every operator (declared once), ``binder.py`` turns the model
language into plans, ``functions.py`` and ``layers.sql`` are what that language can call. Nothing here computes.
"""
