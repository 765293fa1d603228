"""Gradients and update rules as plans: both are built from the same operators, so the optimizer sees through them."""
