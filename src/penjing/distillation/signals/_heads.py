"""Several heads of one network, each listened to by the signal that suits its outputs."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from penjing.distillation.comparison import Comparison, counted_positions
from penjing.distillation.signals._registry import Signal


class Heads(Signal):
    """Asks each head for the outputs of the teacher's; the loss is the weighted sum over the heads.

    It isn't in the table of signals, since it is made of others: it is what is meant where a task has several heads, and nobody
    names a signal or one that compares outputs one by one, such as "dkd".
    """

    def __init__(self, parts: Mapping[str, Signal], weights: Mapping[str, float]) -> None:
        """Takes the signal of each head, none of which looks inside the networks, and the head's weight, by name."""
        super().__init__()
        self.names, self.weights = list(parts), dict(weights)
        self.parts = nn.ModuleList(parts.values())

    def prepare(self, seen: Comparison) -> None:
        """Makes what the heads' signals must learn."""
        for name, part in zip(self.names, self.parts, strict=True):
            part.prepare(_of_head(seen, name))  # type: ignore[operator]

    def forward(self, seen: Comparison) -> Tensor:
        """Returns the loss of a batch."""
        losses = [
            self.weights[name] * part(_of_head(seen, name)) for name, part in zip(self.names, self.parts, strict=True)
        ]
        return torch.stack(losses).sum()


def _of_head(seen: Comparison, name: str) -> Comparison:
    targets = seen.targets[name] if isinstance(seen.targets, Mapping) else None
    student, teacher = (replace(side, outputs=side.outputs[name]) for side in (seen.student, seen.teacher))
    counted = counted_positions(targets, seen.counted)
    return replace(seen, student=student, teacher=teacher, targets=targets, counted=counted)
