"""Rewrites of quantise and dequantise nodes: the forms that converters recognise, and no other value anywhere."""

import copy
import operator

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import penjing as pj
from penjing.capabilities import find
from penjing.targets import _pairs

aten = torch.ops.aten
Q, DQ = _pairs.QUANTIZE, _pairs.DEQUANTIZE
MOVES = find("onnxruntime").placement.same


def rewritten(graph, *rewrites):
    """Returns a rewritten copy, which must give the graph's outputs bit for bit."""
    other = copy.deepcopy(graph).eval()
    for rewrite in rewrites:
        rewrite(other.program.graph)
    other.refresh()
    for batch in (1, 3):
        inputs = graph.example_inputs(batch, seed=batch)
        for have, want in zip(other.program(*inputs), graph.program(*inputs), strict=True):
            assert torch.equal(have, want)
    return other


def calls(graph, *targets):
    return [node for node in graph.program.graph.nodes if node.target in targets]


@pytest.fixture(scope="module", name="pairs")
def pairs_(pair):
    """Returns a function that captures a module of one input in which `q(x, scale, zero)` is a pair."""

    def made(forward, shape=(2, 8, 6, 6)):
        class Net(nn.Module):
            def forward(self, x):
                return forward(pair, x)

        torch.manual_seed(0)
        return pj.capture(Net().eval(), torch.randn(shape))

    return made


def move(nodes):
    _pairs.pair_behind_moves(nodes, MOVES)


def test_activations_become_signed_and_keep_their_zero(quantised):
    other = rewritten(quantised, _pairs.sign_activations)
    made = [node for node in calls(other, Q, DQ)]
    assert made and all(node.args[3:] == (-128, 127, torch.int8) for node in made)
    before = [node.args[1:3] for node in calls(quantised, Q, DQ)]
    assert [(node.args[1], node.args[2] + 128) for node in made] == before


def test_signed_activations_and_weights_stay_as_they_are(quantised):
    once = rewritten(quantised, _pairs.sign_activations)
    twice = rewritten(once, _pairs.sign_activations)
    assert twice.program.code == once.program.code


def test_each_op_that_moves_values_gets_a_pair_with_the_numbers_of_its_input(quantised):
    other = rewritten(quantised, move)
    for node in calls(other, aten.slice.Tensor, aten.pad.default, operator.getitem):
        (behind,) = node.users
        source = node.args[0].args[0] if node.target is operator.getitem else node.args[0]
        assert behind.target is Q and source.target is DQ and behind.args[1:] == source.args[1:]
        assert [reader.args[1:] for reader in behind.users] == [behind.args[1:]]
    assert len(calls(other, aten.slice.Tensor, aten.pad.default, operator.getitem)) >= 4
    assert all(
        reader.target is operator.getitem for split in calls(other, aten.chunk.default) for reader in split.users
    )


def test_ops_that_move_real_values_get_no_pair(pairs):
    graph = pairs(lambda q, x: F.max_pool2d(x, 2).sin() + F.max_pool2d(q(x), 2).exp())
    real, rounded = calls(rewritten(graph, move), aten.max_pool2d.default)
    assert [next(iter(pool.users)).target for pool in (real, rounded)] == [aten.sin.default, Q]


def test_a_pair_that_stands_there_is_not_written_twice(quantised):
    once = rewritten(quantised, move)
    assert rewritten(once, move).program.code == once.program.code


def test_operands_of_a_concatenation_get_its_numbers(pairs):
    graph = pairs(lambda q, x: q(torch.cat([q(x, 0.03), q(x.exp(), 0.05, 3), q(x.sin(), 0.05, 3)], 1), 0.05, 3))
    (join,) = calls(rewritten(graph, _pairs.pair_before_joins), aten.cat.default)
    first, second, third = join.args[0]
    assert {operand.args[1:3] for operand in join.args[0]} == {(0.05, 3)}
    assert first.args[0].args[0].target is DQ and second.args[0].args[0].target is aten.exp.default
    assert third.args[0].args[0].target is aten.sin.default


