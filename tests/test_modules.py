"""The cache of compiled modules: whole or built again, private, bounded, shared by threads and processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mlsql
from mlsql.executor import cache
from mlsql.executor.compiled import background, modules, room
from mlsql.executor.compiled.background import Background
from mlsql.session import train as session_train
from mlsql.session.compiling import Compilation

SOURCE = """\
from numba import njit
from numba.types import int64

from mlsql.executor.compiled.blas import plus


@njit(int64(int64), no_cpython_wrapper=True, no_cfunc_wrapper=True)
def twice(x):
    return plus(x, x)
"""
# of a process of its own: the answer, and whether there is a compiler
LOAD = """\
import sys
from mlsql.executor.compiled import modules
print(modules.loaded(open(sys.argv[1]).read()).twice(21), "numba" in sys.modules)
"""
posix = pytest.mark.skipif(not hasattr(os, "getuid"), reason="permission bits are POSIX's")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of modules with the one of SOURCE."""
    folder = tmp_path_factory.mktemp("built")
    modules.build(SOURCE, folder)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache of a process that has loaded nothing."""
    monkeypatch.setenv("MLSQL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(modules, "_modules", type(modules._modules)())
    monkeypatch.setattr(background, "_started", {})
    yield modules.home()


@pytest.fixture
def folder(home: Path, built: Path) -> Path:
    """The folder of SOURCE's module, which is there."""
    name = modules.name_of(SOURCE)
    shutil.copytree(built / name, home / name)
    return home / name


