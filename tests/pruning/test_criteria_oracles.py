"""Criteria against what other libraries and brute force say."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.graph import capture, channels
from penjing.pruning import criteria, prune
from penjing.tasks import Classification, Unlabelled


def score(graph, criterion, data=None, batches=16, seed=0):
    """What the function itself gives for the channels of a graph."""
    found = channels(graph)
    return criteria[criterion].function(Evidence(graph, found.groups, data, batches, seed, channels=found))


def saliency(graph, criterion, names, data=None, batches=16, seed=0):
    return criteria[criterion].function(Evidence(graph, (), data, batches, seed, weights=tuple(names)))


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.two(torch.tanh(self.one(x)))


@pytest.fixture(scope="module")
def tiny_model():
    torch.manual_seed(8)
    return Tiny().eval()


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return capture(tiny_model, torch.randn(2, 3))


@pytest.fixture(scope="module")
def tiny_data():
    torch.manual_seed(9)
    batches = [(torch.randn(6, 3), torch.randint(2, (6,))) for _ in range(2)]
    return Data(batches, batches, None, Classification(2))


def hidden_maps(model, data):
    """The values behind both ReLUs of the chain, over all calibration samples."""
    with torch.no_grad():
        x = torch.cat([batch[0] for batch in data.calibration])
        first = torch.relu(model.bn1(model.conv1(x)))
        return [first, torch.relu(model.bn2(model.conv2(first)))]


# From weights alone


def test_fpgm_is_the_sum_of_distances_that_scipy_finds(chain, stream):
    for found, name in zip(score(chain, "fpgm"), ("conv1.weight", "conv2.weight"), strict=True):
        filters = chain.tensor(name).detach().flatten(1).numpy()
        np.testing.assert_allclose(found, cdist(filters, filters).sum(1), rtol=1e-5)
    both = torch.cat([stream.tensor(f"{name}.weight").detach().flatten(1) for name in ("first", "second")], 1).numpy()
    np.testing.assert_allclose(score(stream, "fpgm")[0], cdist(both, both).sum(1), rtol=1e-5)


def test_frobenius_l1_is_the_ratio_of_numpys_norms_whatever_the_scale(chain, stream):
    for found, name in zip(score(chain, "frobenius_l1"), ("conv1.weight", "conv2.weight"), strict=True):
        filters = chain.tensor(name).detach().flatten(1).double().numpy()
        np.testing.assert_allclose(found, np.linalg.norm(filters, axis=1) / np.abs(filters).sum(1), rtol=1e-5)
    both = torch.cat([stream.tensor(f"{name}.weight").detach().flatten(1) for name in ("first", "second")], 1).numpy()
    np.testing.assert_allclose(
        score(stream, "frobenius_l1")[0], np.linalg.norm(both, axis=1) / np.abs(both).sum(1), rtol=1e-5
    )


def test_frobenius_l1_scores_spread_weights_low_single_ones_1_and_none_0():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 2))
    weight = torch.tensor([[1.0, 1, 1, 1], [0, -3e-30, 0, 0], [0, 0, 0, 0], [3, 4, 0, 0]])
    model[0].weight.data.copy_(weight)
    found = score(capture(model.eval(), torch.randn(2, 4)), "frobenius_l1")[0]
    np.testing.assert_allclose(found, [0.5, 1, 0, 5 / 7], rtol=1e-6)


def test_fpgm_removes_the_filter_at_the_geometric_median():
    torch.manual_seed(10)
    model = nn.Sequential(nn.Conv2d(2, 7, 1), nn.ReLU(), nn.Conv2d(7, 3, 1))
    filters = model[0].weight.detach().flatten(1).numpy().astype(float)
    filters[2] += 5.0  # far out, and the longest
    others = np.delete(filters, 3, 0)
    median = minimize(lambda x: np.linalg.norm(others - x, axis=1).sum(), others.mean(0), tol=1e-10).x
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(np.insert(others, 3, median, 0)).reshape(7, 2, 1, 1))
    small = prune(capture(model, torch.randn(2, 2, 4, 4)), 0.15, criterion="fpgm")
    np.testing.assert_allclose(small.tensor("0.weight").detach().flatten(1), others, rtol=1e-6)


def test_synflow_is_the_product_of_all_magnitudes_on_the_way():
    torch.manual_seed(11)
    model = nn.Sequential(
        nn.Linear(3, 5, bias=False), nn.ReLU(), nn.Linear(5, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False)
    )
    one, two, three = (model[i].weight.detach().double().abs().numpy() for i in (0, 2, 4))
    found = saliency(capture(model, torch.randn(1, 3)), "synflow", ["0.weight", "2.weight", "4.weight"])
    batch = 2  # a captured batch of one is repeated
    x, y = np.ones(3), np.ones(2)
    np.testing.assert_allclose(found["0.weight"], batch * one * np.outer(y @ three @ two, x), rtol=1e-5)
    np.testing.assert_allclose(found["2.weight"], batch * two * np.outer(y @ three, one @ x), rtol=1e-5)
    np.testing.assert_allclose(found["4.weight"], batch * three * np.outer(y, two @ one @ x), rtol=1e-5)


def test_synflow_is_conserved_by_every_unit(chain):
    graph = prune(chain, 0.0)
    with torch.no_grad():
        for name in ("bn1.bias", "bn2.bias", "head.bias"):
            graph.tensor(name).zero_()
    found = saliency(graph, "synflow", ["conv1.weight", "conv2.weight", "head.weight"])
    torch.testing.assert_close(found["conv1.weight"].sum((1, 2, 3)), found["conv2.weight"].sum((0, 2, 3)))
    torch.testing.assert_close(found["conv2.weight"].sum((1, 2, 3)), found["head.weight"].sum(0))


# From activations


def test_apoz_activation_mean_and_hrank_are_those_of_the_maps_behind_the_relu(chain, chain_model, data):
    found = {name: score(chain, name, data) for name in ("apoz", "activation_mean", "hrank")}
    for position, maps in enumerate(hidden_maps(chain_model, data)):
        np.testing.assert_allclose(1 - found["apoz"][position], (maps == 0).float().mean((0, 2, 3)), atol=1e-6)
        np.testing.assert_allclose(found["activation_mean"][position], maps.mean((0, 2, 3)), rtol=1e-5)
        ranks = np.linalg.matrix_rank(maps.numpy()).mean(0)
        np.testing.assert_allclose(found["hrank"][position], ranks, rtol=1e-6)


def test_apoz_needs_zeros(tiny, tiny_data):
    with pytest.raises(PenjingError, match=r"apoz needs activations that can be zero.* those of one never are"):
        prune(tiny, 0.5, criterion="apoz", data=tiny_data)


def test_memory_of_statistics_does_not_grow_with_batches(chain, data):
    again = Data(None, list(data.calibration) * 4, None, data.task)
    for name in ("apoz", "activation_mean", "hrank"):
        for once, more in zip(score(chain, name, data), score(chain, name, again), strict=True):
            torch.testing.assert_close(once, more)


def test_nisp_carries_the_importance_of_the_last_responses_back_by_magnitudes():
    torch.manual_seed(12)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
    batches = [(torch.randn(40, 5),) for _ in range(3)]
    responses = torch.relu(model[:3](torch.cat([batch[0] for batch in batches]))).detach().double().numpy()
    spread = responses.std(0) / responses.std(0).max()
    with np.errstate(invalid="ignore"):  # the second unit is always zero, and so tells nothing
        correlation = np.nan_to_num(np.abs(np.corrcoef(responses.T)), nan=1)
    edges = 0.5 * np.maximum.outer(spread, spread) + 0.5 * (1 - correlation)
    step = 0.9 * edges / np.abs(np.linalg.eigvals(edges)).max()
    last = sum(np.linalg.matrix_power(step, length).sum(1) for length in range(1, 300))  # paths of all lengths
    found = score(capture(model, torch.randn(2, 5)), "nisp", Data(None, batches, None, Unlabelled()))
    count = 2  # samples of the captured batch, each of which carries the same
    np.testing.assert_allclose(found[1], count * last, rtol=1e-4)
    assert spread.argmin() == last.argmin() and spread.min() == 0
    np.testing.assert_allclose(found[0], count * model[2].weight.detach().abs().double().numpy().T @ last, rtol=1e-4)


# From gradients


def test_fisher_is_the_squared_gradient_of_a_gate_for_each_sample(chain, chain_model, data):
    expected, samples = [torch.zeros(6), torch.zeros(8)], 0
    for x, y in ((x[None], y[None]) for batch in data.train for x, y in zip(*batch, strict=True)):
        gates = [torch.ones(6, requires_grad=True), torch.ones(8, requires_grad=True)]
        inner = torch.relu(chain_model.bn1(chain_model.conv1(x))) * gates[0][:, None, None]
        inner = torch.relu(chain_model.bn2(chain_model.conv2(inner))) * gates[1][:, None, None]
        slopes = torch.autograd.grad(F.cross_entropy(chain_model.head(inner.mean((2, 3))), y), gates)
        expected, samples = [total + slope**2 / 2 for total, slope in zip(expected, slopes, strict=True)], samples + 1
    for found, wanted in zip(score(chain, "fisher", data), expected, strict=True):
        torch.testing.assert_close(found, wanted / samples, rtol=1e-3, atol=1e-9)


def loss_of(model, data, **changed):
    parameters = dict(model.named_parameters()) | changed
    return sum(F.cross_entropy(functional_call(model, parameters, (x,)), y) for x, y in data.train)


def hessian(model, data, names):
    """The Hessian, by brute force, of the sum of the batches' losses, and the flat weights."""
    shapes = [model.get_parameter(name).shape for name in names]
    flat = torch.cat([model.get_parameter(name).detach().flatten() for name in names])

    def loss(values):
        parts = values.split([shape.numel() for shape in shapes])
        return loss_of(model, data, **{n: p.reshape(s) for n, p, s in zip(names, parts, shapes, strict=True)})

    return torch.autograd.functional.hessian(loss, flat), torch.func.grad(loss)(flat), flat


