import copy
import os
from pathlib import Path

import pytest
import small_networks as nets
import torch
from torch import nn
from torch.nn import functional as F

from penjing import data as penjing_data
from penjing import targets, tasks, zoo
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import Graph, capture, channels, load
from penjing.graph.patterns import matches
from penjing.quantization import observers, quantize
from penjing.report import words

SHARED = Path(os.environ.get("PENJING_SHARED", Path(__file__).parents[3] / "shared"))


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _graph(network: type[nn.Module] = nets.Residual) -> Graph:
    torch.manual_seed(0)
    return capture(network().eval(), torch.randn(2, 8, 8, 8))


def _batches(count: int = 3, size: int = 16) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 8, 8, 8, generator=generator) for _ in range(count)]


def _signal_to_noise(expected: torch.Tensor, actual: torch.Tensor) -> float:
    return float(10 * torch.log10(expected.var() / (expected - actual).var()))


# What comes out


@pytest.mark.parametrize("network", nets.NETWORKS)
def test_rounding_to_8_bits_costs_little(network):
    graph, x = _graph(network), _batches()[0]
    small = quantize(graph, _batches())
    with torch.no_grad():
        assert _signal_to_noise(graph(x), small(x)) > 25
        assert not torch.equal(graph(x), small(x))


@pytest.mark.parametrize("observer", observers)
def test_every_observer_quantises_a_network(observer):
    graph, x = _graph(), _batches()[0]
    with torch.no_grad():
        assert _signal_to_noise(graph(x), quantize(graph, _batches(), observer=observer)(x)) > 25


@pytest.mark.parametrize("name", ["mobilenet_v2_cifar", "squeezenet", "shufflenet_v2_cifar"])
def test_reference_networks_keep_their_signal(name):
    torch.manual_seed(0)
    model, batch = zoo.networks[name].function(), torch.randn(4, 3, *([64, 64] if name == "squeezenet" else [32, 32]))
    with torch.no_grad():
        for _ in range(20):  # batch norms with statistics of these inputs
            model(batch)
    graph = capture(model.eval(), batch[:2])
    with torch.no_grad():
        assert _signal_to_noise(graph(batch), quantize(graph, [batch])(batch)) > 8  # random and deep


def test_the_argument_stays_as_it_was():
    graph, x = _graph(), _batches()[0]
    before, state, code = graph(x), copy.deepcopy(graph.state_dict()), graph.program.code
    quantize(graph, _batches())
    assert graph.program.code == code and not graph.plan
    assert all(torch.equal(value, state[name]) for name, value in graph.state_dict().items())
    torch.testing.assert_close(graph(x), before, rtol=0, atol=0)


def test_the_plan_says_what_was_done_where():
    small = quantize(_graph(), _batches(), observer="percentile:99.9")
    setting = "int8 weights per channel, uint8 activations (percentile:99.9), mean and variance corrected"
    assert [(step.place.kind, step.place.path, step.before, step.after) for step in small.plan] == [
        ("weight", place, "float32", "int8") for place in ("conv1", "conv2", "head")
    ]
    assert all(words(step.to_json()) == setting for step in small.plan)
    assert small.plan[0].setting == {
        "weights": "int8", "grain": "channel", "activations": "uint8", "observer": "percentile:99.9", "rounding": "nearest",
        "corrections": "auto", "target": "onnxruntime", "placement": "fastest", "exclude": [], "in_float": [],
        "simulate": False, "seed": 0,
    }  # fmt: skip


def test_scales_stand_beside_the_weights_and_nodes_keep_their_origin():
    small = quantize(_graph(), _batches())
    state = small.state_dict()
    assert state["conv1.weight_scale"].shape == (8,) and state["conv1.weight_scale"].dtype == torch.float32
    assert torch.equal(state["conv1.weight_zero_point"], torch.zeros(8, dtype=torch.int64))
    assert isinstance(small.tensor("conv1.weight"), nn.Parameter)
    pairs = [node for node in small.program.graph.nodes if "quantize" in str(node.target)]
    assert all("module" in node.meta and "source" in node.meta for node in pairs)
    assert any(node.meta["module"] == "conv1" for node in pairs)


