"""What the report says of zeros on a target."""

import dataclasses
import zlib

import pytest
import torch
from torch import nn

from penjing.capabilities import Zeros, find
from penjing.graph import capture
from penjing.pruning import prune
from penjing.run.zeros import zeros_on
from penjing.targets import available, find_target, lower, targets


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return capture(nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 8)), torch.randn(2, 64))


@pytest.fixture
def sparse(graph):
    return prune(prune(graph, 0.9, granularity="element", include=["0"]), granularity="2:4", include=["2"])


@pytest.mark.parametrize("name", sorted(targets))
def test_runtimes_that_multiply_by_every_weight_gain_nothing_but_a_smaller_parcel(name, graph, sparse, tmp_path):
    if not next(row.usable for row in available() if row.name == name):
        pytest.skip(f"{name} isn't installed")
    target, suffix = find(name), find_target(name).suffix
    sides = {"baseline": graph, "compressed": sparse}
    files = {side: lower(one, name, tmp_path / f"{side}{suffix}").files for side, one in sides.items()}
    said = zeros_on(target, sparse, files)
    gone = round(0.9 * 64 * 128), 64 * 8
    assert said["zeros"] == sum(gone) and said["weights"] == 64 * 128 + 128 + 128 * 8 + 8
    assert said["faster"] == said["smaller"] == 0 and said["why"] == target.zeros.why
    assert said["places"] == [
        {"place": "0", "granularity": "element", "weights": 8192, "zeros": gone[0], "faster": False, "smaller": False},
        {"place": "2", "granularity": "2:4", "weights": 1024, "zeros": gone[1], "faster": False, "smaller": False},
    ]
    assert said["deflated_bytes"] == {
        side: sum(len(zlib.compress(path.read_bytes())) for path in paths) for side, paths in files.items()
    }
    assert said["deflated_bytes"]["compressed"] < 0.5 * said["deflated_bytes"]["baseline"]


def test_a_runtime_that_skips_some_zeros_is_faster_by_these_alone(sparse, tmp_path):
    skips = Zeros(skipped=frozenset({"n:m"}), left_out=frozenset({"n:m", "element"}), why="Its kernels skip 2 of 4.")
    target = dataclasses.replace(find("onnxruntime"), zeros=skips)
    said = zeros_on(target, sparse, {})
    assert (said["faster"], said["smaller"]) == (512, said["zeros"])
    assert [(place["faster"], place["smaller"]) for place in said["places"]] == [(False, True), (True, True)]


def test_zeros_of_two_kinds_count_only_where_the_runtime_gains_by_both(graph):
    both = prune(prune(graph, granularity="2:4", include=["2"]), 0.6, granularity="element", include=["2"])
    skips = Zeros(skipped=frozenset({"n:m"}), left_out=frozenset(), why="")
    said = zeros_on(dataclasses.replace(find("onnxruntime"), zeros=skips), both, {})
    assert said["faster"] == 0 and said["places"][0]["granularity"] == "2:4, element"


def test_without_zeros_nothing_is_measured(graph, tmp_path):
    said = zeros_on(find("onnxruntime"), graph, {"baseline": [tmp_path / "none"]})
    assert said["zeros"] == 0 and said["places"] == [] and said["deflated_bytes"] is None
