"""A small student and a wider teacher, and what a signal sees of a batch that both were given."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from penjing.distillation import Comparison, Seen, Signal, parameter_gradients, signals

KINDS = ("vectors", "sequences", "maps")
SAMPLES, CLASSES = 6, 5
INPUTS = {"vectors": (SAMPLES, 7), "sequences": (SAMPLES, 4, 7), "maps": (SAMPLES, 7, 6, 6)}


class Network(nn.Module):
    """Two blocks and a classifier at each position; both inner values, queries and keys come out too."""

    def __init__(self, kind: str, widths: tuple[int, int]) -> None:
        super().__init__()
        self.kind = kind
        first, second = widths
        self.first, self.second = self._layer(7, first), self._layer(first, second)
        self.head = self._layer(second, CLASSES)
        self.queries, self.keys = nn.Linear(second, 2 * second), nn.Linear(second, 2 * second)

    def _layer(self, inside: int, outside: int) -> nn.Module:
        return nn.Conv2d(inside, outside, 3, padding=1) if self.kind == "maps" else nn.Linear(inside, outside)

    def forward(self, inputs: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Returns logits (N, classes, positions...), the ends of the blocks, and two heads of queries and of keys."""
        first = torch.tanh(self.first(inputs))
        second = torch.tanh(self.second(first))
        logits = self.head(second)
        heads: list[Tensor] = []
        if self.kind == "sequences":
            logits = logits.movedim(2, 1)
            heads = [layer(second).unflatten(2, (2, -1)).transpose(1, 2) for layer in (self.queries, self.keys)]
        return logits, [first, second], heads


def networks(kind: str) -> tuple[Network, Network]:
    """Returns a student and a frozen teacher: the first block has one width in both, the second has not."""
    torch.manual_seed(0)
    student, teacher = Network(kind, (8, 6)), Network(kind, (8, 10))
    return student, teacher.requires_grad_(False)


def batch(kind: str) -> tuple[Tensor, Tensor]:
    """Returns inputs and class indices of each position."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(INPUTS[kind], generator=generator)
    positions = {"vectors": (), "sequences": (4,), "maps": (6, 6)}[kind]
    return inputs, torch.randint(CLASSES, (SAMPLES, *positions), generator=generator)


def comparison(
    signal: Signal,
    kind: str,
    student: Network,
    teacher: Network,
    counted: Tensor | None = None,
    change: Callable[[Tensor], Tensor] = lambda value: value,
) -> Comparison:
    """Returns what a signal sees of `batch`, after a change of all values; the padded labels are −100."""
    inputs, targets = batch(kind)
    if counted is not None:
        targets = targets.masked_fill(~counted, -100)
    if signal.wants_input_gradients:
        inputs.requires_grad_()
    with torch.set_grad_enabled(signal.wants_input_gradients):
        taught = _seen(signal, teacher, inputs, change)
    loss = nn.CrossEntropyLoss()
    return Comparison(
        _seen(signal, student, inputs, change),
        taught,
        inputs=(inputs,),
        targets=targets,
        counted=counted,
        teacher_gradients=lambda: parameter_gradients(teacher, [inputs], lambda made: loss(made[0].float(), targets)),
    )


def _seen(signal: Signal, network: Network, inputs: Tensor, change: Callable[[Tensor], Tensor]) -> Seen:
    logits, ends, heads = network(inputs)
    taps = {
        "": [],
        "blocks": ends,
        "middle": ends[:1],
        "last": ends[1:],
        "attention": heads,
        "transformer": [*ends, *heads],
    }[signal.taps]
    named = dict(network.named_parameters()) if signal.wants_parameters else {}
    return Seen(change(logits), [change(tap) for tap in taps], named)


def suits(name: str, kind: str) -> bool:
    """Whether a signal compares values of a kind: attention needs positions, a transformer is one of sequences."""
    taps = signals[name].function.taps
    if taps in ("transformer", "attention"):
        return kind == "sequences"
    return not (name == "attention" and kind == "vectors")


SCENES = [(name, kind) for name in signals for kind in KINDS if suits(name, kind)]