WEIGHTS = ["one.weight", "two.weight"]


def flat(found):
    return torch.cat([found[name].flatten() for name in WEIGHTS])


def test_snip_is_the_gradient_of_a_switch_on_each_connection(tiny, tiny_model, tiny_data):
    weight = tiny_model.one.weight.detach()
    switch = torch.ones_like(weight, requires_grad=True)
    (slope,) = torch.autograd.grad(loss_of(tiny_model, tiny_data, **{"one.weight": weight * switch}), switch)
    torch.testing.assert_close(saliency(tiny, "snip", WEIGHTS, tiny_data)["one.weight"], slope.abs())


def gauss_newton(model, x, y):
    """The halves of the diagonal of Jᵀ H J by brute force, `(samples · outputs, weights)`: J and H J."""
    shapes = [model.get_parameter(name).shape for name in WEIGHTS]
    values = torch.cat([model.get_parameter(name).detach().flatten() for name in WEIGHTS])

    def outputs(values):
        parts = values.split([shape.numel() for shape in shapes])
        named = {name: part.reshape(shape) for name, part, shape in zip(WEIGHTS, parts, shapes, strict=True)}
        return functional_call(model, dict(model.named_parameters()) | named, (x,)).flatten()

    jacobian = torch.autograd.functional.jacobian(outputs, values)
    curvature = torch.autograd.functional.hessian(lambda z: F.cross_entropy(z.reshape(len(y), -1), y), outputs(values))
    return jacobian, curvature @ jacobian, values


