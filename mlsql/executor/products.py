"""How many threads a matrix product of BLAS runs on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_lock = threading.Lock()
_inside = 0  # how many threads want products to run on one thread
_before: list[int] = []  # what each library had when the first of them came


@cache
def _libraries() -> list[Any]:
    from threadpoolctl import ThreadpoolController

    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Inside, a product runs on the thread that asks for it.

    DuckDB predicts on several threads at once. Did each of them wake up BLAS's, there would be more threads than
    processors; and those of BLAS go on turning for a while when they have nothing to do.
    """
    global _inside, _before
    with _lock:
        if not _inside:
            _before = [library.get_num_threads() for library in _libraries()]
            for library in _libraries():
                library.set_num_threads(1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                for library, count in zip(_libraries(), _before, strict=True):
                    library.set_num_threads(count)
