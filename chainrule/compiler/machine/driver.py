"""Native code that runs a table of calls, and the functions this process has compiled."""

from __future__ import annotations

import ctypes
import re
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

from chainrule.compiler.machine import build

# Words of a record of the table.
WORDS = 5

DRIVER = """
declare i64 @llvm.readcyclecounter()

; records of five words: function, arrays, units, grain (0: on one thread), checks
define i64 @chainrule_run(ptr %records, i64 %first, i64 %last, ptr %error, ptr %pool,
                          i64 %threads) {
entry:
  %some = icmp ult i64 %first, %last
  br i1 %some, label %next, label %done
next:
  %i = phi i64 [ %first, %entry ], [ %i1, %after ]
  %at = mul i64 %i, 5
  %record = getelementptr i64, ptr %records, i64 %at
  %function = load ptr, ptr %record, align 8
  %a1 = getelementptr i64, ptr %record, i64 1
  %arrays = load ptr, ptr %a1, align 8
  %a2 = getelementptr i64, ptr %record, i64 2
  %units = load i64, ptr %a2, align 8
  %a3 = getelementptr i64, ptr %record, i64 3
  %grain = load i64, ptr %a3, align 8
  %many = icmp ugt i64 %threads, 1
  %large = icmp ne i64 %grain, 0
  %both = and i1 %many, %large
  br i1 %both, label %parallel, label %serial
parallel:
  call void %pool(ptr %function, ptr %arrays, i64 %units, i64 %grain, i64 %threads)
  br label %ran
serial:
  call void %function(ptr %arrays, i64 0, i64 %units)
  br label %ran
ran:
  %a4 = getelementptr i64, ptr %record, i64 4
  %checks = load i64, ptr %a4, align 8
  %checked = icmp ne i64 %checks, 0
  br i1 %checked, label %check, label %after
check:
  %found = load i64, ptr %error, align 8
  %wrong = icmp ne i64 %found, 0
  br i1 %wrong, label %fail, label %after
after:
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, %last
  br i1 %more, label %next, label %done
fail:
  %failed = add i64 %i, 1
  ret i64 %failed
done:
  ret i64 0
}

define i64 @chainrule_profile(ptr %records, i64 %first, i64 %last, ptr %error, ptr %pool,
                              i64 %threads, ptr %cycles) "quick" {
entry:
  %some = icmp ult i64 %first, %last
  br i1 %some, label %next, label %done
next:
  %i = phi i64 [ %first, %entry ], [ %i1, %after ]
  %i1 = add i64 %i, 1
  %before = call i64 @llvm.readcyclecounter()
  %status = call i64 @chainrule_run(ptr %records, i64 %i, i64 %i1, ptr %error, ptr %pool,
                                   i64 %threads)
  %now = call i64 @llvm.readcyclecounter()
  %took = sub i64 %now, %before
  %cell = getelementptr i64, ptr %cycles, i64 %i
  %sum = load i64, ptr %cell, align 8
  %new = add i64 %sum, %took
  store i64 %new, ptr %cell, align 8
  %bad = icmp ne i64 %status, 0
  br i1 %bad, label %fail, label %after
after:
  %more = icmp ult i64 %i1, %last
  br i1 %more, label %next, label %done
fail:
  ret i64 %status
done:
  ret i64 0
}
"""

# A product behind the common signature: its five pointers come first among the arrays.
PRODUCT = """define void @{name}(ptr %arrays, i64 %lo, i64 %hi) "quick" {{
  %p1 = getelementptr ptr, ptr %arrays, i64 1
  %c1 = load ptr, ptr %p1, align 8
  %a0 = load ptr, ptr %c1, align 8
  %a = getelementptr {type}, ptr %a0, i64 {a}
  %p2 = getelementptr ptr, ptr %arrays, i64 2
  %c2 = load ptr, ptr %p2, align 8
  %b0 = load ptr, ptr %c2, align 8
  %b = getelementptr {type}, ptr %b0, i64 {b}
  %p3 = getelementptr ptr, ptr %arrays, i64 3
  %c3 = load ptr, ptr %p3, align 8
  %c = load ptr, ptr %c3, align 8
  %p4 = getelementptr ptr, ptr %arrays, i64 4
  %c4 = load ptr, ptr %p4, align 8
  %scratch = load ptr, ptr %c4, align 8
  %context = getelementptr ptr, ptr %arrays, i64 5
  call void @{phase}(ptr %a, ptr %b, ptr %c, ptr %scratch, ptr %context, i64 %lo, i64 %hi)
  ret void
}}
"""


