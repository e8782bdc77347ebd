"""One class per mistake. Each message says what happened, why, and what to write instead.

Every class also derives from the built-in exception PyTorch users catch for that mistake.
"""

from __future__ import annotations

from typing import Any, Self


class ChainruleError(Exception):
    """Base of all errors raised on purpose by chainrule.

    `rule` is the id of the doctor's page about the mistake, '' if it has none; `places` are the
    lines it is about, where they are others than the one that raised, the likeliest first.
    """

    rule: str = ""
    places: tuple[Any, ...] = ()

    def about(self, rule: str, *places: Any) -> Self:
        """This error, with its page and its lines."""
        self.rule, self.places = rule, places
        return self


class DtypeError(ChainruleError, TypeError, RuntimeError):
    """A dtype that is unknown or does not fit the operation."""


class ShapeError(ChainruleError, ValueError, RuntimeError):
    """Shapes that do not fit the operation."""


class IndexingError(ChainruleError, IndexError):
    """An index out of range or of a kind that cannot index."""


class SettingError(ChainruleError, ValueError):
    """A setting or option with a value that is not legal."""


class GradientError(ChainruleError, RuntimeError):
    """Backpropagation cannot run as asked."""


class NoGradientError(GradientError):
    """Nothing on the way to the loss requires a gradient: the graph was cut or never built."""


class NotScalarError(GradientError):
    """`backward()` on a tensor with more than one element and no `gradient=`."""


class FreedGraphError(GradientError):
    """A second backward pass through a graph whose saved values were dropped by the first."""


class OverwrittenError(GradientError):
    """A value saved for the backward pass was changed in place before it was used."""


class InPlaceError(GradientError):
    """An in-place operation that would make gradients wrong."""


class LeafError(GradientError):
    """A leaf that cannot hold a gradient, or something that must be a leaf and is not."""


class UnusedError(GradientError):
    """An input whose gradient was asked for does not take part in the output."""


class ForeignTensorError(ChainruleError, RuntimeError):
    """A tensor of another package in an operation. Not a TypeError, which operators swallow."""


class TracedValueError(ChainruleError, TypeError, RuntimeError):
    """A number was asked of a tensor that has none while a function is being traced."""


class BatchingError(ChainruleError, ValueError):
    """`vmap` was given sizes or axes that do not fit."""


class TreeError(ChainruleError, ValueError, TypeError):
    """Nested containers that do not match."""


class GraphError(ChainruleError, AssertionError):
    """A graph that breaks its own rules; a fault of chainrule, not of the user."""


class RuleError(ChainruleError, AssertionError):
    """A row of the table that is not what it claims; found by the conformance check."""


class MissingPackageError(ChainruleError, ImportError):
    """An optional package that is needed now is not installed."""


class BuildError(ChainruleError, RuntimeError):
    """Text that LLVM refuses, or code that cannot be linked; a fault of chainrule."""
