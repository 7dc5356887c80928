import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.graph import capture, channels
from penjing.pruning import criteria, prune
from penjing.pruning._selection import Selection
from penjing.pruning.allocations._registry import find as find_allocation
from penjing.pruning.granularities._registry import find
from penjing.tasks import Unlabelled


def scores(graph, criterion, data=None, seed=0):
    found = channels(graph)
    evidence = Evidence(graph, found.groups, data, 16, seed, channels=found)
    wanted = Selection(0.5, criteria[criterion], find("filter"), find_allocation("uniform"))
    return wanted.scores(evidence, wanted.saliency(evidence).saliency)


def weights(graph, *names):
    return [graph.tensor(name).detach().double().numpy() for name in names]


# One test over every entry: whatever is registered keeps these.


@pytest.mark.parametrize("name", criteria)
def test_every_criterion_gives_one_finite_score_per_unit(name, chain, data):
    found = scores(chain, name, data)
    assert [len(score) for score in found] == [group.units for group in channels(chain).groups] == [6, 8]
    assert all(torch.isfinite(score).all() and score.is_floating_point() for score in found)
    assert all(len(set(score.tolist())) > 1 for score in found)


@pytest.mark.parametrize("name", criteria)
def test_every_criterion_is_repeatable_and_leaves_the_graph_as_it_was(name, chain, data):
    before = {key: value.clone() for key, value in chain.tensors().items()}
    first, again = scores(chain, name, data), scores(chain, name, data)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(value, before[key]) for key, value in chain.tensors().items())
    assert all(parameter.grad is None for parameter in chain.parameters()) and not chain.training


@pytest.mark.parametrize("name", criteria)
def test_every_criterion_leaves_the_callers_random_numbers_alone(name, chain, data):
    before = torch.random.get_rng_state()
    scores(chain, name, data)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", criteria)
def test_every_criterion_scores_a_frozen_network_and_where_gradients_are_off(name, chain, data):
    frozen = copy.deepcopy(chain).requires_grad_(False)
    wanted = prune(chain, 0.5, criterion=name, data=data)
    with torch.no_grad():
        found = prune(frozen, 0.5, criterion=name, data=data)
    assert all(torch.allclose(value, wanted.tensor(path)) for path, value in found.tensors().items())
    assert not any(parameter.requires_grad for parameter in found.parameters())


@pytest.mark.parametrize("name", ["nisp", "synflow"])
def test_casts_in_a_model_change_no_score(name, data):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 3)

        def forward(self, x):
            x = torch.relu(self.conv(x))
            return self.fc((x.float() if self.casts else x).mean((2, 3)))

    torch.manual_seed(0)
    net, found = Net().eval(), []
    for net.casts in (False, True):
        found += scores(capture(net, data.train[0][0]), name, data)
    assert torch.equal(*found)


@pytest.mark.parametrize("name", [name for name in criteria if name != "l2"])
def test_every_criterion_ranks_the_channels_of_a_resnet_otherwise_than_l2(name, resnet, small_images):
    found, again, by_norm = (scores(resnet, one, small_images) for one in (name, name, "l2"))
    assert all(torch.isfinite(score).all() for score in found)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    different = [
        not torch.equal(a.argsort(stable=True), b.argsort(stable=True)) for a, b in zip(found, by_norm, strict=True)
    ]
    assert len(different) == 12 and sum(different) >= 11


@pytest.mark.parametrize("name", [name for name, entry in criteria.items() if entry.needs - {"training"}])
def test_every_criterion_that_needs_data_fails_without(name, chain, data):
    with pytest.raises(PenjingError, match=f"'{name}' needs data: pass data="):
        prune(chain, 0.5, criterion=name)
    nothing = Data(None, None, data.train, data.task)
    with pytest.raises(PenjingError, match=r"data\.(train|calibration) or"):
        prune(chain, 0.5, criterion=name, data=nothing)
    if criteria[name].needs & {"labels", "gradients"}:
        unlabelled = Data(None, [(batch[0],) for batch in data.train], None, Unlabelled())
        with pytest.raises(PenjingError, match="labelled data"):
            prune(chain, 0.5, criterion=name, data=unlabelled)


