"""Transcendental functions in registers: branch-free, for any number of lanes.

Every function takes the emitter and lanes of float32 or float64. An argument is reduced exactly
(in two or three fused steps) to a small interval, on which a polynomial stands. The coefficients
were computed for these files with Remez's exchange algorithm in 50 digits for the least relative
error, and rounded one after another with the rest fitted anew; lowest power first.

Errors against exact values, in units in the last place: at most 2 but for those in `FLOAT32_ULP`
and `FLOAT64_ULP`. NaN, ±∞, −0 and denormal numbers are as in C99's Annex F.
"""

from __future__ import annotations

from chainrule.compiler.lanes import circular as circular
from chainrule.compiler.lanes import exponential as exponential
from chainrule.compiler.lanes import special as special
from chainrule.compiler.lanes.common import in_float64
from chainrule.compiler.lanes.registers import MATHEMATICS

# The largest errors, where they exceed 2 units in the last place. A difference that
# cancels (logaddexp) is measured by its larger term.
FLOAT32_ULP: dict[str, float] = {"silu": 2.5}
FLOAT64_ULP: dict[str, float] = {
    "acosh": 3, "asin": 3, "asinh": 3, "atan": 3, "atan2": 3, "atanh": 3, "log1pexp": 3,
    "logaddexp": 3, "silu": 2.5, "sinh": 3, "softplus": 3, "tan": 3}

MATHEMATICS.update(
    exp=exponential.exp,
    exp2=exponential.exp2,
    expm1=exponential.expm1,
    log=exponential.log,
    log2=exponential.log_scaled(2.0),
    log10=exponential.log_scaled(10.0),
    log1p=exponential.log1p,
    log1pexp=exponential.log1pexp,
    logaddexp=exponential.logaddexp,
    sigmoid=exponential.sigmoid,
    silu=exponential.silu,
    softplus=exponential.softplus,
    tanh=exponential.tanh,
    sinh=in_float64(exponential.sinh),
    cosh=in_float64(exponential.cosh),
    asinh=in_float64(exponential.asinh),
    acosh=in_float64(exponential.acosh),
    atanh=in_float64(exponential.atanh),
    sin=circular.sin,
    cos=circular.cos,
    tan=in_float64(circular.tan),
    asin=in_float64(circular.asin),
    acos=in_float64(circular.acos),
    atan=in_float64(circular.atan),
    atan2=in_float64(circular.atan2),
    hypot=in_float64(special.hypot),
    fmod=special.fmod,
    pow=special.power,
    erf=special.erf,
    erfc=special.erfc,
    erfinv=in_float64(special.erfinv),
)