def test_it_is_repeatable():
    first, second = (quantize(_graph(), _batches(), observer="mse") for _ in range(2))
    assert first.program.code == second.program.code


def test_a_saved_graph_gives_the_same(tmp_path):
    small, x = quantize(_graph(nets.SqueezeExcite), _batches()), _batches()[0]
    small.save(tmp_path / "small.penjing")
    again = load(tmp_path / "small.penjing")
    assert again.plan == small.plan
    torch.testing.assert_close(again(x), small(x), rtol=0, atol=0)


def test_weights_alone_need_no_data():
    graph, x = _graph(), _batches()[0]
    small = quantize(graph, activations=None)
    assert words(small.plan[0].to_json()) == "int8 weights per channel"
    assert not any("per_tensor" in str(node.target) for node in small.program.graph.nodes)
    with torch.no_grad():
        assert _signal_to_noise(graph(x), small(x)) > 30


def test_data_and_batches_of_inputs_and_labels_give_the_same():
    labelled = [(batch, torch.zeros(len(batch), dtype=torch.int64)) for batch in _batches()]
    data = Data(None, labelled, None, tasks.Classification(4))
    codes = {quantize(_graph(), given).program.code for given in (data, labelled, _batches(), iter(_batches()))}
    assert len(codes) == 1


def test_several_inputs_are_calibrated_together():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(6, 4)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.a(x) + self.b(y)

    graph = capture(Two().eval(), (torch.randn(2, 4), torch.randn(2, 6)))
    batches = [(torch.randn(8, 4), torch.randn(8, 6), torch.zeros(8)) for _ in range(2)]
    x, y, _ = batches[0]
    assert _signal_to_noise(graph(x, y), quantize(graph, batches)(x, y)) > 25


# Layers that stay in floating point


@pytest.mark.parametrize("pattern", ["conv2", "conv[2]"])
def test_excluded_layers_keep_float_weights(pattern):
    small = quantize(_graph(), _batches(), exclude=[pattern])
    assert [(record.place.path, record.found.get("reason")) for record in small.plan] == [
        ("conv1", None),
        ("head", None),
        ("conv2", "asked"),
    ]
    assert "conv2.weight_scale" not in small.state_dict()


@pytest.mark.parametrize("pattern", ["conv2", "conv[2]"])
def test_only_included_layers_are_rounded(pattern):
    small = quantize(_graph(), _batches(), include=[pattern])
    assert {record.place.path: record.found.get("reason") for record in small.plan} == {
        "conv1": "asked",
        "head": "asked",
        "conv2": None,
    }
    assert [name for name in small.state_dict() if name.endswith("weight_scale")] == ["conv2.weight_scale"]


def test_an_included_layer_that_is_excluded_too_stays_in_floating_point():
    small = quantize(_graph(), _batches(), include=["conv?"], exclude=["conv2"])
    assert [record.place.path for record in small.plan if record.after != "float32"] == ["conv1"]


def test_a_pattern_takes_all_below_a_module():
    graph = capture(zoo.resnet20().eval(), torch.randn(2, 3, 32, 32))
    small = quantize(graph, [torch.randn(4, 3, 32, 32)], exclude=["layer1", "layer2.*", "linear"])
    assert {record.place.path.partition(".")[0] for record in small.plan if record.after != "float32"} == {
        "conv1",
        "layer3",
    }


@pytest.mark.parametrize("pattern", ["layer1.0", "layer?.*.conv1"])
def test_a_pattern_names_the_same_modules_as_for_channels(pattern):
    graph = capture(zoo.resnet20().eval(), torch.randn(2, 3, 32, 32))
    stays = {name.rpartition(".")[0] for name in graph.tensors() if matches(name.rpartition(".")[0], [pattern])}
    small = quantize(graph, [torch.randn(4, 3, 32, 32)], exclude=[pattern])
    layers = {row.module for row in graph.cost().rows if row.macs}
    assert {record.place.path for record in small.plan if record.after != "float32"} == layers - stays
    assert {record.place.path for record in small.plan if record.found.get("reason") == "asked"} == stays & layers
    pinned = {pin.tensor.rpartition(".")[0] for pin in channels(graph, exclude=[pattern]).pinned if pin.axis == 0}
    assert layers & stays <= pinned


