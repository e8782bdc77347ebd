"""In-place operations, views and what they share: values, gradients and what is refused."""

from typing import Any

import numpy as np

from parity.runner import Table, array

TABLE = Table("in place")
add, case = TABLE.add, TABLE.case

MATRIX = array(3, 4)
VECTOR = array(4)
POSITIVE = array(3, 4, low=0.1)
INTEGERS = np.array([5, -3, 8, 2])
ROWS = np.array([2, 0])
MASK = MATRIX > 0

# ---- one method after the other ----------------------------------------------------------------

METHODS = {
    "add_": (2.0,), "sub_": (2.0,), "mul_": (3.0,), "div_": (4.0,), "pow_": (2,), "neg_": (),
    "exp_": (), "log_": (), "sqrt_": (), "rsqrt_": (), "reciprocal_": (), "abs_": (), "sin_": (),
    "cos_": (), "tanh_": (), "sigmoid_": (), "relu_": (), "floor_": (), "ceil_": (), "round_": (),
    "sign_": (), "square_": (), "clamp_": (0.3, 0.9), "clamp_min_": (0.5,), "clamp_max_": (0.5,),
    "zero_": (), "fill_": (5.0,), "floor_divide_": (0.3,), "remainder_": (0.3,), "trunc_": (),
    "expm1_": (), "log1p_": (), "erf_": (), "tan_": (), "masked_fill_": None,
}
for name, arguments in METHODS.items():
    if arguments is not None:
        grad = name != "floor_divide_"  # PyTorch has no derivative for it
        add(name, lambda t, x, n=name, a=arguments: getattr(x * 1, n)(*a), POSITIVE, grad=grad)
        add(f"{name} of a view",
            lambda t, x, n=name, a=arguments: [y := x * 1, getattr(y[1:, ::2], n)(*a)][0], POSITIVE,
            grad=grad)
        add(f"{name} of integers", lambda t, x, n=name, a=arguments: getattr(x.clone(), n)(*a),
            INTEGERS, raises=None)

OPERATORS = {
    "+=": lambda y, z: y.__iadd__(z),
    "-=": lambda y, z: y.__isub__(z),
    "*=": lambda y, z: y.__imul__(z),
    "/=": lambda y, z: y.__itruediv__(z),
    "**=": lambda y, z: y.__ipow__(z),
    "//=": lambda y, z: y.__ifloordiv__(z),
    "%=": lambda y, z: y.__imod__(z),
}
for symbol, apply in OPERATORS.items():
    grad = symbol != "//="
    add(f"{symbol} number", lambda t, x, f=apply: f(x * 1, 2.0), POSITIVE, grad=grad)
    add(f"{symbol} tensor", lambda t, x, v, f=apply: f(x * 1, v), POSITIVE, POSITIVE[0] + 1,
        grad=grad)
    add(f"{symbol} larger tensor", lambda t, v, x, f=apply: f(v * 1, x), POSITIVE[0], POSITIVE,
        raises=True)
    add(f"{symbol} integers by a float", lambda t, x, f=apply: f(x.clone(), 2.5), INTEGERS,
        raises=None)
    add(f"{symbol} float32 by float64", lambda t, x, v, f=apply: f(x * 1, v),
        POSITIVE.astype(np.float32), POSITIVE, single=False, second=False, grad=grad,
        tolerance=1e4)

add("masked_fill_", lambda t, x, m: (x * 1).masked_fill_(m, 9.0), MATRIX, MASK)
add("copy_", lambda t, x, y: (x * 1).copy_(y), MATRIX, VECTOR)
add("copy_ from another dtype", lambda t, x, y: (x * 1).copy_(y), VECTOR, INTEGERS)
add("copy_ of a larger one", lambda t, x, y: (y * 1).copy_(x), MATRIX, VECTOR, raises=True)
add("index_add_", lambda t, x, i, v: (x * 1).index_add_(0, i, v), MATRIX, ROWS, array(2, 4))
add("index_fill_", lambda t, x, i: (x * 1).index_fill_(0, i, 3.0), MATRIX, ROWS)
add("index_copy_", lambda t, x, i, v: (x * 1).index_copy_(0, i, v), MATRIX, ROWS, array(2, 4))
add("index_put_", lambda t, x, i, v: (x * 1).index_put_((i,), v), VECTOR, ROWS, array(2))
add("index_put_ accumulate", lambda t, x, i, v: (x * 1).index_put_((i,), v, accumulate=True),
    VECTOR, np.array([1, 1]), array(2))
add("scatter_", lambda t, x, i, v: (x * 1).scatter_(0, i, v), VECTOR, ROWS, array(2))
add("scatter_add_", lambda t, x, i, v: (x * 1).scatter_add_(0, i, v), VECTOR, np.array([1, 1]),
    array(2))
