"""Making tensors from numbers and arrays, filled and counted ones, and their way out to Python."""

import numpy as np

from parity.runner import Table, array

TABLE = Table("creation")


def add(name, call, *inputs, **options):  # type: ignore[no-untyped-def]
    TABLE.add(name, call, *inputs, single=False, **options)


MATRIX = array(2, 3)
SINGLE = MATRIX.astype(np.float32)
INTEGERS = np.arange(6).reshape(2, 3)

# ---- from data ---------------------------------------------------------------------------------

LITERALS = {
    "1": 1, "1.5": 1.5, "True": True, "[]": [], "[1, 2]": [1, 2], "[1, 2.5]": [1, 2.5],
    "[True, False]": [True, False], "[[1], [2]]": [[1], [2]], "(1, 2)": (1, 2),
    "[True, 2]": [True, 2], "[[], []]": [[], []], "inf": float("inf"),
    "float32 array": SINGLE, "float64 array": MATRIX, "int array": INTEGERS,
    "int32 array": INTEGERS.astype(np.int32), "bool array": MATRIX > 0,
    "uint8 array": INTEGERS.astype(np.uint8), "float16 array": MATRIX.astype(np.float16),
    "NumPy float64": np.float64(2.5), "NumPy float32": np.float32(2.5), "NumPy int": np.int64(3),
    "transposed array": MATRIX.T, "array of nothing": np.zeros((0, 3)),
    "list of arrays": [np.ones(2), np.zeros(2)],
    "large int": 2**40,
}
for text, value in LITERALS.items():
    add(f"tensor({text})", lambda t, v=value: t.tensor(v))
    add(f"tensor({text}, float64)", lambda t, v=value: t.tensor(v, dtype=t.float64))
    add(f"as_tensor({text})", lambda t, v=value: t.as_tensor(v))
for text, value in {
    "ragged": [[1, 2], [3]], "text": "one", "list of text": ["a"], "None": None,
    "list and number": [1, [2]], "object": object(),
}.items():
    add(f"tensor({text})", lambda t, v=value: t.tensor(v), raises=True)
add("tensor(list of 0-d tensors)", lambda t, x: t.tensor([x[0, 0], x[0, 1]]), MATRIX, grad=False)
add("tensor(int32)", lambda t: t.tensor([1.7, -1.7], dtype=t.int32))
add("tensor(bool)", lambda t: t.tensor([0, 1, 2], dtype=t.bool))
add("tensor(float16)", lambda t: t.tensor([1.0, 70000.0], dtype=t.float16))
add("tensor with requires_grad", lambda t: t.tensor([1.0], requires_grad=True))
add("tensor of ints with requires_grad", lambda t: t.tensor([1], requires_grad=True), raises=True)
add("Tensor(list)", lambda t: t.Tensor([1, 2]))
add("from_numpy", lambda t: t.from_numpy(MATRIX.copy()))
add("from_numpy of a list", lambda t: t.from_numpy([1.0]), raises=True)
add("asarray", lambda t: t.asarray(MATRIX.copy()))
add("clone", lambda t, x: (x.clone(), t.clone(x) * 2), MATRIX)

# ---- filled ------------------------------------------------------------------------------------

add("zeros", lambda t: (t.zeros(2, 3), t.zeros((2, 3)), t.zeros([2]), t.zeros(()), t.zeros(0)))
add("ones", lambda t: (t.ones(2, 3), t.ones(2, dtype=t.int64), t.ones(1, requires_grad=True)))
add("full", lambda t: (t.full((2, 2), 3.5), t.full((2,), 3), t.full((), True)))
add("full of dtype", lambda t: t.full((2,), 3, dtype=t.float64))
add("empty has a shape", lambda t: (tuple(t.empty(2, 3).shape), t.empty(2).dtype))
add("zeros negative", lambda t: t.zeros(-1), raises=True)
add("zeros of a float", lambda t: t.zeros(2.0), raises=True)
add("eye", lambda t: (t.eye(3), t.eye(2, 3), t.eye(3, 2, dtype=t.int64)))
for name in ("zeros_like", "ones_like"):
    add(name, lambda t, x, n=name: getattr(t, n)(x), MATRIX)
    add(f"{name} of ints", lambda t, x, n=name: getattr(t, n)(x), INTEGERS)
    add(f"{name} with dtype", lambda t, x, n=name: getattr(t, n)(x, dtype=t.float32), INTEGERS)
    add(f"{name} with requires_grad", lambda t, x, n=name: getattr(t, n)(x, requires_grad=True),
        MATRIX)
add("full_like", lambda t, x: t.full_like(x, 7), MATRIX)
add("new_zeros", lambda t, x: (x.new_zeros(2), x.new_zeros((2, 2))), MATRIX)
add("new_ones, new_full, new_tensor",
    lambda t, x: (x.new_ones(2), x.new_full((2,), 3), x.new_tensor([1, 2])), MATRIX)

# ---- counted -----------------------------------------------------------------------------------

for arguments in ((5,), (2, 7), (1, 10, 3), (5, 0, -2), (0,), (2.5,), (0.0, 1.0, 0.25), (3, 3)):
    add(f"arange{arguments}", lambda t, a=arguments: t.arange(*a))
add("arange with dtype", lambda t: t.arange(3, dtype=t.float64))
add("arange that goes nowhere", lambda t: t.arange(0, 5, -1), raises=True)
add("arange in steps of zero", lambda t: t.arange(0, 5, 0), raises=True)
add("linspace", lambda t: (t.linspace(0, 1, 5), t.linspace(3, -3, 4), t.linspace(2, 5, 1)))
add("linspace of none", lambda t: t.linspace(0, 1, 0))
add("linspace in float64", lambda t: t.linspace(0, 1, 11, dtype=t.float64))
add("linspace negative", lambda t: t.linspace(0, 1, -1), raises=True)
add("logspace", lambda t: t.logspace(0, 2, 3))

