"""The losses of one batch: forward through student and teacher, then the task's loss and the teacher's guidance."""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import convert_to_fp32, send_to_device
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from penjing.distillation import (
    Balance,
    Comparison,
    Heads,
    Seen,
    Signal,
    balances,
    distillation_schedules,
    parameter_gradients,
    signals,
    suited,
)
from penjing.distillation.pairs import floating
from penjing.distillation.teachers import Teacher
from penjing.errors import PenjingError
from penjing.tasks import Task, answers_of, compared_of, counted_of, each_input, heads_of
from penjing.training.listened import Listened
from penjing.training.mixing import counted, guided, unmixed
from penjing.training.randomness import generators_kept, seed_generators
from penjing.training.settings import AUTO, TrainingSettings, Variant, check_labels
from penjing.training.tapped import Tapped, called

VALUES = "values"  # the signal of heads that hold no classes, whatever others are asked for
PREPARED = 1  # the key, beside the seed, of the random numbers that a signal's own parameters begin with


@dataclass(frozen=True)
class Losses:
    """The losses of one batch, scalars in float32; at least one of them is there.

    Attributes:
        task: the task's own, times the schedule's weight; None without labels, or where the schedule leaves it out.
        guidance: the signal's, likewise; None without a teacher.
        penalty: the penalty's, once the step has computed it; None where there is none.
    """

    task: Tensor | None
    guidance: Tensor | None
    penalty: Tensor | None = None

    @property
    def only(self) -> Tensor | None:
        """The one loss that is there; None where both are."""
        if self.task is None or self.guidance is None:
            return self.guidance if self.task is None else self.task
        return None

    def measured(self) -> dict[str, float]:
        """Returns their values by name."""
        return {name: float(loss.detach()) for name, loss in vars(self).items() if loss is not None}


