"""`nn.functional`: losses with margins and over alignments, and bags of embeddings."""

from typing import Any

import numpy as np

from parity.runner import Table, array

TABLE = Table("losses")


def add(name: str, call: Any, *inputs: np.ndarray, **options: Any) -> None:
    """A row whose function is given `F` in place of the library."""
    options.setdefault("second", False)          # PyTorch has no second derivative of most
    TABLE.add(name, lambda t, *xs, f=call: f(t.nn.functional, *xs), *inputs, **options)


SCORES = array(4, 5)
CLASSES = np.array([1, 0, 4, 2])
WEIGHT = array(5, low=0.5)

# ---- margins -----------------------------------------------------------------------------------

MARGINS: dict[str, dict[str, Any]] = {
    "": {}, "squared": {"p": 2}, "wide": {"margin": 3.0, "p": 2}, "narrow": {"margin": 0.1},
    "negative margin": {"margin": -0.5}, "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
}
for name, options in MARGINS.items():
    add(f"multi_margin_loss {name}",
        lambda F, x, y, o=options: F.multi_margin_loss(x, y, **o), SCORES, CLASSES)
    add(f"multi_margin_loss weighed {name}", lambda F, x, y, w, o=options: F.multi_margin_loss(
        x, y, weight=w.detach(), **o), SCORES, CLASSES, WEIGHT)
add("multi_margin_loss of one row", lambda F, x, y: F.multi_margin_loss(x, y), SCORES[0],
    np.array(3))
add("multi_margin_loss of one row and a list", lambda F, x, y: F.multi_margin_loss(x, y),
    SCORES[0], np.array([3]))
add("multi_margin_loss at the hinge", lambda F, x, y: F.multi_margin_loss(x, y),
    np.array([[1.0, 0.0, 2.0]]), np.array([0]))
add("multi_margin_loss cubed", lambda F, x, y: F.multi_margin_loss(x, y, p=3), SCORES, CLASSES,
    raises=True)
add("multi_margin_loss of no class", lambda F, x, y: F.multi_margin_loss(x, y), SCORES,
    np.array([0, 1, 5, 2]), raises=True)
add("multi_margin_loss of other sizes", lambda F, x, y: F.multi_margin_loss(x, y), SCORES,
    CLASSES[:3], raises=True)
add("multi_margin_loss of few weights", lambda F, x, y, w: F.multi_margin_loss(x, y, weight=w),
    SCORES, CLASSES, WEIGHT[:4], raises=True)
add("multi_margin_loss of floats", lambda F, x, y: F.multi_margin_loss(x, y), SCORES,
    CLASSES.astype(float), raises=True)

LABELS = np.array([[3, 0, -1, 1, 4], [-1, 1, 2, 3, 4], [0, 1, 2, 3, 4], [2, 2, 1, -1, -1]])
for reduction in ("mean", "sum", "none"):
    add(f"multilabel_margin_loss {reduction}", lambda F, x, y, r=reduction:
        F.multilabel_margin_loss(x, y, reduction=r), SCORES, LABELS)
    for swap in (False, True):
        add(f"triplet_margin_with_distance_loss {reduction} {swap}", lambda F, a, p, n,
            r=reduction, s=swap: F.triplet_margin_with_distance_loss(
                a, p, n, swap=s, reduction=r, margin=1.7),
            SCORES, array(4, 5, seed=1), array(4, 5, seed=2), second=True)
add("multilabel_margin_loss of one row", lambda F, x, y: F.multilabel_margin_loss(x, y),
    SCORES[0], LABELS[0])
add("multilabel_margin_loss of no class", lambda F, x, y: F.multilabel_margin_loss(x, y), SCORES,
    LABELS + 1, raises=True)
add("multilabel_margin_loss below -1", lambda F, x, y: F.multilabel_margin_loss(x, y), SCORES,
    LABELS - 1, raises=True)
add("multilabel_margin_loss of other sizes", lambda F, x, y: F.multilabel_margin_loss(x, y),
    SCORES, LABELS[:, :4], raises=True)
add("triplet_margin_with_distance_loss of ones own", lambda F, a, p, n:
    F.triplet_margin_with_distance_loss(
        a, p, n, distance_function=lambda x, y: 1 - F.cosine_similarity(x, y)),
    SCORES, array(4, 5, seed=1), array(4, 5, seed=2))
