"""Parity with PyTorch, as a table of one-liners over the whole surface.

The rows are in `tests/parity/`, one module a theme; how a row is compared is in its `runner.py`.
`PARITY_LIBRARY=torch python -m pytest tests/test_torch.py` checks the table itself: PyTorch must
agree with PyTorch, and each row that says so must fail there.
"""

import importlib
import os
from collections import Counter

import pytest
from parity import (
    autograd,
    creation,
    func,
    functional,
    gather,
    indexing,
    inplace,
    losses,
    matmul,
    movement,
    promotion,
    reductions,
    signals,
    unary,
)
from parity.absent import ABSENT
from parity.runner import Row, check

torch = pytest.importorskip("torch")
library = importlib.import_module(os.environ.get("PARITY_LIBRARY", "chainrule"))

MODULES = (
    promotion,
    unary,
    reductions,
    matmul,
    movement,
    indexing,
    inplace,
    gather,
    functional,
    signals,
    losses,
    creation,
    autograd,
    func,
)
ROWS = [row for module in MODULES for row in module.TABLE]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_same_as_torch(row: Row) -> None:
    check(library, torch, row)


def test_every_row_has_its_own_name() -> None:
    repeated = [name for name, count in Counter(row.name for row in ROWS).items() if count > 1]
    assert not repeated


def test_absent_names_are_absent() -> None:
    places = (library, library.Tensor, library.nn.functional)
    offered = sorted(name for name in ABSENT if any(hasattr(place, name) for place in places))
    assert library is torch or not offered, f"take these from parity/absent.py: {offered}"


def test_the_table_covers_the_surface() -> None:
    assert len(ROWS) >= 500
