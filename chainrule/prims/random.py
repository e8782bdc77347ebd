"""Random numbers as a pure function of a key: the n-th number depends on the key and n alone.

The n-th word is mix(state + n·γ): the SplitMix64 generator (Steele, Lea and Flood 2014), whose
state advances linearly, so any word can be had directly. A compiled step can draw the same words.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chainrule.core.errors import BatchingError
from chainrule.core.kinds import general
from chainrule.core.types import ArrayType

GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)


def mix(z: Any) -> Any:
    """The output function of SplitMix64 on an array of 64-bit words, in place."""
    z ^= z >> _S30
    z *= _MIX_1
    z ^= z >> _S27
    z *= _MIX_2
    z ^= z >> _S31
    return z


def words(key: Any, count: int) -> Any:
    """`count` 64-bit words; `key` holds the seed and how many words were drawn before."""
    seed, offset = (int(k) & 0xFFFFFFFFFFFFFFFF for k in key)
    start = int(mix(np.array([seed], np.uint64))[0]) + (offset + 1) * int(GAMMA)
    z = np.arange(count, dtype=np.uint64)
    z *= GAMMA
    z += np.uint64(start & 0xFFFFFFFFFFFFFFFF)
    return mix(z)


def _uniform(key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    count = int(np.prod(shape, dtype=np.int64))
    z = words(key, count)
    if dtype == np.float64:
        return (z >> np.uint64(11)).astype(np.float64).reshape(shape) * 2.0**-53
    bits = (z >> np.uint64(40)).astype(np.float32).reshape(shape) * np.float32(2.0**-24)
    if dtype == np.float16:        # 11 bits, so that rounding never reaches 1
        return ((z >> np.uint64(53)).astype(np.float32).reshape(shape)
                * np.float32(2.0**-11)).astype(np.float16)
    return bits


def _uniform_lower(e: Any, key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """The same words, each from its own number: start + n·γ, mixed."""
    if np.dtype(dtype).itemsize < 4:
        return NotImplemented
    count = math.prod(shape)
    seed, offset = (e.slice(key, (i,)) for i in range(2))
    start = e.map("random_start", _start, seed, offset, dtype=key.dtype, cost=12)
    number = e.count((count,), 0)
    made = e.map("random_number", lambda r, n, s: _number(r, n, s, np.dtype(dtype)), number,
                 e.broadcast(start, (count,)), dtype=np.dtype(dtype), cost=14, key=str(dtype))
    return e.reshape(made, shape)


def _start(r: Any, seed: Any, offset: Any) -> Any:
    return _mixed(r, seed) + (offset + 1) * _signed(GAMMA)


def _number(r: Any, n: Any, start: Any, dtype: Any) -> Any:
    word = _mixed(r, n * _signed(GAMMA) + start)
    kept = 53 if dtype == np.float64 else 24
    return r.cast(r.bitwise("lshr", word, 64 - kept), dtype) * 2.0**-kept


def _mixed(r: Any, z: Any) -> Any:
    """`mix` on a lane."""
    z = (z ^ r.bitwise("lshr", z, 30)) * _signed(_MIX_1)
    z = (z ^ r.bitwise("lshr", z, 27)) * _signed(_MIX_2)
    return z ^ r.bitwise("lshr", z, 31)


def _signed(word: Any) -> int:
    return int(word.view(np.int64))


def _batch(xs: Any, axes: Any, shape: Any, dtype: Any) -> Any:
    raise BatchingError("random keys cannot be batched; draw outside vmap, or pass "
                     "randomness='same' or 'different' to vmap")


bits = general("uniform", eval=_uniform,
    infer=lambda key, shape, dtype: ArrayType(tuple(shape), np.dtype(dtype)),
    pulls=(None,), jvp=None, batch=_batch, arguments=("key",), lower=_uniform_lower,
    samples=lambda rng: [((np.array([7, 0]),), {"shape": (2, 3), "dtype": np.dtype("f8")}),
                         ((np.array([7, 5]),), {"shape": (4,), "dtype": np.dtype("f4")})],
    doc="Numbers uniform in [0, 1), a pure function of the key (seed, words drawn before).")
