"""Losses as modules; see the function of each in `chainrule.nn.functional`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chainrule.core.errors import SettingError, ShapeError
from chainrule.tensor import Tensor

from . import functional as F
from .alignment import Lengths
from .display import type_text
from .margins import check_power
from .module import Module
from .naming import refuse_tensor
from .reduction import check_reduction
from .similarity import PairwiseDistance


class _Loss(Module):
    """A loss with a `reduction`: 'mean', 'sum' or 'none'."""

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(self, size_average: Any = None, reduce: Any = None,
                 reduction: str = "mean") -> None:
        super().__init__()
        refuse_tensor(self, size_average, reduce, reduction)
        if size_average is not None or reduce is not None:
            raise SettingError(f"{type(self).__name__}: size_average and reduce are gone; write "
                               "reduction='mean', 'sum' or 'none'")
        check_reduction(reduction)
        self.reduction = reduction


class MSELoss(_Loss):
    """(input − target)², averaged."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """|input − target|, averaged."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """Quadratic where |input − target| < beta, linear beyond."""

    def __init__(self, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
                 beta: float = 1.0) -> None:
        super().__init__(size_average, reduce, reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_Loss):
    """Quadratic where |input − target| <= delta, linear beyond (Huber 1964)."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class CrossEntropyLoss(_Loss):
    """−log softmax(input)[target] for scores (N, C) and classes (N,) or probabilities (N, C).

    >>> import chainrule as cr
    >>> scores = cr.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    >>> round(cr.nn.CrossEntropyLoss()(scores, cr.tensor([0, 2])).item(), 4)
    0.7531
    """

    def __init__(self, weight: Tensor | None = None, size_average: Any = None,
                 ignore_index: int = -100, reduce: Any = None, reduction: str = "mean",
                 label_smoothing: float = 0.0) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(input, target, self.weight, ignore_index=self.ignore_index,
                               reduction=self.reduction, label_smoothing=self.label_smoothing)


class NLLLoss(_Loss):
    """−input[target] for log-probabilities (N, C) and classes (N,)."""

    def __init__(self, weight: Tensor | None = None, size_average: Any = None,
                 ignore_index: int = -100, reduce: Any = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(input, target, self.weight, ignore_index=self.ignore_index,
                          reduction=self.reduction)


class BCELoss(_Loss):
    """−(y·log p + (1−y)·log(1−p)) for probabilities p."""

    def __init__(self, weight: Tensor | None = None, size_average: Any = None,
                 reduce: Any = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """`BCELoss` of sigmoid(input), stable for scores of any size."""

    def __init__(self, weight: Tensor | None = None, size_average: Any = None,
                 reduce: Any = None, reduction: str = "mean",
                 pos_weight: Tensor | None = None) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight)


class KLDivLoss(_Loss):
    """t·(log t − x) for log-probabilities x; reduction 'batchmean' gives the divergence proper."""

    def __init__(self, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
                 log_target: bool = False) -> None:
        super().__init__(size_average, reduce, "sum" if reduction == "batchmean" else reduction)
        self.reduction = reduction
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)


