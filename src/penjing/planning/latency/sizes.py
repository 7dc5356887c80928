"""Which kernels are worth measuring: the sizes that a graph's kernels could take when channels go."""

import itertools
import math
from collections.abc import Iterable, Sequence

from penjing.planning.latency.interpolation import counts_of, family_of
from penjing.planning.latency.kernels import FLOAT32, INT8, Kernel

POINTS = 3  # numbers of channels on each side of a kernel that are measured, where there are more multiples than DENSE
DENSE = 8  # multiples up to which each is measured: runtimes' kernels take steps there that matter
SMALLEST = 0.2  # of the original's channels: the smallest part that is measured where not all multiples are


def grid(
    kernels: Iterable[Kernel], step: int, numbers: Sequence[str] = (FLOAT32, INT8), points: int = POINTS
) -> list[Kernel]:
    """Returns the kernels to measure so that a table can tell the latency of any that are no wider than these.

    The kernels as they are come first, then those of other numbers of channels. Kernels that differ in channels alone share
    what is measured.

    Args:
        kernels: the kernels of a graph.
        step: the multiple in which channels go.
        numbers: the kinds of numbers to measure in.
        points: numbers of channels on each side, where there are too many multiples for all.
    """
    own = [kernel.in_numbers(kind) for kernel in dict.fromkeys(kernels) for kind in numbers]
    found: dict[tuple[Kernel, tuple[int, int]], Kernel] = {(family_of(k), counts_of(k)): k for k in own}
    for kernel in own:
        ins = [kernel.ins] if kernel.one_sided else counts(kernel.ins, step, points)
        for pair in itertools.product(ins, counts(kernel.outs, step, points)):
            other = kernel.resized(outs=pair[1]) if kernel.one_sided else kernel.resized(*pair)
            found.setdefault((family_of(other), counts_of(other)), other)
    return list(found.values())


def counts(channels: int, step: int, points: int = POINTS) -> list[int]:
    """Returns numbers of channels up to this one: all multiples, or some that are spread evenly, and the number itself.

    Numbers below one multiple, such as an image's three channels, and sizes that nothing removes are alone.
    """
    if channels <= step:
        return [channels]
    if channels <= DENSE * step:
        return sorted({*range(step, channels, step), channels})
    wide = 2 * step  # two kinds of kernels that like different multiples both like this one
    shares = (SMALLEST + (1 - SMALLEST) * at / (points - 1) for at in range(points - 1))
    return sorted({*(max(wide, math.ceil(channels * share / wide) * wide) for share in shares), channels})
