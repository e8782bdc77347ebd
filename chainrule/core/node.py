"""A `Node` is a row of the table applied: what the tape and every graph are made of."""

from __future__ import annotations

import itertools
import linecache
import sys
import weakref
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from .types import ArrayType

if TYPE_CHECKING:
    from types import CodeType

    import numpy as np

    from .primitive import Primitive

# One clock for recording and for writing: a write that is later than a node came after its save.
tick = itertools.count(1).__next__


class Node:
    """One application of a primitive.

    `inputs` holds a node for each operand that is tracked and None for the others. `saved` holds,
    for each operand, its value if the backward rules read it, else something with `shape` and
    `dtype` (the operand's own node where it has one). `out` is the result if the rules read it;
    `plan` says which of these are read. Small values are kept in any case, for explain.
    A leaf has no primitive; its tensor is reached weakly, so a graph never keeps a tensor alive.
    """

    __slots__ = ("__weakref__", "code", "dtype", "freed", "hooks", "inputs", "lasti", "out",
                 "params", "plan", "prim", "saved", "scope", "seq", "shape")

    def __init__(self, prim: Primitive | None, inputs: tuple[Node | None, ...],
                 params: dict[str, Any], saved: tuple[Any, ...], out: Any, plan: Any,
                 shape: tuple[int, ...], dtype: np.dtype[Any],
                 code: Any, lasti: int, scope: Any) -> None:
        self.prim = prim
        self.inputs = inputs
        self.params = params
        self.saved = saved
        self.out = out
        self.plan = plan
        self.shape = shape
        self.dtype = dtype
        self.code = code
        self.lasti = lasti
        self.scope = scope
        self.seq = tick()
        self.freed: tuple[Any, int] | None = None
        self.hooks: Any = None

    @property
    def type(self) -> ArrayType:
        return ArrayType(self.shape, self.dtype)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def name(self) -> str:
        return self.prim.name if self.prim is not None else "leaf"

    @property
    def origin(self) -> Origin:
        return Origin.of(self.code, self.lasti, self.scope)

    @property
    def called_at(self) -> Origin:
        """The line that called the model in which this node was made, if that was noted; else the
        node's own.
        """
        scope = self.scope
        while scope is not None and scope[0] is not None:
            scope = scope[0]
        if scope is None or len(scope) < 4:
            return self.origin
        code, lasti = scope[3]
        return Origin.of(code, lasti, None)

    def __repr__(self) -> str:
        return f"<{self.name}: {self.type} at {self.origin}>"


# ---------------------------------------------------------------- origins

PACKAGE = __name__.partition(".")[0]
_internal: dict[str, bool] = {}


def is_internal(filename: str) -> bool:
    """Does this file belong to the package? Remembered, since every recorded node asks."""
    known = _internal.get(filename)
    if known is None:
        root = sys.modules[PACKAGE].__path__[0]
        known = _internal[filename] = filename.startswith(root)
    return known


def user_frame(frame: Any) -> Any:
    """The first frame outside the package, from `frame` outwards."""
    internal = _internal
    while frame is not None:
        name = frame.f_code.co_filename
        known = internal.get(name)
        if known is None:
            known = is_internal(name)
        if not known:
            return frame
        frame = frame.f_back
    return None


def user_place(frame: Any) -> tuple[Any, int]:
    """(code, instruction offset) of the user's line that led to `frame`."""
    internal = _internal
    while frame is not None:
        code = frame.f_code
        known = internal.get(code.co_filename)
        if known is None:
            known = is_internal(code.co_filename)
        if not known:
            return code, frame.f_lasti
        frame = frame.f_back
    return None, 0


def here() -> tuple[Any, int]:
    """(code, instruction offset) of the user's line that is running now."""
    return user_place(sys._getframe(1))


class Origin(NamedTuple):
    """Where a node came from: the user's file, line and function, and the module path."""

    file: str
    line: int
    function: str
    module: str

    @staticmethod
    def of(code: CodeType | None, lasti: int, scope: Any) -> Origin:
        if code is None:
            return Origin("", 0, "", scope_path(scope))
        line = code.co_firstlineno
        for start, end, number in code.co_lines():
            if start <= lasti < end and number is not None:
                line = number
        return Origin(code.co_filename, line, code.co_name, scope_path(scope))

    @staticmethod
    def now(scope: Any = None) -> Origin:
        return Origin.of(*here(), scope)

    def __str__(self) -> str:
        if not self.file:
            return "an unknown line"
        place = f"{self.file}:{self.line}"
        return f"{place} ({self.module})" if self.module else place

    def source(self) -> str:
        """The text of the line, or '' if it cannot be read."""
        return linecache.getline(self.file, self.line).strip()


def scope_path(scope: Any) -> str:
    """`encoder.0.linear` from the chain of modules whose call was running."""
    names: list[str] = []
    while scope is not None:
        outer, module = scope[:2]
        if outer is not None:
            parent = outer[1]
            own = [path for path, part in parent.named_modules() if part is module]
            names.append(own[0] if own else type(module).__name__)
        scope = outer
    return ".".join(reversed(names))


# ---------------------------------------------------------------- writes: version counters


class Write:
    """The last in-place write to a storage. Those who always write many together share one."""

    __slots__ = ("count", "place", "seq", "shared", "storage", "what")

    def __init__(self) -> None:
        self.seq = 0
        self.count = 0
        self.place: tuple[Any, int] = (None, 0)
        self.what = ""
        self.storage: Any = None
        self.shared: tuple[Write, ...] = ()

    @property
    def origin(self) -> Origin:
        return Origin.of(*self.place, None)


writes: dict[int, Write] = {}
last_write = 0


def storage_of(array: Any) -> Any:
    """The object that owns the memory of `array`; views of one memory share it."""
    base = array.base
    while base is not None and getattr(base, "base", None) is not None:
        base = base.base
    return array if base is None else base


def write_record(array: Any) -> Write:
    """The record of writes to the memory behind `array`, which lives as long as that memory."""
    owner = storage_of(array)
    key = id(owner)
    found = writes.get(key)
    if found is None:
        found = writes[key] = Write()
        try:
            found.storage = weakref.ref(owner, partial(_forget, key))
        except TypeError:        # an owner such as bytes or a memory map: kept by its id alone
            found.storage = owner
    return found


def _forget(key: int, _: Any) -> None:
    writes.pop(key, None)


def share_record(array: Any, shared: Write) -> None:
    """A write noted in `shared` is one to the memory behind `array` from now on."""
    found = write_record(array)
    if not any(known is shared for known in found.shared):
        found.shared = (*found.shared, shared)


def wrote(array: Any, what: str = "an in-place operation",
          place: tuple[Any, int] | None = None) -> None:
    """Say that the memory behind `array` was changed in place, at the user's line or at `place`."""
    wrote_all((write_record(array),), what, place or here())


def wrote_all(records: Iterable[Write], what: str, place: tuple[Any, int]) -> None:
    """The same for many storages at once, by their records."""
    global last_write
    last_write = seq = tick()
    for record in records:
        record.seq = seq
        record.count += 1
        record.place = place
        record.what = what


def version(array: Any) -> int:
    """How often the memory behind `array` was written in place."""
    found = writes.get(id(storage_of(array)))
    return 0 if found is None else found.count + sum(w.count for w in found.shared)


def written_after(array: Any, seq: int) -> Write | None:
    """The write that changed `array` after moment `seq`, if there was one."""
    found = writes.get(id(storage_of(array)))
    if found is None or found.seq > seq:
        return found
    return next((shared for shared in found.shared if shared.seq > seq), None)
