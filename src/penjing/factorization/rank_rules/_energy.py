"""Ranks by the energy that they keep."""

from collections.abc import Sequence

import torch

from penjing.errors import PenjingError
from penjing.factorization.decompositions import Decomposition
from penjing.factorization.rank_rules._registry import rank_rules
from penjing.factorization.weighting import Weighting
from penjing.registry import OwnNumber


@rank_rules.register(
    source="Eckart and Young, 1936; Denton et al., 2014",
    number=OwnNumber(
        "share of the squared singular values that is kept", default=0.9, lowest=0.0, highest=1.0, above=True
    ),
)
def energy(decomposition: Decomposition, weighting: Weighting, stride: Sequence[int], share: float) -> tuple[int, ...]:
    """The least ranks that keep this share of the squared singular values, along each rank by itself.

    Raises:
        PenjingError: the decomposition has no singular values.
    """
    return tuple(_count(values, share) for values in spectra(decomposition, weighting, "energy"))


def spectra(decomposition: Decomposition, weighting: Weighting, rule: str) -> tuple[torch.Tensor, ...]:
    """Returns the singular values by which a rule chooses.

    Raises:
        PenjingError: the decomposition has none.
    """
    found = decomposition.spectra(weighting)
    if found is None:
        name = type(decomposition).__name__.lower()
        raise PenjingError(
            f"ranks='{rule}' chooses by singular values, which the decomposition {name} hasn't: use 'speedup:2' or "
            "'ratio:0.5', or give ranks."
        )
    return found


def _count(values: torch.Tensor, share: float) -> int:
    kept = values.square().cumsum(0)
    if float(kept[-1]) == 0:
        return 1
    return min(len(values), 1 + int((kept < share * kept[-1] * (1 - 1e-12)).sum()))