class Objective:
    """The loss of a batch, as a function of the model that runs on it.

    Attributes:
        task: splits batches and gives the task's loss.
        settings: signal, balance, schedule, and their choices.
        device: where the model is.
        signal: how the teacher is listened to; None without a teacher.
        balance: how the two losses become one step.
        teacher: whom the student learns from; None without one.
        processes: number of processes that train together.
    """

    def __init__(
        self,
        task: Task,
        teacher: Teacher | None,
        settings: TrainingSettings,
        device: torch.device,
        processes: int = 1,
    ) -> None:
        """Takes what is constant.

        Args:
            task: see the attribute.
            teacher: as `Teacher.begin` makes it, on the same device, or None.
            settings: see the attribute.
            device: see the attribute.
            processes: see the attribute.
        """
        self.task, self.settings, self.device, self.processes = task, settings, device, processes
        self.signal: Signal | None = None
        self.balance: Balance = _made(balances[settings.balance].function, weight=settings.distill_weight)
        self._course = distillation_schedules[settings.schedule].function
        self.teacher = teacher
        self._listened = None if teacher is None else Listened(teacher, task)
        self._by_labels = False

    def prepare(self, student: nn.Module, batch: Any) -> None:
        """Chooses the signal where nobody named one, pairs taps, and makes what the signal must learn, by one batch.

        The student's statistics, its mode and the random generators stay as they were.

        Raises:
            PenjingError: names match nothing, values can't be paired, or the signal needs labels that there aren't.
        """
        if self._listened is None or self.signal is not None:
            return
        training = student.training
        student.eval()
        try:
            with torch.no_grad(), generators_kept():
                self._prepare(student, self._listened, batch)
        finally:
            student.train(training)

    def _prepare(self, student: nn.Module, listened: Listened, batch: Any) -> None:
        name, signal = self._chosen(student, listened, batch)
        listened.look_inside(student, signal, name, self.settings.taps)
        tapped = self.tapped(student)
        try:
            _, seen = self._compared(tapped, batch, Variant(), 0.0)
        finally:
            tapped.close()
        check_labels(name, seen.targets is not None)
        seed_generators(self.settings.seed, PREPARED)
        signal.prepare(seen)
        self.signal = signal.to(self.device)
        self._by_labels = name != AUTO and "labels" in signals[name].needs
        self.balance.to(self.device)

    def _chosen(self, student: nn.Module, listened: Listened, batch: Any) -> tuple[str, Signal]:
        """Returns the signal, and its name: the one that was named, or else one that suits the outputs, head by head."""
        name, heads = self.settings.signal, heads_of(self.task)
        if name != AUTO and (heads is None or not signals[name].function.by_head):
            return name, self._signal(name)
        inputs, _ = send_to_device(self.task.split(batch), self.device)
        given = called("The model", Tapped(student), listened.teacher.shown(inputs))[0]
        outputs = compared_of(self.task, given)
        if heads is None:
            name = suited(answers_of(self.task), outputs)
            return name, self._signal(name)
        parts = {}
        for head, (task, _) in heads.items():
            kind = suited(answers_of(task), outputs[head])
            parts[head] = self._signal(kind if name == AUTO or kind == VALUES else name)
        return name, Heads(parts, {head: weight for head, (_, weight) in heads.items()})

    def _signal(self, name: str) -> Signal:
        made: Signal = _made(signals[name].function, temperature=self.settings.temperature)
        return made

    def tapped(self, student: nn.Module) -> Tapped:
        """Returns a student in the form in which losses are computed of it; its parameters are shared."""
        return Tapped(student, [] if self._listened is None else [own for own, _ in self._listened.pairs])

    def parameters(self) -> list[nn.Parameter]:
        """Returns what is trained beside the student: the signal's parameters and the balance's."""
        parts = [part for part in (self.signal, self.balance) if part is not None]
        return [parameter for part in parts for parameter in part.parameters()]

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Restores what signal and balance have learned and remember when the block ends, and drops their gradients."""
        parts = [part for part in (self.signal, self.balance) if part is not None]
        states = [copy.deepcopy(part.state_dict()) for part in parts]
        try:
            yield
        finally:
            for part, state in zip(parts, states, strict=True):
                part.load_state_dict(state)
                part.zero_grad()

    def __call__(self, model: Tapped, batch: Any, variant: Variant, progress: float = 0.0) -> Losses:
        """Returns the losses of a batch.

        Args:
            model: of `tapped`, maybe wrapped by Accelerate.
            batch: as the loader gives it.
            variant: how it is computed.
            progress: the share of the training that is done.

        Raises:
            PenjingError: the batch has no labels and there is no teacher; the model or the teacher can't take the batch; or
                the losses depend on no parameter that is trained.
        """
        losses = self._losses(model, batch, variant, progress)
        if not any(loss.requires_grad for loss in (losses.task, losses.guidance) if loss is not None):
            raise PenjingError(
                "The loss depends on no parameter that requires a gradient, so this step has nothing to learn: let more of the "
                "model's parameters require gradients, or choose another signal=, taps= or schedule=."
            )
        return losses

    def _losses(self, model: Tapped, batch: Any, variant: Variant, progress: float) -> Losses:
        of_task, of_guidance = self._course(progress) if self.teacher is not None else (1.0, 0.0)
        task, seen = self._compared(model, batch, variant, progress)
        if task is None and self.teacher is None:
            raise PenjingError("The data has no labels; pass teacher=, the original model, to learn from it instead.")
        if self.signal is None or (of_guidance == 0 and task is not None):
            return Losses(task, None)
        guidance = guided(self.signal, seen, by_labels=self._by_labels)
        if task is None or of_task == 0:  # λ is a balance, not a scale: where only one is there, it counts in full
            return Losses(None, self._reaching_all(guidance, seen.student.outputs))
        return Losses(
            task if of_task == 1 else of_task * task, guidance if of_guidance == 1 else of_guidance * guidance
        )

    def _reaching_all(self, guidance: Tensor, outputs: Any) -> Tensor:
        """Returns the guidance so that all parameters behind the outputs have a gradient, which may be zero.

        Where several processes train together, each step waits for the gradient of every parameter, and a signal that looks
        inside the network has none for those behind its taps.
        """
        if self.processes == 1:
            return guidance
        return guidance + 0 * torch.stack([each.nan_to_num().sum() for each in floating(outputs)]).sum()

    def loss(self, model: Tapped, batch: Any, variant: Variant) -> Tensor:
        """Returns one loss of a batch, as a step at the start of the training has it: for timing steps."""
        losses = self(model, batch, variant)
        if losses.task is None or losses.guidance is None:
            assert losses.only is not None
            return losses.only
        return self.balance.combined(losses.task, losses.guidance)

    def _compared(
        self, model: nn.Module, batch: Any, variant: Variant, progress: float
    ) -> tuple[Tensor | None, Comparison]:
        """Returns the task's loss of a batch, None without labels, and what both networks made of it."""
        inputs, targets = send_to_device(self.task.split(batch), self.device)
        if variant.channels_last:
            inputs = each_input(inputs, channels_last)
        if self.signal is not None and self.signal.wants_input_gradients:
            inputs = each_input(inputs, lambda x: x.detach().requires_grad_(x.is_floating_point()))
        with self._autocast(variant), self._differentiable_twice():
            # The teacher comes first: its inner values are let go at once, and the student's are made in that memory, which is
            # faster than memory that is new to the process.
            taught: tuple[Any, list[Tensor]] = (None, [])
            if self._listened is not None:
                with torch.set_grad_enabled(self.signal is not None and self.signal.wants_input_gradients):
                    taught = self._listened(inputs, unmixed(targets))
            outputs, taps = called("The model", model, inputs if self.teacher is None else self.teacher.shown(inputs))
        outputs, taps, taught = convert_to_fp32(outputs), convert_to_fp32(taps), convert_to_fp32(taught)
        labelled = self.task.labelled and targets is not None
        task = self.task.loss(outputs, targets) if labelled else None
        named = self.signal is not None and self.signal.wants_parameters
        seen = outputs if self.teacher is None else compared_of(self.task, outputs)
        return task, Comparison(
            Seen(seen, taps, dict(_student_of(model).named_parameters()) if named else {}),
            Seen(taught[0], taught[1], self._listened.parameters() if named and self._listened is not None else {}),
            inputs,
            targets if labelled else None,
            counted(targets, counted_of(self.task, inputs, outputs, unmixed(targets))),
            progress,
            self._gradients_of_teacher(inputs, targets, variant) if named and labelled else None,
        )

    def _gradients_of_teacher(
        self, inputs: Sequence[Any], targets: Any, variant: Variant
    ) -> Callable[[], Mapping[str, Tensor]]:
        """Returns what computes the gradients of the task's loss with respect to the teacher's parameters, when called."""

        def compute() -> Mapping[str, Tensor]:
            teacher = self.teacher
            assert teacher is not None and teacher.network is not None  # as `look_inside` made sure
            with self._autocast(variant):
                return parameter_gradients(
                    teacher.network,
                    teacher.seen(inputs),
                    lambda outputs: self.task.loss(convert_to_fp32(outputs), targets),
                )

        return compute

    def _differentiable_twice(self) -> AbstractContextManager[Any]:
        # Fused attention has no second derivative, which a signal of input gradients needs.
        wanted = self.signal is not None and self.signal.wants_input_gradients
        return sdpa_kernel(SDPBackend.MATH) if wanted else nullcontext()

    def _autocast(self, variant: Variant) -> AbstractContextManager[Any]:
        # Not the Accelerator's autocast, which would replace `graph.forward`, so that its steps couldn't be timed before.
        return torch.autocast(self.device.type, torch.bfloat16, enabled=variant.precision == "bfloat16")


def _student_of(model: nn.Module) -> nn.Module:
    inner = getattr(model, "module", model)  # as DistributedDataParallel wraps it
    return inner.network if isinstance(inner, Tapped) else inner


def _made(kind: Any, **choices: Any) -> Any:
    """Calls a registered class with those of the choices that it has."""
    known = inspect.signature(kind).parameters
    return kind(**{name: value for name, value in choices.items() if name in known})


def channels_last(images: Tensor) -> Tensor:
    """Returns images in the memory layout NHWC; any other tensor as it is."""
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images
