"""Plans for people: one view of a plan, and the formats that render it.

``build`` makes the view (``view``) of a plan; ``tree``, ``formats`` and ``page`` render it. ``steps`` and ``trace``
tell how the plan came about, ``gradient`` puts derivatives side by side with what they belong to. The only values that
are computed here are those of numeric checks on random rows; what was measured is handed in.
"""