def test_obd_tends_to_the_diagonal_of_the_gauss_newton_matrix_as_fast_as_it_should(tiny, tiny_model, tiny_data):
    one, draws = Data(tiny_data.train[:1], None, None, tiny_data.task), 1000
    left, right, weight = gauss_newton(tiny_model, *one.train[0])
    diagonal = (left * right).sum(0)
    spread = left.square().sum(0) * right.square().sum(0) + diagonal**2 - 2 * (left * right).square().sum(0)
    expected, noise = weight**2 * diagonal / 2, (spread / draws).sqrt() * weight**2 / 2
    many = Data(list(one.train) * draws, None, None, tiny_data.task)
    found = flat(saliency(tiny, "obd", WEIGHTS, many, batches=draws))
    assert ((found - expected).abs() < 4 * noise).all() and ((found - expected).abs() > noise / 2).any()


def test_obd_is_exact_where_the_hessian_is_diagonal():
    class Squares(Classification):
        def loss(self, outputs, targets):
            return (outputs.square() * targets[:, None]).sum()

    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    x, y = torch.eye(4), torch.tensor([1.0, 2.0, 3.0, 4.0])  # the loss is Σ yᵢ wᵢ², so its Hessian is diag(2 y)
    found = saliency(capture(model, x), "obd", ["0.weight"], Data([(x, y)], None, None, Squares()), seed=3)
    torch.testing.assert_close(found["0.weight"][0], y * model[0].weight[0].detach() ** 2)


def test_grasp_is_the_weight_times_the_hessian_times_the_gradient(tiny, tiny_model, tiny_data):
    one = Data(tiny_data.train[:1], None, None, tiny_data.task)
    curvature, slope, weight = hessian(tiny_model, one, WEIGHTS)
    torch.testing.assert_close(
        flat(saliency(tiny, "grasp", WEIGHTS, one)), weight * (curvature @ slope), rtol=1e-4, atol=1e-7
    )


def test_taylor2_is_the_squared_second_order_change_of_the_loss_by_gates(tiny, tiny_model, tiny_data):
    one = Data(tiny_data.train[:1], None, None, tiny_data.task)

    def loss(gates):
        weight, bias = tiny_model.one.weight.detach(), tiny_model.one.bias.detach()
        return loss_of(tiny_model, one, **{"one.weight": weight * gates[:, None], "one.bias": bias * gates})

    # A gate is another variable than the weights behind it, but the loss depends on their product alone.
    ones = torch.ones(4)
    slope, curvature = torch.func.grad(loss)(ones), torch.autograd.functional.hessian(loss, ones)
    (found,) = score(tiny, "taylor2", one)
    torch.testing.assert_close(found, (slope - curvature @ ones / 2) ** 2, rtol=1e-4, atol=1e-9)
