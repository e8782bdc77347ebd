"""From LLVM text to running code: build, the linker, the disk cache, the way in from Python.

    python -m pytest tests/test_compiler_runtime.py
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule.compiler.machine import build, cache, link, split
from chainrule.core.config import settings
from chainrule.core.errors import BuildError

ROOT = Path(__file__).resolve().parents[1]
LINUX = sys.platform.startswith("linux")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty cache for each test."""
    with settings.using(cache_dir=str(tmp_path / "cache")):
        yield tmp_path / "cache"


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own, warnings as errors, at most a minute."""
    values = {**os.environ, "CHAINRULE_CACHE_DIR": str(settings.cache_dir), **environment}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, cwd=ROOT, env=values, timeout=60,
    )


def function(library: build.Library, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    made = ctypes.CFUNCTYPE(result, *arguments)(library.address(name))
    made.library = library  # type: ignore[attr-defined] # the code goes with it
    return made


ADD = "define i64 @add(i64 %x, i64 %y) {\n  %z = add i64 %x, %y\n  ret i64 %z\n}\n"

# Everything an object can hold: constants in vectors, strings and tables of functions, data with
# and without a first value, calls inwards and outwards, addresses of outside data.
MIXED = """
@bias = private constant <4 x float> <float 1.0, float 2.0, float 3.0, float 4.0>, align 16
@calls = internal global i64 0
@start = global i64 40
@room = internal global [70000 x i8] zeroinitializer, align 64
@table = internal constant [2 x ptr] [ptr @first, ptr @second]
@outside = external global i64
declare double @cos(double)
declare i64 @given(i64)

define internal i64 @first(i64 %x) noinline {
  ret i64 %x
}
define internal i64 @second(i64 %x) noinline {
  %y = mul i64 %x, 10
  ret i64 %y
}
define i64 @count() {
  %old = load i64, ptr @calls
  %new = add i64 %old, 1
  store i64 %new, ptr @calls
  %start = load i64, ptr @start
  %sum = add i64 %new, %start
  ret i64 %sum
}
define i64 @choose(i64 %which, i64 %x) {
  %at = getelementptr [2 x ptr], ptr @table, i64 0, i64 %which
  %function = load ptr, ptr %at
  %y = call i64 %function(i64 %x)
  %end = getelementptr i8, ptr @room, i64 69992
  store i64 %y, ptr %end
  %z = load i64, ptr %end
  ret i64 %z
}
define i64 @outwards(i64 %x) {
  %y = call i64 @given(i64 %x)
  %more = load i64, ptr @outside
  %z = add i64 %y, %more
  ret i64 %z
}
define double @cosine(double %x) {
  %y = call double @cos(double %x)
  ret double %y
}
define float @third(float %x) {
  %v = load <4 x float>, ptr @bias
  %a = insertelement <4 x float> poison, float %x, i32 0
  %b = shufflevector <4 x float> %a, <4 x float> poison, <4 x i32> zeroinitializer
  %c = fmul contract <4 x float> %v, %b
  %d = fadd contract <4 x float> %c, splat (float 0.5)
  %e = extractelement <4 x float> %d, i64 2
  ret float %e
}
"""


@pytest.mark.parametrize("optimise", [0, 1, 2])
@pytest.mark.parametrize("own", [True, False])
def test_everything_an_object_can_hold(
    own: bool, optimise: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our linker and LLVM's give the same program."""
    monkeypatch.setattr(link, "SUPPORTED", own and link.SUPPORTED)
    given = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(lambda x: 3 * x)
    outside = ctypes.c_int64(1000)
    symbols = {
        "given": ctypes.cast(given, ctypes.c_void_p).value or 0,
        "outside": ctypes.addressof(outside),
    }
    for _ in range(2):  # made, then from the cache: both start from the first values
        library = build.load(MIXED, symbols=symbols, optimise=optimise)
        count = function(library, "count", ctypes.c_int64)
        assert [count(), count(), count()] == [41, 42, 43]
        choose = function(library, "choose", ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
        assert [choose(0, 7), choose(1, 7)] == [7, 70]
        outwards = function(library, "outwards", ctypes.c_int64, ctypes.c_int64)
        assert outwards(5) == 1015
        assert function(library, "cosine", ctypes.c_double, ctypes.c_double)(0.5) == np.cos(0.5)
        assert function(library, "third", ctypes.c_float, ctypes.c_float)(2.0) == 6.5


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_code_cannot_be_written_and_goes_with_its_library() -> None:
    def mapped(address: int) -> str | None:
        for line in Path("/proc/self/maps").read_text().splitlines():
            low, high = (int(word, 16) for word in line.split()[0].split("-"))
            if low <= address < high:
                return line.split()[1]
        return None

    library = build.load(MIXED.replace("@given", "@labs"), symbols={"outside": 8})
    code, data = library.address("third"), library.address("start")
    assert mapped(code) in ("r-xp", None) and mapped(code)
    assert mapped(data) == "rw-p"
    del library
    gc.collect()
    assert mapped(code) != "r-xp"


def test_libraries_come_and_go_without_a_leak() -> None:
    size = 1 << 18
    text = f"@room = global [{size} x i8] zeroinitializer\n" + ADD

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0]) * 4096 if LINUX else 0

    build.load(text)
    before = resident()
    for _ in range(200):
        build.load(text)
    assert resident() - before < 40 * size


