"""How many threads compiled functions use, and the native pool they call (text in `pool.py`)."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from chainrule.compiler.machine import build
from chainrule.compiler.workers import pool
from chainrule.core.bind import state
from chainrule.core.config import settings
from chainrule.core.errors import SettingError, TracedValueError

if TYPE_CHECKING:
    from collections.abc import Iterator

PARALLEL = "chainrule_parallel"

_count: int | None = None
_pool: Pool | None = None


class Pace(NamedTuple):
    """What the pool measured of a function: moving averages in nanoseconds, 0 if not measured."""

    function: int
    units: int
    alone: int
    shared: int
    regions: int


class Pool:
    """The pool of this process; its workers appear with the first region that needs them."""

    def __init__(self, *, futex: bool = True) -> None:
        architecture = build.target().triple.split("-")[0]
        text = pool.text(sys.platform, architecture, futex)
        self.library = build.load(text, optimise=0)
        # Workers may still run in this code while the interpreter takes its modules apart.
        _keep_for_ever(self.library)
        address = self.library.address
        self.parallel = address(PARALLEL)
        self.limit = ctypes.c_int64.from_address(address("chainrule_pool_limit"))
        # 0: share every region, whatever was measured (for measuring, and for tests)
        self.adapt = ctypes.c_int64.from_address(address("chainrule_pool_adapt"))
        self._counters = (ctypes.c_int64 * len(pool.COUNTERS)).from_address(
            address("chainrule_pool_counters")
        )
        self._paces = (ctypes.c_int64 * (8 * pool.PACES)).from_address(
            address("chainrule_pool_paces")
        )
        self._close = ctypes.CFUNCTYPE(None)(address("chainrule_pool_close"))
        self._open = ctypes.CFUNCTYPE(None, ctypes.c_int64)(address("chainrule_pool_open"))
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self.close,
                after_in_parent=lambda: self.open(child=False),
                after_in_child=lambda: self.open(child=True),
            )

    def counters(self) -> dict[str, int]:
        """What happened so far: regions shared out, run alone after a stall, workers woken..."""
        return dict(zip(pool.COUNTERS, self._counters, strict=True))

    def paces(self) -> list[Pace]:
        """What regions took on one thread and on several, by the address of their function."""
        rows = (Pace(*self._paces[at : at + 5]) for at in range(0, len(self._paces), 8))
        return [row for row in rows if row.function]

    def close(self) -> None:
        """End the workers; until `open`, regions run on their caller."""
        self._close()

    def open(self, *, child: bool = False) -> None:
        """Allow workers again; `child` after a fork, where only the forking thread lives on."""
        self._open(int(child))


def the_pool() -> Pool:
    """The pool, loaded when first asked for."""
    global _pool
    if _pool is None:
        fresh = Pool()
        fresh.limit.value = get_num_threads()
        _pool = fresh
    return _pool


def get_num_threads() -> int:
    """How many threads a compiled function may use: as set, else what the machine offers.

    That is the number of cores this process may run on, at most 64: allowed processors
    (affinity), of which threads of one core count once, and the CPU quota of its control group.
    """
    global _count
    if _count is None:
        _count = settings.num_threads or _offered()
    return _count


def set_num_threads(threads: int) -> None:
    """Let compiled functions use up to `threads` threads (1 to 64), in all of this process.

    Small work uses fewer. Results are the same, bit for bit, for any number.

    Raises:
        SettingError: `threads` is not a whole number from 1 to 64.
        TracedValueError: it is called inside a compiled function, which Python runs only once.
    """
    global _count
    if state.capture is not None:
        raise TracedValueError(
            f"set_num_threads({threads}) inside a compiled function: Python runs it only once, so "
            "later calls would not change the number of threads. Call it outside.")
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= pool.MOST:
        raise SettingError(
            f"set_num_threads({threads!r}): the number of threads is a whole number from 1 to "
            f"{pool.MOST}. This process may use {_offered()} cores."
        )
    _count = threads
    if _pool is not None:
        _pool.limit.value = threads


@contextmanager
def num_threads(threads: int) -> Iterator[None]:
    """`set_num_threads(threads)` for a `with` block; other Python threads see it too.

    >>> with num_threads(1):
    ...     get_num_threads()
    1
    """
    before = get_num_threads()
    set_num_threads(threads)
    try:
        yield
    finally:
        set_num_threads(before)


@cache
def _offered() -> int:
    return max(1, min(_cores(), int(_quota()), pool.MOST))


def _cores() -> int:
    """Cores among the processors this process may run on."""
    try:
        allowed = os.sched_getaffinity(0)
    except (AttributeError, OSError):
        return os.cpu_count() or 1
    cores = set()
    for processor in allowed:
        try:
            folder = f"/sys/devices/system/cpu/cpu{processor}/topology"
            cores.add(_read(folder, "thread_siblings_list"))
        except OSError:
            cores.add(str(processor))
    return len(cores)


def _quota() -> float:
    """Processors' worth of time that the control group of this process and those above it get."""
    least = float(pool.MOST)
    with suppress(OSError):
        for line in _read("/proc/self/cgroup").splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds and "cpu" not in kinds.split(","):
                continue
            root = "/sys/fs/cgroup" + ("/cpu" if kinds else "")
            while True:
                least = min(least, _group_quota(root + path, bool(kinds)))
                if path in ("", "/"):
                    break
                path = path.rpartition("/")[0]
    return least


def _group_quota(folder: str, old: bool) -> float:
    with suppress(OSError, ValueError, ZeroDivisionError):
        if old:
            share, period = _read(folder, "cpu.cfs_quota_us"), _read(folder, "cpu.cfs_period_us")
        else:
            share, period = _read(folder, "cpu.max").split()
        if share not in ("max", "-1"):
            return float(share) / float(period)
    return float(pool.MOST)


def _read(*place: str) -> str:
    with open(os.path.join(*place), encoding="utf-8") as file:
        return file.read().strip()


def _keep_for_ever(thing: Any) -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