def test_each_reader_has_a_dequantise_node_of_its_own(quantised):
    assert any(len(node.users) > 1 for node in calls(quantised, DQ))
    other = rewritten(quantised, _pairs.dequantize_per_reader)
    assert all(len(node.users) == 1 for node in calls(other, *_pairs.DEQUANTIZE_ALL))
    assert len(calls(other, Q)) == len(calls(quantised, Q))
    assert all(node.meta.get("module") == node.args[0].meta.get("module") for node in calls(other, DQ))


def test_a_reader_that_reads_twice_keeps_one(pairs):
    graph = pairs(lambda q, x: q(x).exp() * q(x) + (y := q(x)) * y)
    other = rewritten(graph, _pairs.dequantize_per_reader)
    assert [len(node.users) for node in calls(other, DQ)] == [1, 1, 1]


def test_ops_that_only_training_needs_go(pairs):
    graph = pairs(lambda q, x: q(F.dropout(x, 0.5, False).contiguous()).clone().flatten(1))
    other = rewritten(graph, _pairs.remove_idle_ops)
    assert [node.target for node in other.program.graph.nodes if node.op == "call_function"] == [
        Q,
        DQ,
        aten.flatten.using_ints,
    ]


@pytest.mark.parametrize(
    ("scale", "zero", "clip", "goes"),
    [
        (0.02, 0, F.relu, True),
        (0.02, 1, F.relu, False),  # codes 0 stands for -0.02
        (6 / 255, 0, F.relu6, True),
        (7 / 255, 0, F.relu6, False),
        (5 / 255, 0, F.relu6, True),
        (4 / 255, 0, lambda x: x.clamp(-1, 4), True),
        (0.02, 0, lambda x: x.clamp(0.1), False),
    ],
)
def test_a_clip_goes_where_the_codes_end_at_its_bounds(pairs, scale, zero, clip, goes):
    graph = pairs(lambda q, x: q(clip(x * 4), scale, zero))
    other = rewritten(graph, _pairs.drop_needless_clips)
    others = {aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.clamp.default}
    assert bool(calls(other, *others)) is not goes and calls(graph, *others)


def test_a_clip_that_others_read_stays(pairs):
    graph = pairs(lambda q, x: q(y := F.relu(x)) + y.exp())
    assert calls(rewritten(graph, _pairs.drop_needless_clips), aten.relu.default)


def test_codes_of_few_bits_are_clipped_as_real_values():
    ops = torch.ops.quantized_decomposed
    grid = (0.3, 5, 0, 15, torch.uint8)

    class Net(nn.Module):
        def forward(self, x):
            return ops.dequantize_per_tensor.default(ops.quantize_per_tensor.default(x * 3, *grid), *grid)

    graph = pj.capture(Net(), torch.randn(2, 500))
    other = rewritten(graph, _pairs.clip_few_bits, _pairs.sign_activations)
    (clip,), (rounding,) = calls(other, aten.hardtanh.default), calls(other, Q)
    assert clip.args[1:] == pytest.approx((-1.5, 3.0)) and rounding.args[2:5] == (-123, -128, -113)
    x = torch.linspace(-9, 9, 4000).reshape(8, 500)
    wide = (0.3, -123, -128, 127, torch.int8)  # what a kernel does that knows the type alone
    clipped = (x * 3).clamp(*clip.args[1:])
    restored = ops.dequantize_per_tensor.default(ops.quantize_per_tensor.default(clipped, *wide), *wide)
    torch.testing.assert_close(restored, graph(x), rtol=0, atol=1e-6)


def test_a_whole_resnet_keeps_its_values_through_all_rewrites():
    torch.manual_seed(0)
    graph = pj.capture(pj.zoo.resnet20(), torch.randn(2, 3, 32, 32))
    small = pj.quantize(graph, [torch.randn(8, 3, 32, 32) for _ in range(2)], corrections=())
    other = rewritten(
        small, _pairs.remove_idle_ops, _pairs.sign_activations, _pairs.drop_needless_clips, _pairs.clip_few_bits,
        move, _pairs.dequantize_per_reader,
    )  # fmt: skip
    assert not calls(other, aten.relu.default) and calls(graph, aten.relu.default)
    assert all(len(node.users) == 1 for node in calls(other, DQ))