def python(program: str, *arguments: str, flags: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """A process that runs a program and finds the same mlsql."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, *flags, "-c", program, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def told(process: subprocess.Popen[str]) -> str:
    """What a process printed; it must have ended well, without a word about errors."""
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    return out.strip()


@pytest.fixture
def text(tmp_path: Path) -> str:
    """The path of a file with SOURCE."""
    (tmp_path / "source.py").write_text(SOURCE)
    return str(tmp_path / "source.py")


# -- found again -------------------------------------------------------------------------------------------------------


def test_another_process_compiles_nothing(home: Path, text: str) -> None:
    assert told(python(LOAD, text)) == "42 True"
    assert told(python(LOAD, text)) == "42 False"
    assert [p.name for p in home.iterdir()] == [modules.name_of(SOURCE)]


def test_a_look_loads_no_compiler(folder: Path, text: str) -> None:
    look = "import sys; from mlsql.executor.compiled.modules import is_ready\n"
    look += "print(is_ready(open(sys.argv[1]).read()), is_ready('pass'), 'numba' in sys.modules)"
    assert told(python(look, text)) == "True False False"


def test_a_process_loads_a_module_once(folder: Path) -> None:
    assert modules.loaded(SOURCE) is modules.loaded(SOURCE) is modules.kept(SOURCE)


def test_the_name_depends_on_all_that_decides_machine_code(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {modules.name_of(SOURCE), modules.name_of(SOURCE + "\n")}
    for variable in ("NUMBA_OPT", "NUMBA_CPU_NAME"):
        monkeypatch.setenv(variable, "1")
        modules.circumstances.cache_clear()
        names.add(modules.name_of(SOURCE))
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    modules.circumstances.cache_clear()
    names.add(modules.name_of(SOURCE))
    monkeypatch.undo()
    modules.circumstances.cache_clear()
    assert len(names) == 4


# -- damaged -----------------------------------------------------------------------------------------------------------


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replaced_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("not a folder")


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "no seal": lambda f: (f / modules.SEAL).unlink(),
    "an empty seal": lambda f: (f / modules.SEAL).write_text(""),
    "half a seal": lambda f: (f / modules.SEAL).write_text((f / modules.SEAL).read_text()[:40]),
    "a seal of something else": lambda f: (f / modules.SEAL).write_text("[1]"),
    "a seal of no text": lambda f: (f / modules.SEAL).write_bytes(b"\xff\xfe"),
    "a seal without machine code": lambda f: (*((f / c).unlink() for c in modules.CODE), sealed(f)),
    "a flipped bit of the source": lambda f: flipped(f / modules.NAME),
    "a flipped bit of the machine code": lambda f: flipped(f / "code.o"),
    "a flipped bit of the entry": lambda f: flipped(f / "entry.o"),
    "truncated machine code": lambda f: (f / "code.o").write_bytes((f / "code.o").read_bytes()[:100]),
    "empty machine code": lambda f: (f / "code.o").write_bytes(b""),
    "no machine code": lambda f: (f / "code.o").unlink(),
    "no entry": lambda f: (f / "entry.o").unlink(),
    "a file too many": lambda f: (f / "another.py").write_text("raise SystemExit"),
    "an empty folder": lambda f: (shutil.rmtree(f), f.mkdir()),
    "a file in its place": replaced_by_a_file,
    "a link to nowhere in its place": lambda f: (shutil.rmtree(f), f.symlink_to(f.parent / "nowhere")),
    "a folder in place of a file": lambda f: ((f / modules.SEAL).unlink(), (f / modules.SEAL).mkdir()),
}


def sealed(folder: Path) -> None:
    (folder / modules.SEAL).write_text(json.dumps(modules.checksums(folder)))


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_built_again(folder: Path, damage: str) -> None:
    assert modules.is_ready(SOURCE)
    DAMAGES[damage](folder)
    assert not modules.is_ready(SOURCE)
    assert modules.loaded(SOURCE).twice(4) == 8
    assert modules.is_whole(folder, SOURCE)
    assert list(folder.parent.iterdir()) == [folder]


@given(data=st.data())
def test_no_changed_byte_goes_unseen(built: Path, data: st.DataObject) -> None:
    folder = built / modules.name_of(SOURCE)
    path = data.draw(st.sampled_from(sorted(p for p in folder.rglob("*") if p.is_file() and p.name != modules.SEAL)))
    content = path.read_bytes()
    at, bits = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(1, 255))
    changed = data.draw(st.sampled_from([content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :], content[:at]]))
    path.write_bytes(changed)
    try:
        assert not modules.is_whole(folder, SOURCE)
    finally:
        path.write_bytes(content)
    assert modules.is_whole(folder, SOURCE)


@posix
def test_what_cannot_be_read_is_built_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (folder / "code.o", folder):
        path.chmod(0)
    if os.getuid() == 0:  # whom permissions do not stop
        read = Path.read_bytes

        def refused(path: Path) -> bytes:
            if not all(p.stat().st_mode & stat.S_IRUSR for p in (path, *path.parents)):
                raise PermissionError(13, "Permission denied", str(path))
            return read(path)

        monkeypatch.setattr(Path, "read_bytes", refused)
    assert not modules.is_ready(SOURCE)
    assert modules.loaded(SOURCE).twice(4) == 8
    assert modules.is_whole(folder, SOURCE)


@pytest.mark.parametrize("part", [".", "generated.py", "code.o"])
def test_what_goes_away_after_the_look_is_built_again(folder: Path, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(path: Path, source: str) -> bool:
        monkeypatch.undo()
        os.environ["MLSQL_CACHE"] = str(folder.parents[1])
        room.remove(folder / part)
        return True

    before = os.environ["MLSQL_CACHE"]
    monkeypatch.setattr(modules, "is_whole", late)
    try:
        assert modules.loaded(SOURCE).twice(4) == 8
    finally:
        os.environ["MLSQL_CACHE"] = before


def test_a_build_that_fails_leaves_nothing(home: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        modules.loaded("1 / 0")
    assert list(home.iterdir()) == []


# -- where -------------------------------------------------------------------------------------------------------------


def test_the_folder_is_the_users_own(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home == (tmp_path / "cache" / "compiled").resolve()
    if hasattr(os, "getuid"):
        assert {stat.S_IMODE(p.stat().st_mode) for p in (home, home.parent)} == {0o700}
    monkeypatch.delenv("MLSQL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert modules.home() == (tmp_path / "xdg" / "mlsql" / "compiled").resolve()
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.user_folder() == tmp_path / ".cache" / "mlsql"


@posix
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777])
def test_a_folder_that_others_can_write_to_is_not_used(home: Path, mode: int) -> None:
    home.chmod(mode)
    other = modules.home()
    assert other != home
    assert other == modules.home(), "one for the whole process"
    assert stat.S_IMODE(other.stat().st_mode) == 0o700


@posix
def test_a_folder_that_others_can_replace_is_not_used(home: Path) -> None:
    home.parent.chmod(0o777)
    assert modules.home() != home
    home.parent.chmod(0o1777)
    assert modules.home() == home, "names in a sticky folder belong to who made them"


@posix
def test_a_folder_of_somebody_else_is_not_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.is_private(home)
    monkeypatch.setattr(os, "getuid", lambda: home.stat().st_uid + 1)
    assert not cache.is_private(home)


@posix
def test_a_link_is_followed_before_the_folder_is_judged(home: Path, tmp_path: Path) -> None:
    home.rmdir()
    real, open_to_all = tmp_path / "real", tmp_path / "open"
    real.mkdir(0o700)
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    home.symlink_to(real)
    assert modules.home() == real.resolve()
    home.unlink()
    home.symlink_to(open_to_all)
    assert modules.home() not in (home, open_to_all.resolve())


def test_without_a_place_in_the_cache_a_folder_serves_until_the_process_ends(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text("a file where the folder should be")
    look = f"import os; os.environ['MLSQL_CACHE'] = {str(tmp_path / 'file')!r}\n" + LOAD + "print(modules.home())"
    answer, place = told(python(look, text)).splitlines()
    assert answer == "42 True"
    assert not Path(place).exists()


def test_a_full_disk_is_no_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        if folder == home:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(room, "make_room", full)
    assert modules.loaded(SOURCE).twice(4) == 8
    assert list(home.iterdir()) == []


# -- how much ----------------------------------------------------------------------------------------------------------


def entry(home: Path, name: str, size: int, age: float) -> Path:
    """A folder that looks like a module that was used some seconds ago."""
    path = home / name
    path.mkdir()
    (path / "code").write_bytes(b"x" * size)
    os.utime(path, (time.time() - age,) * 2)
    return path


def left(home: Path) -> list[str]:
    return sorted(p.name for p in home.iterdir())


def test_those_used_longest_ago_make_room(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_BYTES", 250)
    for name, age in {"a": 4000, "b": 2000, "c": 3000, "d": 1000}.items():
        entry(home, name, 100, age)
    room.make_room(home)
    assert left(home) == ["b", "d"]


def test_what_is_in_use_stays(home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_BYTES", 0)
    os.utime(folder, (0, 0))
    assert modules.kept(SOURCE) is not None
    entry(home, "used now", 100, 1)
    entry(home, "used then", 100, 4000)
    entry(home, ".draft", 100, 4000)
    entry(home, ".abandoned", 100, 2 * room.ABANDONED)
    room.make_room(home)
    assert left(home) == sorted([".draft", "used now", folder.name])


def test_room_is_made_by_several_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_BYTES", 150)
    for number in range(60):
        entry(home, f"{number}", 100, 1000 + number)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            room.make_room(home)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert left(home) == ["0"]


# -- several at once ---------------------------------------------------------------------------------------------------


def test_processes_and_threads_build_one_module_at_once(home: Path, text: str) -> None:
    processes = [python(LOAD, text) for _ in range(2)]
    found: list[int] = []
    sources = [SOURCE, SOURCE, SOURCE + "# another\n"]
    threads = [threading.Thread(target=lambda s=s: found.append(modules.loaded(s).twice(21))) for s in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [42] * 3
    assert {told(p)[:2] for p in processes} == {"42"}
    assert left(home) == sorted({modules.name_of(s) for s in sources})
    assert modules.is_ready(SOURCE)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_while_a_thread_compiles_can_load(folder: Path, text: str) -> None:
    program = """\
import os, sys, threading
from mlsql.executor.compiled import background, modules
held, done = threading.Event(), threading.Event()
def hold():
    with modules._lock:
        held.set(); done.wait()
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    os._exit(modules.loaded(open(sys.argv[1]).read()).twice(21))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
done.set()
"""
    assert told(python(program, text)) == "42"


# -- in the background -------------------------------------------------------------------------------------------------


def ended(running: Background) -> Background:
    assert not running.is_done()
    running.ended()
    assert running.is_done()
    return running


def test_another_process_compiles(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("raise SystemExit('the user has something else to do')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    running = background.background(SOURCE)
    assert background.background(SOURCE) is running, "one process for one module"
    if running.process is not None and hasattr(os, "getsid"):
        assert os.getsid(running.process.pid) != os.getsid(0), "no terminal, and no Ctrl-C from it"
    module = ended(running).module()
    assert module is not None, running.failure
    assert module.twice(21) == 42
    assert list((tmp_path / "tmp").iterdir()) == []
    assert list(home.iterdir()) == [home / modules.name_of(SOURCE)]
    again = background.background(SOURCE)
    assert again is not running
    assert ended(again).module() is module


@pytest.mark.parametrize("folder_is_private", [True, False])
def test_it_finds_the_folder_of_this_process(home: Path, folder_is_private: bool) -> None:
    if not folder_is_private:
        home.chmod(0o777)
    assert ended(Background(SOURCE)).module() is not None


def test_several_threads_wait_for_one_process(home: Path) -> None:
    running = Background("raise ValueError('no such loop')")
    found: list[str | None] = []
    threads = [threading.Thread(target=lambda: found.append(running.module() or running.failure)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["the process that compiles failed: ValueError: no such loop"] * 4


def test_what_does_not_compile_is_told(home: Path) -> None:
    running = ended(Background("raise ValueError('no such loop')"))
    assert running.module() is None
    assert running.failure == "the process that compiles failed: ValueError: no such loop"
    assert list(home.iterdir()) == []


@posix
def test_a_killed_process_is_told(home: Path) -> None:
    running = Background(SOURCE)
    assert running.process is not None
    os.kill(running.process.pid, signal.SIGKILL)
    assert ended(running).module() is None
    assert running.failure == "the process that compiles was ended by SIGKILL"


def test_a_cache_that_goes_away_meanwhile_is_told(home: Path) -> None:
    running = Background(SOURCE)
    home.rmdir()
    assert ended(running).module() is None
    assert running.failure is not None
    assert "No such file or directory" in running.failure


@pytest.mark.parametrize("executable", ["", "/nowhere/python"])
def test_no_process_is_no_error(home: Path, executable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    running = Background(SOURCE)
    assert running.is_done()
    assert running.module() is None
    assert running.failure is not None
    assert running.failure.startswith("no process could be started to compile")


def test_it_ends_by_itself_when_this_process_has_ended(home: Path, text: str) -> None:
    """The parent leaves at once and says nothing; what was compiled is there later."""
    program = "import pathlib, sys; from mlsql.executor.compiled.background import background\n"
    program += "background(pathlib.Path(sys.argv[1]).read_text())"
    assert told(python(program, text, flags=("-W", "error::ResourceWarning"))) == ""
    patience = time.monotonic() + 60
    while not modules.is_ready(SOURCE) and time.monotonic() < patience:
        time.sleep(0.05)
    assert modules.is_ready(SOURCE)


@posix
def test_it_ends_with_this_process_if_nobody_else_would_find_what_it_compiles(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text("a file where the folder should be")
    program = f"""\
import os, pathlib, sys
os.environ["MLSQL_CACHE"] = {str(tmp_path / "file")!r}
from mlsql.executor.compiled import background, modules
running = background.background(pathlib.Path(sys.argv[1]).read_text())
print(running.process.pid, modules.home())
"""
    number, place = told(python(program, text)).split()
    with pytest.raises(ProcessLookupError):
        os.kill(int(number), 0)
    assert not Path(place).exists()


# -- as training sees it -----------------------------------------------------------------------------------------------


def trained(monkeypatch: pytest.MonkeyPatch, wait: bool | None) -> tuple[list[Any], list[str]]:
    """The weights of a small model and what the user is told; interpreted, or compiled with or without waiting."""
    decide = session_train.compilation

    def decided(session: Any, planned: Any, settings: Any) -> Compilation:
        session.compile = "never" if wait is None else "always"
        return Compilation(decide(session, planned, settings).module, bool(wait), "")

    with mlsql.connect(progress=False) as con, monkeypatch.context() as patch:
        patch.setattr(session_train, "compilation", decided)
        patch.setattr(Background, "is_done", lambda self: self.ended() is None)
        con.execute("CREATE TABLE points AS SELECT i / 10 AS x, i / 5 AS y FROM range(20) r(i)")
        con.execute(
            "CREATE MODEL line INPUT (x FLOAT) TARGET (y FLOAT) AS SELECT LINEAR(x, 1) AS z MINIMIZE AVG((z - y) ** 2)"
        )
        con.execute("TRAIN line ON points WITH SGD (epochs = 3, batch_size = 5, seed = 1)").fetchall()
        notices = list(con.session.notices)
        con.session.compile = "never"  # predictions
        return con.execute("SELECT PREDICT(line, x) FROM points ORDER BY x").fetchall(), notices


def test_training_switches_to_what_was_compiled(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = trained(monkeypatch, None)
    for _ in range(2):  # compiled meanwhile; found in the cache
        found, notices = trained(monkeypatch, False)
        assert notices == []
        assert [z for (z,) in found] == pytest.approx([z for (z,) in expected], rel=1e-5)
    assert len(left(home)) == 1


def test_training_goes_on_interpreted_where_compiling_fails(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = trained(monkeypatch, None)
    monkeypatch.setattr(background, "START", "raise MemoryError('too large')")
    found, notices = trained(monkeypatch, False)
    assert found == expected
    assert notices == ["steps are interpreted: the process that compiles failed: MemoryError: too large"]


def test_training_goes_on_interpreted_where_nothing_can_be_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    expected, _ = trained(monkeypatch, None)
    monkeypatch.setattr(room, "make_room", full)
    found, notices = trained(monkeypatch, True)
    assert found == expected
    assert notices == [
        "steps are interpreted: there is no place to keep compiled code: [Errno 28] No space left on device"
    ]


def test_two_connections_train_at_once(home: Path) -> None:
    """What each of them gives is what it gives alone."""

    def weights(width: int) -> Any:
        with mlsql.connect(progress=False) as con:
            con.session.compile = "always"
            con.execute("CREATE TABLE points AS SELECT i / 10 AS x, i / 5 AS y FROM range(20) r(i)")
            con.execute(
                f"CREATE MODEL net INPUT (x FLOAT) TARGET (y FLOAT) AS SELECT RELU(LINEAR(x, {width})) AS h, "
                "LINEAR(h, 1) AS z MINIMIZE AVG((z - y) ** 2)"
            )
            con.execute("TRAIN net ON points WITH SGD (epochs = 3, batch_size = 5, seed = 1)").fetchall()
            assert not con.session.notices
            con.session.compile = "never"  # predictions
            return con.execute("SELECT PREDICT(net, x) FROM points ORDER BY x").fetchall()

    found: dict[int, Any] = {}
    threads = [threading.Thread(target=lambda w=w: found.update({w: weights(w)})) for w in (3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(left(home)) == 2
    assert found == {w: weights(w) for w in (3, 4)}
