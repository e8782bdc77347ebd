"""`nn.functional`: activations, normalisation, convolution, pooling and losses."""

from typing import Any

import numpy as np

from parity.runner import Table, array

TABLE = Table("functional")


def add(name: str, call: Any, *inputs: np.ndarray, **options: Any) -> None:
    """A row whose function is given `F` in place of the library."""
    TABLE.add(name, lambda t, *xs, f=call: f(t.nn.functional, *xs), *inputs, **options)


MATRIX = array(3, 4)
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 3.0, -3.0, 50.0, -50.0, np.inf, -np.inf, np.nan])

# ---- activations -------------------------------------------------------------------------------

ACTIVATIONS: dict[str, dict[str, Any]] = {
    "relu": {}, "leaky_relu": {"negative_slope": 0.2}, "elu": {"alpha": 1.5}, "selu": {},
    "celu": {},
    "gelu": {"approximate": "tanh"}, "silu": {}, "mish": {}, "softplus": {"beta": 2.0},
    "softsign": {}, "tanhshrink": {}, "hardtanh": {"min_val": -0.5}, "relu6": {}, "hardsigmoid": {},
    "hardswish": {}, "logsigmoid": {}, "sigmoid": {}, "tanh": {}, "threshold": {},
}
AT_SPECIAL = {
    "gelu": ("value", "gelu of infinity is infinity"),
    "elu": ("gradient of input 0", "the slope of elu at NaN is NaN"),
    "celu": ("gradient of input 0", "the slope of celu at NaN is NaN"),
    "selu": ("gradient of input 0", "the slope of selu at NaN is NaN"),
    "hardswish": ("gradient of input 0", "the slope of hardswish at NaN is NaN"),
    "hardsigmoid": ("gradient of input 0", "PyTorch's slope is 1/6 rounded to float32"),
    "relu": ("gradient of input 0", "the slope of relu is 1 where x > 0, and NaN is not"),
}
for name, options in ACTIVATIONS.items():
    if name == "threshold":
        add(name, lambda F, x: F.threshold(x, 0.1, 20.0), MATRIX)
        continue
    add(name, lambda F, x, n=name: getattr(F, n)(x), MATRIX, second=name != "hardsigmoid",
        differs=AT_SPECIAL[name] if name == "hardsigmoid" else None)
    if options:
        add(f"{name} {options}", lambda F, x, n=name, o=options: getattr(F, n)(x, **o), MATRIX)
    add(f"{name} of special values", lambda F, x, n=name: getattr(F, n)(x), SPECIAL, second=False,
        tolerance=10, differs=AT_SPECIAL.get(name))
add("relu's slope at zero", lambda F, x: F.relu(x), np.zeros(2))
add("gelu unknown", lambda F, x: F.gelu(x, approximate="sinh"), MATRIX, raises=True)
add("prelu", lambda F, x, w: F.prelu(x, w), MATRIX, array(1))
add("glu", lambda F, x: F.glu(x, 1), MATRIX)
add("softmax", lambda F, x: F.softmax(x, dim=1), MATRIX)
add("log_softmax", lambda F, x: F.log_softmax(x, dim=0), MATRIX)
add("softmin", lambda F, x: F.softmin(x, dim=1), MATRIX)
add("normalize", lambda F, x: F.normalize(x, dim=1), MATRIX)
add("normalize zeros", lambda F, x: F.normalize(x, dim=0), np.zeros((2, 2)), second=False)
add("cosine_similarity", lambda F, x, y: F.cosine_similarity(x, y, dim=1), MATRIX,
    array(3, 4, seed=1))
add("dropout in evaluation", lambda F, x: F.dropout(x, 0.5, training=False), MATRIX)
add("dropout of none", lambda F, x: F.dropout(x, 0.0), MATRIX)
add("dropout of all", lambda F, x: F.dropout(x, 1.0), MATRIX)
add("dropout of more than all", lambda F, x: F.dropout(x, 1.5), MATRIX, raises=True)

# ---- normalisation -----------------------------------------------------------------------------

