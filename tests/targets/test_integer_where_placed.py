"""What the placement calls integer is integer in the model that ONNX Runtime executes, whatever stands around it.

Every op of the placement's tables has a branch of its own in one network, between two layers; one op of each kind also
reads the input, and gives an output.
"""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from penjing.capabilities import find
from penjing.graph import capture, fold_batch_norms
from penjing.quantization import quantize
from penjing.quantization.placement.rewritten import place_rewritten
from penjing.targets import lower, profile

aten = torch.ops.aten
INTEGER_KERNELS = ("QLinear", "QGemm", "MatMulInteger")
CHANNELS, STEPS = 8, 8
PLACEMENT = find("onnxruntime").placement


def image_layer():
    return nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)


def token_layer():
    return nn.Linear(CHANNELS, CHANNELS)


IMAGES = {  # (N, C, H, W)
    "add": lambda x: x + x.flip(3).flip(3),
    "mul": lambda x: x * x,
    "cat": lambda x: torch.cat([x, x], 3),
    "concat": lambda x: torch.concat([x, x], 2),
    "concatenate": lambda x: torch.concatenate([x, x, x], 3),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "avg_pool2d with padding": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 2),
    "adaptive_avg_pool2d to one": lambda x: F.adaptive_avg_pool2d(x, 1),
    "mean": lambda x: x.mean((2, 3), keepdim=True),
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "leaky_relu": F.leaky_relu,
    "matmul": lambda x: x @ x.transpose(2, 3),
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "reshape": lambda x: x.reshape(-1, CHANNELS, 4, 16),
    "flatten, unflatten": lambda x: x.flatten(2).unflatten(2, (16, 4)),
    "transpose": lambda x: x.transpose(2, 3),
    "permute, contiguous": lambda x: x.permute(0, 1, 3, 2).contiguous(),
    "squeeze, unsqueeze": lambda x: x.unsqueeze(2).squeeze(2),
    "squeeze of many": lambda x: x.unsqueeze(2).unsqueeze(2).squeeze((2, 3)),
    "clone": torch.clone,
    "dropout": lambda x: F.dropout(F.dropout2d(x, training=False), training=False),
    "slice": lambda x: x[:, :, 1:, ::2],
    "chunk": lambda x: x.chunk(2, 3)[1],
    "split": lambda x: x.split(1, 3)[0],
    "split to sizes": lambda x: aten.split.sizes(x, [1, x.shape[3] - 1], 3)[1],
    "split_with_sizes": lambda x: aten.split_with_sizes.default(x, [x.shape[2] - 1, 1], 2)[0],
    "pad": lambda x: F.pad(x, (1, 1, 1, 1)),
    "constant_pad_nd": lambda x: aten.constant_pad_nd.default(x, [2, 1]),
    "nearest": lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
    "nearest to a size": lambda x: F.interpolate(x, size=(12, 20), mode="nearest"),
    "relu": F.relu,
    "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, -1, 1),
    "clamp": lambda x: x.clamp(-0.5, 0.7),
    "clamp_min, clamp_max": lambda x: x.clamp_min(0.0).clamp_max(0.7),
    "silu": F.silu,
    "hardswish": F.hardswish,
    "relu behind pooling": lambda x: F.max_pool2d(x, 2).relu(),
    "upsampling into a cat": lambda x: torch.cat([F.interpolate(F.max_pool2d(x, 2), scale_factor=2.0), x], 3),
}
TOKENS = {  # (N, T, C)
    "add of tokens": lambda x: x + x,
    "matmul of tokens": lambda x: x @ x.transpose(1, 2),
    "bmm": lambda x: torch.bmm(x, x.transpose(1, 2)),
    "heads": lambda x: x.unflatten(2, (2, 4)).transpose(1, 2).transpose(1, 2).flatten(2),
}


IN_FRONT = ["add", "cat", "avg_pool2d", "sigmoid", "max_pool2d", "transpose", "slice", "nearest", "relu", "silu"]


