"""Where threads have to meet: between two sections of a step, if one touches what another thread wrote or reads.

A section is what threads run without meeting. Many run on all threads, each over its share; some the first thread runs
alone, a small sum for instance, and two of these in a row need no meeting between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...planner.ops import State

MEET = "meet(gate, thread, threads)"


@dataclass(frozen=True)
class InTurns:
    """Two places that steps use by turns. Threads meet in each step between writing and reading there: when one writes
    to the other place in the next step, all may still read; when it is the first one's turn again, none does."""

    name: str


Place = int | str | State | InTurns  # a slot of the arena, what has a name of its own, a state


@dataclass(frozen=True)
class Section:
    """Lines, with the places that they read and write; ``is_alone``: only the first thread touches these."""

    lines: Sequence[str]
    reads: frozenset[Place] = frozenset()
    writes: frozenset[Place] = frozenset()
    is_alone: bool = False

    def of_next_step(self) -> Section:
        """The section without the places that the next step does not use."""
        reads, writes = ((p for p in places if not isinstance(p, InTurns)) for places in (self.reads, self.writes))
        return Section(self.lines, frozenset(reads), frozenset(writes), self.is_alone)


@dataclass
class _Touched:
    """The places that were touched since threads met."""

    reads: set[Place] = field(default_factory=set)
    writes: set[Place] = field(default_factory=set)

    def clashes(self, section: Section) -> bool:
        return not (self.writes.isdisjoint(section.reads | section.writes) and self.reads.isdisjoint(section.writes))

    def add(self, section: Section) -> None:
        self.reads |= section.reads
        self.writes |= section.writes


class _Open:
    """What was touched since threads met, by all of them and by the first one."""

    def __init__(self) -> None:
        self.by_all, self.by_first = _Touched(), _Touched()

    def clashes(self, section: Section) -> bool:
        """Whether threads have to meet in front of a section."""
        return self.by_all.clashes(section) or (not section.is_alone and self.by_first.clashes(section))

    def add(self, section: Section) -> None:
        (self.by_first if section.is_alone else self.by_all).add(section)


def joined(sections: Sequence[Section]) -> list[str]:
    """The lines of the sections of a step, which is run again and again, with meetings where they are needed."""
    lines: list[str] = []
    since, first = _Open(), len(sections)
    for i, section in enumerate(sections):
        if since.clashes(section):
            lines.append(MEET)
            since, first = _Open(), min(first, i)
        since.add(section)
        lines += section.lines
    for section in (s.of_next_step() for s in sections[:first]):  # until threads meet in it
        if since.clashes(section):
            return [*lines, MEET]
        since.add(section)
    return lines
