"""A plan, read from its file, is carried out on the original: the same weights come of it, bit for bit."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.errors import PenjingError
from penjing.graph import Graph, Option, Place, Plan
from penjing.planning import carried_out


class Net(nn.Module):
    """Two convolutions, one of them in front of a norm, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv2, self.head = nn.Conv2d(16, 16, 3), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.conv1(x)))
        return self.head(torch.relu(self.conv2(y)).mean((2, 3)))


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    return pj.capture(Net().eval(), torch.randn(2, 3, 8, 8))


@pytest.fixture(scope="module")
def data() -> pj.Data:
    torch.manual_seed(1)
    batches = [(torch.randn(16, 3, 8, 8), torch.randint(4, (16,))) for _ in range(3)]
    return pj.Data(train=batches, calibration=batches, validation=batches, task=pj.tasks.Classification(4))


def assert_same(left: Graph, right: Graph) -> None:
    assert left.program.code == right.program.code
    assert left.tensors().keys() == right.tensors().keys()
    assert all(torch.equal(tensor, right.tensor(name)) for name, tensor in left.tensors().items())


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"exclude": ["head"]},
        {"in_float": ["conv2"]},
        {"weights": "int4", "observer": "mse", "corrections": ()},
        {"per_layer": {"conv1": "int8/tensor", "conv2": "float32"}},
        {"activations": None, "weights": "codebook:16"},
        {"activations": "dynamic"},
        {"rounding": "adaround:20", "corrections": "bias_correction", "seed": 3},
        {"weights": "int3", "simulate": True},
        {"target": "torch", "activations": None},
    ],
    ids=lambda asked: ",".join(asked) or "defaults",
)
def test_quantising_is_done_again(asked, graph, data, tmp_path):
    small = pj.quantize(graph, data, **asked)
    small.plan.write(tmp_path / "plan.json")
    again = pj.apply(graph, tmp_path / "plan.json", data, stage="numbers")
    assert_same(again, small)
    assert [(step.place, step.after) for step in again.plan if step.after != "float32"] == [
        (step.place, step.after) for step in small.plan if step.after != "float32"
    ]


def test_a_layer_that_the_plan_does_not_name_stays_in_floating_point(graph, data):
    plan = Plan(tuple(step for step in pj.quantize(graph, data).plan if step.place.path != "conv2"))
    again = pj.apply(graph, plan, data, stage="numbers")
    assert {step.place.path: step.after for step in again.plan}["conv2"] == "float32"
    assert_same(again, pj.quantize(graph, data, per_layer={"conv2": "float32"}))


def test_structure_comes_first_and_numbers_on_what_is_left(graph, data):
    pruned = pj.prune(graph, 0.5, criterion="taylor", data=data, seed=2)
    both = pj.quantize(pruned, data)
    plan = Plan.from_json(json.loads(json.dumps(both.plan.to_json())))
    assert_same(pj.apply(graph, plan, data), pruned)
    assert_same(pj.apply(graph, plan, data, stage="all"), both)
    assert_same(pj.apply(pruned, plan, data, stage="numbers"), both)
    backwards = Plan((*plan.of("quantize"), *plan.of("prune")))
    assert_same(pj.apply(graph, backwards, data, stage="all"), both)


def test_a_plan_of_nothing_does_nothing(graph):
    assert_same(pj.apply(graph, Plan()), graph)
    assert carried_out(graph, [], None) is graph


def test_a_plan_without_anything_for_the_stage_says_which_to_ask_for(graph, data):
    with pytest.raises(PenjingError, match=r"nothing for stage='structure'.*Pass stage='numbers'"):
        pj.apply(graph, pj.quantize(graph, data).plan, data)
    with pytest.raises(PenjingError, match="Pass stage='structure'"):
        pj.apply(graph, pj.prune(graph, 0.5).plan, data, stage="numbers")


def first_changed(plan: Plan, **change) -> Plan:
    return Plan((replace(plan[0], **change), *plan.options[1:]))


