"""`.backward()`, `autograd.grad`, hooks, `detach`, `no_grad`, and what each refuses."""

from typing import Any

import numpy as np

from parity.runner import Table, array

TABLE = Table("autograd")
case = TABLE.case

X, Y = array(3), array(3, seed=1)
MATRIX = array(2, 3)
INTEGERS = np.array([1, 2, 3])


# ---- backward ----------------------------------------------------------------------------------

@case(X)
def backward_fills_grad(t: Any, x: Any) -> Any:
    before = x.grad
    (x * x).sum().backward()
    return before is None, x.grad, x.grad.requires_grad


@case(X)
def backward_adds_to_grad(t: Any, x: Any) -> Any:
    for _ in range(3):
        (x * x).sum().backward()
    return x.grad


@case(X)
def grad_set_to_none_starts_anew(t: Any, x: Any) -> Any:
    (x * x).sum().backward()
    x.grad = None
    (x * 3).sum().backward()
    return x.grad


@case(X)
def grad_zeroed_in_place(t: Any, x: Any) -> Any:
    (x * x).sum().backward()
    x.grad.zero_()
    (x * 3).sum().backward()
    return x.grad


@case(X)
def grad_is_the_same_tensor_when_added_to(t: Any, x: Any) -> Any:
    (x * x).sum().backward()
    first = x.grad
    (x * x).sum().backward()
    return first is x.grad, first


@case(X, raises=True)
def grad_of_another_shape(t: Any, x: Any) -> Any:
    x.grad = t.zeros(2, dtype=x.dtype)


@case(X, single=False, raises=True)
def grad_of_another_dtype(t: Any, x: Any) -> Any:
    x.grad = t.zeros(3, dtype=t.float16)


@case(X, raises=True)
def grad_that_is_no_tensor(t: Any, x: Any) -> Any:
    x.grad = 1.0


@case(X, Y)
def grad_set_by_hand(t: Any, x: Any, y: Any) -> Any:
    x.grad = y.detach()
    (x * 2).sum().backward()
    return x.grad


@case(X, raises=True)
def backward_through_a_vector(t: Any, x: Any) -> Any:
    (x * x).backward()


@case(X)
def backward_with_a_gradient(t: Any, x: Any) -> Any:
    (x * x).backward(t.tensor([1.0, 10.0, 100.0], dtype=x.dtype))
    return x.grad


@case(X)
def backward_with_gradient_by_name(t: Any, x: Any) -> Any:
    (x * x).backward(gradient=t.ones_like(x))
    return x.grad


@case(X, raises=True)
def gradient_of_another_shape(t: Any, x: Any) -> Any:
    (x * x).backward(t.ones(2, dtype=x.dtype))


@case(X)
def backward_of_one_element(t: Any, x: Any) -> Any:
    (x[:1] ** 2).backward()
    return x.grad


@case(X, raises=True)
def second_backward(t: Any, x: Any) -> Any:
    loss = (x * x).sum()
    loss.backward()
    loss.backward()


@case(X)
def second_backward_with_retain_graph(t: Any, x: Any) -> Any:
    loss = (x * x).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    return x.grad


@case(X, raises=True)
def third_backward_after_retain_graph(t: Any, x: Any) -> Any:
    loss = (x * x).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    loss.backward()


@case(X, raises=True)
def two_losses_share_a_graph(t: Any, x: Any) -> Any:
    shared = t.exp(x)
    shared.sum().backward()
    (shared * 2).sum().backward()


@case(X)
def two_losses_with_retain_graph(t: Any, x: Any) -> Any:
    shared = t.exp(x)
    shared.sum().backward(retain_graph=True)
    (shared * 2).sum().backward()
    return x.grad


@case(X)
def second_backward_that_needs_nothing_saved(t: Any, x: Any) -> Any:
    y = x + 1
    y.sum().backward()
    y.sum().backward()
    return x.grad


@case(X, Y)
def backward_with_inputs(t: Any, x: Any, y: Any) -> Any:
    (x * y).sum().backward(inputs=[x])
    return x.grad, y.grad is None


@case(X, Y)
def backward_with_one_input(t: Any, x: Any, y: Any) -> Any:
    (x * y).sum().backward(inputs=y)
    return x.grad is None, y.grad


@case(X)
def backward_with_an_intermediate_input(t: Any, x: Any) -> Any:
    y = x * 2
    (y * y).sum().backward(inputs=[y])
    return y.grad, x.grad is None


