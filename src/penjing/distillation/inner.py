"""Inner values of student and teacher, made comparable: channels at one place, one resolution, and which positions count."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from penjing.distillation.comparison import Comparison, mean_over
from penjing.distillation.pairs import wide
from penjing.distillation.positions import pooled, position_weights, sample_means
from penjing.errors import PenjingError

MOST_POSITIONS = 3  # axes of positions: those that PyTorch can average over
NO_LENGTH = 1e-8  # a vector shorter than this has no direction


@dataclass(frozen=True)
class Compared:
    """One inner value of both networks, channels first and at one resolution, in float32 or wider.

    Attributes:
        student: `(N, channels, positions...)`.
        teacher: `(N, its channels, positions...)`, without gradients.
        weights: how much each position counts, `(N, positions...)`; None where all count alike.
    """

    student: Tensor
    teacher: Tensor
    weights: Tensor | None

    def mean(self, values: Tensor) -> Tensor:
        """Returns the mean of values `(N, positions...)` over the positions that count."""
        return mean_over(values, self.weights)

    def samples(self) -> tuple[Tensor, Tensor]:
        """Returns a vector for each sample of which anything counts, `(samples, channels)`, of student and teacher."""
        vectors = [sample_means(values, self.weights) for values in (self.student, self.teacher)]
        if self.weights is not None:
            kept = self.weights.flatten(1).sum(1) > 0 if self.weights.ndim > 1 else self.weights > 0
            vectors = [each[kept] for each in vectors]
        return vectors[0], vectors[1]


def inner_values(seen: Comparison) -> list[tuple[Tensor, Tensor]]:
    """Returns each inner value of the student with its teacher's, as the networks hold them, the teacher's detached.

    Raises:
        PenjingError: there are none, or not as many of the one network as of the other.
    """
    learned, taught = list(seen.student.taps), list(seen.teacher.taps)
    if len(learned) != len(taught):
        raise PenjingError(
            f"The student gives {len(learned)} inner values and its teacher {len(taught)}. They are compared one with one: "
            "name as many of the one network as of the other with taps=."
        )
    if not learned:
        raise PenjingError(
            "This signal compares inner values of student and teacher, and there are none. Name values that both networks "
            'have with taps=, or take a signal of the outputs, such as signal="soft_labels".'
        )
    return [(wide(own), wide(target.detach().to(own.device))) for own, target in zip(learned, taught, strict=True)]


def compared_taps(seen: Comparison) -> list[Compared]:
    """Returns all inner values of both networks, made comparable.

    Raises:
        PenjingError: there are none, or two can't be compared.
    """
    return [compared(own, target, seen.counted) for own, target in inner_values(seen)]


def compared(student: Tensor, teacher: Tensor, counted: Tensor | None) -> Compared:
    """Returns two inner values at one resolution: along each axis the larger number of positions is averaged to the smaller.

    Averages leave out positions that don't count. Sequences are averaged along their order.

    Args:
        student: `(N, channels)`, `(N, positions, channels)` or `(N, channels, positions...)`.
        teacher: the same axes; it may have other channels, and other numbers of positions.
        counted: as in `Comparison`.

    Raises:
        PenjingError: the two have different axes, or samples.
    """
    own, target = channels_first(student), channels_first(teacher)
    if own.ndim != target.ndim or len(own) != len(target):
        raise not_comparable(student, teacher)
    size = [min(pair) for pair in zip(own.shape[2:], target.shape[2:], strict=True)]
    weights = position_weights(counted, (len(own), *size))
    return Compared(_resized(own, size, counted), _resized(target, size, counted), weights)


def channel_axis(value: Tensor) -> int:
    """Returns where the channels of an inner value stand: last in a sequence, which has three axes, else at 1.

    Raises:
        PenjingError: the value has no channels, or too many axes.
    """
    if not 2 <= value.ndim <= 2 + MOST_POSITIONS:
        raise PenjingError(
            f"An inner value of shape {tuple(value.shape)} can't be compared: vectors (N, channels), sequences (N, positions, "
            "channels) and maps (N, channels, positions...) with two or three axes of positions can. Name others with taps=."
        )
    return 2 if value.ndim == 3 else 1


def channels_first(value: Tensor) -> Tensor:
    """Returns an inner value as `(N, channels, positions...)`."""
    return value.movedim(channel_axis(value), 1)


def not_comparable(student: Tensor, teacher: Tensor) -> PenjingError:
    """Returns the error for two inner values that can't be brought to one shape."""
    return PenjingError(
        f"The student's inner value of shape {tuple(student.shape)} can't be compared with its teacher's of shape "
        f"{tuple(teacher.shape)}. Name values with as many samples and the same axes with taps=, or register a "
        'signal of your own that gives "hints", "blocks" or "features" its regressors=[module, …], one for each pair, which '
        "make the teacher's shape of the student's values."
    )


def unit(vectors: Tensor) -> Tensor:
    """Returns vectors over axis 1 at length 1; those without length stay zero and get no gradient."""
    lengths = vectors.norm(dim=1, keepdim=True)
    there = lengths > NO_LENGTH
    return torch.where(there, vectors, 0) / torch.where(there, lengths, 1)


class Pointwise(nn.Linear):
    """A linear map of channels that is the same at every position: a 1×1 convolution, for any number of axes."""

    def forward(self, input: Tensor) -> Tensor:
        """Returns an inner value of the same axes, with other channels."""
        axis = channel_axis(input)
        return super().forward(input.movedim(axis, -1)).movedim(-1, axis)


def regressor(student: Tensor, teacher: Tensor, *, bias: bool = True) -> nn.Module:
    """Returns what maps the student's channels to the teacher's: nothing where both have as many."""
    widths = [value.shape[channel_axis(value)] for value in (student, teacher)]
    return nn.Identity() if widths[0] == widths[1] else Pointwise(widths[0], widths[1], bias=bias).to(student)


def _resized(value: Tensor, size: Sequence[int], counted: Tensor | None) -> Tensor:
    if value.shape[2:] == torch.Size(size):
        return value
    weights = position_weights(counted, (len(value), *value.shape[2:]))
    if weights is None:
        return pooled(value, size)
    kept = weights.to(value.dtype).unsqueeze(1)
    return pooled(value * kept, size) / pooled(kept, size).clamp(min=torch.finfo(kept.dtype).eps)
