"""The native thread pool: every unit once, fast asleep, safe at fork and exit.

    python -m pytest tests/test_compiler_threads.py
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule.compiler.machine import build
from chainrule.compiler.workers import pool, threads
from chainrule.core.config import settings
from chainrule.core.errors import SettingError

ROOT = Path(__file__).resolve().parents[1]
LINUX = sys.platform.startswith("linux")


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of its own for this file."""
    with settings.using(cache_dir=str(tmp_path_factory.mktemp("cache"))):
        yield


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own, warnings as errors, at most a minute."""
    values = {**os.environ, "CHAINRULE_CACHE_DIR": str(settings.cache_dir), **environment}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, cwd=ROOT, env=values, timeout=60,
    )


def function(library: build.Library, name: str, result: Any, *arguments: Any) -> Any:
    made = ctypes.CFUNCTYPE(result, *arguments)(library.address(name))
    made.library = library  # type: ignore[attr-defined] # the code goes with it
    return made


WORK = """
declare void @chainrule_parallel(ptr, ptr, i64, i64, i64)

; Add one to every unit, after `delay` turns of a loop; context: [delay, times in..., results...]
define void @chunk(ptr %context, i64 %low, i64 %high) {
entry:
  %delay = load volatile i64, ptr %context
  br label %unit
unit:
  %i = phi i64 [ %low, %entry ], [ %next, %write ]
  %end = icmp sge i64 %i, %high
  br i1 %end, label %done, label %wait
wait:
  %turn = phi i64 [ 0, %unit ], [ %turn.next, %turning ]
  %enough = icmp sge i64 %turn, %delay
  br i1 %enough, label %write, label %turning
turning:
  %turn.next = add i64 %turn, 1
  %again = load volatile i64, ptr %context
  br label %wait
write:
  %at = getelementptr i64, ptr %context, i64 %i
  %place = getelementptr i64, ptr %at, i64 1
  %old = load i64, ptr %place
  %new = add i64 %old, 1
  store i64 %new, ptr %place
  %next = add i64 %i, 1
  br label %unit
done:
  ret void
}

define void @regions(ptr %context, i64 %units, i64 %grain, i64 %threads, i64 %times) {
entry:
  br label %loop
loop:
  %n = phi i64 [ 0, %entry ], [ %next, %body ]
  %end = icmp sge i64 %n, %times
  br i1 %end, label %done, label %body
body:
  call void @chainrule_parallel(ptr @chunk, ptr %context, i64 %units, i64 %grain, i64 %threads)
  %next = add i64 %n, 1
  br label %loop
done:
  ret void
}