@case(X, raises=True)
def backward_with_no_inputs(t: Any, x: Any) -> Any:
    (x * x).sum().backward(inputs=[])


@case(X)
def backward_with_create_graph(t: Any, x: Any) -> Any:
    (x**3).sum().backward(create_graph=True)
    slope = x.grad
    x.grad = None
    (slope**2).sum().backward()
    return slope.detach(), slope.requires_grad, x.grad.detach()


@case(X, raises=True)
def backward_of_a_constant(t: Any, x: Any) -> Any:
    t.ones(3).sum().backward()


@case(X, raises=True)
def backward_of_a_detached_loss(t: Any, x: Any) -> Any:
    (x * x).sum().detach().backward()


@case(X)
def backward_of_a_leaf(t: Any, x: Any) -> Any:
    y = t.tensor(3.0, requires_grad=True)
    y.backward()
    return y.grad


@case(X, raises=True)
def backward_of_integers(t: Any, x: Any) -> Any:
    x.long().sum().backward()


@case(X)
def diamond(t: Any, x: Any) -> Any:
    y = t.sin(x)
    (y * y + y).sum().backward()
    return x.grad


@case(X)
def one_tensor_many_times(t: Any, x: Any) -> Any:
    (x * x * x + x / (x * x + 1)).sum().backward()
    return x.grad


@case(X)
def ten_thousand_operations_in_a_row(t: Any, x: Any) -> Any:
    y = x
    for _ in range(10_000):
        y = y + 1e-3
    y.sum().backward()
    return x.grad


@case(X, Y)
def unused_leaf_keeps_no_grad(t: Any, x: Any, y: Any) -> Any:
    (x * x).sum().backward()
    return y.grad is None


@case(X)
def no_grad_on_intermediates(t: Any, x: Any) -> Any:
    y = x * 2
    y.sum().backward()
    return y.is_leaf, x.is_leaf, y.retains_grad


@case(X)
def autograd_backward_of_several(t: Any, x: Any) -> Any:
    t.autograd.backward([x.sum(), (x * x).sum()])
    return x.grad


@case(X)
def autograd_backward_with_gradients(t: Any, x: Any) -> Any:
    t.autograd.backward([x * 2, x * x], [t.ones_like(x), x.detach()])
    return x.grad


# ---- autograd.grad -----------------------------------------------------------------------------

@case(X, Y)
def grad_of_several_inputs(t: Any, x: Any, y: Any) -> Any:
    grads = t.autograd.grad((x * y).sum(), (x, y))
    return grads, x.grad is None


@case(X)
def grad_of_one_input_is_a_tuple(t: Any, x: Any) -> Any:
    grads = t.autograd.grad((x * x).sum(), x)
    return type(grads).__name__, grads


@case(X)
def grad_of_several_outputs(t: Any, x: Any) -> Any:
    return t.autograd.grad([(x * x).sum(), x.sum()], [x])


@case(X, Y)
def grad_with_outputs(t: Any, x: Any, y: Any) -> Any:
    return t.autograd.grad(t.exp(x), x, grad_outputs=y.detach())


@case(X, raises=True)
def grad_of_a_vector(t: Any, x: Any) -> Any:
    return t.autograd.grad(x * x, x)


@case(X, Y, raises=True)
def grad_of_an_unused_input(t: Any, x: Any, y: Any) -> Any:
    return t.autograd.grad((x * x).sum(), [x, y])


@case(X, Y)
def grad_of_an_unused_input_allowed(t: Any, x: Any, y: Any) -> Any:
    gx, gy = t.autograd.grad((x * x).sum(), [x, y], allow_unused=True)
    return gx, gy is None


@case(X, Y)
def grad_of_an_unused_input_as_zeros(t: Any, x: Any, y: Any) -> Any:
    return t.autograd.grad((x * x).sum(), [x, y], materialize_grads=True)


@case(X)
def grad_of_an_intermediate(t: Any, x: Any) -> Any:
    y = x * 2
    return t.autograd.grad((y**3).sum(), y)


@case(X)
def grad_of_grad_of_grad(t: Any, x: Any) -> Any:
    (first,) = t.autograd.grad((x**4).sum(), x, create_graph=True)
    (second,) = t.autograd.grad(first.sum(), x, create_graph=True)
    (third,) = t.autograd.grad(second.sum(), x)
    return first.detach(), second.detach(), third


@case(X, raises=True)
def grad_of_grad_without_create_graph(t: Any, x: Any) -> Any:
    (first,) = t.autograd.grad((x**4).sum(), x)
    return t.autograd.grad(first.sum(), x)


