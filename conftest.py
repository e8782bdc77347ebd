"""What the examples in docstrings and in README.md may use without importing it."""

import os

# Before NumPy and PyTorch load: one thread each, so that results repeat.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["COLUMNS"] = "100"           # the width README's explanation is shown in

from typing import Any

import numpy as np
import pytest

import chainrule as cr

cr.settings.verify = True               # every graph is checked after it is built

@pytest.fixture(autouse=True)
def _examples(doctest_namespace: dict[str, Any]) -> None:
    cr.manual_seed(0)
    doctest_namespace["cr"] = cr
    doctest_namespace["np"] = np