def test_what_is_no_module_path_is_refused_and_the_nearest_is_named():
    with pytest.raises(PenjingError, match=r"Unknown module pattern 'conv2d_1'.*Did you mean 'conv[12]'"):
        quantize(_graph(), _batches(), exclude=["conv2d_1"])
    with pytest.raises(PenjingError, match=r"Unknown module pattern 'conv2d_1'.*Did you mean 'conv[12]'"):
        quantize(_graph(), _batches(), include=["conv2d_1"])


def test_three_dimensional_convolutions_are_integer_on_the_runtime(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(3, 16, 3, padding="same"), nn.ReLU(), nn.Conv3d(16, 16, 3, padding=1), nn.ReLU())
    graph = capture(net.eval(), torch.randn(2, 3, 6, 6, 6))
    artifact = targets.lower(quantize(graph, [torch.randn(4, 3, 6, 6, 6)]), path=tmp_path / "model.onnx")
    assert targets.integer_macs(artifact, graph.cost().macs) == pytest.approx(1)


def test_folded_batch_norms_may_be_named():
    assert len(quantize(_graph(), _batches(), exclude=["bn1"]).plan) == 3


# Training


def test_gradients_reach_the_weights_of_a_quantised_graph():
    small, x = quantize(_graph(), _batches()), _batches()[0]
    small.train()
    F.cross_entropy(small(x), torch.arange(16) % 4).backward()
    for name, parameter in small.named_parameters():
        assert parameter.grad is not None and float(parameter.grad.abs().sum()) > 0, name


