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


@pytest.mark.parametrize(
    ("example", "rows"),
    [
        ("digits", "EVALUATE reader ON (SELECT * FROM digits WHERE split = 'test') WITH (accuracy)"),
        ("penguins", "EVALUATE penguin ON (SELECT * FROM penguins WHERE held_out) WITH (accuracy)"),
    ],
)
def test_what_is_learned_is_good_enough(example: str, rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least 97 of 100 rows that the model has never seen are told right."""
    import mlsql

    monkeypatch.chdir(HOME)
    statements = (HOME / "examples" / f"{example}.sql").read_text(encoding="utf-8")
    with mlsql.connect(progress=False) as connection:
        connection.execute(statements)
        found = connection.execute(rows)
        assert found.fetchone()[-1] >= 0.97


def test_the_club_splits_as_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """All but at most two of 34 members are told right, from two labelled members a club."""
    import mlsql

    monkeypatch.chdir(HOME)
    with mlsql.connect(progress=False) as connection:
        connection.execute((HOME / "examples" / "karate.sql").read_text(encoding="utf-8"))
        found = connection.execute(
            "SELECT count(*) FROM PREDICT(club, nodes, edges) JOIN members USING (id) "
            "WHERE prediction = (club = 'Officer')::INTEGER"
        )
        assert found.fetchone()[0] >= 32
