"""Criteria that train gates, and that look at attacked inputs."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import nn
from torch.nn import functional as F

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.evidence.feature_maps import GroupValue
from penjing.graph import branches, capture, channels, remove_branches
from penjing.pruning import criteria, prune
from penjing.pruning.criteria._adversarial import RADIUS, attacked
from penjing.pruning.criteria._attention import Attention
from penjing.pruning.criteria._sss import MOMENTUM, RATE, SPARSITY, step
from penjing.tasks import Classification


def evidence(graph, data, epochs=None, batches=16):
    found = channels(graph)
    return Evidence(graph, found.groups, data, batches, 0, channels=found, epochs=epochs)


# Sparse structure selection


def test_steps_of_the_accelerated_proximal_gradient_end_at_scikit_learns_lasso():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 8))
    targets = inputs @ np.array([2.0, -1.0, 0.5, 0, 0, 0, 0, 0]) + 0.1 * rng.normal(size=60)
    expected = Lasso(alpha=0.1, fit_intercept=False, tol=1e-12, max_iter=100000).fit(inputs, targets).coef_
    factor, speed = torch.ones(8, dtype=torch.double), torch.zeros(8, dtype=torch.double)
    for _ in range(2000):
        slope = torch.from_numpy(inputs.T @ (inputs @ factor.numpy() - targets) / 60)
        factor, speed = step(factor, speed, slope, 0.02, 0.1)
    np.testing.assert_allclose(factor, expected, atol=1e-6)
    assert 0 < (expected == 0).sum() < 8


def test_sss_follows_the_gradients_of_gates_step_by_step(chain, chain_model, data):
    gates = [torch.ones(6, requires_grad=True), torch.ones(8, requires_grad=True)]
    speeds, ways = [torch.zeros(6), torch.zeros(8)], [torch.zeros(6), torch.zeros(8)]
    for x, y in list(data.train) * 2:
        inner = torch.relu(chain_model.bn1(chain_model.conv1(x)) * gates[0][:, None, None])
        inner = torch.relu(chain_model.bn2(chain_model.conv2(inner)) * gates[1][:, None, None])
        slopes = torch.autograd.grad(F.cross_entropy(chain_model.head(inner.mean((2, 3))), y), gates)
        for i, slope in enumerate(slopes):
            with torch.no_grad():
                moved = gates[i] - RATE * slope
                moved = moved.sign() * (moved.abs() - RATE * SPARSITY).clamp_min(0)
                speeds[i] = moved - gates[i] + MOMENTUM * speeds[i]
                gates[i].copy_(moved + MOMENTUM * speeds[i])
                ways[i] += gates[i].abs() / 6
    found = criteria["sss"].function(evidence(chain, data, epochs=2))
    for score, gate, way in zip(found, gates, ways, strict=True):
        torch.testing.assert_close(score, gate.detach().abs() + 1e-3 * way, rtol=1e-4, atol=1e-6)


class Blocks(nn.Module):
    """Four residual branches."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6)) for _ in range(4))
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


@pytest.mark.parametrize("superfluous", [0, 2])
def test_sss_takes_the_branch_whose_absence_exhaustive_search_finds_to_hurt_least(superfluous):
    """The classes are what the network would say without one of its branches."""
    torch.manual_seed(superfluous)
    graph = capture(Blocks().eval(), torch.randn(2, 6))
    found = branches(graph)
    true = remove_branches(graph, [found[superfluous]])
    batches = [(x, true(x).argmax(1)) for x in torch.randn(8, 64, 6)]
    data = Data(batches, None, None, Classification(4))

    def loss(branch):
        small = remove_branches(graph, [branch])
        with torch.no_grad():
            return float(sum(data.task.loss(small(x), y) for x, y in batches))

    small = prune(graph, 0.25, criterion="sss", granularity="layer", data=data)
    assert [step.place.path for step in small.plan] == [min(found, key=loss).name] == [f"blocks.{superfluous}"]


def test_sss_scores_no_single_weights_and_other_criteria_of_units_no_branches(chain, data, residual, residual_data):
    with pytest.raises(PenjingError, match="'sss' scores single channels, not single weights"):
        prune(chain, 0.5, criterion="sss", granularity="element", data=data)
    with pytest.raises(PenjingError, match=r"'fisher' scores single channels, not whole branches; .* works with .*sss"):
        prune(residual, 0.5, criterion="fisher", granularity="layer", data=residual_data)


# Attention


def site(axis, batch, indices):
    return GroupValue("node", axis, np.array(indices), batch)


