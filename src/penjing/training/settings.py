"""The settings that decide the result of a training run, which a resumed run must share with the first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from penjing.checks import EPOCHS, FLAG, NAME, RATE, SEED, TEXT, among, check, either, number, optional, several
from penjing.distillation import balances, distillation_schedules, signals
from penjing.distillation.taps import Named
from penjing.errors import PenjingError, unknown_name
from penjing.training.augmentations import find
from penjing.training.penalty import check_penalty

OPTIMIZERS = ("sgd", "adamw")
AUTO = "auto"  # value of `signal` that stands for the signal that suits the task and the outputs
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Variant:
    """How a training step is computed; these choices change its speed, and its result only by rounding.

    Attributes:
        precision: "float32", or "bfloat16" for autocast (the weights stay float32).
        channels_last: whether 4-D tensors lie in memory as NHWC.
        threads: threads within an op on the CPU; None leaves PyTorch's number as it is.
    """

    precision: str = "float32"
    channels_last: bool = False
    threads: int | None = None

    def __str__(self) -> str:
        threads = "" if self.threads is None else f", {self.threads} thread{'' if self.threads == 1 else 's'}"
        return f"{self.precision}, {'channels_last' if self.channels_last else 'contiguous'}{threads}"


@dataclass(frozen=True)
class TrainingSettings:
    """The choices of one run of `recover`, which documents them, with its defaults."""

    epochs: int = 5
    lr: float | None = None
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup: float = 0.05
    clip_norm: float | None = 5.0
    signal: str = AUTO
    temperature: float = 4.0
    distill_weight: float = 0.9
    balance: str = "fixed"
    schedule: str = "joint"
    taps: Named = "auto"
    precision: str = "auto"
    channels_last: bool | Literal["auto"] = "auto"
    seed: int = 0
    penalty: str | None = None
    penalty_weight: float | None = None
    layer_decay: float = 1.0
    ema: float | None = None
    reestimate_norms: bool | Literal["auto"] = "auto"
    augment: tuple[str, ...] = ()
    label_smoothing: float = 0.0
    stop_at: float | None = None
    keep: str = "last"

    def __post_init__(self) -> None:
        """Refuses values that no run can use.

        Raises:
            PenjingError: a value is out of its range, or a name is unknown.
        """
        check(vars(self), RULES)
        check_distillation(self.signal, self.balance, self.schedule)
        if self.optimizer not in OPTIMIZERS:
            raise unknown_name("optimizer", self.optimizer, OPTIMIZERS)
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        check_penalty(self.penalty, self.penalty_weight)
        check_augmentations(self.augment)

    @property
    def reestimates(self) -> bool:
        """Whether batch norms get statistics anew at the end.

        By default they do where weights are averaged, which have none of their own, and where batches are augmented: the
        statistics of changed images aren't those of whole ones, which cost 0.8 to 2.6 points of accuracy on the digits.
        """
        if self.reestimate_norms == AUTO:
            return self.ema is not None or bool(self.augment)
        return bool(self.reestimate_norms)


def check_distillation(signal: str, balance: str, schedule: str) -> None:
    """Makes sure that a signal, a balance and a schedule are known.

    Raises:
        PenjingError: one isn't; the message names the nearest.
    """
    if signal not in (AUTO, *signals):
        raise unknown_name(signals.kind, signal, (AUTO, *signals))
    for table, name in ((balances, balance), (distillation_schedules, schedule)):
        if name not in table:
            raise unknown_name(table.kind, name, table)


def check_augmentations(names: Sequence[str]) -> None:
    """Makes sure that augmentations are known, and that their numbers make sense.

    Raises:
        PenjingError: one isn't; the message names the nearest.
    """
    for name in names:
        find(name)


def check_labels(signal: str, labelled: bool) -> None:
    """Makes sure that the training data have labels where a signal needs them.

    Raises:
        PenjingError: they have none.
    """
    if signal != AUTO and "labels" in signals[signal].needs and not labelled:
        raise PenjingError(
            f"The signal '{signal}' needs labels, and the training data has none: give labelled batches, or use a signal that "
            "needs none, such as 'soft_labels'."
        )


RULES = {  # rules for single settings, which are arguments of the verbs that train
    **dict.fromkeys(("signal", "balance", "schedule", "optimizer", "precision"), TEXT),
    "epochs": EPOCHS,
    "lr": RATE,
    "momentum": number(0, below=1),
    "weight_decay": number(0),
    "warmup": number(0, below=1),
    "clip_norm": optional(number(above=0)),
    "temperature": number(above=0),
    "distill_weight": number(0, most=1),
    "channels_last": either(FLAG, among("auto")),
    "seed": SEED,
    "penalty": optional(NAME),
    "penalty_weight": optional(number(0)),
    "layer_decay": number(above=0, most=1),
    "ema": optional(number(above=0, below=1)),
    "reestimate_norms": either(FLAG, among("auto")),
    "augment": several(TEXT, "names of augmentations"),
    "label_smoothing": number(0, below=1),
    "stop_at": optional(number()),
    "keep": among("last", "best"),
}
