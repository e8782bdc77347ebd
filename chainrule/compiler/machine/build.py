"""LLVM text to machine code: `load`, `assembly`, and the `target` the text is written for.

The one module that knows llvmlite, and it is imported only when code has to be made: what the cache
holds is linked without it. Parts of a compile: parse, verify, `PASSES`, machine code, link.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import importlib.util
import itertools
import json
import os
import re
import struct
import threading
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from chainrule.compiler.machine import cache as disk
from chainrule.compiler.machine import link
from chainrule.compiler.machine.split import Piece, split
from chainrule.core.errors import BuildError, MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Passes of each level, by the names of llvmlite's `add_..._pass`; 2 is LLVM's own pipeline.
PASSES: tuple[tuple[str, ...], ...] = (
    (),
    ("always_inliner", "simplify_cfg"),  # the text needs no more, and more costs a tenth
    ("O2",),
)
EFFORT = (0, 2, 2)  # of choosing instructions and registers, LLVM's -O
OPTIMISE = 1

# The lines of Linux's description of a processor that tell one kind from another.
TELLING = {
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features",
}

DEFINED = re.compile(r"^define (?!internal|private)[^@\n]*@([\w.$]+)\(", re.MULTILINE)


class Target(NamedTuple):
    """The machine that code is made for.

    `lanes` is the number of float32 in a vector register (16, 8 or 4), `registers` how many vector
    registers there are, `level1` and `level2` the bytes of a core's data caches.
    """

    triple: str
    cpu: str
    features: str
    llvm: str
    lanes: int
    registers: int
    level1: int
    level2: int

    @property
    def fuses(self) -> bool:
        """Has it an instruction for a·b + c? Without one each would be a call."""
        return self.cpu != "x86-64"

    def __str__(self) -> str:
        return (
            f"{self.triple}, {self.cpu}, {self.registers} registers of {self.lanes} float32, "
            f"caches of {self.level1 >> 10} and {self.level2 >> 10} KiB, LLVM {self.llvm}"
        )


class Library:
    """Machine code in memory; it stays as long as this object lives."""

    def __init__(self, addresses: Mapping[str, int], keep: Any) -> None:
        self._addresses = addresses
        self._keep = keep
        self.uses: Any = None              # what must live as long

    def address(self, name: str) -> int:
        """Where the function or global `name` of the text begins."""
        try:
            return self._addresses[name]
        except KeyError:
            known = ", ".join(sorted(self._addresses))
            raise BuildError(f"the text defines no {name!r}. It defines: {known}.") from None


def load(
    text: str, *, symbols: Mapping[str, int] | None = None, optimise: int = OPTIMISE
) -> Library:
    """Machine code of LLVM `text`, ready to be called.

    `symbols` gives the addresses of what the text declares and does not define; names of the C
    library are found without. `optimise`: 0 quickly, 1 a few cheap passes, 2 LLVM's O2.
    """
    name = disk.key("objects 1", text, json.dumps([target(), PASSES[optimise], EFFORT[optimise]]))
    packed = disk.get(name)
    if packed is None:
        objects = _objects(text, optimise)
        disk.put(name, _packed(objects))
    else:
        objects = _unpacked(packed)
    try:
        image = link.link(objects, _resolver(symbols or {}))
    except link.UnsupportedObjectError:
        return _linked_by_llvm(text, objects, symbols or {})
    return Library(image.addresses, image)


def assembly(text: str, *, optimise: int = OPTIMISE) -> str:
    """The assembly that `text` becomes on this machine."""
    return str(_new_machine(EFFORT[optimise]).emit_assembly(_module(text, optimise)))


@cache
def target() -> Target:
    """The machine this process runs on."""
    here = _here()
    name = disk.key("target", here or "", *Target._fields)
    known = disk.get(name) if here else None
    if known is not None:
        return Target(*json.loads(known))
    llvm = _llvm()
    triple = llvm.get_process_triple()
    features = llvm.get_host_cpu_features()
    cpu, lanes, registers = _family(triple.split("-")[0], features)
    if triple.startswith("x86_64"):
        # A tuning of many AVX-512 machines that would halve the vectors LLVM makes by itself.
        features["prefer-256-bit"] = False
    version = ".".join(map(str, llvm.llvm_version_info))
    found = Target(triple, cpu, features.flatten(), version, lanes, registers, *_caches())
    if here:
        disk.put(name, json.dumps(found).encode())
    return found


def _family(architecture: str, features: Mapping[str, bool]) -> tuple[str, int, int]:
    """LLVM's generic processor, float32 lanes and vector registers. The detected name may lie."""

    def has(*names: str) -> bool:
        return all(features.get(name) for name in names)

    if architecture != "x86_64":
        return "generic", 4, 32
    if has("avx512f", "avx512bw", "avx512dq", "avx512vl", "fma", "bmi2"):
        return "x86-64-v4", 16, 32
    if has("avx2", "fma", "bmi2"):
        return "x86-64-v3", 8, 16
    return "x86-64", 4, 16