add("triplet_margin_with_distance_loss of an outer product", lambda F, a, p, n:
    F.triplet_margin_with_distance_loss(
        a, p, n, distance_function=lambda x, y: (x - y).abs().sum(-1), reduction="none"),
    array(4, 1, 5), array(1, 3, 5), array(1, 3, 5, seed=2))
add("triplet_margin_with_distance_loss of other axes", lambda F, a, p, n:
    F.triplet_margin_with_distance_loss(a, p, n), SCORES, SCORES[0], SCORES, raises=True)
add("triplet_margin_with_distance_loss without a margin", lambda F, a, p, n:
    F.triplet_margin_with_distance_loss(a, p, n, margin=0), SCORES, SCORES, SCORES, raises=True)

# ---- alignments --------------------------------------------------------------------------------

TIMES = array(7, 3, 5)
TARGETS = np.array([[1, 2, 2], [4, 1, 3], [3, 3, 3]])
JOINED = np.array([1, 2, 2, 4, 3, 3])


def ctc(F: Any, x: Any, *rest: Any, **options: Any) -> Any:
    """Of scores: PyTorch's gradient is right only through its own log_softmax."""
    return F.ctc_loss(F.log_softmax(x, -1), *rest, **options)


LENGTHS: dict[str, tuple[Any, Any]] = {
    "full": ((7, 7, 7), (3, 3, 3)), "short": ((7, 5, 6), (3, 2, 1)),
    "empty": ((7, 1, 3), (0, 1, 2)), "tight": ((4, 3, 5), (3, 3, 3)),
}
for name, (long, short) in LENGTHS.items():
    for reduction in ("mean", "sum", "none"):
        add(f"ctc_loss {name} {reduction}", lambda F, x, y, a=long, b=short, r=reduction:
            ctc(F, x, y, a, b, reduction=r), TIMES, TARGETS)
    add(f"ctc_loss {name}, lengths as tensors", lambda F, x, y, a, b: ctc(F, x, y, a, b), TIMES,
        TARGETS, np.array(long), np.array(short))
    add(f"ctc_loss {name}, the last class the blank", lambda F, x, y, a=long, b=short: ctc(
        F, x, y - 1, a, b, blank=4), TIMES, TARGETS)
add("ctc_loss of joined targets", lambda F, x, y: ctc(F, x, y, (7, 6, 5), (3, 1, 2)), TIMES,
    JOINED)
add("ctc_loss of joined targets, one of them empty",
    lambda F, x, y: ctc(F, x, y, (7, 6, 5), (3, 0, 3), reduction="none"), TIMES, JOINED)
add("ctc_loss of one signal", lambda F, x, y, a, b: ctc(F, x, y, a, b), TIMES[:, 0], TARGETS[0],
    np.array(7), np.array(3))
add("ctc_loss of one signal, none", lambda F, x, y: ctc(F, x, y, (6,), (2,), reduction="none"),
    TIMES[:, 0], TARGETS[0, :2])
add("ctc_loss of what cannot be", lambda F, x, y: ctc(F, x, y, (7, 2, 4), (3, 3, 3),
                                                      reduction="none"), TIMES, TARGETS,
    differs=("gradient of input 0", "an infinite loss gives no gradient, and not NaN"))
for reduction in ("mean", "none"):
    add(f"ctc_loss of what cannot be, as 0, {reduction}", lambda F, x, y, r=reduction: ctc(
        F, x, y, (7, 2, 4), (3, 3, 3), reduction=r, zero_infinity=True), TIMES, TARGETS)
add("ctc_loss of impossible classes", lambda F, x, y: F.ctc_loss(
    x.detach().clamp(max=0.0).log_softmax(-1) * np.inf, y, (7, 7, 7), (3, 3, 3), reduction="none"),
    np.abs(TIMES) + 1, TARGETS)
add("ctc_loss of long inputs", lambda F, x, y: ctc(F, x, y, (8, 7, 7), (3, 3, 3)), TIMES, TARGETS,
    raises=True)
add("ctc_loss of long targets", lambda F, x, y: ctc(F, x, y, (7, 7, 7), (3, 4, 3)), TIMES,
    TARGETS, raises=True)
add("ctc_loss of few lengths", lambda F, x, y: ctc(F, x, y, (7, 7), (3, 3, 3)), TIMES, TARGETS,
    raises=True)
add("ctc_loss of no blank", lambda F, x, y: ctc(F, x, y, (7, 7, 7), (3, 3, 3), blank=5), TIMES,
    TARGETS, raises=True)
