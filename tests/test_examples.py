"""Every example runs through the command line and prints what ``examples/expected/`` says.

Numbers agree to two significant digits, since training adds floats in an order that depends on the machine; ``...``
stands for what differs from run to run.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from conftest import close

from mlsql.shell.main import main

HOME = Path(__file__).parent.parent
EXAMPLES = sorted((HOME / "examples").glob("*.sql"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.stem)
def test_example(example: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HOME)
    assert main(["-f", str(example.relative_to(HOME))]) == 0
    got = capsys.readouterr().out.rstrip().split("\n")
    expected = (HOME / "examples" / "expected" / f"{example.stem}.txt").read_text(encoding="utf-8").rstrip().split("\n")
    for number, (a, b) in enumerate(itertools.zip_longest(got, expected, fillvalue="<nothing>"), 1):
        assert close(plain(a), plain(b), 0.02), f"line {number}\ngot       {a}\nexpected  {b}"


def plain(line: str) -> str:
    """A line without the spaces and rules that align a table."""
    return " ".join(line.replace("-", " ").split()) if set(line) <= {"-", " "} else " ".join(line.split())


def test_the_digits_are_read_well_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network of examples/digits.sql reads at least 97 of 100 digits that it has never seen."""
    import mlsql

    monkeypatch.chdir(HOME)
    statements = (HOME / "examples" / "digits.sql").read_text(encoding="utf-8")
    with mlsql.connect(progress=False) as connection:
        connection.execute(statements)
        found = connection.execute("EVALUATE reader ON (SELECT * FROM digits WHERE split = 'test') WITH (accuracy)")
        assert found.fetchone()[-1] >= 0.97
