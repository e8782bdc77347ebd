"""`Report`: what a compiled function became, as text, as plain data, as LLVM and assembly."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import Any

from chainrule.compiler import Executable
from chainrule.compiler import report as describe

from .entry import Entry

WIDTH = 100


class Report:
    """The compilations of a function with their reasons; kernels, flops, bytes and time of each.

    `str(report)` is a page of text. Times are measured when the report is made, on arrays of its
    own: nothing the function works on is touched.
    """

    def __init__(self, name: str, records: Sequence[tuple[str, int]], entries: Sequence[Entry],
                 eager: dict[str, int], runs: int) -> None:
        self._name = name
        self._records = records              # (why, nodes) of each compilation
        self._entries = entries
        self._eager = eager
        self._runs = runs

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "function": self._name,
            "compiles": [{"why": why, "nodes": nodes} for why, nodes in self._records],
            "eager_runs": self._eager,
            "entries": [self._facts(entry) for entry in self._entries],
        }

    def json(self) -> str:
        """The same as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def graph(self) -> str:
        """The graph that was recorded, of the latest entry."""
        return self._latest().program.graph.to_text()  # type: ignore[no-any-return]

    def arrays(self) -> str:
        """What the graph was simplified to, of the latest entry."""
        return "\n".join(map(repr, self._native().arrays.all))

    def kernels(self) -> str:
        """The kernels of the latest entry, with what each reads and does."""
        return describe.kernels(self._native())

    def llvm(self) -> str:
        """The LLVM text of the latest entry."""
        return describe.llvm(self._native())

    def assembly(self) -> str:
        """The machine code of the latest entry."""
        return describe.assembly(self._native())

    def __str__(self) -> str:
        lines = [f"{self._name}: {len(self._records)} compiled"
                 + (f", {len(self._entries)} kept" if self._entries else "")]
        for number, (why, _) in enumerate(self._records, 1):
            lines += textwrap.wrap(f"{number}. {why}", WIDTH, initial_indent="  ",
                                   subsequent_indent="     ")
        for why, count in self._eager.items():
            lines.append(f"  run by Python {count} times: {why}"[:WIDTH])
        for entry in self._entries:
            exe = entry.executable
            lines.append("")
            if isinstance(exe, Executable):
                with entry.lock:
                    lines.append(describe.text(exe, self._runs))
            else:
                lines.append(f"{len(entry.program.graph)} nodes, run by NumPy "
                             "(settings.compile is not native)")
        return "\n".join(lines)

    __repr__ = __str__

    def _facts(self, entry: Any) -> dict[str, Any]:
        if not isinstance(entry.executable, Executable):
            return {"nodes": len(entry.program.graph), "native": False}
        with entry.lock:
            return {"native": True, **describe.facts(entry.executable, self._runs)}

    def _latest(self) -> Any:
        if not self._entries:
            raise LookupError(f"{self._name} has not been called yet, so nothing is compiled")
        return self._entries[0]

    def _native(self) -> Executable:
        exe = self._latest().executable
        if not isinstance(exe, Executable):
            raise LookupError(f"{self._name} is run by NumPy: settings.compile is not native")
        return exe
