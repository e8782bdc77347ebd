"""`func`: grad, vjp, jvp, Jacobians, Hessians and vmap, and what they refuse."""

from typing import Any

from parity.runner import Table, array

TABLE = Table("func")
case = TABLE.case

X, Y = array(3), array(3, seed=1)
MATRIX = array(2, 3)


@case(X)
def grad(t: Any, x: Any) -> Any:
    return t.func.grad(lambda v: (v**3).sum())(x.detach())


@case(X, Y)
def grad_with_argnums(t: Any, x: Any, y: Any) -> Any:
    f = lambda a, b: (a * a * b).sum()
    return t.func.grad(f, argnums=1)(x, y), t.func.grad(f, argnums=(0, 1))(x, y)


@case(X)
def grad_and_value(t: Any, x: Any) -> Any:
    return t.func.grad_and_value(lambda v: (v**3).sum())(x.detach())


@case(X)
def grad_has_aux(t: Any, x: Any) -> Any:
    return t.func.grad(lambda v: ((v**3).sum(), v * 2), has_aux=True)(x.detach())


@case(X, Y)
def vjp_and_jvp(t: Any, x: Any, y: Any) -> Any:
    x, y = x.detach(), y.detach()
    value, pull = t.func.vjp(t.sin, x)
    return value, pull(y), t.func.jvp(t.sin, (x,), (y,))


@case(X)
def jacobians(t: Any, x: Any) -> Any:
    f = lambda v: t.sin(v) * v.sum()
    x = x.detach()
    return t.func.jacrev(f)(x), t.func.jacfwd(f)(x), t.func.hessian(lambda v: (v**3).sum())(x)


@case(MATRIX)
def vmap(t: Any, x: Any) -> Any:
    x = x.detach()
    return t.func.vmap(lambda v: (v * v).sum())(x), t.func.vmap(t.sin, in_dims=1, out_dims=1)(x)


@case(MATRIX, Y)
def vmap_of_grad(t: Any, x: Any, y: Any) -> Any:
    f = lambda v, w: (t.sin(v) * w).sum()
    return t.func.vmap(t.func.grad(f), in_dims=(0, None))(x.detach(), y.detach())


@case(X)
def grad_of_grad(t: Any, x: Any) -> Any:
    first = t.func.grad(t.sin)
    return t.func.grad(first)(x.detach()[0]), t.func.vmap(t.func.grad(first))(x.detach())


@case(X, raises=True)
def grad_of_a_vector(t: Any, x: Any) -> Any:
    return t.func.grad(lambda v: v * 2)(x.detach())


@case(MATRIX, raises=True)
def vmap_over_sizes_that_differ(t: Any, x: Any) -> Any:
    return t.func.vmap(t.add)(x.detach(), x.detach()[:1])
