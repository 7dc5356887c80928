import pytest
import small_networks as nets
import torch
from torch import nn

from penjing.capabilities import find
from penjing.errors import PenjingError
from penjing.graph import capture, fold_batch_norms
from penjing.quantization import quantize
from penjing.quantization.placement.sites import place
from penjing.report import words

OPS, PLACEMENT = torch.ops.quantized_decomposed, find("onnxruntime").placement


def _graph(network: type[nn.Module]):
    torch.manual_seed(0)
    return capture(network().eval(), torch.randn(2, 8, 8, 8))


def _placed(network: type[nn.Module], excluded: tuple[str, ...] = ()):
    graph = fold_batch_norms(_graph(network))
    return place(graph, PLACEMENT, lambda node: node.meta.get("module") in excluded)


def _names(placed) -> list[str]:
    return [site.node.name for site in placed.sites]


def test_a_residual_block_rounds_its_input_and_once_behind_each_group():
    placed = _placed(nets.Residual)
    # behind the activations, never between them and what they belong to; logits stay exact
    assert _names(placed) == ["x", "relu", "conv2d_1", "relu_1", "adaptive_avg_pool2d"]
    assert [layer.name for layer in placed.layers] == ["conv2d", "conv2d_1", "linear"]


def test_a_shortcut_of_slice_and_pad_passes_integers_on():
    assert _names(_placed(nets.OptionA)) == ["x", "conv2d", "relu", "conv2d_1"]


def test_a_shuffle_passes_integers_on_and_its_concatenation_is_rounded():
    assert _names(_placed(nets.Shuffle)) == ["x", "relu", "cat", "conv2d_1"]


def test_values_that_only_go_into_a_concatenation_take_its_grid():
    placed = _placed(nets.Fire)
    grid = {site.node.name: site.grid_of.name for site in placed.sites}
    assert grid == {"x": "x", "relu": "relu", "relu_1": "cat", "relu_2": "cat", "cat": "cat", "conv2d_3": "conv2d_3"}


def test_a_clip_isnt_widened_to_the_grid_of_a_concatenation():
    # the passed half may be negative, so the filtered half's ReLU would come back
    grid = {site.node.name: site.grid_of.name for site in _placed(nets.Shuffle).sites}
    assert grid["relu"] == "relu"


def test_grids_lie_within_the_clips_before_them():
    within = {site.node.name: site.within for site in _placed(nets.Depthwise).sites}
    six = next(bounds for bounds in within.values() if bounds == (0.0, 6.0))
    assert six and (-1.0, 1.0) in within.values()


def test_gates_stay_integer_by_rewriting_them():
    graph = quantize(_graph(nets.Gated), [torch.randn(4, 8, 8, 8)])
    targets = [node.target for node in graph.program.graph.nodes]
    assert torch.ops.aten.silu.default not in targets
    assert torch.ops.aten.sigmoid.default in targets
    assert torch.ops.aten.gelu.default in targets  # an island in floating point


def test_an_activation_behind_a_pool_moves_before_it():
    graph = quantize(_graph(nets.PoolFirst), [torch.randn(4, 8, 8, 8)])
    relu = next(node for node in graph.program.graph.nodes if node.target is torch.ops.aten.relu.default)
    assert relu.args[0].target is torch.ops.aten.conv2d.default
    assert next(iter(relu.users)).target is OPS.quantize_per_tensor.default


def test_what_the_target_computes_in_float_keeps_float_weights():
    placed = _placed(nets.Upsampled)
    assert [layer.meta["module"] for layer in placed.layers] == ["conv1", "conv2"]


def test_a_shared_weight_is_rounded_once():
    graph = quantize(_graph(nets.Shared), [torch.randn(4, 8, 8, 8)])
    pairs = [node for node in graph.program.graph.nodes if node.target is OPS.quantize_per_channel.default]
    assert len(pairs) == 1
    assert [record.place.path for record in graph.plan] == ["conv"]