def _caches() -> tuple[int, int]:
    """Bytes of a core's level 1 data cache and of its level 2 cache; modest ones if not told."""
    sizes = {"1": 32 << 10, "2": 512 << 10}
    for folder in glob.glob("/sys/devices/system/cpu/cpu0/cache/index*"):
        with contextlib.suppress(OSError, ValueError):
            level, kind, size = (_line(folder, name) for name in ("level", "type", "size"))
            if kind in ("Data", "Unified") and level in sizes and size.endswith("K"):
                sizes[level] = int(size[:-1]) << 10
    return sizes["1"], sizes["2"]


def _line(*place: str) -> str:
    with open(os.path.join(*place), encoding="utf-8") as file:
        return file.readline().strip()


@cache
def _here() -> str | None:
    """What `target` depends on: processor and installed LLVM. None if only LLVM can tell."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            first = [line.split(":") for line in itertools.takewhile(str.strip, file)]
    except OSError:
        return None
    processor = [[word.strip() for word in words] for words in first if words[0].strip() in TELLING]
    spec = importlib.util.find_spec("llvmlite")
    folders = (spec and spec.submodule_search_locations) or ()
    libraries = sorted(
        os.path.join(folder, "binding", name)
        for folder in folders
        for name in os.listdir(os.path.join(folder, "binding"))
        if "llvmlite" in name
    )
    about = [(path, os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in libraries]
    return json.dumps([os.uname().machine, processor, about]) if processor and about else None


def _resolver(symbols: Mapping[str, int]) -> Callable[[str], int]:
    def resolve(name: str) -> int:
        known = symbols.get(name)
        if known is not None:
            return known
        for library in _process():
            with contextlib.suppress(AttributeError):
                return ctypes.cast(library[name], ctypes.c_void_p).value or 0
        raise BuildError(
            f"the machine code cannot be linked: {name!r} is neither defined in the text, nor "
            "given by `symbols=`, nor a function of the C library."
        )

    return resolve


@cache
def _process() -> tuple[ctypes.CDLL, ...]:
    """What this process has loaded, and the C library's mathematics."""
    found = [ctypes.CDLL(None)]
    with contextlib.suppress(OSError):
        found.append(ctypes.CDLL("libm.so.6"))
    return tuple(found)


def _linked_by_llvm(text: str, objects: list[bytes], symbols: Mapping[str, int]) -> Library:
    llvm, jit = _llvm(), _jit()
    builder = llvm.JITLibraryBuilder().add_current_process()
    for data in objects:
        builder.add_object_img(data)
    for name, address in symbols.items():
        builder.import_symbol(name, address)
    names = DEFINED.findall(text)
    for name in names:
        builder.export_symbol(name)
    try:
        tracker = builder.link(jit, f"library{next(_numbers)}")
    except RuntimeError as error:
        raise BuildError(f"the machine code cannot be linked: {error}") from None
    return Library({name: tracker[name] for name in names}, (jit, tracker))


_numbers = itertools.count()


@cache
def _llvm() -> Any:
    try:
        import llvmlite.binding as llvm  # type: ignore[import-untyped] # noqa: PLC0415
    except ImportError as error:
        raise MissingPackageError(
            "chainrule compiles through LLVM, and the package llvmlite, which brings it, cannot "
            f"be imported here ({error}). Install it with: pip install llvmlite"
        ) from None
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


@cache
def _machine() -> Any:
    return _new_machine(2)


def _new_machine(effort: int) -> Any:
    goal = target()
    return _llvm().Target.from_triple(goal.triple).create_target_machine(
        cpu=goal.cpu, features=goal.features, opt=effort, reloc="pic", codemodel="small"
    )


