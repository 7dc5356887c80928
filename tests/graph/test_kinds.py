"""The oracle for networks with the norms that they come with: those count the channels that are left."""

import copy

import numpy as np
import pytest
import torch
from oracle import share_left, some_units, zeroed
from torch import nn

from networks.kinds import WeightStandardised, kinds
from penjing.graph import capture, channels, remove
from penjing.graph.capture.verify import close

aten = torch.ops.aten
NAMES = list(kinds())


def kept(weight, groups=1):
    """Which channels an oracle has left, in groups: it zeroes the scales of the others."""
    return (weight != 0).double().view(groups, -1)


def normalised(x, kept, eps, centred=True):
    """x: (…, groups, places): norms over what is kept."""
    count = kept.sum(-1, keepdim=True)
    mean = (x * kept).sum(-1, keepdim=True) / count if centred else 0
    square = ((x - mean).square() * kept).sum(-1, keepdim=True) / count
    return (x - mean) / (square + eps).sqrt()


def layer_norm(x, shape, weight, bias, eps=1e-5, *_):
    return normalised(x, kept(weight)[0], eps) * weight + bias


def rms_norm(x, shape, weight, eps=None):
    return normalised(x, kept(weight)[0], eps or torch.finfo(x.dtype).eps, centred=False) * weight


def group_norm(x, groups, weight, bias, eps=1e-5, *_):
    places = x[0, 0].numel()
    mask = kept(weight, groups).repeat_interleave(places, 1)
    y = normalised(x.reshape(len(x), groups, -1), mask, eps).view_as(x)
    shape = (1, -1, *[1] * (x.dim() - 2))
    return y * weight.view(shape) + bias.view(shape)


COUNTING = {aten.layer_norm.default: layer_norm, aten.rms_norm.default: rms_norm, aten.group_norm.default: group_norm}


def counting(graph):
    """Returns the graph with norms that count the channels that aren't zeroed."""
    graph = copy.deepcopy(graph)
    for node in graph.program.graph.nodes:
        node.target = COUNTING.get(node.target, node.target)
    graph.program.recompile()
    return graph


def randomised(model):
    """Gives all scales, shifts and statistics values that a trained network might have, none of them zero."""
    for module in model.modules():
        if isinstance(getattr(module, "weight", None), nn.Parameter) and module.weight.dim() == 1:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            if getattr(module, "bias", None) is not None:
                nn.init.normal_(module.bias)
        if isinstance(getattr(module, "running_mean", None), torch.Tensor):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.double().eval()


@pytest.mark.parametrize("name", NAMES)
def test_removing_units_of_any_group_is_zeroing_them_where_norms_count_what_is_left(name):
    torch.manual_seed(0)
    model, x = kinds()[name]
    x = x.double() if x.is_floating_point() else x
    graph = capture(randomised(model), x)
    larger = torch.cat([x, x.flip(0)[:1]])
    assert close(counting(graph)(x), graph(x), 1e-6)
    found = channels(graph)
    gone = {i: some_units(group, i) for i, group in enumerate(found.groups) if group.units > 1}
    everything = graph
    for position, units in gone.items():
        group = found.groups[position]
        expected = counting(zeroed(graph, group, units))
        assert close(remove(graph, found, {position: units})(x), expected(x), 1e-4), group.name
        everything = zeroed(everything, group, units)
    small = remove(graph, found, gone)
    assert close(small(larger), counting(everything)(larger), 1e-4)
    assert share_left(graph, small) < 0.55  # depthwise filters and classifiers shrink by half, the rest by more


def test_a_standardised_weight_is_cut_as_the_model_computed_it():
    torch.manual_seed(0)
    x = torch.randn(3, 3, 8, 8)
    graph = capture(WeightStandardised().eval(), x)
    found = channels(graph)
    assert sorted(group.units for group in found.groups) == [6, 8]
    gone = {i: np.arange(group.units // 2) for i, group in enumerate(found.groups)}
    everything = graph
    for position, units in gone.items():
        everything = zeroed(everything, found.groups[position], units)
    assert close(remove(graph, found, gone)(x), everything(x), 1e-5)
