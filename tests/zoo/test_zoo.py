import os
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from penjing import zoo
from penjing.errors import PenjingError

SHARED = Path(os.environ.get("PENJING_SHARED", Path(__file__).parents[3] / "shared"))

# Parameters and multiply-accumulates (millions) as published: He et al. 2015, Idelbayev's CIFAR ResNets, torchvision's
# tables, Han et al. 2015.
PUBLISHED = {
    "lenet300": (266_610, 0.2662),
    "lenet5": (431_080, 2.293),
    "resnet20": (269_722, 40.55),
    "resnet32": (464_154, 68.86),
    "resnet44": (658_586, 97.17),
    "resnet56": (853_018, 125.49),
    "vgg16_cifar": (14_724_042, 313.2),
    "mobilenet_v2": (3_504_872, 300.8),
    "squeezenet": (1_235_496, 349.2),
    "shufflenet_v2": (2_278_604, 144.9),
}


@pytest.fixture(autouse=True)
def one_thread():
    """Batches this small gain nothing from a second thread, and lose much where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_macs_are_the_published_ones(name):
    parameters, macs = PUBLISHED[name]
    model = zoo.build(name).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    with FlopCounterMode(display=False) as counter:
        model(zoo.example_input(name)[:1])
    assert counter.get_total_flops() / 2e6 == pytest.approx(macs, rel=0.005)


@pytest.mark.parametrize("name", zoo.networks)
def test_every_network_trains_on_its_example_input(name):
    torch.manual_seed(0)
    model = zoo.build(name, num_classes=7).train()
    logits = model(zoo.example_input(name))
    assert logits.shape == (2, 7)
    # An untrained network is unsure: its loss is near log(7), so its initialisation neither explodes nor vanishes.
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1]))
    assert 0.5 < loss.item() < 6 and logits.std().item() > 1e-3
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", zoo.networks)
def test_every_network_takes_other_channels(name):
    example = zoo.example_input(name)
    channels = 3 if example.shape[1] == 1 else 1
    model = zoo.build(name, in_channels=channels).eval()
    assert model(example[:1, :1].expand(-1, channels, -1, -1)).shape[0] == 1


@pytest.mark.parametrize("make", [zoo.mobilenet_v2, zoo.squeezenet, zoo.shufflenet_v2])
def test_the_small_form_has_the_same_weights_and_keeps_more_of_a_small_image(make):
    small, large = make(num_classes=10, size=32), make(num_classes=10, size=224)
    small.load_state_dict(large.state_dict())
    x = torch.randn(2, 3, 32, 32)
    with FlopCounterMode(display=False) as counts_small:
        assert small.eval()(x).shape == (2, 10)
    with FlopCounterMode(display=False) as counts_large:
        assert large.eval()(x).shape == (2, 10)
    assert counts_small.get_total_flops() > 4 * counts_large.get_total_flops()


def test_option_a_keeps_the_input_in_the_middle_channels():
    block = zoo.resnet20().layer2[0].eval()
    torch.nn.init.zeros_(block.bn2.weight)  # the residual branch is silent: only the shortcut is left
    x = torch.rand(1, 16, 8, 8)
    out = block(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any() and not out[:, 24:].any()


def test_the_shuffle_interleaves_both_halves():
    from penjing.zoo._shufflenet_v2 import _shuffle

    assert _shuffle(torch.arange(6.0).reshape(1, 6, 1, 1)).flatten().tolist() == [0, 3, 1, 4, 2, 5]


def test_lenets_take_other_sizes():
    assert zoo.lenet5(in_channels=3, size=32)(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert zoo.lenet300(in_channels=3, size=32)(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_an_unknown_network_gets_the_nearest_name():
    for use in (zoo.build, zoo.example_input):
        with pytest.raises(PenjingError, match="Did you mean 'resnet56'"):
            use("resnet57")


@pytest.mark.parametrize(
    "file", ["cifar10-resnet20", "cifar10-resnet56", "cifar10jpeg-resnet20", "cifar10jpeg-resnet56"]
)
def test_trained_cifar_resnets_load_strictly(file):
    path = SHARED / "models" / f"{file}.safetensors"
    if not path.exists():
        pytest.skip(f"needs the trained models: {path} is not there")
    from safetensors.torch import load_file

    zoo.build(file.split("-")[1]).load_state_dict(load_file(path), strict=True)
