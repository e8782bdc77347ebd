"""`cr.compile`: what it takes for fixed, what it refuses, memory, gradients to the outside.

    python -m pytest tests/test_jit.py
"""

from __future__ import annotations

import copy
import importlib.util
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.core.errors import (
    GradientError,
    SettingError,
    TracedValueError,
)
from chainrule.jit import RecompileWarning

SCALE = 5


pytestmark = pytest.mark.usefixtures("engine")


def ones(*shape: int) -> Any:
    return cr.ones(*(shape or (1,)))


def trained(model: Any, optimizer: Any) -> Callable[[Any], Any]:
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss
    return step


# ---------------------------------------------------------------- numbers are refused


def test_an_if_on_a_value_names_the_line_and_the_cure() -> None:
    @cr.compile
    def f(x: Any) -> Any:
        if x.sum() > 0:
            return x
        return -x
    x = ones(3)
    with pytest.raises(TracedValueError, match=r"if x\.sum\(\) > 0") as caught:
        f(x)
    assert "cr.where" in str(caught.value)
    assert x.sum().item() == 3


@pytest.mark.parametrize("body", [
    lambda x: x.sum().item(), lambda x: float(x.sum()), lambda x: x.numpy(), repr,
    lambda x: f"{x}", lambda x: np.sin(x.numpy()), lambda x: x.tolist(), lambda x: int(x[0]),
    lambda x: np.asarray(x), lambda x: list(range(x.sum().long())),
    copy.deepcopy, lambda x: cr.multinomial(x, 1), lambda x: x[x > 0], lambda x: bool(x.any()),
    lambda x: x[:x.sum().long()], lambda x: cr.unique(x)])
def test_whatever_needs_numbers_is_refused(body: Callable[[Any], Any]) -> None:
    x = ones(3)
    with pytest.raises(TracedValueError, match="compiled function"):
        cr.compile(lambda x: body(x))(x)
    assert float(x.sum()) == 3


def test_a_tensor_of_the_run_must_not_be_kept() -> None:
    log: list[Any] = []
    holder = type("Holder", (), {})()

    @cr.compile
    def f(x: Any) -> Any:
        holder.kept = x * 2
        return x
    with pytest.raises(TracedValueError, match="keeps a tensor it computes") as caught:
        f(ones())
    assert "holder.kept = x * 2" in str(caught.value)
    with pytest.raises(TracedValueError, match="inside a compiled function and kept"):
        holder.kept + 1
    with pytest.raises(TracedValueError, match="kept"):
        holder.kept.item()

    @cr.compile
    def g(x: Any) -> Any:
        log.append(x * 2)
        return x
    with pytest.raises(TracedValueError, match="stores a tensor it computes in log"):
        g(ones())


def test_an_optimiser_that_makes_its_state_in_the_step_makes_it_in_python() -> None:
    class Signs(optim.Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {"lr": 0.1})

        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    kept = self.state[p]
                    if not kept:
                        kept["mean"] = cr.zeros_like(p)
                    kept["mean"].mul_(0.9).add_(p.grad)
                    p.data.sub_(kept["mean"].sign(), alpha=group["lr"])

    def run(compiled: bool, warm: bool) -> Any:
        w = cr.ones(3, requires_grad=True)
        optimizer: Any = Signs([w])

        def step(x: Any) -> None:
            optimizer.zero_grad()
            (w * x).sum().backward()
            optimizer.step()
        function = cr.compile(step) if compiled else step
        if warm:
            step(cr.tensor([1.0, -1.0, 2.0]))
        for rate in (0.1, 0.1, 0.5):
            optimizer.param_groups[0]["lr"] = rate
            function(cr.tensor([1.0, -1.0, 2.0]))
        if compiled:
            assert len(function.compiles) == 2  # type: ignore[attr-defined]
            optimizer.state[w]["mean"] = cr.tensor([9.0, -9.0, 9.0])
            function(cr.tensor([1.0, -1.0, 2.0]))
        else:
            optimizer.state[w]["mean"] = cr.tensor([9.0, -9.0, 9.0])
            step(cr.tensor([1.0, -1.0, 2.0]))
        return w.tolist()
    assert run(True, True) == run(False, True)
    assert run(True, False) == run(False, False)


