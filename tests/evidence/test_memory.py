"""What is remembered of data: found once, the same bits again, bounded, kept across processes, and never another's."""

import copy
import logging
from dataclasses import replace

import pytest
import torch
from torch import nn

from penjing.data import Data
from penjing.evidence import Memory, memory_of, remembering
from penjing.evidence.memory import RememberedBatches, fingerprint_of
from penjing.graph import capture, channels
from penjing.pruning import prune
from penjing.quantization import quantize, sensitivity
from penjing.tasks import Classification


class Counted:
    """Batches that count how many of them were read."""

    def __init__(self, labelled=True):
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(6, 16, 3, 8, 8, generator=generator)
        labels = torch.randint(4, (6, 16), generator=generator)
        self.batches = list(zip(inputs, labels, strict=True)) if labelled else list(inputs)
        self.read = 0

    def __iter__(self):
        for batch in self.batches:
            self.read += 1
            yield batch


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))
    return capture(model.eval(), torch.randn(2, 3, 8, 8))


def same(one, other):
    ours, theirs = one.tensors(), other.tensors()
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


def answers(*names, asked=None):
    """Finds parts that are made of their names, and notes what it was asked for."""

    def find(missing):
        if asked is not None:
            asked.append(list(missing))
        return {
            name: {"value": torch.tensor([float(len(name)), float("nan")]), "bits": torch.tensor(True)}
            for name in missing
        }

    return find


# The memory itself


def test_only_the_parts_that_are_not_known_are_found():
    memory, asked = Memory(), []
    memory.gather("kind", {}, ["a", "bb"], answers(asked=asked))
    found = memory.gather("kind", {}, ["bb", "ccc", "a"], answers(asked=asked))
    assert asked == [["a", "bb"], ["ccc"]]
    assert list(found) == ["bb", "ccc", "a"] and [float(part["value"][0]) for part in found.values()] == [2, 3, 1]


@pytest.mark.parametrize("other", [("other", {"x": 1}), ("kind", {"x": 2}), ("kind", {})])
def test_another_question_is_another_answer(other, tmp_path):
    memory, asked = Memory(tmp_path), []
    for kind, about in (("kind", {"x": 1}), other):
        memory.gather(kind, about, ["a"], answers(asked=asked))
    assert len(asked) == 2 and len(list(tmp_path.iterdir())) == 2


def test_another_process_gets_the_same_bits_from_the_folder(tmp_path):
    first = Memory(tmp_path / "made", data="mine").gather("kind", {"x": [1, "y"]}, ["a", "layer: b@c"], answers())
    found = Memory(tmp_path / "made", data="mine").gather("kind", {"x": [1, "y"]}, ["a", "layer: b@c"], None)
    for name, part in first.items():
        for tensor, value in part.items():
            assert found[name][tensor].dtype == value.dtype and found[name][tensor].shape == value.shape
            torch.testing.assert_close(found[name][tensor], value, rtol=0, atol=0, equal_nan=True)


def test_data_that_differ_share_no_file(tmp_path):
    asked = []
    for data in ("mine", "yours"):
        Memory(tmp_path, data=data).gather("kind", {}, ["a"], answers(asked=asked))
    assert len(asked) == 2


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-3], lambda whole: b"", lambda whole: b"\xff" * 64, "another's"]
)
def test_a_damaged_file_is_told_and_made_again(damage, tmp_path, caplog):
    Memory(tmp_path).gather("kind", {}, ["a"], answers())
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    if damage == "another's":
        Memory(tmp_path / "b").gather("kind", {"x": 1}, ["a"], answers())
        file.write_bytes(next((tmp_path / "b").iterdir()).read_bytes())
    else:
        file.write_bytes(damage(whole))
    asked = []
    with caplog.at_level(logging.WARNING):
        Memory(tmp_path).gather("kind", {}, ["a"], answers(asked=asked))
    assert asked == [["a"]] and file.name in caplog.text and "found again" in caplog.text
    assert file.read_bytes() == whole


def test_what_was_asked_for_longest_ago_is_forgotten_first_and_what_is_too_large_at_once():
    memory, asked = Memory(most_bytes=2 * 9), []  # two floats and a boolean each
    for name in ("a", "b", "a", "c"):
        memory.gather(name, {}, ["x"], answers(asked=asked))
    assert len(asked) == 3
    memory.gather("a", {}, ["x"], answers(asked=asked))
    assert len(asked) == 3
    memory.gather("b", {}, ["x"], answers(asked=asked))
    assert len(asked) == 4
    for _ in range(2):
        memory.gather("large", {}, ["x", "y", "z"], answers(asked=asked))
    assert asked[-2:] == [["x", "y", "z"]] * 2


def test_answers_of_a_users_functions_stay_in_the_process(tmp_path):
    memory = Memory(tmp_path)
    memory.recall("kind", {}, lambda: {"x": torch.ones(1)}, across_processes=False)
    assert list(tmp_path.iterdir()) == []
    memory.recall("kind", {}, None, across_processes=False)


# Data with a memory


def test_data_with_a_memory_are_the_same_data():
    data = Data(Counted(), Counted(), None, Classification(4), name="mine")
    known = remembering(data)
    assert isinstance(known, Data) and known.train is data.train and known.task is data.task and known.name == "mine"
    assert remembering(known) is known and memory_of(known) is not None and memory_of(data) is None