@pytest.mark.parametrize("network", nets.NETWORKS)
def test_training_mode_computes_what_evaluation_mode_does(network):
    small, x = quantize(_graph(network), _batches()), _batches()[0]
    with torch.no_grad():
        expected = small(x)
        torch.testing.assert_close(small.train()(x), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(small.eval()(x), expected, rtol=0, atol=0)


def test_a_few_steps_of_training_reduce_the_error_of_rounding():
    graph, x = _graph(), torch.cat(_batches())
    small = quantize(graph, _batches())
    with torch.no_grad():
        wanted = graph(x)
        before = F.mse_loss(small(x), wanted)
    small.train()
    optimizer = torch.optim.SGD(small.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        F.mse_loss(small(x), wanted).backward()
        optimizer.step()
    small.eval()
    with torch.no_grad():
        assert F.mse_loss(small(x), wanted) < before


# On the runtime


@pytest.mark.parametrize(
    ("network", "activations"), [*((network, "uint8") for network in nets.NETWORKS), (nets.SqueezeExcite, "int8")]
)
def test_onnxruntime_multiplies_integers_wherever_it_can(network, activations, tmp_path):
    small, x = quantize(_graph(network), _batches(), activations=activations), _batches()[0]
    artifact = targets.lower(small, path=tmp_path / "small.onnx")
    cost = small.cost()
    # what is left: a transposed convolution, and a product of two activations that only floats read
    left = sum(row.macs for row in cost.rows if row.op in ("conv_transpose2d", "matmul"))
    assert targets.integer_macs(artifact, cost.macs) == pytest.approx(1 - left / cost.macs, abs=1e-6)
    with torch.no_grad():
        largest = float(small(x).abs().max())
    assert targets.check_parity(artifact, small, [x]).max_abs_error < 0.03 * largest


@pytest.mark.parametrize("exclude", [["conv1"], ["conv1", "head"]])
def test_excluded_layers_leave_the_others_integer_on_the_runtime(exclude, tmp_path):
    small, x = quantize(_graph(), _batches(), exclude=exclude), _batches()[0]
    artifact = targets.lower(small, path=tmp_path / "small.onnx")
    cost = small.cost()
    left = sum(row.macs for row in cost.rows if row.module in exclude)
    assert targets.integer_macs(artifact, cost.macs) == pytest.approx(1 - left / cost.macs, abs=1e-6)
    assert targets.check_parity(artifact, small, [x]).max_abs_error < 0.02


def test_resnet20_loses_less_than_half_a_point_on_cifar10(tmp_path):
    weights, images = SHARED / "models/cifar10jpeg-resnet20.safetensors", SHARED / "data/cifar10.zip"
    if not weights.is_file() or not images.is_file():
        pytest.skip(f"needs the trained network and CIFAR-10 in {SHARED} (set PENJING_SHARED)")
    from safetensors.torch import load_file

    model, data = zoo.resnet20(), penjing_data.cifar10(images)
    model.load_state_dict(load_file(weights))
    graph = capture(model.eval(), torch.randn(2, 3, 32, 32))
    small = quantize(graph, data)
    before = tasks.evaluate(graph, data.validation, data.task, limit=1000)
    after = tasks.evaluate(small, data.validation, data.task, limit=1000)
    assert before - after < 0.005
    artifact = targets.lower(small, path=tmp_path / "small.onnx")
    assert targets.integer_macs(artifact, small.cost().macs) > 0.999


# Bad input


@pytest.mark.parametrize("data", [None, [], torch.randn(4, 8, 8, 8), 3, Data(None, None, None, tasks.Unlabelled())])
def test_quantising_activations_without_data_is_an_error(data):
    with pytest.raises(PenjingError, match="calibration data"):
        quantize(_graph(), data)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_arent_finite_name_their_layer(value):
    graph = _graph()
    with torch.no_grad():
        graph.tensor("conv2.weight")[0, 0, 0, 0] = value
    with pytest.raises(PenjingError, match="conv2"):
        quantize(graph, _batches())


def test_a_graph_without_layers_is_an_error():
    graph = capture(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), torch.randn(2, 8, 8, 8))
    with pytest.raises(PenjingError, match="no convolution, linear layer or embedding"):
        quantize(graph, _batches())
    with pytest.raises(PenjingError, match="isn't excluded"):
        quantize(_graph(), _batches(), exclude=["*"])


def test_quantising_twice_is_an_error():
    with pytest.raises(PenjingError, match="already"):
        quantize(quantize(_graph(), _batches()), _batches())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": "int"}, "Did you mean 'int"),
        ({"activations": "uinto8"}, "Did you mean 'uint8'"),
        ({"observer": "minimax"}, "Did you mean 'minmax'"),
        ({"observer": "percentile:x"}, "no number"),
        ({"observer": "percentile:3"}, "above 50"),
        ({"observer": "minmax:3"}, "takes no parameter"),
        ({"exclude": ["conv9"]}, "conv9"),
        ({"weights": None}, "weights=None"),
    ],
)
def test_unknown_settings_are_errors(settings, message):
    with pytest.raises(PenjingError, match=message):
        quantize(_graph(), _batches(), **settings)


def test_batches_of_the_wrong_shape_are_errors():
    with pytest.raises(PenjingError, match="shape"):
        quantize(_graph(), [torch.randn(2, 3, 8, 8)])
    with pytest.raises(PenjingError, match=r"Unexpected input 'y'|Missing input"):
        quantize(_graph(), [{"y": torch.randn(2, 8, 8, 8)}])


def test_a_large_bias_on_a_channel_of_tiny_weights_fits_into_32_bits():
    graph = capture(nn.Linear(4, 2), torch.randn(2, 4))
    with torch.no_grad():
        graph.tensor("weight").copy_(torch.tensor([[1e-9] * 4, [1.0] * 4]))
        graph.tensor("bias").copy_(torch.tensor([3.0, 0.0]))
    small = quantize(graph, [torch.rand(8, 4)])
    pair = next(node for node in small.program.graph.nodes if "quantize_per_tensor" in str(node.target))
    assert float(3.0 / (pair.args[1] * small.tensor("weight_scale")[0])) <= 2**30 * 1.001