W4, B4 = array(4, seed=2), array(4, seed=3)
IMAGE = array(2, 4, 5, 5)
add("layer_norm", lambda F, x, w, b: F.layer_norm(x, (4,), w, b), MATRIX, W4, B4, tolerance=5)
add("layer_norm bare", lambda F, x: F.layer_norm(x, (4,)), MATRIX, tolerance=5)
add("layer_norm over two", lambda F, x: F.layer_norm(x, (5, 5)), IMAGE, tolerance=5)
add("layer_norm eps", lambda F, x: F.layer_norm(x, (4,), eps=0.1), MATRIX)
add("layer_norm of a constant", lambda F, x: F.layer_norm(x, (4,)), np.ones((2, 4)), second=False)
add("layer_norm of the wrong shape", lambda F, x: F.layer_norm(x, (3,)), MATRIX, raises=True)
add("group_norm", lambda F, x, w, b: F.group_norm(x, 2, w, b), IMAGE, W4, B4, tolerance=5)
add("rms_norm", lambda F, x, w: F.rms_norm(x, (4,), w), MATRIX, W4, tolerance=5)


def batch_norm(F: Any, x: Any, mean: Any, var: Any, *affine: Any, **options: Any) -> Any:
    mean, var = mean.detach(), var.detach()
    return F.batch_norm(x, mean, var, *affine, **options), mean, var


for training in (True, False):
    for name, value in {"matrix": MATRIX, "image": IMAGE}.items():
        add(f"batch_norm of a {name}, training={training}",
            lambda F, *xs, training=training: batch_norm(F, *xs, training=training),
            value, array(4, seed=4), array(4, seed=5, low=0.5), W4, B4, tolerance=20)
add("batch_norm momentum", lambda F, x, m, v: batch_norm(F, x, m, v, training=True, momentum=0.3),
    MATRIX, array(4, seed=4), array(4, seed=5, low=0.5), tolerance=20)
add("batch_norm without statistics", lambda F, x: F.batch_norm(x, None, None, training=True),
    MATRIX, tolerance=20)
add("batch_norm of one row", lambda F, x: F.batch_norm(x, None, None, training=True), MATRIX[:1],
    raises=True)

# ---- convolution -------------------------------------------------------------------------------

FILTERS, BIAS = array(6, 4, 3, 3, seed=1), array(6, seed=2)
CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "": {}, "stride": {"stride": 2}, "stride of two": {"stride": (2, 1)}, "padding": {"padding": 1},
    "padding of two": {"padding": (0, 2)}, "dilation": {"dilation": 2},
    "dilation and padding": {"dilation": (1, 2), "padding": 2}, "same": {"padding": "same"},
    "valid": {"padding": "valid"},
    "stride, padding, dilation": {"stride": 2, "padding": 2, "dilation": 2},
}
for name, options in CONVOLUTIONS.items():
    add(f"conv2d {name}", lambda F, *xs, o=options: F.conv2d(*xs, **o), IMAGE, FILTERS, BIAS,
        tolerance=5)
add("conv2d without bias", lambda F, x, w: F.conv2d(x, w), IMAGE, FILTERS, tolerance=5)
add("conv2d of one image", lambda F, x, w: F.conv2d(x, w), IMAGE[0], FILTERS, tolerance=5)
add("conv2d in groups", lambda F, x, w: F.conv2d(x, w, groups=2), IMAGE, FILTERS[:, :2],
    tolerance=5)
add("conv2d depthwise", lambda F, x, w, b: F.conv2d(x, w, b, padding=1, groups=4), IMAGE,
    array(4, 1, 3, 3, seed=3), B4, tolerance=5)
add("conv2d one by one", lambda F, x, w: F.conv2d(x, w), IMAGE, FILTERS[:, :, :1, :1], tolerance=5)
add("conv2d not square", lambda F, x, w: F.conv2d(x, w, stride=(1, 2)), IMAGE, FILTERS[:, :, :, :2],
    tolerance=5)
add("conv2d of no images", lambda F, x, w: F.conv2d(x, w), IMAGE[:0], FILTERS, tolerance=5)
add("conv2d, same with a stride", lambda F, x, w: F.conv2d(x, w, padding="same", stride=2),
    IMAGE, FILTERS, raises=True)
add("conv2d of other channels", lambda F, x, w: F.conv2d(x, w), IMAGE[:, :3], FILTERS, raises=True)
add("conv2d of a matrix", lambda F, x, w: F.conv2d(x, w), MATRIX, FILTERS, raises=True)
add("conv2d with a larger filter", lambda F, x, w: F.conv2d(x, w), IMAGE[:, :, :2], FILTERS,
    raises=True)
