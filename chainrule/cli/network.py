"""From settings to a network, a loss, an optimiser and a schedule: plain chainrule code."""

from __future__ import annotations

from typing import Any

from chainrule import nn, optim

from .settings import Settings, UsageError

ACTIVATIONS = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
}
LOSSES = {
    "cross_entropy": nn.CrossEntropyLoss,
    "bce": nn.BCEWithLogitsLoss,
    "mse": nn.MSELoss,
    "l1": nn.L1Loss,
    "smooth_l1": nn.SmoothL1Loss,
}
STEP_EVERY, STEP_FACTOR = 3, 0.1  # --schedule step: three parts, each at a tenth of the last


def build_network(
    inputs: int, layers: tuple[int, ...], outputs: int, activation: str, dropout: float
) -> Any:
    """Dense layers with an activation after each but the last, as an `nn.Sequential`."""
    modules: list[Any] = []
    width = inputs
    for size in layers:
        modules += [nn.Linear(width, size), ACTIVATIONS[activation]()]
        if dropout > 0:
            modules.append(nn.Dropout(dropout))
        width = size
    modules.append(nn.Linear(width, outputs))
    return nn.Sequential(*modules)


def make_loss(settings: Settings, classes: int) -> Any:
    """The loss function; raises UsageError when it does not fit the task."""
    name = settings.loss
    if settings.task == "classify":
        if name not in {"cross_entropy", "bce"}:
            raise UsageError(
                f"--loss {name} compares numbers, and the target is a class. Use cross_entropy"
                f"{' or bce' if classes == 2 else ''}, or --task regress if it is a quantity."
            )
        if name == "bce" and classes != 2:
            raise UsageError(
                f"--loss bce is for two classes, and the target has {classes}. Use cross_entropy."
            )
    elif name in {"cross_entropy", "bce"}:
        raise UsageError(
            f"--loss {name} is for classes, and the target is a number. Use mse, l1 or smooth_l1, "
            "or --task classify."
        )
    return LOSSES[name]()


def make_optimizer(settings: Settings, parameters: Any) -> Any:
    """The optimiser over `parameters`; raises UsageError for momentum where there is none."""
    rate, decay, momentum = settings.lr, settings.weight_decay, settings.momentum
    assert rate is not None
    assert decay is not None
    assert momentum is not None
    if settings.optimizer in {"adam", "adamw"}:
        if momentum:
            raise UsageError(
                f"{settings.optimizer} has no --momentum: its own is built in. Use --optimizer "
                "sgd or rmsprop."
            )
        adaptive = optim.Adam if settings.optimizer == "adam" else optim.AdamW
        return adaptive(parameters, lr=rate, weight_decay=decay)
    plain = optim.SGD if settings.optimizer == "sgd" else optim.RMSprop
    return plain(parameters, lr=rate, momentum=momentum, weight_decay=decay)


def make_schedule(settings: Settings, optimizer: Any, steps: int) -> Any:
    """The learning-rate schedule over `steps` steps, or None. It is advanced after each step."""
    schedules = optim.lr_scheduler
    assert settings.lr is not None
    if settings.schedule == "cosine":
        return schedules.CosineAnnealingLR(optimizer, T_max=steps)
    if settings.schedule == "onecycle":
        return schedules.OneCycleLR(optimizer, max_lr=settings.lr, total_steps=steps)
    if settings.schedule == "step":
        part = max(1, -(-steps // STEP_EVERY))
        return schedules.StepLR(optimizer, step_size=part, gamma=STEP_FACTOR)
    return None