class Code:
    """The functions this process has compiled; equal ones are compiled once.

    Code lives as long as an executable uses it, and a while longer. Names say what a function does
    (they hold a hash or all parameters of it), so functions of one name are equal.
    """

    def __init__(self) -> None:
        self.known: dict[str, tuple[int, Any]] = {}       # address, weak reference to its library
        self.recent: deque[build.Library] = deque(maxlen=RECENT)
        self.lock = threading.Lock()
        self.driver: Any = None
        self.run: Any = None
        self.profile: Any = None
        self.address = 0

    def addresses(self, wanted: Sequence[str], texts: dict[str, str]) -> tuple[dict[str, int], Any]:
        """Addresses of the functions `wanted`, compiled where they are not known yet, and what must
        be kept for the code to stay."""
        with self.lock:
            keep: list[Any] = []
            outside: dict[str, int] = {}
            body: dict[str, str] = {}
            waiting = list(dict.fromkeys(wanted))
            seen = set(waiting)
            while waiting:
                name = waiting.pop()
                address = self.look_up(name, keep)
                if address:
                    outside[name] = address
                elif name in texts:
                    body[name] = texts[name]
                    callees = [n for n in called(texts[name]) if n not in seen]
                    seen.update(callees)
                    waiting += callees
            if self.driver is None:
                body["chainrule_run"] = DRIVER
            if body:
                self._load(body, outside, texts, keep)
            known = self.known
            return {name: known[name][0] for name in wanted}, keep

    def look_up(self, name: str, keep: list[Any]) -> int:
        """The address of a function, if its code still lives; 0 if not."""
        found = self.known.get(name)
        library = found[1]() if found is not None else None
        if library is None:
            return 0
        keep.append(library)
        return found[0]  # type: ignore[index]

    def _load(self, body: dict[str, str], outside: dict[str, int], texts: dict[str, str],
              keep: list[Any]) -> None:
        visible = [text if INLINED in text else text.replace("define internal ", "define ", 1)
                   for text in body.values()]
        declared = [declaration(texts[name]) for name in outside if name in texts]
        library = build.load("\n".join([*declared, *visible]), symbols=outside)
        library.uses = list(keep)              # its code calls theirs
        self.recent.append(library)
        keep.append(library)
        for name, text in body.items():
            if text.lstrip().startswith("define") and INLINED not in text:
                self.known[name] = (library.address(name), weakref.ref(library))
        if self.driver is None:
            self._start(library)

    def _start(self, library: build.Library) -> None:
        word = ctypes.c_int64
        self.driver = library
        self.address = library.address("chainrule_run")
        self.run = ctypes.CFUNCTYPE(word, *[word] * 6)(self.address)
        self.profile = ctypes.CFUNCTYPE(word, *[word] * 6, ctypes.c_void_p)(
            library.address("chainrule_profile"))


RECENT = 64
INLINED = "alwaysinline"
NAME = re.compile(r"@([\w.$]+)")
HEAD = re.compile(r"define (?:internal )?(.*?@[\w.$]+\()(.*?)\)[^()]*\{", re.DOTALL)


def called(text: str) -> list[str]:
    """The names a function mentions."""
    return list(dict.fromkeys(NAME.findall(text)))


def declaration(text: str) -> str:
    """`declare` for a function that stands elsewhere."""
    found = HEAD.search(text)
    assert found is not None
    types = re.sub(r" %[\w.$]+(?=,|$)", "", " ".join(found[2].split()))
    return f"declare {found[1]}{types})"


def needed(names: Sequence[str], texts: dict[str, str]) -> list[str]:
    """The texts of these functions and of all they call."""
    found: dict[str, str] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found and name in texts:
            found[name] = texts[name]
            waiting += called(texts[name])
    return list(found.values())


code = Code()
