"""What criteria that reconstruct a layer's outputs choose and how they make up for it, against brute force."""

from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.linear_model import lasso_path
from torch import nn
from torch.nn import functional as F

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.graph import capture, channels
from penjing.pruning import criteria, prune
from penjing.pruning.criteria._lasso import STEPS, path
from penjing.pruning.criteria._obs import DAMPING, sweep
from penjing.pruning.criteria._thinet import order
from penjing.pruning.reconstruction import RIDGE, readers
from penjing.tasks import Classification, Unlabelled


def evidence(graph, data):
    found = channels(graph)
    return Evidence(graph, found.groups, data, 16, 0, channels=found)


def second_inputs(chain_model, data):
    """What the chain's second convolution reads, and what each of the 6 channels adds to its outputs."""
    with torch.no_grad():
        x = torch.cat([batch[0] for batch in data.calibration])
        x = torch.relu(chain_model.bn1(chain_model.conv1(x)))
        parts = [F.conv2d(x[:, i : i + 1], chain_model.conv2.weight[:, i : i + 1], padding=1) for i in range(6)]
    return x, torch.stack([part.flatten() for part in parts], 1).double().numpy()


# ThiNet


def test_contributions_are_the_inner_products_of_what_channels_add(chain, chain_model, data):
    found = readers(evidence(chain, data)).contributions(channels(chain).groups[0])
    _, parts = second_inputs(chain_model, data)
    gram = parts.T @ parts
    np.testing.assert_allclose(found, gram / gram.sum(), rtol=1e-4, atol=1e-6)


def test_thinet_takes_at_each_step_the_channel_that_changes_the_outputs_least(chain, chain_model, data):
    _, parts = second_inputs(chain_model, data)
    gone: list[int] = []
    while len(gone) < 6:
        losses = {i: np.square(parts[:, [*gone, i]].sum(1)).sum() for i in range(6) if i not in gone}
        gone.append(min(losses, key=losses.get))
    found = criteria["thinet"].function(evidence(chain, data)).saliency[0]
    assert found.argsort().tolist() == gone


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_thinet_is_exhaustive_search_where_channels_do_not_interact(count):
    size = torch.tensor([3.0, 1.0, 4.0, 1.5, 9.0, 2.0])
    contributions = torch.diag(size)
    best = min(combinations(range(6), count), key=lambda gone: float(contributions[list(gone)][:, list(gone)].sum()))
    assert tuple(sorted(order(contributions).argsort()[:count].tolist())) == best


def test_thinet_is_exhaustive_search_for_one_channel_and_sees_that_two_cancel(chain, chain_model, data):
    parts = torch.tensor([[1.0, 0.0], [-1.0, 0.1], [0.0, 1.5]])
    assert order(parts @ parts.T).tolist() == [
        0,
        1,
        2,
    ]  # the second is longer than the third is far, but cancels the first
    _, columns = second_inputs(chain_model, data)
    best = min(range(6), key=lambda i: np.square(columns[:, i]).sum())
    assert int(criteria["thinet"].function(evidence(chain, data)).saliency[0].argmin()) == best


# LASSO


def test_lasso_is_the_path_that_scikit_learn_finds_on_the_outputs_themselves(chain, chain_model, data):
    _, parts = second_inputs(chain_model, data)
    _, factors, _ = lasso_path(parts, parts.sum(1), eps=1e-4, alphas=STEPS, tol=1e-8, max_iter=10000)
    found = criteria["lasso"].function(evidence(chain, data)).saliency[0]
    np.testing.assert_allclose(np.floor(found.numpy()), (factors != 0).sum(1), atol=1)
    np.testing.assert_array_equal(
        np.argsort(found.numpy()), np.argsort((factors != 0).sum(1) + np.abs(factors[:, -1]) / 1e3)
    )


def test_lasso_finds_the_channels_that_others_do_not_hold():
    torch.manual_seed(2)
    parts = torch.randn(500, 4)
    parts[:, 2] = 0.01 * torch.randn(500)  # adds nothing
    parts[:, 3] *= 5
    found = path((parts.T @ parts).double())
    assert found.argmin() == 2 and found.argmax() == 3


# Least squares afterwards


@pytest.mark.parametrize("criterion", ["lasso", "thinet"])
def test_the_next_layer_is_fitted_to_its_old_outputs(criterion, chain, chain_model, data):
    small = prune(chain, 0.5, criterion=criterion, data=data, include=["conv1"])
    kept = criteria[criterion].function(evidence(chain, data)).saliency[0].argsort()[3:].sort().values
    x, _ = second_inputs(chain_model, data)
    columns = F.unfold(x, 3, padding=1).transpose(0, 1).flatten(1).double().numpy()
    matrix = chain_model.conv2.weight.detach().flatten(1).double().numpy()
    rows = (kept[:, None] * 9 + torch.arange(9)).flatten().numpy()
    ridge = np.sqrt(RIDGE * np.square(columns).sum(1).mean())
    left = np.concatenate([columns[rows].T, ridge * np.eye(len(rows))])
    right = np.concatenate([(matrix @ columns).T, ridge * matrix[:, rows].T])
    expected = np.linalg.lstsq(left, right, rcond=None)[0].T
    np.testing.assert_allclose(
        small.tensor("conv2.weight").detach().flatten(1), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
    )
    plain = np.linalg.norm(matrix @ columns - matrix[:, rows] @ columns[rows])
    assert np.linalg.norm(matrix @ columns - expected @ columns[rows]) < 0.9 * plain


