"""What `chainrule train` can be told: one dataclass, one table of command-line options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from chainrule.core.errors import ChainruleError

ACTIVATIONS = ("relu", "tanh", "sigmoid", "gelu", "silu", "leaky_relu")
LOSSES = ("cross_entropy", "bce", "mse", "l1", "smooth_l1")
OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")
SCHEDULES = ("none", "cosine", "onecycle", "step")

# With a schedule the rate is its peak, so it may be higher than a rate that stays.
PEAK_RATES = {"adam": 0.01, "adamw": 0.01, "sgd": 0.1, "rmsprop": 0.003}
STEADY_RATES = {"adam": 0.001, "adamw": 0.001, "sgd": 0.03, "rmsprop": 0.001}

# When --epochs is not given: 30; more for small data, to make at least 300 steps; 10 for large.
USUAL_EPOCHS, FEWEST_EPOCHS, MOST_EPOCHS = 30, 10, 200
FEWEST_STEPS = 300
LARGE = 500  # steps in an epoch


class UsageError(ChainruleError, ValueError):
    """Options that contradict one another, the data or the model file."""


@dataclass(frozen=True)
class Settings:
    """All choices of a training run; None stands for 'choose from the data'."""

    target: str | None = None
    ignore: tuple[str, ...] = ()
    task: str = "auto"
    layers: tuple[int, ...] = (64, 64)
    activation: str = "relu"
    dropout: float | None = None
    loss: str = "auto"
    optimizer: str = "adam"
    lr: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    schedule: str = "onecycle"
    clip: float | None = None
    batch: int = 32
    epochs: int | None = None
    seed: int = 0
    validation: float | None = None
    eager: bool | None = None

    def for_task(self, task: str, training_rows: int) -> Settings:
        """The same with every None and 'auto' decided, for `task` and that many rows."""
        rates = STEADY_RATES if self.schedule == "none" else PEAK_RATES
        momentum = self.momentum
        if momentum is None:
            momentum = 0.9 if self.optimizer == "sgd" else 0.0
        weight_decay = self.weight_decay
        if weight_decay is None:
            weight_decay = 0.01 if self.optimizer == "adamw" else 0.0
        loss = self.loss
        if loss == "auto":
            loss = "cross_entropy" if task == "classify" else "mse"
        dropout = self.dropout
        if dropout is None:
            dropout = 0.2 if task == "classify" and self.layers else 0.0
        return replace(
            self, task=task, loss=loss, dropout=dropout, momentum=momentum,
            weight_decay=weight_decay,
            lr=rates[self.optimizer] if self.lr is None else self.lr,
            epochs=self.epochs or usual_epochs(-(-training_rows // self.batch)),
        )

    def to_json(self) -> dict[str, Any]:
        """A dict that `from_json` turns back."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> Settings:
        """The settings that were stored in a model file."""
        listed: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values.items()
        }
        return Settings(**listed)