# ---- random: shapes, dtypes and bounds, not the numbers ----------------------------------------

add("rand", lambda t: (tuple(t.rand(2, 3).shape), t.rand(2).dtype, bool((t.rand(99) < 1).all())))
add("randn", lambda t: (tuple(t.randn(2, 3).shape), t.randn((4,)).dtype, tuple(t.randn(()).shape)))
add("randint", lambda t: (t.randint(3, (5,)).dtype, bool((t.randint(2, 4, (99,)) >= 2).all()),
                          bool((t.randint(2, 4, (99,)) < 4).all())))
add("randint of an empty range", lambda t: t.randint(3, 3, (1,)), raises=True)
add("randperm", lambda t: t.randperm(7).sort().values)
add("rand_like", lambda t, x: (tuple(t.rand_like(x).shape), t.randn_like(x).dtype), MATRIX)
add("normal", lambda t: (tuple(t.normal(0.0, 1.0, (3,)).shape), t.normal(0.0, 1.0, (3,)).dtype))
add("bernoulli of certainty", lambda t: (t.bernoulli(t.ones(4)), t.bernoulli(t.zeros(4))))
add("multinomial of certainty", lambda t: t.multinomial(t.tensor([0.0, 1.0]), 3, replacement=True))
add("seeds repeat", lambda t: [t.manual_seed(3), a := t.rand(4), t.manual_seed(3),
                               bool((a == t.rand(4)).all())][3])
one_generator = lambda t: t.rand(4, generator=t.Generator().manual_seed(1))
add("generators repeat", lambda t: bool((one_generator(t) == one_generator(t)).all()))
add("uniform_ and normal_", lambda t: (bool((t.empty(99).uniform_(2, 3) >= 2).all()),
                                       tuple(t.empty(3).normal_(0, 1).shape)))

# ---- out to Python -----------------------------------------------------------------------------

add("item", lambda t: (t.tensor(2.5).item(), t.tensor([[3]]).item(), t.tensor(True).item()))
add("item of two", lambda t: t.tensor([1, 2]).item(), raises=True)
add("tolist", lambda t: (t.tensor([[1, 2], [3, 4]]).tolist(), t.tensor(1.5).tolist()))
add("float, int, bool", lambda t: (float(t.tensor(2.5)), int(t.tensor(2.5)), bool(t.tensor(0))))
add("float of two", lambda t: float(t.tensor([1.0, 2.0])), raises=True)
add("bool of two", lambda t: bool(t.tensor([1.0, 2.0])), raises=True)
add("bool of none", lambda t: bool(t.tensor([])), raises=True)
add("if", lambda t: "yes" if t.tensor(3) > 2 else "no")
add("index of a list", lambda t: [5, 6, 7][t.tensor(1)])
add("range of a tensor", lambda t: list(range(t.tensor(3))))
add("in", lambda t: (2 in t.tensor([1, 2]), 5 in t.tensor([1, 2])))
add("numpy", lambda t, x: (x.numpy().dtype.name, x.numpy().shape), MATRIX, grad=False)
add("numpy of what requires grad", lambda t, x: x.numpy(), MATRIX, raises=True)
add("np.asarray", lambda t, x: np.asarray(x).sum().item(), MATRIX, grad=False)
add("np.asarray of what requires grad", lambda t, x: np.asarray(x), MATRIX, raises=True)
add("format", lambda t: (f"{t.tensor(2.5):.2f}", f"{t.tensor(3):d}"))
add("format of a vector with a spec", lambda t: f"{t.tensor([1.0, 2.0]):.2f}", raises=True)
DIGITS = ("value", "as many digits as the numbers need, as NumPy writes them")
add("str of scalars", lambda t: (str(t.tensor(2.5)), str(t.tensor(3)), str(t.tensor(True))),
    differs=DIGITS)
add("str of vectors", lambda t: (str(t.tensor([1.0, 2.0])), str(t.tensor([1, 20, 300]))))
add("str of a matrix", lambda t: str(t.tensor([[1.5, 2.25], [3.0, 4.0]])), differs=DIGITS)
add("str of dtypes", lambda t: (str(t.zeros(1, dtype=t.float64)), str(t.zeros(1, dtype=t.int32))),
    differs=("value", "a dtype is written without the library's name"))
add("str of a leaf", lambda t: str(t.tensor([1.0], requires_grad=True)))
add("hash is identity", lambda t: [x := t.tensor(1.0), len({x, x, t.tensor(1.0)})][1])
add("dtype names", lambda t: (t.float is t.float32, t.double is t.float64, t.half is t.float16,
                              t.long is t.int64, t.int is t.int32))
add("dtype itemsize", lambda t: (t.float32.itemsize, t.int64.itemsize, t.bool.itemsize))
add("finfo and iinfo", lambda t: (t.finfo(t.float32).eps, t.finfo(t.float64).max,
                                  t.iinfo(t.int32).max))
add("element_size and nbytes", lambda t, x: (x.element_size(), x.nbytes), MATRIX)
add("is_tensor", lambda t, x: (t.is_tensor(x), t.is_tensor(1.0)), MATRIX)
add("device", lambda t, x: str(x.device), MATRIX)
add("cpu", lambda t, x: x.cpu() * 1, MATRIX)
add("to cpu", lambda t, x: x.to("cpu") * 1, MATRIX)
