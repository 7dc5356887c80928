"""The training loop: a run begins or goes on, takes step after step, and keeps its standing."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any, Literal

import torch
from accelerate.utils import broadcast_object_list
from torch import nn

from penjing.data import Data
from penjing.distillation import Teacher
from penjing.errors import PenjingError
from penjing.graph.digest import digest
from penjing.tasks import answers_of
from penjing.training.averaging import Average
from penjing.training.beginning import begin, first_batches
from penjing.training.checkpoint import Checkpoint, Epoch
from penjing.training.deadline import over, shortened
from penjing.training.display import Show, bar
from penjing.training.divergence import ended, going_on
from penjing.training.ending import finish, inputs_as_they_are
from penjing.training.interrupt import Interrupted
from penjing.training.judging import Judge
from penjing.training.label_smoothing import smoothed
from penjing.training.mixing import AugmentedTask, Augmenter
from penjing.training.objective import Losses, Objective
from penjing.training.optimizers import make_optimizer, set_rate
from penjing.training.penalty import Penalty, penalty_of
from penjing.training.processes import accelerator, check_agreement
from penjing.training.randomness import batches
from penjing.training.schedule import warmup_cosine
from penjing.training.settings import TrainingSettings
from penjing.training.source import training_batches
from penjing.training.speed import set_layout, threads_of
from penjing.training.step import Diverged, Stepper
from penjing.training.trackers import Trackers


@dataclass(frozen=True)
class RunOptions:
    """The arguments of a run that are no plain values or don't decide what it learns; `recover` documents them.

    A penalty is the user's function here; `TrainingSettings` names those of `penjing.penalties`.
    """

    checkpoint: Path | None = None
    save_every: float = 60.0
    deadline: float | None = None
    progress: bool | Literal["always"] | Show = True
    report: Callable[[dict[str, Any]], None] | None = None
    log: Callable[[str], None] = logging.getLogger("penjing.train").info
    callbacks: Sequence[Callable[[nn.Module, float], None]] = ()
    penalty: Penalty | None = None
    trackers: Sequence[str] = ()


class Run:
    """One run of `recover`, which documents what it takes."""

    def __init__(
        self, graph: nn.Module, data: Data, teacher: Teacher | None, settings: TrainingSettings, options: RunOptions
    ) -> None:
        """Begins a new run, or goes on with the one in the checkpoint.

        Raises:
            PenjingError: there is nothing to train on, the checkpoint is of another run, or names match nothing.
        """
        self._graph, self._settings, self._options = graph, settings, options
        self._penalty = penalty_of(graph, settings.penalty or options.penalty, settings.penalty_weight)
        self._loader = training_batches(data, teacher)
        self._home = next((parameter.device for parameter in graph.parameters()), torch.device("cpu"))
        self._accelerator = accelerator()
        self._is_main = self._accelerator.is_main_process
        world = self._accelerator.num_processes
        self._per_epoch = len(self._loader) // world
        if self._per_epoch == 0:
            raise PenjingError(f"The training data has {len(self._loader)} batches for {world} process(es).")
        device = self._accelerator.device
        source = {"data": data.identity(), "batches": len(self._loader), "processes": world}
        source["teacher"] = None if teacher is None else teacher.identity()
        self._file = None if options.checkpoint is None else Checkpoint(options.checkpoint, settings, source)

        graph.to(device)
        taught_by = None if teacher is None else teacher.begin(graph, device, answers_of(data.task), options.log)
        task = smoothed(data.task, settings.label_smoothing)
        self._augment = Augmenter(settings.augment, task, settings.seed) if settings.augment else None
        self._objective = Objective(
            task if self._augment is None else AugmentedTask(task), taught_by, settings, device, world
        )
        tried, fetching = first_batches(self._loader, settings.seed)
        if self._augment is not None:
            self._augment(tried[0], 0, 0)  # so that inputs which it can't change are told before the first step
        self._objective.prepare(graph, tried[0])
        if self._objective.balance.surgery and world > 1:
            raise PenjingError(
                f"balance='{settings.balance}' needs all gradients in one process, and there are {world}."
            )
        self._average = None if settings.ema is None else Average(settings.ema)
        self._stateful = [*options.callbacks, *self._learned(), *([] if self._average is None else [self._average])]
        self._judge = Judge(data, taught_by, settings, self._accelerator, options.callbacks, options.log)
        self._stateful += [self._judge] if self._judge.keeps else []
        saved = None if self._file is None else self._file.load(graph, self._stateful)
        check_agreement(self._accelerator, options.checkpoint, None if saved is None else saved[0].step)
        graph.train()
        if saved is not None:
            self._standing = saved[0]
            options.log(
                f"Going on with {options.checkpoint} at {self._standing.progress:.0%} ({self._standing.variant})."
            )
            if self._standing.diverged_at is not None:
                options.log(going_on(self._standing))
        else:
            steps = settings.epochs * self._per_epoch
            standing = begin(
                graph,
                self._objective,
                self._loader,
                tried,
                fetching,
                steps,
                options.deadline,
                options.log,
                options.callbacks,
            )
            self._standing = broadcast_object_list([standing])[0]
        set_layout(graph, self._standing.variant.channels_last)
        self._is_new = saved is None
        self._last_save = time.monotonic()
        self._stepper = self._prepared(None if saved is None else saved[1])

    def _learned(self) -> list[object]:
        """Returns those of signal, balance and teacher that have a state, which checkpoints keep."""
        parts = (self._objective.signal, self._objective.balance, self._objective.teacher)
        return [part for part in parts if part is not None and part.state_dict()]

    def _prepared(self, optimizer_state: dict[str, Any] | None) -> Stepper:
        """Returns a stepper with the model and the optimiser as Accelerate wraps them."""
        beside = self._objective.parameters()
        descent = make_optimizer(self._graph, self._settings, self._standing.lr, beside)
        if optimizer_state is not None:
            descent.load_state_dict(optimizer_state)
        others = {id(parameter) for parameter in beside}
        everything = [parameter for group in descent.param_groups for parameter in group["params"]]
        own = [parameter for parameter in everything if id(parameter) not in others]
        self._tapped = self._objective.tapped(self._graph).to(self._accelerator.device).train()
        model, descent = self._accelerator.prepare(self._tapped, descent)
        return Stepper(
            self._graph, model, self._objective, descent, self._accelerator, own, self._settings.clip_norm,
            self._penalty,
        )  # fmt: skip

    def _save(self) -> None:
        if self._objective.teacher is not None and self._is_main:
            self._objective.teacher.save()
        if self._file is not None and self._is_main:
            self._file.save(self._standing, self._graph, self._stepper.descent, self._stateful)
        self._last_save = time.monotonic()

    def train(self, asked_to_stop: Event) -> None:
        """Takes all steps that are left, or those until the deadline or Ctrl-C.

        Raises:
            PenjingError: the checkpoint can't be written, a loss isn't finite, or the data gave fewer batches than they said.
            Interrupted: Ctrl-C; the graph holds the weights of the last step and the checkpoint is written.
        """
        standing, planned = self._standing, self._standing.total
        stopped = standing.step < standing.total and over(self._options.deadline)
        self._began, self._first = time.monotonic(), standing.step
        shown = self._options.progress if self._is_main else False
        trackers = Trackers(self._options.trackers if self._is_main else (), self._settings, is_new=self._is_new)
        self._listeners: list[Callable[[dict[str, Any]], None]] = [trackers]
        self._listeners += [] if self._options.report is None else [self._options.report]
        try:
            if self._is_new:
                self._save()  # stopped before the first epoch's end, a run still keeps its variant
            with trackers, threads_of(standing.variant), bar(shown, standing.total, standing.step) as show:
                while standing.step < standing.total and not stopped:
                    stopped = self._epoch(show, asked_to_stop)
                if not asked_to_stop.is_set():
                    self._finish(asked_to_stop)
            self._accelerator.wait_for_everyone()
        finally:
            self._tapped.close()
            set_layout(self._graph, False)
            self._graph.to(self._home).eval()
        if asked_to_stop.is_set():
            raise Interrupted(standing.progress)
        if standing.total < planned and not standing.good_enough:
            self._options.log(f"Steps took longer than planned: {standing.total} of {planned} steps were done in time.")
        if stopped:
            self._options.log(
                f"The deadline passed after step {standing.step} of {standing.total}: training stopped early."
            )

    def _epoch(self, show: Show, asked_to_stop: Event) -> bool:
        """Takes the steps that are left of an epoch; tells whether the run was stopped among them."""
        standing, accelerator, stopped = self._standing, self._accelerator, False
        rank, world = accelerator.process_index, accelerator.num_processes
        epoch = standing.step // self._per_epoch
        if standing.step == epoch * self._per_epoch:
            standing.loss, standing.losses, standing.counted, standing.seconds = 0.0, {}, 0, 0.0
            standing.counts = {}
        clock = time.monotonic() - standing.seconds
        given = batches(self._loader, self._settings.seed, epoch, "The training data")
        for index, batch in enumerate(islice(given, self._per_epoch * world)):
            if stopped or standing.step == standing.total:
                break
            # Each process takes its share of the batches; a resumed run passes those that it has seen.
            if index % world != rank or epoch * self._per_epoch + index // world < standing.step:
                continue
            changed = batch if self._augment is None else self._augment(batch, epoch, index)
            self._step(changed, epoch, index)
            standing.seconds = time.monotonic() - clock
            show(standing.step, standing.total, standing.loss / standing.counted)
            if asked_to_stop.is_set() or over(self._options.deadline):
                accelerator.set_trigger()
            stopped = accelerator.check_trigger() and standing.step < standing.total
            if stopped or time.monotonic() - self._last_save > self._options.save_every:
                self._save()
        finished = standing.step >= min((epoch + 1) * self._per_epoch, standing.total)
        if not finished and not stopped:
            raise PenjingError(f"The training data has a length of {len(self._loader)} batches but gave fewer.")
        metric = None if stopped else self._judge(self._graph, standing, self._average)
        self._tell(epoch, stopped, metric)
        if finished:
            standing.epochs.append(Epoch(epoch + 1, standing.step, standing.loss / standing.counted, metric))
            self._save()
        return stopped

    def _step(self, batch: Any, epoch: int, index: int) -> None:
        """Takes one step; then calls the callbacks, applies masks and counts the losses."""
        standing, descent = self._standing, self._stepper.descent
        rate = standing.lr * warmup_cosine((standing.step + 0.5) / standing.total, self._settings.warmup)
        set_rate(descent, rate)
        try:
            loss, losses = self._stepper(batch, standing.variant, standing.progress)
        except Diverged as end:
            raise ended(end, standing, epoch, index, self._file, self._graph, write=self._is_main) from end
        standing.step += 1
        if self._accelerator.num_processes == 1:  # several processes would have to agree; they keep to the plan
            done = standing.step - self._first
            mean_seconds = (time.monotonic() - self._began) / done
            standing.total = shortened(standing.total, standing.step, self._options.deadline, mean_seconds, done)
        for callback in self._options.callbacks:
            callback(self._graph, standing.progress)
        if getattr(self._graph, "masks", None):
            self._graph.apply_masks()  # type: ignore[operator]
        if self._objective.teacher is not None:
            self._objective.teacher.follow(self._graph)
        if self._average is not None:
            self._average.update(self._graph)
        self._tapped.check_unchanged()
        self._count(loss, losses)

    def _finish(self, asked_to_stop: Event) -> None:
        """Gives the graph the weights that the run ends with, where these aren't the last step's."""
        standing, settings, graph = self._standing, self._settings, self._graph
        other = self._judge.keeps or self._average is not None or settings.reestimates
        if standing.step == 0 or standing.ended or not other:
            return

        def stop() -> bool:
            if asked_to_stop.is_set() or over(self._options.deadline):
                self._accelerator.set_trigger()
            return bool(self._accelerator.check_trigger())

        inputs = inputs_as_they_are(self._loader, self._objective, standing.variant)
        last, best = self._judge.snapshot(graph), self._judge.put_best(graph, standing)
        finish(
            graph, None if best else self._average, inputs if settings.reestimates else None, stop, self._options.log
        )
        if asked_to_stop.is_set():  # the next call finishes from the weights of the last step
            self._judge.put(last, graph)
        elif standing.step == standing.total:
            standing.ended = True
            self._save()
        else:  # the deadline came: the next call goes on from the weights of the last step
            final = self._judge.snapshot(graph)
            standing.left_with = digest(final["model"])
            self._judge.put(last, graph)
            self._save()
            self._judge.put(final, graph)

    def _count(self, loss: float, losses: Losses) -> None:
        """Adds a step's losses to the epoch's."""
        standing = self._standing
        standing.loss, standing.counted = standing.loss + loss, standing.counted + 1
        for name, value in losses.measured().items():
            standing.losses[name] = standing.losses.get(name, 0.0) + value
            standing.counts[name] = standing.counts.get(name, 0) + 1

    def _tell(self, epoch: int, stopped: bool, metric: float | None) -> None:
        """Reports an epoch."""
        if not self._is_main:
            return
        standing = self._standing
        told = {
            "epoch": epoch + 1,
            "step": standing.step,
            "loss": standing.loss / standing.counted,
            "losses": {name: total / standing.counts[name] for name, total in standing.losses.items()},
            "metric": metric,
            "balance": self._objective.balance.measured(),
            "lr": self._stepper.descent.param_groups[0]["lr"],
            "seconds": standing.seconds,
            "progress": standing.progress,
            "stopped_early": stopped,
            **asdict(standing.variant),
        }
        for listen in self._listeners:
            listen(told)
