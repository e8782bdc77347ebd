"""`nn.functional`: padding in all modes, and pooling of signals."""

from typing import Any

import numpy as np

from parity.runner import Table, array

TABLE = Table("signals")


def add(name: str, call: Any, *inputs: np.ndarray, **options: Any) -> None:
    """A row whose function is given `F` in place of the library."""
    TABLE.add(name, lambda t, *xs, f=call: f(t.nn.functional, *xs), *inputs, **options)


SIGNAL = array(2, 3, 7)
IMAGE = array(2, 2, 4, 5)
VOLUME = array(1, 2, 3, 4, 3)

# ---- padding -----------------------------------------------------------------------------------

for mode in ("reflect", "replicate", "circular"):
    for amounts in ((2, 1), (0, 3), (6, 6), (-1, 2), (3, -2), (-2, -3), (0, 0)):
        add(f"pad {mode} {amounts}", lambda F, x, a=amounts, m=mode: F.pad(x, a, mode=m), SIGNAL)
    add(f"pad {mode} of one signal", lambda F, x, m=mode: F.pad(x, (1, 2), mode=m), SIGNAL[0])
    for amounts in ((1, 2, 3, 0), (0, 0, 1, 1), (-1, 1, 2, -1)):
        add(f"pad {mode} {amounts}", lambda F, x, a=amounts, m=mode: F.pad(x, a, mode=m), IMAGE)
    add(f"pad {mode} of one image", lambda F, x, m=mode: F.pad(x, (1, 2, 1, 1), mode=m), IMAGE[0])
    add(f"pad {mode} of three axes", lambda F, x, m=mode: F.pad(x, (1, 2, 0, 1, 2, 1), mode=m),
        VOLUME)
    add(f"pad {mode} with value 0", lambda F, x, m=mode: F.pad(x, (1, 2), m, 0), SIGNAL)
    add(f"pad {mode} with a value", lambda F, x, m=mode: F.pad(x, (1, 2), m, 3.0), SIGNAL,
        raises=True)
    add(f"pad {mode} away", lambda F, x, m=mode: F.pad(x, (-4, -4), m), SIGNAL, raises=True)
    add(f"pad {mode}, an odd number", lambda F, x, m=mode: F.pad(x, (1, 2, 1), m), SIGNAL,
        raises=True)
add("pad reflect too far", lambda F, x: F.pad(x, (7, 0), mode="reflect"), SIGNAL, raises=True)
add("pad circular, all of it", lambda F, x: F.pad(x, (7, 7), mode="circular"), SIGNAL)
add("pad circular too far", lambda F, x: F.pad(x, (0, 8), mode="circular"), SIGNAL, raises=True)
add("pad replicate far", lambda F, x: F.pad(x, (20, 9), mode="replicate"), SIGNAL)
add("pad in no mode", lambda F, x: F.pad(x, (1, 1), mode="mirror"), SIGNAL, raises=True)
add("pad constant with None", lambda F, x: F.pad(x, (1, 1), "constant", None), SIGNAL)

# ---- pooling -----------------------------------------------------------------------------------

POOLS: dict[str, dict[str, Any]] = {
    "2": {"kernel_size": 2}, "stride": {"kernel_size": 3, "stride": 1},
    "tuples": {"kernel_size": (3,), "stride": (2,), "padding": (1,)},
    "padding": {"kernel_size": 3, "stride": 2, "padding": 1},
    "ceil_mode": {"kernel_size": 2, "ceil_mode": True},
    "ceil_mode and padding": {"kernel_size": 4, "stride": 3, "padding": 2, "ceil_mode": True},
    "gaps": {"kernel_size": 1, "stride": 3}, "all": {"kernel_size": 7},
}
for name, options in POOLS.items():
    for pool in ("max_pool1d", "avg_pool1d"):
        add(f"{pool} {name}", lambda F, x, p=pool, o=options: getattr(F, p)(x, **o), SIGNAL)
    add(f"avg_pool1d {name}, without the padding",
        lambda F, x, o=options: F.avg_pool1d(x, count_include_pad=False, **o), SIGNAL)
    add(f"max_pool1d {name}, indices",
        lambda F, x, o=options: F.max_pool1d(x, return_indices=True, **o), SIGNAL)
for pool in ("max_pool1d", "avg_pool1d"):
    add(f"{pool} of one signal", lambda F, x, p=pool: getattr(F, p)(x, 2), SIGNAL[0])
    add(f"{pool} larger than the signal", lambda F, x, p=pool: getattr(F, p)(x, 8), SIGNAL,
        raises=True)
    add(f"{pool} with much padding", lambda F, x, p=pool: getattr(F, p)(x, 2, padding=2), SIGNAL,
        raises=True)
    add(f"{pool} of a vector", lambda F, x, p=pool: getattr(F, p)(x, 2), SIGNAL[0, 0], raises=True)
    add(f"{pool} of an image", lambda F, x, p=pool: getattr(F, p)(x, 2), IMAGE, raises=True)
    add(f"{pool} of nothing", lambda F, x, p=pool: getattr(F, p)(x, 0), SIGNAL, raises=True)
    add(f"{pool} with two sizes", lambda F, x, p=pool: getattr(F, p)(x, (2, 2)), SIGNAL,
        raises=True)
add("max_pool1d dilation", lambda F, x: F.max_pool1d(x, 3, 1, 1, dilation=2), SIGNAL)
add("max_pool1d dilation, indices",
    lambda F, x: F.max_pool1d(x, 3, 2, 1, 2, return_indices=True), SIGNAL)
add("max_pool1d of ties takes the first", lambda F, x: F.max_pool1d(x, 3, return_indices=True),
    np.ones((1, 2, 9)))
add("max_pool1d of NaN", lambda F, x: F.max_pool1d(x, 2), np.full((1, 1, 4), np.nan), second=False,
    differs=("gradient of input 0", "the first NaN of a window gets the gradient, not the last"))
for parts in (1, 2, 3, 5, 7, 9, (4,)):
    for pool in ("adaptive_avg_pool1d", "adaptive_max_pool1d"):
        add(f"{pool} {parts}", lambda F, x, p=pool, n=parts: getattr(F, p)(x, n), SIGNAL)
    add(f"adaptive_max_pool1d {parts}, indices",
        lambda F, x, n=parts: F.adaptive_max_pool1d(x, n, return_indices=True), SIGNAL)
for pool in ("adaptive_avg_pool1d", "adaptive_max_pool1d"):
    add(f"{pool} of one signal", lambda F, x, p=pool: getattr(F, p)(x, 2), SIGNAL[0])
    add(f"{pool} of a vector", lambda F, x, p=pool: getattr(F, p)(x, 2), SIGNAL[0, 0], raises=True)
    add(f"{pool} of ties", lambda F, x, p=pool: getattr(F, p)(x, 3), np.ones((1, 1, 8)))
