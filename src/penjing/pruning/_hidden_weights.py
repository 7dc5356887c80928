"""The values behind masks, for weights that are zero in a step and may yet return."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from penjing.graph import Graph

Masks = dict[str, Tensor]
"""By parameter name; False is gone. Parameters that keep everything need not be there."""


def masks_on_devices(graph: Graph, masks: Mapping[str, Tensor]) -> Masks:
    """Returns masks on the devices of what they mask, wherever the graph has been moved since they were made."""
    return {name: mask.to(graph.tensor(name).device) for name, mask in masks.items()}


class HiddenWeights:
    """Keeps what masks hide, and lets it learn.

    A masked entry is zero during a step, and the gradient there is that of the masked network. After the step it holds
    exactly what the optimiser made of this gradient: −lr · (gradient and its momentum), or Adam's step. Weight decay adds
    nothing, since what it shrinks is zero. So the sum of what is found there, step by step, is how the hidden value would
    have moved by the gradients alone, as dynamic network surgery wants it: no decay draws what is hidden down to where it
    can't return from. The optimiser's momentum goes on undisturbed when the entry is back.

    Targeted dropout takes no derivative with respect to what it leaves out. Then the gradient is masked too, and what is
    found after the step is the momentum of earlier steps alone.

    Attributes:
        values: what is hidden, by name and of the parameters' shapes; zero where nothing is.
        learns: whether the gradient reaches what is hidden.
    """

    def __init__(self, graph: Graph) -> None:
        """Takes a graph whose present masks are for good: nothing is kept of what they hold."""
        self._graph = graph
        self._given = dict(graph.masks)
        self._hooks: list[Any] = []
        self.values: dict[str, Tensor] = {}
        self.learns = True

    def hide(self, masks: Masks) -> None:
        """Masks the graph's weights and keeps their values; all that was hidden before must have been revealed."""
        self._graph.masks = masks_on_devices(self._graph, masks)
        self.values = {name: self._graph.tensor(name).detach() * ~mask for name, mask in self._graph.masks.items()}
        self._graph.apply_masks()

    def collect(self) -> None:
        """Adds what an optimiser's step left in the masked entries to what is hidden, and makes them zero again."""
        for name, values in self.values.items():
            left = self._graph.tensor(name).detach() * ~self._graph.masks[name]
            if name in self._given:
                left = left * self._given[name].to(left.device)
            self.values[name] = values.to(left.device) + left
        self._graph.apply_masks()

    def reveal(self) -> None:
        """Puts the values back and takes the masks away, but for those that were there at first."""
        with torch.no_grad():
            for name, values in self.values.items():
                self._graph.tensor(name).add_(values.to(self._graph.tensor(name).device))
        self.values, self._graph.masks = {}, masks_on_devices(self._graph, self._given)

    def watch(self) -> None:
        """Begins to keep gradients from what is hidden, whenever `learns` is false."""
        self._hooks = [
            parameter.register_hook(lambda gradient, name=name: self._masked(name, gradient))
            for name, parameter in self._graph.named_parameters(remove_duplicate=False)
            if parameter.requires_grad
        ]

    def release(self) -> None:
        """Leaves the graph's gradients alone for good."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _masked(self, name: str, gradient: Tensor) -> Tensor:
        return gradient if self.learns or name not in self.values else gradient * self._graph.masks[name]