def test_an_optimiser_that_counts_in_python_is_refused() -> None:
    class Counting(optim.Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {"lr": 0.1})

        def step(self, closure: Any = None) -> None:
            for p in self.param_groups[0]["params"]:
                kept = self.state[p]
                kept["step"] = kept.get("step", 0) + 1
                p.data.sub_(p.grad / kept["step"])
    w = cr.ones(3, requires_grad=True)
    optimizer = Counting([w])

    @cr.compile
    def step(x: Any) -> None:
        optimizer.zero_grad()
        (w * x).sum().backward()
        optimizer.step()
    step(ones(3))
    assert optimizer.state[w]["step"] == 1 and w.sum().item() == 0
    with pytest.raises(TracedValueError, match=r"state\[p\]\['step'\] of Counting, 1, to 2"):
        step(ones(3))
    assert optimizer.state[w]["step"] == 1 and w.sum().item() == 0


# ---------------------------------------------------------------- Python values are guards


def test_numbers_around_a_function_are_guards() -> None:
    k = 2.0
    f = cr.compile(lambda x: x * k)
    assert f(ones()).item() == 2
    k = 3.0
    assert f(ones()).item() == 3
    k = 2.0
    assert f(ones()).item() == 2
    assert [record.why for record in f.compiles] == ["first call", "k: 2.0 became 3.0"]


