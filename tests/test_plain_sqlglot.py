"""The parser works with sqlglot as plain Python too, and not only as the compiled modules that sqlglotc brings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parent.parent

RUN = """
import importlib.machinery as machinery, os, sys
import pytest

class PlainPython:
    # finds sqlglot's source where its compiled modules lie beside it
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] != "sqlglot":
            return None
        for folder in path or sys.path:
            spec = machinery.FileFinder(folder or os.getcwd(), (machinery.SourceFileLoader, [".py"])).find_spec(name)
            if spec is not None and spec.loader is not None:
                return spec

sys.meta_path.insert(0, PlainPython)
import sqlglot.parser, sqlglot.tokens
assert sqlglot.parser.__file__.endswith(".py") and sqlglot.tokens.__file__.endswith(".py")
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "tests/test_parser.py", "tests/sql/create_model.test"]))
"""


def test_without_compiled_modules() -> None:
    done = subprocess.run([sys.executable, "-c", RUN], cwd=HOME, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
