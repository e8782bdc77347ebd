"""What programs ask about devices. There is one: the CPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NoReturn

from .core.errors import DtypeError

__all__ = ["accelerator", "backends", "cuda", "device"]


class device(str):
    """The name of a device; only 'cpu' exists.

    >>> device("cpu").type
    'cpu'
    """

    __slots__ = ()

    def __new__(cls, name: Any = "cpu", index: int | None = None) -> device:
        """`device('cpu')`; any other name is refused."""
        if str(name).partition(":")[0] != "cpu":
            raise DtypeError(f"device({str(name)!r}): chainrule computes on the CPU only. Write "
                             "device('cpu'), or leave the device out.")
        return super().__new__(cls, "cpu")

    @property
    def type(self) -> str:
        """'cpu'."""
        return "cpu"

    @property
    def index(self) -> None:  # type: ignore[override]
        """None: there is one CPU."""
        return None


def require_cpu(name: Any) -> None:
    """Refuse any device but None and the CPU."""
    if name is not None and name != "cpu":
        device(name)


def refuse_cuda(name: str) -> NoReturn:
    """The error for `name.cuda()`."""
    raise DtypeError(f"{name}.cuda(): chainrule computes on the CPU only. Leave it out; "
                     f"{name}.to('cpu') is allowed and changes nothing.")


def _no(*_: Any) -> bool:
    return False


def _none(*_: Any) -> int:
    return 0


def _nothing(*_: Any, **__: Any) -> None:
    return None


# So that `"cuda" if torch.cuda.is_available() else "cpu"` gives the right answer.
cuda = SimpleNamespace(is_available=_no, device_count=_none, manual_seed=_nothing,
                       manual_seed_all=_nothing, synchronize=_nothing, empty_cache=_nothing)
backends = SimpleNamespace(mps=SimpleNamespace(is_available=_no),
                           cudnn=SimpleNamespace(deterministic=True, benchmark=False))
accelerator = SimpleNamespace(is_available=_no, current_accelerator=_nothing)