; A region of units, each of which is a region.
define void @inner(ptr %context, i64 %low, i64 %high) {
entry:
  br label %loop
loop:
  %i = phi i64 [ %low, %entry ], [ %next, %body ]
  %end = icmp sge i64 %i, %high
  br i1 %end, label %done, label %body
body:
  %row = mul i64 %i, 65
  %at = getelementptr i64, ptr %context, i64 %row
  call void @chainrule_parallel(ptr @chunk, ptr %at, i64 64, i64 4, i64 4)
  %next = add i64 %i, 1
  br label %loop
done:
  ret void
}
define void @nested(ptr %context, i64 %units) {
  call void @chainrule_parallel(ptr @inner, ptr %context, i64 %units, i64 1, i64 4)
  ret void
}
"""


class Crew:
    """A pool of its own with functions that use it."""

    def __init__(self, futex: bool) -> None:
        self.pool = threads.Pool(futex=futex)
        self.pool.adapt.value = 0
        self.pool.limit.value = pool.MOST
        self.library = build.load(WORK, symbols={"chainrule_parallel": self.pool.parallel})
        many = [ctypes.c_int64] * 4
        self._regions = function(self.library, "regions", None, ctypes.c_void_p, *many)
        self._nested = function(self.library, "nested", None, ctypes.c_void_p, ctypes.c_int64)

    def __call__(
        self, units: int, grain: int, count: int, times: int = 1, delay: int = 0
    ) -> np.ndarray:
        """How often each unit was done."""
        context = np.zeros(units + 1, np.int64)
        context[0] = delay
        self._regions(context.ctypes.data, units, grain, count, times)
        return context[1:]

    def nested(self, units: int) -> np.ndarray:
        context = np.zeros((units, 65), np.int64)
        self._nested(context.ctypes.data, units)
        return context[:, 1:]


@pytest.fixture(scope="module", params=[True, False], ids=["futex", "condition"])
def crew(request: pytest.FixtureRequest) -> Crew:
    return Crew(request.param)


def test_each_unit_is_done_once(crew: Crew) -> None:
    rng = np.random.default_rng(0)
    for _ in range(3000):
        units, grain = int(rng.integers(0, 200)), int(rng.integers(-1, 50))
        count, delay = int(rng.choice([1, 2, 4, 7])), int(rng.choice([0, 0, 10, 200]))
        done = crew(units, grain, count, delay=delay)
        assert (done == 1).all(), (units, grain, count)


def test_thousands_of_regions_in_a_row(crew: Crew) -> None:
    for count in (2, 4, 7):
        assert (crew(13, 1, count, times=5000) == 5000).all()
        for pause in (0, 1e-5, 1e-4, 1e-3, 0.01):  # workers awake, falling asleep, asleep
            for _ in range(20):
                assert (crew(16, 1, count, times=3, delay=300) == 3).all()
                time.sleep(pause)


def test_workers_really_work(crew: Crew) -> None:
    before = crew.pool.counters()
    assert (crew(100, 1, 4, times=20, delay=2000) == 20).all()
    after = crew.pool.counters()
    assert after["regions"] - before["regions"] == 20
    assert after["created"] >= 3


def test_no_call_to_a_sleeping_worker_is_lost(crew: Crew) -> None:
    """Chunks that sleep leave the processor to the worker, which so must get some of them."""
    text = """
declare void @chainrule_parallel(ptr, ptr, i64, i64, i64)
declare i32 @usleep(i32)
define void @chunk(ptr %context, i64 %low, i64 %high) {
  %stack = alloca i64
  %where = ptrtoint ptr %stack to i64
  %at = getelementptr i64, ptr %context, i64 %low
  store i64 %where, ptr %at
  call i32 @usleep(i32 1000)
  ret void
}
define void @go(ptr %context) {
  call void @chainrule_parallel(ptr @chunk, ptr %context, i64 16, i64 1, i64 2)
  ret void
}
"""
    library = build.load(text, symbols={"chainrule_parallel": crew.pool.parallel})
    go = function(library, "go", None, ctypes.c_void_p)
    rng = np.random.default_rng(0)
    alone = 0
    for _ in range(60):
        time.sleep(rng.uniform(0, 600e-6))  # around the time at which a worker falls asleep
        found = np.zeros(16, np.int64)
        go(found.ctypes.data)
        assert found.all()
        alone += len(set(found.tolist())) == 1
    assert alone <= 3


def test_two_python_threads_and_nested_regions(crew: Crew) -> None:
    failures: list[str] = []

    def run(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(300):
            units, times = int(rng.integers(1, 100)), int(rng.integers(1, 20))
            done = crew(units, int(rng.integers(1, 9)), int(rng.choice([2, 4, 7])), times)
            if not (done == times).all():
                failures.append(f"{seed}: {units} units")
            if not (crew.nested(5) == 1).all():
                failures.append(f"{seed}: nested")

    running = [threading.Thread(target=run, args=(seed,)) for seed in range(3)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    assert not failures


def test_adaptation_changes_times_only() -> None:
    fresh = Crew(True)
    fresh.pool.adapt.value = 1
    for count in (1, 2, 4):
        assert (fresh(50, 1, count, times=3000) == 3000).all()
        assert (fresh(50, 5, count, times=300, delay=300) == 300).all()
    told = fresh.pool.counters()
    assert told["alone"] >= 4  # two times for each of the two
    assert set(told) == set(pool.COUNTERS)
    (pace,) = fresh.pool.paces()  # one function with the same 50 units
    assert pace.function == fresh.library.address("chunk") and pace.units == 50
    assert pace.alone > 0 and pace.regions >= 2 * 3300


def test_without_more_threads_the_caller_works_alone() -> None:
    """The system may refuse threads: pthread_create fails from the third on."""
    asked: list[int] = []
    real = ctypes.CDLL(None).pthread_create
    kind = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 4)

    @kind
    def refuse(*arguments: Any) -> int:
        asked.append(1)
        return real(*map(ctypes.c_void_p, arguments)) if len(asked) < 3 else 11  # EAGAIN

    text = pool.text(sys.platform, build.target().triple.split("-")[0])
    library = build.load(
        text, symbols={"pthread_create": ctypes.cast(refuse, ctypes.c_void_p).value or 0},
        optimise=0,
    )
    parallel = library.address("chainrule_parallel")
    ctypes.c_int64.from_address(library.address("chainrule_pool_limit")).value = 8
    ctypes.c_int64.from_address(library.address("chainrule_pool_adapt")).value = 0
    work = build.load(WORK, symbols={"chainrule_parallel": parallel})
    regions = function(work, "regions", None, ctypes.c_void_p, *[ctypes.c_int64] * 4)
    context = np.zeros(101, np.int64)
    regions(context.ctypes.data, 100, 1, 8, 10)
    assert (context[1:] == 10).all() and len(asked) >= 3
    function(library, "chainrule_pool_close", None)()  # workers end before their code goes


def test_the_text_is_right_for_other_machines() -> None:
    llvm = pytest.importorskip("llvmlite.binding")
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    for triple, system in (
        ("aarch64-unknown-linux-gnu", "linux"), ("arm64-apple-darwin", "darwin"),
        ("x86_64-apple-darwin", "darwin"), ("x86_64-unknown-freebsd", "freebsd14"),
        ("x86_64-pc-windows-msvc", "win32"), ("riscv64-unknown-linux-gnu", "linux"),
    ):
        try:
            chosen = llvm.Target.from_triple(triple)
        except RuntimeError:
            continue  # an LLVM without it
        text = pool.text(system, triple.split("-")[0])
        module = llvm.parse_assembly(text, llvm.create_context())
        module.verify()
        assert chosen.create_target_machine(opt=0, reloc="pic").emit_object(module)


@pytest.mark.skipif(not LINUX, reason="reads the processor time of threads from /proc")
def test_idle_workers_cost_nothing(crew: Crew) -> None:
    crew(64, 1, 7, times=50, delay=100)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.015


@pytest.mark.skipif(not build.target().triple.startswith("x86_64"), reason="x86's mode register")
def test_workers_take_over_the_floating_point_mode() -> None:
    """Denormal results are flushed on all threads or on none."""
    text = """
