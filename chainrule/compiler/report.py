"""What a compiled graph consists of and where its time goes, as text and as plain data."""

from __future__ import annotations

import ctypes
import os
import textwrap
import time
from typing import Any

import numpy as np

from chainrule.compiler.executable import Executable, describe, grain
from chainrule.compiler.kernels.kernel import Apply, Kernel
from chainrule.compiler.machine import build
from chainrule.compiler.machine.driver import needed
from chainrule.compiler.workers import threads

WIDTH = 100


def facts(exe: Executable, runs: int = 0) -> dict[str, Any]:
    """Everything about an executable as plain data; times are measured if `runs` is not 0."""
    nanoseconds = measured(exe, runs) if runs else [0.0] * len(exe.calls)
    kernels = []
    for call, took in zip(exe.calls, nanoseconds, strict=True):
        kernels.append({
            "kernel": call.kernel.kind if call.function else "numpy",
            "name": call.function or call.kernel.array.what[0].name,
            "shape": list(call.kernel.domain), "does": fused(call.kernel),
            "lines": lines(call.kernel), "flops": call.flops, "bytes": call.bytes,
            "units": call.units, "nanoseconds": took,
            "parallel": grain(call.nanoseconds, call.units) > 0,
        })
    return {
        "nodes": len(exe.graph), "arrays": len(exe.arrays.all), "kernels": kernels,
        "flops": sum(c.flops for c in exe.calls), "bytes": sum(c.bytes for c in exe.calls),
        "arena": exe.memory.size, "buffers": exe.memory.total, "target": str(build.target()),
        "threads": threads.get_num_threads(), "functions": len({c.function for c in exe.calls}),
        "seconds": dict(exe.seconds),
    }


def measured(exe: Executable, runs: int) -> list[float]:
    """Nanoseconds of each call, the mean of `runs`, on arrays of zeros and ones made for it."""
    cycles = (ctypes.c_int64 * max(len(exe.calls), 1))()
    arrays = [np.ones(node.shape, node.dtype) if node.dtype.kind == "f"
              else np.zeros(node.shape, node.dtype) for node in exe.graph.inputs]
    arrays += [np.zeros(x.shape, x.dtype) for x in exe.outputs]
    before = exe.cells[:len(arrays)]
    for i, array in enumerate(arrays):
        exe.cells[i] = array.ctypes.data
    try:
        return _measured(exe, runs, cycles)
    finally:
        exe.cells[:len(arrays)] = before  # type: ignore[assignment]


def _measured(exe: Executable, runs: int, cycles: Any) -> list[float]:
    exe.go()
    begun = time.perf_counter()
    for _ in range(runs):
        exe.profile(cycles)
    total = time.perf_counter() - begun
    counted = sum(cycles) or 1
    times = [0.0] * len(exe.calls)
    for record, numbers in enumerate(exe.record_calls):
        # the members of a group run in turns: its time is shared out by their estimates
        whole = sum(exe.calls[n].nanoseconds for n in numbers) or 1.0
        for n in numbers:
            share = exe.calls[n].nanoseconds / whole if len(numbers) > 1 else 1.0
            times[n] = cycles[record] / counted * total / runs * 1e9 * share
    return times


def fused(kernel: Kernel) -> list[str]:
    """The functions a kernel applies, in order."""
    parts = [kernel.kind] if kernel.kind in ("contract", "scan", "scatter") else []
    for part in (kernel, kernel.finish):
        if part is not None:
            parts += [p.what.name for p in part.points if isinstance(p, Apply)]
            if "op" in part.what:
                parts.append(part.what["op"])
    return parts or ["copy"]


def lines(kernel: Kernel) -> list[str]:
    """The user's lines that a kernel comes from, each once."""
    arrays = [*kernel.arrays, *(kernel.finish.arrays if kernel.finish is not None else ())]
    origins = [x.origin.origin for x in arrays if x.origin is not None]
    found = [f"{short(o.file)}:{o.line}" + (f" ({o.module})" if o.module else "")
             for o in origins if o.file]
    return list(dict.fromkeys(found))


def short(path: str) -> str:
    """The path as one would type it here."""
    here = os.getcwd() + os.sep
    return path.removeprefix(here)


def text(exe: Executable, runs: int = 0) -> str:
    """The report as a page of text."""
    made = facts(exe, runs)
    total = sum(k["nanoseconds"] for k in made["kernels"]) or 1.0
    head = (f"{made['nodes']} nodes in {len(made['kernels'])} kernels, {made['functions']} "
            f"functions · {quantity(made['flops'], 'FLOP')} · {quantity(made['bytes'], 'B')} moved")
    memory = (f"memory {quantity(made['arena'], 'B')}, {quantity(made['buffers'], 'B')} without "
              "sharing")
    rows = [head, memory, *textwrap.wrap(made["target"], WIDTH), ""]
    rows.append(f"{'time':>9} {'':>4} {'GFLOP/s':>8} {'GB/s':>6}  kernel")
    for k in made["kernels"]:
        time_ = k["nanoseconds"]
        share = f"{100 * time_ / total:3.0f}%" if runs else ""
        rate = f"{k['flops'] / time_:8.1f} {k['bytes'] / time_:6.1f}" if time_ else " " * 15
        shape = "×".join(map(str, k["shape"])) or "()"
        what = " ".join(k["does"])
        begin = f"{duration(time_) if runs else '':>9} {share:>4} {rate}  {k['kernel']} {shape} "
        rows.append((begin + what)[:WIDTH])
        rows += [f"{'':>31}{line}"[:WIDTH] for line in k["lines"][:2]]
    return "\n".join(rows)


def llvm(exe: Executable) -> str:
    """The LLVM text of all functions."""
    names = [c.function for c in exe.calls if c.function]
    return "\n".join(needed(names, exe.texts))


def assembly(exe: Executable) -> str:
    """The machine code of all functions, as text."""
    return build.assembly(llvm(exe))


def duration(nanoseconds: float) -> str:
    if nanoseconds < 1e3:
        return f"{nanoseconds:.0f} ns"
    if nanoseconds < 1e6:
        return f"{nanoseconds / 1e3:.1f} µs"
    return f"{nanoseconds / 1e6:.2f} ms"


def quantity(number: float, unit: str) -> str:
    for prefix in ("", "k", "M", "G", "T"):
        if number < 1000 or prefix == "T":
            return f"{number:.3g} {prefix}{unit}"
        number /= 1000
    raise AssertionError


def kernels(exe: Executable) -> str:
    return "\n".join(describe(k) for k in exe.kernels)
