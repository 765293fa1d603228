"""Inside a row: which operators share an inner loop over the entry, and in which order the inner loops come."""

from __future__ import annotations

from collections.abc import Mapping

from ...planner.node import Node, Reach
from ...planner.ops import Argmax, Concat, Reduce
from ..memory import owner
from .fusion import Fusion, Loop, is_single, writes_elsewhere
from .tasks import Task


def inner_loops(fusion: Fusion, loop: Loop) -> list[list[Task]]:
    """The tasks of a row, those together that share an inner loop."""
    levels = _Levels(fusion, loop)
    loops: dict[tuple[int, tuple[int, ...]], list[Task]] = {}
    for task in sorted(levels.level, key=levels.level.__getitem__):
        loops.setdefault((levels.level[task], task.key), []).append(task)
    return list(loops.values())


class _Levels:
    """Each task is in the earliest inner loop that it can be in, and what reads no other task in the latest."""

    def __init__(self, fusion: Fusion, loop: Loop) -> None:
        self.fusion, self.inside = fusion, set(loop.nodes)
        self.tasks: dict[Node, list[Task]] = {}
        self.level: dict[Task, int] = {}
        self.readers: dict[Task, dict[Task, int]] = {}  # how many inner loops later a reader comes at least
        for n in loop.nodes:
            self.tasks[n] = self.tasks_of(n)
            for task in self.tasks[n]:
                self.place(task)
        for task in reversed(list(self.level)):
            self.sink(task)

    def tasks_of(self, node: Node) -> list[Task]:
        """A task, or one for each part of a concatenation that is not computed in its place."""
        if not isinstance(node, Concat):
            return [Task(node)]
        spans = zip(node.parts, node.offsets(), strict=True)
        return [Task(node, i) for i, (p, (start, _)) in enumerate(spans) if not self.is_placed(p, node, start)]

    def is_placed(self, part: Node, concat: Concat, start: int) -> bool:
        return self.fusion.placed.get(owner(part), ())[:2] == (concat, start)

    def place(self, task: Task) -> None:
        """The level of a task, those of what it reads being known."""
        level = 0
        self.readers[task] = {}
        for source, reach in self.sources(task).items():
            for t in self.writers(source):
                same = t.key == task.key and reach == Reach.PLACE and not isinstance(source, Concat)
                later = 0 if same and not (isinstance(t.node, (Reduce, Argmax)) or writes_elsewhere(t.node)) else 1
                self.readers[t][task] = later
                level = max(level, self.level[t] + later)
        for reader in self.fusion.after.get(task.node, ()):  # of a state that the task overwrites
            for t in self.tasks.get(reader, ()):
                self.readers[t][task] = 0
                level = max(level, self.level[t])
        self.level[task] = level

    def writers(self, node: Node) -> list[Task]:
        """The tasks of this loop that compute a node, parts of a concatenation that lie in their place included."""
        if node not in self.inside:
            return []
        placed = [owner(p) for p in node.parts if owner(p) in self.inside] if isinstance(node, Concat) else []
        return [*self.tasks[node], *(t for p in placed for t in self.tasks[p])]

    def sources(self, task: Task) -> Mapping[Node, Reach]:
        """What a task reads."""
        node = task.node
        if not isinstance(node, Concat) or task.part is None:
            return self.fusion.sources(node)
        return self.through(node.parts[task.part])

    def through(self, part: Node) -> dict[Node, Reach]:
        """What a part of a concatenation reads, itself included if it is computed."""
        if part not in self.fusion.virtual:
            return {part: Reach.PLACE}
        found: dict[Node, Reach] = {}
        for n, reach in zip(part.inputs, part.reaches(), strict=True):
            for m, r in self.through(n).items():
                found[m] = max(found.get(m, reach), r, reach)
        return found

    def sink(self, task: Task) -> None:
        """Move a task that reads arrays and numbers only to its first reader: then it needs no buffer."""
        readers = self.readers[task]
        stays = isinstance(task.node, (Reduce, Argmax, Concat)) or writes_elsewhere(task.node)
        moves = bool(readers) and not stays
        if moves and not is_single(task.node) and not any(map(self.is_passed_on, self.sources(task))):
            latest = min(self.level[r] - later for r, later in readers.items())
            self.level[task] = max(self.level[task], latest)

    def is_passed_on(self, source: Node) -> bool:
        """Whether a source is held for a task from one inner loop to a later one."""
        return source in self.inside and not is_single(source) and source not in self.fusion.arrays
