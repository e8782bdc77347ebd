"""L-BFGS: a quasi-Newton method that calls the closure several times per step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from chainrule.autograd import enable_grad, no_grad
from chainrule.core.bind import state as recording
from chainrule.core.errors import SettingError, TracedValueError
from chainrule.core.events import heard, tell
from chainrule.core.record import new
from chainrule.tensor import Tensor

from .optimizer import Group, Optimizer, require

Array = np.ndarray[Any, Any]
# Of a line search that satisfies the strong Wolfe conditions: Nocedal & Wright, (3.7).
DECREASE, CURVATURE = 1e-4, 0.9
TRIALS = 25


class LBFGS(Optimizer):
    """Limited-memory BFGS (Liu & Nocedal 1989; Nocedal & Wright 2006, algorithms 7.4, 7.5, 3.5).

    `step(closure)` makes up to `max_iter` iterations, each along −H g, where H approximates the
    inverse Hessian from the last `history_size` steps. It stops earlier where the largest
    gradient is at most `tolerance_grad`, or step or change of the loss at most
    `tolerance_change`, or after `max_eval` calls (default 1.25 · max_iter). Without
    `line_search_fn` each step has length `lr`; "strong_wolfe" searches for it. One group only.
    Returns the loss before the step.

    >>> import chainrule as cr
    >>> x = cr.tensor([-1.5, 2.0], requires_grad=True)
    >>> optimizer = cr.optim.LBFGS([x], line_search_fn="strong_wolfe", max_iter=100)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
    ...     loss.backward()
    ...     return loss
    >>> round(optimizer.step(closure).item(), 2)
    12.5
    >>> cr.allclose(x, cr.ones(2), atol=1e-3)
    True
    """

    counts_steps = False

    def __init__(self, params: Iterable[Any], lr: Any = 1, max_iter: int = 20,
                 max_eval: int | None = None, tolerance_grad: float = 1e-7,
                 tolerance_change: float = 1e-9, history_size: int = 100,
                 line_search_fn: str | None = None) -> None:
        super().__init__(params, {
            "lr": lr, "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change,
            "history_size": history_size, "line_search_fn": line_search_fn})

    def add_param_group(self, param_group: Group) -> None:
        if self.param_groups:
            raise SettingError("LBFGS approximates one Hessian of all parameters: it has one group")
        super().add_param_group(param_group)

    def _check_options(self, group: Group) -> None:
        require(group, "lr", group["lr"] >= 0, ">= 0")
        require(group, "max_iter", group["max_iter"] >= 1, ">= 1")
        require(group, "history_size", group["history_size"] >= 1, ">= 1")
        require(group, "line_search_fn", group["line_search_fn"] in (None, "strong_wolfe"),
                "None or 'strong_wolfe'")

    def _slots(self, group: Group) -> tuple[str, ...]:
        return ()

    def _loaded(self, value: Any, slot: str, p: Tensor, place: str) -> Any:
        def array(x: Any) -> Any:
            return np.asarray(x.detach() if hasattr(x, "detach") else x).copy()

        if slot == "al":                    # PyTorch's scratch
            return None
        if slot in ("n_iter", "func_evals"):
            return int(value)
        if slot in ("old_dirs", "old_stps"):
            return [array(x) for x in value]
        if slot == "ro":
            return [float(x) for x in value]
        return float(value) if slot in ("H_diag", "t", "prev_loss") else array(value)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Up to `max_iter` iterations; `closure` clears gradients, goes back, returns the loss."""
        if recording.capture is not None:
            raise TracedValueError(
                "LBFGS.step() decides by numbers how often it goes on, so it cannot be compiled as "
                "a whole. Compile the closure instead: optimizer.step(cr.compile(closure))")
        if closure is None:
            raise TypeError("LBFGS.step(closure) needs a closure that clears the gradients, "
                            "computes the loss, calls loss.backward() and returns the loss")
        for hook in list(self._pre_hooks.values()):
            hook(self, (closure,), {})
        group = self.param_groups[0]
        walk = _Search(group, self.state[group["params"][0]], closure)
        if "step" in heard:
            tell("step", optimizer=self)
        with no_grad():
            loss = walk.run()
        self._stepped = True
        if "stepped" in heard:
            tell("stepped", optimizer=self)
        for hook in list(self._post_hooks.values()):
            hook(self, (closure,), {})
        return loss


