"""Every registered signal, from its name to trained weights."""

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_fakes import Net, data

from penjing.distillation import signals
from penjing.distillation.taps import tap_pairs
from penjing.graph import capture
from penjing.training import recover


class Block(nn.Module):
    """Attention and a linear layer, both beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.attention(x).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        looked = nn.functional.scaled_dot_product_attention(queries, keys, values)
        return x + self.out(looked.transpose(1, 2).flatten(2))


class Encoder(nn.Module):
    """Patches, blocks, and a classifier of their mean; the classifier's bias is what all widths have in common."""

    def __init__(self, width: int, depth: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


@cache
def pair(kind: str) -> tuple[nn.Module, nn.Module]:
    """Returns a student and its teacher, captured."""
    nets = (Net(2), Net(1)) if kind == "maps" else (Encoder(4, 2, 2), Encoder(8, 4, 1))
    student, teacher = (capture(net.eval(), torch.randn(2, 3, 8, 8)) for net in nets)
    return student, teacher


@pytest.mark.parametrize("kind", ["maps", "sequences"])
@pytest.mark.parametrize("name", signals)
def test_a_signal_trains_the_student_by_itself(name: str, kind: str) -> None:
    if kind == "maps" and name == "transformer":
        pytest.skip("a network of maps is no transformer")
    student, teacher = copy.deepcopy(pair(kind)[0]), pair(kind)[1]
    before = {key: value.clone() for key, value in student.named_parameters()}
    kept = {key: value.clone() for key, value in teacher.named_parameters()}
    told: list[Any] = []
    recover(
        student,
        data(),
        teacher,
        2,
        signal=name,
        distill_weight=1.0,  # labels count for nothing
        weight_decay=0,
        lr=0.01,
        precision="float32",
        channels_last=False,
        progress=False,
        report=told.append,
    )
    assert told[-1]["losses"]["guidance"] < told[0]["losses"]["guidance"]
    moved = {key for key, value in student.named_parameters() if not torch.equal(value, before[key])}
    assert moved == {"head.bias"} if (name, kind) == ("gradient_sharing", "sequences") else len(moved) > 1
    assert all(torch.equal(value, kept[key]) for key, value in teacher.named_parameters())


def test_a_transformer_is_compared_at_its_blocks_and_at_queries_and_keys_in_turn() -> None:
    student, teacher = pair("sequences")
    found = tap_pairs(student, teacher, "transformer")
    blocks, attention = tap_pairs(student, teacher, "blocks"), tap_pairs(student, teacher, "attention")
    assert len(blocks) == 2 and len(attention) == 4 and found == [*blocks, *attention]
    shapes = [
        [graph.with_outputs([name])(torch.zeros(2, 3, 8, 8))[1][name].shape for name in names]
        for graph, names in zip((student, teacher), zip(*found, strict=True), strict=True)
    ]
    assert shapes == [[(2, 4, 4)] * 2 + [(2, 2, 4, 2)] * 4, [(2, 4, 8)] * 2 + [(2, 2, 4, 4)] * 4]
