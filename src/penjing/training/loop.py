"""The training loop, from top to bottom."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from penjing.checks import FUNCTION, PATH, PROGRESS, a, checked, number, optional, several
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph.doors import TRAINED
from penjing.training.checkpoint import Checkpoint, Standing, digest
from penjing.training.deadline import FOR_TRYING, fitting, left, over, shortened
from penjing.training.display import bar
from penjing.training.interrupt import Interrupted, ctrl_c_sets_a_flag
from penjing.training.objective import Objective, frozen
from penjing.training.optimizers import default_lr, make_optimizer
from penjing.training.randomness import batches, generators_kept
from penjing.training.schedule import warmup_cosine
from penjing.training.settings import TrainingSettings, Variant
from penjing.training.source import batch_size, training_batches
from penjing.training.speed import MUCH, candidates, fastest, set_layout, step_seconds, thread_counts, threads_of

M = TypeVar("M", bound=nn.Module)


@checked(
    graph=TRAINED,
    data=a(Data, "a penjing.Data"),
    teacher=optional(TRAINED),
    checkpoint=optional(PATH),
    save_every=number(0),
    deadline=optional(number()),
    progress=PROGRESS,
    report=optional(FUNCTION),
    log=optional(FUNCTION),
    callbacks=several(FUNCTION, "functions"),
    penalty=optional(FUNCTION),
)
def recover(
    graph: M,
    data: Data,
    teacher: nn.Module | None = None,
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
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    channels_last: bool | Literal["auto"] = "auto",
    seed: int = 0,
    checkpoint: Path | str | None = None,
    save_every: float = 60.0,
    deadline: float | None = None,
    progress: bool | Literal["always"] = True,
    report: Callable[[dict[str, Any]], None] | None = None,
    log: Callable[[str], None] | None = None,
    callbacks: Sequence[Callable[[nn.Module, float], None]] = (),
    penalty: Callable[[nn.Module, float], Tensor | None] | None = None,
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
        teacher: the model to learn from, often the original; it is copied and never changed.
        epochs: passes over the data; 0 returns at once.
        lr: the peak learning rate; by default 0.1 per 128 samples of a batch for SGD, 0.001 for AdamW.
        optimizer: "sgd" (with Nesterov momentum) or "adamw".
        momentum: momentum of SGD.
        weight_decay: weight decay of all parameters except biases and norms.
        warmup: the share of the steps in which the learning rate rises; then it falls along half a cosine to 0.
        clip_norm: the largest norm of the gradient; None for no limit.
        signal: the loss by which the graph learns from the teacher, a name among `penjing.distillation.signals`; "auto" takes
            "values" where the task's `answers` are values or the network has a single output, and "soft_labels" otherwise.
        temperature: temperature T of signals that soften the outputs, above 0.
        distill_weight: λ in `(1 - λ) · task loss + λ · signal`.
        precision: "bfloat16" computes in bfloat16 through autocast (weights stay float32); "auto" measures a few steps and
            takes the faster one. Quantised graphs are trained in float32 unless `precision` names bfloat16.
        channels_last: memory layout of 4-D tensors while training; "auto" measures which is faster.
        seed: seed of the order of the samples, of augmentation and of dropout.
        checkpoint: a file in which the run keeps its state. If `recover` is called again with the same arguments after any
            stop (kill -9 included), it goes on from there and ends with the same weights; after a finished run it loads them.
        save_every: seconds between checkpoints within an epoch; one is always written at an epoch's end.
        deadline: a value of `time.monotonic()` by which training must be done. The number of steps is reduced so that the
            whole schedule fits; if it still doesn't, training stops early.
        progress: True shows a progress bar when stderr is a terminal, "always" in any case, False never.
        report: called after each epoch (and an early stop) with `epoch`, `loss` (mean), `lr`, `seconds`, `progress`
            (share of all steps), `stopped_early`, and the variant that steps are computed in: `precision`,
            `channels_last` and `threads` (None where there was nothing to choose).
        log: called with messages for the user; by default they go to the logger "penjing.train" at level INFO.
        callbacks: each is called as `callback(graph, share of the steps done)` after every step, before masks are applied.
            If one has `state_dict()` and `load_state_dict()`, checkpoints hold its state.
        penalty: called as `penalty(graph, share of the steps done)` before every step; the scalar that it returns is added to
            the loss. It may return None.

    Returns:
        The same graph, trained, in eval mode.

    Raises:
        PenjingError: an argument is out of its range; there is nothing to train on; the loss isn't finite; the checkpoint is
            that of another run, or can't be written.
        Interrupted: the user pressed Ctrl-C; the graph holds the weights of the last step, and the checkpoint is written.
    """
    settings = TrainingSettings(
        epochs, lr, optimizer, momentum, weight_decay, warmup, clip_norm,
        signal, temperature, distill_weight, precision, channels_last, seed,
    )  # fmt: skip
    if epochs == 0:
        return graph.eval()
    log = log or logging.getLogger("penjing.train").info
    loader = training_batches(data, teacher)
    home = next(graph.parameters()).device
    with generators_kept(), ctrl_c_sets_a_flag() as asked_to_stop:
        # `Objective` sets the precision, through autocast.
        accelerator = Accelerator(mixed_precision="no")
        main, rank, world = accelerator.is_main_process, accelerator.process_index, accelerator.num_processes
        per_epoch = len(loader) // world
        if per_epoch == 0:
            raise PenjingError(f"The training data has {len(loader)} batches for {world} process(es).")
        taught_by = None if teacher is None else frozen(teacher)
        source = {"data": data.identity(), "batches": len(loader), "processes": world}
        source["teacher"] = None if taught_by is None else digest(taught_by.state_dict())
        file = None if checkpoint is None else Checkpoint(Path(checkpoint), settings, source)
        saved = None if file is None else file.load(graph, callbacks)

        graph.to(accelerator.device).train()
        objective = Objective(data.task, taught_by and taught_by.to(accelerator.device), settings, accelerator.device)
        if saved:
            standing, optimizer_state = saved
            log(f"Going on with {checkpoint} at {standing.progress:.0%} ({standing.variant}).")
        else:
            standing, optimizer_state = _begin(graph, objective, loader, per_epoch, deadline, log), None
            standing = broadcast_object_list([standing])[0]
        variant = standing.variant
        set_layout(graph, variant.channels_last)
        descent = make_optimizer(graph, settings, standing.lr)
        if optimizer_state is not None:
            descent.load_state_dict(optimizer_state)
        if file and main and not saved:
            # So that a run which is stopped before its first epoch ends still keeps its variant.
            file.save(standing, graph, descent, callbacks)
        parameters = [parameter for group in descent.param_groups for parameter in group["params"]]
        model, descent = accelerator.prepare(graph, descent)

        stopped = standing.step < standing.total and over(deadline)
        try:
            with threads_of(variant), bar(progress if main else False, standing.total, standing.step) as show:
                began, first, planned = time.monotonic(), standing.step, standing.total
                last_save = began
                while standing.step < standing.total and not stopped:
                    epoch = standing.step // per_epoch
                    if standing.step == epoch * per_epoch:
                        standing.loss, standing.counted, standing.seconds = 0.0, 0, 0.0
                    clock = time.monotonic() - standing.seconds
                    for index, batch in enumerate(
                        islice(batches(loader, seed, epoch, "The training data"), per_epoch * world)
                    ):
                        if stopped or standing.step == standing.total:
                            break
                        # Each process takes its share of the batches; a resumed run skips those that it has seen.
                        if index % world != rank or epoch * per_epoch + index // world < standing.step:
                            continue
                        rate = standing.lr * warmup_cosine((standing.step + 0.5) / standing.total, warmup)
                        for group in descent.param_groups:
                            group["lr"] = rate
                        loss = objective(model, batch, variant)
                        if penalty is not None and (more := penalty(graph, standing.progress)) is not None:
                            loss = loss + more
                        accelerator.backward(loss)
                        norm = accelerator.clip_grad_norm_(parameters, clip_norm or math.inf)
                        value = loss.item()
                        if not (math.isfinite(value) and math.isfinite(norm)):
                            raise PenjingError(
                                f"The loss is {value} and the gradient's norm {norm:.3g} in epoch {epoch + 1}, step "
                                f"{index // world + 1}: training diverged. Use a smaller learning rate than "
                                f"lr={standing.lr:.3g}, for example lr={standing.lr / 5:.2g}."
                            )
                        descent.step()
                        descent.zero_grad()
                        standing.step += 1
                        if (
                            world == 1
                        ):  # several processes would have to agree on a new total, so they keep the planned one
                            done = standing.step - first
                            mean_seconds = (time.monotonic() - began) / done
                            standing.total = shortened(standing.total, standing.step, deadline, mean_seconds, done)
                        for callback in callbacks:
                            callback(graph, standing.progress)
                        if getattr(graph, "masks", None):
                            graph.apply_masks()  # type: ignore[operator]

                        standing.loss, standing.counted = standing.loss + value, standing.counted + 1
                        standing.seconds = time.monotonic() - clock
                        show(standing.step, standing.total, standing.loss / standing.counted)
                        if asked_to_stop.is_set() or over(deadline):
                            accelerator.set_trigger()
                        stopped = accelerator.check_trigger() and standing.step < standing.total
                        if file and main and (stopped or time.monotonic() - last_save > save_every):
                            file.save(standing, graph, descent, callbacks)
                            last_save = time.monotonic()
                    if standing.step < min((epoch + 1) * per_epoch, standing.total) and not stopped:
                        raise PenjingError(f"The training data has a length of {len(loader)} batches but gave fewer.")
                    if report and main:
                        mean = standing.loss / standing.counted
                        report({"epoch": epoch + 1, "loss": mean, "lr": rate, "seconds": standing.seconds,
                                "progress": standing.progress, "stopped_early": stopped, **asdict(variant)})  # fmt: skip
                    if file and main and not stopped:
                        file.save(standing, graph, descent, callbacks)
                        last_save = time.monotonic()
            accelerator.wait_for_everyone()
        finally:
            graph.__dict__.pop(
                "_is_accelerate_prepared", None
            )  # otherwise another run under DDP would not wrap the graph
            set_layout(graph, False)
            graph.to(home).eval()
        if asked_to_stop.is_set():
            raise Interrupted(standing.progress)
        if standing.total < planned:
            log(f"Steps took longer than planned: {standing.total} of {planned} steps were done in time.")
        if stopped:
            log(f"The deadline passed after step {standing.step} of {standing.total}: training stopped early.")
    return graph


