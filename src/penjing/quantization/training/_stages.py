"""Lowers the number of bits in stages in the course of a training."""

from collections.abc import Sequence

from penjing.errors import PenjingError
from penjing.quantization.grids import integers

SLACK = 1e-9  # stages; (k / n) · n may be just below k in floating point


def bits_at(progress: float, bits: int, stages: Sequence[int]) -> int:
    """Returns how many bits a weight has at this point (Zhuang et al. 2018, progressive quantisation, arXiv:1711.00205).

    The training is divided equally among the stages that have more bits than the weight in the end, and the end itself.

    Args:
        progress: share of the training that is done, 0 to 1.
        bits: bits of the weight in the end.
        stages: bits of the earlier stages, each fewer than the one before.
    """
    used = [*(stage for stage in stages if stage > bits), bits]
    return used[min(int(progress * len(used) + SLACK), len(used) - 1)]


def check_stages(stages: Sequence[int]) -> tuple[int, ...]:
    """Checks the numbers of bits of the stages, and returns them as a tuple.

    Raises:
        PenjingError: the numbers don't fall from stage to stage, or no integer grid has one of them.
    """
    found = tuple(stages)
    for bits in found:
        integers(f"int{bits}")
    if list(found) != sorted(set(found), reverse=True):
        raise PenjingError(f"The bits in stages={found} must fall from each stage to the next.")
    return found
