"""The user's cache folder, and who else can write to it: what processes keep for one another can be made again."""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import tempfile
from pathlib import Path

ROOT = 0  # the user who owns what belongs to the system


def user_folder() -> Path:
    """``$MLSQL_CACHE``, else ``mlsql`` in ``$XDG_CACHE_HOME`` or ``~/.cache``. Raises RuntimeError without a home.

    The specification of ``$XDG_CACHE_HOME`` says that relative paths are to be ignored.
    """
    own, general = os.environ.get("MLSQL_CACHE"), os.environ.get("XDG_CACHE_HOME", "")
    if own:
        return Path(own).absolute()
    return (Path(general) if os.path.isabs(general) else Path.home() / ".cache") / "mlsql"


def private_folder(name: str) -> Path:
    """A folder that nobody but the user can write to, at a path without symbolic links; it is made if it is not there.

    It lies in the user's cache. Where that cannot be written, or others can, it is a temporary one, which is removed
    when the process ends. Raises OSError if there is no place for that either.
    """
    try:
        folder = user_folder() / name
        for part in (folder.parent, folder):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = folder.resolve(strict=True)
        if is_private(folder) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    except (OSError, RuntimeError):
        pass
    return temporary_folder(name)


def is_private(folder: Path) -> bool:
    """Whether nobody but the user and the system can write into a folder or put another one in its place.

    Windows has no such bits: there it is for the user to choose a folder that is theirs.
    """
    return not hasattr(os, "getuid") or (is_own(folder) and all(holds_names(p) for p in folder.parents))


def is_own(folder: Path) -> bool:
    """Whether this is a folder, no link to one, of the user's, to which nobody else can write."""
    facts = folder.lstat()
    others = facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not others


def holds_names(folder: Path) -> bool:
    """Whether nobody else can rename what the user has in a folder: a sticky one, such as /tmp, forbids it to all.

    A group with the number of the user is the user's own, to which systems let them write by default.
    """
    facts = folder.lstat()
    by_group = facts.st_mode & stat.S_IWGRP and facts.st_gid != os.getuid()
    shared = (by_group or facts.st_mode & stat.S_IWOTH) and not facts.st_mode & stat.S_ISVTX
    return facts.st_uid in (ROOT, os.getuid()) and not shared


_temporary: dict[str, Path] = {}


def temporary_folder(name: str) -> Path:
    """This process's temporary folder of a name; another one if somebody has removed or replaced it."""
    folder = _temporary.get(name)
    try:
        if folder is not None and (not hasattr(os, "getuid") or is_own(folder)) and folder.is_dir():
            return folder
    except OSError:
        pass
    folder = _temporary[name] = Path(tempfile.mkdtemp(prefix=f"mlsql-{name}-"))
    atexit.register(_remove, folder, os.getpid())
    return folder


def is_temporary(folder: Path) -> bool:
    """Whether a folder is removed when this process ends."""
    return folder in _temporary.values()


def _remove(folder: Path, owner: int) -> None:
    """At the end of the process that made it, not of one that was forked from it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
