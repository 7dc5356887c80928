"""What schedules say, and what becomes of a network in whose training one is carried out."""

import copy
import math
from dataclasses import astuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.pruning import Gradual, schedules
from penjing.pruning.schedules import find
from penjing.report import words
from penjing.tasks import Classification
from penjing.training import recover
from penjing.verbs import prune

PLAIN = {"precision": "float32", "channels_last": False, "progress": False, "lr": 0.05}
SHARES, AMOUNTS = st.floats(0, 1), st.floats(0, 0.99)
HOLDING = [name for name in schedules if find(name).at(1.0, 0.5).share]  # all but those that end dense


SHORT = {"iterative": "iterative:2", "rewind": "rewind:1"}


def able(removes):
    return [SHORT.get(name, name) for name in HOLDING if removes in find(name).removes]


def run(pruning, data, epochs=1, **options):
    """Does what the verb does."""
    for training in range(pruning.trainings):
        pruning.begin(training)
        recover(
            pruning.graph, data, epochs=epochs, **PLAIN | {"callbacks": [pruning], "penalty": pruning.penalty} | options
        )
    return pruning.finish()


# What schedules say


@given(SHARES, AMOUNTS)
@pytest.mark.parametrize("name", schedules)
def test_a_schedule_is_a_pure_function_into_its_ranges(name, progress, amount):
    moment = find(name).at(progress, amount)
    assert moment == find(name).at(progress, amount)
    assert 0 <= moment.share <= 1 and 0 <= moment.dropout <= 1 and moment.decay >= 0 and moment.sparsity >= 0


@given(st.tuples(SHARES, SHARES).map(sorted), AMOUNTS)
@pytest.mark.parametrize("name", HOLDING)
def test_the_share_that_is_gone_never_falls_and_ends_at_all(name, points, amount):
    chosen = find(name)
    earlier, later = (chosen.at(point, amount).share for point in points)
    assert earlier <= later
    assert chosen.at(1.0, amount).share == 1.0 and not chosen.at(1.0, amount).returns


@pytest.mark.parametrize("name", [name for name in schedules if find(name).trainings == 1 and name != "one_shot"])
def test_what_stays_is_trained_for_a_while_after_the_last_has_gone(name):
    end = find(name).at(1.0, 0.5)
    assert all(find(name).at(t, 0.5) == end for t in (0.8, 0.9))


@given(st.integers(0, 12), st.integers(1, 12), st.floats(0.01, 0.99))
@pytest.mark.parametrize("name", ["iterative", "rewind"])
def test_each_round_takes_the_same_share_of_what_the_one_before_left(name, done, rounds, amount):
    chosen = find(f"{name}:{rounds}")
    training = min(done, rounds) - (name == "iterative")
    share = chosen.at(training / chosen.trainings, amount).share if training >= 0 else 0.0
    assert 1 - amount * share == pytest.approx((1 - amount) ** (min(done, rounds) / rounds))


@given(SHARES)
def test_cubic_is_the_papers_formula(t):
    n, s_f = 0.7, 0.9  # pruning steps' share of the training; final sparsity; the initial one is 0
    expected = s_f + (0 - s_f) * (1 - min(t / n, 1)) ** 3
    assert s_f * find("cubic").at(t, s_f).share == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cubik", r"Unknown schedule 'cubik'\. Did you mean 'cubic'\?.*splicing"),
        ("one_shot:3", "'one_shot' takes no number"),
        ("iterative:2.5", "number of rounds, a whole number from 1 to 1000"),
        ("rewind:0", "number of rounds, a whole number from 1 to 1000"),
        ("cubic:nan", "share of the training"),
        ("cubic:", "share of the training"),
        ("growing_reg:-1", "strength of the regularisation"),
    ],
)
def test_a_name_that_makes_no_sense_is_refused(chain, data, name, says):
    with pytest.raises(PenjingError, match=says):
        prune(chain, 0.5, granularity="element", schedule=name, data=data, epochs=1)


