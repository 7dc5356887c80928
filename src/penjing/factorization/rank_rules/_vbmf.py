"""Ranks by variational Bayes."""

import math
from collections.abc import Sequence

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from penjing.factorization.decompositions import Decomposition
from penjing.factorization.rank_rules._energy import spectra
from penjing.factorization.rank_rules._registry import rank_rules
from penjing.factorization.weighting import Weighting

THRESHOLD = 2.5129  # times √α: the root that Nakajima et al. give for the threshold of the noise


@rank_rules.register(
    source="Nakajima, Sugiyama, Babacan, Tomioka, Global Analytic Solution of Fully-observed Variational Bayesian Matrix "
    "Factorization, JMLR 2013; as a rank rule: Kim et al., 2016"
)
def vbmf(decomposition: Decomposition, weighting: Weighting, stride: Sequence[int], number: float) -> tuple[int, ...]:
    """The number of singular values that stand out from noise, by the analytic solution of empirical variational Bayes.

    At least 1. The noise's variance is found from the singular values, too.

    Raises:
        PenjingError: the decomposition has no singular values.
    """
    total = weighting.weight.numel()
    return tuple(max(1, rank_of(values, total // len(values))) for values in spectra(decomposition, weighting, "vbmf"))


def rank_of(values: Tensor, longer: int) -> int:
    """Returns how many singular values of a matrix variational Bayes takes for signal.

    Args:
        values: all singular values, falling; as many as the matrix's shorter side is long.
        longer: the length of the matrix's longer side.
    """
    shorter = len(values)
    squares = values.double().square()
    if float(squares.sum()) == 0:
        return 0
    alpha = shorter / longer
    tau = THRESHOLD * math.sqrt(alpha)
    least = (1 + tau) * (
        1 + alpha / tau
    )  # x̲: squared singular values over (longer · variance), from which they are signal
    most = min(math.ceil(shorter / (1 + alpha)) - 1, shorter - 1)  # signals at most
    upper = float(squares.sum()) / (shorter * longer)
    lower = max(float(squares[most]) / (longer * least), float(squares[most:].mean()) / longer)
    if lower >= upper:
        variance = upper
    else:
        found = minimize_scalar(
            lambda s: _free_energy(s, squares, longer, alpha, least), bounds=(lower, upper), method="bounded"
        )
        variance = float(found.x)
    return int((squares > longer * variance * least).sum())


def _free_energy(variance: float, squares: Tensor, longer: int, alpha: float, least: float) -> float:
    """Returns Ω(σ²), the free energy of the noise's variance up to a factor and a constant."""
    x = (squares / (longer * variance)).clamp_min(torch.finfo(torch.float64).tiny)
    total = float((x - x.log()).sum())
    signal = x[x > least]
    tau = 0.5 * (signal - (1 + alpha) + ((signal - (1 + alpha)).square() - 4 * alpha).clamp_min(0).sqrt())
    return total + float(((tau + 1).log() + alpha * (tau / alpha + 1).log() - tau).sum())
