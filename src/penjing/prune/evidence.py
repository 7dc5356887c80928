"""What a criterion may look at: the graph, its groups of channels, and passes over data, each done once."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import Branch, Entry, Graph, Group


@dataclass(frozen=True)
class Evidence:
    """The material that saliencies are computed from.

    Attributes:
        graph: the graph to prune; criteria must not change it.
        groups: its groups of removable units.
        data: what it was trained on, or None.
        batches: how many batches of data a pass looks at.
        seed: for criteria that draw random numbers.
        branches: its residual branches, where these are what is pruned.
        weights: names of its weights, where single ones are what is pruned.
    """

    graph: Graph
    groups: tuple[Group, ...]
    data: Data | None
    batches: int
    seed: int
    branches: tuple[Branch, ...] = ()
    weights: tuple[str, ...] = ()

    def gradients(self) -> Iterator[Callable[[str], Tensor | None]]:
        """Yields, for each batch, a function from a parameter's name to the gradient of the task's loss there.

        The model runs in evaluation mode, on the training data, or on calibration data where that is labelled.

        Raises:
            PenjingError: there is no labelled data.
        """
        if self.data is None or not self.data.task.labelled:
            raise PenjingError("This criterion needs gradients of the task's loss: pass labelled data with data=….")
        loader = self.data.train if self.data.train is not None else self.data.calibration
        if loader is None:
            raise PenjingError("This criterion needs data.train or a labelled data.calibration, and both are None.")
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(0)
        model = copy.deepcopy(self.graph).eval()
        device = next(model.parameters()).device
        with torch.random.fork_rng():  # a loader may draw from the global generator, which is the caller's
            torch.manual_seed(self.seed)
            for batch in islice(loader, self.batches):
                inputs, targets = self.data.task.split(batch)
                if targets is None:
                    raise PenjingError("This criterion needs labels, and the batches hold none.")
                model.zero_grad()
                outputs = model(*(x.to(device) for x in inputs))
                self.data.task.loss(outputs, targets.to(device)).backward()
                yield lambda name: model.tensor(name).grad

    def per_unit(self, values: Tensor, entry: Entry) -> Tensor:
        """Sums values of one tensor's entries over each unit's share of it.

        Args:
            values: of the shape of the tensor `entry.tensor`.
            entry: where the units stand in it.

        Returns:
            Tensor `(units,)` on the CPU, where scores of all groups are compared.
        """
        along = values.transpose(0, entry.axis).flatten(1).sum(1) if values.dim() > 1 else values
        return along.cpu()[torch.from_numpy(entry.indices)].sum(1)