@cache
def _jit() -> Any:
    return _llvm().create_lljit_compiler(_machine(), use_jit_link=True)


def _objects(text: str, optimise: int) -> list[bytes]:
    """Object code of the pieces of a text, made at the same time on several cores."""
    pieces = split(text, min(_cores(), 4))
    if len(pieces) == 1:
        return [_object(pieces[0], optimise)]
    made: dict[int, bytes | BuildError] = {}

    def make(number: int) -> None:
        try:
            made[number] = _object(pieces[number], optimise)
        except BuildError as error:
            made[number] = error

    _llvm()
    helpers = [threading.Thread(target=make, args=(number,)) for number in range(1, len(pieces))]
    for one in helpers:
        one.start()
    make(0)
    for one in helpers:
        one.join()
    objects = [made[number] for number in sorted(made)]
    whole = [one for one in objects if isinstance(one, bytes)]
    # If LLVM does not like a piece, let it complain about lines of the whole.
    return whole if len(whole) == len(pieces) else [_object(Piece(text, False), optimise)]


def _object(piece: Piece, optimise: int) -> bytes:
    level = 0 if piece.quick else optimise
    return _emitted(_new_machine(EFFORT[level]), _module(piece.text, level))


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _packed(objects: list[bytes]) -> bytes:
    sizes = struct.pack(f"<{len(objects) + 1}Q", len(objects), *map(len, objects))
    return b"".join([sizes, *objects])


def _unpacked(data: bytes) -> list[bytes]:
    (count,) = struct.unpack_from("<Q", data)
    sizes = struct.unpack_from(f"<{count}Q", data, 8)
    ends = itertools.accumulate(sizes, initial=8 + 8 * count)
    return [data[start : start + size] for start, size in zip(ends, sizes, strict=False)]


def _emitted(machine: Any, module: Any) -> bytes:
    """`machine.emit_object(module)` without llvmlite's lock, which lets one thread in at a time.

    Machine and module (with its context) belong to this thread alone, which is what LLVM asks for.
    """
    emit = _unlocked_emit()
    if emit is None:
        return bytes(machine.emit_object(module))
    ffi = _llvm().ffi
    with ffi.OutputString() as complaint:
        buffer = emit(machine, module, 1, complaint)
        if not buffer:
            raise BuildError(f"LLVM makes no code of the text: {complaint}")
    try:
        start = ffi.lib.LLVMPY_GetBufferStart(buffer)
        return ctypes.string_at(start, ffi.lib.LLVMPY_GetBufferSize(buffer))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


@cache
def _unlocked_emit() -> Any:
    """llvmlite's function behind `emit_object`, or None if this llvmlite is made otherwise."""
    try:
        library = _llvm().ffi.lib
        locked = library.LLVMPY_TargetMachineEmitToMemory
        free = ctypes.CDLL(library._name).LLVMPY_TargetMachineEmitToMemory
        free.argtypes, free.restype = locked.argtypes, locked.restype
    except (AttributeError, OSError):
        return None
    return free


def _module(text: str, optimise: int) -> Any:
    llvm = _llvm()
    try:
        module = llvm.parse_assembly(text, llvm.create_context())
        module.verify()
    except RuntimeError as error:
        raise BuildError(_pointed(text, str(error))) from None
    _improve(module, PASSES[optimise])
    return module


def _improve(module: Any, names: tuple[str, ...]) -> None:
    if not names:
        return
    llvm = _llvm()
    builder = llvm.create_pass_builder(
        _new_machine(2), llvm.create_pipeline_tuning_options(speed_level=2)
    )
    if names == ("O2",):
        passes = builder.getModulePassManager()
    else:
        passes = llvm.create_new_module_pass_manager()
        for name in names:
            getattr(passes, f"add_{name}_pass")()
    passes.run(module, builder)


def _pointed(text: str, complaint: str) -> str:
    """LLVM's complaint with the lines it speaks of."""
    place = re.search(r"<string>:(\d+):\d+", complaint)
    if place is None:
        return f"LLVM refuses the text: {complaint}"
    lines, at = text.splitlines(), int(place[1])
    shown = [
        f"{'>' if number == at else ' '}{number:6} | {lines[number - 1]}"
        for number in range(max(1, at - 3), min(len(lines), at + 2) + 1)
    ]
    return "\n".join([f"LLVM refuses the text: {complaint.strip()}", *shown])
