"""The values behind masks, for weights that are zero in a step and may yet return."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from penjing.graph import Graph

Masks = dict[str, Tensor]
"""Masks of the parameters' shapes, by parameter name: False where a weight is pruned. A parameter without a mask keeps all."""


def masks_on_devices(graph: Graph, masks: Mapping[str, Tensor]) -> Masks:
    """Returns masks on the devices of the parameters that they mask: the graph may have been moved since."""
    return {name: mask.to(graph.tensor(name).device) for name, mask in masks.items()}


class HiddenWeights:
    """Keeps the values of weights that masks hide, and lets these values learn.

    A masked entry is zero during a step, and its gradient is that of the masked network. After the step the entry holds
    exactly the optimiser's update for this gradient: −lr · (gradient and its momentum), or Adam's step. Weight decay adds
    nothing, since the entry that it shrinks is zero. The updates of all steps add up to the way that the hidden value
    would have moved by gradients alone. Dynamic network surgery (Guo et al., 2016) wants this: no decay pulls a hidden
    value down so far that it can't return. When an entry is shown again, the optimiser's momentum goes on undisturbed.

    Targeted dropout takes no derivative with respect to dropped weights. With it the gradient is masked, too, and a masked
    entry holds only the momentum of earlier steps after a step.

    Attributes:
        values: the hidden values, by parameter name and of the parameters' shapes; zero where nothing is hidden.
        learns: whether gradients reach the hidden values.
    """

    def __init__(self, graph: Graph) -> None:
        """Takes a graph. The masks that it already has are permanent: the weights under them are not kept."""
        self._graph = graph
        self._given = dict(graph.masks)
        self._hooks: list[Any] = []
        self.values: dict[str, Tensor] = {}
        self.learns = True

    def hide(self, masks: Masks) -> None:
        """Masks the graph's weights and keeps their values. Nothing may be hidden yet: call `reveal` first."""
        self._graph.masks = masks_on_devices(self._graph, masks)
        self.values = {name: self._graph.tensor(name).detach() * ~mask for name, mask in self._graph.masks.items()}
        self._graph.apply_masks()

    def collect(self) -> None:
        """Adds the update that an optimiser's step left in masked entries to the hidden values, and zeroes the entries."""
        for name, values in self.values.items():
            left = self._graph.tensor(name).detach() * ~self._graph.masks[name]
            if name in self._given:
                left = left * self._given[name].to(left.device)
            self.values[name] = values.to(left.device) + left
        self._graph.apply_masks()

    def reveal(self) -> None:
        """Puts the hidden values back and removes all masks but those that the graph had at first."""
        with torch.no_grad():
            for name, values in self.values.items():
                self._graph.tensor(name).add_(values.to(self._graph.tensor(name).device))
        self.values, self._graph.masks = {}, masks_on_devices(self._graph, self._given)

    def watch(self) -> None:
        """Adds hooks that keep gradients from hidden values whenever `learns` is false."""
        self._hooks = [
            parameter.register_hook(lambda gradient, name=name: self._masked(name, gradient))
            for name, parameter in self._graph.named_parameters(remove_duplicate=False)
            if parameter.requires_grad
        ]

    def release(self) -> None:
        """Removes the hooks that `watch` added."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _masked(self, name: str, gradient: Tensor) -> Tensor:
        return gradient if self.learns or name not in self.values else gradient * self._graph.masks[name]
