"""What must hold after each stage. Run when `settings.verify` is on, as it is in the tests."""

from __future__ import annotations

from collections.abc import Sequence

from chainrule.compiler.arrays.arrays import Array
from chainrule.compiler.arrays.index import Affine
from chainrule.compiler.kernels.kernel import Kernel, Load, Operand, Picked, home_of
from chainrule.compiler.kernels.schedule import Schedule
from chainrule.core.errors import GraphError


def arrays(outputs: Sequence[Array]) -> None:
    """Operands come before what is made of them, maps keep shapes, views stay inside."""
    seen: set[int] = set()
    waiting = list(outputs)
    while waiting:
        x = waiting.pop()
        if x.number in seen:
            continue
        seen.add(x.number)
        for operand in x.arrays:
            if operand.number >= x.number:
                raise fault(f"{x!r} is made of a{operand.number}, which comes after it")
            if x.kind == "map" and operand.shape != x.shape:
                raise fault(f"{x!r} is a map of {operand.type}")
            waiting.append(operand)
        if x.kind == "view":
            inside(x, x.what, x.shape, x.inputs[0].shape)
        elif x.kind == "assemble":
            for part, where in zip(x.inputs, x.what[0], strict=True):
                inside(x, where, part.shape, x.shape)
        elif x.kind == "reshape" and x.inputs[0].size != x.size:
            raise fault(f"{x!r} has another size than {x.inputs[0].type}")


def inside(x: Array, indices: Sequence[Affine], domain: Sequence[int],
           shape: Sequence[int]) -> None:
    if 0 in domain:
        return
    for axis, (index, n) in enumerate(zip(indices, shape, strict=True)):
        low, high = index.bounds(domain)
        if low < 0 or high >= n:
            raise fault(f"{x!r} reaches {low} … {high} of axis {axis}, which has {n} elements")


def kernels(schedule: Schedule) -> None:
    """Everything read was written before, at places inside it; old values are read in time."""
    made: set[int] = set()
    gone: set[int] = set()
    inputs = {}
    for kernel in schedule.kernels:
        for home, _ in kernel.loads():
            if home.kind == "input":
                inputs[home.what] = home.number
    for kernel in schedule.kernels:
        own = {home.number for home in kernel.written()}
        finished = {home.number for home in kernel.finish.written()} if kernel.finish else set()
        for home, _ in kernel.loads():
            # A map has what it stores in registers; what finishes a product reads its block.
            known = home.kind in ("input", "const") or home.number in made or (
                kernel.kind != "map" and home.number in own and home.number not in finished)
            if not known:
                raise fault(f"{kernel!r} reads a{home.number}, which is not made yet")
            if home.number in gone:
                raise fault(f"{kernel!r} reads a{home.number} after it was overwritten")
        for part in (kernel, kernel.finish):
            if part is not None:
                places(part)
        for number in own:
            made.add(number)
        for home in kernel.written():
            target = home.what if home.kind == "target" else schedule.targets.get(home.number)
            if target is not None and target[0] == "input" and target[1] in inputs:
                gone.add(inputs[target[1]])


def places(kernel: Kernel) -> None:
    """Each place that is affine lies inside its array; points use points before them."""
    if 0 in kernel.domain:
        return
    found = [(s.home, s.place) for s in kernel.stores]
    for number, p in enumerate(kernel.points):
        if isinstance(p, (Load, Picked)):
            found.append((p.home, p.place))
        for x in getattr(p, "operands", ()):
            if isinstance(x, Operand) and x.point >= number:
                raise fault(f"{kernel!r}: point {number} uses point {x.point}")
    for home, place in found:
        low, high = place.bounds(kernel.domain)
        if low < 0 or high >= max(home.size, 1):
            raise fault(f"{kernel!r} reaches {low} … {high} of a{home.number}: {home.type}")
    for x in kernel.arrays:
        if x.number in {s.home.number for s in kernel.stores}:
            continue
        if kernel.kind == "map" and home_of(x) is x and x.kind != "target":
            raise fault(f"{kernel!r} does not store a{x.number}")


def fault(text: str) -> GraphError:
    return GraphError(f"the compiler made a mistake: {text}. Please report it; the setting "
                      "compile=off computes the same without the compiler.")