class _Search:
    """One call of `step`: the parameters as one vector, and what is kept from call to call."""

    def __init__(self, group: Group, kept: dict[str, Any], closure: Callable[[], Any]) -> None:
        self.group, self.kept, self.closure = group, kept, closure
        self.params: list[Tensor] = group["params"]
        self.calls = 0
        kept.setdefault("n_iter", 0)
        kept.setdefault("func_evals", 0)

    def read(self) -> Array:
        return np.concatenate([p._value.ravel() for p in self.params])

    def write(self, x: Array) -> None:
        start = 0
        for p in self.params:
            stop = start + p.numel()
            p.copy_(new(x[start:stop].reshape(tuple(p.shape)).astype(p.dtype, copy=False)))
            start = stop

    def evaluate(self, x: Array | None = None) -> tuple[Any, float, Array]:
        """The closure's loss at x (or where the parameters are), as a number, and the gradient."""
        if x is not None:
            self.write(x)
        with enable_grad():
            loss = self.closure()
        self.calls += 1
        self.kept["func_evals"] += 1
        gradient = np.concatenate([
            np.zeros(p.numel(), p.dtype) if p.grad is None else p.grad._value.ravel()
            for p in self.params])
        return loss, float(loss), gradient

    def run(self) -> Any:
        group, kept = self.group, self.kept
        small = group["tolerance_change"]
        first, loss, g = self.evaluate()
        if not np.abs(g).max(initial=0.0) > group["tolerance_grad"]:
            return first                    # also where the gradient is not a number
        for iteration in range(group["max_iter"]):
            d = self.direction(g)
            lr = float(group["lr"])
            # The first step knows nothing of the scale; later ones are as long as d says.
            t = lr if kept["n_iter"] > 1 else min(1.0, 1 / float(np.abs(g).sum())) * lr
            slope = float(g @ d)
            if slope > -small:
                break
            x, before = self.read(), loss
            if group["line_search_fn"]:
                t, loss, g = self.strong_wolfe(x, t, d, loss, g, slope)
                self.write(x + t * d)
            else:
                self.write(x + t * d)
                if iteration + 1 < group["max_iter"]:
                    _, loss, g = self.evaluate()
            kept["d"], kept["t"] = d, t
            if self.calls >= group["max_eval"]:
                break
            if np.abs(g).max() <= group["tolerance_grad"]:
                break
            if np.abs(t * d).max() <= small or abs(loss - before) < small:
                break
        return first

    def direction(self, g: Array) -> Array:
        """−H g by the two-loop recursion (Nocedal & Wright, algorithm 7.4)."""
        kept = self.kept
        kept["n_iter"] += 1
        if kept["n_iter"] == 1:
            kept.update(old_dirs=[], old_stps=[], ro=[], H_diag=1.0)
        else:
            y = g - kept["prev_flat_grad"]
            s = kept["d"] * kept["t"]
            curvature = float(y @ s)
            if curvature > 1e-10:           # else H would not stay positive definite
                if len(kept["old_dirs"]) == self.group["history_size"]:
                    for name in ("old_dirs", "old_stps", "ro"):
                        kept[name].pop(0)
                kept["old_dirs"].append(y)
                kept["old_stps"].append(s)
                kept["ro"].append(1 / curvature)
                kept["H_diag"] = curvature / float(y @ y)
        history = list(zip(kept["old_dirs"], kept["old_stps"], kept["ro"], strict=True))
        q = -g
        shares = []
        for y, s, ro in reversed(history):
            shares.append(float(s @ q) * ro)
            q = q - shares[-1] * y
        d: Array = q * kept["H_diag"]
        for (y, s, ro), share in zip(history, reversed(shares), strict=True):
            d = d + s * (share - float(y @ d) * ro)
        kept["prev_flat_grad"] = g.copy()
        return d.astype(g.dtype, copy=False)

    def strong_wolfe(self, x: Array, t: float, d: Array, loss: float, g: Array, slope: float
                     ) -> tuple[float, float, Array]:
        """A step length with enough decrease and curvature (Nocedal & Wright, algorithms 3.5, 3.6).

        Returns it with the loss and the gradient there.
        """
        low = (0.0, loss, g, slope)
        for trial in range(TRIALS):
            _, value, gradient = self.evaluate(x + t * d)
            now = (t, value, gradient, float(gradient @ d))
            if not value <= loss + DECREASE * t * slope or (trial and value >= low[1]):
                return self.zoom(x, d, loss, slope, low, now)
            if abs(now[3]) <= -CURVATURE * slope:
                return now[:3]
            if now[3] >= 0:
                return self.zoom(x, d, loss, slope, now, low)
            low, t = now, min(_minimum(low, now, now[0] + 0.01 * (now[0] - low[0]), 10 * now[0]),
                              10 * now[0])
        return low[:3]

    def zoom(self, x: Array, d: Array, loss: float, slope: float, low: Any, high: Any
             ) -> tuple[float, float, Array]:
        """Between `low`, the best so far, and `high` there is a step that will do."""
        longest = float(np.abs(d).max())
        for _ in range(TRIALS):
            width = abs(high[0] - low[0])
            if width * longest < self.group["tolerance_change"]:
                break
            left, right = sorted((low[0], high[0]))
            # Not too close to an end, or the interval would hardly shrink.
            t = min(max(_minimum(low, high, left, right), left + 0.1 * width),
                    right - 0.1 * width)
            _, value, gradient = self.evaluate(x + t * d)
            now = (t, value, gradient, float(gradient @ d))
            if not value <= loss + DECREASE * t * slope or value >= low[1]:
                high = now
                continue
            if abs(now[3]) <= -CURVATURE * slope:
                return now[:3]
            if now[3] * (high[0] - low[0]) >= 0:
                high = low
            low = now
        return low[:3]  # type: ignore[no-any-return]


def _minimum(a: Any, b: Any, left: float, right: float) -> float:
    """Where the cubic through values and slopes at a and b is least, within [left, right].

    Nocedal & Wright, (3.59); the middle where there is none or a number is not finite.
    """
    if a[0] > b[0]:
        a, b = b, a
    with np.errstate(all="ignore"):
        d1 = a[3] + b[3] - 3 * (a[1] - b[1]) / (a[0] - b[0]) if a[0] != b[0] else np.nan
        square = d1 * d1 - a[3] * b[3]
        if not square >= 0 or not np.isfinite(square):
            return (left + right) / 2
        d2 = square ** 0.5
        bottom = b[3] - a[3] + 2 * d2
        if not bottom:
            return (left + right) / 2
        at = b[0] - (b[0] - a[0]) * (b[3] + d2 - d1) / bottom
    return float(min(max(at, left), right)) if np.isfinite(at) else (left + right) / 2