class GaussianNLLLoss(_Loss):
    """½·(log v + (x − t)²/v) for a variance v (Nix & Weigend 1994)."""

    def __init__(self, *, full: bool = False, eps: float = 1e-6,
                 reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.full = full
        self.eps = eps

    def forward(self, input: Tensor, target: Tensor, var: Tensor | float) -> Tensor:
        return F.gaussian_nll_loss(input, target, var, self.full, self.eps, self.reduction)


class PoissonNLLLoss(_Loss):
    """exp(x) − t·x for the logarithm x of a rate, or x − t·log(x + eps) for the rate itself."""

    def __init__(self, log_input: bool = True, full: bool = False, size_average: Any = None,
                 eps: float = 1e-8, reduce: Any = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_input = log_input
        self.full = full
        self.eps = eps

    def forward(self, log_input: Tensor, target: Tensor) -> Tensor:
        return F.poisson_nll_loss(log_input, target, self.log_input, self.full, self.eps,
                                  self.reduction)


class CosineEmbeddingLoss(_Loss):
    """1 − cos where the target is 1, max(0, cos − margin) where it is −1."""

    def __init__(self, margin: float = 0.0, size_average: Any = None, reduce: Any = None,
                 reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return F.cosine_embedding_loss(input1, input2, target, self.margin, self.reduction)


class MarginRankingLoss(_Loss):
    """max(0, margin − y·(x₁ − x₂)): x₁ should be above x₂ where y = 1, below where y = −1."""

    def __init__(self, margin: float = 0.0, size_average: Any = None, reduce: Any = None,
                 reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return F.margin_ranking_loss(input1, input2, target, self.margin, self.reduction)


class TripletMarginLoss(_Loss):
    """max(0, margin + ‖a − p‖ − ‖a − n‖) (Schroff et al. 2015)."""

    def __init__(self, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False,
                 size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        if margin <= 0:
            raise SettingError(f"TripletMarginLoss: margin={margin!r} must be > 0")
        self.margin = margin
        self.p = p
        self.eps = eps
        self.swap = swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return F.triplet_margin_loss(anchor, positive, negative, self.margin, self.p, self.eps,
                                     self.swap, self.reduction)


class HingeEmbeddingLoss(_Loss):
    """x where the target is 1, max(0, margin − x) where it is −1."""

    def __init__(self, margin: float = 1.0, size_average: Any = None, reduce: Any = None,
                 reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.hinge_embedding_loss(input, target, self.margin, self.reduction)


class SoftMarginLoss(_Loss):
    """log(1 + exp(−y·x)) for targets y of 1 and −1."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.soft_margin_loss(input, target, self.reduction)


class MultiMarginLoss(_Loss):
    """Σ w_y·max(0, margin − x_y + x_i)ᵖ / C over the classes i ≠ y (Crammer & Singer 2001).

    Scores (N, C) and classes y (N,), or (C,) and one class; p is 1 or 2, `weight` (C,) weighs the
    classes.

    >>> import chainrule as cr
    >>> scores = cr.tensor([[0.5, 2.0, 1.5]])
    >>> round(cr.nn.MultiMarginLoss()(scores, cr.tensor([1])).item(), 4)
    0.1667
    """

    def __init__(self, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
                 size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        check_power("MultiMarginLoss", p)
        if weight is not None and weight.ndim != 1:
            raise ShapeError(f"MultiMarginLoss: weight {type_text(weight)} needs one number for "
                             "each class")
        self.p = p
        self.margin = margin
        self.register_buffer("weight", weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.multi_margin_loss(input, target, self.p, self.margin, self.weight,
                                   reduction=self.reduction)


class MultiLabelMarginLoss(_Loss):
    """Σⱼ Σᵢ max(0, 1 − (x_yⱼ − x_i)) / C over the right classes yⱼ and all i that are not right.

    Scores and targets (N, C) or (C,). A row of the target names the right classes and ends at the
    first −1.

    >>> import chainrule as cr
    >>> scores = cr.tensor([[0.1, 0.2, 0.4, 0.8]])
    >>> round(cr.nn.MultiLabelMarginLoss()(scores, cr.tensor([[3, 0, -1, 1]])).item(), 4)
    0.85
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.multilabel_margin_loss(input, target, reduction=self.reduction)


class TripletMarginWithDistanceLoss(_Loss):
    """max(0, margin + d(a, p) − d(a, n)) for any distance d (Schroff et al. 2015).

    `distance_function` takes two tensors; it is `nn.PairwiseDistance()` unless given. With `swap`,
    d(p, n) takes the place of d(a, n) where it is smaller.

    >>> import chainrule as cr
    >>> loss = cr.nn.TripletMarginWithDistanceLoss(
    ...     distance_function=lambda x, y: (x - y).abs().max(-1)[0])
    >>> a, p, n = cr.zeros(1, 2), cr.tensor([[1.0, 2.0]]), cr.tensor([[2.5, 0.0]])
    >>> loss(a, p, n).item()
    0.5
    """

    def __init__(self, *, distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
                 margin: float = 1.0, swap: bool = False, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        if margin <= 0:
            raise SettingError(f"TripletMarginWithDistanceLoss: margin={margin!r} must be > 0")
        self.distance_function: Callable[[Tensor, Tensor], Tensor] = (
            PairwiseDistance() if distance_function is None else distance_function)
        self.margin = margin
        self.swap = swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return F.triplet_margin_with_distance_loss(
            anchor, positive, negative, distance_function=self.distance_function,
            margin=self.margin, swap=self.swap, reduction=self.reduction)


class CTCLoss(_Loss):
    """−log of the probability of all alignments that read as the target (Graves et al. 2006).

    log_probs (T, N, C) or (T, C), such as `log_softmax` gives; targets (N, S), or all targets one
    after the other; input_lengths and target_lengths (N,). See `chainrule.nn.functional.ctc_loss`
    for the recursion. A target that does not fit into its input costs infinity, or 0 with
    `zero_infinity`.

    >>> import chainrule as cr
    >>> halves = cr.log(cr.full((2, 1, 2), 0.5))        # two times, two classes, 0 the blank
    >>> loss = cr.nn.CTCLoss()(halves, cr.tensor([[1]]), (2,), (1,))
    >>> round(loss.exp().item(), 4)                     # "11", "01" and "10" of four: 3/4
    1.3333
    """

    def __init__(self, blank: int = 0, reduction: str = "mean",
                 zero_infinity: bool = False) -> None:
        super().__init__(reduction=reduction)
        self.blank = blank
        self.zero_infinity = zero_infinity

    def forward(self, log_probs: Tensor, targets: Tensor, input_lengths: Lengths,
                target_lengths: Lengths) -> Tensor:
        return F.ctc_loss(log_probs, targets, input_lengths, target_lengths, self.blank,
                          self.reduction, self.zero_infinity)
