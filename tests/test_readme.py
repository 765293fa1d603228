"""What the README shows is what the examples print, and the commands it names are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import close
from test_examples import plain

HOME = Path(__file__).parent.parent
README = (HOME / "README.md").read_text(encoding="utf-8")
PRINTED = [p.read_text(encoding="utf-8").split("\n") for p in sorted((HOME / "examples" / "expected").glob("*.txt"))]


@pytest.mark.parametrize("block", re.findall(r"```text\n(.*?)\n```", README, re.DOTALL), ids=lambda b: b[:20])
def test_output_is_real(block: str) -> None:
    """Times differ from run to run: the examples have "..." in their place."""
    lines = block.split("\n")
    assert any(
        all(close(plain(a), plain(b), 0) for a, b in zip(lines, printed[i:], strict=False))
        for printed in PRINTED
        for i in range(len(printed) - len(lines) + 1)
    )


@pytest.mark.parametrize("block", re.findall(r"```sql\n(.*?)\n```", README, re.DOTALL), ids=lambda b: b[:20])
def test_statements_are_those_of_the_examples(block: str) -> None:
    written = [p.read_text(encoding="utf-8") for p in (HOME / "examples").glob("*.sql")]
    for statement in block.split(";\n"):
        assert any(statement.strip().rstrip(";") in text for text in written)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:scripts|docs|benchmarks|examples)/[\w./]+\w", README))))
def test_paths_exist(path: str) -> None:
    assert (HOME / path).exists()