class Branch(nn.Module):
    """An op in front of a layer, and behind it where it also reads the input."""

    def __init__(self, op, layer, outside=False):
        super().__init__()
        self.op, self.layer, self.outside = op, layer(), outside

    def forward(self, x):
        x = self.layer(self.op(x))
        return self.op(x) if self.outside else x


class Alone(nn.Module):
    """A kind of layer between the input and an output."""

    def __init__(self, layer, shape):
        super().__init__()
        self.layer, self.shape = layer(), shape

    def forward(self, x):
        return self.layer(x.reshape(-1, *self.shape))


LAYERS = {
    "conv2d, same": (lambda: nn.Conv2d(8, 8, 3, padding="same"), (8, 8, 8)),
    "conv2d by channel": (lambda: nn.Conv2d(8, 8, 3, stride=1, dilation=2, padding=2, groups=8), (8, 8, 8)),
    "conv1d": (lambda: nn.Conv1d(8, 8, 3, padding=1), (8, 64)),
    "conv3d": (lambda: nn.Conv3d(8, 8, 3, padding=1), (8, 4, 4, 4)),
    "conv1d, same": (lambda: nn.Conv1d(8, 8, 3, padding="same", bias=False), (8, 64)),
    "conv3d, same": (lambda: nn.Conv3d(8, 8, (1, 3, 3), padding="same"), (8, 4, 4, 4)),
    "linear of a vector": (lambda: nn.Linear(512, 512), (512,)),
    "linear of images": (lambda: nn.Linear(8, 8), (8, 8, 8)),
}
NAMES = [*IMAGES, *TOKENS, *(f"{name} outside" for name in IN_FRONT), *LAYERS]


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.tokens = image_layer(), token_layer()
        self.branches = nn.ModuleList(
            [
                *(Branch(op, image_layer) for op in IMAGES.values()),
                *(Branch(op, token_layer) for op in TOKENS.values()),
                *(Branch(IMAGES[name], image_layer, outside=True) for name in IN_FRONT),
                *(Alone(*layer) for layer in LAYERS.values()),
            ]
        )

    def forward(self, image, tokens):
        given = [self.image(image)] * len(IMAGES) + [self.tokens(tokens)] * len(TOKENS)
        given += [image] * (len(self.branches) - len(given))
        return [branch(x) for branch, x in zip(self.branches, given, strict=True)]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    graph = capture(Network().eval(), (torch.randn(2, CHANNELS, 8, 8), torch.randn(2, STEPS, CHANNELS)))
    placed = place_rewritten(copy.deepcopy(fold_batch_norms(graph)), PLACEMENT, lambda node: False)
    return graph, placed


@pytest.fixture(scope="module")
def executed(network, tmp_path_factory):
    """The nodes of every branch that should be integer, with the kernels that ran for them."""
    graph, placed = network
    small = quantize(graph, [graph.example_inputs(8)], corrections=())
    kernels = {}
    for row in profile(lower(small, path=tmp_path_factory.mktemp("branches") / "model.onnx")):
        kernels.setdefault(row.node, []).append(row.op)
    found = {name: [] for name in NAMES}
    for node in (node for node in placed.integer if node.meta["module"].startswith("branches.")):
        place = int(node.meta["module"].split(".")[1])
        found[NAMES[place]].append((node, kernels.get(node.name, [])))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_what_the_placement_calls_integer_runs_in_integers(executed, name):
    nodes = executed[name]
    assert any(kernels for _, kernels in nodes)
    in_float = {node.name: kernels for node, kernels in nodes if kernels and not any(map(_is_integer, kernels))}
    assert not in_float


def _is_integer(kernel):
    return kernel.startswith(INTEGER_KERNELS)


def test_every_op_of_the_placement_is_tried(network):
    graph, _ = network
    seen = {node.target for node in graph.program.graph.nodes if node.op == "call_function"}
    tables = (PLACEMENT.layers, PLACEMENT.integer, PLACEMENT.same, PLACEMENT.clips, PLACEMENT.gates)
    assert {str(op) for table in tables for op in table if op not in seen} == set()