@pytest.mark.parametrize(("axis", "batch", "shape"), [(1, 0, (3, 5, 2, 2)), (2, 1, (4, 3, 5)), (1, None, (12, 5))])
def test_attention_multiplies_the_channels_of_each_sample_by_squeeze_and_excitation(axis, batch, shape):
    module = Attention(site(axis, batch, [[4], [0], [2]]), 3, torch.device("cpu"), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in module.parameters:
            parameter.copy_(torch.randn(parameter.shape))
    value = torch.randn(shape)
    samples = value.movedim((batch or 0, axis), (0, 1)).flatten(2) if value.dim() > 2 else value[:, :, None]
    one, one_bias, two, two_bias = module.parameters
    expected = samples.clone()
    for i, sample in enumerate(samples):
        means = sample[[4, 0, 2]].mean(1)
        given = torch.sigmoid(two @ torch.relu(one @ means + one_bias) + two_bias)
        expected[i, [4, 0, 2]] = sample[[4, 0, 2]] * given[:, None]
    found = module(value)
    found = found.movedim((batch or 0, axis), (0, 1)).flatten(2) if value.dim() > 2 else found[:, :, None]
    torch.testing.assert_close(found, expected)


def test_attention_goes_to_what_tells_classes_apart():
    """Three channels hold the class, three noise; what reads them can't tell which, as its weights are of one size."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(6))
        model[0].bias.fill_(1.0)
        model[2].weight.copy_(torch.tensor([1.0, -1.0])[:, None].expand(2, 6))
        model[2].bias.copy_(torch.tensor([-6.0, 6.0]))
    targets = torch.randint(2, (16, 32))
    inputs = torch.randn(16, 32, 6)
    inputs[..., :3] = (1 - 2.0 * targets)[..., None] * 0.5 + 0.3 * torch.randn(16, 32, 3)
    batches = list(zip(inputs, targets, strict=True))
    graph, data = capture(model, inputs[0]), Data(batches, None, None, Classification(2))
    (score,) = criteria["attention"].function(evidence(graph, data, epochs=5))
    assert score[:3].min() > score[3:].max()
    small = prune(graph, 0.5, criterion="attention", data=data)
    assert torch.equal(small.tensor("0.weight"), torch.eye(6)[:3])


# Attacks


def test_the_attack_finds_the_worst_input_of_a_linear_model():
    torch.manual_seed(0)
    weight, x = torch.randn(5), torch.randn(7, 5)
    y = torch.randint(2, (7,)) * 2 - 1
    (found,) = attacked(lambda inputs: F.softplus(-y * (inputs[0] @ weight)).mean(), (x,), torch.Generator())
    torch.testing.assert_close(found, x - RADIUS * x.std(correction=0) * y[:, None] * weight.sign())


def test_the_attack_stays_near_and_leaves_whole_numbers():
    torch.manual_seed(1)
    x, words = torch.randn(6, 3), torch.arange(6)
    near, same = attacked(lambda inputs: (inputs[0].sin() * inputs[1][:, None]).sum(), (x, words), torch.Generator())
    assert 0 < float((near - x).abs().max()) <= RADIUS * float(x.std(correction=0)) * (1 + 1e-5)
    assert torch.equal(same, words)
    with pytest.raises(PenjingError, match="whole numbers"):
        attacked(lambda inputs: inputs[0].sum(), (words,), torch.Generator())


def test_adversarial_scores_by_the_change_of_the_loss_at_attacked_inputs(chain, chain_model, data):
    generator = torch.Generator().manual_seed(0)
    expected, samples = [torch.zeros(6), torch.zeros(8)], 0
    for batch, targets in data.train:
        (worst,) = attacked(lambda x, y=targets: F.cross_entropy(chain_model(x[0]), y), (batch,), generator)
        for x, y in zip(worst, targets, strict=True):
            gates = [torch.ones(6, requires_grad=True), torch.ones(8, requires_grad=True)]
            inner = torch.relu(chain_model.bn1(chain_model.conv1(x[None]))) * gates[0][:, None, None]
            inner = torch.relu(chain_model.bn2(chain_model.conv2(inner))) * gates[1][:, None, None]
            slopes = torch.autograd.grad(F.cross_entropy(chain_model.head(inner.mean((2, 3))), y[None]), gates)
            expected, samples = [t + slope.abs() for t, slope in zip(expected, slopes, strict=True)], samples + 1
    for found, wanted in zip(criteria["adversarial"].function(evidence(chain, data)), expected, strict=True):
        torch.testing.assert_close(found, wanted / samples, rtol=1e-2, atol=1e-6)