add("ctc_loss of joined targets that do not add up",
    lambda F, x, y: ctc(F, x, y, (7, 7, 7), (3, 3, 3)), TIMES, JOINED, raises=True)
add("ctc_loss of a vector", lambda F, x, y: F.ctc_loss(x, y, (7,), (3,)), TIMES[:, 0, 0],
    TARGETS[0], raises=True)

# ---- bags of embeddings ------------------------------------------------------------------------

TABLE_OF_ROWS = array(6, 3)
BAGS = np.array([[1, 2, 4], [4, 4, 0], [2, 2, 2], [5, 2, 3]])
FLAT = np.array([1, 2, 4, 5, 4, 3, 2, 2])
OFFSETS = np.array([0, 3, 3, 7])
for mode in ("mean", "sum", "max"):
    add(f"embedding_bag {mode}", lambda F, w, x, m=mode: F.embedding_bag(x, w, mode=m),
        TABLE_OF_ROWS, BAGS)
    add(f"embedding_bag {mode}, offsets", lambda F, w, x, o, m=mode: F.embedding_bag(
        x, w, o, mode=m), TABLE_OF_ROWS, FLAT, OFFSETS)
    add(f"embedding_bag {mode}, last offset", lambda F, w, x, o, m=mode: F.embedding_bag(
        x, w, o, mode=m, include_last_offset=True), TABLE_OF_ROWS, FLAT, np.array([0, 2, 5, 8]))
    add(f"embedding_bag {mode}, padding", lambda F, w, x, m=mode: F.embedding_bag(
        x, w, mode=m, padding_idx=2), TABLE_OF_ROWS, BAGS)
    add(f"embedding_bag {mode}, padding from the end", lambda F, w, x, o, m=mode: F.embedding_bag(
        x, w, o, mode=m, padding_idx=-4), TABLE_OF_ROWS, FLAT, OFFSETS)
    add(f"embedding_bag {mode} of one bag", lambda F, w, x, o, m=mode: F.embedding_bag(
        x, w, o, mode=m), TABLE_OF_ROWS, FLAT, np.array([0]))
add("embedding_bag weighed", lambda F, w, x, s: F.embedding_bag(
    x, w, mode="sum", per_sample_weights=s), TABLE_OF_ROWS, BAGS, array(4, 3))
add("embedding_bag weighed, offsets", lambda F, w, x, o, s: F.embedding_bag(
    x, w, o, mode="sum", per_sample_weights=s), TABLE_OF_ROWS, FLAT, OFFSETS, array(8))
add("embedding_bag weighed, padding", lambda F, w, x, s: F.embedding_bag(
    x, w, mode="sum", per_sample_weights=s, padding_idx=2), TABLE_OF_ROWS, BAGS, array(4, 3))
add("embedding_bag weighed and averaged", lambda F, w, x, s: F.embedding_bag(
    x, w, mode="mean", per_sample_weights=s), TABLE_OF_ROWS, BAGS, array(4, 3), raises=True)
add("embedding_bag weighed wrongly", lambda F, w, x, s: F.embedding_bag(
    x, w, mode="sum", per_sample_weights=s), TABLE_OF_ROWS, BAGS, array(4, 2), raises=True)
add("embedding_bag in no mode", lambda F, w, x: F.embedding_bag(x, w, mode="min"), TABLE_OF_ROWS,
    BAGS, raises=True)
add("embedding_bag of rows with offsets", lambda F, w, x, o: F.embedding_bag(x, w, o),
    TABLE_OF_ROWS, BAGS, OFFSETS, raises=True)
add("embedding_bag without offsets", lambda F, w, x: F.embedding_bag(x, w), TABLE_OF_ROWS, FLAT,
    raises=True)
add("embedding_bag, first offset above 0", lambda F, w, x, o: F.embedding_bag(x, w, o),
    TABLE_OF_ROWS, FLAT, np.array([1, 3]), raises=True)
add("embedding_bag, offsets beyond the end", lambda F, w, x, o: F.embedding_bag(x, w, o),
    TABLE_OF_ROWS, FLAT, np.array([0, 9]), raises=True)
add("embedding_bag of no row", lambda F, w, x: F.embedding_bag(x, w), TABLE_OF_ROWS, BAGS + 1,
    raises=True)
add("embedding_bag of three axes", lambda F, w, x: F.embedding_bag(x[None], w), TABLE_OF_ROWS,
    BAGS, raises=True)