declare void @chainrule_parallel(ptr, ptr, i64, i64, i64)
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define void @chunk(ptr %context, i64 %low, i64 %high) {
  %place = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %place)
  %mode = load i32, ptr %place
  %at = getelementptr i32, ptr %context, i64 %low
  store volatile i32 %mode, ptr %at
  call i32 @usleep(i32 100)
  ret void
}
declare i32 @usleep(i32)
define void @go(ptr %context, i32 %mode) {
  %old = alloca i32
  %new = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %old)
  store i32 %mode, ptr %new
  call void @llvm.x86.sse.ldmxcsr(ptr %new)
  call void @chainrule_parallel(ptr @chunk, ptr %context, i64 64, i64 1, i64 4)
  call void @llvm.x86.sse.ldmxcsr(ptr %old)
  ret void
}
"""
    crew = Crew(True)
    library = build.load(text, symbols={"chainrule_parallel": crew.pool.parallel})
    go = function(library, "go", None, ctypes.c_void_p, ctypes.c_int32)
    for mode in (0x1F80, 0x9FC0, 0x1F80, 0x7F80):  # usual, denormals to zero, usual, truncating
        found = np.zeros(64, np.int32)
        go(found.ctypes.data, mode)
        assert (found & 0xFFC0 == mode & 0xFFC0).all()


LIFE = """
import ctypes, os, sys, threading, time
import numpy as np
sys.path.insert(0, "tests")
from test_compiler_threads import Crew
crew = Crew({futex})
assert (crew(64, 1, 4, times=100) == 100).all()
"""

ENDINGS = {
    "asleep": "time.sleep(0.05)",
    "spinning": "crew(64, 1, 4, times=10)",
    "exit in a thread": "t = threading.Thread(target=sys.exit)\nt.start()\nt.join()",
    "exit at once": "crew(64, 1, 4)\nos._exit(0)",
    "while another thread works":
        "threading.Thread(target=lambda: [crew(64, 1, 4, 100) for _ in range(10**6)],"
        " daemon=True).start()\ntime.sleep(0.05)",
    "closed and open": "crew.pool.close()\nassert (crew(64, 1, 4) == 1).all()\n"
        "crew.pool.open()\nassert (crew(64, 1, 4) == 1).all()",
    "fork": """
