"""The table of distillation signals, and what a signal is."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from penjing.distillation.comparison import Comparison
from penjing.registry import Entry, Registry

Taps = Literal["", "blocks", "middle", "last", "attention", "transformer"]
"""What a signal compares inside the networks, and what `Seen.taps` then holds:

- "": nothing, an empty list.
- "blocks": the ends of all blocks, in order; "middle": the end of the block in the middle; "last": that of the last one.
- "attention": for each attention layer its queries and then its keys, each `(N, heads, positions, width)`.
- "transformer": the ends of all blocks that hold a sequence `(N, positions, channels)`, and behind them what "attention"
  holds; nothing of that where the network keeps its queries and keys to itself. The numbers of axes, three and four, tell
  the two apart.
"""


class Signal(nn.Module, ABC):
    """One way to listen to a teacher: a loss of a batch that both networks saw.

    Its choices are arguments of the constructor and have defaults. What it must learn itself (a regressor where widths
    differ, a critic) are its parameters: they are made in `prepare`, trained beside the student, kept in checkpoints, and
    never become part of the student.

    Attributes:
        taps: the inner values that it compares, see `Taps`.
        wants_input_gradients: whether the inputs must require gradients, and the teacher's outputs depend on them too. Both
            networks must then be run with ops that can be differentiated twice: fused attention can't, so they run under
            `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`.
        wants_parameters: whether it looks at the student's parameters and at the gradients of the teacher's.
        by_head: whether it compares one output with one output, so that of a network with several heads each is compared by
            itself: those that hold classes, or any of them if the signal is "values".
    """

    taps: ClassVar[Taps] = ""
    wants_input_gradients: ClassVar[bool] = False
    wants_parameters: ClassVar[bool] = False
    by_head: ClassVar[bool] = False

    def prepare(self, seen: Comparison) -> None:
        """Makes what the signal must learn, for values shaped as those of this batch; it is called once, before training.

        Raises:
            PenjingError: the values can't be compared; the message has both shapes.
        """

    @abstractmethod
    def forward(self, seen: Comparison) -> Tensor:
        """Returns the loss of a batch, a scalar in float32 or wider."""

    def __call__(self, seen: Comparison) -> Tensor:
        """Returns the loss of a batch, computed outside of autocast: in bf16, sums and products are too coarse for losses."""
        leaves = pytree.tree_leaves([seen.student.outputs, list(seen.student.taps), dict(seen.student.parameters)])
        devices = {leaf.device.type for leaf in leaves if isinstance(leaf, Tensor)}
        with torch.autocast(next(iter(devices), "cpu"), enabled=False):
            loss: Tensor = super().__call__(seen)
        return loss


@dataclass(frozen=True, kw_only=True)
class SignalEntry(Entry[type[Signal]]):
    """A registered signal: a class, called with the signal's choices."""


signals = Registry("distillation signal", SignalEntry)
"""Each is a class in a file of its own."""
