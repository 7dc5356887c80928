"""The verb that trains, and the function below it that takes its arguments as values."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from torch import Tensor, nn

from penjing.checks import FUNCTION, NAME, PATH, PROGRESS, TEXT, a, checked, either, mapping, number, optional, several
from penjing.data import Data
from penjing.distillation import Teacher
from penjing.distillation.taps import Named
from penjing.distillation.teachers import TAUGHT_BY, TaughtBy, taught_by
from penjing.graph.doors import TRAINED
from penjing.training.interrupt import ctrl_c_sets_a_flag
from penjing.training.processes import together
from penjing.training.randomness import generators_kept
from penjing.training.run import Run, RunOptions
from penjing.training.settings import TrainingSettings
from penjing.training.trackers import check_trackers

M = TypeVar("M", bound=nn.Module)


@checked(
    graph=TRAINED,
    data=a(Data, "a penjing.Data"),
    teacher=TAUGHT_BY,
    taps=either(
        TEXT,
        several(TEXT, "names of modules or nodes"),
        mapping(TEXT, "a mapping from the student's names to its teacher's"),
    ),
    augment=either(TEXT, several(TEXT, "names of augmentations")),
    checkpoint=optional(PATH),
    save_every=number(0),
    deadline=optional(number()),
    progress=PROGRESS,
    report=optional(FUNCTION),
    log=optional(FUNCTION),
    callbacks=several(FUNCTION, "functions"),
    penalty=optional(either(FUNCTION, NAME)),
    trackers=several(TEXT, "names of trackers"),
)
def recover(
    graph: M,
    data: Data,
    teacher: TaughtBy = None,
    epochs: int = 5,
    *,
    lr: float | None = None,
    optimizer: Literal["sgd", "adamw"] = "sgd",
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    warmup: float = 0.05,
    clip_norm: float | None = 5.0,
    signal: str = "auto",
    temperature: float = 4.0,
    distill_weight: float = 0.9,
    balance: str = "fixed",
    schedule: str = "joint",
    taps: Named = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    channels_last: bool | Literal["auto"] = "auto",
    seed: int = 0,
    layer_decay: float = 1.0,
    ema: float | None = None,
    reestimate_norms: bool | Literal["auto"] = "auto",
    augment: str | Sequence[str] = (),
    label_smoothing: float = 0.0,
    stop_at: float | None = None,
    keep: Literal["last", "best"] = "last",
    checkpoint: Path | str | None = None,
    save_every: float = 60.0,
    deadline: float | None = None,
    progress: bool | Literal["always"] = True,
    report: Callable[[dict[str, Any]], None] | None = None,
    log: Callable[[str], None] | None = None,
    callbacks: Sequence[Callable[[nn.Module, float], None]] = (),
    penalty: str | Callable[[nn.Module, float], Tensor | None] | None = None,
    penalty_weight: float | None = None,
    trackers: Sequence[str] = (),
) -> M:
    """Trains a graph from a teacher's outputs and the labels, or from one of the two where the other is missing.

    Without a teacher this is plain training. It runs on the devices that Accelerate finds (CPU, GPU), and in several processes
    under `accelerate launch`. Equal arguments and an equal seed give equal weights on one machine. Where that matters, name
    `precision` and `channels_last` too, since "auto" depends on a measurement. Also set OMP_NUM_THREADS where others use the
    machine meanwhile: several threads are then sometimes much slower than one, and training goes on with one.

    Args:
        graph: the model to train, in place; a `penjing.Graph` or any `nn.Module`. Its `masks`, if it has any, are applied
            after every step.
        data: `data.train` is used, or, if it is None and there is a teacher, `data.calibration`, even without labels.
        teacher: the model to learn from, often the original; several, of which the mean is taken; or a teacher of
            `penjing.distillation.teachers`, such as `Ema()` or `Stored(model)`. It is copied and never changed.
        epochs: passes over the data; 0 returns at once.
        lr: the peak learning rate. By default 0.1 per 128 samples of a step, over all processes, for SGD and 0.001 for AdamW, or
            a smaller rate where a few steps on a copy of the graph show it to be clearly better. Trainings of fewer than 40
            steps try none, nor do those with callbacks that may take weights or bits away on the way, which are all without an
            attribute `same_throughout` that is True.
        optimizer: "sgd" (with Nesterov momentum) or "adamw".
        momentum: momentum of SGD.
        weight_decay: weight decay of all parameters except biases and norms.
        warmup: the share of the steps in which the learning rate rises; then it falls along half a cosine to 0.
        clip_norm: the largest norm of the gradient; None for no limit.
        signal: the loss by which the graph learns from the teacher, a name among `penjing.distillation.signals`; "auto" takes
            "values" where the task's `answers` are values or the network has a single output, and "soft_labels" otherwise.
        temperature: temperature T, above 0, of signals that have an argument of this name: "soft_labels" and "dkd".
        distill_weight: λ in `(1 - λ) · task loss + λ · signal`, of the balance "fixed".
        balance: how the weights of the task's loss and of the signal are found, a name in `penjing list balances`.
        schedule: in which part of the training each of the two counts, a name in `penjing list distillation_schedules`.
        taps: which inner values of student and teacher are compared, by the signals that look inside. "auto" pairs the
            ends of blocks by resolution and order; else names of modules (or of a graph's nodes) that both have, or a mapping
            from the student's to the teacher's. Signals that compare outputs alone take no names.
        precision: "bfloat16" computes in bfloat16 through autocast (weights stay float32); "auto" measures a few steps and
            takes the faster one. Quantised graphs are trained in float32 unless `precision` names bfloat16.
        channels_last: memory layout of 4-D tensors while training; "auto" measures which is faster.
        seed: seed of the order of the samples, of augmentation and of dropout.
        layer_decay: the factor of the learning rate from one layer to the layer in front of it, nearer to the input: 0.8 trains
            the first layers least. A layer is a block or, outside of blocks, any module with a weight. 1 trains all alike.
        ema: the share of a moving average of the weights that stays at each step, such as 0.999; the graph ends with the
            average. None ends with the last weights.
        reestimate_norms: whether the running statistics of batch norms are computed anew at the end, with the final weights on
            up to 10,000 training samples, none of them augmented; "auto" does so with `ema` and with `augment`.
        augment: what changes each batch behind the loader, names in `penjing list augmentations` such as "mixup:0.2" or
            ("mixup:0.2", "cutmix:1", "erasing:0.25"); of several that mix samples, one is drawn for each batch. A teacher sees
            the same inputs as the graph. Mixed labels count by their shares in the task's loss.
        label_smoothing: the share of a label's probability that is spread over all classes; for classification.
        stop_at: a value of the task's metric on `data.validation` (without labels, of the agreement with the teacher) at which
            training ends; it is measured after each epoch. None takes all epochs.
        keep: "best" ends with the weights of the epoch that was the best on `data.validation`, together with their masks and
            with the states of callbacks, so that one that takes weights or bits away step by step ends there too; "last" with
            those of the last step.
        checkpoint: a file in which the run keeps its state. If `recover` is called again with the same arguments after any
            stop (kill -9 included), it goes on from there and ends with the same weights; after a finished run it loads them.
        save_every: seconds between checkpoints within an epoch; one is always written at an epoch's end.
        deadline: a value of `time.monotonic()` by which training must be done. The number of steps is reduced so that the
            whole schedule fits; if it still doesn't, training stops early.
        progress: True shows a progress bar when stderr is a terminal, "always" in any case, False never.
        report: called after each epoch (and an early stop) with `epoch`, `step` (steps done), `loss` (mean), `metric` (on
            `data.validation`, where `stop_at` or `keep` ask for it, else None), `losses` (the means of "task",
            "guidance" and "penalty", where there are such), `balance` (what the balance measured), `lr`, `seconds`, `progress`
            (share of all steps), `stopped_early`, and the variant that steps are computed in: `precision`,
            `channels_last` and `threads` (None where there was nothing to choose).
        log: called with messages for the user; by default they go to the logger "penjing.train" at level INFO.
        callbacks: each is called as `callback(graph, share of the steps done)` after every step, before masks are applied.
            If one has `state_dict()` and `load_state_dict()`, checkpoints hold its state.
        penalty: a term of the loss that shapes weights before they are cut: a name in `penjing list penalties`, or a function,
            called as `penalty(graph, share of the steps done)` before every step, whose scalar is added to the loss, if it isn't
            None. A name needs a captured graph.
        penalty_weight: the factor of a penalty that `penalty` names; None takes the one of `penjing.penalties`.
        trackers: what else gets the numbers of `report`, each an optional package: "tensorboard" (into the folder "runs/penjing",
            or as in "tensorboard:FOLDER") and "mlflow" (into the experiment "penjing", or as in "mlflow:EXPERIMENT").

    Returns:
        The same graph, trained, in eval mode.

    Raises:
        PenjingError: an argument is out of its range; there is nothing to train on or to judge on; the checkpoint is that of
            another run, or can't be written; another of several processes has ended; or the loss isn't finite: the graph then
            has the weights of the checkpoint, and a call with a lower `lr` goes on from there.
        Interrupted: the user pressed Ctrl-C; the graph holds the weights of the last step, and the checkpoint is written.
    """
    settings = TrainingSettings(
        epochs=epochs, lr=lr, optimizer=optimizer, momentum=momentum, weight_decay=weight_decay, warmup=warmup,
        clip_norm=clip_norm, signal=signal, temperature=temperature, distill_weight=distill_weight, balance=balance,
        schedule=schedule, taps=taps, precision=precision, channels_last=channels_last, seed=seed,
        penalty=penalty if isinstance(penalty, str) else None, penalty_weight=penalty_weight, layer_decay=layer_decay,
        ema=ema, reestimate_norms=reestimate_norms, augment=(augment,) if isinstance(augment, str) else tuple(augment),
        label_smoothing=label_smoothing, stop_at=stop_at, keep=keep,
    )  # fmt: skip
    options = RunOptions(
        checkpoint=None if checkpoint is None else Path(checkpoint), save_every=save_every, deadline=deadline,
        progress=progress, report=report, log=log or RunOptions.log, callbacks=callbacks,
        penalty=None if isinstance(penalty, str) else penalty, trackers=trackers,
    )  # fmt: skip
    return train(graph, data, taught_by(teacher), settings, options)


def train(graph: M, data: Data, teacher: Teacher | None, settings: TrainingSettings, options: RunOptions) -> M:
    """Trains a graph as `recover` does, which makes these values of its keywords and documents them; returns the graph.

    Raises:
        PenjingError: as in `recover`.
        Interrupted: as in `recover`.
    """
    check_trackers(options.trackers)
    if settings.epochs == 0:
        return graph.eval()
    with generators_kept(), ctrl_c_sets_a_flag() as asked_to_stop, together(options.checkpoint, options.log):
        Run(graph, data, teacher, settings, options).train(asked_to_stop)
    return graph
