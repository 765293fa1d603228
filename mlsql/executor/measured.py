"""Measured rates in a small file of the user's cache folder, so that a short program need not measure again.

The file is only a convenience: one that is damaged, of another machine, or cannot be written counts as not there.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from pathlib import Path

from . import cache
from .device import Identity

Measured = tuple[dict[str, float], str]  # rates by name, and when they were measured


def path() -> Path:
    """The file: machine.json in the user's cache folder."""
    return cache.user_folder() / "machine.json"


def load(identity: Identity) -> Measured | None:
    """What the file says about this machine; None if it says nothing that can be used."""
    try:
        found = json.loads(path().read_bytes())
        if Identity(**found["machine"]) != identity:
            return None
        rates = {str(name): float(value) for name, value in found["rates"].items()}
        usable = bool(rates) and all(math.isfinite(v) and v > 0 for v in rates.values())
        return (rates, str(found["measured_at"])) if usable else None
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError):
        return None


def save(identity: Identity, measured: Measured) -> None:
    """Replace the file as a whole, for this user alone to read; where it cannot be written, nothing happens."""
    rates, measured_at = measured
    content = {"machine": vars(identity), "measured_at": measured_at, "rates": rates}
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: there is no home folder
        target = path()
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.name)
        try:
            with open(handle, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise
