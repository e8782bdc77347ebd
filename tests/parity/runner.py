"""How one row of the table is run with a library and compared with PyTorch.

A row is a name, a function of a library `t` and of tensors, and the NumPy arrays these come from:

    rows("unary", lambda add: ...)       see the modules beside this one
    add("tanh", lambda t, x: t.tanh(x), X)

Compared are the values, dtypes and shapes of all that the function returns, whether each result
requires a gradient, the gradient of a fixed random weighted sum of the results with respect to the
inputs, the gradient of a weighted sum of those gradients, and whether an error was raised.
Rows with float64 inputs run a second time in float32, which shows a stray promotion.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity.absent import ABSENT

# What a library raises when it lacks something; a row that must fail may not fail like this.
ACCIDENTS = (AttributeError, NameError, AssertionError, KeyError, RecursionError, MemoryError)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    `raises` is None when either outcome may be PyTorch's. `differs` is (what, reason) where
    chainrule deliberately gives something else: the comparison must then stop at `what`.
    """

    name: str
    call: Callable[..., Any]
    inputs: tuple[np.ndarray, ...]
    grad: bool = True
    second: bool = True
    single: bool = True
    raises: bool | None = False
    tolerance: float = 1.0
    differs: tuple[str, str] | None = None


@dataclass
class Outcome:
    """What one library made of a row; lists follow the order of the results and of the inputs."""

    results: list[Any] = field(default_factory=list)
    gradients: list[np.ndarray | None] = field(default_factory=list)
    seconds: list[np.ndarray | None] = field(default_factory=list)
    error: Exception | None = None


class Absent(Exception):
    """The row needs a function of PyTorch's that `t` does not offer, as `absent.py` says."""


class Mismatch(AssertionError):
    """The libraries disagree; `what` says about which of the things compared."""

    def __init__(self, what: str, message: str) -> None:
        super().__init__(f"{what}: {message}")
        self.what = what


class Table(list[Row]):
    """The rows of one module, under one heading."""

    def __init__(self, heading: str) -> None:
        super().__init__()
        self.heading = heading

    def add(
        self, name: str, call: Callable[..., Any], *inputs: np.ndarray, **options: Any
    ) -> None:
        self.append(Row(f"{self.heading}: {name}", call, inputs, **options))

    def case(self, *inputs: np.ndarray, **options: Any) -> Callable[..., Any]:
        """A decorator: the function is a row that takes more than one line."""

        def register(call: Callable[..., Any]) -> Callable[..., Any]:
            self.add(call.__name__.replace("_", " "), call, *inputs, **options)
            return call

        return register


def array(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    """Fixed random float64 numbers between `low` and `high`, no two alike."""
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape)


# ---- running -----------------------------------------------------------------------------------

def flatten(value: Any) -> Iterator[Any]:
    """The leaves of nested tuples, lists and dicts, in order."""
    if isinstance(value, dict):
        for name in value:
            yield name
            yield from flatten(value[name])
    elif isinstance(value, tuple | list):
        yield f"{len(value)} results"
        for item in value:
            yield from flatten(item)
    else:
        yield value


def weights(count: int, arrays: Sequence[Any]) -> list[np.ndarray]:
    """A fixed random weight for each number of each result."""
    return [
        np.random.default_rng([count, index]).uniform(0.5, 1.5, tuple(item.shape))
        for index, item in enumerate(arrays)
    ]


def weighted_sum(t: Any, count: int, tensors: Sequence[Any]) -> Any:
    total = None
    for tensor, weight in zip(tensors, weights(count, tensors), strict=True):
        term = (tensor * t.tensor(weight.astype(dtype_name(tensor)))).sum()
        total = term if total is None else total + term.to(total.dtype)
    return total


def dtype_name(tensor: Any) -> str:
    return str(tensor.dtype).rsplit(".", 1)[-1]


def to_numpy(tensor: Any) -> np.ndarray:
    return tensor.detach().clone().numpy()


def differentiable(t: Any, values: Sequence[Any]) -> list[Any]:
    return [
        v for v in values
        if isinstance(v, t.Tensor) and v.requires_grad and "float" in dtype_name(v)
    ]


def run(t: Any, row: Row, inputs: Sequence[np.ndarray]) -> Outcome:
    """The row's outcome with the library `t`; an error raised anywhere on the way is a result."""
    outcome = Outcome()
    try:
        tensors = [t.tensor(value) for value in inputs]
        if row.grad:
            for tensor in tensors:
                if "float" in dtype_name(tensor):
                    tensor.requires_grad_()
        leaves = differentiable(t, tensors)
        returned = list(flatten(row.call(t, *tensors)))
        outcome.results = [frozen(t, value) for value in returned]
        tops = differentiable(t, returned)
        if not (row.grad and tops and leaves):
            return outcome
        first = t.autograd.grad(
            weighted_sum(t, 1, tops), leaves, create_graph=row.second, allow_unused=True
        )
        outcome.gradients = [None if g is None else to_numpy(g) for g in first]
        curved = differentiable(t, first) if row.second else []
        if curved:
            second = t.autograd.grad(weighted_sum(t, 2, curved), leaves, allow_unused=True)
            outcome.seconds = [None if g is None else to_numpy(g) for g in second]
    except Exception as error:  # noqa: BLE001 - that there is an error is what is compared
        outcome.error = error
    return outcome


