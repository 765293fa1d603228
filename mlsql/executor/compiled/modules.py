"""Generated modules on disk: written once, compiled once, loaded by any later process.

A module is a folder in the user's cache with its text and its machine code (``machine_code``). It is named by the hash
of all that decides the latter: the text, the versions of Numba, LLVM and mlsql's own compiled functions, the processor.
A module is compiled in a draft beside the others, sealed with a checksum of each file, and renamed: it is there whole
or not at all. What does not match its seal is built again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import tempfile
import threading
from collections import OrderedDict
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .. import cache
from ..blas import numpys
from . import machine_code, room

NAME = "generated.py"
CODE = ("code.o", "entry.o")
SEAL = "seal.json"
MOST_LOADED = 64  # modules that a process keeps
HARMLESS = ("NUMBA_CACHE_DIR", "NUMBA_CACHE_LOCATOR_CLASSES", "NUMBA_DEBUG_CACHE", "NUMBA_NUM_THREADS")

_lock = threading.RLock()  # held by the thread that compiles or loads
_modules: OrderedDict[str, SimpleNamespace] = (
    OrderedDict()
)  # those of this process by their text, the last used at the end


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # the thread that held it does not exist here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# -- which module ------------------------------------------------------------------------------------------------------


def home() -> Path:
    """The folder of all modules. Raises OSError if there is no place for one."""
    return cache.private_folder("compiled")


@functools.cache
def circumstances() -> str:
    """What decides machine code besides a module's text. Nothing here loads Numba."""
    import llvmlite.binding as llvm  # its share of Numba's half second is a fiftieth of a second

    facts: list[Any] = [version("numba"), version("llvmlite"), version("numpy"), sys.version, numpys().integer]
    facts += [llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]
    facts += sorted(s for s in os.environ.items() if s[0].startswith("NUMBA_") and s[0] not in HARMLESS)
    facts += [file.read_text("utf-8") for file in sorted(Path(__file__).parent.glob("*.py"))]
    return "\n".join(map(str, facts))


def name_of(source: str) -> str:
    """The name of a module's folder."""
    return hashlib.sha256(f"{circumstances()}\n{source}".encode()).hexdigest()[:32]


def is_ready(source: str) -> bool:
    """Whether a module is loaded, or there, whole and as it was compiled."""
    try:
        return source in _modules or is_whole(home() / name_of(source), source)
    except OSError:
        return False


def is_whole(folder: Path, source: str) -> bool:
    """Whether a folder holds what its seal says, machine code included."""
    try:
        seal = json.loads((folder / SEAL).read_bytes())
        files = {NAME, *CODE}
        return set(seal) == files and seal == checksums(folder) and (folder / NAME).read_bytes() == source.encode()
    except (OSError, ValueError, RecursionError):
        return False


def checksums(folder: Path) -> dict[str, str]:
    """The hash of every file of a module, by its name. Raises OSError if one cannot be read."""
    files = sorted(p for p in folder.rglob("*") if p.name != SEAL and not p.is_dir())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# -- loading and building ----------------------------------------------------------------------------------------------


def loaded(source: str) -> SimpleNamespace:
    """The module of a source: out of the cache if it is whole, else built. Raises OSError if no file can be written."""
    with _lock:
        return kept(source) or remembered(source, build(source))


def is_loaded(source: str) -> bool:
    """Whether this process has a module at hand."""
    return source in _modules


def kept(source: str) -> SimpleNamespace | None:
    """The module of a source if it need not be compiled."""
    with _lock:
        if source in _modules:
            return remembered(source, _modules[source])
        try:
            folder = home() / name_of(source)
            with suppress(OSError):
                os.utime(folder)  # whoever makes room sees that it is in use
            if is_whole(folder, source):
                return remembered(source, module_in(folder, source))
        except Exception:  # a file went away or changed since it was checked: what fails then is up to LLVM
            return None
        return None


def remembered(source: str, module: SimpleNamespace) -> SimpleNamespace:
    """The module, kept as the one that was used last."""
    _modules[source] = module
    _modules.move_to_end(source)
    while len(_modules) > MOST_LOADED:
        _modules.popitem(last=False)
    return module


def build(source: str, folder: Path | None = None) -> SimpleNamespace:
    """Compile a module and keep it in a folder of modules, by default the user's, else a temporary one.

    Raises OSError if files can be written nowhere.
    """
    with _lock:
        try:
            return built_in(home() if folder is None else folder, source)
        except OSError:  # no room, say, or a folder that was removed just now
            if folder is not None:
                raise
        return built_in(cache.temporary_folder("compiled"), source)


def built_in(folder: Path, source: str) -> SimpleNamespace:
    """Compile a module into a folder of modules. Raises OSError if files cannot be written there."""
    room.make_room(folder)
    name = name_of(source)
    draft = Path(tempfile.mkdtemp(prefix=f"{room.HIDDEN}{name}-", dir=folder))
    try:
        (draft / NAME).write_bytes(source.encode())
        for file, code in zip(CODE, machine_code.made(source, str(folder / name / NAME)), strict=True):
            (draft / file).write_bytes(code)
        module = module_in(draft, source)
        (draft / SEAL).write_text(json.dumps(checksums(draft)))
        publish(draft, folder / name, source)
        return module
    finally:
        room.remove(draft)


def publish(draft: Path, final: Path, source: str) -> None:
    """Give a sealed draft its name, unless a whole module has it already, which another process put there."""
    for _ in range(2):
        try:
            draft.rename(final)
            return
        except OSError:
            if is_whole(final, source):
                return
            room.discard(final)


def module_in(folder: Path, source: str) -> SimpleNamespace:
    """The names of a module: its machine code and its plain Python. Raises OSError if a file cannot be read."""
    objects = [(folder / file).read_bytes() for file in CODE]
    return SimpleNamespace(**machine_code.linked(source, objects, str(folder / NAME)))
