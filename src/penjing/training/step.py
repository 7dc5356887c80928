"""One optimiser step: losses, gradients, the update."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from penjing.errors import PenjingError
from penjing.training.objective import Losses, Objective
from penjing.training.penalty import Penalty
from penjing.training.settings import Variant
from penjing.training.tapped import Tapped


@dataclass(frozen=True)
class Stepper:
    """Takes optimiser steps.

    Attributes:
        graph: the student, as the user gave it.
        model: the student as losses are computed of it: with taps, and as Accelerate wraps it.
        objective: gives the losses.
        descent: the optimiser.
        accelerator: computes gradients, and averages them over processes.
        parameters: those of the optimiser that belong to the student.
        clip_norm: the largest norm of the gradient; None for no limit.
        penalty: see `recover`.
    """

    graph: nn.Module
    model: Tapped
    objective: Objective
    descent: torch.optim.Optimizer
    accelerator: Accelerator
    parameters: Sequence[nn.Parameter]
    clip_norm: float | None
    penalty: Penalty | None

    def __call__(self, batch: Any, variant: Variant, progress: float) -> tuple[float, Losses]:
        """Takes one step.

        Args:
            batch: as the loader gives it.
            variant: how it is computed.
            progress: the share of the training that is done.

        Returns:
            The loss, the penalty included, and the losses that it is made of, the penalty's as well.

        Raises:
            Diverged: the loss or the gradient isn't finite; nothing was updated.
        """
        losses = self.objective(self.model, batch, variant, progress)
        penalty = None if self.penalty is None else self.penalty(self.graph, progress)
        loss = self._backward(losses, penalty)
        self._share()
        everything = [parameter for group in self.descent.param_groups for parameter in group["params"]]
        norm = float(self.accelerator.clip_grad_norm_(everything, self.clip_norm or math.inf))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(loss, norm)
        self.descent.step()
        self.descent.zero_grad()
        return loss, replace(losses, penalty=penalty)

    def _backward(self, losses: Losses, penalty: Tensor | None) -> float:
        """Computes all gradients; returns the loss, the penalty included."""
        seen: list[Tensor] = []

        def backward(loss: Tensor) -> None:
            seen.append(loss if penalty is None else loss + penalty)
            self.accelerator.backward(seen[-1])

        if losses.task is None or losses.guidance is None:
            assert losses.only is not None
            backward(losses.only)
        else:
            self.objective.balance.backward(losses.task, losses.guidance, self.parameters, backward)
            if not seen:  # the balance computed the gradients of each loss by itself
                seen += [losses.task, losses.guidance, *([] if penalty is None else [penalty])]
                if penalty is not None and penalty.requires_grad:
                    self.accelerator.backward(penalty)
        return sum(float(loss.detach()) for loss in seen)

    def _share(self) -> None:
        """Averages over processes what no wrapper does: gradients of what is trained beside the student, and what the
        balance remembers of the losses, so that every process gives them the same weights.
        """
        if self.accelerator.num_processes > 1:
            for parameter in self.objective.parameters():
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
            for buffer in self.objective.balance.buffers():
                buffer.copy_(self.accelerator.reduce(buffer, "mean"))


class Diverged(PenjingError):
    """A loss or a gradient that isn't finite."""

    def __init__(self, loss: float, norm: float) -> None:
        super().__init__(f"The loss is {loss} and the gradient's norm {norm:.3g}")
        self.loss, self.norm = loss, norm
