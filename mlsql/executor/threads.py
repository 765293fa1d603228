"""Threads that are kept from one piece of work to the next."""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor


def pool(name: str, workers: int) -> ThreadPoolExecutor:
    """The threads for one kind of work; a forked process gets its own."""
    return _pool(os.getpid(), name, workers)


@functools.cache
def _pool(process: int, name: str, workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix=f"mlsql-{name}")