def usual_epochs(steps: int) -> int:
    """How many epochs to train for when nobody says, with that many steps in each."""
    if steps >= LARGE:
        return FEWEST_EPOCHS
    return min(MOST_EPOCHS, max(USUAL_EPOCHS, -(-FEWEST_STEPS // steps)))


def layer_sizes(text: str) -> tuple[int, ...]:
    """'64,32' as (64, 32); '0' or 'none' as no hidden layer."""
    if text in {"0", "none", ""}:
        return ()
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = (0,)
    if min(sizes) < 1:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a list of sizes: write 64,32 for two hidden layers, 0 for none"
        )
    return sizes


def between(
    kind: type[int] | type[float], low: float, high: float = float("inf"), open_ends: bool = False
) -> Callable[[str], Any]:
    """A reader for numbers of an option, with bounds."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        outside = value is None or not (low < value < high if open_ends else low <= value <= high)
        if outside:
            what = "a whole number" if kind is int else "a number"
            ends = ("above", "below") if open_ends else ("at least", "at most")
            bounds = f"{ends[0]} {in_full(low)}" + (
                f" and {ends[1]} {in_full(high)}" if high < 1e300 else "")
            raise argparse.ArgumentTypeError(f"'{text}' is not {what} {bounds}")
        return value

    return read


def in_full(value: float) -> str:
    """2,147,483,647 rather than 2.14748e+09; 0.999 as it is."""
    return f"{int(value):,}" if float(value).is_integer() else f"{value:g}"


def names(text: str) -> tuple[str, ...]:
    """'a,b' as ('a', 'b')."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chainrule train`, None when not given: --resume must know what was."""
    parser.add_argument(
        "data", metavar="DATA",
        help="digits (built in), a CSV with a header, an .npz with x and y, or an IDX pair or "
             "its folder",
    )
    group = parser.add_argument_group("data")
    group.add_argument("--target", metavar="COL", help="column to predict (default: the last)")
    group.add_argument("--ignore", metavar="COL,…", type=names, help="columns to leave out")
    group.add_argument("--task", choices=("auto", "classify", "regress"), type=str.lower,
                       help="default: found from the target")
    group.add_argument("--validation", metavar="SHARE", type=between(float, 0, 0.9),
                       help="share of rows held out (default: 0.2, or the file's own test part)")
    group.add_argument("--seed", type=between(int, 0, 2**31 - 1), metavar="N",
                       help="fixes the split, the weights and the order (default: 0)")

    group = parser.add_argument_group("network")
    group.add_argument("--layers", metavar="SIZES", type=layer_sizes,
                       help="hidden layers (default: 64,64; 0 for none)")
    group.add_argument("--activation", choices=ACTIVATIONS, metavar="NAME", type=str.lower,
                       help="relu (default), tanh, sigmoid, gelu, silu, leaky_relu")
    group.add_argument("--dropout", metavar="P", type=between(float, 0, 0.95),
                       help="share of units left out in training (default: 0.2 for classes, "
                            "0 for numbers)")
    group.add_argument("--loss", choices=("auto", *LOSSES), metavar="NAME", type=str.lower,
                       help="auto (default): cross_entropy for classes, mse for numbers; also "
                            "bce for two classes, l1 or smooth_l1 for numbers")

    group = parser.add_argument_group("training")
    group.add_argument("--optimizer", choices=OPTIMIZERS, metavar="NAME", type=str.lower,
                       help="adam (default), adamw, sgd, rmsprop")
    group.add_argument("--lr", metavar="RATE", type=between(float, 0, 1e6, open_ends=True),
                       help="learning rate, the highest one of the schedule (default: 0.01 for "
                            "adam)")
    group.add_argument("--schedule", choices=SCHEDULES, metavar="NAME", type=str.lower,
                       help="onecycle (default), cosine, step, none")
    group.add_argument("--momentum", metavar="M", type=between(float, 0, 0.999),
                       help="for sgd (default: 0.9) and rmsprop (0)")
    group.add_argument("--weight-decay", metavar="W", type=between(float, 0, 10),
                       help="default: 0, 0.01 for adamw")
    group.add_argument("--clip", metavar="NORM", type=between(float, 0, 1e9, open_ends=True),
                       help="largest gradient norm (default: not clipped)")
    group.add_argument("--batch", metavar="ROWS", type=between(int, 1, 2**31 - 1),
                       help="rows in a step (default: 32)")
    group.add_argument("--epochs", metavar="N", type=between(int, 1, 10**6),
                       help="passes over the data (default: 30, more for few rows, 10 for "
                            "many)")

    group.add_argument("--eager", action="store_const", const=True,
                       help="run each step by Python instead of compiling it, to compare")

    group = parser.add_argument_group("files")
    group.add_argument("--save", metavar="FILE",
                       help="where the model goes (default: the data's name with .safetensors, "
                            "numbered when it is taken)")
    group.add_argument("--resume", metavar="FILE",
                       help="continue the run that saved this model, and update the file")
    group.add_argument("--force", action="store_true", help="let --save and --json replace a file")
    group.add_argument("--json", metavar="FILE", help="write all results as JSON")
    group.add_argument("--quiet", "-q", action="store_true", help="print the result only")


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that the user wrote on the command line."""
    return {
        field.name: value
        for field in fields(Settings)
        if (value := getattr(args, field.name, None)) is not None
    }
