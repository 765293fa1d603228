"""The compiled executor: many steps of the training loop, or the rows of a prediction, as one function of Numba's.

``lower.py`` and ``fusion.py`` turn a plan into kernels: loops that compute many operators at once, and matrix products.
``loops.py`` writes a loop, ``source.py`` the module around all of them, ``modules.py`` keeps and loads such modules.
``functions.py`` and ``blas.py`` are what generated code calls. What has no form for loops is left to the interpreter.
"""
