"""The ways from Python into an executable, as builtins whose C side is compiled here, once for all.

`entrance` takes two lists of arrays: it reads the data pointers straight from the array objects,
writes them into the executable's cells, lets other Python threads run if the work is long, and runs
the table of calls. `gate` takes the arguments of a compiled function as they are, and first looks
whether everything is as it was when the function was compiled: a few comparisons of words.

Both rest on how CPython and NumPy lay out their objects, which is checked before it is relied on;
elsewhere there is neither, and Python does the same, more slowly.
"""

from __future__ import annotations

import ctypes
import struct
import sys
import sysconfig
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from chainrule.compiler.machine import build

# NumPy's flags for memory in row-major order, aligned and writeable, as one number.
CARRAY = 0x1 | 0x100 | 0x400
FASTCALL = 0x80                    # METH_FASTCALL: f(self, arguments, count)

# Work of more nanoseconds than this, by estimate, is done without the interpreter's lock.
RELEASE_FROM = 4000

# `self` is a bytes object; behind its header stand the words of `Way`. A list holds its size and
# then the address of its items; an array begins with reference count, type and data pointer.
TEXT = """
@none = external global i8
@list_type = external global i8
@array_type = external global i8
@type_error = external global ptr
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyLong_FromLongLong(i64)
declare void @PyErr_SetString(ptr, ptr)

@message = private constant MESSAGE

define ptr @chainrule_enter(ptr %self, ptr %arguments, i64 %given) {
entry:
  %words = getelementptr i8, ptr %self, i64 HEADER
  %w1 = getelementptr i8, ptr %words, i64 8
  %w2 = getelementptr i8, ptr %words, i64 16
  %cells = load ptr, ptr %words, align 1
  %inputs = load i64, ptr %w1, align 1
  %outputs = load i64, ptr %w2, align 1
  %two = icmp eq i64 %given, 2
  br i1 %two, label %lists, label %wrong
lists:
  %first.list = load ptr, ptr %arguments
  %second.at = getelementptr ptr, ptr %arguments, i64 1
  %second.list = load ptr, ptr %second.at
  %t1.at = getelementptr i8, ptr %first.list, i64 8
  %t1 = load ptr, ptr %t1.at
  %t2.at = getelementptr i8, ptr %second.list, i64 8
  %t2 = load ptr, ptr %t2.at
  %is1 = icmp eq ptr %t1, @list_type
  %is2 = icmp eq ptr %t2, @list_type
  %both = and i1 %is1, %is2
  br i1 %both, label %sizes, label %wrong
sizes:
  %n1.at = getelementptr i8, ptr %first.list, i64 16
  %n1 = load i64, ptr %n1.at
  %n2.at = getelementptr i8, ptr %second.list, i64 16
  %n2 = load i64, ptr %n2.at
  %fits1 = icmp eq i64 %n1, %inputs
  %fits2 = icmp eq i64 %n2, %outputs
  %fits = and i1 %fits1, %fits2
  br i1 %fits, label %read, label %wrong
read:
  %items1.at = getelementptr i8, ptr %first.list, i64 24
  %items1 = load ptr, ptr %items1.at
  %items2.at = getelementptr i8, ptr %second.list, i64 24
  %items2 = load ptr, ptr %items2.at
  br label %in
in:
  %i = phi i64 [ 0, %read ], [ %i1, %in.array ]
  %in.end = icmp eq i64 %i, %inputs
  br i1 %in.end, label %out, label %in.look
in.look:
  %x.at = getelementptr ptr, ptr %items1, i64 %i
  %x = load ptr, ptr %x.at
  %x.type.at = getelementptr i8, ptr %x, i64 8
  %x.type = load ptr, ptr %x.type.at
  %x.is = icmp eq ptr %x.type, @array_type
  br i1 %x.is, label %in.array, label %wrong
in.array:
  %x.data.at = getelementptr i8, ptr %x, i64 16
  %x.data = load ptr, ptr %x.data.at
  %x.cell = getelementptr ptr, ptr %cells, i64 %i
  store ptr %x.data, ptr %x.cell
  %i1 = add i64 %i, 1
  br label %in
out:
  %k = phi i64 [ 0, %in ], [ %k1, %out.next ]
  %out.end = icmp eq i64 %k, %outputs
  br i1 %out.end, label %ready, label %out.look
out.look:
  %y.at = getelementptr ptr, ptr %items2, i64 %k
  %y = load ptr, ptr %y.at
  %y.type.at = getelementptr i8, ptr %y, i64 8
  %y.type = load ptr, ptr %y.type.at
  %y.none = icmp eq ptr %y, @none
  br i1 %y.none, label %out.next, label %out.check
out.check:
  %y.is = icmp eq ptr %y.type, @array_type
  br i1 %y.is, label %out.array, label %wrong
out.array:
  %y.data.at = getelementptr i8, ptr %y, i64 16
  %y.data = load ptr, ptr %y.data.at
  %place = add i64 %inputs, %k
  %y.cell = getelementptr ptr, ptr %cells, i64 %place
  store ptr %y.data, ptr %y.cell
  br label %out.next
out.next:
  %k1 = add i64 %k, 1
  br label %out
ready:
  %result = call ptr @run(ptr %words)
  ret ptr %result
wrong:
  %kind = load ptr, ptr @type_error
  call void @PyErr_SetString(ptr %kind, ptr @message)
  ret ptr null
}

define internal ptr @run(ptr %words) {
  %w3 = getelementptr i8, ptr %words, i64 24
  %w4 = getelementptr i8, ptr %words, i64 32
  %w5 = getelementptr i8, ptr %words, i64 40
  %w6 = getelementptr i8, ptr %words, i64 48
  %w7 = getelementptr i8, ptr %words, i64 56
  %w8 = getelementptr i8, ptr %words, i64 64
  %run = load ptr, ptr %w3, align 1
  %records = load ptr, ptr %w4, align 1
  %last = load i64, ptr %w5, align 1
  %error = load ptr, ptr %w6, align 1
  %pool = load ptr, ptr %w7, align 1
  %limit = load ptr, ptr %w8, align 1
  %threads = load i64, ptr %limit
  %w9 = getelementptr i8, ptr %words, i64 72
  %release = load i64, ptr %w9, align 1
  %long = icmp ne i64 %release, 0
  br i1 %long, label %released, label %held
released:
  %thread = call ptr @PyEval_SaveThread()
  %status.1 = call i64 %run(ptr %records, i64 0, i64 %last, ptr %error, ptr %pool, i64 %threads)
  call void @PyEval_RestoreThread(ptr %thread)
  br label %return
held:
  %status.2 = call i64 %run(ptr %records, i64 0, i64 %last, ptr %error, ptr %pool, i64 %threads)
  br label %return
return:
  %status = phi i64 [ %status.1, %released ], [ %status.2, %held ]
  %result = call ptr @PyLong_FromLongLong(i64 %status)
  ret ptr %result
}

; behind `Way`: the address of a table (see `Gate`)
define ptr @chainrule_gate(ptr %self, ptr %arguments, i64 %given) {
entry:
  %words = getelementptr i8, ptr %self, i64 HEADER
  %cells = load ptr, ptr %words, align 1
  %w10 = getelementptr i8, ptr %words, i64 80
  %table = load ptr, ptr %w10, align 1
  %count = load i64, ptr %table
  %h1 = getelementptr i64, ptr %table, i64 1
  %h2 = getelementptr i64, ptr %table, i64 2
  %h3 = getelementptr i64, ptr %table, i64 3
  %h4 = getelementptr i64, ptr %table, i64 4
  %h5 = getelementptr i64, ptr %table, i64 5
  %h6 = getelementptr i64, ptr %table, i64 6
  %h7 = getelementptr i64, ptr %table, i64 7
  %value.offset = load i64, ptr %h1
  %node.offset = load i64, ptr %h2
  %tensor.type = load ptr, ptr %h3
  %outs = load i64, ptr %h4
  %n.words = load i64, ptr %h5
  %n.refs = load i64, ptr %h6
  %n.owners = load i64, ptr %h7
  %rows = getelementptr i64, ptr %table, i64 8
  %rows.size = mul i64 %count, 12
  %out.row = getelementptr i64, ptr %rows, i64 %rows.size
  %word.row = getelementptr i64, ptr %out.row, i64 %outs
  %word.size = mul i64 %n.words, 2
  %ref.row = getelementptr i64, ptr %word.row, i64 %word.size
  %ref.size = mul i64 %n.refs, 2
  %owner.row = getelementptr i64, ptr %ref.row, i64 %ref.size
  %all = add i64 %count, %outs
  %fits = icmp eq i64 %given, %all
  br i1 %fits, label %word, label %no

word:
  %i = phi i64 [ 0, %entry ], [ %i1, %word.look ]
  %word.end = icmp eq i64 %i, %n.words
  br i1 %word.end, label %ref, label %word.look
word.look:
  %w.at = mul i64 %i, 2
  %w.first = getelementptr i64, ptr %word.row, i64 %w.at
  %w.place = load ptr, ptr %w.first
  %w.second = getelementptr i64, ptr %w.first, i64 1
  %w.expected = load i64, ptr %w.second
  %w.found = load i64, ptr %w.place
  %w.same = icmp eq i64 %w.found, %w.expected
  %i1 = add i64 %i, 1
  br i1 %w.same, label %word, label %no

ref:
  %r = phi i64 [ 0, %word ], [ %r1, %ref.look ]
  %ref.end = icmp eq i64 %r, %n.refs
  br i1 %ref.end, label %argument, label %ref.look
ref.look:
  %r.at = mul i64 %r, 2
  %r.first = getelementptr i64, ptr %ref.row, i64 %r.at
  %r.place = load ptr, ptr %r.first
  %r.second = getelementptr i64, ptr %r.first, i64 1
  %r.expected = load i32, ptr %r.second
  %r.found = load i32, ptr %r.place
  %r.same = icmp eq i32 %r.found, %r.expected
  %r1 = add i64 %r, 1
  br i1 %r.same, label %ref, label %no

argument:
  %a = phi i64 [ 0, %ref ], [ %a1, %argument.next ]
  %argument.end = icmp eq i64 %a, %count
  br i1 %argument.end, label %out, label %argument.look
argument.look:
  %a.at = mul i64 %a, 12
  %row = getelementptr i64, ptr %rows, i64 %a.at
  %x.at = getelementptr ptr, ptr %arguments, i64 %a
  %x = load ptr, ptr %x.at
  %kind = load i64, ptr %row
  %r.cell = getelementptr i64, ptr %row, i64 1
  %is.tensor = icmp eq i64 %kind, 0
  br i1 %is.tensor, label %tensor, label %object
object:
  %wanted = load ptr, ptr %r.cell
  %same.object = icmp eq ptr %x, %wanted
  br i1 %same.object, label %argument.next, label %no
tensor:
  %x.type.at = getelementptr i8, ptr %x, i64 8
  %x.type = load ptr, ptr %x.type.at
  %right.type = icmp eq ptr %x.type, %tensor.type
  br i1 %right.type, label %history, label %no
history:
  %node.at = getelementptr i8, ptr %x, i64 %node.offset
  %node = load ptr, ptr %node.at
  %plain = icmp eq ptr %node, @none
  br i1 %plain, label %value, label %no
value:
  %value.at = getelementptr i8, ptr %x, i64 %value.offset
  %array = load ptr, ptr %value.at
  %array.type.at = getelementptr i8, ptr %array, i64 8
  %array.type = load ptr, ptr %array.type.at
  %is.array = icmp eq ptr %array.type, @array_type
  br i1 %is.array, label %layout, label %no
layout:
  %descr.at = getelementptr i8, ptr %array, i64 56
  %descr = load i64, ptr %descr.at
  %r.descr = getelementptr i64, ptr %row, i64 2
  %descr.wanted = load i64, ptr %r.descr
  %same.descr = icmp eq i64 %descr, %descr.wanted
  %nd.at = getelementptr i8, ptr %array, i64 24
  %nd = load i32, ptr %nd.at
  %r.nd = getelementptr i64, ptr %row, i64 3
  %nd.wanted = load i64, ptr %r.nd
  %nd.wide = zext i32 %nd to i64
  %same.nd = icmp eq i64 %nd.wide, %nd.wanted
  %flags.at = getelementptr i8, ptr %array, i64 64
  %flags = load i32, ptr %flags.at
  %good = and i32 %flags, 1281
  %contiguous = icmp eq i32 %good, 1281
  %l1 = and i1 %same.descr, %same.nd
  %l2 = and i1 %l1, %contiguous
  br i1 %l2, label %shape, label %no
shape:
  %dims.at = getelementptr i8, ptr %array, i64 32
  %dims = load ptr, ptr %dims.at
  br label %dim
dim:
  %d = phi i64 [ 0, %shape ], [ %d1, %dim.look ]
  %dim.end = icmp eq i64 %d, %nd.wide
  br i1 %dim.end, label %root, label %dim.look
dim.look:
  %dim.at = getelementptr i64, ptr %dims, i64 %d
  %dim.found = load i64, ptr %dim.at
  %d.row = add i64 %d, 4
  %dim.wanted.at = getelementptr i64, ptr %row, i64 %d.row
  %dim.wanted = load i64, ptr %dim.wanted.at
  %same.dim = icmp eq i64 %dim.found, %dim.wanted
  %d1 = add i64 %d, 1
  br i1 %same.dim, label %dim, label %no
root:
  %o = phi ptr [ %array, %dim ], [ %base, %deeper ]
  %o.type.at = getelementptr i8, ptr %o, i64 8
  %o.type = load ptr, ptr %o.type.at
  %o.array = icmp eq ptr %o.type, @array_type
  br i1 %o.array, label %look.base, label %owner
look.base:
  %base.at = getelementptr i8, ptr %o, i64 48
  %base = load ptr, ptr %base.at
  %alone = icmp eq ptr %base, null
  br i1 %alone, label %owner, label %deeper
deeper:
  br label %root
owner:
  %p = phi i64 [ 0, %root ], [ 0, %look.base ], [ %p1, %owner.look ]
  %owner.end = icmp eq i64 %p, %n.owners
  br i1 %owner.end, label %take, label %owner.look
owner.look:
  %owner.at = getelementptr ptr, ptr %owner.row, i64 %p
  %owner.found = load ptr, ptr %owner.at
  %shared = icmp eq ptr %owner.found, %o
  %p1 = add i64 %p, 1
  br i1 %shared, label %no, label %owner
take:
  %cell = load i64, ptr %r.cell
  %unread = icmp slt i64 %cell, 0
  br i1 %unread, label %argument.next, label %put
put:
  %data.at = getelementptr i8, ptr %array, i64 16
  %data = load ptr, ptr %data.at
  %cell.at = getelementptr ptr, ptr %cells, i64 %cell
  store ptr %data, ptr %cell.at
  br label %argument.next
argument.next:
  %a1 = add i64 %a, 1
  br label %argument

out:
  %k = phi i64 [ 0, %argument ], [ %k1, %out.put ]
  %out.end = icmp eq i64 %k, %outs
  br i1 %out.end, label %go, label %out.put
out.put:
  %k.place = add i64 %count, %k
  %y.at = getelementptr ptr, ptr %arguments, i64 %k.place
  %y = load ptr, ptr %y.at
  %y.data.at = getelementptr i8, ptr %y, i64 16
  %y.data = load ptr, ptr %y.data.at
  %y.cell.at = getelementptr i64, ptr %out.row, i64 %k
  %y.cell = load i64, ptr %y.cell.at
  %y.place = getelementptr ptr, ptr %cells, i64 %y.cell
  store ptr %y.data, ptr %y.place
  %k1 = add i64 %k, 1
  br label %out
go:
  %result = call ptr @run(ptr %words)
  ret ptr %result
no:
  %refused = call ptr @PyLong_FromLongLong(i64 -1)
  ret ptr %refused
}
"""
MESSAGE = "an executable takes the list of its inputs and the list of its outputs, all arrays"


