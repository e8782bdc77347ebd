"""Machine code on disk, by the hash of everything it was made from.

    CHAINRULE_CACHE_DIR=/somewhere    another directory
    CHAINRULE_CACHE=false             no cache
    CHAINRULE_CACHE_SIZE=64           at most 64 MiB; what was not used for longest goes first

A cache never makes a program fail: an entry that is damaged or that somebody else could have
written counts as missing, and without a directory to write to code is made anew each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import sys
import time
from dataclasses import dataclass, field

from chainrule.core.config import settings

MAGIC = b"chainrule code 1\n"
DIGEST = 20
SUFFIX = ".code"
TEMPORARY = ".part"

HOUR = 3600.0
UNUSABLE = (OSError, ValueError)  # ValueError: a path with a zero byte in it


@dataclass
class Report:
    """What the cache did in this process; `reason` is the last thing that kept it from working."""

    hits: int = 0
    misses: int = 0
    stored: int = 0
    removed: int = 0
    reason: str | None = None
    fresh: int = field(default=0, repr=False)  # bytes stored since sizes were last added up


report = Report()
_numbers = itertools.count()


def key(*parts: str | bytes) -> str:
    """The name of what was made from `parts`; each part's length counts, so none can run on.

    >>> key("a", "bc") == key("ab", "c")
    False
    """
    digest = hashlib.blake2b(digest_size=DIGEST)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()


def directory() -> str:
    """Where entries are kept: `settings.cache_dir`, else the user's cache directory."""
    if settings.cache_dir:
        return _at_home(settings.cache_dir)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return os.path.join(_at_home(base), "chainrule")


def _at_home(path: str) -> str:
    found = os.path.expanduser(path)
    if found.startswith("~"):
        raise OSError(f"there is no home directory for the cache {path}")
    return found


def get(name: str) -> bytes | None:
    """What was put under `name`, or None."""
    if not settings.cache:
        return None
    try:
        with open(os.path.join(directory(), name + SUFFIX), "rb") as file:
            about = os.fstat(file.fileno())
            entry = file.read() if _ours(about) else b""
    except UNUSABLE as error:
        if not isinstance(error, FileNotFoundError):
            report.reason = str(error)
        report.misses += 1
        return None
    payload = _opened(name, entry)
    if payload is None:
        report.misses += 1
        return None
    report.hits += 1
    if time.time() - about.st_mtime > HOUR:  # the time of last use, to the hour
        with contextlib.suppress(OSError):
            os.utime(os.path.join(directory(), name + SUFFIX))
    return payload


def put(name: str, payload: bytes) -> None:
    """Keep `payload` under `name`: all of it or nothing, whatever else happens meanwhile."""
    if not settings.cache:
        return
    entry = _head(name, payload) + payload
    try:
        folder = directory()
        os.makedirs(folder, mode=0o700, exist_ok=True)
        unique = f"{name}.{os.getpid()}.{time.time_ns()}.{next(_numbers)}"
        part = os.path.join(folder, unique + TEMPORARY)
        try:
            with open(part, "xb", opener=_private) as file:
                file.write(entry)
            os.replace(part, os.path.join(folder, name + SUFFIX))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise
        report.stored += 1
        report.fresh += len(entry)
        # Adding up sizes reads the whole directory: done by one name in 16, which bounds it
        # however many processes write a little each, and by a process that writes much.
        if int(name[:8], 16) % 16 == 0 or report.fresh > settings.cache_size << 17:
            report.fresh = 0
            _shrink(folder, settings.cache_size << 20)
    except UNUSABLE as error:
        report.reason = str(error)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _head(name: str, payload: bytes) -> bytes:
    digest = hashlib.blake2b(payload, digest_size=DIGEST, key=name.encode()).digest()
    return MAGIC + digest + len(payload).to_bytes(8, "little")


def _opened(name: str, entry: bytes) -> bytes | None:
    size = len(MAGIC) + DIGEST + 8
    payload = entry[size:]
    return payload if entry and entry[:size] == _head(name, payload) else None


def _ours(about: os.stat_result) -> bool:
    """Code is run: only a file that nobody else could have written is taken."""
    if not hasattr(os, "geteuid"):
        return True
    if about.st_uid == os.geteuid() and not about.st_mode & 0o022:
        return True
    report.reason = f"entries belong to user {about.st_uid} or can be written by others"
    return False


def _shrink(folder: str, limit: int) -> None:
    """Remove what was used longest ago until three quarters of `limit` bytes are left."""
    now, entries = time.time(), []
    with os.scandir(folder) as found:
        for one in found:
            with contextlib.suppress(OSError):  # another process was faster
                about = one.stat()
                if one.name.endswith(SUFFIX):
                    entries.append((about.st_mtime, about.st_size, one.path))
                elif one.name.endswith(TEMPORARY) and now - about.st_mtime > HOUR:
                    os.unlink(one.path)  # its writer was killed
    total = sum(size for _, size, _ in entries)
    if total <= limit:
        return
    for _, size, path in sorted(entries):
        with contextlib.suppress(OSError):
            os.unlink(path)
            report.removed += 1
        total -= size
        if total <= limit * 3 // 4:
            return
