"""Starts contenders in processes of their own and talks with them."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parent
PATIENCE = 900.0  # seconds for one answer; a large network under torch.compile takes its time


class Contender(NamedTuple):
    """A way to run the step. Of a family's members the fastest stands in the table."""

    name: str
    family: str
    module: str
    library: str
    options: dict[str, Any]


def torch_compiled(name: str, **compiled: Any) -> Contender:
    options = {"compiled": compiled}
    return Contender(f"torch.compile{name}", "torch.compile", "torch_peer", "torch", options)


CONTENDERS = (
    Contender("compiled", "compiled", "chainrule_peer", "chainrule", {"compiled": True}),
    Contender("chainrule eager", "eager", "chainrule_peer", "chainrule", {"compiled": False}),
    Contender("numpy", "NumPy", "numpy_peer", "numpy", {}),
    Contender("torch", "PyTorch", "torch_peer", "torch", {}),
    Contender("torch fused", "PyTorch", "torch_peer", "torch", {"fused": True}),
    torch_compiled(""),
    torch_compiled(" max-autotune", mode="max-autotune"),
    torch_compiled(" cpp-wrapper", options={"cpp_wrapper": True}),
    Contender("jax", "JAX", "jax_peer", "jax", {"inline": False}),
    Contender("jax inline", "JAX", "jax_peer", "jax", {"inline": True}),
    Contender("tinygrad", "tinygrad", "tinygrad_peer", "tinygrad", {}),
)
OURS = ("eager", "compiled")


class Failed(Exception):
    """A contender has no result; the message is what the table says of it."""


def environment(threads: int, caches: Path | None) -> dict[str, str]:
    """The variables by which each library is told its threads, and where it may keep code.

    Without `caches` each does as it does by default: JAX keeps none.
    """
    count = str(threads)
    chosen = dict.fromkeys(
        ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUM_CPU_THREADS",
         "PJRT_NPROC", "NPROC", "CHAINRULE_NUM_THREADS"),
        count,
    )
    eigen = "true" if threads > 1 else "false"
    chosen |= {
        "CHAINRULE_COMPILE": "native",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={eigen}",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    if caches is not None:
        chosen |= {
            "TORCHINDUCTOR_CACHE_DIR": str(caches / "torch"),
            "JAX_COMPILATION_CACHE_DIR": str(caches / "jax"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "CACHEDB": str(caches / "tinygrad.db"),
            "CHAINRULE_CACHE_DIR": str(caches / "chainrule"),
        }
    inherited = dict(os.environ)
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)  # byte code is there after an installation
    # A checkout's own package is found too.
    paths = [str(FOLDER.parents[1]), *filter(None, [inherited.get("PYTHONPATH")])]
    return inherited | {"PYTHONPATH": os.pathsep.join(paths)} | chosen


class Process:
    """A contender's process. Used as a context, so that it ends with it."""

    def __init__(
        self,
        contender: Contender,
        workload: str,
        threads: int,
        cores: set[int] | None = None,
        caches: Path | None = None,
    ) -> None:
        self.contender = contender
        job = {
            "module": contender.module, "library": contender.library,
            "options": contender.options, "workload": workload, "threads": threads,
            "cores": sorted(cores or ()),
        }
        self.complaints = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self.process = subprocess.Popen(
            [sys.executable, str(FOLDER / "worker.py"), json.dumps(job)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.complaints,
            env=environment(threads, caches), bufsize=0,
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Waits until the library is imported."""
        self._answer(PATIENCE)

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """The answer to one command, or `Failed`."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **values}).encode() + b"\n")
        except BrokenPipeError:
            raise Failed(self._last_words()) from None
        return self._answer(PATIENCE)

    def _answer(self, seconds: float) -> dict[str, Any]:
        pipe = self.process.stdout
        assert pipe is not None
        if not select.select([pipe], [], [], seconds)[0]:
            self.process.kill()
            raise Failed(f"no answer in {seconds:.0f} s")
        line = pipe.readline()
        if not line:
            raise Failed(self._last_words())
        values: dict[str, Any] = json.loads(line)
        if "unavailable" in values:
            raise Failed(values["unavailable"])
        return values

    def _last_words(self) -> str:
        self.process.wait(10)
        self.complaints.seek(0)
        text = self.complaints.read().decode(errors="replace").strip()
        # The message of the last error begins at the margin, below its indented calls.
        _, _, last = text.rpartition("Traceback (most recent call last):\n")
        lines = [line for line in last.splitlines() if line.strip()]
        begins = max((i + 1 for i, line in enumerate(lines) if line.startswith("    ")), default=0)
        message = " ".join(line.strip() for line in lines[begins:] or lines[-1:])
        return f"{message[:500] or 'it ended'} (exit code {self.process.returncode})"

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.complaints.close()
