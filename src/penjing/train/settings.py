"""What decides how a training run ends: everything that a resumed run must have in common with the first."""

from dataclasses import dataclass
from typing import Literal

from penjing.distill import signals
from penjing.errors import PenjingError, unknown_name

OPTIMIZERS = ("sgd", "adamw")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Variant:
    """How a step is computed; neither choice changes what is learned, beyond rounding.

    Attributes:
        precision: "float32", or "bfloat16" for autocast (the weights stay float32).
        channels_last: whether 4-D tensors lie in memory as NHWC.
    """

    precision: str = "float32"
    channels_last: bool = False

    def __str__(self) -> str:
        return f"{self.precision}, {'channels_last' if self.channels_last else 'contiguous'}"


@dataclass(frozen=True)
class Settings:
    """The choices of one run of `recover`, which documents them."""

    epochs: int
    lr: float | None
    optimizer: str
    momentum: float
    weight_decay: float
    warmup: float
    clip_norm: float | None
    signal: str
    temperature: float
    distill_weight: float
    precision: str
    channels_last: bool | Literal["auto"]
    seed: int

    def __post_init__(self) -> None:
        """Refuses what can't be meant.

        Raises:
            PenjingError: a value out of its range, or an unknown name.
        """
        signals[self.signal]
        if self.optimizer not in OPTIMIZERS:
            raise unknown_name("optimizer", self.optimizer, OPTIMIZERS)
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        if self.channels_last not in (True, False, "auto"):
            raise PenjingError(f"channels_last is True, False or 'auto', not {self.channels_last!r}.")
        ranges = {
            "epochs": (self.epochs >= 0, "a whole number, 0 or more"),
            "lr": (self.lr is None or self.lr > 0, "more than 0"),
            "momentum": (0 <= self.momentum < 1, "at least 0 and less than 1"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "warmup": (0 <= self.warmup < 1, "a share of the steps, at least 0 and less than 1"),
            "clip_norm": (self.clip_norm is None or self.clip_norm > 0, "more than 0, or None"),
            "temperature": (self.temperature > 0, "more than 0"),
            "distill_weight": (0 <= self.distill_weight <= 1, "between 0 and 1"),
            "seed": (0 <= self.seed < 2**32, "a whole number, at least 0 and less than 2³²"),
        }
        for name, (fits, rule) in ranges.items():
            if not fits:
                raise PenjingError(f"{name}={getattr(self, name)!r}: it must be {rule}.")
