"""The signal "gradient_sharing": the gradient of the teacher's parameters, beside the student's own."""

from collections.abc import Mapping

import torch
from torch import Tensor

from penjing.distillation.comparison import Comparison
from penjing.distillation.pairs import wide
from penjing.distillation.signals._registry import Signal, signals
from penjing.errors import PenjingError


@signals.register(
    source="practice; another gradient as a linear term of the loss as in Shamir, Srebro and Zhang, DANE, ICML 2014, "
    "arXiv:1312.7853",
    needs={"labels", "gradients"},
    name="gradient_sharing",
)
class GradientSharing(Signal):
    """Moves the student's parameters the way the task's loss would move the teacher's, where names and shapes correspond.

        loss = Σ over parameters of ⟨gᵗ, θˢ⟩, with gᵗ the gradient of the task's loss of the teacher on this batch

    It is linear in the student's parameters, so that its gradient is the teacher's. Its value says nothing of how good the
    student is, can be negative and has no minimum: it needs the task's loss beside it. Other parameters are left as they are.
    """

    wants_parameters = True

    def forward(self, seen: Comparison) -> Tensor:
        """Returns the loss of a batch.

        Raises:
            PenjingError: there is no gradient of the teacher, or nothing of the student corresponds to it.
        """
        if seen.teacher_gradients is None:
            raise PenjingError(
                "The signal 'gradient_sharing' needs the task's loss of the teacher, which takes labels: give labelled data, or "
                'use signal="soft_labels", which needs none.'
            )
        learned, taught = seen.student.parameters, seen.teacher_gradients()
        common = [name for name in learned if name in taught and learned[name].shape == taught[name].shape]
        if not common:
            raise PenjingError(
                f"No parameter of the student has the name and the shape of one of its teacher's, so no gradient can be shared "
                f"(the student's: {_few(learned)}; the teacher's: {_few(taught)}). Use another signal, such as "
                '"soft_labels".'
            )
        terms = [(wide(taught[name]).detach().to(learned[name].device) * wide(learned[name])).sum() for name in common]
        return torch.stack(terms).sum()


def _few(tensors: Mapping[str, Tensor]) -> str:
    named = list(tensors.items())[:3]
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in named) or "none"