def test_other_loaders_in_the_place_of_those_remembered_have_no_memory():
    known = remembering(Data(Counted(), Counted(), None, Classification(4)))
    assert memory_of(replace(known, calibration=Counted())) is None
    assert memory_of(replace(known, name="the same loaders")) is memory_of(known)


def test_what_can_be_read_once_only_or_not_at_all_stays_as_it_is():
    once, tensor = iter([torch.ones(1)]), torch.ones(2, 3)
    assert remembering(once) is once and remembering(tensor) is tensor and remembering(None) is None
    assert isinstance(remembering([tensor]), RememberedBatches)


def test_a_graphs_fingerprint_tells_weights_and_nodes_apart(graph):
    other = copy.deepcopy(graph)
    assert fingerprint_of(other) == fingerprint_of(graph)
    with torch.no_grad():
        other.tensor("0.weight")[0, 0, 0, 0] += 1e-6
    assert fingerprint_of(other) != fingerprint_of(graph)
    other = copy.deepcopy(graph)
    node = next(node for node in other.program.graph.nodes if "relu" in str(node.target))
    node.target = torch.ops.aten.relu6.default
    assert fingerprint_of(other) != fingerprint_of(graph)


# Verbs that share it


@pytest.mark.parametrize("criterion", ["taylor", "fisher", "apoz", "thinet", "obs"])
def test_pruning_again_reads_no_data_and_takes_the_same_units(criterion, graph):
    data = Data(Counted(), Counted(), None, Classification(4))
    known = remembering(data)
    for amount in (0.25, 0.5):
        assert same(
            prune(graph, amount, criterion=criterion, data=known), prune(graph, amount, criterion=criterion, data=data)
        )
    once = Data(Counted(), Counted(), None, Classification(4))
    prune(graph, 0.25, criterion=criterion, data=once)
    plain = once.train.read + once.calibration.read
    assert data.train.read + data.calibration.read == 3 * plain  # two without a memory, one with it


def test_two_criteria_share_the_gram_matrices(graph):
    known = remembering(Data(None, Counted(), None, Classification(4)))
    prune(graph, 0.25, criterion="thinet", data=known)
    read = known.calibration.read
    prune(graph, 0.25, criterion="lasso", data=known)
    assert known.calibration.read == read


def test_scores_are_found_again_for_other_weights_batches_seeds_and_groups(graph):
    known = remembering(Data(Counted(), None, None, Classification(4)))
    other = copy.deepcopy(graph)
    with torch.no_grad():
        other.tensor("0.weight").mul_(1.5)
    ways = [(graph, {}), (other, {}), (graph, {"batches": 2}), (graph, {"seed": 1}), (graph, {"exclude": ["2"]})]
    for way, (net, choices) in enumerate(ways):
        before = known.train.read
        small = prune(net, 0.5, criterion="taylor", data=known, **choices)
        assert known.train.read > before, way
        assert same(
            small, prune(net, 0.5, criterion="taylor", data=Data(Counted(), None, None, Classification(4)), **choices)
        )
    assert len(channels(graph).groups) == 2


def test_a_sensitivity_curve_is_measured_once(graph):
    known = remembering(Data(Counted(), None, None, Classification(4)))
    found = [prune(graph, amount, allocation="sensitivity", data=known) for amount in (0.3, 0.5)]
    once = Counted()
    plain = [
        prune(graph, amount, allocation="sensitivity", data=Data(once, None, None, Classification(4)))
        for amount in (0.3, 0.5)
    ]
    assert all(map(same, found, plain)) and known.train.read == once.read // 2


@pytest.mark.parametrize("observer", ["minmax", "mse", "ema:0.8"])
def test_quantising_again_reads_the_first_samples_alone_and_gives_the_same_bits(observer, graph):
    loader = Counted(labelled=False)
    known, plain = remembering(loader), quantize(graph, Counted(labelled=False), observer=observer)
    assert same(quantize(graph, known, observer=observer), plain)
    assert loader.read == 6
    assert same(quantize(graph, known, observer=observer), plain)
    assert loader.read == 6 + 3  # 40 samples
    assert same(quantize(graph, known, observer=observer, corrections="bias_correction"), quantize(
        graph, loader.batches, observer=observer, corrections="bias_correction"
    ))  # fmt: skip


def test_several_grids_share_one_pass_for_their_ranges(graph):
    loader = Counted(labelled=False)
    found = sensitivity(graph, loader, ["int4", "int6", "int8"], samples=16)
    assert loader.read == 6 + 1
    assert found == {
        place: {grid: sensitivity(graph, loader.batches, [grid], samples=16)[place][grid] for grid in grids}
        for place, grids in found.items()
    }


def test_a_killed_process_goes_on_with_what_it_had_observed(graph, tmp_path):
    first = quantize(graph, remembering(Data(None, Counted(), None, Classification(4)), tmp_path), corrections=())
    again = remembering(Data(None, Counted(), None, Classification(4)), tmp_path)
    before = again.calibration.read
    assert same(quantize(graph, again, corrections=()), first)
    assert again.calibration.read - before <= 1  # the samples that the noise is looked at on
