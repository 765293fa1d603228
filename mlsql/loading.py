"""Loading modules quickly: what the first statement of a process waits for is mostly imports."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Imports without Python's garbage collector.

    It looks through all objects again and again while classes are made, a tenth of the time, and finds nothing: what a
    module defines stays. A collector that the caller has disabled stays so.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
