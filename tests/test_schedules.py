"""optim.lr_scheduler: rates equal PyTorch's across a reload; errors teach."""

from __future__ import annotations

import copy
import math
import warnings

import numpy as np
import pytest

import chainrule as cr
from chainrule import optim

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed; pip install -e '.[test]' brings it")

SCHEDULES = {
    "StepLR": lambda s, o: s.StepLR(o, 7, 0.3),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [3, 9, 9, 30], 0.3),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.93),
    "LambdaLR": lambda s, o: s.LambdaLR(o, [lambda e: 0.9**e, lambda e: 1 / (1 + e)]),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 20, 0.01),
    "CosineAnnealingLR odd": lambda s, o: s.CosineAnnealingLR(o, 13),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, [1.0, 2.0], total_steps=51),
    "OneCycleLR three": lambda s, o: s.OneCycleLR(o, 1.0, epochs=10, steps_per_epoch=6,
                                                  three_phase=True, anneal_strategy="linear"),
    "LinearLR": lambda s, o: s.LinearLR(o, 0.2, 0.9, 13),
    "SequentialLR": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, total_iters=5), s.CosineAnnealingLR(o, 20),
            s.ExponentialLR(o, 0.9)], [5, 25]),
    "SequentialLR of many": lambda s, o: s.SequentialLR(
        o, [s.MultiplicativeLR(o, lambda e: 0.9), s.PolynomialLR(o, 20),
            s.CosineAnnealingWarmRestarts(o, 4, 2)], [7, 20]),
    "CyclicLR": lambda s, o: s.CyclicLR(o, 0.1, 1.0, 5),
    "CyclicLR uneven": lambda s, o: s.CyclicLR(o, [0.1, 0.2], [1.0, 0.9], 3, 8, "triangular2"),
    "CyclicLR range": lambda s, o: s.CyclicLR(o, 0.01, 0.7, 6, mode="exp_range", gamma=0.98,
                                              base_momentum=[0.5, 0.6], max_momentum=0.95),
    "CyclicLR scaled": lambda s, o: s.CyclicLR(o, 0.1, 1.0, 4, scale_fn=lambda x: 1 / (1 + x),
                                               scale_mode="iterations", cycle_momentum=False),
    "CosineAnnealingWarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 7),
    "CosineAnnealingWarmRestarts longer": lambda s, o: s.CosineAnnealingWarmRestarts(
        o, 3, 2, 0.01),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, 30, 2.5),
    "PolynomialLR plain": lambda s, o: s.PolynomialLR(o),
    "MultiplicativeLR": lambda s, o: s.MultiplicativeLR(o, [lambda e: 0.95, lambda e: 1 / e]),
    "ConstantLR": lambda s, o: s.ConstantLR(o, 0.2, 9),
    "ChainedScheduler": lambda s, o: s.ChainedScheduler(
        [s.ConstantLR(o, 0.1, 20), s.ExponentialLR(o, 0.9)]),
    "ChainedScheduler of three": lambda s, o: s.ChainedScheduler(
        [s.PolynomialLR(o, 40), s.MultiplicativeLR(o, lambda e: 0.99), s.StepLR(o, 9)], o),
}


def two_groups(lib, name, options):
    a, b = (lib.tensor([1.0, 1.0], requires_grad=True) for _ in range(2))
    return getattr(lib.optim, name)([{"params": [a], "lr": 0.5}, {"params": [b]}], lr=0.1,
                                    **options)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "options"), [("SGD", {"momentum": 0.9}), ("Adam", {})])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_50_rates_equal_pytorch_across_a_reload(schedule, name, options):
    make = SCHEDULES[schedule]
    a, b = two_groups(cr, name, options), two_groups(torch, name, options)
    ours, theirs = make(optim.lr_scheduler, a), make(torch.optim.lr_scheduler, b)
    for step in range(50):
        for g, h in zip(a.param_groups, b.param_groups, strict=True):
            assert abs(g["lr"] - h["lr"]) < 1e-14
            assert g.get("momentum") == pytest.approx(h.get("momentum"), abs=1e-14)
            assert g.get("betas") == pytest.approx(h.get("betas"), abs=1e-14)
        assert ours.get_last_lr() == pytest.approx(theirs.get_last_lr(), abs=1e-14)
        for o in (a, b, ours, theirs):
            o.step()
        if step == 20:
            saved = copy.deepcopy((a.state_dict(), ours.state_dict()))
            a = two_groups(cr, name, options)
            ours = make(optim.lr_scheduler, a)
            a.load_state_dict(saved[0])
            ours.load_state_dict(saved[1])


