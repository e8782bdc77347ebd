"""The one table. A `Primitive` is a row: everything chainrule knows about an operation.

Its kind says which rule is written by hand; `kinds.py` derives the others. Rules take `g` (the
cotangent), `y` (the output) and the inputs, and are written with the library's own operators, so
they run on NumPy arrays, on Tensors (to be differentiated again or traced), on probes and on
explain's text-and-number values alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .types import ArrayType

Rule = Callable[..., Any]
Sample = tuple[tuple[Any, ...], dict[str, Any]]


class Reads:
    """What the backward rules of a node read: 2 the value, 1 only shape or dtype, 0 nothing."""

    __slots__ = ("any", "inputs", "output", "unread")

    def __init__(self, inputs: tuple[int, ...], output: int) -> None:
        self.inputs = inputs
        self.output = output
        self.unread = tuple([i for i, level in enumerate(inputs) if level < 2])
        self.any = output == 2 or 2 in inputs

    def __repr__(self) -> str:
        return f"Reads({self.inputs}, {self.output})"


@dataclass(frozen=True, eq=False)
class Primitive:
    """One operation and everything chainrule knows about it.

    name     unique; also the public name unless `public` is empty
    kind     elementwise | linear | bilinear | composite | general
    eval     NumPy arrays in, NumPy array out: the meaning
    infer    ArrayTypes in (None for a Python number), ArrayType out, or an error naming the sizes
    pulls    for each input the rule (g, y, *xs, **params) -> its cotangent; None where there is no
             derivative
    jvp      (ts, y, *xs, **params) -> tangent of y; ts[i] is None for a constant
    batch    (xs, axes, **params) -> (y, axis)
    samples  rng -> inputs and params on which the row is tested; they must reach every branch of
             the rules, since what the rules read is found by running them on these
    show     how explain writes it: (*texts, **params) -> (text, binding strength)
    at       special values: {input: output}
    view     does eval return a view of its input?
    promote  which operands are brought to one dtype, and whether integers become floats
    options  defaults of the params, for the public function
    definition  composites: the same in terms of other rows
    kinks    the branch each element takes, for rows with a corner: gradcheck compares it around x
    fast_pulls  NumPy-only twins of `pulls` for eager speed, checked against them; None: no twin
    check    (*operands before promotion): raises for operands that PyTorch refuses
    selects  does it choose elements, so that what is not chosen must get no gradient, not even NaN?
    lower    how compiled code computes it: (e, *lanes, **params) -> lane, with e the emitter; the
             lanes have their operators. NotImplemented where the compiler must call eval instead
    """

    name: str
    kind: str
    eval: Callable[..., Any]
    infer: Callable[..., ArrayType]
    pulls: Sequence[Rule | None]
    jvp: Rule | None
    batch: Rule | None
    samples: Callable[[Any], list[Sample]]
    show: Callable[..., tuple[str, int]] | None = None
    at: dict[Any, Any] = field(default_factory=dict)
    view: bool = False
    promote: str = "same"
    promoted: tuple[int, ...] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ("input",)
    public: str = ""
    definition: Rule | None = None
    kinks: Callable[..., Any] | None = None
    selects: bool = False
    fast_pulls: tuple[Rule | None, ...] = ()
    doc: str = ""
    check: Callable[..., None] | None = None
    lower: Rule | None = None
    _reads: dict[tuple[bool, ...], Reads] = field(default_factory=dict, repr=False)

    def __call__(self, *xs: Any, **params: Any) -> Any:
        return BIND[0](self, *xs, **params)

    def __repr__(self) -> str:
        return f"<{self.kind} primitive {self.name}>"

    @cached_property
    def array_pulls(self) -> Sequence[Rule | None]:
        """The rules to run on bare arrays."""
        if not self.fast_pulls:
            return self.pulls
        return tuple(fast or pull for fast, pull in zip(self.fast_pulls, self.pulls, strict=True))

    @property
    def differentiable(self) -> bool:
        """Does any input have a derivative?"""
        return not isinstance(self.pulls, tuple) or any(p is not None for p in self.pulls)

    def reads(self, need: tuple[bool, ...]) -> Reads:
        """What the rules of the inputs marked in `need` read, found by running them on probes."""
        found = self._reads.get(need)
        if found is None:
            found = self._reads[need] = PROBE[0](self, need)
        return found


TABLE: dict[str, Primitive] = {}

# Filled by bind.py and probe.py; rows call primitives, and those two need the class above.
BIND: list[Callable[..., Any]] = []
PROBE: list[Callable[..., Reads]] = []


def register(primitive: Primitive) -> Primitive:
    if primitive.name in TABLE:
        raise ValueError(f"there are two rows named {primitive.name!r}")
    TABLE[primitive.name] = primitive
    return primitive


class Variadic(Sequence[Rule]):
    """The rules of a row with any number of inputs: `rule(i, g, y, *xs, **params)`."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: Any) -> Any:
        rule = self.rule
        return lambda g, y, *xs, **params: rule(index, g, y, *xs, **params)