# What becomes of a network


@pytest.mark.parametrize("name", able("weights"))
def test_exactly_the_amount_of_weights_is_zero_after_the_training(chain, data, name):
    sparse = run(Gradual(chain, 0.4, schedule=name, granularity="element"), data)
    assert set(sparse.masks) == {"conv1.weight", "conv2.weight", "head.weight"}
    for weight, mask in sparse.masks.items():
        assert int((~mask).sum()) == math.floor(0.4 * mask.numel() + 0.5)
        assert bool((sparse.tensor(weight)[~mask] == 0).all()) and bool((sparse.tensor(weight)[mask] != 0).all())
    assert [step.place.path for step in sparse.plan] == ["conv1", "conv2", "head"]
    for step in sparse.plan:
        assert name in words(step.to_json()) and step.after == int(sparse.masks[f"{step.place.path}.weight"].sum())


@pytest.mark.parametrize("name", able("channels"))
def test_exactly_the_amount_of_channels_is_gone_after_the_training(chain, data, name):
    small = run(Gradual(chain, 0.5, schedule=name), data)
    assert small.tensor("conv2.weight").shape == (4, 3, 3, 3) and small.tensor("bn1.running_var").shape == (3,)
    assert small.masks == {}
    assert [(step.place.path, step.before, step.after) for step in small.plan] == [("conv1", 6, 3), ("conv2", 8, 4)]
    assert all(name in words(step.to_json()) for step in small.plan)