@pytest.mark.parametrize("options", [
    {"patience": 2}, {"patience": 0, "factor": 0.5},
    {"mode": "max", "patience": 1, "cooldown": 2, "threshold_mode": "abs",
     "min_lr": [0.01, 0.001]}])
def test_reduce_on_plateau_equals_pytorch(options):
    rng = np.random.default_rng(6)
    metrics = [*(rng.uniform(size=80) + 1 / np.arange(1, 81)), math.nan, math.nan]
    a, b = two_groups(cr, "SGD", {}), two_groups(torch, "SGD", {})
    ours = optim.lr_scheduler.ReduceLROnPlateau(a, **options)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(b, **options)
    for metric in metrics:
        ours.step(cr.tensor(metric))
        theirs.step(torch.tensor(metric))
        assert ours.get_last_lr() == theirs.get_last_lr()
    other = optim.lr_scheduler.ReduceLROnPlateau(a, **options)
    other.load_state_dict(ours.state_dict())
    assert other.state_dict() == ours.state_dict()


def test_schedule_errors_and_warnings():
    optimizer = two_groups(cr, "SGD", {})
    optimizer.step()
    schedules = optim.lr_scheduler
    for call, words in [
            (lambda: schedules.StepLR("sgd", 3), "optimizer"),
            (lambda: schedules.LambdaLR(optimizer, [abs]), "1 functions for 2 groups"),
            (lambda: schedules.OneCycleLR(optimizer, 1.0), "total_steps"),
            (lambda: schedules.OneCycleLR(optim.Adagrad([cr.ones(1, requires_grad=True)]), 1.0,
                                          total_steps=5), "cycle_momentum=False"),
            (lambda: schedules.MultiplicativeLR(optimizer, 0.9), "function of the epoch"),
            (lambda: schedules.MultiplicativeLR(optimizer, [abs]), "1 functions for 2 groups"),
            (lambda: schedules.CyclicLR(optimizer, 0.1, 1.0, mode="round"), "'triangular', 'tria"),
            (lambda: schedules.CyclicLR(optimizer, 0.1, 1.0, 0), "step_size_up=0 must be above"),
            (lambda: schedules.CyclicLR(optimizer, [0.1], 1.0), "1 numbers for 2 groups"),
            (lambda: schedules.CyclicLR(optim.Adagrad([cr.ones(1, requires_grad=True)]), 0, 1),
             "cycle_momentum=False"),
            (lambda: schedules.CosineAnnealingWarmRestarts(optimizer, 0), "T_0=0 must be a whole"),
            (lambda: schedules.CosineAnnealingWarmRestarts(optimizer, 3, 1.5), "T_mult=1.5"),
            (lambda: schedules.CosineAnnealingWarmRestarts(optimizer, 3).step(-1), "at least 0"),
            (lambda: schedules.ConstantLR(optimizer, 1.5), "factor=1.5"),
            (lambda: schedules.ChainedScheduler([]), "at least one"),
            (lambda: schedules.ChainedScheduler([schedules.ReduceLROnPlateau(optimizer)]),
             "needs a metric"),
            (lambda: schedules.ChainedScheduler([schedules.StepLR(optimizer, 3)],
                                                two_groups(cr, "SGD", {})), "another optimizer"),
            (lambda: schedules.ReduceLROnPlateau(optimizer, factor=1.5), "below 1"),
            (lambda: schedules.ReduceLROnPlateau(optimizer, "lowest"), "'min' or 'max'"),
            (lambda: schedules.LinearLR(optimizer, start_factor=0), "start_factor=0"),
            (lambda: schedules.ExponentialLR(two_groups(cr, "SGD", {}), 0.9, last_epoch=3),
             "initial_lr")]:
        with pytest.raises((ValueError, TypeError), match=words):
            call()
    schedule = schedules.StepLR(two_groups(cr, "SGD", {}), 3)
    with pytest.warns(UserWarning, match=r"before optimizer.step\(\)"):
        schedule.step()
    optimizer = two_groups(cr, "SGD", {})
    schedule = schedules.OneCycleLR(optimizer, 1.0, total_steps=3, cycle_momentum=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            optimizer.step()
            schedule.step()
    with pytest.raises(ValueError, match="3 steps and step 4"):
        schedule.step()


def test_warm_restarts_by_parts_of_an_epoch_equal_pytorch():
    a, b = two_groups(cr, "SGD", {}), two_groups(torch, "SGD", {})
    for options in ({"T_0": 3}, {"T_0": 2, "T_mult": 3, "eta_min": 0.01}):
        ours = optim.lr_scheduler.CosineAnnealingWarmRestarts(a, **options)
        theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(b, **options)
        for o in (a, b):
            o.step()
        for epoch in (0, 0.5, 1.25, 2, 2.9, 3.1, 7.75, 8, 20.5, 1):
            ours.step(epoch)
            theirs.step(epoch)
            assert ours.get_last_lr() == pytest.approx(theirs.get_last_lr(), abs=1e-14)
            assert (ours.T_i, ours.last_epoch) == (theirs.T_i, theirs.last_epoch)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["ConstantLR", "PolynomialLR", "LinearLR", "ExponentialLR"])