add("addcmul_", lambda t, x, y: (x * 1).addcmul_(y, y, value=0.5), MATRIX, VECTOR)
add("addcdiv_", lambda t, x, y: (x * 1).addcdiv_(y, y + 3, value=0.5), MATRIX, VECTOR)
add("lerp_", lambda t, x, y: (x * 1).lerp_(y, 0.25), MATRIX, VECTOR)
add("add_ with alpha", lambda t, x, y: (x * 1).add_(y, alpha=-0.1), MATRIX, VECTOR)
add("unsqueeze_", lambda t, x: (x * 1).unsqueeze_(0), VECTOR)
add("t_", lambda t, x: (x * 1).t_(), MATRIX)

# ---- views share their numbers -----------------------------------------------------------------

VIEWS = {
    "[1]": lambda y: y[1],
    "[1:, 2]": lambda y: y[1:, 2],
    "[..., ::2]": lambda y: y[..., ::2],
    "[None]": lambda y: y[None],
    "view": lambda y: y.view(2, 6),
    "reshape": lambda y: y.reshape(-1),
    "T": lambda y: y.T,
    "permute": lambda y: y.permute(1, 0),
    "transpose": lambda y: y.transpose(0, 1),
    "squeeze": lambda y: y.unsqueeze(0).squeeze(0),
    "flatten": lambda y: y.flatten(),
    "narrow": lambda y: y.narrow(1, 1, 2),
    "select": lambda y: y.select(0, 2),
    "diagonal": lambda y: y.diagonal(),
    "chunk": lambda y: y.chunk(2, 1)[1],
    "split": lambda y: y.split(2)[0],
    "unbind": lambda y: y.unbind(1)[0],
    "detach": lambda y: y.detach(),
    "movedim": lambda y: y.movedim(0, 1),
    "a view of a view": lambda y: y[1:].T[2:],
}
COPIES = {
    "[[0, 1]]": lambda y: y[[0, 1]],
    "[mask]": lambda y: y[y > 0],
    "clone": lambda y: y.clone(),
    "flip": lambda y: y.flip(0),
    "reshape of a transpose": lambda y: y.T.reshape(-1),
    "cat": lambda y: y.__class__.__add__(y, 0),
    "contiguous of a transpose": lambda y: y.T.contiguous(),
    "repeat": lambda y: y.repeat(1, 1),
    "roll": lambda y: y.roll(1),
}
for name, view in (VIEWS | COPIES).items():
    shared = "is shared" if name in VIEWS else "is a copy"

    def base_written(t: Any, x: Any, view: Any = view) -> Any:
        y = x.clone()
        part = view(y)
        y.mul_(10.0)
        return part

    def view_written(t: Any, x: Any, view: Any = view) -> Any:
        y = x.clone()
        view(y).zero_()
        return y

    def recorded(t: Any, x: Any, view: Any = view) -> Any:
        y = x * 2
        part = view(y)
        part.mul_(y.sum())
        return y * x, part

    add(f"{name} {shared}: base written", base_written, MATRIX, grad=False)
    add(f"{name} {shared}: view written", view_written, MATRIX, grad=False)
    if name not in ("unbind", "split", "chunk", "detach", "[mask]"):
        add(f"{name} {shared}: gradient through it", recorded, MATRIX)

# PyTorch refuses to write to one of several views; its answer is that of the same view made alone.
ONE_OF_SEVERAL = ("error", "each view of several knows its place, as a view made alone does")
SEVERAL = {
    "split": (lambda y: y.split(2)[0], lambda y: y[:2]),
    "chunk": (lambda y: y.chunk(2, 1)[1], lambda y: y[:, 2:]),
    "unbind": (lambda y: y.unbind(1)[0], lambda y: y[:, 0]),
}
for name, (one_of_several, alone) in SEVERAL.items():
    add(f"a part from {name} written", lambda t, x, f=one_of_several: f(x * 1).mul_(2), MATRIX,
        raises=True, differs=ONE_OF_SEVERAL)

    def part_written(t: Any, x: Any, several: Any = one_of_several, alone: Any = alone) -> Any:
        y = x * 2
        part = (alone if t.__name__ == "torch" else several)(y)
        part.mul_(y.sum())
        return y * x, part

    add(f"a part from {name} written: gradient through it", part_written, MATRIX)
add("expand is not written", lambda t, x: (x * 1)[0].expand(3, 4).add_(1), MATRIX, raises=True)
add("data shares", lambda t, x: [y := x.clone(), y.data.zero_()][0], MATRIX, grad=False)
add("numpy shares", lambda t, x: [y := x.clone(), y.numpy().fill(3)][0], MATRIX, grad=False)
add("from_numpy shares",
    lambda t: [a := np.zeros(3), y := t.from_numpy(a), a.fill(3.0), y][3])
add("tensor copies", lambda t: [a := np.zeros(3), y := t.tensor(a), a.fill(3.0), y][3:][0])


@case(MATRIX)
def base_written_after_the_view(t: Any, x: Any) -> Any:
    y = x * 1
    row = y[1]
    y.mul_(x)
    return row * 2


@case(MATRIX)
def two_views_of_one_base(t: Any, x: Any) -> Any:
    y = x * 1
    first, second = y[0], y[:2]
    first.mul_(3.0)
    second.add_(x[:2])
    return first, second, y


