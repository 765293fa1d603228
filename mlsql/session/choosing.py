"""TRAIN without WITH: whether the solver is left to the planner. How it is chosen is in ``candidates.py``."""

from __future__ import annotations

from collections.abc import Callable

from ..autodiff.sparse import table_reads
from ..optimizer.cost import Machine
from ..parser.statements import Train
from ..planner.model import Model
from .training_plan import Settings


def is_free(statement: Train) -> bool:
    """Whether the statement leaves the solver to us."""
    return statement.solver is None and not (statement.options or statement.sample or statement.per)


def decided(
    statement: Train,
    settings: Settings,
    model: Model,
    table_rows: int,
    train_count: int,
    machine: Callable[[], Machine],
) -> Settings:
    """The settings with the solver that the planner chooses; as they are where the statement has a WITH clause, or a
    model reads rows of a table of parameters."""
    assert model.loss is not None
    learnable = [p.node for p in model.parameters.values() if not p.frozen]
    if not is_free(statement) or table_reads(model.loss, learnable):
        return settings
    from .candidates import chosen

    return chosen(statement, settings, model, learnable, table_rows, train_count, machine)
