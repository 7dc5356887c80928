"""A running average of the weights that a training goes through, which is often better than the last of them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from penjing.distillation.pairs import wide
from penjing.errors import PenjingError
from penjing.training.batch_norms import running_statistics


class Average:
    """The exponential moving average of what changes from step to step: trained parameters, and batch norms' statistics.

        average ← d · average + (1 − d) · weights,  d = min(decay, (1 + t) / (10 + t)) behind step t = 2, 3, …

    It begins with the weights behind the first step. The smaller d of early steps is that of TensorFlow's
    `ExponentialMovingAverage(num_updates=t)`: so the average soon forgets where the training began, and in a training that is
    short beside 1 / (1 − decay) it is one over about the last tenth of the steps. Other buffers, such as scales that a callback
    computes of the weights, aren't averaged.

    References:
        Polyak and Juditsky 1992, Acceleration of Stochastic Approximation by Averaging; Kingma and Ba 2015, Adam, section 7.2,
        arXiv:1412.6980 (with weights that fall exponentially).
    """

    def __init__(self, decay: float) -> None:
        """Takes the largest share of the average that stays at a step, between 0 and 1."""
        self.decay, self.steps = decay, 0
        self._averages: dict[str, Tensor] = {}

    def update(self, graph: nn.Module) -> None:
        """Takes in the weights behind a step.

        Raises:
            PenjingError: the graph has other weights than behind the step before.
        """
        weights = {name: wide(tensor.detach()) for name, tensor in _changing(graph).items()}
        self.steps += 1
        if self.steps == 1:
            self._averages = {name: tensor.clone() for name, tensor in weights.items()}
            return
        if {name: tensor.shape for name, tensor in weights.items()} != {n: a.shape for n, a in self._averages.items()}:
            raise PenjingError(
                "The graph's weights changed their names or shapes while it was trained: leave ema=… out."
            )
        self._averages = {name: self._averages[name].to(tensor.device) for name, tensor in weights.items()}
        kept = min(self.decay, (1 + self.steps) / (10 + self.steps))
        get_ema_multi_avg_fn(kept)(list(self._averages.values()), list(weights.values()), None)

    def write_into(self, graph: nn.Module) -> None:
        """Gives the graph the average in place of its weights; before the first step, it leaves the graph alone."""
        with torch.no_grad():
            for name, tensor in _changing(graph).items() if self.steps else ():
                tensor.copy_(self._averages[name])

    def state_dict(self) -> dict[str, Any]:
        """Returns the average, and the number of steps that it was taken over."""
        return {"steps": self.steps, "averages": dict(self._averages)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with the average that `state_dict` returned.

        Raises:
            PenjingError: the state is that of something else.
        """
        if state.keys() != {"steps", "averages"}:
            raise PenjingError("It holds no average of weights where one is expected.")
        self.steps, self._averages = state["steps"], dict(state["averages"])


def _changing(graph: nn.Module) -> dict[str, Tensor]:
    """Returns the tensors that a training changes by itself, each once: trained parameters and running statistics."""
    statistics = {id(tensor) for tensor in running_statistics(graph)}
    trained = {name: parameter.data for name, parameter in graph.named_parameters() if parameter.requires_grad}
    return trained | {name: buffer for name, buffer in graph.named_buffers() if id(buffer) in statistics}
