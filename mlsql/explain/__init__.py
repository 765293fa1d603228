"""Plans for people: formulas, listings with sizes and costs, gradients side by side, the optimizer's steps.

Everything here reads plans and gives text or rows. Nothing computes a value; values to be shown are handed in.
"""
