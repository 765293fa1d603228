"""Generated modules on disk: written once, compiled once, loaded by any later process.

Numba keeps machine code only for functions that come from a file. So every module is a file of its own, in a folder of
the user's cache that is named by the hash of all that decides its machine code: the text, the versions of Numba, LLVM
and mlsql's own compiled functions, the processor. A folder is complete once its ``seal`` is there, which holds a
checksum of each file. What does not match its seal is thrown away and built again.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np

from . import blas

NAME = "generated.py"
SEAL = "seal.json"
MOST_BYTES = 256 << 20  # of all modules together; those that were used longest ago make room
RUNTIME = (
    "blas.py",
    "team.py",
    "functions.py",
    "formulas.py",
    "number.py",
)  # files whose code becomes part of a module


def home() -> Path:
    """The folder of all modules, private to the user; a temporary one where the user has no cache."""
    base = os.environ.get("MLSQL_CACHE") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "mlsql" / "compiled"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_private(folder) and os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return _temporary()


def is_private(folder: Path) -> bool:
    """Whether nobody else can write into a folder: machine code is run as it is found there."""
    if not hasattr(os, "getuid"):
        return True
    facts = folder.stat()
    return facts.st_uid == os.getuid() and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@functools.cache
def _temporary() -> Path:
    return Path(tempfile.mkdtemp(prefix="mlsql-compiled-"))


@functools.cache
def circumstances() -> str:
    """What decides machine code besides a module's text."""
    here = Path(__file__).parent
    library = blas.declare()
    facts = [numba.__version__, llvmlite.__version__, np.__version__, sys.version, library.integer]
    facts += [llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]
    facts += [(here / name).read_text() for name in RUNTIME]
    return "\n".join(map(str, facts))


def folder_of(source: str) -> Path:
    """Where a module lies or will lie."""
    return home() / hashlib.sha256(f"{circumstances()}\n{source}".encode()).hexdigest()[:32]


def is_ready(source: str) -> bool:
    """Whether a module is there, whole and as it was compiled."""
    folder = folder_of(source)
    try:
        seal = json.loads((folder / SEAL).read_text())
        return (folder / NAME).read_text() == source and seal == checksums(folder) and len(seal) > 1
    except (OSError, ValueError):
        return False


def checksums(folder: Path) -> dict[str, str]:
    """The hash of every file of a module, by its name."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != SEAL and p.suffix != ".pyc")
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def build(source: str) -> ModuleType:
    """Compile a module and keep it; what lay there before is replaced."""
    make_room()
    final = folder_of(source)
    draft = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        (draft / NAME).write_text(source)
        shutil.rmtree(final, ignore_errors=True)
        try:
            draft.rename(final)
        except OSError:  # another process was faster
            return module_in(final)
        module = module_in(final)
        seal = final / f"{SEAL}.new"
        seal.write_text(json.dumps(checksums(final)))
        seal.replace(final / SEAL)
        return module
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def module_in(folder: Path) -> ModuleType:
    """Import the module of a folder; Numba compiles it unless its machine code is there."""
    blas.declare()
    spec = importlib.util.spec_from_file_location(f"mlsql_generated_{folder.name}", folder / NAME)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # Numba looks for it there
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


@functools.lru_cache(64)
def loaded(source: str) -> ModuleType:
    """The module of a source: out of the cache if it is whole, else built."""
    if is_ready(source):
        folder = folder_of(source)
        os.utime(folder)
        return module_in(folder)
    return build(source)


def make_room() -> None:
    """Remove the modules that were used longest ago until the rest is small enough."""
    folders = [p for p in home().iterdir() if p.is_dir() and not p.name.startswith(".")]
    facts = sorted(((p.stat().st_mtime, size_of(p), p) for p in folders), reverse=True)
    total = 0
    for _, size, folder in facts:
        total += size
        if total > MOST_BYTES:
            shutil.rmtree(folder, ignore_errors=True)


def size_of(folder: Path) -> int:
    """The bytes of all files of a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


class Background:
    """A module that another process compiles while this one goes on."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.draft = tempfile.NamedTemporaryFile("w", suffix=".py", delete=False)  # noqa: SIM115
        with self.draft as file:
            file.write(source)
        command = [sys.executable, "-m", __name__, file.name]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=subprocess.PIPE)

    def is_done(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def module(self) -> ModuleType:
        """What it compiled."""
        self.process.wait()
        return loaded(self.source)


def main() -> None:
    """Build the module of a file."""
    path = Path(sys.argv[1])
    source = path.read_text()
    path.unlink()
    if not is_ready(source):
        build(source)


if __name__ == "__main__":
    main()
