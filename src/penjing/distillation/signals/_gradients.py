"""The signal "gradients": the parts of the input on which a network's answer depends."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from penjing.distillation.comparison import Comparison
from penjing.distillation.inner import unit
from penjing.distillation.pairs import counted_for, floating, pairs, wide
from penjing.distillation.signals._registry import Signal, signals
from penjing.distillation.signals._soft_labels import holds_classes
from penjing.errors import PenjingError


@signals.register(
    source="Srinivas and Fleuret, Knowledge Transfer with Jacobian Matching, ICML 2018, arXiv:1803.00443; Czarnecki et al., "
    "Sobolev Training for Neural Networks, NeurIPS 2017, arXiv:1706.04859",
    needs={"gradients"},
    name="gradients",
)
class Gradients(Signal):
    """Asks that the student's answer hang on the same parts of the input as the teacher's.

        loss = mean over samples of ‖∇ₓ fᵗ / ‖∇ₓ fᵗ‖ − ∇ₓ fˢ / ‖∇ₓ fˢ‖‖², over all entries of a sample's inputs

    f is the logit of the class that the teacher finds most probable, summed over the positions that count; of outputs
    without classes, the sum of their values. The gradient of the cross-entropy has the same direction but for what pushes the
    other classes, and vanishes in rounding where a teacher is sure; that of the logit doesn't. A step computes gradients
    of gradients and costs two to three times a plain one.
    """

    wants_input_gradients = True

    def forward(self, seen: Comparison) -> Tensor:
        """Returns the loss of a batch.

        Raises:
            PenjingError: outputs of different shapes, or outputs that have no gradient with respect to any input.
        """
        leaves = pytree.tree_leaves(list(seen.inputs))
        inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
        compared = pairs(seen.student.outputs, seen.teacher.outputs)
        answers = [target.argmax(1, keepdim=True) if holds_classes(target) else None for _, target in compared]
        scores = [_score(network.outputs, answers, seen.counted) for network in (seen.student, seen.teacher)]
        if not (inputs and all(score.requires_grad for score in scores)):
            whose = "student" if scores[1].requires_grad or not inputs else "teacher"
            raise PenjingError(
                f"The {whose}'s outputs have no gradient with respect to its inputs, which the signal 'gradients' compares: "
                "inputs must be floating-point (token numbers have no gradient), and every op behind them differentiable. "
                'Use another signal, such as "soft_labels".'
            )
        own = torch.autograd.grad(scores[0], inputs, create_graph=True, allow_unused=True)
        target = torch.autograd.grad(scores[1], inputs, retain_graph=True, allow_unused=True)
        both = [(a, b) for a, b in zip(own, target, strict=True) if a is not None and b is not None]
        if not both:
            raise PenjingError(
                "The student and its teacher depend on different inputs, so their gradients can't be compared. Use another "
                'signal, such as "soft_labels".'
            )
        student, teacher = (torch.cat([wide(each).flatten(1) for each in side], 1) for side in zip(*both, strict=True))
        return (unit(student) - unit(teacher)).square().sum(1).mean()


def _score(outputs: object, answers: Sequence[Tensor | None], counted: Tensor | None) -> Tensor:
    """Returns the sum of the logits of the answers at the positions that count, or of all values where there are no classes."""
    terms = []
    for tensor, answer in zip(floating(outputs), answers, strict=True):
        values = wide(tensor) if answer is None else wide(tensor).gather(1, answer)
        weights = counted_for(values, counted)
        terms.append(values.sum() if weights is None else (values * weights.unsqueeze(1)).sum())
    return torch.stack(terms).sum()
