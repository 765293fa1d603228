"""When a prediction is no longer interpreted but compiled: once that has taken as long as compiling it would."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ...planner.node import Node, walk
from ...planner.ops import Parameter
from ...planner.plan import Plan
from ...types import RowSet
from ..device import Array, on_lines

if TYPE_CHECKING:
    from .forward import Forward

LOAD_SECONDS = 0.05  # to write a module and to load it if it is there
OTHER_PROCESS = 0.25  # what a second counts in which another process compiles, and keeps what it compiled


class Switch:
    """Whether the chunks of a prediction are compiled from now on; its threads ask it together.

    How many rows a query will bring nobody knows in advance. So interpreting goes on until it has taken as long as
    loading the module takes, or a part of compiling it if that is to be done first: then what is lost is never much
    more than what is won. ``line`` are the seconds to compile a line. With ``wait`` the first chunk is compiled.
    """

    def __init__(self, plan: Plan, rows: RowSet, line: float, wait: bool = False) -> None:
        self.plan, self.rows, self.line, self.wait = plan, rows, line, wait
        self.lock = threading.Lock()
        self.spent = 0.0  # seconds in which chunks were interpreted, by all threads together
        self.next_look = 0.0 if wait else LOAD_SECONDS  # seconds to be spent before anything is done
        self.module: Forward | None = None
        self.functions: Any = None  # the module's, once they are there
        self.compiling: Any = None  # the process that compiles, while it does
        self.reason: str | None = None  # why the plan cannot be compiled

    @contextmanager
    def interpreted(self) -> Iterator[None]:
        """Count the time of a chunk that is interpreted."""
        began = time.perf_counter()
        yield
        self.spent += time.perf_counter() - began

    def is_compiled(self) -> bool:
        """Whether the next chunk can be compiled. Where one thread makes it so, the others go on meanwhile."""
        if self.functions is not None:
            return True
        if self.reason is not None or self.spent < self.next_look or not self.lock.acquire(blocking=self.wait):
            return False
        try:
            if self.functions is None and self.reason is None:
                self.look()
        finally:
            self.lock.release()
        return self.functions is not None

    def look(self) -> None:
        """Write the module, have it compiled, or load it: whatever it is time for."""
        if self.module is None:
            from .forward import forward

            found = forward(self.plan, self.rows)
            if isinstance(found, str):
                self.reason = found
                return
            self.module = found
        if self.compiling is not None:
            if self.compiling.is_done():
                self.functions, self.reason = self.compiling.module(), self.compiling.failure
            return
        try:
            self.functions = self.found(self.module.source)
        except OSError as error:
            self.reason = f"there is no place to keep compiled code: {error}"
            return
        if self.functions is None:
            self.next_look = OTHER_PROCESS * self.module.compile_seconds(self.line)
            if self.spent >= self.next_look:
                from .background import background

                self.compiling = background(self.module.source)

    def found(self, source: str) -> Any:
        """The module's functions if they are there; with ``wait`` they are."""
        from . import modules
        from .background import finished

        return finished(source) if self.wait else modules.kept(source)

    def bound(self, parameters: Mapping[Node, Array]) -> Callable[..., tuple[Array, ...]]:
        """The outputs of so many rows of columns, with an arena of its own."""
        assert self.module is not None
        arrays = [fixed_array(n, parameters) for n in self.module.fixed]
        run = self.functions.prepare(self.module.allocate(on_lines), *arrays)
        columns = [(c.name, c.element.storage) for c in self.module.columns]

        def outputs(count: int, given: Mapping[str, Array]) -> tuple[Array, ...]:
            found: tuple[Array, ...] = run(count, *(np.asarray(given[name], kind, "C") for name, kind in columns))
            return found

        return outputs


def fixed_array(node: Node, parameters: Mapping[Node, Array]) -> Array:
    """A parameter, or what is computed of parameters alone."""
    from ..run import evaluate

    known: dict[Node, Array] = {n: parameters[n] for n in walk([node]) if isinstance(n, Parameter)}
    value = known[node] if node in known else evaluate(Plan({"value": node}), known, {})["value"]
    return np.asarray(value, node.type.element.storage, "C")
