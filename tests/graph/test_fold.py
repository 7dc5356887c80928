import pytest
import torch
from surgery_networks import networks, randomised
from torch import nn

from penjing.graph import capture, fold_batch_norms
from penjing.graph.capture.verify import close

NORM = torch.ops.aten.batch_norm.default


def norms(graph) -> int:
    return sum(node.target is NORM for node in graph.program.graph.nodes)


def folded(model, *shape):
    torch.manual_seed(0)
    graph = capture(randomised(model), torch.randn(shape))
    small = fold_batch_norms(graph)
    x = torch.randn(shape)
    assert close(small(x), graph(x), 1e-5)
    return graph, small


@pytest.mark.parametrize("name", ["option A", "inverted residual", "grouped", "channel shuffle", "U-Net"])
def test_networks_compute_the_same_without_their_norms(name):
    graph, small = folded(networks()[name], 2, 3, 8, 8)
    assert norms(graph) > 0 and norms(small) == 0
    assert not any("running" in key for key in small.state_dict())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_biases_and_scales_may_be_absent(bias, affine):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4, affine=False))
    if affine:
        model[1] = nn.BatchNorm2d(4)
    _, small = (
        folded(model, 2, 3, 8, 8)
        if affine
        else (None, fold_batch_norms(capture(model.eval(), torch.randn(2, 3, 8, 8))))
    )
    assert norms(small) == 0 and "0.bias" in small.state_dict()


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)), (2, 3, 8)),
        (nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4)), (2, 3, 4, 4, 4)),
        (nn.Sequential(nn.Conv1d(3, 4, 3, padding="same"), nn.BatchNorm1d(4)), (2, 3, 8)),
        (nn.Sequential(nn.Conv3d(3, 4, 3, padding="same"), nn.BatchNorm3d(4)), (2, 3, 4, 4, 4)),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), (2, 3)),
        (nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.BatchNorm2d(4)), (2, 3, 8, 8)),
    ],
)
def test_norms_behind_every_kind_of_layer_fold(model, shape):
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    assert norms(folded(model, *shape)[1]) == 0


def test_a_norm_before_its_convolution_stays():
    _, small = folded(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3)), 2, 3, 8, 8)
    assert norms(small) == 1


def test_a_norm_of_a_convolution_that_others_read_stays():
    class Read(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x):
            x = self.conv(x)
            return self.norm(x) + x

    assert norms(folded(Read(), 2, 3, 8, 8)[1]) == 1


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        self.two.weight = self.one.weight
        self.norm, self.other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.other(self.two(self.norm(self.one(x))))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.other = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.other(self.conv(self.norm(self.conv(x))))


@pytest.mark.parametrize("model", [Shared(), Twice()], ids=["tied", "called twice"])
def test_norms_behind_shared_weights_stay(model):
    assert norms(folded(model, 2, 3, 8, 8)[1]) == 2


def test_a_norm_called_twice_is_folded_into_both():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.norm = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.norm(self.two(self.norm(self.one(x))))

    assert norms(folded(Both(), 2, 3, 8, 8)[1]) == 0


def test_the_graph_itself_keeps_its_norms_and_training_mode():
    graph = capture(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), torch.randn(2, 3, 8, 8)).train()
    small = fold_batch_norms(graph)
    assert norms(graph) == 1 and graph.training and not small.training


def test_a_norm_that_uses_the_batch_stays():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    assert norms(fold_batch_norms(capture(model, torch.randn(2, 3, 8, 8)))) == 1


def test_masks_of_folded_weights_stay_zero():
    graph = capture(randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))), torch.randn(2, 3, 8, 8))
    graph.masks["0.weight"] = torch.rand(4, 3, 3, 3) > 0.5
    graph.apply_masks()
    small = fold_batch_norms(graph)
    assert (small.tensor("0.weight")[~small.masks["0.weight"]] == 0).all()
