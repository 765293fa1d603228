"""One loop over rows as Python source that Numba compiles: what operators compute, number by number.

Inside a row, operators over entries of the same shape share an inner loop, unless one needs a sum over the whole entry
that another one computes. What only its own inner loop reads is a variable, what only its own row reads a buffer of one
entry. New values of arrays are stored at the end of an iteration, when everything that it reads has been read.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...planner.node import At, Node, Operand, Reach, size_of
from ...planner.ops import Argmax, Concat, Put, Reduce, ScatterAdd, Segment, Sum
from ...planner.ops.elementwise import stretched
from ...planner.ops.shape import moved
from ...types import DOUBLE, FLOAT, UNIT, Dim, RowSet, Shape, concrete
from ..device import LINE_BYTES
from .fusion import Loop, is_single
from .reader import Module, Reader
from .schedule import inner_loops
from .short import FOLDS, last_axis, short_axis
from .tasks import Task, key_of
from .texts import VARIABLES, Nest, combined, indented, index, reads_twice

IN_FLIGHT = 192  # lines of the cache: a row of memory is there once so many others have been asked for
FETCHED = 512  # bytes that are asked for of a row at most: what follows comes by itself
LONG = 60  # characters from which on a value is worth a line and a name


class LoopWriter(Reader):
    """Writes one loop."""

    def __init__(self, module: Module, loop: Loop, scalars: dict[Node, str]) -> None:
        super().__init__(module, loop, scalars)
        self.before: list[str] = []  # in front of the loop over rows
        self.behind: list[str] = []
        self.after: list[str] = []
        self.inner = inner_loops(self.fusion, loop)
        self.axes = [short_axis(self.fusion, tasks) if self.row else None for tasks in self.inner]
        self.short = {t.node for tasks, size in zip(self.inner, self.axes, strict=True) if size for t in tasks}
        self.depth = {t.node: d for d, tasks in enumerate(self.inner) for t in tasks}

    def lines(self) -> list[str]:
        """The text: a comment an operator, then the loop."""
        body = [line for tasks in self.inner for line in self.inner_loop(tasks).lines()]
        if self.row and body:
            body = [
                f"for r in range({self.module.rows(self.loop.rows)}):",
                *indented([*self.fetched(), *self.top_lines, *body]),
                *self.behind,
            ]
        return [*self.comments(), *self.starts, *self.before, *body, *self.after]

    def fetched(self) -> list[str]:
        """Lines that ask for rows of large tables that later iterations read in no order, where they are read first."""
        lines = []
        for n in self.fusion.gathered(self.loop):
            if n.x not in self.module.fetched:
                self.module.fetched.add(n.x)
                size = min(size_of(n.type.with_(rows=UNIT)) * n.type.element.bytes, FETCHED)
                rows = IN_FLIGHT // (size // LINE_BYTES + 1)
                lines.append(f"fetch({self.module.array(n.x)}, order, {self.ahead(rows)}, {size})")
        return lines

    def ahead(self, rows: int) -> str:
        """The place in the order of the row that this loop reads so many rows later."""
        return f"{self.module.origin} + r + {rows}"

    def comments(self) -> list[str]:
        return [f"# {self.module.comment(n)}" for n in self.loop.nodes]

    # -- inner loops -------------------------------------------------------------------------------------------------

    def inner_loop(self, tasks: Sequence[Task]) -> Nest:
        """One inner loop."""
        self.registers = {}
        nest = self.nest(tasks[0].shape)
        self.across = ""
        size = self.axes[self.inner.index(list(tasks))]
        if size:
            self.across = self.module.across(size)
            define = f"{self.across} = across({size})"
            if define not in self.starts:
                self.starts.append(define)
            nest = Nest(nest.sizes[:-1])
        self.nest_now = nest
        for task in tasks:
            self.write(task, nest, tasks)
        for node, text in self.registers.items():
            if not nest.sizes and not self.across and text.isidentifier():
                self.row_scalars[node] = text
        return nest

    def nest(self, shape: Shape) -> Nest:
        """The loops over an entry."""
        return Nest(tuple(self.module.width(d) for d in key_of(shape)))

    def entry(self, shape: Shape) -> tuple[str, ...]:
        """The loop's variables as a position in an entry."""
        rest = iter(VARIABLES)
        return tuple("0" if d == 1 else next(rest) for d in concrete(shape))

    def here(self, task: Task) -> At:
        entry = list(self.entry(task.shape))
        if self.across:
            entry[last_axis(task)] = self.across
        return At(self.row, tuple(entry))

    # -- statements --------------------------------------------------------------------------------------------------

    def write(self, task: Task, nest: Nest, tasks: Sequence[Task]) -> None:
        """Add what a task does to its inner loop."""
        node = task.node
        if isinstance(node, Concat):
            self.write_part(node, task, nest)
        elif isinstance(node, Reduce):
            self.write_fold(node, task, nest)
        elif isinstance(node, Argmax):
            self.write_best(node, task, nest)
        elif isinstance(node, (Segment, ScatterAdd, Put)):
            self.write_scattered(node, task, nest)
        else:
            self.write_value(node, task, nest, tasks)

    def write_value(self, node: Node, task: Task, nest: Nest, tasks: Sequence[Task]) -> None:
        """An operator whose numbers are computed one by one."""
        at = self.here(task)
        text = node.number(self, at)
        readers = [r for r in self.fusion.readers[node] if self.fusion.kernel_of[r] == self.fusion.kernel_of[node]]
        inside = {t.node for t in tasks}
        here = [r for r in readers if r in inside and self.depth[r] == self.depth[node]]
        later = [r for r in readers if r not in here]
        stored = node in self.fusion.arrays
        if self.across:
            self.write_entry(node, text, here, later, task, nest)
            return
        if is_single(node) or (not nest.sizes and not stored):
            name = self.variable(node)
            nest.body.append(f"{name} = {text}")
            (self.scalars if is_single(node) else self.row_scalars)[node] = name
            if stored:
                self.store(f"{self.module.array(node)}{index(at, node.type)} = {name}", nest)
            return
        target = None
        if stored:
            target = self.module.array(node)
        elif later:
            target = self.buffers[node] = self.module.buffer(node.type.with_(rows=UNIT), self.module.name(node))
        place = At(self.row if stored else "", at.entry)
        if here and (target or len(here) > 1 or len(text) > LONG or reads_twice(here[0], node)):
            name = self.module.fresh(f"{self.module.name(node)}_here") if target else self.module.name(node)
            nest.body.append(f"{name} = {text}")
            self.registers[node] = text = name
        elif here:
            self.registers[node] = text
        if not nest.sizes and stored and later and node not in self.registers:
            name = self.module.fresh(f"{self.module.name(node)}_here")
            nest.body.append(f"{name} = {text}")
            self.row_scalars[node] = text = name
        if target:
            nest.stores.append(f"{target}{index(place, node.type)} = {text}")

    def write_entry(
        self, node: Node, text: str, here: Sequence[Node], later: Sequence[Node], task: Task, nest: Nest
    ) -> None:
        """An operator of which all numbers along the last axis are computed at once."""
        stored, at = node in self.fusion.arrays, self.here(task)
        place = f"{self.module.array(node)}{index(at, node.type)}" if stored else ""
        if stored and not here and not later:
            nest.stores.append(f"{place} = {text}")
            return
        if not later and not stored and len(here) == 1 and len(text) <= LONG and not reads_twice(here[0], node):
            self.registers[node] = text
            return
        name = self.registers[node] = self.variable(node)
        nest.body.append(f"{name} = {text}")
        if not nest.sizes:
            self.entries[node, self.across] = name
        elsewhere = [r for r in later if nest.sizes or not self.is_at_its_place(node, r, task)]
        if stored:
            nest.stores.append(f"{place} = {name}")
        elif elsewhere:
            target = self.buffers[node] = self.module.buffer(node.type.with_(rows=UNIT), self.module.name(node))
            nest.stores.append(f"{target}{index(At('', at.entry), node.type)} = {name}")

    def is_at_its_place(self, node: Node, reader: Node, task: Task) -> bool:
        """Whether a reader computes on the same whole entry."""
        same = Task(reader).key == task.key
        return reader in self.short and same and self.fusion.sources(reader)[node] == Reach.PLACE

    def store(self, line: str, nest: Nest) -> None:
        """Keep a number in an array of one."""
        nest.stores.append(line)

    def write_part(self, node: Concat, task: Task, nest: Nest) -> None:
        """A part of a concatenation is copied to its place."""
        assert task.part is not None
        at, (start, _) = self.here(task), node.offsets()[task.part]
        part = node.parts[task.part]
        text = self.operand(self.value(part, stretched(part, at)), part, node.type.element)
        nest.stores.append(f"{self.module.array(node)}{index(moved(at, node.axis, start), node.type)} = {text}")

    def write_fold(self, node: Reduce, task: Task, nest: Nest) -> None:
        """A fold over entries' axes, rows, or both."""
        at = self.here(task)
        text = self.operand(self.value(node.x, at), node.x, node.type.element)
        folds_entry = bool(self.across) and last_axis(task) in node.axes
        if folds_entry:
            text = f"{FOLDS[node.ufunc]}({text})"
        kept = tuple("0" if i in node.axes else p for i, p in enumerate(at.entry))
        over_rows = node.rows and bool(self.row)
        if node.type.entry_size == 1:
            self.fold_to_variable(node, text, over_rows, nest)
            return
        if over_rows:
            target, row = self.accumulator(node)
        elif node in self.fusion.arrays:
            target, row = self.module.array(node), self.row
        else:
            target, row = self.module.buffer(node.type.with_(rows=UNIT), self.module.name(node)), ""
            self.buffers[node] = target
        depth = self.kept_depth(node)
        place = f"{target}{index(At(row, kept), node.type)}"
        if self.across and not nest.sizes:  # over rows
            name = self.variable(node)
            self.before += [*self.filled(node, target, row), f"{name} = {place}"]
            nest.body.append(f"{name} = {combined(node, name, text)}")
            self.behind.append(f"{place} = {name}")
            return
        if folds_entry and not over_rows and depth == len(nest.sizes):
            nest.stores.append(f"{place} = {text}")
            return
        if over_rows or depth is None:
            (self.before if over_rows else nest.before[0]).extend(self.filled(node, target, row))
            nest.stores.append(f"{place} = {combined(node, place, text)}")
            return
        name = self.module.fresh(f"{self.module.name(node)}_here")
        nest.before[depth].append(f"{name} = {self.start(node)}")
        nest.body.append(f"{name} = {combined(node, name, text)}")
        nest.after[depth].append(f"{place} = {name}")

    def accumulator(self, node: Reduce) -> tuple[str, str]:
        """The array in which the entries of rows are folded, and the row of it."""
        return self.module.array(node), ""

    def write_best(self, node: Argmax, task: Task, nest: Nest) -> None:
        """A fold of the last axis that keeps the best value and its place. NaN is best, as it is for NumPy."""
        at, depth = self.here(task), len(key_of(node.x.type.shape[:-1]))
        place, end = self.variable(node), nest.stores
        if depth == len(nest.sizes):
            nest.body.append(f"{place} = 0")  # of one number
        else:
            best, number = self.module.fresh("best"), self.module.fresh("number")
            lowest = "float32(-inf)" if node.x.type.element == FLOAT else "-inf"
            nest.before[depth] += [f"{place} = 0", f"{best} = {lowest}"]
            nest.body.append(f"{number} = {self.value(node.x, at)}")
            nest.body.append(f"if {number} > {best} or ({number} != {number} and {best} == {best}):")
            nest.body += [f"    {place} = {at.entry[-1]}", f"    {best} = {number}"]
            end = nest.after[depth]
        stored = node in self.fusion.arrays
        if node.type.entry_size == 1:
            (self.scalars if is_single(node) else self.row_scalars)[node] = place
            target = self.module.array(node) if stored else None
        else:
            target = self.stored(node)
        if target:
            entry = At(self.row if stored else "", at.entry[:-1])
            end.append(f"{target}{index(entry, node.type)} = {place}")

    def stored(self, node: Node) -> str:
        """The array of a node, or a buffer for an entry of it."""
        if node in self.fusion.arrays:
            return self.module.array(node)
        buffer = self.buffers[node] = self.module.buffer(node.type.with_(rows=UNIT), self.module.name(node))
        return buffer

    def variable(self, node: Node) -> str:
        """The name of a variable for a number that may lie in an array, too."""
        name = self.module.name(node)
        return self.module.fresh(f"{name}_here") if node in self.fusion.arrays else name

    def fold_to_variable(self, node: Reduce, text: str, over_rows: bool, nest: Nest) -> None:
        """A fold to one number, a row or in all."""
        name = self.variable(node)
        if not nest.sizes and not over_rows:
            nest.body.append(f"{name} = {text}")
        else:
            is_total = over_rows and isinstance(node, Sum)  # of many rows: summed in 64 bits
            start = f"{node.start}" if is_total or node.type.element == DOUBLE else self.start(node)
            (self.starts if is_single(node) else nest.before[0]).append(f"{name} = {start}")
            nest.body.append(f"{name} = {combined(node, name, text)}")
            if is_single(node):
                self.folded(node, name)
            if is_total and not node.is_number and node.type.element == FLOAT:
                self.after.insert(0, f"{name} = float32({name})")
        (self.scalars if is_single(node) else self.row_scalars)[node] = name
        if node in self.fusion.arrays:
            where = self.after if over_rows else nest.after[0] if nest.sizes else nest.stores
            at = At("" if over_rows else self.row, ("0",) * node.type.rank)
            where.append(f"{self.module.array(node)}{index(at, node.type)} = {name}")

    def folded(self, node: Reduce, name: str) -> None:
        """A number is folded in this loop."""

    def start(self, node: Reduce) -> str:
        value = {0.0: "0", float("inf"): "inf", -float("inf"): "-inf"}[node.start]
        return f"float32({value})" if node.type.element == FLOAT else f"float64({value})"

    def kept_depth(self, node: Reduce) -> int | None:
        """At which depth of the inner loop the fold of trailing axes stands; None for other axes."""
        flags = [i in node.axes for i, d in enumerate(concrete(node.x.type.shape)) if d != 1]
        count = flags.index(True) if True in flags else len(flags)
        return count if all(flags[count:]) and count < len(flags) else None

    def filled(self, node: Node, target: str, row: str = "", value: str = "0") -> list[str]:
        """Lines that set an array, or a row's entry of it, to where a fold starts."""
        start = self.start(node) if isinstance(node, Reduce) else value
        shape = node.type.shape
        nest = self.nest(shape)
        nest.body.append(f"{target}{index(At(row, self.entry(shape)), node.type)} = {start}")
        return nest.lines()

    def write_scattered(self, node: Segment | ScatterAdd | Put, task: Task, nest: Nest) -> None:
        """Rows that are written, or added, to the rows that an index names."""
        at, target = self.here(task), self.module.array(node)
        inside = [*VARIABLES[: len(nest.sizes)], *([self.across] if self.across else [])]
        if isinstance(node, Segment):
            count: Dim | RowSet = node.rows if node.rows != UNIT else node.size
            self.before += self.zeroed(node, target)
            place = self.position(node.index, At(self.row), count)
            added = self.operand(self.value(node.x, stretched(node.x, at)), node.x, node.type.element)
            nest.stores.append(f"{target}[{', '.join((place, *inside))}] += {added}")
            return
        base, x, position = node.base, node.x[0], node.index[0]
        self.before += self.copied(base, node, target)
        place = self.position(position, At(self.row), base.type.shape[0])
        there = f"{target}[{', '.join((place, *inside))}]"
        text = self.operand(self.value(x, at), x, node.type.element)
        if isinstance(node, Put):
            nest.stores.append(f"{there} = {text}")
            return
        scale = node.scale[0]
        arguments: dict[str, Operand] = {"s": (scale, stretched(scale, at)), "x": text}
        nest.stores.append(f"{there} += {self.arithmetic('where(s != 0, s * x, 0)', arguments, node.type.element)}")

    def zeroed(self, node: Segment, target: str) -> list[str]:
        """Lines that clear the groups."""
        shape = node.type.shape if node.rows == UNIT else (0, *node.type.shape)
        count = str(node.size) if node.rows == UNIT else self.module.rows(node.rows)
        inner = self.nest(shape[1:])
        inner.body.append(f"{target}[{', '.join(('g', *VARIABLES[: len(inner.sizes)]))}] = 0")
        return [f"for g in range({count}):", *(f"    {line}" for line in inner.lines() or inner.body)]

    def copied(self, base: Node, node: Node, target: str) -> list[str]:
        """Lines that copy a table that is about to be written to, unless it lies there already."""
        if base not in self.fusion.virtual and self.module.array(base) == target:
            return []
        nest = self.nest(node.type.shape)
        at = At("", self.entry(node.type.shape))
        nest.body.append(f"{target}{index(at, node.type)} = {self.value(base, at)}")
        return nest.lines()
