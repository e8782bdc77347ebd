"""Where each public name comes from.

Written by `python -m chainrule.testing.stubs`: do not edit.
"""

import builtins

from . import autograd as autograd
from . import data as data
from . import doctor as doctor
from . import explain as explain
from . import func as func
from . import io as io
from . import nn as nn
from . import optim as optim
from . import testing as testing
from . import utils as utils
from .autograd import enable_grad as enable_grad
from .autograd import inference_mode as inference_mode
from .autograd import is_grad_enabled as is_grad_enabled
from .autograd import is_inference_mode_enabled as is_inference_mode_enabled
from .autograd import no_grad as no_grad
from .autograd import set_grad_enabled as set_grad_enabled
from .compiler.workers.threads import get_num_threads as get_num_threads
from .compiler.workers.threads import num_threads as num_threads
from .compiler.workers.threads import set_num_threads as set_num_threads
from .core.config import settings as settings
from .core.types import bool_ as _bool_
from .core.types import float16 as _float16
from .core.types import float16 as float16
from .core.types import float32 as _float32
from .core.types import float32 as float32
from .core.types import float64 as _float64
from .core.types import float64 as float64
from .core.types import int32 as _int32
from .core.types import int32 as int32
from .core.types import int64 as _int64
from .core.types import int64 as int64
from .core.types import uint8 as uint8
from .device import accelerator as accelerator
from .device import backends as backends
from .device import cuda as cuda
from .device import device as device
from .func import vmap as vmap
from .functions.arithmetic import addcdiv as addcdiv
from .functions.arithmetic import addcmul as addcmul
from .functions.arithmetic import addmv as addmv
from .functions.arithmetic import baddbmm as baddbmm
from .functions.arithmetic import cdist as cdist
from .functions.arithmetic import clamp_max as clamp_max
from .functions.arithmetic import clamp_min as clamp_min
from .functions.arithmetic import float_power as float_power
from .functions.arithmetic import inner as inner
from .functions.arithmetic import kron as kron
from .functions.arithmetic import lerp as lerp
from .functions.arithmetic import logit as logit
from .functions.arithmetic import nan_to_num as nan_to_num
from .functions.arithmetic import positive as positive
from .functions.arithmetic import rsub as rsub
from .functions.arithmetic import straight_through as straight_through
from .functions.arithmetic import tensordot as tensordot
from .functions.arithmetic import xlogy as xlogy
from .functions.attach import add as add
from .functions.attach import div as _div
from .functions.attach import div as div
from .functions.attach import sub as _sub
from .functions.attach import sub as sub
from .functions.comparison import allclose as allclose
from .functions.comparison import argwhere as argwhere
from .functions.comparison import bincount as bincount
from .functions.comparison import bucketize as bucketize
from .functions.comparison import equal as equal
from .functions.comparison import finfo as finfo
from .functions.comparison import iinfo as iinfo
from .functions.comparison import isclose as isclose
from .functions.comparison import promote_types as promote_types
from .functions.comparison import result_type as result_type
from .functions.comparison import searchsorted as searchsorted
from .functions.comparison import take as take
from .functions.comparison import unique as unique
from .functions.creation import DoubleTensor as DoubleTensor
from .functions.creation import FloatTensor as FloatTensor
from .functions.creation import LongTensor as LongTensor
from .functions.creation import arange as arange
from .functions.creation import as_tensor as _as_tensor
from .functions.creation import as_tensor as as_tensor
from .functions.creation import empty as empty
from .functions.creation import empty_like as empty_like
from .functions.creation import eye as eye
from .functions.creation import from_numpy as from_numpy
from .functions.creation import full as full
from .functions.creation import full_like as full_like
from .functions.creation import get_default_dtype as get_default_dtype
from .functions.creation import is_floating_point as is_floating_point
from .functions.creation import is_nonzero as is_nonzero
from .functions.creation import is_tensor as is_tensor
from .functions.creation import linspace as linspace
from .functions.creation import logspace as logspace
from .functions.creation import numel as numel
from .functions.creation import ones as ones
from .functions.creation import ones_like as ones_like
from .functions.creation import set_default_dtype as set_default_dtype
from .functions.creation import set_printoptions as set_printoptions
from .functions.creation import tensor as tensor
from .functions.creation import zeros as zeros
from .functions.creation import zeros_like as zeros_like
from .functions.einsum import einsum as einsum
from .functions.ops import addmm as addmm
from .functions.ops import all as all
from .functions.ops import amax as amax
from .functions.ops import amin as amin
from .functions.ops import any as any
from .functions.ops import argmax as argmax
from .functions.ops import argmin as argmin
from .functions.ops import argsort as argsort
from .functions.ops import bmm as bmm
from .functions.ops import clamp as _clamp
from .functions.ops import clamp as clamp
from .functions.ops import count_nonzero as count_nonzero
from .functions.ops import cumprod as cumprod
from .functions.ops import cumsum as cumsum
from .functions.ops import dot as dot
from .functions.ops import gather as gather
from .functions.ops import index_add as index_add
from .functions.ops import index_select as index_select
from .functions.ops import log_softmax as log_softmax
from .functions.ops import logsumexp as logsumexp
from .functions.ops import masked_fill as masked_fill
from .functions.ops import masked_select as masked_select
from .functions.ops import matmul as matmul
from .functions.ops import max as max
from .functions.ops import mean as mean
from .functions.ops import min as min
from .functions.ops import mm as mm
from .functions.ops import mv as mv
from .functions.ops import nonzero as nonzero
from .functions.ops import norm as norm
from .functions.ops import outer as outer
from .functions.ops import prod as prod
from .functions.ops import scatter as scatter
from .functions.ops import scatter_add as scatter_add
from .functions.ops import softmax as softmax
from .functions.ops import sort as sort
from .functions.ops import std as std
from .functions.ops import sum as sum
from .functions.ops import take_along_dim as take_along_dim
from .functions.ops import topk as topk
from .functions.ops import var as var
from .functions.ops import var_mean as var_mean
from .functions.ops import where as where
from .functions.shaping import atleast_1d as atleast_1d
from .functions.shaping import atleast_2d as atleast_2d
from .functions.shaping import atleast_3d as atleast_3d
from .functions.shaping import broadcast_tensors as broadcast_tensors
from .functions.shaping import broadcast_to as broadcast_to
from .functions.shaping import cat as _cat
from .functions.shaping import cat as cat
from .functions.shaping import chunk as chunk
from .functions.shaping import diag as diag
from .functions.shaping import diag_embed as diag_embed
from .functions.shaping import diagonal as diagonal
from .functions.shaping import flatten as flatten
from .functions.shaping import flip as flip
from .functions.shaping import fliplr as fliplr
from .functions.shaping import flipud as flipud
from .functions.shaping import hstack as hstack
from .functions.shaping import meshgrid as meshgrid
from .functions.shaping import movedim as _movedim
from .functions.shaping import movedim as movedim
from .functions.shaping import narrow as narrow
from .functions.shaping import one_hot as one_hot
from .functions.shaping import pad as pad
from .functions.shaping import permute as permute
from .functions.shaping import ravel as ravel
from .functions.shaping import repeat_interleave as repeat_interleave
from .functions.shaping import reshape as reshape
from .functions.shaping import roll as roll
from .functions.shaping import rot90 as rot90
from .functions.shaping import select as select
from .functions.shaping import split as split
from .functions.shaping import squeeze as squeeze
from .functions.shaping import stack as stack
from .functions.shaping import t as t
from .functions.shaping import tensor_split as tensor_split
from .functions.shaping import tile as tile
from .functions.shaping import trace as trace
from .functions.shaping import transpose as _transpose
from .functions.shaping import transpose as transpose
from .functions.shaping import tril as tril
from .functions.shaping import tril_indices as tril_indices
from .functions.shaping import triu as triu
from .functions.shaping import triu_indices as triu_indices
from .functions.shaping import unbind as unbind
from .functions.shaping import unflatten as unflatten
from .functions.shaping import unsqueeze as unsqueeze
from .functions.shaping import vstack as vstack
from .functions.statistics import cov as cov
from .functions.statistics import cummax as cummax
from .functions.statistics import cummin as cummin
from .functions.statistics import diff as diff
from .functions.statistics import kthvalue as kthvalue
from .functions.statistics import logcumsumexp as logcumsumexp
from .functions.statistics import median as median
from .functions.statistics import nanmean as nanmean
from .functions.statistics import nanmedian as nanmedian
from .functions.statistics import nansum as nansum
from .functions.statistics import quantile as quantile
from .functions.statistics import std_mean as std_mean
from .functions.writing import index_copy as index_copy
from .functions.writing import index_fill as index_fill
from .functions.writing import index_put as index_put
from .functions.writing import masked_scatter as masked_scatter
from .io.state import load as load
from .io.state import save as save
from .jit.compiled import compile as compile
from .random import Generator as Generator
from .random import bernoulli as bernoulli
from .random import default_generator as default_generator
from .random import get_rng_state as get_rng_state
from .random import initial_seed as initial_seed
from .random import manual_seed as manual_seed
from .random import multinomial as multinomial
from .random import normal as normal
from .random import rand as rand
from .random import rand_like as rand_like
from .random import randint as randint
from .random import randint_like as randint_like
from .random import randn as randn
from .random import randn_like as randn_like
from .random import randperm as randperm
from .random import seed as seed
from .random import set_rng_state as set_rng_state
from .rows import abs as _abs
from .rows import abs as abs
from .rows import acos as _acos
from .rows import acos as acos
from .rows import acosh as _acosh
from .rows import acosh as acosh
from .rows import asin as _asin
from .rows import asin as asin
from .rows import asinh as _asinh
from .rows import asinh as asinh
from .rows import atan2 as _atan2
from .rows import atan2 as atan2
from .rows import atan as _atan
from .rows import atan as atan
from .rows import atanh as _atanh
from .rows import atanh as atanh
from .rows import bitwise_and as bitwise_and
from .rows import bitwise_not as bitwise_not
from .rows import bitwise_or as bitwise_or
from .rows import bitwise_xor as bitwise_xor
from .rows import ceil as ceil
from .rows import clone as clone
from .rows import cos as cos
from .rows import cosh as cosh
from .rows import deg2rad as deg2rad
from .rows import elu as elu
from .rows import eq as eq
from .rows import erf as erf
from .rows import erfc as erfc
from .rows import erfinv as erfinv
from .rows import exp2 as exp2
from .rows import exp as exp
from .rows import expm1 as expm1
from .rows import floor as floor
from .rows import floor_divide as floor_divide
from .rows import fmax as fmax
from .rows import fmod as fmod
from .rows import frac as frac
from .rows import ge as _ge
from .rows import ge as ge
from .rows import gelu as gelu
from .rows import gt as _gt
from .rows import gt as gt
from .rows import hypot as hypot
from .rows import isfinite as isfinite
from .rows import isinf as isinf
from .rows import isnan as isnan
from .rows import le as _le
from .rows import le as le
from .rows import leaky_relu as leaky_relu
from .rows import log1p as log1p
from .rows import log2 as log2
from .rows import log10 as log10
from .rows import log as log
from .rows import logaddexp as logaddexp
from .rows import logical_and as logical_and
from .rows import logical_not as logical_not
from .rows import logical_or as logical_or
from .rows import logical_xor as logical_xor
from .rows import lt as _lt
from .rows import lt as lt
from .rows import maximum as maximum
from .rows import minimum as minimum
from .rows import mul as _mul
from .rows import mul as mul
from .rows import ne as _ne
from .rows import ne as ne
from .rows import neg as _neg
from .rows import neg as neg
from .rows import pow as pow
from .rows import rad2deg as rad2deg
from .rows import reciprocal as reciprocal
from .rows import relu as relu
from .rows import remainder as remainder
from .rows import round as round
from .rows import rsqrt as rsqrt
from .rows import sigmoid as sigmoid
from .rows import sign as sign
from .rows import signbit as signbit
from .rows import silu as silu
from .rows import sin as sin
from .rows import sinc as sinc
from .rows import sinh as sinh
from .rows import sqrt as sqrt
from .rows import square as square
from .rows import tan as tan
from .rows import tanh as tanh
from .rows import trunc as _trunc
from .rows import trunc as trunc
from .tensor import Size as Size
from .tensor import Tensor as Tensor

__version__: str
absolute = _abs
arccos = _acos
arccosh = _acosh
arcsin = _asin
arcsinh = _asinh
arctan = _atan
arctan2 = _atan2
arctanh = _atanh
asarray = _as_tensor
bool = _bool_
clip = _clamp
concat = _cat
concatenate = _cat
divide = _div
double = _float64
e: builtins.float
fix = _trunc
float = _float32
greater = _gt
greater_equal = _ge
half = _float16
inf: builtins.float
int = _int32
less = _lt
less_equal = _le
long = _int64
moveaxis = _movedim
multiply = _mul
nan: builtins.float
negative = _neg
not_equal = _ne
pi: builtins.float
subtract = _sub
swapaxes = _transpose
swapdims = _transpose
true_divide = _div