class Way(NamedTuple):
    """What an entrance has to know: addresses, and how many arrays there are."""

    cells: int
    inputs: int
    outputs: int
    run: int
    records: int
    calls: int
    error: int
    pool: int
    limit: int
    release: int


def entrance(way: Way, keep: Any) -> Callable[[list[Any], list[Any]], int] | None:
    """A callable (inputs, outputs) -> status of the run; None where objects are laid out otherwise.

    The arrays' dtypes, sizes and strides are not looked at. An output may be None if the graph
    writes it into an input. `keep` lives as long as the callable.
    """
    entry = _entry()
    if entry is None:
        return None
    made: Callable[[list[Any], list[Any]], int] = ctypes.pythonapi.PyCFunction_NewEx(
        ctypes.byref(entry[0]), struct.pack(f"<{len(way)}q", *way), keep)
    return made


class Gate(NamedTuple):
    """What must hold for a call, as a table of words that the gate compares.

    arguments  for each: a tensor without gradient as (cell or -1, dtype, shape), else an object
               that the argument must be
    outputs    the cells of the arrays that follow the arguments
    words      (address, what stands there)
    counts     (address of an object, its reference count)
    owners     objects whose memory is written: no argument may share it
    """

    value_offset: int
    node_offset: int
    tensor_type: int
    arguments: Sequence[Any]
    outputs: Sequence[int]
    words: Sequence[tuple[int, int]]
    counts: Sequence[tuple[int, int]]
    owners: Sequence[int]

    def table(self) -> list[int]:
        """The words in the order the text above reads them."""
        made = [len(self.arguments), self.value_offset, self.node_offset, self.tensor_type,
                len(self.outputs), len(self.words), len(self.counts), len(self.owners)]
        for one in self.arguments:
            if isinstance(one, tuple):
                cell, dtype, shape = one
                row = [0, cell, id(dtype), len(shape), *shape]
            else:
                row = [1, id(one)]
            made += row + [0] * (ROW - len(row))
        made += self.outputs
        for pair in (*self.words, *self.counts):
            made += pair
        return [*made, *self.owners]


