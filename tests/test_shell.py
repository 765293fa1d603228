"""The command line: statements in, tables out, errors on stderr with a status."""

import io
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from mlsql.progress import Standing, TerminalProgress
from mlsql.shell.main import main
from mlsql.shell.table import table_text

SLOW = "SELECT sum(a.range * b.range + 1) FROM range(1000000) a, range(200000) b"


def shell(*arguments, stdin=None, status=0):
    """Run the command line as a program; its output and errors."""
    command = [sys.executable, "-m", "mlsql", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


# Running


def test_statements_from_the_command_line(capsys):
    assert main(["-c", "CREATE TABLE t AS SELECT 1 AS a", "-c", "SELECT a, a + 1 AS b FROM t; SELECT 'x' AS c"]) == 0
    out, err = capsys.readouterr()
    assert out == "a  b\n-  -\n1  2\n\nc\n-\nx\n\n"
    assert err == ""


def test_statements_from_files(tmp_path, capsys):
    (tmp_path / "a.sql").write_text("-- a comment\nCREATE TABLE t AS SELECT 1 AS a;\n", encoding="utf-8")
    (tmp_path / "b.sql").write_text("SELECT a FROM t;;", encoding="utf-8")
    assert main(["-f", str(tmp_path / "a.sql"), "-f", str(tmp_path / "b.sql")]) == 0
    assert capsys.readouterr().out == "a\n-\n1\n\n"


def test_statements_from_standard_input():
    assert shell(stdin="SELECT 42 AS a;\nSELECT 43 AS a") == (" a\n--\n42\n\n a\n--\n43\n\n", "")
    assert shell(stdin="") == ("", "")


def test_a_database_file(tmp_path):
    path = str(tmp_path / "a.duckdb")
    shell(path, "-c", "CREATE TABLE t AS SELECT 'ü' AS a")
    assert shell(path, "--read-only", "-c", "FROM t")[0] == "a\n-\nü\n\n"
    _, err = shell(path, "--read-only", "-c", "DROP TABLE t", status=1)
    assert "read-only" in err


def test_a_model_from_start_to_end(capsys):
    text = """
        CREATE TABLE t AS SELECT range::FLOAT AS x, 2 * range::FLOAT AS y FROM range(10);
        CREATE MODEL m INPUT (x FLOAT) TARGET (y FLOAT) AS SELECT LINEAR(x, 1) AS prediction
          MINIMIZE AVG(SQUARED_ERROR(prediction, y));
        TRAIN m ON t WITH SGD (learning_rate = 0.01, epochs = 3, seed = 1);
        SELECT count(PREDICT(m, x)) AS n FROM t;
        SHOW MODELS;
    """
    assert main(["-c", text]) == 0
    out, err = capsys.readouterr()
    assert "n\n--\n10\n" in out
    assert "stopped_because" in out
    assert err == ""


def test_help_and_version():
    assert "usage: mlsql" in shell("--help")[0]
    assert shell("--version")[0].startswith("mlsql ")
    assert "unrecognized arguments" in shell("--nope", status=2)[1]


# Errors


def test_the_first_error_ends_the_run(capsys):
    assert main(["-c", "SELECT 1 AS a; SELECT * FROM nope; SELECT 2 AS a"]) == 1
    out, err = capsys.readouterr()
    assert out == "a\n-\n1\n\n"
    assert err.startswith("Error: ")
    assert "nope" in err


def test_an_error_shows_its_place_in_the_file(tmp_path, capsys):
    (tmp_path / "a.sql").write_text("SELECT 1;\nCREATE MODL m AS SELECT 1;", encoding="utf-8")
    assert main(["-f", str(tmp_path / "a.sql")]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Error: line 2, column ")
    assert "    CREATE MODL m AS SELECT 1;\n" in err
    assert "^^^^" in err


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read(content, tmp_path, capsys):
    path = tmp_path / "a.sql"
    if content is not None:
        path.write_bytes(content)
    assert main(["-f", str(path)]) == 1
    assert capsys.readouterr().err.startswith(f"Error: cannot read {path}")


def test_a_database_that_cannot_be_opened(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere" / "a.duckdb"), "-c", "SELECT 1"]) == 1
    assert capsys.readouterr().err.startswith("Error: ")


def test_ctrl_c():
    process = subprocess.Popen(
        [sys.executable, "-m", "mlsql", "-c", "SELECT 1 AS a", "-c", SLOW],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "a\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_reader_that_has_seen_enough():
    command = f"{sys.executable} -m mlsql -c 'SELECT 1 AS a' -c 'SELECT 2 AS a' -c '{SLOW.replace('1000000', '1000')}'"
    done = subprocess.run(f"{command} | head -1", shell=True, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("a\n", "")


def test_typing_at_a_terminal():
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlsql"], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    os.close(theirs)
    os.write(terminal, b"SELECT 1\n AS a;\nSELECT nope;\nSELECT 2 AS b;\n\x04")
    out, err = process.communicate(timeout=60)
    os.close(terminal)
    assert out == "a\n-\n1\n\nb\n-\n2\n\n"
    assert "mlsql> " in err
    assert "Error: " in err
    assert process.returncode == 0


# Tables


def test_numbers_stand_to_the_right_and_text_to_the_left():
    text = table_text([("name", "VARCHAR"), ("n", "BIGINT")], [("a", 1), ("bcd", 100), (None, None)])
    assert text == "name     n\n----  ----\na        1\nbcd    100\nNULL  NULL"


def test_long_values_are_cut():
    text = table_text([("l", "FLOAT[]"), ("t", "VARCHAR"), ("u", "VARCHAR")], [([0.0] * 64, "x" * 500, "y" * 500)])
    assert "[0, 0, 0, 0, " in text
    assert "64 values]" in text
    assert "x" * 61 not in text
    assert max(map(len, text.splitlines())) < 270


def test_a_plan_is_printed_as_it_is():
    assert table_text([("plan", "VARCHAR")], [("a" * 200,), ("  b",)]) == "a" * 200 + "\n  b"


def test_rows_are_counted():
    assert table_text([("a", "INTEGER")], []).endswith("(0 rows)")
    assert table_text([("a", "INTEGER")], [(1,)] * 20).endswith("(20 rows)")
    assert "there are more" in table_text([("a", "INTEGER")], [(1,)] * 20, more=True)


# Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def train(progress):
    progress.INTERVAL = 0.0
    progress.start(model="digits", epochs=10, rows=1000)
    progress.update(
        Standing(epoch=3, step=30, steps_per_epoch=10, loss=0.125, rows_per_second=48000.0, seconds_left=75.0)
    )
    progress.stop()
    progress.stop()


def test_progress_is_a_line_that_goes_away():
    stream = Terminal()
    train(TerminalProgress(stream))
    text = stream.getvalue()
    for part in ("digits", "3/10", "0.125", "48k rows/s", "1 min 15 s left"):
        assert part in text
    assert text.endswith("\r\x1b[K")
    assert "\n" not in text


def test_progress_is_silent_where_nobody_looks():
    stream = io.StringIO()
    train(TerminalProgress(stream))
    assert stream.getvalue() == ""


def test_progress_is_drawn_ten_times_a_second_at_most():
    stream = Terminal()
    progress = TerminalProgress(stream)
    progress.start(model="m", epochs=None, rows=1)
    for step in range(1000):
        progress.update(
            Standing(epoch=1, step=step, steps_per_epoch=1000, loss=1.0, rows_per_second=1.0, seconds_left=None)
        )
    progress.stop()
    assert stream.getvalue().count("epoch") <= 3


def test_notices_go_to_stderr(capsys):
    text = """CREATE MODEL fit INPUT (x FLOAT) TARGET (y FLOAT) AS SELECT LINEAR(x, 1) AS prediction
    MINIMIZE AVG((prediction - y) ** 2);
    TRAIN fit ON (SELECT i AS x, 2 * i AS y FROM range(9) AS r(i)) WITH NORMAL_EQUATIONS; SELECT 1 AS a"""
    assert main(["-c", text]) == 0
    out, err = capsys.readouterr()
    assert err == "notice: NORMAL_EQUATIONS: Cholesky\n"
    assert "notice" not in out