@case(X, raises=True)
def grad_twice(t: Any, x: Any) -> Any:
    y = (x * x).sum()
    t.autograd.grad(y, x)
    t.autograd.grad(y, x)


@case(X)
def grad_twice_with_retain_graph(t: Any, x: Any) -> Any:
    y = (x * x).sum()
    return t.autograd.grad(y, x, retain_graph=True), t.autograd.grad(y, x)


@case(X)
def create_graph_keeps_the_graph(t: Any, x: Any) -> Any:
    y = (x * x).sum()
    return t.autograd.grad(y, x, create_graph=True), t.autograd.grad(y, x)


@case(X, raises=True)
def grad_of_what_requires_none(t: Any, x: Any) -> Any:
    return t.autograd.grad((x * x).sum(), x.detach())


@case(X)
def gradient_penalty(t: Any, x: Any) -> Any:
    (slope,) = t.autograd.grad(t.tanh(x).sum(), x, create_graph=True)
    return (slope.norm() - 1) ** 2


@case(X)
def jacobian_and_hessian(t: Any, x: Any) -> Any:
    jacobian = t.autograd.functional.jacobian(t.sin, x)
    hessian = t.autograd.functional.hessian(lambda v: (v**3).sum(), x)
    return jacobian, hessian


# ---- what requires a gradient ------------------------------------------------------------------

@case(X)
def requires_grad_spreads(t: Any, x: Any) -> Any:
    constant = t.ones(3, dtype=x.dtype)
    return (
        constant.requires_grad, (constant * 2).requires_grad, (constant * x).requires_grad,
        (x > 0).requires_grad, x.argmax().requires_grad, x.long().requires_grad,
    )


@case(INTEGERS, raises=True)
def integers_require_no_grad(t: Any, x: Any) -> Any:
    x.requires_grad_()


@case(INTEGERS, raises=True)
def integers_require_no_grad_by_attribute(t: Any, x: Any) -> Any:
    x.requires_grad = True


@case(X)
def requires_grad_turned_off_on_a_leaf(t: Any, x: Any) -> Any:
    x.requires_grad_(False)
    return x.requires_grad, (x * 2).requires_grad


@case(X, raises=True)
def requires_grad_turned_off_on_a_result(t: Any, x: Any) -> Any:
    (x * 2).requires_grad_(False)


@case(X)
def requires_grad_returns_itself(t: Any, x: Any) -> Any:
    y = x.detach()
    return y.requires_grad_() is y, y.requires_grad, x.requires_grad


@case(X)
def detach_stops_the_gradient(t: Any, x: Any) -> Any:
    return x * x.detach(), x.detach().requires_grad, x.detach().is_leaf


@case(X)
def detach_in_place(t: Any, x: Any) -> Any:
    y = x * 2
    y.detach_()
    return y.requires_grad, y.is_leaf


@case(X)
def no_grad_block(t: Any, x: Any) -> Any:
    with t.no_grad():
        y = x * 2
        with t.enable_grad():
            z = x * 3
        inside = t.is_grad_enabled()
    return y, z, inside, t.is_grad_enabled(), y.is_leaf


@case(X)
def no_grad_decorator(t: Any, x: Any) -> Any:
    @t.no_grad()
    def double(v: Any) -> Any:
        return v * 2

    return double(x), x * 2


@case(X)
def no_grad_ends_after_an_error(t: Any, x: Any) -> Any:
    try:
        with t.no_grad():
            raise KeyError
    except KeyError:
        pass
    return t.is_grad_enabled(), x * 2


@case(X)
def set_grad_enabled(t: Any, x: Any) -> Any:
    with t.set_grad_enabled(False):
        y = x * 2
    with t.set_grad_enabled(True):
        z = x * 2
    return y, z


@case(X)
def inference_mode_block(t: Any, x: Any) -> Any:
    with t.inference_mode():
        y = x * 2
    return y.requires_grad, x * 3


@case(X)
def new_leaf_in_no_grad(t: Any, x: Any) -> Any:
    with t.no_grad():
        y = t.ones(3, requires_grad=True)
    return y.requires_grad, (y * 2).requires_grad


@case(X)
def clone_is_recorded(t: Any, x: Any) -> Any:
    y = x.clone()
    return y.is_leaf, y * y


@case(X)
def numpy_round_trip_cuts(t: Any, x: Any) -> Any:
    y = t.from_numpy(x.detach().numpy() * 2)
    return y.requires_grad, x * y