ROW = 12
MOST_AXES = ROW - 4


def gate(way: Way, what: Gate, keep: Any) -> Callable[..., int] | None:
    """A callable (*arguments, *outputs) -> status of the run, or -1 if something is not as it was
    and nothing was done. None where objects are laid out otherwise."""
    entry = _entry()
    if entry is None:
        return None
    words = what.table()
    table = (ctypes.c_int64 * len(words))(*words)
    made: Callable[..., int] = ctypes.pythonapi.PyCFunction_NewEx(
        ctypes.byref(entry[1]), struct.pack(f"<{len(way) + 1}q", *way, ctypes.addressof(table)),
        (keep, table, what))
    return made


class MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (("name", ctypes.c_char_p), ("method", ctypes.c_void_p),
                ("flags", ctypes.c_int), ("documentation", ctypes.c_char_p))


@cache
def _entry() -> tuple[MethodDef, MethodDef] | None:
    """The C functions behind all entrances and all gates, if objects are laid out as it expects."""
    if (sys.implementation.name != "cpython" or object.__basicsize__ != 16
            or sysconfig.get_config_var("Py_GIL_DISABLED") or hasattr(sys, "gettotalrefcount")
            or not _laid_out()):
        return None
    python = ctypes.pythonapi
    names = ("PyEval_SaveThread", "PyEval_RestoreThread", "PyLong_FromLongLong", "PyErr_SetString")
    symbols = {name: ctypes.cast(python[name], ctypes.c_void_p).value or 0 for name in names}
    symbols["none"] = id(None)
    symbols["list_type"] = id(list)
    symbols["array_type"] = id(np.ndarray)
    symbols["type_error"] = ctypes.addressof(ctypes.c_void_p.in_dll(python, "PyExc_TypeError"))
    text = TEXT.replace("HEADER", str(bytes.__basicsize__ - 1)).replace(
        "MESSAGE", f'[{len(MESSAGE) + 1} x i8] c"{MESSAGE}\\00"')
    library = build.load(text, symbols=symbols)
    python.PyCFunction_NewEx.restype = ctypes.py_object
    python.PyCFunction_NewEx.argtypes = (ctypes.POINTER(MethodDef), ctypes.py_object,
                                         ctypes.py_object)
    # Callables may outlive every module: neither code nor definition may go before them.
    enter, pass_ = [MethodDef(b"compiled", library.address(name), FASTCALL, None)
                    for name in ("chainrule_enter", "chainrule_gate")]
    for thing in (library, enter, pass_):
        python.Py_IncRef(ctypes.py_object(thing))
    return enter, pass_


def _laid_out() -> bool:
    """Do a list and an array of this interpreter look as the text above says?"""
    array = np.arange(3.0)
    items = [array, array, None]
    word = ctypes.c_int64.from_address
    first = word(id(items) + 24).value
    part = array[1:]
    shaped = (word(id(part) + 48).value == id(array) and word(id(part) + 56).value == id(
        part.dtype) and ctypes.c_int32.from_address(id(part) + 24).value == 1
        and word(word(id(part) + 32).value).value == 2
        and ctypes.c_int32.from_address(id(part) + 64).value & CARRAY == CARRAY
        and not ctypes.c_int32.from_address(id(array[::2]) + 64).value & 1
        and sys.getrefcount(part) - 1 == ctypes.c_int32.from_address(id(part)).value)
    return (shaped and word(id(items) + 8).value == id(list) and word(id(items) + 16).value == 3
            and word(first).value == id(array) and word(first + 16).value == id(None)
            and word(id(array) + 8).value == id(np.ndarray)
            and word(id(array) + 16).value == array.ctypes.data)