@pytest.mark.parametrize("name", ["taylor", "fisher", "hrank", "thinet", "sss", "grasp"])
def test_data_without_batches_is_an_error(name, chain, data):
    with pytest.raises(PenjingError, match="no batches"):
        prune(chain, 0.5, criterion=name, data=Data([], [], None, data.task))


@pytest.mark.parametrize("batches", [0, -1])
def test_looking_at_no_batch_is_an_error(batches, chain, data):
    with pytest.raises(PenjingError, match=r"batches=.*: it must be a whole number from 1"):
        prune(chain, 0.5, criterion="taylor", data=data, batches=batches)


def test_values_on_another_device_are_summed_per_unit(chain):
    """Fake tensors tell apart devices that this machine needn't have."""
    groups = channels(chain).groups
    evidence = Evidence(chain, groups, None, 1, 0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for group in groups:
            for entry in group.entries:
                values = torch.ones(chain.tensor(entry.tensor).shape, device="cuda")
                found = torch.zeros(group.units) + evidence.per_unit(values, entry)
                assert found.shape == (group.units,) and found.device.type == "cpu"


@pytest.mark.parametrize("name", criteria)
def test_every_criterion_says_where_it_comes_from(name):
    entry = criteria[name]
    assert entry.source and entry.summary.endswith((".", "them", "unit", "it", "seed"))
    assert entry.needs <= {"data", "labels", "gradients", "training"}


# Each against its formula.


def test_l1_sums_magnitudes_over_all_weights_that_make_a_unit(chain, stream):
    one, two = weights(chain, "conv1.weight", "conv2.weight")
    for score, weight in zip(scores(chain, "l1"), (one, two), strict=True):
        np.testing.assert_allclose(score, np.abs(weight).sum((1, 2, 3)), rtol=1e-5)
    first, second = weights(stream, "first.weight", "second.weight")
    (score,) = scores(stream, "l1")
    np.testing.assert_allclose(score, np.abs(first).sum((1, 2, 3)) + np.abs(second).sum((1, 2, 3)), rtol=1e-5)


def test_l2_is_the_norm_of_all_weights_that_make_a_unit(chain, stream):
    (weight,) = weights(chain, "conv2.weight")
    np.testing.assert_allclose(scores(chain, "l2")[1], np.linalg.norm(weight.reshape(8, -1), axis=1), rtol=1e-5)
    both = np.concatenate([w.reshape(6, -1) for w in weights(stream, "first.weight", "second.weight")], axis=1)
    np.testing.assert_allclose(scores(stream, "l2")[0], np.linalg.norm(both, axis=1), rtol=1e-5)


def test_bn_scale_is_the_magnitude_of_gamma(chain):
    for score, name in zip(scores(chain, "bn_scale"), ("bn1.weight", "bn2.weight"), strict=True):
        np.testing.assert_allclose(score, np.abs(weights(chain, name)[0]), rtol=1e-6)


def test_bn_scale_without_a_norm_is_an_error_that_names_the_channels(stream):
    with pytest.raises(PenjingError, match="bn_scale needs a norm with a scale behind first"):
        prune(stream, 0.5, criterion="bn_scale")


def test_taylor_is_the_squared_gradient_of_a_gate_on_each_channel(chain, chain_model, data):
    expected = [torch.zeros(6), torch.zeros(8)]
    for x, y in data.train:
        gates = [torch.ones(6, requires_grad=True), torch.ones(8, requires_grad=True)]
        inner = chain_model.bn1(chain_model.conv1(x)) * gates[0][:, None, None]
        inner = chain_model.bn2(chain_model.conv2(torch.relu(inner))) * gates[1][:, None, None]
        loss = F.cross_entropy(chain_model.head(torch.relu(inner).mean((2, 3))), y)
        for total, slope in zip(expected, torch.autograd.grad(loss, gates), strict=True):
            total += slope**2 / len(data.train)
    for score, wanted in zip(scores(chain, "taylor", data), expected, strict=True):
        torch.testing.assert_close(score, wanted, rtol=1e-3, atol=1e-9)


def test_taylor_without_a_norm_takes_weights_and_biases(stream, data):
    model = copy.deepcopy(stream)
    expected = torch.zeros(6)
    for x, y in data.train:
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        change = torch.zeros(6)
        for name in ("first", "second"):
            weight, bias = model.tensor(f"{name}.weight"), model.tensor(f"{name}.bias")
            change += (weight * weight.grad).detach().sum((1, 2, 3)) + (bias * bias.grad).detach()
        expected += change**2 / len(data.train)
    torch.testing.assert_close(scores(stream, "taylor", data)[0], expected, rtol=1e-3, atol=1e-9)


def test_random_follows_the_seed(chain):
    first, other = scores(chain, "random", seed=1), scores(chain, "random", seed=2)
    assert not torch.equal(first[0], other[0])


# What can't be scored.


def test_a_criterion_that_needs_data_says_so(chain, data):
    with pytest.raises(PenjingError, match=r"'taylor' needs data: pass data="):
        prune(chain, 0.5, criterion="taylor")
    unlabelled = Data(None, [(batch[0],) for batch in data.train], None, Unlabelled())
    with pytest.raises(PenjingError, match="labelled data"):
        prune(chain, 0.5, criterion="taylor", data=unlabelled)
    with pytest.raises(PenjingError, match=r"data\.train or a labelled data\.calibration"):
        prune(chain, 0.5, criterion="taylor", data=Data(None, None, data.train, data.task))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_an_error(chain, value):
    broken = copy.deepcopy(chain)
    with torch.no_grad():
        broken.tensor("conv2.weight")[0, 0, 0, 0] = value
    with pytest.raises(PenjingError, match=r"'l1' gives scores that aren't numbers for conv2"):
        prune(broken, 0.5, criterion="l1")


@pytest.mark.parametrize("criterion", ["l2", "sss"])
def test_scores_of_branches_that_are_no_numbers_are_an_error_that_names_the_branch(criterion, residual, residual_data):
    broken = copy.deepcopy(residual)
    with torch.no_grad():
        broken.tensor("blocks.2.0.weight")[0, 0] = float("nan")
    with pytest.raises(PenjingError, match=rf"'{criterion}' gives scores that aren't numbers for blocks\.\d"):
        prune(broken, 0.5, criterion=criterion, granularity="layer", data=residual_data)


@pytest.mark.parametrize("granularity", ["element", "kernel", "1:2"])
def test_scores_of_weights_that_are_no_numbers_are_an_error_that_names_the_layer(granularity, chain):
    broken = copy.deepcopy(chain)
    with torch.no_grad():
        broken.tensor("conv2.weight")[0, 0, 0, 0] = float("nan")
    amount = None if granularity == "1:2" else 0.5
    with pytest.raises(PenjingError, match=r"'l2' gives scores that aren't numbers for conv2"):
        prune(broken, amount, granularity=granularity, include=["conv2"])


@pytest.mark.parametrize("criterion", ["taylor", "fisher", "attention", "adversarial", "activation_mean"])
def test_scores_of_units_that_are_no_numbers_are_an_error_that_names_the_group(criterion, chain, data):
    broken = copy.deepcopy(chain)
    with torch.no_grad():
        broken.tensor("bn2.weight")[3] = float("nan")
    with pytest.raises(PenjingError, match=rf"'{criterion}' gives scores that aren't numbers for conv\d"):
        prune(broken, 0.5, criterion=criterion, data=data)


@pytest.mark.parametrize(("criterion", "reader"), [("nisp", "head"), ("lasso", "head"), ("thinet", "head")])
def test_values_that_are_no_numbers_are_an_error_that_names_the_layer_that_reads_them(criterion, reader, chain, data):
    broken = copy.deepcopy(chain)
    with torch.no_grad():
        broken.tensor("bn2.weight")[3] = float("nan")
    with pytest.raises(PenjingError, match=f"On this data {reader} reads values that aren't finite numbers"):
        prune(broken, 0.5, criterion=criterion, data=data)