def test_errors_show_the_lines() -> None:
    with pytest.raises(BuildError) as caught:
        build.load("define i64 @f(i64 %x) {\n  %y = add i64 %x, 1\n  ret i64 %z\n}\n")
    assert "%z" in str(caught.value) and ">     3 |   ret i64 %z" in str(caught.value)
    with pytest.raises(BuildError, match="defines: add"):
        build.load(ADD).address("sub")
    with pytest.raises(BuildError, match="'nowhere'"):
        build.load("declare void @nowhere()\ndefine void @f() {\n  call void @nowhere()\n"
                   "  ret void\n}\n")


def test_assembly_keeps_the_vectors_of_the_text() -> None:
    goal = build.target()
    text = (f"define void @f(ptr %p) {{\n  %x = load <{goal.lanes} x float>, ptr %p, align 4\n"
            f"  %y = fadd <{goal.lanes} x float> %x, splat (float 1.5)\n"
            f"  store <{goal.lanes} x float> %y, ptr %p, align 4\n  ret void\n}}\n")
    shown = build.assembly(text)
    if goal.triple.startswith("x86_64"):
        assert {16: "zmm", 8: "ymm", 4: "xmm"}[goal.lanes] in shown
        assert "movabs" not in shown and "(%rip)" in shown
    assert goal.lanes in (4, 8, 16) and goal.registers in (16, 32)
    assert goal.level1 >= 8 << 10 and goal.level2 > goal.level1
    assert goal.llvm in str(goal)


def test_without_llvmlite_the_error_says_what_to_install() -> None:
    code = ("import sys\nsys.modules['llvmlite'] = None\n"
            "from chainrule.compiler.machine import build\n"
            "try:\n    build.load('')\nexcept ImportError as error:\n    print(error)")
    done = python(code, CHAINRULE_CACHE="false")
    assert "pip install llvmlite" in done.stdout and done.stderr == ""


