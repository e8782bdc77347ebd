"""What a library costs before it computes anything: seconds to import, bytes on the disk."""

from __future__ import annotations

import importlib.util
import os
import re
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

TIMED_IMPORT = """
import time
begun = time.perf_counter()
import {}
print(time.perf_counter() - begun)
"""


def import_times(library: str, processes: int = 15) -> dict[str, float]:
    """Median seconds of `import`, each in fresh processes, in turn; and what we add to NumPy's."""
    names = ("numpy", library, "torch")
    samples: dict[str, list[float]] = {name: [] for name in names}
    with TemporaryDirectory() as folder:
        # Byte code is there after an installation, whatever this process was told to do about it.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for turn in range(processes + 1):
            for name in samples:
                printed = subprocess.run(
                    [sys.executable, "-c", TIMED_IMPORT.format(name)],
                    check=True, capture_output=True, text=True, env=environment,
                ).stdout
                if turn:  # the first one writes the byte code and reads the files from the disk
                    samples[name].append(float(printed))
    times = {name: statistics.median(values) for name, values in samples.items()}
    return times | {f"{library} beyond numpy": times[library] - times["numpy"]}


def requirements(name: str) -> set[str]:
    """The names of the distributions that `name` needs on this machine, itself among them."""
    wanted, found = [name], set[str]()
    while wanted:
        current = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if current in found:
            continue
        try:
            lines = metadata.requires(current) or []
        except metadata.PackageNotFoundError:
            continue  # its marker excludes it here
        found.add(current)
        wanted += [
            re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]
            for line in lines
            if "extra ==" not in line
        ]
    return found


def folder_size(folder: Path) -> int:
    return sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )


def distribution_size(name: str) -> int:
    """Bytes of the installed files, without byte code; of the folder, when installed editable."""
    files = metadata.files(name) or []
    located = [Path(str(file.locate())) for file in files if "__pycache__" not in file.parts]
    size = sum(path.stat().st_size for path in located if path.is_file())
    spec = importlib.util.find_spec(name.replace("-", "_"))
    packaged = spec is not None and (spec.origin or "").endswith("__init__.py")
    if spec and spec.origin and packaged and Path(spec.origin) not in located:
        size += folder_size(Path(spec.origin).parent)
    return size


def install_sizes(library: str) -> dict[str, dict[str, int]]:
    """Bytes on the disk of the library and of PyTorch, with everything each needs."""
    sizes = {}
    for name in (library, "torch"):
        parts = {part: distribution_size(part) for part in requirements(name)}
        if not parts:  # not installed: it runs from a checkout
            parts[name] = folder_size(Path(importlib.util.find_spec(name).origin).parent)  # type: ignore[union-attr,arg-type]
        numpy = parts.pop("numpy", 0) or distribution_size("numpy")
        bare = sum(parts.values())
        sizes[name] = {"all": bare + numpy, "without numpy": bare}
    return sizes
