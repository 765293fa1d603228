"""The rules, one file a family. Importing this package fills ``optimizer.rule.RULES``."""

from . import algebra, broadcasting, chains, composites, factorised, indexing, joins, moments, shapes, stability, whole

__all__ = [
    "algebra",
    "broadcasting",
    "chains",
    "composites",
    "factorised",
    "indexing",
    "joins",
    "moments",
    "shapes",
    "stability",
    "whole",
]
