"""page"""
from __future__ import annotations
def page(views): return "<html>\n"
