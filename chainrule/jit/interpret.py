"""The reference: a graph run row by row in NumPy, with the interface of the compiler's executable.

It defines what a compiled function means; tests compare machine code with it.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.core.config import settings
from chainrule.core.graph import Graph


class Interpreted:
    """`run(inputs, outputs)` stores output k into the array outputs[k].

    An output that overwrites input i is given the array of that input as outputs[k]; so all values
    are computed before any is stored.
    """

    def __init__(self, graph: Graph, written: Sequence[int | None]) -> None:
        self.graph = graph
        self.written = tuple(written)

    def run(self, inputs: list[Any], outputs: list[Any]) -> None:
        """Evaluate and store."""
        with np.errstate(all="ignore"):
            found = self.graph.evaluate(*inputs)
        for value, target in zip([np.array(value) for value in found], outputs, strict=True):
            np.copyto(target, value)


def executable(graph: Graph, written: Sequence[int | None]) -> Any:
    """What runs a graph, as `settings.compile` says."""
    if settings.compile == "native":        # imported at the first compilation, as it takes time
        return importlib.import_module("chainrule.compiler").compile_graph(graph, written)
    return Interpreted(graph, written)
