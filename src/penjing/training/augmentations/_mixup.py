"""The augmentation "mixup": weighted means of two samples."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from penjing.registry import OwnNumber
from penjing.training.augmentations._registry import Augmented, augmentations


@augmentations.register(
    source="Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018, arXiv:1710.09412",
    number=OwnNumber("α of the Beta(α, α) distribution of the share", default=0.2, lowest=0.0, above=True),
    inputs="any",
    mixes=True,
)
def mixup(inputs: Sequence[Tensor], number: float, random: np.random.Generator) -> Augmented:
    """Replaces each sample by a weighted mean of itself and another: λ · x + (1 − λ) · x′, with λ ~ Beta(α, α).

    As in the authors' code, λ is drawn once for a batch, and x′ is another order of the same batch.
    """
    share = float(random.beta(number, number))
    partners = torch.from_numpy(random.permutation(len(inputs[0])))
    mixed = tuple(share * each + (1 - share) * each[partners.to(each.device)] for each in inputs)
    return Augmented(mixed, partners, share)
