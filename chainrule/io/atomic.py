"""Writing a file so that a reader finds the old content or the new, never half of it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: bytes, replace: bool = True) -> None:
    """Write `content` to `path` in one step.

    The bytes go to a hidden file in the same folder, reach the disk, and then take the name. A
    process that is killed on the way leaves the old file (and perhaps the hidden one, whose name
    ends in `.part`). With `replace=False` an existing file raises FileExistsError, even when
    another process makes it at the same moment.
    """
    target = Path(os.path.realpath(path))  # a symbolic link stays one
    # A plain open respects the umask; the mode of a file that is replaced is kept.
    part = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            if target.exists():
                part.chmod(target.stat().st_mode & 0o7777)
            part.replace(target)
        else:
            _take_free_name(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


_BINARY = getattr(os, "O_BINARY", 0)  # Windows alone has it


def _take_free_name(part: Path, target: Path) -> None:
    try:
        os.link(part, target)  # fails when the name is taken; a rename would replace
    except FileExistsError:
        raise FileExistsError(f"{target} exists already.") from None
    except OSError:
        # A file system without hard links (FAT): the best that is left is to look first.
        if target.exists():
            raise FileExistsError(f"{target} exists already.") from None
        part.replace(target)
    else:
        part.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable; a system that cannot open folders does so on its own."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