def test_globals_of_called_functions_and_of_super_are_guards() -> None:
    global SCALE

    class Lower(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * SCALE

    class Upper(Lower):
        def forward(self, x: Any) -> Any:
            return super().forward(x) + 1
    SCALE = 2
    f = cr.compile(Upper())
    assert f(ones()).item() == 3
    SCALE = 4
    assert f(ones()).item() == 5


def test_globals_of_an_installed_package_are_guards(tmp_path: Path) -> None:
    folder = tmp_path / "lib" / "site-packages" / "owned"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("K = 2\ndef f(x):\n    return x * K\n")
    spec = importlib.util.spec_from_file_location("owned", folder / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    f = cr.compile(module.f)
    assert f(ones()).item() == 2
    module.K = 3
    assert f(ones()).item() == 3


def test_values_of_arguments_are_guards() -> None:
    f = cr.compile(lambda x, k, flag=False: -x if flag else x * k)
    assert [f(ones(), k).item() for k in (2, 3, 2)] == [2, 3, 2]
    assert f(ones(), 2, flag=True).item() == -1
    whole = cr.ones(1, dtype=cr.int64)
    assert f(whole, 2).dtype == cr.int64
    assert f(whole, 2.0).dtype == cr.float32


def test_attributes_of_objects_modules_and_classes_are_guards() -> None:
    class Options:
        scale = 2.0

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.options, self.table, self.factor = Options(), {"k": 1.0}, ones()

        def forward(self, x: Any) -> Any:
            return x * self.options.scale * self.table["k"] * self.factor
    model: Any = Scaled()
    f = cr.compile(model)
    assert f(ones()).item() == 2
    model.options.scale = 3.0
    assert f(ones()).item() == 3
    model.table["k"] = 2.0
    assert f(ones()).item() == 6
    model.factor = cr.zeros(1)
    assert f(ones()).item() == 0
    model.factor = ones()
    Options.scale = 5.0
    del model.options.scale
    assert f(ones()).item() == 10


def test_mode_and_structure_of_modules_are_guards() -> None:
    model = nn.Sequential(nn.Dropout(0.5))
    f, x = cr.compile(model), ones(20)
    assert (f(x) != 1).any().item()
    model.eval()
    assert (f(x) == 1).all().item()
    f.train()
    assert (f(x) != 1).any().item()
    assert len(f.compiles) == 2
    assert "training: True became False" in f.compiles[1].why
    model[0].p = 0.0
    assert (f(x) == 1).all().item()
    layer = nn.Linear(2, 2)
    g, x = cr.compile(lambda x: layer(x)), ones(1, 2)
    g(x)
    layer.bias = None
    np.testing.assert_allclose(g(x).detach(), layer(x).detach())
    layer.weight = nn.Parameter(cr.zeros(2, 2))
    assert g(x).sum().item() == 0


def test_types_modes_and_hooks_are_guards() -> None:
    w = cr.ones(2, requires_grad=True)
    f, x = cr.compile(lambda x: w * x), ones(2)
    assert f(x).requires_grad
    with cr.no_grad():
        assert not f(x).requires_grad
    with cr.inference_mode():
        assert f(x).is_inference()
    w.requires_grad_(False)
    assert not f(x).requires_grad
    w.requires_grad_(True)
    assert f(x).requires_grad
    assert f(x.double()).dtype == cr.float64
    assert "x: f32[2] became f64[2]" in f.compiles[-1].why

    @cr.compile
    def backward(x: Any) -> None:
        w.grad = None
        (w * x).sum().backward()
    backward(x)
    handle = w.register_hook(lambda g: g * 10)
    backward(x)
    assert w.grad.tolist() == [10, 10]
    handle.remove()
    backward(x)
    assert w.grad.tolist() == [1, 1]


def test_rates_are_brought_by_each_call_and_their_truth_is_a_guard() -> None:
    w = cr.ones(1, requires_grad=True)
    optimizer = optim.SGD([w], 1.0)

    @cr.compile
    def f() -> None:
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()
    f()
    optimizer.param_groups[0]["lr"] = 2.0
    f()
    assert w.item() == -2
    assert len(f.compiles) == 1
    optimizer.param_groups[0]["weight_decay"] = 0.5
    f()
    assert w.item() == -2
    assert "weight_decay became 0.5" in f.compiles[1].why
    optimizer.param_groups[0] = {**optimizer.param_groups[0], "lr": 1.0, "weight_decay": 0}
    for before, rate in ((-2, 1.0), (-3, 2.0), (-5, 2.0)):
        assert w.item() == before
        optimizer.param_groups[0]["lr"] = rate
        f()
    assert w.item() == -7
    g = cr.compile(lambda x: x * optimizer.param_groups[0]["lr"])
    assert g(ones()).item() == 2
    optimizer.param_groups[0]["lr"] = 4.0
    assert g(ones()).item() == 4


def test_a_decorated_method_is_compiled_for_each_object() -> None:
    class Scaled:
        def __init__(self, k: float) -> None:
            self.k = k

        @cr.compile
        def f(self, x: Any) -> Any:
            return x * self.k
    a, b = Scaled(2), Scaled(3)
    assert (a.f(ones()).item(), b.f(ones()).item()) == (2, 3)
    a.k = 5
    assert a.f(ones()).item() == 5


def test_compiled_functions_inside_compiled_ones_are_inlined_with_their_guards() -> None:
    k = [2.0]
    inner = cr.compile(lambda x: x * k[0])
    outer = cr.compile(lambda x: inner(x) + 1)
    assert outer(ones()).item() == 3
    k[0] = 5.0
    assert outer(ones()).item() == 6


def test_the_latest_compilations_are_kept_and_too_many_are_said() -> None:
    f = cr.compile(lambda x, k: x * len(range(k)), limit=2)
    assert [f(ones(), k).item() for k in range(3)] == [0, 1, 2]
    with pytest.warns(RecompileWarning, match="compiled 4 times"):
        f(ones(), 3)
    assert len(f._entries) == 2
    with pytest.raises(SettingError, match="limit"):
        cr.compile(limit=0)


# ---------------------------------------------------------------- what would happen only once


class Meter:
    """Counts what it is given."""

    def __init__(self) -> None:
        self.count = 0

    def update(self) -> None:
        self.count += 1


def test_changes_to_python_objects_are_refused() -> None:
    meter, numbers, array, total = Meter(), [0], np.zeros(3), 0

    def nonlocal_counter(x: Any) -> Any:
        nonlocal total
        total += 1
        return x * total

    def attribute_counter(x: Any) -> Any:
        meter.update()
        return x

    def growing(x: Any) -> Any:
        numbers.append(1)
        return x

    def numpy_write(x: Any) -> Any:
        array[0] += 1
        return x

    def argument_changed(x: Any) -> Any:
        x["y"] = x["x"] * 2
        return x["y"]
    for function, what in ((nonlocal_counter, "total"), (attribute_counter, "meter.count"),
                           (growing, "numbers"), (numpy_write, "array")):
        with pytest.raises(TracedValueError, match=f"changes {what}"):
            cr.compile(function)(ones())
    with pytest.raises(TracedValueError, match="it was given"):
        cr.compile(argument_changed)({"x": ones()})


def test_library_objects_that_count_are_refused() -> None:
    model = nn.Linear(2, 2)
    optimizer = optim.SGD(model.parameters(), 0.1)
    schedule = optim.lr_scheduler.StepLR(optimizer, 1)

    @cr.compile
    def f(x: Any) -> None:
        trained(model, optimizer)(x)
        schedule.step()
    with pytest.raises(TracedValueError, match="param_groups"):
        f(ones(1, 2))
    loader = cr.data.DataLoader(cr.data.TensorDataset(ones(4, 2)), batch_size=2)
    with pytest.raises(TracedValueError, match="loader"):
        cr.compile(lambda x: [x + rows.sum() for (rows,) in loader])(ones())
    items = iter([1, 2, 3])
    with pytest.raises(TracedValueError, match="items"):
        cr.compile(lambda x: x * next(items))(ones())


def test_random_numbers_and_clocks_of_python_are_refused() -> None:
    generator, own = np.random.default_rng(0), random.Random(0)
    for body, match in ((lambda x: x * np.random.rand(), "random numbers"),  # noqa: NPY002
                        (lambda x: x * generator.random(), "generator"),
                        (lambda x: x * own.gauss(0, 1), "own"),
                        (lambda x: x * random.random(), "random numbers"),
                        (lambda x: x * time.time(), r"time\.time"),
                        (lambda x: (cr.manual_seed(0), x)[1], "manual_seed")):
        with pytest.raises(TracedValueError, match=match):
            cr.compile(body)(ones())


def test_hooks_and_flags_are_not_changed_inside() -> None:
    w = cr.ones(1, requires_grad=True)
    with pytest.raises(GradientError, match="hook"):
        cr.compile(lambda x: (w.register_hook(lambda g: g), x)[1])(ones())
    with pytest.raises(GradientError, match="no longer requires"):
        cr.compile(lambda x: (w.detach_(), x)[1])(ones())
    assert w.requires_grad
    with pytest.raises(TracedValueError, match="recording switched off"):
        cr.compile(lambda x: (cr.set_grad_enabled(False), x)[1])(ones())
    assert cr.is_grad_enabled()
    optimizer = optim.SGD([w], 0.1)
    optimizer.register_step_post_hook(lambda *_: None)
    with pytest.raises(TracedValueError, match="step hooks"):
        cr.compile(lambda x: optimizer.step())(ones())


def test_what_prepares_something_for_later_is_allowed() -> None:
    class Masked(nn.Module):
        mask: Any = None

        def forward(self, x: Any) -> Any:
            if self.mask is None:
                self.mask = cr.tril(cr.ones(3, 3))
            return x * self.mask
    model = Masked()
    f = cr.compile(model)
    assert [f(ones(3, 3)).sum().item() for _ in range(2)] == [6, 6]
    model.mask = ones(3, 3)
    assert f(ones(3, 3)).sum().item() == 9


def test_a_tensor_stored_in_a_module_is_refused() -> None:
    class Remembering(nn.Module):
        state: Any = None

        def forward(self, x: Any) -> Any:
            if self.state is None:
                self.state = x * 2
            return x
    with pytest.raises(TracedValueError, match=r"stores a tensor .* Remembering\.state"):
        cr.compile(Remembering())(ones())


def test_only_tensors_and_constants_are_returned() -> None:
    with pytest.raises(TracedValueError, match="returns a Meter"):
        cr.compile(lambda x: Meter())(ones())

    def generator(x: Any) -> Any:
        yield x
    with pytest.raises(TypeError, match="generator"):
        cr.compile(generator)
    with pytest.raises(TypeError, match="function or a module"):
        cr.compile(3)


def test_a_failed_run_leaves_nothing_behind() -> None:
    model = nn.Linear(2, 2)
    optimizer = optim.Adam(model.parameters())

    @cr.compile
    def f(x: Any) -> None:
        trained(model, optimizer)(x)
        raise KeyError("mine")
    with pytest.raises(KeyError):
        f(ones(1, 2))
    assert not any(optimizer.state.values())
    assert model.weight.grad is None
    assert np.isfinite(float(model.weight.sum()))


# ---------------------------------------------------------------- arrays of NumPy


def test_arrays_become_inputs_or_are_compared() -> None:
    array = np.ones(3, np.float32)
    shared = cr.compile(lambda x: x * cr.from_numpy(array))
    operand = cr.compile(lambda x: x * array)
    summed = cr.compile(lambda x: x * float(array.sum()))
    copied = cr.compile(lambda x: x * cr.tensor(array[::2]))
    for value in (1, 5):
        array[0] = value
        assert shared(ones(3)).sum().item() == value + 2
        assert operand(ones(3)).sum().item() == value + 2
        assert summed(ones()).item() == value + 2
        assert copied(ones(2)).sum().item() == value + 1
    assert (len(shared.compiles), len(operand.compiles), len(summed.compiles)) == (1, 1, 2)
    large = np.ones(100_000)
    with pytest.raises(TracedValueError, match="reads large"):
        cr.compile(lambda x: x * float(large.sum()))(ones())
    with pytest.raises(TracedValueError, match="NumPy array"):
        shared(array)
    written = cr.compile(lambda x: cr.from_numpy(array).add_(x))
    written(ones(3))
    assert array[0] == 6