def test_a_jump_to_an_epoch_equals_pytorch(name):
    options = {"gamma": 0.9} if name == "ExponentialLR" else {"total_iters": 6}
    a, b = two_groups(cr, "SGD", {}), two_groups(torch, "SGD", {})
    ours = getattr(optim.lr_scheduler, name)(a, **options)
    theirs = getattr(torch.optim.lr_scheduler, name)(b, **options)
    for epoch in (3, 1, None, 6, None, 40):
        ours.step(epoch)
        theirs.step(epoch)
        assert ours.get_last_lr() == pytest.approx(theirs.get_last_lr(), abs=1e-14)


KEEPS_NUMBERS = {
    "LambdaLR": lambda s, o: s.LambdaLR(o, lambda e: 0.9),
    "MultiplicativeLR": lambda s, o: s.MultiplicativeLR(o, lambda e: 0.9),
    "CyclicLR": lambda s, o: s.CyclicLR(o, 0.1, 1.0, 5),
    "CosineAnnealingWarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 5),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, 1.0, total_steps=9),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 1),
    "ReduceLROnPlateau": lambda s, o: s.ReduceLROnPlateau(o, min_lr=[0.1], patience=0),
}


@pytest.mark.parametrize("name", KEEPS_NUMBERS)
def test_a_group_added_later_is_explained(name):
    optimizer = optim.SGD([cr.ones(1, requires_grad=True)], lr=0.1, momentum=0.9)
    schedule = KEEPS_NUMBERS[name](optim.lr_scheduler, optimizer)
    optimizer.add_param_group({"params": [cr.ones(2, requires_grad=True)]})
    optimizer.step()

    def steps():
        for _ in range(3):
            schedule.step(*([1.0] if name == "ReduceLROnPlateau" else []))

    with pytest.raises(ValueError, match="made for 1 group, the optimizer now has 2: it keeps"):
        steps()


def test_schedules_without_numbers_of_their_own_take_a_group_added_later():
    for make in (lambda s, o: s.StepLR(o, 1, 0.5), lambda s, o: s.ExponentialLR(o, 0.5),
                 lambda s, o: s.ReduceLROnPlateau(o, factor=0.5, patience=0)):
        p, q = (cr.ones(1, requires_grad=True) for _ in range(2))
        optimizer = optim.SGD([p], lr=0.2)
        schedule = make(optim.lr_scheduler, optimizer)
        optimizer.add_param_group({"params": [q], "lr": 0.4})
        optimizer.step()
        plateau = isinstance(schedule, optim.lr_scheduler.ReduceLROnPlateau)
        for _ in range(1 + plateau):
            schedule.step(*([1.0] if plateau else []))
        assert schedule.get_last_lr() == pytest.approx([0.1, 0.2])