def program(count: int) -> tuple[str, list[int]]:
    """Functions that call each other, of all linkages, and what f0, f1, ... give for 1."""
    rng = random.Random(0)
    text = [("%Pair = type { i64, i64 }\n@table = private unnamed_addr constant [3 x i64] "
             "[i64 5, i64 6, i64 7]\n@next = private constant ptr @table\n"
             "declare i64 @labs(i64)\nattributes #0 = { nounwind }\n"
             "define internal i64 @small(i64 %x) alwaysinline {\n"
             "  %t = load ptr, ptr @next\n  %at = getelementptr i64, ptr %t, i64 2\n"
             "  %y = load i64, ptr %at\n  %z = mul i64 %x, %y\n  ret i64 %z\n}\n")]
    values: list[int] = []
    for n in range(count):
        linkage = rng.choice(["", "internal ", "private ", "internal "]) if n % 5 else ""
        quick = rng.choice(["", ' "quick"'])
        body = ["  %v0 = call i64 @small(i64 %x)\n"]
        value, last = 7, 0
        for _ in range(25):
            body.append(f"  %v{last + 1} = xor i64 %v{last}, {n}\n"
                        f"  %v{last + 2} = call i64 @labs(i64 %v{last + 1})\n")
            value, last = abs(value ^ n), last + 2
        if n:
            called = rng.randrange(n)
            body.append(f"  %w = call i64 @f{called}(i64 1, ptr null, <4 x float> poison)\n"
                        f"  %r = add i64 %w, %v{last}\n  ret i64 %r\n")
            value += values[called]
        else:
            body.append(f"  ret i64 %v{last}\n")
        values.append(value)
        text.append(f"define {linkage}noundef i64 @f{n}(i64 %x,\n    ptr noalias %p, "
                    f"<4 x float> %v) #0{quick} {{\nentry:\n{''.join(body)}}}\n")
    return "".join(text), values


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("cores", [1, 2, 4])
def test_pieces_make_the_same_program(
    cores: int, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "SUPPORTED", own and link.SUPPORTED)
    monkeypatch.setattr(build, "_cores", lambda: cores)
    text, values = program(60)
    pieces = split.split(text, cores)
    assert len(pieces) == cores + 1 and [one.quick for one in pieces] == [False] * cores + [True]
    for _ in range(2):
        library = build.load(text)
        for n in range(0, 60, 5):
            call = function(library, f"f{n}", ctypes.c_int64, ctypes.c_int64)
            assert call(1) == values[n]


def test_what_cannot_be_taken_apart_stays_whole() -> None:
    text, _ = program(60)
    shared = "@count = internal global i64 0\n" + text
    assert split.split(shared, 4) == [split.Piece(shared, False)]
    assert split.split(ADD, 4) == [split.Piece(ADD, False)]
    assert split.split("", 4) == [split.Piece("", False)]
    quick = ADD.replace(") {", ') "quick" {')
    assert split.split(quick, 4) == [split.Piece(quick, True)]
    with pytest.raises(BuildError, match=r" \d{4} \|   %nonsense"):
        build.load(text + "define void @last() {\n  %nonsense\n}\n")


# The cache.


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*" + cache.SUFFIX))


def test_a_second_process_compiles_nothing(folder: Path) -> None:
    code = ("import sys\nfrom chainrule.compiler.machine import build, cache\n"
            f"build.load({ADD!r})\n"
            "print('llvmlite' in sys.modules, cache.report.hits, cache.report.stored)")
    assert python(code).stdout == "True 0 2\n"  # the code and the description of the machine
    assert len(entries(folder)) == 2
    fast = "False 2 0\n" if LINUX and build.target().triple.startswith("x86_64") else None
    assert python(code).stdout == (fast or "True 1 0\n")


@pytest.mark.parametrize("cut", [0, 1, 16, 17, 36, 37, 44, 45, 100, -1])
def test_truncated_entries_are_made_anew(folder: Path, cut: int) -> None:
    cache.put("ab" * 20, b"payload" * 100)
    (path,) = entries(folder)
    path.write_bytes(path.read_bytes()[:cut])
    assert cache.get("ab" * 20) is None
    cache.put("ab" * 20, b"payload" * 100)
    assert cache.get("ab" * 20) == b"payload" * 100


