"""Plans in, better plans out, with a record of every step.

``rule.py`` says what a rule is, ``rules/`` holds them (one file a family), ``stages.py`` says in which order they run
and why. Nothing here computes a value; a rule that needs a number reads it from the plan's types.
"""
