"""The options of training, which several commands have: defined once, and handed to a command as one value."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

RATE = "peak learning rate of the training; by default the usual one, or a smaller one where a few steps show it to be better"


@dataclass(frozen=True)
class TrainingOptions:
    """What the options of training were given; a field's annotation describes its option."""

    lr: Annotated[float | None, typer.Option(help=RATE)] = None
    signal: Annotated[str, typer.Option(help="how the teacher is listened to; see penjing list signals")] = "auto"
    balance: Annotated[str, typer.Option(help="how much it counts beside the labels; see penjing list balances")] = (
        "fixed"
    )
    schedule: Annotated[str, typer.Option(help="when it does; see penjing list distillation_schedules")] = "joint"
    penalty: Annotated[
        str | None, typer.Option(help="what shapes the weights while they train; see penjing list penalties")
    ] = None
    penalty_weight: Annotated[
        float | None, typer.Option(help="the penalty's factor in the loss; by default its own")
    ] = None
    layer_decay: Annotated[
        float, typer.Option(help="factor of the learning rate from one layer to the layer in front of it, such as 0.8")
    ] = 1.0
    ema: Annotated[
        float | None, typer.Option(help="end with a moving average of the weights that keeps this share, such as 0.999")
    ] = None
    reestimate_norms: Annotated[
        bool | None,
        typer.Option(
            "--reestimate-norms/--keep-norms",
            help="whether batch norms get statistics of the training data anew at the end; by default with --ema and --augment",
        ),
    ] = None
    augment: Annotated[
        list[str] | None,
        typer.Option(
            help="what changes each training batch, such as mixup:0.2; see penjing list augmentations; may be given many times"
        ),
    ] = None
    label_smoothing: Annotated[
        float, typer.Option(help="share of a label that is spread over all classes, such as 0.1")
    ] = 0.0
    stop_at: Annotated[
        float | None,
        typer.Option(help="end training at this value of the metric on the validation data, judged after each epoch"),
    ] = None
    keep: Annotated[
        str, typer.Option(help="weights to end with: of the last step, or of the best epoch (last, best)")
    ] = "last"
    trackers: Annotated[
        list[str] | None,
        typer.Option(
            "--tracker",
            help="also log to tensorboard, tensorboard:FOLDER, mlflow or mlflow:EXPERIMENT; may be given many times",
        ),
    ] = None
    precision: Annotated[
        str,
        typer.Option(
            help="precision of training steps: float32, bfloat16, or auto, which measures which is faster; name it and the "
            "layout where equal seeds must give equal weights",
        ),
    ] = "auto"
    channels_last: Annotated[
        bool | None,
        typer.Option("--channels-last/--contiguous", help="memory layout of training steps; by default the faster one"),
    ] = None

    def keywords(self) -> dict[str, Any]:
        """Returns the options as keywords of the verbs `recover` and `compress`."""
        return {
            **vars(self),
            "reestimate_norms": "auto" if self.reestimate_norms is None else self.reestimate_norms,
            "channels_last": "auto" if self.channels_last is None else self.channels_last,
            "augment": self.augment or (),
            "trackers": self.trackers or (),
        }

    def check_names(self) -> None:
        """Makes sure that all names are known, before a command loads anything.

        Raises:
            PenjingError: one isn't; the message names the nearest.
        """
        from penjing.training.penalty import check_penalty
        from penjing.training.settings import check_augmentations, check_distillation
        from penjing.training.trackers import check_trackers

        check_distillation(self.signal, self.balance, self.schedule)
        check_penalty(self.penalty, self.penalty_weight)
        check_augmentations(self.augment or ())
        check_trackers(self.trackers or ())
