"""Five architectures from capture to another process: pruned by half, trained, lowered, run at other sizes, reloaded."""

import copy
import subprocess
import sys
from functools import cache

import pytest
import torch
from torch.utils import _pytree as pytree

import penjing as pj
from networks.bi_lstm import BiLSTMClassifier
from networks.llama import Llama
from networks.ssd import SSD
from networks.swin import Swin
from networks.unet import UNet
from penjing.targets import run

FREE_IMAGE, FREE_TOKENS = {"image": (0, 2, 3)}, {"tokens": (0, 1)}


def images(*shape):
    return torch.randn(shape)


def tokens(*shape):
    return torch.randint(0, 30, shape)


# Model, part to capture, example, free axes, an input of another batch and size.
CASES = {
    "bidirectional LSTM": (BiLSTMClassifier, None, tokens(2, 6), FREE_TOKENS, tokens(3, 9)),
    "Llama": (Llama, None, tokens(2, 6), FREE_TOKENS, tokens(3, 9)),
    "U-Net": (UNet, None, images(2, 3, 16, 24), FREE_IMAGE, images(3, 3, 26, 21)),
    "SSD": (SSD, "predictor", images(2, 3, 32, 48), FREE_IMAGE, images(3, 3, 50, 37)),
    "Swin": (Swin, None, images(2, 3, 16, 24), FREE_IMAGE, images(3, 3, 40, 30)),
}
LARGEST_SHARE = 0.3


class Story:
    """One network on its way: captured and pruned once for all tests."""

    def __init__(self, name):
        make, self.part, self.example, self.free, self.other = CASES[name]
        torch.manual_seed(0)
        self.model = make().eval()
        self.graph = pj.capture(self.model, self.example, dynamic=self.free, part=self.part)
        self.small = pj.prune(self.graph, amount=0.5)


@cache
def told(name):
    return Story(name)


@pytest.fixture(params=list(CASES))
def story(request):
    return told(request.param)


def leaves(value):
    return [leaf.detach() for leaf in pytree.tree_leaves(value)]


def agree(actual, expected, tolerance):
    pairs = list(zip(leaves(actual), leaves(expected), strict=True))
    return all(a.shape == e.shape and (a - e).abs().max() <= tolerance * e.abs().max() for a, e in pairs)


def size(graph):
    return sum(p.numel() for p in graph.parameters())


def trained(graph, x):
    """Makes one step; checks that it reaches every parameter and lowers the loss."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(graph.train().parameters(), lr=1e-3)

    def loss():
        return sum((y - 1).square().mean() for y in pytree.tree_leaves(graph(x)))

    before = {name: p.detach().clone() for name, p in graph.named_parameters()}
    first = loss()
    first.backward()
    missing = [name for name, p in graph.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    optimizer.step()
    still = [name for name, p in graph.named_parameters() if torch.equal(p, before[name])]
    assert not missing
    assert first.isfinite() and len(still) < len(before) / 4  # a bias before a batch norm has no influence
    graph.eval()


def test_the_graph_is_the_model_at_other_sizes(story):
    captured = story.model.get_submodule(story.part) if story.part else story.model
    assert agree(story.graph(story.other), captured(story.other), 1e-4)


def test_half_of_all_units_go_and_the_outputs_keep_their_shapes(story):
    assert size(story.small) <= LARGEST_SHARE * size(story.graph)
    for x in (story.example, story.other):
        assert [y.shape for y in leaves(story.small(x))] == [y.shape for y in leaves(story.graph(x))]


def test_the_lowered_file_agrees_at_another_batch_and_size(story, tmp_path):
    artifact = pj.lower(story.small, target="onnxruntime", path=tmp_path / "m.onnx")
    assert agree(run(artifact, story.other), story.small(story.other), 1e-3)


RELOAD = """
import sys, torch, penjing
for name in sys.argv[1:]:
    graph = penjing.load(name + ".penjing")
    x = torch.load(name + ".in")
    torch.save([y.detach() for y in torch.utils._pytree.tree_leaves(graph(x))], name + ".out")
    graph.train()
    sum(y.square().mean() for y in torch.utils._pytree.tree_leaves(graph(x))).backward()
    torch.optim.SGD(graph.parameters(), lr=1e-3).step()
    graph.eval().save(name + ".penjing")
assert not any(name.startswith("networks") for name in sys.modules)
"""


def test_another_process_that_never_saw_the_classes_reloads_them_and_trains_on(tmp_path):
    for name in CASES:
        story = told(name)
        story.small.save(tmp_path / f"{name}.penjing")
        torch.save(story.other, tmp_path / f"{name}.in")
    done = subprocess.run(
        [sys.executable, "-c", RELOAD, *CASES], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    for name in CASES:
        story = told(name)
        assert agree(torch.load(tmp_path / f"{name}.out"), story.small(story.other), 1e-6), name
        again = pj.load(tmp_path / f"{name}.penjing")
        assert any(not torch.equal(a, b) for a, b in zip(again.parameters(), story.small.parameters(), strict=True))
        trained(again, story.example)


def test_a_step_of_training_reaches_the_parameters(story):
    trained(copy.deepcopy(story.small), story.example)


def test_the_whole_detector_runs_with_its_smaller_part():
    story = Story("SSD")
    assert story.model(story.other)
    story.small.write_into(story.model)
    assert size(story.model) == size(story.small)
    detections = story.model(story.other)
    assert [sorted(one) for one in detections] == [["boxes", "labels", "scores"]] * len(story.other)
    assert all(one["boxes"].shape == (len(one["labels"]), 4) for one in detections)