for n in range(20):
    child = os.fork()
    if child == 0:
        good = (crew(64, 1, 4, times=100, delay=50) == 100).all()
        os._exit(0 if good and crew.pool.counters()["created"] > 3 else 1)
    assert (crew(64, 1, 4, times=10) == 10).all()
    assert os.waitpid(child, 0)[1] == 0
""",
    "fork while another thread works": """
stop = []
def work():
    while not stop:
        assert (crew(64, 1, 4, times=50) == 50).all()
t = threading.Thread(target=work)
t.start()
for n in range(20):
    child = os.fork()
    if child == 0:
        os._exit(0 if (crew(64, 1, 4, times=100) == 100).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.append(1)
t.join()
""",
    "signal": "import signal\nsignal.signal(signal.SIGALRM, lambda *a: None)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\n"
        "assert (crew(64, 1, 4, times=3000, delay=20) == 3000).all()\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)",
}


@pytest.mark.parametrize("futex", [True, False], ids=["futex", "condition"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_processes_end_and_fork(ending: str, futex: bool) -> None:
    if "fork" in ending and not hasattr(os, "fork"):
        pytest.skip("there is no fork here")
    quiet = "import warnings\nwarnings.simplefilter('ignore', DeprecationWarning)\n"
    done = python(quiet + LIFE.format(futex=futex) + ENDINGS[ending])
    assert (done.returncode, done.stderr) == (0, "")


def test_how_many_threads() -> None:
    before = threads.get_num_threads()
    assert 1 <= before <= pool.MOST
    with threads.num_threads(3):
        assert threads.get_num_threads() == 3 and threads.the_pool().limit.value == 3
        with threads.num_threads(1):
            assert threads.the_pool().limit.value == 1
        assert threads.get_num_threads() == 3
    assert threads.get_num_threads() == before == threads.the_pool().limit.value
    for wrong in (0, -1, 65, 2.0, "2", None, True):
        with pytest.raises(SettingError, match="from 1 to 64"):
            threads.set_num_threads(wrong)  # type: ignore[arg-type]
    assert threads.get_num_threads() == before
    code = "from chainrule.compiler.workers import threads\nprint(threads.get_num_threads())"
    assert python(code, CHAINRULE_NUM_THREADS="5").stdout == "5\n"
    wrong = python(code, CHAINRULE_NUM_THREADS="many").stderr
    assert "num_threads = 'many' is not legal" in wrong
    if LINUX:
        pinned = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n" + code
        assert python(pinned, CHAINRULE_NUM_THREADS="0").stdout == "1\n"


def test_control_groups_and_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/self/cgroup": "0::/a/b\n",
        "/sys/fs/cgroup/a/cpu.max": "250000 100000\n",
        "/sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
    }

    def read(*place: str) -> str:
        try:
            return files[os.path.join(*place)].strip()
        except KeyError:
            raise FileNotFoundError(os.path.join(*place)) from None

    monkeypatch.setattr(threads, "_read", read)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 8}, raising=False)
    assert threads._quota() == 2.5
    assert threads._cores() == 5  # nothing says which share a core
    for processor, siblings in ((0, "0-1"), (1, "0-1"), (2, "2-3"), (3, "2-3"), (8, "8")):
        folder = f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list"
        files[folder] = siblings
    assert threads._cores() == 3
    files["/proc/self/cgroup"] = "4:cpuset:/x\n3:cpu,cpuacct:/docker/y\n"
    files["/sys/fs/cgroup/cpu/docker/y/cpu.cfs_quota_us"] = "-1"
    files["/sys/fs/cgroup/cpu/docker/y/cpu.cfs_period_us"] = "100000"
    assert threads._quota() == pool.MOST
    files["/sys/fs/cgroup/cpu/docker/y/cpu.cfs_quota_us"] = "150000"
    assert threads._quota() == 1.5
