"""Fewer and fewer bits in the course of a training."""

from collections.abc import Sequence

from penjing.errors import PenjingError
from penjing.quantization.grids import integers

SLACK = 1e-9  # (k / n) · n may be just below k


def bits_at(progress: float, bits: int, stages: Sequence[int]) -> int:
    """Returns how many bits a weight has at this point (Zhuang et al. 2018, progressive quantisation, arXiv:1711.00205).

    Each stage with more bits than the weight gets in the end, and the end itself, has an equal share of the training.

    Args:
        progress: share of the training that is done.
        bits: of the weight in the end.
        stages: bits before that, falling.
    """
    course = [*(stage for stage in stages if stage > bits), bits]
    return course[min(int(progress * len(course) + SLACK), len(course) - 1)]


def check_stages(stages: Sequence[int]) -> tuple[int, ...]:
    """Returns the stages.

    Raises:
        PenjingError: they don't fall, or an integer has no such number of bits.
    """
    found = tuple(stages)
    for bits in found:
        integers(f"int{bits}")
    if list(found) != sorted(set(found), reverse=True):
        raise PenjingError(f"The bits in stages={found} must fall from each stage to the next.")
    return found
