"""A plan alone, with the original and the data, gives the same small graph again, bit for bit."""

import json
from dataclasses import replace

import pytest
import torch

from penjing.errors import PenjingError
from penjing.graph import Graph, Option, Place, Plan
from penjing.pruning import prune
from penjing.pruning._again import prune_again


def again(graph: Graph, small: Graph, data=None) -> Graph:
    """Carries out a small graph's plan, read from JSON, on the graph that it was made of."""
    read = Plan.from_json(json.loads(json.dumps(small.plan.to_json())))
    return prune_again(graph, read.options, data)


def assert_same(left: Graph, right: Graph) -> None:
    assert left.program.code == right.program.code and left.plan == right.plan
    assert left.tensors().keys() == right.tensors().keys() and left.masks.keys() == right.masks.keys()
    assert all(torch.equal(tensor, right.tensor(name)) for name, tensor in left.tensors().items())
    assert all(torch.equal(mask, right.masks[name]) for name, mask in left.masks.items())


@pytest.mark.parametrize("criterion", ["l2", "random", "taylor", "fpgm", "hrank", "thinet", "obd", "bn_scale"])
def test_channels_go_again_by_every_kind_of_criterion(criterion, chain, data):
    small = prune(chain, 0.5, criterion=criterion, data=data, batches=3, seed=7)
    assert_same(again(chain, small, data), small)
    assert small.cost().params < chain.cost().params


@pytest.mark.parametrize(
    "choices",
    [
        {"allocation": "global"},
        {"round_to": 4},
        {"min_channels": 5},
        {"include": ["conv1"]},
        {"exclude": ["conv2"]},
        {"allocation": "plan", "amount": {"conv2": 0.7}},
        {"amount": 0.95},
    ],
)
def test_whatever_decided_how_many_stay_the_plan_holds_their_number(choices, chain):
    small = prune(chain, **{"amount": 0.4, "criterion": "l1"} | choices)
    assert_same(again(chain, small), small)


@pytest.mark.parametrize(
    ("granularity", "amount"),
    [("element", 0.6), ("2:4", None), ("kernel", 0.5), ("vector", 0.5), ("pattern", 0.5), ("rectangle:1x3", None)],
)
@pytest.mark.filterwarnings("ignore:granularity=")
def test_weights_go_again_by_every_kind_of_granularity(granularity, amount, chain, data):
    for criterion in ("l1", "obs"):
        small = prune(chain, amount, granularity=granularity, criterion=criterion, data=data)
        assert_same(again(chain, small, data), small)


def test_branches_go_again(residual):
    small = prune(residual, 0.5, granularity="layer")
    assert_same(again(residual, small), small)


def test_one_call_after_another_is_done_in_its_order(chain, data):
    first = prune(chain, 0.3, granularity="element", criterion="l1")
    second = prune(first, 0.5, criterion="taylor", data=data)
    third = prune(prune(second, 0.5), 0.5)
    assert_same(again(chain, third, data), third)


def test_the_graph_given_stays_as_it_was(chain):
    before = {name: tensor.clone() for name, tensor in chain.tensors().items()}
    again(chain, prune(chain, 0.5))
    assert not chain.plan and all(torch.equal(tensor, before[name]) for name, tensor in chain.tensors().items())


def changed(small: Graph, **change) -> list[Option]:
    return [replace(small.plan[0], **change), *small.plan.options[1:]]


def test_a_place_that_is_not_there_is_named_with_the_nearest(chain):
    small = prune(chain, 0.5)
    with pytest.raises(
        PenjingError, match=r"group 'conv11', which Chain.* the nearest is 'conv1'\. Nothing was applied"
    ):
        prune_again(chain, changed(small, place=Place("group", "conv11")), None)
    with pytest.raises(PenjingError, match="'conv1' is a weight there"):
        prune_again(chain, changed(prune(chain, 0.5, granularity="element"), place=Place("group", "conv1")), None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"keep": "3"}, "'keep' must be a whole number"),
        ({"keep": True}, "'keep' must be a whole number"),
        ({"keep": -1}, r"keep=-1: it must be a whole number from 0"),
        ({"keep": None}, "'keep' is missing"),
        ({"keep": 2}, "'after' is 3, but by 'keep' it will be 2"),
        ({"critrion": "l1"}, "Unknown key 'critrion'. Did you mean 'criterion'?"),
        ({"amount": 1.5}, r"amount=1\.5: it must be a number, 0 or more, at most 1"),
        ({"amount": "half"}, "'amount' must be a number"),
        ({"round_to": 0}, "round_to=0"),
        ({"batches": None}, "'batches' must be a whole number"),
        ({"criterion": "l3"}, "l3"),
        ({"granularity": "fibre"}, "fibre"),
        ({"seed": -1}, "seed"),
        ({"schedule": "cubic"}, "in the course of a training"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, said, chain):
    small = prune(chain, 0.5, include=["conv1"])
    with pytest.raises(PenjingError, match=said):
        prune_again(chain, changed(small, setting={**small.plan[0].setting, **change}), None)


def test_a_number_of_weights_or_branches_that_contradicts_what_stays_is_refused(chain, residual):
    for graph, choices, wrong in (
        (chain, {"granularity": "element"}, {"after": 3}),
        (chain, {"granularity": "2:4", "amount": None}, {"after": 3}),
        (residual, {"granularity": "layer"}, {"after": 1}),
    ):
        small = prune(graph, **{"amount": 0.5} | choices)
        with pytest.raises(PenjingError, match=r"'after' is \d, but by '\w+' it will be \d+; .* Nothing was applied"):
            prune_again(graph, changed(small, **wrong), None)
        whole = prune_again(graph, changed(small, after=None), None)
        assert all(torch.equal(tensor, small.tensor(name)) for name, tensor in whole.tensors().items())


@pytest.mark.parametrize(
    ("granularity", "amount", "keep", "said"),
    [
        ("2:4", None, 3, "says itself how much stays"),
        ("element", 0.5, None, "'keep' is missing"),
        ("layer", 0.5, 2, "0 or 1"),
    ],
)
def test_each_granularity_has_the_numbers_that_it_needs(granularity, amount, keep, said, chain, residual):
    graph = residual if granularity == "layer" else chain
    small = prune(graph, amount, granularity=granularity)
    with pytest.raises(PenjingError, match=said):
        prune_again(graph, changed(small, setting={**small.plan[0].setting, "keep": keep}), None)


def test_the_plan_of_another_model_is_refused(chain, stream):
    with pytest.raises(PenjingError, match=r"which .* hasn't"):
        again(stream, prune(chain, 0.5))
    options = [replace(option, before=option.before + 1) for option in prune(chain, 0.5).plan]
    with pytest.raises(PenjingError, match="it is the plan of another model"):
        prune_again(chain, options, None)
    small = prune(chain, 0.5, include=["conv1"])
    for keep in (0, 7):
        setting = {**small.plan[0].setting, "keep": keep}
        with pytest.raises(
            PenjingError, match=f"keeps {keep} of 6 units of 'conv1', which has 6: it is the plan of another"
        ):
            prune_again(chain, changed(small, setting=setting, after=None), None)


def test_data_that_the_criterion_needs_is_asked_for(chain, data):
    with pytest.raises(PenjingError, match="'taylor', which needs data"):
        again(chain, prune(chain, 0.5, criterion="taylor", data=data))
