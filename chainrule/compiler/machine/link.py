"""Object files become code in memory without a linker: sections are placed, addresses filled in.

Reads what LLVM writes for x86-64 in ELF, position independent. Anything else raises
`UnsupportedObjectError`; `build` then asks LLVM's own linker, which costs the import of LLVM.
Reference: System V ABI, AMD64 supplement, chapter 4.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SUPPORTED = sys.platform.startswith(("linux", "freebsd"))

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
RELOCATION = struct.Struct("<QQq")
X86_64, RELOCATABLE = 62, 1
PROGBITS, SYMBOLS, RELOCATIONS, NOBITS = 1, 2, 4, 8
WRITE, ALLOCATE, EXECUTE, THREAD_LOCAL = 1, 2, 4, 0x400
OUTSIDE = -1
SOURCE, PART = 4, 3  # symbols that stand for the source's name and for a whole section
UNWIND = b".eh_frame"  # exceptions never pass through compiled code

ABSOLUTE_64, RELATIVE_32, CALL_32, RELATIVE_64 = 1, 2, 4, 24
SLOT_32 = (9, 41, 42)  # relative to a slot that holds the symbol's address

# One door for each outside symbol: `jmp [rip + 2]`, two bytes of padding, then the address.
# Calls go to its beginning; its second half is the slot that other references read.
JUMP = b"\xff\x25\x02\x00\x00\x00\x90\x90"
DOOR = 16


class UnsupportedObjectError(Exception):
    """An object for another machine, or with something not provided for here."""


class Section(NamedTuple):
    """A part of an object that is loaded; `data` is None for zeros."""

    flags: int
    size: int
    align: int
    data: bytes | None


class Symbol(NamedTuple):
    """A name; `section` is an index into all sections, or OUTSIDE."""

    name: str
    shared: bool
    section: int
    value: int


class Relocation(NamedTuple):
    """A place in a section that waits for the address of a symbol (indices into all of them)."""

    section: int
    offset: int
    kind: int
    symbol: int
    addend: int


class Contents(NamedTuple):
    """What all objects of a program hold, in one numbering."""

    sections: list[Section]
    symbols: list[Symbol]
    relocations: list[Relocation]


class Image(NamedTuple):
    """Mapped code and where its global symbols are. The memory lives as long as this does."""

    memory: mmap.mmap
    addresses: dict[str, int]


def link(objects: Sequence[bytes], resolve: Callable[[str], int]) -> Image:
    """Map object files, which may use each other; `resolve(name)` knows what none of them defines.

    Raises:
        UnsupportedObjectError: an object for another machine, or with something unknown in it.
    """
    sections, symbols, relocations = contents = Contents([], [], [])
    for data in objects:
        _read(data, contents)
    defined = {one.name: one for one in symbols if one.shared and one.section != OUTSIDE}
    # An undefined symbol of one object may be a defined one of another.
    symbols = [defined.get(one.name, one) if one.section == OUTSIDE else one for one in symbols]
    doors = sorted({
        one.symbol for one in relocations
        if one.kind in SLOT_32 or symbols[one.symbol].section == OUTSIDE
    })
    places, room, frozen, size = _layout(sections, len(doors))
    memory = mmap.mmap(
        -1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE
    )
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))

    def address(one: Symbol) -> int:
        inside = one.section != OUTSIDE
        return base + places[one.section] + one.value if inside else resolve(one.name)

    for section, place in zip(sections, places, strict=True):
        if section.data is not None:
            memory[place : place + section.size] = section.data
    door = {index: room + DOOR * number for number, index in enumerate(doors)}
    for index, place in door.items():
        memory[place : place + DOOR] = JUMP + struct.pack("<Q", address(symbols[index]))
    for one in relocations:
        place, symbol = places[one.section] + one.offset, symbols[one.symbol]
        if one.kind in SLOT_32:
            goal = base + door[one.symbol] + len(JUMP)
        elif one.kind == CALL_32 and symbol.section == OUTSIDE:
            goal = base + door[one.symbol]
        else:
            goal = address(symbol)
        _fill(memory, place, one.kind, goal + one.addend, base + place)
    _protect(base, frozen)
    return Image(memory, {name: address(one) for name, one in defined.items()})


def _fill(memory: mmap.mmap, place: int, kind: int, goal: int, here: int) -> None:
    if kind == ABSOLUTE_64:
        struct.pack_into("<Q", memory, place, goal % 2**64)
    elif kind == RELATIVE_64:
        struct.pack_into("<q", memory, place, goal - here)
    elif kind in (RELATIVE_32, CALL_32, *SLOT_32) and abs(goal - here) < 2**31:
        struct.pack_into("<i", memory, place, goal - here)
    else:
        raise UnsupportedObjectError(f"relocation {kind} over {goal - here} bytes")


def _layout(sections: list[Section], doors: int) -> tuple[list[int], int, int, int]:
    """Offsets of the sections and of the doors, the size of the frozen part and of the whole."""
    places = [0] * len(sections)
    # Instructions, doors, constants; then, on pages of their own, what may be written.
    fixed = [n for n, one in enumerate(sections) if not one.flags & WRITE]
    end = 0
    for index in sorted(fixed, key=lambda n: not sections[n].flags & EXECUTE):
        places[index] = _up(end, sections[index].align)
        end = places[index] + sections[index].size
    room = _up(end, DOOR)
    frozen = end = _up(room + DOOR * doors, mmap.PAGESIZE)
    for index, one in enumerate(sections):
        if one.flags & WRITE:
            places[index] = _up(end, one.align)
            end = places[index] + one.size
    return places, room, frozen, max(_up(end, mmap.PAGESIZE), mmap.PAGESIZE)


def _up(size: int, align: int) -> int:
    return -(-size // max(align, 1)) * max(align, 1)


def _protect(base: int, size: int) -> None:
    system = ctypes.CDLL(None, use_errno=True)
    prot = mmap.PROT_READ | mmap.PROT_EXEC
    if size and system.mprotect(ctypes.c_void_p(base), ctypes.c_size_t(size), prot):
        raise UnsupportedObjectError(f"no memory for code: error {ctypes.get_errno()}")


def _read(data: bytes, contents: Contents) -> None:
    """Add what one object holds."""
    if not SUPPORTED or len(data) < HEADER.size or data[:6] != b"\x7fELF\x02\x01":
        raise UnsupportedObjectError("not an ELF object of a 64-bit machine")
    header = HEADER.unpack_from(data)
    object_kind, machine, start, count, names = (header[n] for n in (1, 2, 6, 12, 13))
    if (object_kind, machine) != (RELOCATABLE, X86_64):
        raise UnsupportedObjectError(f"object of kind {object_kind} for machine {machine}")
    table = [SECTION.unpack_from(data, start + SECTION.size * n) for n in range(count)]
    titles = table[names][4]
    first_symbol = len(contents.symbols)
    known: dict[int, int] = {}  # the object's number of a section: ours
    for number, (name, kind, flags, _, offset, size, _, _, align, _) in enumerate(table):
        if not flags & ALLOCATE or data.startswith(UNWIND, titles + name):
            continue
        if flags & THREAD_LOCAL or kind not in (PROGBITS, NOBITS):
            raise UnsupportedObjectError(f"a section of kind {kind}, flags {flags}")
        known[number] = len(contents.sections)
        filled = data[offset : offset + size] if kind == PROGBITS else None
        contents.sections.append(Section(flags, size, align, filled))
    for _, kind, _, _, offset, size, linked, info, _, _ in table:
        if kind == SYMBOLS:
            text = table[linked][4]
            for at in range(offset, offset + size, SYMBOL.size):
                name, about, _, number, value, _ = SYMBOL.unpack_from(data, at)
                title = data[text + name : data.index(b"\0", text + name)].decode()
                if number not in known and number and about & 15 not in (SOURCE, PART):
                    raise UnsupportedObjectError(f"symbol {title} in section {number}")
                place = known.get(number, OUTSIDE)
                contents.symbols.append(Symbol(title, about >> 4 > 0, place, value))
        elif kind == RELOCATIONS and info in known:
            for at in range(offset, offset + size, RELOCATION.size):
                where, what, addend = RELOCATION.unpack_from(data, at)
                symbol = first_symbol + (what >> 32)
                contents.relocations.append(
                    Relocation(known[info], where, what % 2**32, symbol, addend)
                )
