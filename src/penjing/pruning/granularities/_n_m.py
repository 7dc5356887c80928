"""N of every M weights in sequence stay; sparse matrix units of GPUs skip the others."""

import re
from collections.abc import Sequence

from torch import Tensor

from penjing.errors import PenjingError
from penjing.pruning.granularities._registry import granularities


def _read(name: str) -> dict[str, int] | None:
    found = re.fullmatch(r"(\d+):(\d+)", name)
    if found is None:
        return None
    n, m = map(int, found.groups())
    if not 0 < n <= m:
        raise PenjingError(
            f"granularity='{name}' keeps {n} of every {m} weights: the first number must be from 1 to {m}."
        )
    return {"n": n, "m": m}


def _strongest(saliency: Sequence[Tensor], shapes: Sequence[tuple[int, ...]], n: int, m: int) -> list[Tensor]:
    """Returns which rows stay, as booleans `(rows,)` for each weight: the n largest of every m."""
    ranks = [values.reshape(-1, m).argsort(dim=1, stable=True).argsort(dim=1) for values in saliency]
    return [(rank >= m - n).flatten() for rank in ranks]


@granularities.register(
    source="Mishra et al., Accelerating Sparse Deep Neural Networks, 2021; Zhou et al., Learning N:M, 2021",
    name="n:m",
    removes="weights",
    read=_read,
    stays=_strongest,
    keeps=lambda n, m: (n, m),
    example="2:4",
)
def n_m(weight: Tensor, n: int, m: int) -> Tensor | None:
    """N:M sparsity ("2:4", "1:4", …): n of every m weights along the input channels stay; the name is the amount."""
    return weight.movedim(1, -1).reshape(-1, 1) if weight.shape[1] % m == 0 else None