def test_channels_that_are_linear_in_the_others_go_without_a_trace():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Linear(6, 3))
    with torch.no_grad():
        model[0].weight[4:] = torch.randn(2, 4) @ model[0].weight[:4]
    batches = [(torch.randn(50, 4),)]
    graph = capture(model, batches[0][0])
    small = prune(graph, 0.3, criterion="thinet", data=Data(None, batches, None, Unlabelled()))
    assert small.tensor("0.weight").shape == (4, 4)
    torch.testing.assert_close(small(batches[0][0]), graph(batches[0][0]), rtol=1e-2, atol=1e-2)


def test_channels_that_no_plain_layer_reads_are_an_error_that_names_them():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.ConvTranspose2d(4, 2, 2))
    x = torch.randn(2, 3, 5, 5)
    unlabelled = Data(None, [(x,)], None, Unlabelled())
    for criterion in ("lasso", "thinet"):
        with pytest.raises(PenjingError, match="No convolution or linear layer reads the channels of 0"):
            prune(capture(model, x), 0.5, criterion=criterion, data=unlabelled)
    with pytest.raises(PenjingError, match=r"obs needs layers .* and 2\.weight is none"):
        prune(capture(model, x), 0.5, criterion="obs", granularity="element", data=unlabelled)


# Optimal Brain Surgeon


def damped(columns):
    gram = columns @ columns.T
    return gram + DAMPING * gram.diagonal().mean() * np.eye(len(gram))


def test_obs_is_what_the_loss_gains_when_all_other_weights_follow(chain, chain_model, data):
    x, _ = second_inputs(chain_model, data)
    hessian = damped(F.unfold(x, 3, padding=1).transpose(0, 1).flatten(1).double().numpy())
    judged = criteria["obs"].function(Evidence(chain, (), data, 16, 0, weights=("conv2.weight",)))
    found = judged.saliency["conv2.weight"].flatten(1)
    matrix = chain_model.conv2.weight.detach().flatten(1).double().numpy()
    for row, gone in [(0, 0), (3, 17), (7, 53)]:
        others = [i for i in range(54) if i != gone]
        change = np.zeros(54)
        change[gone] = -matrix[row, gone]
        change[others] = np.linalg.solve(hessian[others][:, others], -hessian[others][:, gone] * change[gone])
        np.testing.assert_allclose(found[row, gone], change @ hessian @ change / 2, rtol=1e-3)


def test_the_sweep_is_least_squares_where_all_that_go_stand_before_those_that_stay():
    rng = np.random.default_rng(0)
    columns, matrix = rng.normal(size=(8, 40)), rng.normal(size=(5, 8))
    columns[1] += columns[6]
    hessian = columns @ columns.T
    mask = np.arange(8) >= 3
    found = sweep(*(torch.tensor(one)[None] for one in (matrix, np.tile(mask, (5, 1)), np.linalg.inv(hessian))))[0]
    expected = np.linalg.lstsq(columns[3:].T, (matrix @ columns).T, rcond=None)[0].T
    np.testing.assert_allclose(found[:, 3:], expected, rtol=1e-6)
    assert not found[:, :3].any()


@pytest.mark.parametrize("granularity", ["element", "1:2"])
def test_obs_keeps_outputs_of_layers_better_than_magnitudes_do(granularity, chain, chain_model, data):
    x, _ = second_inputs(chain_model, data)
    options = {"amount": None if granularity == "1:2" else 0.5, "granularity": granularity, "include": ["conv2"]}
    before = F.conv2d(x, chain_model.conv2.weight, padding=1)
    errors = {}
    for criterion in ("l2", "obs"):
        small = prune(chain, criterion=criterion, data=data, **options)
        weight = small.tensor("conv2.weight")
        assert torch.equal(weight != 0, small.masks["conv2.weight"]) and (weight != 0).float().mean() == 0.5
        errors[criterion] = float((F.conv2d(x, weight, padding=1) - before).detach().norm())
    assert errors["obs"] < 0.7 * errors["l2"]


def test_obs_treats_the_groups_of_a_convolution_by_themselves(data):
    torch.manual_seed(4)
    grouped = nn.Conv2d(4, 6, 3, groups=2)
    x, target = torch.randn(5, 4, 6, 6), torch.zeros(5, dtype=torch.long)
    both = Data([(x, target)], [(x, target)], None, Classification())
    found = prune(capture(grouped, x), 0.5, criterion="obs", granularity="element", data=both)
    for i in range(2):
        half = nn.Conv2d(2, 3, 3)
        half.load_state_dict({"weight": grouped.weight[3 * i : 3 * i + 3], "bias": grouped.bias[3 * i : 3 * i + 3]})
        part = Data(None, [(x[:, 2 * i : 2 * i + 2],)], None, Unlabelled())
        judged = criteria["obs"].function(Evidence(capture(half, x[:, :2]), (), part, 1, 0, weights=("weight",)))
        alone = judged.weights({"weight": found.masks["weight"][3 * i : 3 * i + 3]})["weight"]
        torch.testing.assert_close(found.tensor("weight")[3 * i : 3 * i + 3].detach(), alone, rtol=1e-3, atol=1e-5)