def _begin(
    graph: nn.Module,
    objective: Objective,
    loader: Any,
    per_epoch: int,
    deadline: float | None,
    log: Callable[[str], None],
) -> Standing:
    """Chooses the learning rate, the variant and the number of steps of a new run; tries a few steps where that pays."""
    settings = objective.settings
    start = time.perf_counter()
    tried = list(islice(batches(loader, settings.seed, 0, "The training data"), 3))
    if not tried:
        raise PenjingError(f"The training data has a length of {len(loader)} batches but gave none.")
    fetching = (time.perf_counter() - start) / len(tried)
    total = settings.epochs * per_epoch
    variants = candidates(graph, settings, total)
    variant = variants[0]
    threads = thread_counts(total, objective.device)
    if over(deadline):
        log("The deadline has passed: no training.")
        total = 0
    elif len(variants) > 1 or len(threads) > 1 or deadline is not None:
        seconds: dict[Variant, float] = {}
        if len(threads) > 1:  # first, since the times of the other variants depend on the number of threads
            each = [replace(variant, threads=count) for count in threads]
            seconds = step_seconds(graph, objective, settings, tried, each, FOR_TRYING * left(deadline))
            variant = fastest(seconds, MUCH)
            variants = [replace(other, threads=variant.threads) for other in variants]
        if len(variants) > 1 or not seconds:
            more = step_seconds(graph, objective, settings, tried, variants, FOR_TRYING * left(deadline))
            variant = fastest(more)
            seconds = {**seconds, **more}
        times = ", ".join(f"{other} {1000 * value:.0f} ms" for other, value in seconds.items())
        log(f"Training in {variant} (per step: {times}).")
        planned, total = total, fitting(total, deadline, seconds[variant] + fetching)
        if total < planned:
            log(f"Shortening the training from {planned} to {total} steps, to be done in {left(deadline):.0f} s.")
    lr = settings.lr or default_lr(settings.optimizer, batch_size(objective.task, tried[0]))
    return Standing(0, total, lr, variant, began_with=digest(graph.state_dict()))
