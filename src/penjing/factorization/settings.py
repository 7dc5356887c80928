"""The choices of a factorisation, as one value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penjing.capabilities import DEFAULT
from penjing.capabilities import find as find_target
from penjing.errors import PenjingError
from penjing.factorization.decompositions import Decomposition, decompositions
from penjing.factorization.decompositions import find as find_decomposition
from penjing.factorization.forms import forms
from penjing.factorization.layers import Layer
from penjing.factorization.metrics import metrics
from penjing.factorization.rank_rules import ChosenRule
from penjing.factorization.rank_rules import find as find_rule

AUTO = "auto"
"""As method: tucker2 for kernels, svd for matrices. As metric: asymmetric where there are data, else weights."""
Ranks = int | Sequence[int]
SMALLEST = 4  # steps of a multiple that a rank must be able to take, for ranks to be rounded to it


@dataclass(frozen=True)
class FactorizationSettings:
    """The arguments of `factorize` other than graph and data; `factorize` documents them."""

    method: str = AUTO
    ranks: str | Ranks | Mapping[str, Ranks] = "energy:0.9"
    metric: str = AUTO
    form: str = "chain"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    target: str = DEFAULT
    round_to: int | None = None
    batches: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        """Makes sure that all names are known.

        Raises:
            PenjingError: one isn't; the error names the nearest.
        """
        if self.method != AUTO:
            decompositions[self.method]
        if self.metric != AUTO:
            metrics[self.metric]
        if not forms[self.form].grouped and self.method != AUTO and find_decomposition(self.method).depthwise:
            raise PenjingError(f"form='{self.form}' can't execute the depthwise layers of method='{self.method}'.")
        find_target(self.target)
        if isinstance(self.ranks, str):
            find_rule(self.ranks)

    @property
    def rule(self) -> ChosenRule | None:
        """The rank rule; None where the ranks are given."""
        return find_rule(self.ranks) if isinstance(self.ranks, str) else None

    def metric_for(self, data: Any) -> str:
        """Returns the metric's name.

        Raises:
            PenjingError: the metric looks at data, and there are none.
        """
        name = self.metric if self.metric != AUTO else "asymmetric" if data is not None else "weights"
        if metrics[name].needs and data is None:
            raise PenjingError(
                f"metric='{name}' looks at data: pass data=penjing.Data(…) with a calibration or training part, or use "
                "metric='weights'."
            )
        return name

    def decomposition_for(self, layer: Layer) -> tuple[str, Decomposition]:
        """Returns the name of the decomposition for a layer, and the decomposition."""
        window = any(side > 1 for side in layer.shape[2:])
        name = ("tucker2" if window else "svd") if self.method == AUTO else self.method
        return name, find_decomposition(name)

    def step_for(self, full: Sequence[int]) -> int:
        """Returns the multiple to which the ranks of a layer are rounded."""
        if self.round_to is not None:
            return self.round_to
        fitting = (one for one in find_target(self.target).channel_multiples if SMALLEST * one <= min(full))
        return next(fitting, 1)

    def setting(self, method: str, metric: str) -> dict[str, Any]:
        """Returns what the options of all layers share, as plain JSON."""
        return {"method": method, "metric": metric, "form": self.form, "batches": self.batches, "seed": self.seed}