@case(X)
def grad_fn_is_there_or_not(t: Any, x: Any) -> Any:
    return x.grad_fn is None, (x * 2).grad_fn is None, (x.detach() * 2).grad_fn is None


# ---- hooks and retain_grad ---------------------------------------------------------------------

@case(X)
def retain_grad(t: Any, x: Any) -> Any:
    y = x * 2
    y.retain_grad()
    (y * y).sum().backward()
    return y.grad, y.retains_grad, x.grad


@case(X, raises=True)
def retain_grad_of_a_constant(t: Any, x: Any) -> Any:
    x.detach().retain_grad()


@case(X)
def hook_sees_the_gradient(t: Any, x: Any) -> Any:
    seen = []
    y = x * 2
    y.register_hook(lambda g: seen.append(g.clone()))
    (y * y).sum().backward()
    return seen, x.grad


@case(X)
def hook_changes_the_gradient(t: Any, x: Any) -> Any:
    y = x * 2
    y.register_hook(lambda g: g * 10)
    (y * y).sum().backward()
    return x.grad


@case(X)
def hook_on_a_leaf(t: Any, x: Any) -> Any:
    x.register_hook(lambda g: g.clamp(-1, 1))
    (x * x * 5).sum().backward()
    return x.grad


@case(X)
def hooks_run_in_order(t: Any, x: Any) -> Any:
    y = x * 2
    y.register_hook(lambda g: g + 1)
    y.register_hook(lambda g: g * 10)
    y.sum().backward()
    return x.grad


@case(X)
def hook_removed(t: Any, x: Any) -> Any:
    handle = x.register_hook(lambda g: g * 10)
    handle.remove()
    x.sum().backward()
    return x.grad


@case(X)
def hook_sees_the_whole_gradient_once(t: Any, x: Any) -> Any:
    seen = []
    y = x * 2
    y.register_hook(lambda g: seen.append(g.clone()))
    (y * y + y * 3).sum().backward()
    return len(seen), seen


@case(X)
def hook_and_retain_grad(t: Any, x: Any) -> Any:
    y = x * 2
    y.retain_grad()
    y.register_hook(lambda g: g * 10)
    y.sum().backward()
    return y.grad, x.grad


@case(X)
def hook_that_raises(t: Any, x: Any) -> Any:
    def refuse(g: Any) -> None:
        raise ZeroDivisionError

    x.register_hook(refuse)
    try:
        x.sum().backward()
    except ZeroDivisionError:
        return "raised", x.grad is None
    return "silent"


@case(X, raises=True)
def hook_on_a_constant(t: Any, x: Any) -> Any:
    x.detach().register_hook(lambda g: g)


@case(X, raises=True)
def hook_that_returns_another_shape(t: Any, x: Any) -> Any:
    x.register_hook(lambda g: g[:1])
    x.sum().backward()


@case(X)
def hook_during_autograd_grad(t: Any, x: Any) -> Any:
    y = x * 2
    y.register_hook(lambda g: g * 10)
    return t.autograd.grad(y.sum(), x)


@case(X)
def hook_with_create_graph(t: Any, x: Any) -> Any:
    y = x * x
    y.register_hook(lambda g: g * 2)
    (slope,) = t.autograd.grad((y * y).sum(), x, create_graph=True)
    return slope


@case(X)
def post_accumulate_hook(t: Any, x: Any) -> Any:
    seen = []
    x.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    (x * x).sum().backward()
    return seen


# ---- nothing and very little -------------------------------------------------------------------

@case(np.zeros((0, 3)))
def empty_tensors_have_gradients(t: Any, x: Any) -> Any:
    (x * 2).sum().backward()
    return x.grad, tuple(x.grad.shape)


@case(np.zeros((0, 3)), array(3, 2))
def product_with_no_rows(t: Any, x: Any, w: Any) -> Any:
    (x @ w).sum().backward()
    return x.grad, w.grad


@case(array(2, 0), array(0, 3))
def product_over_no_terms(t: Any, x: Any, w: Any) -> Any:
    y = x @ w
    y.sum().backward(retain_graph=True)
    return y, x.grad, w.grad


@case(X)
def branches_that_do_not_matter(t: Any, x: Any) -> Any:
    unused = t.exp(x * 1000)
    return (x * 2).sum(), unused.requires_grad


@case(X)
def textbook_newton(t: Any, x: Any) -> Any:
    guess = t.ones(3, dtype=x.dtype)
    for _ in range(5):
        guess = 0.5 * (guess + (x * x + 1) / guess)
    return guess
