"""LLVM text in pieces that can be compiled at the same time, and pieces that need no great effort.

Choosing instructions and registers is nearly all of a compile, and its cost is per function. So a
long text is dealt out to as many modules as there are cores. Functions marked `"quick"` (a string
attribute on their `define` line), where little time will be spent, get a module of their own that
is compiled with less effort, some five times faster.
"""

from __future__ import annotations

import re
from typing import NamedTuple

QUICK = '"quick"'
SMALL = 250  # lines that are not worth another module

START = re.compile(r"(define|declare|attributes|target|source_filename)\b|[@%!]|\$")
NAME = re.compile(r'@([\w.$-]+|"[^"]*")')
CONSTANT = re.compile(r"@[\w.$-]+ = (private|internal) (unnamed_addr )?constant ")
HEAD = re.compile(r"define .*?\{(?=[ \t]*\n)", re.DOTALL)
PARAMETER = re.compile(r" %[\w.$-]+(?=\s*[,)])")
LINKAGE = re.compile(r"^define (internal |private |dso_local |hidden )*")


class Piece(NamedTuple):
    """Text of one module; `quick` where little effort will do."""

    text: str
    quick: bool


def split(text: str, most: int) -> list[Piece]:
    """Pieces of `text`, at most `most` and those of quick functions; together they define the same.

    What cannot be taken apart (variables that several functions share) comes back as one piece.
    """
    entries = _entries(text)
    functions = {_name(one): one for one in entries if one.startswith("define")}
    declared = {_name(one): one for one in entries if one.startswith("declare")}
    globals_ = {_name(one): one for one in entries if one.startswith("@")}
    rest = [one for one in entries if not one.startswith(("define", "declare", "@"))]
    groups = _groups(functions, most)
    if len(groups) < 2 or not all(CONSTANT.match(one) for one in globals_.values()):
        only_quick = bool(functions) and all(QUICK in _head(one) for one in functions.values())
        return [Piece(text, only_quick)]
    pieces = []
    for names in groups:
        own = {name: LINKAGE.sub(_visible, functions[name]) for name in names}
        needed: dict[str, str] = {}
        waiting = list(own.values())
        while waiting:
            for name in NAME.findall(waiting.pop()):
                if name in own or name in needed:
                    continue
                if name in globals_ or _inlined(functions.get(name, "")):
                    needed[name] = globals_.get(name) or functions[name]
                    waiting.append(needed[name])
                elif name in functions:
                    needed[name] = _declaration(functions[name])
                elif name in declared:
                    needed[name] = declared[name]
        quick = QUICK in _head(functions[names[0]])
        pieces.append(Piece("".join([*rest, *needed.values(), *own.values()]), quick))
    return pieces


def _entries(text: str) -> list[str]:
    """What stands on the top level, each with its lines."""
    found: list[list[str]] = []
    inside = False
    for line in text.splitlines(keepends=True):
        if not inside and START.match(line):
            found.append([])
            inside = line.startswith("define")
        if found:
            found[-1].append(line if line.endswith("\n") else line + "\n")
        if inside and line.startswith("}"):
            inside = False
    return ["".join(lines) for lines in found]


def _name(entry: str) -> str:
    found = NAME.search(entry)
    return found[1] if found else ""


def _head(function: str) -> str:
    """All before the body, which may be on several lines."""
    found = HEAD.match(function)
    return " ".join(found[0].split()) if found else ""


def _inlined(function: str) -> bool:
    return "alwaysinline" in _head(function)


def _visible(linkage: re.Match[str]) -> str:
    """What only the text itself could see must be seen by its other pieces."""
    own = "internal" in linkage[0] or "private" in linkage[0]
    return "define hidden " if own else linkage[0]


def _groups(functions: dict[str, str], most: int) -> list[list[str]]:
    """Names of functions: the quick ones, then the others in heaps of similar length."""
    sizes = {name: one.count("\n") for name, one in functions.items() if not _inlined(one)}
    quick = [name for name in sizes if QUICK in _head(functions[name])]
    slow = sorted(sizes.keys() - set(quick), key=lambda name: (-sizes[name], name))
    count = max(1, min(most, sum(sizes[name] for name in slow) // SMALL))
    heaps: list[list[str]] = [[] for _ in range(count)]
    weights = [0] * count
    for name in slow:
        least = weights.index(min(weights))
        heaps[least].append(name)
        weights[least] += sizes[name]
    return [one for one in (*heaps, quick) if one]


def _declaration(function: str) -> str:
    """`declare` for a function of another piece: its first line, without parameters' names."""
    head = LINKAGE.sub("declare hidden ", _head(function)).rpartition("{")[0]
    before, _, after = head.partition("@")
    return f"{before}@{PARAMETER.sub('', after)}\n"
