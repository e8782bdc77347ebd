"""A compiled function as a Python callable that costs as little as a builtin.

`native_method(library, name, arrays)` calls `void f(ptr table)` with a table of the data pointers
of its NumPy arguments. On CPython it is a builtin function object whose C side is compiled here,
once for all functions: it reads the pointers straight from the array objects. Elsewhere ctypes
does the same, more slowly.
"""

from __future__ import annotations

import ctypes
import struct
import sys
import sysconfig
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.compiler import build

if TYPE_CHECKING:
    from collections.abc import Callable

FASTCALL = 0x80  # METH_FASTCALL: f(self, arguments, count)
RELEASE, RESULT = 1, 2

# `self` is a bytes object: behind its header stand the address, the number of arrays and flags. An
# array object begins with reference count, type and data pointer.
TEXT = """
@none = external global i8
@type_error = external global ptr
@array_type = external global i8
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare void @Py_IncRef(ptr)
declare ptr @PyLong_FromLongLong(i64)
declare ptr @PyErr_Format(ptr, ptr, ...)

@count_message = private constant COUNT_MESSAGE
@type_message = private constant TYPE_MESSAGE

define ptr @chainrule_native(ptr %self, ptr %arguments, i64 %given) {
entry:
  %address.at = getelementptr i8, ptr %self, i64 HEADER
  %count.at = getelementptr i8, ptr %address.at, i64 8
  %flags.at = getelementptr i8, ptr %address.at, i64 16
  %function = load ptr, ptr %address.at, align 1
  %count = load i64, ptr %count.at, align 1
  %flags = load i64, ptr %flags.at, align 1
  %fits = icmp eq i64 %given, %count
  br i1 %fits, label %prepare, label %other.count
prepare:
  %table = alloca ptr, i64 %count, align 16
  br label %each
each:
  %index = phi i64 [ 0, %prepare ], [ %next, %array ]
  %end = icmp eq i64 %index, %count
  br i1 %end, label %ready, label %look
look:
  %argument.at = getelementptr ptr, ptr %arguments, i64 %index
  %argument = load ptr, ptr %argument.at
  %type.at = getelementptr i8, ptr %argument, i64 8
  %type = load ptr, ptr %type.at
  %is.array = icmp eq ptr %type, @array_type
  br i1 %is.array, label %array, label %other.type
array:
  %data.at = getelementptr i8, ptr %argument, i64 16
  %data = load ptr, ptr %data.at
  %slot = getelementptr ptr, ptr %table, i64 %index
  store ptr %data, ptr %slot
  %next = add i64 %index, 1
  br label %each
ready:
  %release = and i64 %flags, 1
  %free = icmp ne i64 %release, 0
  br i1 %free, label %released, label %held
released:
  %thread = call ptr @PyEval_SaveThread()
  %status.1 = call i64 %function(ptr %table)
  call void @PyEval_RestoreThread(ptr %thread)
  br label %return
held:
  %status.2 = call i64 %function(ptr %table)
  br label %return
return:
  %status = phi i64 [ %status.1, %released ], [ %status.2, %held ]
  %result = and i64 %flags, 2
  %wanted = icmp ne i64 %result, 0
  br i1 %wanted, label %number, label %nothing
number:
  %long = call ptr @PyLong_FromLongLong(i64 %status)
  ret ptr %long
nothing:
  call void @Py_IncRef(ptr @none)
  ret ptr @none
other.count:
  %error.1 = load ptr, ptr @type_error
  call ptr (ptr, ptr, ...) @PyErr_Format(ptr %error.1, ptr @count_message, i64 %count, i64 %given)
  ret ptr null
other.type:
  %error.2 = load ptr, ptr @type_error
  call ptr (ptr, ptr, ...) @PyErr_Format(ptr %error.2, ptr @type_message, i64 %index)
  ret ptr null
}
"""
COUNT_MESSAGE = "compiled code takes %zd arrays and was called with %zd arguments"
TYPE_MESSAGE = "compiled code was called with an argument %zd that is no numpy.ndarray"


def native_method(
    library: build.Library, name: str, arrays: int, *, release: bool = True, result: bool = False
) -> Callable[..., int | None]:
    """A callable for `void @name(ptr table)` of `library`; it takes `arrays` arrays.

    The caller vouches for their dtypes, sizes and strides. `release` lets other Python threads run
    meanwhile (some 50 ns). With `result`, the function returns an i64, and so does the callable.

    Raises:
        TypeError: by the callable, for another number of arguments or what is no plain ndarray.
    """
    entry, address = _entry(), library.address(name)
    if entry is None:
        return _by_ctypes(library, address, arrays, release, result)
    flags = RELEASE * release | RESULT * result
    # The last argument is for the module's name; what matters is that it is kept alive.
    made: Callable[..., int | None] = ctypes.pythonapi.PyCFunction_NewEx(
        ctypes.byref(entry), struct.pack("<QQQ", address, arrays, flags), library
    )
    return made


class MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("method", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("documentation", ctypes.c_char_p),
    )


@cache
def _entry() -> MethodDef | None:
    """The one C function behind all callables, or None where objects may be laid out otherwise."""
    if (
        sys.implementation.name != "cpython"
        or object.__basicsize__ != 16
        or sysconfig.get_config_var("Py_GIL_DISABLED")
        or hasattr(sys, "gettotalrefcount")
    ):
        return None
    names = ("PyEval_SaveThread", "PyEval_RestoreThread", "Py_IncRef", "PyLong_FromLongLong",
             "PyErr_Format")
    python = ctypes.pythonapi
    symbols = {name: ctypes.cast(python[name], ctypes.c_void_p).value or 0 for name in names}
    symbols["none"] = id(None)
    symbols["array_type"] = id(np.ndarray)
    symbols["type_error"] = ctypes.addressof(ctypes.c_void_p.in_dll(python, "PyExc_TypeError"))
    text = TEXT.replace("HEADER", str(bytes.__basicsize__ - 1))
    for place, message in (("COUNT_MESSAGE", COUNT_MESSAGE), ("TYPE_MESSAGE", TYPE_MESSAGE)):
        text = text.replace(place, f'[{len(message) + 1} x i8] c"{message}\\00"')
    library = build.load(text, symbols=symbols, optimise=0)
    python.PyCFunction_NewEx.restype = ctypes.py_object
    python.PyCFunction_NewEx.argtypes = (
        ctypes.POINTER(MethodDef), ctypes.py_object, ctypes.py_object,
    )
    # Callables may outlive every module: neither code nor definition may go before them.
    entry = MethodDef(b"compiled", library.address("chainrule_native"), FASTCALL, None)
    for thing in (library, entry):
        python.Py_IncRef(ctypes.py_object(thing))
    return entry


def _by_ctypes(
    library: build.Library, address: int, arrays: int, release: bool, result: bool
) -> Callable[..., int | None]:
    kind = ctypes.CFUNCTYPE if release else ctypes.PYFUNCTYPE
    function = kind(ctypes.c_int64 if result else None, ctypes.c_void_p)(address)
    table_type = ctypes.c_void_p * arrays

    def compiled(*given: Any) -> int | None:
        if len(given) != arrays:
            raise TypeError(COUNT_MESSAGE.replace("%zd", "{}").format(arrays, len(given)))
        for index, one in enumerate(given):
            if type(one) is not np.ndarray:
                raise TypeError(TYPE_MESSAGE.replace("%zd", "{}").format(index))
        assert library is not None  # the code lives as long as this function refers to it
        table = table_type(*(one.ctypes.data for one in given))
        found: int | None = function(ctypes.addressof(table))
        return found

    return compiled