def test_what_cannot_be_carried_out_is_told_and_the_graph_stays(graph, data, tmp_path):
    before, plan = copy.deepcopy(graph), pj.quantize(graph, data).plan
    wrong = {
        r"weight 'heads', which Net hasn't; the nearest is 'head'": {"place": Place("weight", "heads")},
        r"technique 'melt'": {"technique": "melt"},
        r"disagree on 'observer'": {"setting": {**plan[0].setting, "observer": "mse"}},
        r"'weights' must be a string, and is 8": {"setting": {**plan[0].setting, "weights": 8}},
        r"'after' is 'int8', but by 'weights' it will be 'int4'": {"setting": {**plan[0].setting, "weights": "int4"}},
        r"int9000": {"setting": {**plan[0].setting, "weights": "int9000"}, "after": None},
        r"Unknown key 'alpha'": {"setting": {**plan[0].setting, "alpha": 1}},
    }
    for said, change in wrong.items():
        with pytest.raises(PenjingError, match=said):
            pj.apply(graph, first_changed(plan, **change), data, stage="numbers")
    lacking = [replace(o, setting={k: v for k, v in o.setting.items() if k != "target"}) for o in plan]
    numbered = [replace(o, setting={**o.setting, "corrections": [1]}) for o in plan]
    with pytest.raises(PenjingError, match=r"'corrections\[0\]' must be|'corrections' must be"):
        pj.apply(graph, Plan(tuple(numbered)), data, stage="numbers")
    with pytest.raises(PenjingError, match="'target' is missing"):
        pj.apply(graph, Plan(tuple(lacking)), data, stage="numbers")
    assert_same(graph, before)
    (tmp_path / "plan.json").write_text("[{}]")
    with pytest.raises(PenjingError, match=r"plan\.json holds no plan"):
        pj.apply(graph, tmp_path / "plan.json", data)


def test_the_plan_of_another_model_is_refused_with_the_nearest_place(graph, data):
    other = pj.capture(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(2, 4))
    before = copy.deepcopy(other)
    for plan, stage in ((pj.prune(graph, 0.5).plan, "structure"), (pj.quantize(graph, data).plan, "numbers")):
        with pytest.raises(
            PenjingError, match=r"made for Net .* this graph is Sequential .* has no '\w+' \(the nearest is"
        ):
            pj.apply(other, plan, data, stage=stage)
    assert_same(other, before)
    by_hand = Plan(pj.prune(graph, 0.5).plan.options)
    with pytest.raises(PenjingError, match=r"which Sequential hasn't; the nearest is"):
        pj.apply(other, by_hand, data)


def stack(depth: int) -> Graph:
    torch.manual_seed(0)
    layers = [layer for _ in range(depth) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())]
    return pj.capture(nn.Sequential(*layers), torch.randn(2, 4, 6, 6))


def test_the_plan_of_a_model_whose_places_all_stand_in_another_is_refused():
    short, long = stack(3), stack(5)
    plan = pj.prune(short, 0.5).plan
    assert {option.place for option in plan} < {option.place for option in pj.prune(long, 0.5).plan}
    with pytest.raises(
        PenjingError, match=r"Sequential \(444 parameters\).*Sequential \(740 parameters\).*Nothing was"
    ):
        pj.apply(long, plan)
    read = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert_same(pj.apply(stack(3), read), pj.prune(short, 0.5))


class Other(Net):
    """Has as many parameters as Net, under another name, and an input that is called like one of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv1 = self.conv1, None

    def forward(self, conv2d: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.first(conv2d)))
        return self.head(torch.relu(self.conv2(y)).mean((2, 3)))


def test_of_models_with_as_many_parameters_it_is_said_that_their_tensors_differ_and_a_module_is_named(graph):
    other = pj.capture(Other().eval(), torch.randn(2, 3, 8, 8))
    assert other.architecture.params == graph.architecture.params
    said = r"which has no 'conv1' \(the nearest is 'conv2'\): names or shapes of their tensors differ\. Nothing was applied"
    with pytest.raises(PenjingError, match=said):
        pj.apply(other, pj.prune(graph, 0.5).plan)


def test_a_plan_goes_with_a_graph_through_files_and_copies(graph, data, tmp_path):
    pruned = pj.prune(graph, 0.5)
    pruned.save(tmp_path / "pruned.penjing")
    pruned.save(tmp_path / "compact.penjing", compact=True)
    graph.save(tmp_path / "graph.penjing")
    loaded = [pj.load(tmp_path / f"{name}.penjing") for name in ("pruned", "compact", "graph")]
    for one in (pruned, copy.deepcopy(pruned), pruned.with_outputs([]), *loaded):
        assert one.plan.architecture == graph.architecture
    assert pruned.architecture != graph.architecture, "its plan tells what it was, and it has other shapes"
    again = pj.apply(loaded[2], pruned.plan)
    assert all(torch.equal(tensor, again.tensor(name)) for name, tensor in pruned.tensors().items())


@pytest.mark.parametrize(
    "arguments", [{"plan": 3}, {"plan": [Option]}, {"stage": "none"}, {"data": 3}, {"graph": nn.ReLU()}]
)
def test_bad_arguments_are_refused_at_the_door(arguments, graph):
    with pytest.raises(PenjingError, match=next(iter(arguments))):
        pj.apply(**{"graph": graph, "plan": Plan()} | arguments)
