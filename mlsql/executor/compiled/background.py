"""Compiling in another process while this one goes on: it ends by itself, says nothing, and has no terminal."""

from __future__ import annotations

import atexit
import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .. import cache
from . import modules

LONGEST = 900  # seconds; then something is wrong
# The process finds what this one found, and runs nothing of the user's at its start: no site, so no sitecustomize.
START = f"""\
import json, sys
job = json.load(sys.stdin)
sys.path[:] = job.pop("path")
from {__name__} import work
work(**job)
"""


class Background:
    """A module that another process compiles into the cache while this one goes on.

    The process may end after this one does. Nothing that goes wrong with it is an error: ``failure`` says what it was.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.failure: str | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = threading.RLock()  # training runs of several threads may wait for one process
        try:
            self.start()
        except OSError as error:
            self.failure = f"no process could be started to compile: {error}"

    def start(self) -> None:
        """Start the process. Raises OSError if that cannot be done."""
        if not sys.executable or getattr(sys, "frozen", False):
            raise FileNotFoundError("there is no Python beside this program")
        self.folder = modules.home()
        job = {"source": self.source, "folder": str(self.folder), "path": search_path()}
        self.told = tempfile.TemporaryFile()  # noqa: SIM115  (no pipe: nobody may be there to read it)
        try:
            with tempfile.TemporaryFile() as given:  # without a name: nothing stays behind
                given.write(json.dumps(job).encode())
                given.seek(0)
                command = [sys.executable, "-S", "-P", "-c", START]
                quiet = subprocess.DEVNULL
                self.process = subprocess.Popen(command, stdin=given, stdout=quiet, stderr=self.told, **detached())
        except OSError:
            self.told.close()
            raise
        atexit.register(self.leave)  # after the folder's own: what is registered last is done first

    def is_done(self) -> bool:
        """Whether the process has ended."""
        with self.lock:
            if self.process is not None and self.process.poll() is not None:
                self.ended()
            return self.process is None

    def ended(self) -> None:
        """Wait until the process has ended, and keep what it said."""
        with self.lock:
            if self.process is not None:
                status = self.process.wait()
                self.failure = self.reason(status) if status else None
                self.leave()

    def leave(self) -> None:
        """Have no more to do with the process: Python is to warn neither of it nor of its file."""
        if self.process is None:
            return
        if self.process.poll() is None and cache.is_temporary(self.folder):  # nobody would find what it compiles
            self.process.kill()
            self.process.wait()
        self.process.returncode = self.process.returncode or 0
        self.process = None
        self.told.close()
        atexit.unregister(self.leave)

    def module(self) -> SimpleNamespace | None:
        """What it compiled, once it has ended; None if that came to nothing, and ``failure`` says why."""
        self.ended()
        if self.failure is not None:
            return None
        found = modules.kept(self.source)
        if found is None:
            self.failure = "what was compiled is not in the cache"
        return found

    def reason(self, status: int) -> str:
        """Why the process did not end well."""
        self.told.seek(0)
        lines = self.told.read().decode(errors="replace").strip().splitlines()
        if status < 0:
            return f"the process that compiles was ended by {signal_name(-status)}"
        return f"the process that compiles failed: {lines[-1] if lines else f'exit status {status}'}"


_started: dict[str, Background] = {}  # by source: those that may still run


def background(source: str) -> Background:
    """The process that compiles a module: the one that does so already, or a new one."""
    for text in [text for text, running in list(_started.items()) if running.is_done()]:
        _started.pop(text, None)
    return _started.setdefault(source, _started.get(source) or Background(source))


def finished(source: str) -> SimpleNamespace:
    """A module, once it is compiled. Raises OSError if no file can be written.

    Another process does that unless this one has the compiler already, whose hundred megabytes it would keep.
    """
    if "numba" not in sys.modules:
        found = modules.kept(source) or background(source).module()
        if found is not None:
            return found
    return modules.loaded(source)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_started.clear)  # they are not the children of that process


def search_path() -> list[str]:
    """Where Python looks for modules, so that another process finds the same mlsql and the same libraries."""
    root = str(Path(__file__).parents[3])
    found = [p for p in sys.path if isinstance(p, str)]
    return found if root in found else [root, *found]


def detached() -> dict[str, Any]:
    """What keeps a process from the terminal, and Ctrl-C there from the process."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def signal_name(number: int) -> str:
    """As people know it."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def work(source: str, folder: str) -> None:
    """What the process does: build a module in a folder of modules."""
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    if not modules.is_whole(Path(folder) / modules.name_of(source), source):
        modules.build(source, Path(folder))
