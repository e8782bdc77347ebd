"""Arrays → Kernels: what is brought into memory, what is computed where it is read, in which order.

An array is brought into memory if something needs it there (a product, a NumPy call, the caller)
or if computing it in several places would cost more. Kernels over the same domain are joined when
that only shortens the way from one to the next; a map that follows a matrix product element by
element is run on each block of it while that is in the cache.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from chainrule.compiler.arrays.arrays import Array
from chainrule.compiler.arrays.index import Affine, Indices, flat, identity
from chainrule.compiler.kernels.kernel import Kernel, home_of

# In memory by their nature.
AT_HOME = frozenset({"input", "reduce", "contract", "assemble", "scatter", "scan", "call"})
# An expression that costs more instructions than this is not computed twice.
RECOMPUTED = 3
# Nor does one kernel compute more than this for one store.
LONGEST = 600
# Longest chain of maps and views in one kernel: kernels are built by recursion over it.
DEEPEST = 100
# A kernel has at most so many stores and arrays.
MOST_STORES = 12
MOST_ARRAYS = 24


class Schedule:
    """The kernels in order. `targets` says which arrays go to memory that the caller gave."""

    def __init__(self, kernels: list[Kernel], at_home: set[int],
                 targets: dict[int, tuple[str, int]]) -> None:
        self.kernels = kernels
        self.at_home = at_home
        self.targets = targets


def schedule(arrays: Sequence[Array], outputs: Sequence[Array],
             written: Sequence[int | None]) -> Schedule:
    """The kernels that compute `outputs`; output k is written into input `written[k]` if not None.

    All reads of an input's old value come before it is overwritten.
    """
    # an input that is written elsewhere may itself be overwritten: its old value is kept apart
    wanted = [own_copy(x) if i is not None and home_of(x).kind == "input" and home_of(x).what != i
              else x for x, i in zip(outputs, written, strict=True)]
    live = reachable(wanted)
    order = [x for x in arrays if x.number in live]
    at_home = placed(order, wanted)
    outputs = wanted
    inputs = {x.what: x for x in order if x.kind == "input"}
    targets: dict[int, tuple[str, int]] = {}        # home -> where the caller wants it
    copies: list[tuple[Array, tuple[str, int]]] = []
    for k, (x, i) in enumerate(zip(outputs, written, strict=True)):
        place = ("output", k) if i is None else ("input", i)
        home = home_of(x)
        if home.kind == "input" and i is not None and home.what == i:
            continue
        if home.kind in ("input", "const") or home.number in targets:
            copies.append((x, place))
        else:
            targets[home.number] = place
    while True:
        kernels = Builder(order, at_home, targets, inputs).kernels
        for x, place in copies:
            kernels.append(copy_of(x, place, at_home))
        ordered, stuck = in_order(kernels, targets, inputs)
        if stuck is None:
            return Schedule(ordered, at_home, targets)
        # an old value is needed after its place is overwritten: write elsewhere, copy at the end
        copies.append((stuck, targets.pop(stuck.number)))


def own_copy(x: Array) -> Array:
    """x in memory of its own."""
    return x.builder.map("copy", lambda e, lane: lane, x, dtype=x.dtype)


def copy_of(x: Array, place: tuple[str, int], at_home: set[int]) -> Kernel:
    """A kernel that copies x to memory of the caller; its store has no array of its own."""
    kernel = Kernel("map", x.shape, x, place=place)
    value = kernel.evaluate(x, identity(x.shape), at_home | {x.number})
    target = x.builder.make("target", x.shape, x.dtype, (), place)
    kernel.store(target, value)
    kernel.array = target
    kernel.arrays = [target]
    return kernel


def reachable(outputs: Sequence[Array]) -> set[int]:
    live = {x.number for x in outputs}
    stack = list(outputs)
    while stack:
        for x in stack.pop().arrays:
            if x.number not in live:
                live.add(x.number)
                stack.append(x)
    return live


# ---------------------------------------------------------------- what is brought into memory


def placed(order: Sequence[Array], outputs: Sequence[Array]) -> set[int]:
    """The arrays that are brought into memory (and the reshapes that share it)."""
    at_home = {x.number for x in order if x.kind in AT_HOME or (x.kind == "const" and x.shape)}

    def bring(x: Array) -> None:
        while x.kind == "reshape":
            at_home.add(x.number)
            x = x.inputs[0]
        at_home.add(x.number)

    for x in outputs:
        if x.kind != "const" or x.shape:
            bring(x)
    for x in order:
        if x.kind == "reshape":
            bring(x)
        elif x.kind == "contract":
            for operand in product_operands(x):
                bring(operand)
        elif x.kind == "call":
            for operand in x.arrays:
                bring(operand)
        elif x.kind == "pick":
            bring(x.inputs[0])
        elif x.kind == "scatter" and x.what[4]:
            bring(x.inputs[-1])
    users: dict[int, set[int]] = {}
    cost: dict[int, int] = {}
    depth: dict[int, int] = {}
    spread: set[int] = set()
    for x in order:
        for operand in x.arrays:
            target = operand
            while target.kind == "view":
                if target.size > target.inputs[0].size:
                    spread.add(target.inputs[0].number)
                target = target.inputs[0]
            if x.kind != "view":
                users.setdefault(target.number, set()).add(x.number)
    for x in order:
        if x.kind in ("map", "pick", "view", "count"):
            own = x.what.cost if x.kind == "map" else 4 if x.kind == "pick" else 0
            total = own + sum([cost.get(i.number, 0) for i in x.arrays
                               if i.number not in at_home])
            deep = 1 + max([depth.get(i.number, 0) for i in x.arrays
                            if i.number not in at_home], default=0)
            if x.kind in ("map", "pick") and x.number not in at_home and (
                    (total > RECOMPUTED and len(users.get(x.number, ())) > 1)
                    or total > LONGEST or deep > DEEPEST
                    or (total > 1 and x.number in spread)):
                at_home.add(x.number)
            cost[x.number] = total
            depth[x.number] = deep
    return at_home


def product_operand(x: Array) -> Array:
    """The array whose memory a product reads for its operand x: that under a view, unless the
    view shows less of it or its leading axes have no common stride."""
    base = x
    while base.kind == "view":
        base = base.inputs[0]
    if base.size > x.size and base.kind not in AT_HOME:
        return x
    if x.kind == "view":
        place = flat(x.what, x.inputs[0].shape, len(x.shape))
        if batch_stride(place.steps[:-2], x.shape[:-2]) is None:
            return x
    return base


def product_operands(x: Array) -> tuple[Array, ...]:
    """The arrays whose memory a product or a convolution reads."""
    if x.what is None:
        return tuple(map(product_operand, x.inputs))
    image, other = x.inputs
    return window_operand(image), window_operand(other, side_by_side=x.what.kind == "correlate")


def window_operand(x: Array, side_by_side: bool = False) -> Array:
    """The array under a view, unless the view shows less of what need not be in memory, or its
    last two axes are not as one and have to be."""
    base = x
    while base.kind == "view":
        base = base.inputs[0]
    if base.size > x.size and base.kind not in AT_HOME:
        return x
    if side_by_side and x.kind == "view":
        place = flat(x.what, x.inputs[0].shape, len(x.shape))
        if batch_stride(place.steps[-2:], x.shape[-2:]) is None:
            return x
    return base


def batch_stride(steps: Sequence[int], sizes: Sequence[int]) -> int | None:
    """The one stride of leading axes taken together, or None."""
    stride: int | None = None
    span = 0
    for step, n in zip(reversed(steps), reversed(sizes), strict=True):
        if n == 1:
            continue
        if stride is None:
            stride = step
        elif step != span:
            return None
        span = step * n
    return stride or 0


# ---------------------------------------------------------------- kernels


class Builder:
    """Makes the kernels of a schedule, joining maps to what comes before them."""

    def __init__(self, order: Sequence[Array], at_home: set[int],
                 targets: dict[int, tuple[str, int]], inputs: dict[int, Array]) -> None:
        self.at_home = at_home
        self.targets = targets
        self.inputs = inputs
        self.kernels: list[Kernel] = []
        self.maker: dict[int, int] = {}                # home -> its kernel's position
        self.readers: dict[int, set[int]] = {}         # input's home -> kernels that read it
        self.before: list[int] = []                    # bit j of before[i]: i comes after j
        self.domains: dict[tuple[int, ...], list[int]] = {}
        for x in order:
            if x.number in at_home and x.kind not in ("input", "const", "reshape"):
                getattr(self, f"add_{x.kind}", self.add_map)(x)

    # ------------------------------------------------------------ one array each

    def add_map(self, x: Array) -> None:
        domain = x.shape
        trial = Kernel("map", domain, x)
        indices = identity(domain)
        trial.store(x, trial.expression(x, indices, self.at_home))
        needs = self.needs(trial)
        for position in self.candidates(domain, needs):
            if self.joinable(trial, position, needs):
                self.join(x, indices, position, needs)
                return
        for position, seen in self.products(trial, needs):
            if self.joinable(seen, position, needs):
                self.join(x, indices, position, needs, seen)
                return
        self.append(trial, needs)

    def products(self, trial: Kernel, needs: int) -> Iterator[tuple[int, Kernel]]:
        """Products it reads whose axes are several of its own taken as one, as those of a
        convolution are, and the map over these."""
        rest = needs
        while rest:
            position = rest.bit_length() - 1
            rest ^= 1 << position
            kernel = self.kernels[position]
            if kernel.kind == "contract" and kernel.domain != trial.domain:
                seen = trial.seen(kernel.domain)
                if seen is not None:
                    yield position, seen

    def add_reduce(self, x: Array) -> None:
        op, axes = x.what
        source = x.inputs[0]
        kept = [d for d in range(len(source.shape)) if d not in axes]
        domain = tuple([source.shape[d] for d in (*kept, *axes)])
        position = {d: i for i, d in enumerate((*kept, *axes))}
        kernel = Kernel("reduce", domain, x, op=op, reduced=len(axes))
        rank = len(domain)
        value = kernel.evaluate(source, tuple([Affine.axis(position[d], rank)
                                               for d in range(len(source.shape))]), self.at_home)
        kernel.store(x, value, flat(tuple([Affine.axis(d, rank) for d in range(len(x.shape))]),
                                    x.shape, rank))
        self.append(kernel, self.needs(kernel))

    def add_contract(self, x: Array) -> None:
        kernel = Kernel("contract", x.shape, x, operands=product_operands(x))
        self.append(kernel, self.needs(kernel))

    def add_call(self, x: Array) -> None:
        kernel = Kernel("call", x.shape, x, operands=x.arrays)
        self.append(kernel, self.needs(kernel))

    def add_scan(self, x: Array) -> None:
        axis = x.what
        order = [*[d for d in range(len(x.shape)) if d != axis], axis]
        domain = tuple([x.shape[d] for d in order])
        indices = tuple([Affine.axis(order.index(d), len(domain)) for d in range(len(x.shape))])
        kernel = Kernel("scan", domain, x)
        value = kernel.evaluate(x.inputs[0], indices, self.at_home)
        kernel.store(x, value, flat(indices, x.shape, len(domain)))
        self.append(kernel, self.needs(kernel))

    def add_assemble(self, x: Array) -> None:
        """First zeros, if places may stay empty, then one kernel for each part."""
        indices, fill, add = x.what
        if fill:
            zero = Kernel("map", x.shape, x)
            value = zero.evaluate(x.builder.const(0, x.dtype), (), self.at_home)
            zero.store(x, value)
            self.append(zero, self.needs(zero))
        for part, where in zip(x.inputs, indices, strict=True):
            kernel = Kernel("map", part.shape, x, part=True)
            value = kernel.evaluate(part, identity(part.shape), self.at_home)
            kernel.store(x, value, flat(where, x.shape, len(part.shape)), add)
            self.append(kernel, self.needs(kernel) | self.own(x))

    def add_scatter(self, x: Array) -> None:
        """First the base, copied, or zeros; then the elements in their order."""
        plan, add, negative, _, based = x.what
        first = Kernel("map", x.shape, x)
        if based:
            value = first.evaluate(x.inputs[-1], identity(x.shape), self.at_home)
        else:
            value = first.evaluate(x.builder.const(0, x.dtype), (), self.at_home)
        first.store(x, value)
        self.append(first, self.needs(first))
        source, *where = x.inputs[:-1] if based else x.inputs
        kernel = Kernel("scatter", source.shape, x, add=add, negative=negative, based=based)
        indices = identity(source.shape)
        axes = []
        waiting = iter(where)
        place = Affine(0, (0,) * len(source.shape))
        stride = math.prod(x.shape)
        for axis, (n, affine) in enumerate(zip(x.shape, plan, strict=True)):
            stride //= max(n, 1)
            if affine is None:
                point = kernel.evaluate(next(waiting), indices, self.at_home)
                axes.append((point, stride, n, axis))
            else:
                place = place.add(affine.compose(indices, len(source.shape)).times(stride))
        kernel.what["axes"] = axes
        kernel.store(x, kernel.evaluate(source, indices, self.at_home), place)
        self.append(kernel, self.needs(kernel) | self.own(x))

    # ------------------------------------------------------------ order

    def own(self, x: Array) -> int:
        """The kernel that began to make x, as a set."""
        found = self.maker.get(home_of(x).number)
        return 0 if found is None else 1 << found

    def needs(self, kernel: Kernel) -> int:
        """The kernels that make what this one reads, as a set of bits."""
        bits = 0
        for home, _ in kernel.loads():
            found = self.maker.get(home.number)
            if found is not None:
                bits |= 1 << found
        return bits

    def all_before(self, needs: int) -> int:
        """These kernels and all that come before them."""
        found = needs
        rest = needs
        while rest:
            low = rest & -rest
            found |= self.before[low.bit_length() - 1]
            rest ^= low
        return found

    def append(self, kernel: Kernel, needs: int) -> None:
        position = len(self.kernels)
        self.kernels.append(kernel)
        self.before.append(self.all_before(needs))
        for home in kernel.written():
            self.maker[home.number] = position
        if kernel.kind in ("map", "contract") and not kernel.what.get("part"):
            self.domains.setdefault(kernel.domain, []).append(position)
        self.note_reads(kernel, position)

    def note_reads(self, kernel: Kernel, position: int) -> None:
        for home, _ in kernel.loads():
            if home.kind == "input":
                self.readers.setdefault(home.number, set()).add(position)

    # ------------------------------------------------------------ joining

    def candidates(self, domain: tuple[int, ...], needs: int) -> list[int]:
        """Kernels over this domain that it may join: those it reads from, then late ones."""
        found = self.domains.get(domain, [])
        near = [p for p in found if needs >> p & 1]
        return list(dict.fromkeys([*reversed(near), *reversed(found[-3:])]))

    def joinable(self, trial: Kernel, position: int, needs: int) -> bool:
        kernel = self.kernels[position]
        if kernel.kind == "contract" and not needs >> position & 1:
            return False
        part = kernel.finish if kernel.kind == "contract" else kernel
        if part is not None and (len(part.stores) >= MOST_STORES
                                 or len(set(part.loads()) | set(trial.loads())) > MOST_ARRAYS):
            return False
        bit = 1 << position
        if self.all_before(needs & ~bit) & bit:
            return False
        made = {home.number for home in kernel.written()}
        straight = trial.stores[0].place
        for home, place in trial.loads():
            if home.number in made and place != straight:
                return False
        return self.overwrites_safely(trial, kernel, position, straight)

    def overwrites_safely(self, trial: Kernel, kernel: Kernel, position: int,
                          straight: Affine) -> bool:
        """What the trial overwrites is not read later, nor elsewhere in the kernel it joins."""
        bit = 1 << position
        for home in trial.written():
            place = self.targets.get(home.number)
            if place is None or place[0] != "input" or place[1] not in self.inputs:
                continue
            old = self.inputs[place[1]]
            for reader in self.readers.get(old.number, ()):
                if reader != position and self.before[reader] & bit:
                    return False
            for loaded, where in (*kernel.loads(), *trial.loads()):
                if loaded is old and where != straight:
                    return False
        for other in kernel.written():
            place = self.targets.get(other.number)
            if place is not None and place[0] == "input" and place[1] in self.inputs:
                old = self.inputs[place[1]]
                if any(loaded is old and where != straight for loaded, where in trial.loads()):
                    return False
        return True

    def join(self, x: Array, indices: Indices, position: int, needs: int,
             seen: Kernel | None = None) -> None:
        kernel = self.kernels[position]
        part = kernel
        if kernel.kind == "contract":
            if kernel.finish is None:
                kernel.finish = Kernel("map", kernel.domain, x)
                kernel.finish.arrays = []
            part = kernel.finish
        if seen is not None:
            part.absorb(seen)
        else:
            part.store(x, part.expression(x, indices, self.at_home))
        part.arrays.append(x)
        bit = 1 << position
        added = self.all_before(needs & ~bit) & ~self.before[position]
        self.maker[home_of(x).number] = position
        self.note_reads(part, position)
        if added:
            self.before[position] |= added
            for other, before in enumerate(self.before):
                if before & bit:
                    self.before[other] = before | added


# ---------------------------------------------------------------- order


def in_order(kernels: list[Kernel], targets: dict[int, tuple[str, int]],
             inputs: dict[int, Array]) -> tuple[list[Kernel], Array | None]:
    """The kernels so that each comes after what it reads and after the readers of what it
    overwrites, else in their given order; or an array that cannot be written in place."""
    last: dict[int, list[int]] = {}
    readers: dict[int, set[int]] = {}
    for position, kernel in enumerate(kernels):
        hurt = overwrites_itself(kernel, targets, inputs)
        if hurt is not None:
            return [], hurt
        for home in kernel.written():
            last.setdefault(home.number, []).append(position)
        for home, _ in kernel.loads():
            if home.kind == "input":
                readers.setdefault(home.number, set()).add(position)
    after: list[set[int]] = [set() for _ in kernels]       # who must wait for me
    waits = [0] * len(kernels)

    def edge(first: int, then: int) -> None:
        if first != then and then not in after[first]:
            after[first].add(then)
            waits[then] += 1

    for position, kernel in enumerate(kernels):
        for home, _ in kernel.loads():
            for maker in last.get(home.number, ()):
                # the kernels of one assembled array follow each other
                if maker < position or home_of(kernel.array) is not home:
                    edge(maker, position)
        for home in kernel.written():
            makers = last[home.number]
            for first, then in pairwise(makers):
                edge(first, then)
            place = home.what if home.kind == "target" else targets.get(home.number)
            if place is not None and place[0] == "input" and place[1] in inputs:
                for reader in readers.get(inputs[place[1]].number, ()):
                    edge(reader, position)
    ready = [p for p in range(len(kernels)) if not waits[p]]
    order: list[int] = []
    heapq.heapify(ready)
    while ready:
        p = heapq.heappop(ready)
        order.append(p)
        for q in after[p]:
            waits[q] -= 1
            if not waits[q]:
                heapq.heappush(ready, q)
    if len(order) == len(kernels):
        return [kernels[p] for p in order], None
    stuck = set(range(len(kernels))) - set(order)
    for p in sorted(stuck):
        for home in kernels[p].written():
            place = targets.get(home.number)
            if place is not None and place[0] == "input":
                return [], home
    raise AssertionError("the kernels wait for each other")


def overwrites_itself(kernel: Kernel, targets: dict[int, tuple[str, int]],
                      inputs: dict[int, Array]) -> Array | None:
    """An array whose place the kernel overwrites while it still reads it at other indices."""
    stores = [*kernel.stores, *(kernel.finish.stores if kernel.finish is not None else ())]
    straight = {s.home.number: s.place for s in stores}
    for home in kernel.written():
        place = targets.get(home.number)
        if place is None or place[0] != "input" or place[1] not in inputs:
            continue
        old = inputs[place[1]]
        at = straight.get(home.number)
        pointwise = kernel.kind in ("map", "contract") and at is not None
        for loaded, where in kernel.loads():
            if loaded is old and not (pointwise and where == at):
                return home
    return None
