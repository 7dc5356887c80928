"""How the learning rate changes over the training."""

import math


def warmup_cosine(progress: float, warmup: float = 0.05) -> float:
    """Returns the learning rate as a share of its peak: a line from 0 to 1, then half a cosine down to 0.

    Args:
        progress: the share of the training that is done, 0 to 1.
        warmup: the share of the training that the line takes, 0 to 1.

    References:
        Loshchilov and Hutter 2017, SGDR, arXiv:1608.03983 (cosine, without restarts); Goyal et al. 2017, Accurate,
        Large Minibatch SGD, arXiv:1706.02677 (warm-up).
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
