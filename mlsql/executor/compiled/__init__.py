"""The compiled executor: many steps of the training loop, or the rows of a prediction, as one function of Numba's.

``lower.py`` and ``fusion.py`` turn a plan into kernels: loops that compute many operators at once, and matrix products.
``tasks.py`` and ``schedule.py`` put the operators of a loop into inner loops. ``loops.py`` writes a loop (``reader.py``
the numbers that it reads, ``texts.py`` the pieces; ``short.py`` says which entries are single values), ``shared.py``
one for several threads, ``tiles.py`` and ``tile_loops.py`` kernels that run over tiles of rows. ``meetings.py`` says
where threads meet, ``replicas.py`` what each of them computes for itself, ``arena.py`` finds arrays their place.
``module.py`` writes what all modules share, ``steps.py`` and ``source.py`` a training loop, ``forward.py`` a
prediction.
``machine_code.py`` compiles and links them; ``modules.py``, ``room.py`` and ``background.py`` keep them on disk.
``trainer.py``, with ``pace.py``, and ``switch.py`` run them. Generated code calls ``functions.py`` (over
``formulas.py`` and ``number.py``), ``entries.py``, ``entry_memory.py``, ``blas.py``, ``mkl.py``, ``bfloat16.py`` and
``team.py``.
What has no form for loops is left to the interpreter.
"""