@case(MATRIX)
def columns_written_in_a_loop(t: Any, x: Any) -> Any:
    y = x * 1
    for i in range(3):
        y[:, i] = y[:, i] * 0.5 + y[:, i + 1]
    return y


@case(MATRIX, raises=True)
def columns_that_were_saved_written_in_a_loop(t: Any, x: Any) -> Any:
    y = x * 1
    for i in range(3):
        y[:, i] = y[:, i] / (y[:, i + 1] ** 2 + 1)
    return y


@case(VECTOR)
def recurrence_written_into_a_buffer(t: Any, x: Any) -> Any:
    states = t.zeros(5, dtype=x.dtype)
    for i in range(4):
        states[i + 1] = t.tanh(states[i] * 0.5 + x[i])
    return states


@case(VECTOR)
def in_place_makes_a_constant_require_grad(t: Any, x: Any) -> Any:
    y = t.ones(4, dtype=x.dtype)
    before = y.requires_grad
    y.mul_(x)
    return before, y.requires_grad, y.is_leaf, y


@case(VECTOR)
def copy_into_a_buffer(t: Any, x: Any) -> Any:
    y = t.zeros(2, 4, dtype=x.dtype)
    y[0].copy_(x)
    y[1] = x * x
    return y


# ---- what is refused ---------------------------------------------------------------------------

add("leaf written", lambda t, x: x.mul_(2), VECTOR, raises=True)
add("leaf written by index", lambda t, x: x.__setitem__(0, 1.0), VECTOR, raises=True)
add("view of a leaf written", lambda t, x: x[0:2].zero_(), VECTOR, raises=True)
add("leaf written in no_grad", lambda t, x: no_grad_write(t, x), VECTOR)
add("leaf written through data", lambda t, x: [x.data.mul_(2), x * x][1], VECTOR)
add("leaf written through detach", lambda t, x: [x.detach().mul_(2), x * x][1], VECTOR)


def no_grad_write(t: Any, x: Any) -> Any:
    with t.no_grad():
        x.mul_(2)
        x[0] = 1.0
        x -= 0.5
    return x * x, x.is_leaf, x.requires_grad


def overwritten(change: Any, use: Any) -> Any:
    """A row in which a value that backward needs, or does not need, is overwritten."""

    def call(t: Any, x: Any) -> Any:
        y = x * 1
        z = use(t, y)
        change(y, z)
        return z

    return call


def add_overwritten(name: str, use: Any, raises: bool, what: str = "input") -> None:
    change = (lambda y, z: y.add_(1)) if what == "input" else (lambda y, z: z.add_(1))
    add(f"{what} of {name} overwritten", overwritten(change, use), POSITIVE, raises=raises)


add_overwritten("exp", lambda t, y: t.exp(y), False)
add_overwritten("exp", lambda t, y: t.exp(y), True, "output")
add_overwritten("sin", lambda t, y: t.sin(y), True)
add_overwritten("sin", lambda t, y: t.sin(y), False, "output")
add_overwritten("tanh", lambda t, y: t.tanh(y), False)
add_overwritten("tanh", lambda t, y: t.tanh(y), True, "output")
add_overwritten("sigmoid", lambda t, y: t.sigmoid(y), True, "output")
add_overwritten("square", lambda t, y: y**2, True)
add_overwritten("product with itself", lambda t, y: y * y, True)
add_overwritten("product with a number", lambda t, y: y * 2, False)
add_overwritten("sum", lambda t, y: y.sum(), False)
add_overwritten("addition", lambda t, y: y + 1, False)
add_overwritten("log", lambda t, y: t.log(y), True)
add_overwritten("sqrt", lambda t, y: t.sqrt(y), False)
add_overwritten("sqrt", lambda t, y: t.sqrt(y), True, "output")
add_overwritten("matmul", lambda t, y: y @ y.T, True)
add_overwritten("relu", lambda t, y: t.relu(y), False)
add_overwritten("softmax", lambda t, y: t.softmax(y, 1), True, "output")


@case(MATRIX, raises=True)
def saved_value_overwritten_through_a_view(t: Any, x: Any) -> Any:
    y = x * 1
    z = y * y
    y[0].zero_()
    return z


@case(MATRIX, raises=True)
def saved_view_overwritten_through_its_base(t: Any, x: Any) -> Any:
    y = x * 1
    z = y[0] * y[1]
    y.zero_()
    return z


@case(MATRIX, differs=("error", "PyTorch computes a wrong gradient here without a word"))
def data_is_not_watched(t: Any, x: Any) -> Any:
    y = x * 1
    z = y * y
    y.data.mul_(2)
    return z.sum()


@case(MATRIX, raises=True)
def detach_is_watched(t: Any, x: Any) -> Any:
    y = x * 1
    z = y * y
    y.detach().mul_(2)
    return z.sum()


@case(VECTOR)
def version_counts_writes(t: Any, x: Any) -> Any:
    y = x * 1
    counts = [y._version]
    y.add_(1)
    counts.append(y._version)
    y[0] = 2.0
    counts.append(y._version)
    y.detach().add_(1)
    counts.append(y._version)
    return counts