add("conv2d with groups that do not divide", lambda F, x, w: F.conv2d(x, w, groups=3), IMAGE,
    FILTERS, raises=True)
add("conv2d with the wrong bias", lambda F, x, w, b: F.conv2d(x, w, b), IMAGE, FILTERS, B4,
    raises=True)
add("conv2d stride zero", lambda F, x, w: F.conv2d(x, w, stride=0), IMAGE, FILTERS, raises=True)
add("conv1d", lambda F, x, w: F.conv1d(x, w, padding=1, stride=2), IMAGE[0],
    FILTERS[:, :, 0][:, :4], raises=None, tolerance=5)
add("conv_transpose2d", lambda F, x, w: F.conv_transpose2d(x, w, stride=2), IMAGE,
    array(4, 2, 3, 3), tolerance=5)
add("unfold", lambda F, x: F.unfold(x, 3, padding=1), IMAGE)

# ---- pooling -----------------------------------------------------------------------------------

POOLS: dict[str, dict[str, Any]] = {
    "2": {"kernel_size": 2}, "3 stride 1": {"kernel_size": 3, "stride": 1},
    "(2, 3)": {"kernel_size": (2, 3)}, "padding": {"kernel_size": 3, "stride": 2, "padding": 1},
    "ceil_mode": {"kernel_size": 2, "ceil_mode": True},
    "ceil_mode and padding": {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
}
for name, options in POOLS.items():
    for pool in ("max_pool2d", "avg_pool2d"):
        add(f"{pool} {name}", lambda F, x, p=pool, o=options: getattr(F, p)(x, **o), IMAGE)
for pool in ("max_pool2d", "avg_pool2d"):
    add(f"{pool} of one image", lambda F, x, p=pool: getattr(F, p)(x, 2), IMAGE[0])
    add(f"{pool} larger than the image", lambda F, x, p=pool: getattr(F, p)(x, 6), IMAGE,
        raises=True)
    add(f"{pool} with much padding", lambda F, x, p=pool: getattr(F, p)(x, 2, padding=2), IMAGE,
        raises=True)
    add(f"{pool} of a matrix", lambda F, x, p=pool: getattr(F, p)(x, 2), MATRIX, raises=True)
add("max_pool2d of ties takes the first", lambda F, x: F.max_pool2d(x, 2), np.ones((1, 1, 4, 4)))
add("max_pool2d of NaN", lambda F, x: F.max_pool2d(x, 2), np.full((1, 1, 2, 2), np.nan),
    grad=False)
add("max_pool2d dilation", lambda F, x: F.max_pool2d(x, 2, 1, dilation=2), IMAGE)
add("max_pool2d indices", lambda F, x: F.max_pool2d(x, 2, return_indices=True), IMAGE,
    differs=("error", "an error says that the positions are not offered"))
add("avg_pool2d without the padding",
    lambda F, x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    IMAGE)
add("adaptive_avg_pool2d", lambda F, x: F.adaptive_avg_pool2d(x, 1), IMAGE)
add("adaptive_avg_pool2d uneven", lambda F, x: F.adaptive_avg_pool2d(x, (2, 3)), IMAGE)
add("interpolate nearest", lambda F, x: F.interpolate(x, scale_factor=2), IMAGE)

# ---- losses of two tensors ---------------------------------------------------------------------

TARGET = array(3, 4, seed=7)
PROBABILITY = array(3, 4, seed=8, low=0.05, high=0.95)
CHANCE = array(3, 4, seed=9, low=0.0, high=1.0)
PAIRS: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "mse_loss": (MATRIX, TARGET),
    "l1_loss": (MATRIX, TARGET),
    "smooth_l1_loss": (MATRIX, TARGET),
    "huber_loss": (MATRIX, TARGET),
    "binary_cross_entropy": (PROBABILITY, CHANCE),
    "binary_cross_entropy_with_logits": (MATRIX, CHANCE),
    "kl_div": (np.log(PROBABILITY), CHANCE + 0.1),
}
for loss, (x, y) in PAIRS.items():
    for reduction in ("mean", "sum", "none"):
        add(f"{loss} {reduction}",
            lambda F, x, y, n=loss, r=reduction: getattr(F, n)(x, y, reduction=r), x, y)
    add(f"{loss} unknown reduction", lambda F, x, y, n=loss: getattr(F, n)(x, y, reduction="max"),
        x, y, raises=True)
    add(f"{loss} of nothing", lambda F, x, y, n=loss: getattr(F, n)(x, y), x[:0], y[:0],
        second=False)
    add(f"{loss} of other shapes", lambda F, x, y, n=loss: getattr(F, n)(x, y), x, y[:, :3],
        raises=True)