def test_an_excluded_layer_reads_and_writes_floats_that_its_neighbours_round():
    placed = _placed(nets.Residual, excluded=("conv2",))
    assert [layer.meta["module"] for layer in placed.layers] == ["conv1", "head"]
    assert "conv2d_1" in _names(placed)  # the sum is still one of integers


def test_a_graph_of_excluded_layers_gets_no_pairs():
    placed = _placed(nets.Residual, excluded=("conv1", "conv2", "head"))
    assert placed.sites == () and placed.layers == ()


def test_only_integer_readers_of_a_float_value_read_it_rounded():
    placed = _placed(nets.Residual, excluded=("conv1",))
    (first,) = [site for site in placed.sites if site.node.name == "x"]
    assert first.users is not None
    assert [user.target for user in first.users] == [torch.ops.aten.add.Tensor]


@pytest.mark.parametrize("network", nets.NETWORKS)
def test_every_layers_input_is_rounded_and_ops_that_move_values_keep_their_grid(network):
    graph = quantize(_graph(network), [torch.randn(4, 8, 8, 8)])
    for node in graph.program.graph.nodes:
        weight = node.args[1] if len(node.args) > 1 else None
        if getattr(weight, "target", None) is not OPS.dequantize_per_channel.default:
            continue
        value = node.args[0]
        while value.target in PLACEMENT.same:
            value = value.args[0]
        assert value.target is OPS.dequantize_per_tensor.default
        assert value.args[0].args[1:] == value.args[1:]


def test_a_last_linear_layer_is_rounded_only_behind_a_clip():
    def names(*behind: nn.Module) -> list[str]:
        graph = capture(nn.Sequential(nn.Linear(8, 8), *behind).eval(), torch.randn(2, 8))
        return _names(place(graph, PLACEMENT))

    assert names() == ["input_1"]
    assert names(nn.ReLU()) == ["input_1", "relu"]


# By name


def test_integer_leaves_no_layer_in_float_or_names_the_one_that_must():
    batches = [torch.randn(4, 8, 8, 8)]
    assert len(quantize(_graph(nets.Depthwise), batches, placement="integer").plan) == 4
    with pytest.raises(PenjingError, match="onnxruntime computes 'conv_transpose2d' in 'up' in floating point"):
        quantize(_graph(nets.Upsampled), batches, placement="integer")


def test_integer_lets_the_excluded_be():
    graph = quantize(_graph(nets.Upsampled), [torch.randn(4, 8, 8, 8)], placement="integer", exclude=["up"])
    assert [(record.place.path, record.after) for record in graph.plan] == [
        ("conv1", "int8"),
        ("conv2", "int8"),
        ("up", "float32"),
    ]


def test_a_product_of_activations_that_only_floats_read_isnt_integer():
    with pytest.raises(PenjingError, match="'matmul'"):
        quantize(_graph(nets.Tokens), [torch.randn(4, 8, 8, 8)], placement="integer")


def test_the_plan_names_layers_that_are_faster_in_float():
    graph = quantize(_graph(nets.Residual), [torch.randn(4, 8, 8, 8)], in_float=["conv2"])
    assert [(record.place.path, record.after) for record in graph.plan] == [
        ("conv1", "int8"),
        ("head", "int8"),
        ("conv2", "float32"),
    ]
    assert words(graph.plan[-1].to_json()) == "measured faster in floating point"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"placement": "integers"}, "Did you mean 'integer'"),
        ({"placement": "integer", "in_float": ["conv2"]}, "leaves no layer in floating point"),
        ({"in_float": ["conv9"]}, "conv9"),
    ],
)
def test_placements_that_mean_nothing_are_errors(settings, message):
    with pytest.raises(PenjingError, match=message):
        quantize(_graph(nets.Residual), [torch.randn(4, 8, 8, 8)], **settings)
