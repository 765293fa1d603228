"""The tutorial runs: every statement, in order, in one session, gives what stands under it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import compare_lines, lines_of
from test_docs import BLOCK

import mlsql
from mlsql.optimizer.rule import QUERY_RULES, RULES

HOME = Path(__file__).parent.parent
TEXT = (HOME / "docs" / "tutorial.md").read_text(encoding="utf-8")
SECTIONS = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]


def test_every_statement_gives_what_stands_under_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """``...`` stands for any lines, or any text inside a line: what is left out, and all that a clock has measured."""
    monkeypatch.chdir(HOME)
    with mlsql.connect(progress=False) as connection:
        for sql, expected in BLOCK.findall(TEXT):
            cursor = connection.execute(sql)
            rows = cursor.fetchall() if cursor.description else []
            if expected:
                compare_lines("\n".join(lines_of(rows)).split("\n"), expected.splitlines())


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.partition("\n")[0])
def test_every_section_shows_real_output_and_ends_with_exercises(section: str) -> None:
    assert any(expected for _, expected in BLOCK.findall(section))
    assert "**Exercises**" in section


def test_rules_that_the_text_names_exist() -> None:
    named = {name for names in re.findall(r"WITHOUT \(([\w, ]+)\)", TEXT) for name in names.split(", ")}
    assert named
    assert named <= RULES.keys() | QUERY_RULES.keys()


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)]+)\)", TEXT))
def test_links_lead_somewhere(target: str) -> None:
    file, _, heading = target.partition("#")
    text = (HOME / "docs" / file).read_text(encoding="utf-8") if file else TEXT
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
    assert not heading or heading in anchors
