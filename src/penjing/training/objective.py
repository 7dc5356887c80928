"""The loss of one batch: forward through student and teacher, then task loss and distillation signal."""

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import convert_to_fp32, send_to_device
from torch import Tensor, nn

from penjing.distillation import combine, signals, suited
from penjing.errors import PenjingError
from penjing.raised import raised
from penjing.tasks import Task, answers_of
from penjing.training.settings import AUTO, TrainingSettings, Variant


def frozen(teacher: nn.Module) -> nn.Module:
    """Returns a copy of the teacher in eval mode whose parameters take no gradient."""
    with torch.no_grad():  # otherwise the copies of a torch.jit module's parameters would have a gradient function
        copied = copy.deepcopy(teacher).eval()
    for parameter in copied.parameters():  # one by one, since a torch.jit module has no `requires_grad_`
        parameter.requires_grad_(False)
    return copied


def _called(name: str, model: nn.Module, inputs: Sequence[Any]) -> Any:
    try:
        return model(*inputs)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        given = ", ".join(str(tuple(x.shape)) for x in inputs if isinstance(x, Tensor))
        raise raised(
            f"{name} can't take a batch of the training data (inputs of shape {given}): it raised", error
        ) from error


@dataclass(frozen=True)
class Objective:
    """The loss of a batch, as a function of the model that runs on it.

    Attributes:
        task: splits batches and gives the task's loss.
        teacher: a model in eval mode on the same device, or None.
        settings: the settings of the run: the signal, its temperature and its weight are used.
        device: the device that the model is on.
    """

    task: Task
    teacher: nn.Module | None
    settings: TrainingSettings
    device: torch.device

    def __call__(self, model: nn.Module, batch: Any, variant: Variant) -> Tensor:
        """Returns the loss, a float32 scalar with gradient.

        Raises:
            PenjingError: the batch has no labels and there is no teacher; the model or the teacher can't take the batch.
        """
        inputs, targets = send_to_device(self.task.split(batch), self.device)
        if variant.channels_last:
            inputs = tuple(x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs)
        with self._autocast(variant):
            outputs = _called("The model", model, inputs)
            with torch.no_grad():
                taught = None if self.teacher is None else _called("The teacher", self.teacher, inputs)
        outputs, taught = convert_to_fp32(outputs), convert_to_fp32(taught)
        labelled = self.task.labelled and targets is not None
        if not labelled and self.teacher is None:
            raise PenjingError("The data has no labels; pass teacher=, the original model, to learn from it instead.")
        return combine(
            self.task.loss(outputs, targets) if labelled else None,
            None if taught is None else self._signal(outputs, taught),
            self.settings.distill_weight,
        )

    def _signal(self, outputs: Any, taught: Any) -> Tensor:
        name = self.settings.signal
        name = suited(answers_of(self.task), outputs) if name == AUTO else name
        return signals[name].function(outputs, taught, temperature=self.settings.temperature)

    def _autocast(self, variant: Variant) -> AbstractContextManager[Any]:
        # Not the Accelerator's autocast, which would replace `graph.forward`, so that its steps couldn't be timed before.
        return torch.autocast(self.device.type, torch.bfloat16, enabled=variant.precision == "bfloat16")
