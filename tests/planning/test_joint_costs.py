"""What kernels cost by what stays around them, against the graphs that really are left."""

import itertools
import random

import pytest
import torch
from residual import Block
from torch import nn

import penjing as pj
from penjing.capabilities import find as capabilities
from penjing.planning.assignment import Assignment
from penjing.planning.joint_costs import TOO_LARGE, Structure, energy_of, stored_entries
from penjing.planning.latency import Kernel, kernels_of
from penjing.techniques import Scope, find


class Joined(nn.Module):
    """Two convolutions whose channels are joined, one of them depthwise behind, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(3, 24, 3)
        self.depthwise, self.head = nn.Conv2d(40, 40, 3, groups=40), nn.Linear(40, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both = torch.cat([torch.relu(self.a(x)), torch.relu(self.b(x))], 1)
        return self.head(torch.relu(self.depthwise(both)).mean((2, 3)))


def residual() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), Block(16, 24), Block(16, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 4),
    )  # fmt: skip


def work(kernel: Kernel) -> float:
    """A made-up latency. Where a branch goes, the ReLU behind its sum is left over: it is free."""
    return 0.0 if kernel.op == "relu" else kernel.macs + 3.0 * kernel.elements


def whole(graph: pj.Graph) -> dict[str, float]:
    kernels = list(kernels_of(graph, 1).values())
    layers = float(sum(kernel.macs > 0 for kernel in kernels))
    macs, energy = sum(kernel.macs for kernel in kernels), sum(map(energy_of, kernels))
    about = pytest.approx(energy, rel=1e-6)
    return {"ms": sum(map(work, kernels)), "macs": float(macs), "layers": layers, "energy": about}


@pytest.mark.parametrize("make", [residual, Joined])
def test_sums_are_those_of_the_graph_that_is_left(make):
    torch.manual_seed(0)
    graph = pj.capture(make().eval(), torch.randn(2, 3, 12, 12))
    technique = find("prune", {"criterion": "l2"})
    options = list(technique.choices(graph, None, capabilities("onnxruntime"), Scope()))
    structure = Structure(graph, options, Scope())
    counts = {name: choice.count for name, choice in structure.choices.items()}
    kernels = kernels_of(graph, 1)
    joints = [*structure.joints(kernels, work), *structure.memory(graph.cost().lifetimes, 0.0)]
    problem = Assignment(counts, joints, structure.implied)
    steps = {name for joint in joints for name in joint.amounts if "step" in name}
    assert problem.total("macs", dict.fromkeys(counts, 0)) == graph.cost().macs
    draw, tried = random.Random(0), 0
    everything = [dict(zip(counts, one, strict=True)) for one in itertools.product(*map(range, counts.values()))]
    for taken in draw.sample(everything, min(len(everything), 40)):
        if not problem.allows(taken):
            continue
        chosen = [
            structure.choices[name].options[at]
            for name, at in taken.items()
            if at < len(structure.choices[name].options)
        ]
        some = technique.settled(graph, [option for option in chosen if option is not None])
        small = technique.apply(graph, some, None) if some else graph
        assert {name: problem.total(name, taken) for name in whole(small)} == whole(small), taken
        most = max(problem.total(step, taken) for step in steps)
        if any(option is not None and option.place.kind == "branch" for option in chosen):
            assert most >= small.cost().peak_activation_bytes, (
                taken
            )  # a ReLU that is left over may need no memory of its own
        else:
            assert most == small.cost().peak_activation_bytes, taken
        tried += 1
    assert tried >= 3


@pytest.mark.parametrize("batch", [1, 8])
def test_multiplications_and_energy_are_those_of_a_sample_whatever_the_batch(batch):
    graph = pj.capture(residual().eval(), torch.randn(2, 3, 12, 12))
    options = list(find("prune", {"criterion": "l2"}).choices(graph, None, capabilities("onnxruntime"), Scope()))
    structure = Structure(graph, options, Scope())
    counts = {name: choice.count for name, choice in structure.choices.items()}
    joints = list(structure.joints(kernels_of(graph, batch), work, samples=batch))
    problem, nothing = Assignment(counts, joints, structure.implied), dict.fromkeys(counts, 0)
    assert problem.total("macs", nothing) == graph.cost().macs
    assert problem.total("energy", nothing) == pytest.approx(graph.cost().energy_mj(), rel=0.01)


@pytest.mark.parametrize("numbers", ["float32", "int8"])
def test_the_energy_of_a_kernel_is_that_of_the_graph_that_it_is_in(numbers):
    graph = pj.capture(nn.Conv2d(8, 16, 3).eval(), torch.randn(2, 8, 12, 12))
    if numbers == "int8":
        batches = [torch.randn(4, 8, 12, 12)]
        graph = pj.quantize(graph, batches, weights="int8", activations="int8")
    (kernel,) = (one for one in kernels_of(graph, 1).values() if one.macs)
    assert kernel.numbers == numbers
    expected = 1e-9 * (8 * 16 * 9 * 100 * (4.6 if numbers == "float32" else 0.3))
    item = 4 if numbers == "float32" else 1
    expected += 1e-9 * (item * (8 * 144 + 16 * 100) * 12.5 + (item * 16 * 72 + 4 * 16) * 162.5)
    assert energy_of(kernel) == pytest.approx(expected)


@pytest.mark.parametrize(("grid", "entry"), [("int4", 0.5), ("int8", 1.0)])
def test_bytes_and_energy_of_weights_are_those_that_a_grid_stores(grid, entry):
    torch.manual_seed(0)
    graph = pj.capture(Joined().eval(), torch.randn(2, 3, 12, 12))
    small = pj.quantize(graph, [torch.randn(4, 3, 12, 12)], weights=grid)
    kernels, cost = kernels_of(small, 1), small.cost()
    stored = stored_entries(kernels, {row.node: row.traffic.weights for row in cost.rows})
    assert set(stored.values()) == {entry} and len(stored) == 4
    joints = list(Structure(graph, [], Scope()).joints(kernels, work, stored=stored))
    problem, layers = Assignment({}, joints), (graph.a, graph.b, graph.depthwise, graph.head)
    assert problem.total("bytes", {}) == sum(entry * one.weight.numel() + 4 * len(one.bias) for one in layers)
    assert problem.total("energy", {}) == pytest.approx(cost.energy_mj(), rel=0.02)


def test_only_steps_and_tensors_that_pass_a_limit_are_counted():
    graph = pj.capture(residual().eval(), torch.randn(2, 3, 12, 12))
    options = list(find("prune").choices(graph, None, capabilities("onnxruntime"), Scope()))
    structure, cost = Structure(graph, options, Scope()), graph.cost()
    assert not list(structure.memory(cost.lifetimes, cost.peak_activation_bytes, cost.largest_tensor_bytes))
    widest = max(one.bytes for one in cost.lifetimes)
    joints = list(structure.memory(cost.lifetimes, cost.peak_activation_bytes - 1, widest - 1))
    problem = Assignment({name: one.count for name, one in structure.choices.items()}, joints, structure.implied)
    nothing = dict.fromkeys(structure.choices, 0)
    steps = {name for joint in joints for name in joint.amounts if "step" in name}
    assert {problem.total(step, nothing) for step in steps} == {cost.peak_activation_bytes}
    assert problem.total(TOO_LARGE, nothing) == sum(one.bytes == widest for one in cost.lifetimes)


def test_layers_that_one_convolution_stands_for_cost_nothing_and_nothing_else_is_done_to_them():
    torch.manual_seed(0)
    graph = pj.capture(residual().eval(), torch.randn(2, 3, 12, 12))
    prune, merge, factorize = find("prune", {"criterion": "l2"}), find("merge"), find("factorize")
    can = capabilities("onnxruntime")
    options = [
        option for one in (prune, factorize, merge) for option in one.choices(graph, None, can, Scope())
        if option.place.kind != "weight" or option.place.path.startswith("4.")
    ]  # fmt: skip
    structure, before, made = Structure(graph, options, Scope()), kernels_of(graph, 1), {}
    for name, choice in structure.choices.items():
        if choice.place.kind == "weight":
            by_name = {"factorize": factorize, "merge": merge}
            drafts = [by_name[option.technique].draft(graph, [option], None) for option in choice.options[1:]]
            made[name] = [structure.replacement(name, one, before, kernels_of(one, 1)) for one in drafts]
    structure.note_gone(made)
    counts = {name: choice.count for name, choice in structure.choices.items()}
    lifetimes = graph.cost().lifetimes
    joints = [*structure.joints(before, work, made), *structure.memory(lifetimes, 0.0)]
    problem = Assignment(counts, joints, structure.implied)
    steps = {name for joint in joints for name in joint.amounts if "step" in name}
    place = structure.choices["weight 4.conv2"]
    merged = [at for at, one in enumerate(place.options) if one is not None and one.technique == "merge"]
    assert merged
    for at in merged:
        taken = dict.fromkeys(counts, 0) | {place.name: at}
        small = merge.draft(graph, [place.options[at]], None)
        assert problem.allows(taken)
        assert {name: problem.total(name, taken) for name in whole(small)} == whole(small)
        most = max(problem.total(step, taken) for step in steps)
        assert most >= small.cost().peak_activation_bytes
        for name in ("group 4.conv1", "group 0", "weight 4.conv1"):
            assert counts[name] > 1 and not problem.allows(taken | {name: 1}), name
        gone = structure.choices["branch 4"]
        assert not problem.allows(taken | {gone.name: gone.gone})


def test_a_layer_that_is_replaced_costs_what_replaces_it_and_keeps_its_sides_whole():
    torch.manual_seed(0)
    graph = pj.capture(residual().eval(), torch.randn(2, 3, 12, 12))
    prune, factorize = find("prune", {"criterion": "l2"}), find("factorize")
    can = capabilities("onnxruntime")
    options = [
        *prune.choices(graph, None, can, Scope()),
        *(o for o in factorize.choices(graph, None, can, Scope()) if o.place.path == "4.conv1"),
    ]
    assert any(option.technique == "factorize" for option in options)
    structure = Structure(graph, options, Scope())
    before = kernels_of(graph, 1)
    chains = {}
    for name, choice in structure.choices.items():
        if choice.place.kind == "weight":
            drafts = [factorize.draft(graph, [option], None) for option in choice.options[1:]]
            chains[name] = [structure.replacement(name, one, before, kernels_of(one, 1)) for one in drafts]
    counts = {name: choice.count for name, choice in structure.choices.items()}
    problem = Assignment(counts, list(structure.joints(before, work, chains)), structure.implied)
    for at, option in enumerate(structure.choices["weight 4.conv1"].options[1:], 1):
        taken = dict.fromkeys(counts, 0) | {"weight 4.conv1": at}
        assert problem.allows(taken)
        assert problem.total("macs", taken) == factorize.apply(graph, [option], None).cost().macs
        assert not problem.allows(taken | {"group 4.conv1": 1}), "its channels stay"


def test_a_layer_inside_of_a_branch_that_goes_is_not_replaced():
    graph = pj.capture(residual().eval(), torch.randn(2, 3, 12, 12))
    techniques, can = (find("prune", {"criterion": "l2"}), find("factorize")), capabilities("onnxruntime")
    options = [o for one in techniques for o in one.choices(graph, None, can, Scope()) if o.place.kind != "group"]
    structure = Structure(graph, options, Scope())
    problem = Assignment({name: one.count for name, one in structure.choices.items()}, [], structure.implied)
    taken = dict.fromkeys(structure.choices, 0) | {"branch 3": structure.choices["branch 3"].gone}
    assert problem.allows(taken)
    assert not problem.allows(taken | {"weight 3.conv1": 1})
    assert problem.allows(taken | {"weight 4.conv1": 1}), "the other block's"
