"""How much memory this process has, and had at most."""

from __future__ import annotations

import mmap
import resource
import sys
from pathlib import Path

STATM = Path("/proc/self/statm")


def peak() -> int:
    """The most bytes that the process has had at a time."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident() -> int:
    """The bytes that the process has now; its peak where the system does not say."""
    try:
        return int(STATM.read_text().split()[1]) * mmap.PAGESIZE
    except OSError:
        return peak()