class Mixed(nn.Module):
    """Norms without scales, biases, a gate, and two makers of one stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8, affine=False)
        self.depth, self.point = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)
        self.gate, self.act, self.head = nn.Linear(8, 8), nn.PReLU(8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(x))
        x = x + self.act(self.point(self.depth(x)))
        return self.head((x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]).mean((2, 3)))


@pytest.mark.parametrize("name", [n for n in able("channels") if n != "lasso_bn"])
@pytest.mark.parametrize("network", ["chain", "stream", "mixed"])
def test_the_smaller_graph_is_equal_to_the_masked_one(request, data, network, name):
    torch.manual_seed(8)
    graph = capture(Mixed(), torch.randn(2, 3, 8, 8)) if network == "mixed" else request.getfixturevalue(network)
    pruning = Gradual(graph, 0.5, schedule=name)
    ends = []

    def copied(graph, progress):
        ends[:] = [copy.deepcopy(graph)]

    small = run(pruning, data, callbacks=[pruning, copied])
    masked, x = ends[0].eval(), torch.randn(5, 3, 8, 8)
    masked.apply_masks()
    assert small.cost().params < 0.7 * graph.cost().params
    assert masked.cost().params == graph.cost().params
    torch.testing.assert_close(small(x), masked(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [SHORT.get(n, n) for n in schedules if n != "lasso_bn"])
def test_the_graph_given_stays_as_it_was_and_what_its_masks_hold_stays_zero(chain, data, name):
    given_masks = copy.deepcopy(chain)
    given_masks.masks = {"conv2.weight": torch.rand(8, 6, 3, 3, generator=torch.Generator().manual_seed(0)) > 0.2}
    given_masks.apply_masks()
    before = {key: value.clone() for key, value in given_masks.state_dict().items()}
    sparse = run(Gradual(given_masks, 0.4, schedule=name, granularity="element"), data)
    assert all(torch.equal(value, before[key]) for key, value in given_masks.state_dict().items())
    assert bool((sparse.tensor("conv2.weight")[~given_masks.masks["conv2.weight"]] == 0).all())
    assert set(given_masks.masks) == {"conv2.weight"}


@pytest.mark.parametrize(("granularity", "amount"), [("2:4", None), ("kernel", 0.5), ("block:2x3", 0.5)])
def test_other_granularities_go_little_by_little_too(data, granularity, amount):
    torch.manual_seed(9)
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 3)
    graph = capture(nn.Sequential(*layers), torch.randn(2, 3, 8, 8))
    pruning, seen = Gradual(graph, amount, granularity=granularity, include=["2"]), [0.0]

    def measure(graph, progress):
        seen.extend(float(1 - mask.float().mean()) for mask in graph.masks.values())

    run(pruning, data, epochs=2, callbacks=[pruning, measure])
    assert seen[-1] == 0.5 and seen == sorted(seen) and len(set(seen)) > 2


def test_a_threshold_rises_to_its_limit(chain, data):
    sparse = run(
        Gradual(chain, allocation="threshold:0.04", criterion="l1", granularity="element", schedule="cubic"), data
    )
    for name, mask in sparse.masks.items():
        left = sparse.tensor(name)[mask].abs()
        assert 0.05 < 1 - mask.float().mean() < 0.95 and float(left.detach().min()) > 0.02


# Single schedules


class Needed(nn.Module):
    """Six inputs, of which only the first tells the class; its weights are the smallest, and those of the rest say nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(6, 2, bias=False)
        with torch.no_grad():
            self.line.weight.copy_(torch.tensor([[0.01, 0.1, -0.1, 0.1, -0.1, 0.1]] * 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x)


@pytest.fixture(scope="module")
def needed():
    generator = torch.Generator().manual_seed(10)
    classes = torch.randint(2, (20, 16), generator=generator)
    inputs = torch.randn(20, 16, 6, generator=generator)
    inputs[..., 0] = 2.0 * classes - 1
    batches = list(zip(inputs, classes, strict=True))
    return capture(Needed(), torch.randn(2, 6)), Data(batches, None, batches, Classification(2))


def test_splicing_takes_back_what_was_pruned_by_mistake_and_says_so(needed):
    graph, data = needed
    lines = []
    options = {"granularity": "element", "data": data, "epochs": 5, "lr": 0.05, "progress": False}
    spliced = prune(graph, 0.5, schedule="splicing", log=lines.append, **options)
    pruned = prune(graph, 0.5, schedule="one_shot", **options)
    assert bool(spliced.masks["line.weight"][:, 0].all()) and not bool(pruned.masks["line.weight"][:, 0].any())
    count = int(words(spliced.plan[0].to_json()).rpartition("; ")[2].removesuffix(" came back"))
    assert count >= 2
    assert f"{count} weights or units that had been pruned came back." in lines
    x, y = data.train[0]
    assert (spliced(x).argmax(1) == y).all() and (pruned(x).argmax(1) != y).any()


def test_hidden_weights_move_as_dynamic_network_surgery_says_by_momentum_and_without_decay():
    torch.manual_seed(11)
    graph = capture(nn.Linear(6, 4, bias=False), torch.randn(2, 6))
    pruning = Gradual(graph, 0.5, schedule="splicing", granularity="element")
    pruning.begin()
    step = torch.optim.SGD(pruning.graph.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)
    dense, mask, momentum = graph.tensor("weight").detach().clone(), torch.ones(4, 6, dtype=torch.bool), 0.0
    for number in range(1, 40):
        x, y = torch.randn(8, 6), torch.randn(8, 4)
        (pruning.graph(x) - y).square().mean().backward()
        step.step()
        step.zero_grad()
        pruning(pruning.graph, number / 60)
        pruning.graph.apply_masks()
        # the paper's update, by hand: the gradient of the masked network, at all weights
        masked = (dense * mask).requires_grad_()
        (gradient,) = torch.autograd.grad((x @ masked.T - y).square().mean(), masked)
        gradient = gradient + 0.1 * masked.detach()
        momentum = 0.9 * momentum + gradient
        dense = dense - 0.1 * (gradient + 0.9 * momentum)
        mask = pruning.graph.masks.get("weight", mask)
        torch.testing.assert_close(pruning.graph.tensor("weight").detach(), dense * mask)
    assert 11 <= int((~mask).sum()) <= 13 and sum(pruning.returned.values()) > 0


def test_between_the_two_thresholds_of_splicing_everything_stays_as_it_is():
    graph = capture(nn.Linear(10, 4, bias=False), torch.randn(2, 10))
    with torch.no_grad():
        graph.tensor("weight").copy_(torch.arange(1, 41).reshape(4, 10) / 40)
    pruning = Gradual(graph, 0.5, schedule="splicing", granularity="element")
    pruning.begin()
    weight = pruning.graph.tensor("weight").detach().view(-1)
    gone = lambda: set((~pruning.graph.masks["weight"].view(-1)).nonzero().view(-1).tolist())  # noqa: E731
    pruning(pruning.graph, 0.4)  # all of the amount by now: thresholds at 18 and 22 of 40
    assert gone() == set(range(18))
    pruning._hidden.reveal()
    pruning.graph.masks = {}
    with torch.no_grad():
        weight[[0, 19]] = weight[[19, 0]].clone()  # 0 is the 20th now, within the band; 19 the lowest
    pruning._hidden.hide({"weight": (torch.arange(40) >= 18).view(4, 10)})
    pruning(pruning.graph, 0.5)
    assert gone() == set(range(18)) | {19} and pruning.returned == {"weight": 0}
    with torch.no_grad():
        pruning._hidden.values["weight"].view(-1)[0] = 2.0
    pruning(pruning.graph, 0.6)
    assert gone() == set(range(1, 18)) | {19} and pruning.returned == {"weight": 1}


def test_rewinding_restores_the_early_weights_bit_for_bit(chain, data):
    pruning = Gradual(chain, 0.6, schedule="rewind:2", granularity="element")
    early, begun, masks_of = {}, [], []

    def watch(graph, progress):
        if not begun[1:] and progress <= 0.05:
            early.update({key: value.clone() for key, value in graph.state_dict().items()})

    for training in range(3):
        pruning.begin(training)
        begun.append({key: value.clone() for key, value in pruning.graph.state_dict().items()})
        masks_of.append(masks := dict(pruning.graph.masks))
        recover(pruning.graph, data, epochs=7, callbacks=[pruning, watch], **PLAIN)
        assert all(torch.equal(mask, pruning.graph.masks[name]) for name, mask in masks.items())
    assert not torch.equal(early["conv1.weight"], begun[0]["conv1.weight"])
    for number, state in enumerate(begun[1:], 1):
        shares = []
        for key, value in state.items():
            gone = value == 0
            assert torch.equal(value[~gone], early[key][~gone])
            if key in masks_of[number]:
                assert torch.equal(gone, ~masks_of[number][key])
                shares.append(float(gone.float().mean()))
            else:
                assert torch.equal(value, early[key])
        assert shares == pytest.approx([1 - 0.4 ** (number / 2)] * 3, abs=0.03)


def test_what_will_go_shrinks_under_growing_regularisation_and_the_rest_does_not(chain, data):
    sizes = {}
    for name in ("growing_reg:8", "growing_reg:0"):
        pruning, sizes[name] = Gradual(chain, 0.5, schedule=name, granularity="element"), []
        weight = chain.tensor("conv2.weight").detach()
        low = weight.abs() <= weight.abs().flatten().sort().values[weight.numel() // 2 - 1]

        def measure(graph, progress, low=low, name=name):
            values = graph.tensor("conv2.weight").detach()
            sizes[name].append((progress, float(values[low].norm()), float(values[~low].norm())))

        run(pruning, data, epochs=12, callbacks=[measure, pruning], clip_norm=None)
    at_the_end = {name: [(low, high) for p, low, high in found if p < 0.5][-1] for name, found in sizes.items()}
    assert at_the_end["growing_reg:8"][0] < 0.3 * at_the_end["growing_reg:0"][0]
    assert at_the_end["growing_reg:8"][1] > 0.7 * at_the_end["growing_reg:0"][1]


def test_the_penalty_of_growing_regularisation_is_half_its_strength_times_the_squares(chain):
    pruning = Gradual(chain, 0.5, schedule="growing_reg:2", granularity="element", include=["conv2"])
    pruning.begin()
    weight = np.sort(np.abs(chain.tensor("conv2.weight").detach().numpy().ravel()))[: 8 * 6 * 9 // 2]
    assert pruning.penalty(pruning.graph, 0.25).item() == pytest.approx(0.5 * 1.0 * float((weight**2).sum()), rel=1e-5)
    assert pruning.penalty(pruning.graph, 0.0) is None and pruning.penalty(pruning.graph, 0.6) is None


def test_network_slimming_pushes_the_scales_of_norms_to_zero(chain, data):
    scales = {}
    for name in ("lasso_bn:0.3", "lasso_bn:0"):
        pruning, seen = Gradual(chain, 0.5, criterion="bn_scale", schedule=name), []

        def measure(graph, progress, seen=seen):
            seen.append(
                (progress, torch.cat([graph.tensor(f"bn{i}.weight").detach().abs() for i in (1, 2)]).mean().item())
            )

        run(pruning, data, epochs=12, callbacks=[measure, pruning])
        scales[name] = [mean for progress, mean in seen if progress < 0.5][-1]
    assert scales["lasso_bn:0.3"] < 0.4 * scales["lasso_bn:0"]


def test_network_slimming_needs_norms(stream, data):
    with pytest.raises(PenjingError, match=r"'lasso_bn' trains the scales of norms.*'growing_reg' needs none"):
        Gradual(stream, 0.5, schedule="lasso_bn")


def test_dense_sparse_dense_ends_dense_and_was_sparse(chain, data):
    pruning, zeros = Gradual(chain, 0.5, schedule="dense_sparse_dense", granularity="element"), []

    def count(graph, progress):
        graph.apply_masks()
        zeros.append((progress, float((graph.tensor("conv2.weight") == 0).float().mean())))

    dense = run(pruning, data, epochs=6, callbacks=[pruning, count])
    assert dense.masks == {}
    assert all(float((dense.tensor(f"{name}.weight") == 0).float().mean()) < 0.3 for name in ("conv1", "conv2", "head"))
    assert {share for progress, share in zeros if progress < 0.65} == {0.5}
    assert [(step.before, step.after) for step in dense.plan] == [(162, 162), (432, 432), (24, 24)]
    assert all("dense again" in words(step.to_json()) for step in dense.plan)


def test_targeted_dropout_leaves_out_only_the_lowest_and_keeps_their_values():
    torch.manual_seed(12)
    graph = capture(nn.Linear(20, 10, bias=False), torch.randn(2, 20))
    pruning = Gradual(graph, 0.4, schedule="targeted_dropout", granularity="element", seed=1)
    pruning.begin()
    step = torch.optim.SGD(pruning.graph.parameters(), lr=0.1)
    weight, shares = pruning.graph.tensor("weight"), []
    dense, dropped = weight.detach().clone(), torch.zeros(10, 20, dtype=torch.bool)
    for number in range(1, 79):
        (pruning.graph(torch.randn(8, 20)) - torch.randn(8, 10)).square().mean().backward()
        step.step()
        step.zero_grad()
        moved = weight.detach().clone()
        pruning(pruning.graph, number / 100)
        now = weight.detach() + pruning._hidden.values.get("weight", 0)
        assert torch.equal(now[dropped], dense[dropped])  # what is left out takes no part in the step
        assert torch.equal(now[~dropped], moved[~dropped]) and not torch.equal(moved, dense)
        dense, dropped = now, weight.detach() == 0
        if number % 2 == 0:  # every fiftieth of the training it is decided anew which are the lowest
            low = dense.abs() <= dense.abs().flatten().sort().values[79]
        if number > 2:
            assert not bool((dropped & ~low).any())
            shares.append(float(dropped.sum() / low.sum()))
    assert np.mean(shares[:10]) < 0.15 and np.mean(shares[-10:]) > 0.85
    pruning(pruning.graph, 0.8)
    assert torch.equal(weight != 0, pruning.graph.masks["weight"]) and int((weight == 0).sum()) == 80


def test_targeted_dropout_of_channels_leaves_out_whole_ones(chain, data):
    pruning = Gradual(chain, 0.5, schedule="targeted_dropout")
    weak = chain.tensor("conv1.weight").detach().square().sum((1, 2, 3)).argsort()[:3].tolist()
    seen = set()

    def watch(graph, progress):
        if 0 < progress < 0.02 * math.ceil(50 / 24):  # before it is decided anew
            return
        if progress < 0.79:
            off = (graph.tensor("conv1.weight").flatten(1) == 0).all(1)
            assert torch.equal(off, graph.tensor("bn1.weight") == 0)
            assert torch.equal(off, graph.tensor("bn1.bias") == 0)
            seen.add(tuple(off.nonzero().flatten().tolist()))

    run(pruning, data, epochs=8, callbacks=[pruning, watch])
    assert len(seen) > 2 and any(0 < len(units) <= len(weak) for units in seen)


# Cost, repeatability, resumption


def test_criteria_that_look_at_data_are_asked_ten_times_at_most(chain, data, monkeypatch):
    from penjing.pruning import criteria

    entry, calls = criteria["taylor"], []
    spied = type(entry)(**{**vars(entry), "function": lambda evidence: calls.append(1) or entry.function(evidence)})
    monkeypatch.setitem(criteria._entries, "taylor", spied)
    run(Gradual(chain, 0.5, criterion="taylor", data=data), data, epochs=5)
    assert 5 <= len(calls) <= 10


@pytest.mark.parametrize("name", [SHORT.get(name, name) for name in schedules])
def test_equal_seeds_give_equal_weights(chain, data, name):
    granularity = "filter" if name == "lasso_bn" else "element"
    one, other = (run(Gradual(chain, 0.5, schedule=name, granularity=granularity), data) for _ in range(2))
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


class Stop(Exception):
    pass


@pytest.mark.parametrize(
    ("name", "granularity"),
    [
        (name, granularity)
        for granularity, removes in (("element", "weights"), ("filter", "channels"))
        for name in schedules
        if removes in find(name).removes and find(name).trainings == 1
    ],
)
def test_a_training_that_was_stopped_goes_on_to_the_same_end(chain, data, tmp_path, name, granularity):
    options = {"epochs": 4, "checkpoint": tmp_path / "run.pt", "save_every": 0.0}

    def stop(graph, progress):
        if progress > 0.6:
            raise Stop

    make = lambda: Gradual(chain, 0.5, schedule=name, granularity=granularity, seed=3)  # noqa: E731
    whole = run(make(), data, epochs=4)
    stopped = make()
    with pytest.raises(Stop):
        run(stopped, data, **options, callbacks=[stopped, stop])
    resumed = run(make(), data, **options)
    assert resumed.plan == whole.plan
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole.state_dict().items())


def test_a_checkpoint_of_another_pruning_is_refused(chain, data, tmp_path):
    path = tmp_path / "run.pt"
    run(Gradual(chain, 0.5, schedule="cubic", granularity="element"), data, epochs=1, checkpoint=path)
    with pytest.raises(PenjingError, match=r"'cubic', 0\.5.*'splicing', 0\.5"):
        run(Gradual(chain, 0.5, schedule="splicing", granularity="element"), data, epochs=1, checkpoint=path)
    with pytest.raises(PenjingError, match="1 callbacks that have a state, not 0"):
        recover(copy.deepcopy(chain), data, epochs=1, checkpoint=path, **PLAIN)


def test_a_moment_holds_only_plain_numbers():
    assert all(isinstance(value, float | bool) for name in schedules for value in astuple(find(name).at(0.3, 0.5)))
