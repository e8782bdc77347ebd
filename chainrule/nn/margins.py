"""Losses of several classes, or of three points, that ask for a margin; others are beside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule import rows
from chainrule.core.errors import SettingError, ShapeError
from chainrule.core.record import new
from chainrule.functions import ops
from chainrule.tensor import Tensor

from .display import type_text
from .distance import pairwise_distance
from .indices import check_indices, check_whole
from .reduction import reduced, same_shape


def multi_margin_loss(input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0,
                      weight: Tensor | None = None, size_average: Any = None, reduce: Any = None,
                      reduction: str = "mean") -> Tensor:
    """Σ w_y·max(0, margin − x_y + x_i)ᵖ / C over the classes i ≠ y (Crammer & Singer 2001).

    Scores (N, C) and classes y (N,), or (C,) and one class; p is 1 or 2, `weight` (C,) weighs the
    classes.
    """
    check_power("multi_margin_loss", p)
    check_whole(target, "multi_margin_loss needs classes that are")
    if input.ndim not in (1, 2) or tuple(target.shape) != tuple(input.shape[:-1]):
        if not (input.ndim == 1 and tuple(target.shape) == (1,)):
            raise ShapeError(
                f"multi_margin_loss got scores {type_text(input)} and classes {type_text(target)}: "
                "it needs (N, C) and (N,), or (C,) and one class").about("CR404")
        target = target.squeeze(0)
    classes = input.shape[-1]
    if weight is not None and tuple(weight.shape) != (classes,):
        raise ShapeError(f"multi_margin_loss: weight {type_text(weight)} needs one number for each "
                         f"of the {classes} classes")
    check_indices(target, classes, "multi_margin_loss: class",
                  f"there are {classes} scores in a row, so classes go from 0 to {classes - 1}")
    right = target.unsqueeze(-1)
    lacking = rows.relu(margin - ops.gather(input, -1, right) + input)
    if p == 2:
        lacking = lacking * lacking
    if weight is not None:
        lacking = lacking * weight[right]
    others = ops.where(new(np.arange(classes)) == right, 0.0, lacking)
    return reduced(others.sum(-1) / classes, reduction)


def check_power(name: str, p: Any) -> None:
    """Raises `SettingError` unless p is 1 or 2."""
    if p not in (1, 2):
        raise SettingError(f"{name}: p={p!r} must be 1 or 2")


def multilabel_margin_loss(input: Tensor, target: Tensor, size_average: Any = None,
                           reduce: Any = None, reduction: str = "mean") -> Tensor:
    """Σⱼ Σᵢ max(0, 1 − (x_yⱼ − x_i)) / C over the right classes yⱼ and all i that are not right.

    Scores and targets (N, C) or (C,). A row of the target names the right classes and ends at the
    first −1; what follows counts for nothing.
    """
    check_whole(target, "multilabel_margin_loss needs classes that are")
    same_shape("multilabel_margin_loss", input, target)
    if input.ndim not in (1, 2):
        raise ShapeError(f"multilabel_margin_loss got {type_text(input)}: it needs (N, C) or (C,)")
    classes = input.shape[-1]
    check_indices(ops.where(target == -1, 0, target), classes, "multilabel_margin_loss: class",
                  f"classes go from 0 to {classes - 1}, and -1 ends a row")
    named = (target < 0).cumsum(-1) == 0
    safe = ops.where(named, target, 0)
    is_it = (safe.unsqueeze(-1) == new(np.arange(classes))) & named.unsqueeze(-1)
    wrong = is_it.any(-2).logical_not()
    right = ops.gather(input, -1, safe)
    lacking = rows.relu(1 - right.unsqueeze(-1) + input.unsqueeze(-2))
    counted = named.unsqueeze(-1) & wrong.unsqueeze(-2)
    return reduced(ops.where(counted, lacking, 0.0).sum((-2, -1)) / classes, reduction)


def triplet_margin_with_distance_loss(
        anchor: Tensor, positive: Tensor, negative: Tensor, *,
        distance_function: Callable[[Tensor, Tensor], Tensor] | None = None, margin: float = 1.0,
        swap: bool = False, reduction: str = "mean") -> Tensor:
    """max(0, margin + d(a, p) − d(a, n)) for any distance d (Schroff et al. 2015).

    d is `pairwise_distance` unless given. With `swap`, d(p, n) takes the place of d(a, n) where it
    is smaller.
    """
    if margin <= 0:
        raise SettingError(f"triplet_margin_with_distance_loss: margin={margin!r} must be > 0")
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise ShapeError("triplet_margin_with_distance_loss got "
                         f"{type_text(anchor)}, {type_text(positive)} and {type_text(negative)}: "
                         "all three need the same number of axes")
    distance = pairwise_distance if distance_function is None else distance_function
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = rows.minimum(far, distance(positive, negative))
    return reduced(rows.relu(margin + near - far), reduction)