for loss in ("smooth_l1_loss", "huber_loss"):
    key = "beta" if loss.startswith("smooth") else "delta"
    for edge in (0.5, 3.0):
        options = {key: edge}
        add(f"{loss} {key}={edge}", lambda F, x, y, n=loss, o=options: getattr(F, n)(x, y, **o),
            MATRIX, TARGET)
add("smooth_l1_loss beta=0", lambda F, x, y: F.smooth_l1_loss(x, y, beta=0.0), MATRIX, TARGET)
add("l1_loss at zero", lambda F, x, y: F.l1_loss(x, y), MATRIX, MATRIX.copy())
add("binary_cross_entropy weight",
    lambda F, x, y, w: F.binary_cross_entropy(x, y, weight=w.detach()),
    PROBABILITY, CHANCE, array(4, low=0.5), second=False)
add("binary_cross_entropy at 0 and 1",
    lambda F, x, y: F.binary_cross_entropy(x, y.detach(), reduction="none"),
    np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0]), second=False)
add("binary_cross_entropy of logits", lambda F, x, y: F.binary_cross_entropy(x, y), MATRIX * 2,
    CHANCE, raises=True)
BINARY = np.array([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
FAR_LOGITS = np.array([1000.0, -1000.0, -1000.0, 1000.0, 0.0, 0.0])
add("with_logits far out",
    lambda F, x, y: F.binary_cross_entropy_with_logits(x, y, reduction="none"),
    FAR_LOGITS, BINARY)
add("with_logits at infinity",
    lambda F, x, y: F.binary_cross_entropy_with_logits(x, y, reduction="none"),
    np.array([np.inf, -np.inf, -np.inf, np.inf]), BINARY[:4], second=False,
    differs=("value", "certain and right costs nothing, certain and wrong infinitely much"))
add("with_logits weight", lambda F, x, y, w: F.binary_cross_entropy_with_logits(
    x, y, weight=w.detach()),
    MATRIX, CHANCE, array(4, low=0.5))
add("with_logits pos_weight",
    lambda F, x, y, w: F.binary_cross_entropy_with_logits(x, y, pos_weight=w.detach()), MATRIX,
    CHANCE, array(4, low=0.5))
add("kl_div batchmean", lambda F, x, y: F.kl_div(x, y, reduction="batchmean"), MATRIX, CHANCE)
add("kl_div log_target", lambda F, x, y: F.kl_div(x, y, log_target=True, reduction="sum"), MATRIX,
    TARGET)

# ---- losses of classes -------------------------------------------------------------------------

CLASSES = np.array([2, 0, 3])
SOME = np.array([2, -100, 3])
CLASS_WEIGHTS = array(4, low=0.5, seed=4)
MAP, MAP_CLASSES = array(2, 4, 3), np.array([[0, 1, 3], [2, 2, 0]])

for loss in ("cross_entropy", "nll_loss"):
    for reduction in ("mean", "sum", "none"):
        add(f"{loss} {reduction}",
            lambda F, x, y, n=loss, r=reduction: getattr(F, n)(x, y, reduction=r), MATRIX, CLASSES)
        add(f"{loss} {reduction}, weight",
            lambda F, x, y, w, n=loss, r=reduction: getattr(F, n)(x, y, w.detach(), reduction=r),
            MATRIX, CLASSES, CLASS_WEIGHTS)
        add(f"{loss} {reduction}, ignore_index",
            lambda F, x, y, n=loss, r=reduction: getattr(F, n)(x, y, reduction=r), MATRIX, SOME)
        add(f"{loss} {reduction}, ignore_index=2, weight",
            lambda F, x, y, w, n=loss, r=reduction: getattr(F, n)(
                x, y, w.detach(), ignore_index=2, reduction=r), MATRIX, CLASSES, CLASS_WEIGHTS)
        add(f"{loss} {reduction}, of a map",
            lambda F, x, y, n=loss, r=reduction: getattr(F, n)(x, y, reduction=r), MAP, MAP_CLASSES)
    add(f"{loss} all ignored", lambda F, x, y, n=loss: getattr(F, n)(x, y), MATRIX,
        np.full(3, -100), second=False)
    add(f"{loss} of one sample", lambda F, x, y, n=loss: getattr(F, n)(x, y), MATRIX[0],
        np.array(2))
    add(f"{loss} unknown class", lambda F, x, y, n=loss: getattr(F, n)(x, y), MATRIX, CLASSES + 1,
        raises=True)
    add(f"{loss} negative class", lambda F, x, y, n=loss: getattr(F, n)(x, y), MATRIX, CLASSES - 1,
        raises=True)
    add(f"{loss} other batch", lambda F, x, y, n=loss: getattr(F, n)(x, y), MATRIX, CLASSES[:2],
        raises=True)
    add(f"{loss} of no samples", lambda F, x, y, n=loss: getattr(F, n)(x, y), MATRIX[:0],
        CLASSES[:0], second=False)
    add(f"{loss} with int32 classes", lambda F, x, y, n=loss: getattr(F, n)(x, y), MATRIX,
        CLASSES.astype(np.int32), raises=True, differs=("error", "any integer can name a class"))
add("cross_entropy of float classes", lambda F, x, y: F.cross_entropy(x, y), MATRIX,
    CLASSES.astype(np.float64), raises=True)
add("cross_entropy of probabilities", lambda F, x, y: F.cross_entropy(x, y), MATRIX, CHANCE)
add("cross_entropy of probabilities, weight", lambda F, x, y, w: F.cross_entropy(x, y, w.detach()),
    MATRIX, CHANCE, CLASS_WEIGHTS)
for smoothing in (0.1, 1.0):
    add(f"cross_entropy label_smoothing={smoothing}",
        lambda F, x, y, s=smoothing: F.cross_entropy(x, y, label_smoothing=s), MATRIX, CLASSES)
add("cross_entropy label_smoothing, weight, ignored",
    lambda F, x, y, w: F.cross_entropy(x, y, w.detach(), label_smoothing=0.1), MATRIX, SOME,
    CLASS_WEIGHTS)
add("cross_entropy label_smoothing out of range",
    lambda F, x, y: F.cross_entropy(x, y, label_smoothing=1.5), MATRIX, CLASSES, raises=True)
add("cross_entropy of large logits", lambda F, x, y: F.cross_entropy(x * 1e4, y), MATRIX, CLASSES)
add("cross_entropy, class at +inf", lambda F, x, y: F.cross_entropy(x, y, reduction="none"),
    np.array([[np.inf, 0.0], [-np.inf, 0.0], [0.0, -np.inf]]), np.array([0, 1, 0]), second=False)
add("cross_entropy, class at -inf", lambda F, x, y: F.cross_entropy(x, y, reduction="none"),
    np.array([[-np.inf, 0.0]]), np.array([0]), second=False)
add("cosine_embedding_loss", lambda F, x, y, z: F.cosine_embedding_loss(x, y, z), MATRIX, TARGET,
    np.array([1, -1, 1]))
add("margin_ranking_loss", lambda F, x, y, z: F.margin_ranking_loss(x, y, z, margin=0.5), MATRIX,
    TARGET, np.sign(TARGET - MATRIX))
add("gaussian_nll_loss", lambda F, x, y, v: F.gaussian_nll_loss(x, y, v), MATRIX, TARGET,
    PROBABILITY)
add("poisson_nll_loss", lambda F, x, y: F.poisson_nll_loss(x, y), MATRIX, CHANCE)
add("scaled_dot_product_attention", lambda F, q, k, v: F.scaled_dot_product_attention(q, k, v),
    array(2, 3, 4), array(2, 5, 4, seed=1), array(2, 5, 4, seed=2), tolerance=5)
add("causal attention", lambda F, q: F.scaled_dot_product_attention(q, q, q, is_causal=True),
    array(2, 3, 4), tolerance=5)
add("attention to nothing", lambda F, q, m: F.scaled_dot_product_attention(q, q, q, attn_mask=m),
    array(2, 3, 4), np.array([[True, False, True], [False] * 3, [True] * 3]), tolerance=5)
add("attention to nothing, by a float mask", lambda F, q, m: F.scaled_dot_product_attention(
    q, q, q, attn_mask=m.detach()), array(2, 3, 4), np.array([[0, -np.inf, 1], [-np.inf] * 3,
                                                              [0.0] * 3]), tolerance=5)