def frozen(t: Any, value: Any) -> Any:
    """A result as plain data: (dtype, requires_grad, array) for a tensor."""
    if isinstance(value, t.Tensor):
        return dtype_name(value), value.requires_grad, to_numpy(value)
    if isinstance(value, np.dtype | type(t.float32)):
        return str(value).rsplit(".", 1)[-1]
    return value


# ---- comparing ---------------------------------------------------------------------------------

TOLERANCES = {"float64": (1e-8, 1e-10), "float32": (3e-5, 3e-6), "float16": (4e-3, 2e-3)}


def expect_close(what: str, ours: np.ndarray, theirs: np.ndarray, factor: float) -> None:
    """Equal up to rounding in the coarser of the two dtypes; NaN equals NaN."""
    if ours.shape != theirs.shape:
        raise Mismatch(f"{what} shape", f"{ours.shape}, PyTorch's is {theirs.shape}")
    relative, absolute = TOLERANCES.get(theirs.dtype.name, (0.0, 0.0))
    if not np.allclose(ours, theirs, relative * factor, absolute * factor, equal_nan=True):
        raise Mismatch(what, f"\n{ours}\nPyTorch's is\n{theirs}")


def expect_same_results(ours: Outcome, theirs: Outcome, factor: float) -> None:
    if len(ours.results) != len(theirs.results):
        raise Mismatch("structure", f"{ours.results}, PyTorch's is {theirs.results}")
    for mine, reference in zip(ours.results, theirs.results, strict=True):
        tensors = isinstance(mine, tuple), isinstance(reference, tuple)
        if tensors != (True, True):
            same = mine == reference or (mine != mine and reference != reference)
            if isinstance(mine, float) and isinstance(reference, float):
                same = same or abs(mine - reference) <= 3e-5 * factor * abs(reference)
            if any(tensors) or type(mine) is not type(reference) or not same:
                raise Mismatch("value", f"{mine!r}, PyTorch's is {reference!r}")
            continue
        if mine[0] != reference[0]:
            raise Mismatch("dtype", f"{mine[0]}, PyTorch's is {reference[0]}")
        expect_close("value", mine[2], reference[2], factor)
        if mine[1] != reference[1]:
            raise Mismatch("requires_grad", f"{mine[1]}, PyTorch's is {reference[1]}")


def expect_same_gradients(what: str, ours: list[Any], theirs: list[Any], factor: float) -> None:
    """No gradient and a gradient of zeros are the same answer here."""
    for i in range(max(len(ours), len(theirs))):
        mine = ours[i] if i < len(ours) else None
        reference = theirs[i] if i < len(theirs) else None
        if mine is None and reference is None:
            continue
        shape = reference if mine is None else mine
        mine = np.zeros_like(shape) if mine is None else mine
        reference = np.zeros_like(shape) if reference is None else reference
        if mine.dtype != reference.dtype:
            raise Mismatch(f"{what} dtype", f"{mine.dtype}, PyTorch's is {reference.dtype}")
        expect_close(f"{what} of input {i}", mine, reference, factor)


def compare(t: Any, torch: Any, row: Row, inputs: Sequence[np.ndarray]) -> None:
    """Raise Mismatch where `t` disagrees with PyTorch about the row."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's; ours are errors
        theirs = run(torch, row, inputs)
        ours = theirs if t is torch else None
    if row.raises is not None and row.raises != (theirs.error is not None):
        raise ValueError(f"the row is wrong about PyTorch: {theirs.error!r}")
    ours = run(t, row, inputs) if ours is None else ours
    if isinstance(ours.error, AttributeError) and ours.error.name in ABSENT and ours is not theirs:
        raise Absent(ours.error.name)
    if (ours.error is None) != (theirs.error is None):
        if ours.error is not None:
            raise Mismatch("error", f"{ours.error!r}; PyTorch raises none") from ours.error
        raise Mismatch("error", f"none; PyTorch's is {theirs.error!r}")
    if ours.error is not None:
        if isinstance(ours.error, ACCIDENTS) and not isinstance(theirs.error, ACCIDENTS):
            raise Mismatch("kind of error", repr(ours.error)) from ours.error
        return
    expect_same_results(ours, theirs, row.tolerance)
    expect_same_gradients("gradient", ours.gradients, theirs.gradients, row.tolerance)
    expect_same_gradients("second gradient", ours.seconds, theirs.seconds, row.tolerance * 10)


def check(t: Any, torch: Any, row: Row) -> None:
    """The row in the dtypes it is written in, and again with float32 for float64."""
    try:
        compare(t, torch, row, row.inputs)
        if row.single and any(value.dtype == np.float64 for value in row.inputs):
            single = [
                value.astype(np.float32) if value.dtype == np.float64 else value
                for value in row.inputs
            ]
            compare(t, torch, row, single)
    except Absent:
        return
    except Mismatch as mismatch:
        if row.differs is None or t is torch or mismatch.what != row.differs[0]:
            raise
    else:
        if row.differs is not None and t is not torch:
            what, reason = row.differs
            raise Mismatch(what, f"no longer differs, though the row says it does: {reason}")
