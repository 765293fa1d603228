"""The compiled executor: fused loops over a plan's operators, as one Numba function that trains many steps.

What may enter: what such loops call and how they are written, compiled and kept. Importing it loads Numba.
"""
