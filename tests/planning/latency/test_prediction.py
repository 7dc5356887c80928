"""The latency of whole models: kernels of graphs, which sizes are measured, and the sum that is corrected by whole models."""

import json

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.planning import Deployment
from penjing.planning.latency import (
    FLOAT32,
    INT8,
    Context,
    Correction,
    Kernel,
    LatencyTable,
    Predictor,
    Whole,
    activations_of,
    boundary,
    corrected,
    grid,
    kernels_of,
    side_by_side,
)
from penjing.planning.latency.boundaries import between
from penjing.planning.latency.predict import fastest
from penjing.targets import ExecutedNode


class Residual(nn.Module):
    """A convolution, a residual branch with a depthwise one, pooling and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.wide = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.wide(self.depthwise(x)) + x)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.fixture(scope="module")
def graph():
    return pj.capture(Residual().eval(), torch.randn(2, 3, 16, 16))


@pytest.fixture(scope="module")
def quantised(graph):
    return pj.quantize(graph, [torch.randn(4, 3, 16, 16)])


def measurer(kernels, deployment):
    """Kernels take 5 µs and 1 ns per multiply-accumulate, a quarter of it in integers."""
    return {k: 5.0 + (k.macs or k.elements) / 1e3 * (1.0 if k.numbers == FLOAT32 else 0.25) for k in kernels}


@pytest.fixture
def table(graph, tmp_path):
    made = LatencyTable(tmp_path / "t.sqlite", Deployment(), device="a device", measurer=measurer)
    made.measure(grid(kernels_of(graph).values(), 8))
    return made


# Kernels


def test_a_graph_has_a_kernel_for_each_op_that_takes_time_with_norms_and_activations_folded(graph):
    found = kernels_of(graph, batch=4)
    assert [kernel.op for kernel in found.values()] == [
        "conv2d", "conv2d", "conv2d", "add", "adaptive_avg_pool2d", "linear",
    ]  # fmt: skip
    stem, depthwise, _, total, _, head = found.values()
    assert stem.inputs == ((4, 3, 16, 16),) and stem.output == (4, 16, 8, 8) and stem.stride == (2, 2)
    assert depthwise.depthwise and total.activation == "relu" and head.weight == (10, 16)
    assert sum(kernel.macs for kernel in found.values()) == 4 * graph.cost().macs


def test_a_quantised_graph_has_kernels_in_integers_and_what_lies_at_its_input(quantised):
    found = kernels_of(quantised)
    layers = [kernel for kernel in found.values() if kernel.weight]
    assert all(kernel.numbers == INT8 for kernel in layers) and len(layers) == 4
    assert [kernel.op for kernel in found.values() if kernel.op == "quantize"] == ["quantize"]


def test_a_layer_left_in_float_computes_in_float_between_a_dequantize_and_a_quantize(graph):
    mixed = pj.quantize(graph, [torch.randn(4, 3, 16, 16)], exclude=["depthwise", "wide"])
    found = kernels_of(mixed)
    kinds = {kernel.op: kernel.numbers for kernel in found.values() if kernel.weight and kernel.groups == 16}
    assert kinds == {"conv2d": FLOAT32} and {"quantize", "dequantize"} <= {kernel.op for kernel in found.values()}


def test_activations_belong_to_the_op_before(graph):
    owners = activations_of(graph)
    assert set(owners.values()) == {node for node, k in kernels_of(graph).items() if k.op == "add" or k.ins == 3}


@pytest.mark.parametrize(
    ("groups", "ins", "outs", "weight", "left"),
    [(1, 8, 24, (24, 8, 3, 3), 1), (16, 8, None, (8, 1, 3, 3), 8), (4, 6, 10, (12, 2, 3, 3), 4)],
    ids=["dense", "depthwise", "grouped"],
)
def test_a_resized_kernel_has_other_channels_on_either_side(groups, ins, outs, weight, left):
    kernel = Kernel("conv2d", ((1, 16, 8, 8),), (1, 16, 8, 8), (16, 16 // groups, 3, 3), (1, 1), (1, 1), (1, 1), groups)
    small = kernel.resized(ins, outs)
    assert small.weight == weight and small.groups == left
    assert small.output[1] == weight[0] and small.inputs[0][1] == weight[1] * left


def test_a_kernel_reads_back_from_its_json(graph):
    for kernel in kernels_of(graph).values():
        assert Kernel.from_json(json.loads(kernel.key)) == kernel


# Which sizes are measured


def test_a_grid_holds_the_originals_in_all_numbers_and_the_multiples_below(graph):
    own = kernels_of(graph).values()
    found = grid(own, 8)
    assert {k.in_numbers(n) for k in own for n in (FLOAT32, INT8)} <= set(found)
    wide = {(k.ins, k.outs) for k in found if k.weight and k.numbers == INT8 and k.weight[2:] == (1, 1)}
    assert wide == {(8, 8), (8, 16), (16, 8), (16, 16)}
    assert {k.ins for k in found if k.stride == (2, 2)} == {3}


# Whole models


def whole(graph, numbers, us, scale=1.0, extra=()):
    """A model in which each kernel takes what the table says, and 2 µs are added by the profile."""
    kernels = {node: kernel.in_numbers(numbers) for node, kernel in kernels_of(graph).items()}
    took = measurer(kernels.values(), None)
    executed = [
        ExecutedNode(node, kernel.op, "m", node, took[kernel] * scale, False, kernel.macs)
        for node, kernel in kernels.items()
    ]
    return Whole(numbers, kernels, [*executed, *extra], us, activations_of(graph))


def test_a_prediction_is_the_sum_of_its_nodes_and_the_rest(graph, table):
    kernels = kernels_of(graph)
    context = Context(2.0, {node: 1.0 for node in kernels}, {node: 1.0 for node in kernels}, 10.0, 2.0)
    predictor = Predictor(table, Correction({FLOAT32: context}, 1.5, 4.0))
    expected = sum(2 * (table.ms(k) * 1e3 - 1.5) for k in kernels.values()) + 2 * (10 - 2 * 1.5) + 4
    assert predictor.ms(kernels, FLOAT32) == pytest.approx(expected / 1e3)
    split = sum(predictor.node_ms(node, k) for node, k in kernels.items()) + predictor.rest_ms(FLOAT32)
    assert split == pytest.approx(predictor.ms(kernels, FLOAT32))


def test_the_correction_finds_the_machines_speed_from_the_originals(graph, table):
    us = {n: sum(table.ms(k.in_numbers(n)) * 1e3 - 2 for k in kernels_of(graph).values()) for n in (FLOAT32, INT8)}
    slow = corrected(table, [whole(graph, FLOAT32, 3 * us[FLOAT32]), whole(graph, INT8, 1.5 * us[INT8])])
    assert slow.contexts[FLOAT32].scale == pytest.approx(3, rel=0.02)
    assert slow.contexts[INT8].scale == pytest.approx(1.5, rel=0.02) and slow.node_us == pytest.approx(2, abs=0.2)


def test_a_sum_that_the_runtime_computes_within_a_layer_costs_nothing_in_any_plan(graph, table):
    full = whole(graph, FLOAT32, 100.0)
    node = next(node for node, kernel in full.kernels.items() if kernel.op == "add")
    fused = Whole(FLOAT32, full.kernels, [one for one in full.executed if one.node != node], 100.0, full.activations)
    predictor = Predictor(table, corrected(table, [fused]))
    assert predictor.node_ms(node, full.kernels[node].resized(8)) == 0


def test_what_the_runtime_puts_in_counts_for_the_op_beside_it_and_activations_for_their_own(graph, table):
    full = whole(graph, FLOAT32, 100.0)
    at = next(n for n, one in enumerate(full.executed) if one.op == "add")
    relu = next(name for name, owner in full.activations.items() if owner == full.executed[at].node)
    more = [
        ExecutedNode("r", "Reorder", None, None, 6.0, False, 0),
        ExecutedNode("x", "Relu", "m", relu, 3.0, False, 0),
    ]
    executed = [*full.executed[: at + 1], *more, *full.executed[at + 1 :]]
    context = corrected(table, [Whole(FLOAT32, full.kernels, executed, 100.0, full.activations)]).contexts[FLOAT32]
    node = full.executed[at].node
    alone = table.ms(full.kernels[node]) * 1e3
    assert context.factors[node] == pytest.approx((alone + 9) / alone) and context.executed[node] == 3


def test_nodes_without_a_kernel_are_the_rest(graph, table):
    extra = [ExecutedNode("q", "Reshape", "m", "flatten", 7.0, False, 0)]
    context = corrected(table, [whole(graph, FLOAT32, 100.0, extra=extra)]).contexts[FLOAT32]
    assert context.rest_us == pytest.approx(7) and context.rest_nodes == 1


def test_a_correction_reads_back_from_its_json(graph, table):
    made = corrected(table, [whole(graph, FLOAT32, 100.0)])
    assert Correction.from_json(made.to_json()) == made


def test_a_table_without_the_models_layers_is_refused(graph, tmp_path):
    empty = LatencyTable(tmp_path / "t.sqlite", Deployment(), device="d", measurer=measurer)
    with pytest.raises(pj.PenjingError, match="none of the model's layers"):
        corrected(empty, [whole(graph, FLOAT32, 100.0)])


def test_what_lies_between_the_two_layers_of_a_pair_is_the_boundarys_time():
    def node(op, module, us, macs=0):
        return ExecutedNode(op, op, module, module and op, us, False, macs)

    kernels = [boundary(Kernel("conv2d", (), (1, 16, 8, 8)), op) for op in ("quantize", "dequantize")]
    executed = [
        node("Round", "", 100.0), node("Conv", "ops.0.first", 50.0, 64), node("Reorder", None, 3.0),
        node("Round", "ops.0.first", 4.0), node("Conv", "ops.0.second", 50.0, 64), node("Reorder", None, 100.0),
        node("Conv", "ops.1.first", 50.0, 64), node("Unround", "ops.1.first", 6.0), node("Conv", "ops.1.second", 50.0, 64),
    ]  # fmt: skip
    assert between(kernels, executed) == dict(zip(kernels, (7.0, 6.0), strict=True))


# On a real runtime


def test_kernels_measured_side_by_side_have_times_of_their_own(graph):
    kernels = [k.in_numbers(n) for k in kernels_of(graph).values() for n in (FLOAT32, INT8)]
    refused = Kernel("add", ((1, 4, 3, 3), (1, 5, 3, 3)), (1, 4, 3, 3), overload="Tensor", arguments='[{"input": 0}]')
    rounding = [boundary(kernels[0], op) for op in ("quantize", "dequantize")]
    found = side_by_side([*kernels, *rounding, refused], Deployment())
    assert set(found) == {*kernels, *rounding} and all(us > 0 for us in found.values())


def test_a_profile_with_other_nodes_than_most_does_not_count():
    def profiled(*times):
        return [ExecutedNode(name, name, "m", name, us, False, 0) for name, us in times]

    profiles = [
        profiled(("a", 3.0), ("b", 5.0)),
        profiled(("a", 1.0), ("reorder", 1.0), ("b", 1.0)),  # compiled with another layout
        profiled(("a", 4.0), ("b", 2.0)),
    ]
    assert [(node.name, node.latency_us) for node in fastest(profiles)] == [("a", 3.0), ("b", 2.0)]
