"""How much the folder of modules may hold, and how others make room, while other processes use the same folder."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path

MOST_BYTES = 256 << 20  # of all modules together; those that were used longest ago make room
IN_USE = 600  # seconds since a module was used in which it may be about to be loaded
ABANDONED = 86400  # seconds after which nobody is at work on a draft: its process was killed
HIDDEN = "."  # how names of drafts and of what is being removed begin


def make_room(folder: Path) -> None:
    """Remove the modules that were used longest ago until the rest is small enough, and what was left half done.

    Those that were used in the last minutes stay, so that the folder may be larger for a while.
    """
    now, total = time.time(), 0
    for used, path in sorted(entries(folder), reverse=True):
        if path.name.startswith(HIDDEN):
            if now - used > ABANDONED:
                remove(path)
            continue
        total += size_of(path)
        if total > MOST_BYTES and now - used > IN_USE:
            discard(path)


def entries(folder: Path) -> list[tuple[float, Path]]:
    """When each part of a folder was used last, as seconds since the epoch; others may remove some at the same time."""
    found = []
    for path in list(folder.iterdir()):
        with suppress(OSError):
            found.append((path.lstat().st_mtime, path))
    return found


def size_of(path: Path) -> int:
    """The bytes of all files of a folder, as far as they are there."""
    total = 0
    for place, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def discard(path: Path) -> None:
    """Take a module away: at once as others see it."""
    aside = path.with_name(f"{HIDDEN}removed-{uuid.uuid4().hex}")
    with suppress(OSError):  # another process was faster
        path.rename(aside)
        remove(aside)


def remove(path: Path) -> None:
    """Remove a folder, or what stands in place of one, as far as the system lets us."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