def test_damaged_or_renamed_entries_count_as_missing(folder: Path) -> None:
    name, payload = cache.key("x"), bytes(range(256)) * 4
    cache.put(name, payload)
    (path,) = entries(folder)
    whole = path.read_bytes()
    random.seed(0)
    for place in [*range(50), *random.sample(range(len(whole)), 100)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert cache.get(name) is None, place
    path.write_bytes(whole + b"x")
    assert cache.get(name) is None
    path.write_bytes(whole)
    assert cache.get(name) == payload
    path.rename(folder / (cache.key("y") + cache.SUFFIX))
    assert cache.get(cache.key("y")) is None


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owners here")
def test_what_others_may_have_written_is_not_run(folder: Path) -> None:
    cache.put("ab" * 20, b"payload")
    (path,) = entries(folder)
    assert path.stat().st_mode & 0o777 == 0o600 and folder.stat().st_mode & 0o777 == 0o700
    path.chmod(0o620)
    assert cache.get("ab" * 20) is None
    assert "written by others" in (cache.report.reason or "")
    path.chmod(0o640)
    assert cache.get("ab" * 20) == b"payload"


def test_the_oldest_go_when_it_is_full(folder: Path) -> None:
    names = [cache.key(str(n)) for n in range(40)]
    with settings.using(cache_size=1):
        for age, name in enumerate(names):
            cache.put(name, bytes(100_000))
            path = folder / (name + cache.SUFFIX)
            if path.exists():  # put 10,000 s apart, long ago
                os.utime(path, (age * 10_000, age * 10_000))
            cache.get(names[0])  # used all the time
        total = sum(path.stat().st_size for path in entries(folder))
    assert total <= 1.2 * 2**20
    assert cache.get(names[0]) is not None
    assert cache.get(names[1]) is None
    assert cache.get(names[-1]) is not None


def test_unusable_directories_are_no_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for place in (str(file), str(file / "below"), "/proc/nowhere", "bad\0name"):
        with settings.using(cache_dir=place):
            cache.report.reason = None
            cache.put("ab" * 20, b"payload")
            assert cache.get("ab" * 20) is None
            assert cache.report.reason, place
            add = function(build.load(ADD), "add", ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
            assert add(2, 3) == 5


def test_no_home_directory_and_no_cache() -> None:
    code = ("from chainrule.compiler.machine import build\n"
            f"print(build.load({ADD!r}).address('add') > 0)")
    for home in ("", "/nowhere", "relative"):
        done = python(code, HOME=home, XDG_CACHE_HOME="", CHAINRULE_CACHE_DIR="/proc/none")
        assert (done.stdout, done.stderr) == ("True\n", ""), home
    with settings.using(cache=False):
        cache.put("ab" * 20, b"payload")
        assert cache.get("ab" * 20) is None


BURST = """
import sys, random
from chainrule.compiler.machine import cache
random.seed(int(sys.argv[1]))
bad = 0
while True:
    number = random.randrange(40)
    name, payload = cache.key(str(number)), bytes([number]) * (20_000 + number)
    found = cache.get(name)
    if found is not None and found != payload:
        print("WRONG", flush=True)
    cache.put(name, payload)
    print(number, flush=True)
"""


def test_eight_processes_at_once_some_killed(folder: Path) -> None:
    environment = {**os.environ, "CHAINRULE_CACHE_DIR": str(folder), "CHAINRULE_CACHE_SIZE": "1"}
    running = [
        subprocess.Popen([sys.executable, "-c", BURST, str(n)], stdout=subprocess.PIPE, text=True,
                         cwd=ROOT, env=environment)
        for n in range(8)
    ]
    for one in running:  # each has stored something
        assert one.stdout is not None
        assert one.stdout.readline().strip().isdigit()
    time.sleep(0.5)
    told = ""
    for one in running:
        one.send_signal(signal.SIGKILL)
        told += one.communicate()[0]
    assert "WRONG" not in told
    found = 0
    with settings.using(cache_size=1):
        for number in range(40):
            payload = cache.get(cache.key(str(number)))
            assert payload in (None, bytes([number]) * (20_000 + number))
            found += payload is not None
    assert found > 10
    assert sum(path.stat().st_size for path in entries(folder)) < 3 * 2**20
