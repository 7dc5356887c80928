"""The table of what targets can do: complete, and of names that exist."""

import operator

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.capabilities import TARGETS, find
from penjing.errors import PenjingError
from penjing.pruning import granularities
from penjing.quantization import find_grid, grids
from penjing.quantization.placement._rewrites import GATED
from penjing.targets import lower, targets

EACH = pytest.mark.parametrize("name", sorted(TARGETS))


def _grid(key: str, largest: int) -> str:
    """The name that users type for the largest of a family of grids: "intN" up to 8 is "int8"."""
    if key.endswith("N"):
        return f"{key[:-1]}{largest}"
    return f"{key}:{largest}" if largest else key


def test_every_target_that_is_lowered_to_says_what_it_can_do_and_no_other_does():
    assert set(TARGETS) == set(targets)
    assert all(name == record.name for name, record in TARGETS.items())


def test_a_misspelt_target_is_told_with_the_nearest_name():
    with pytest.raises(PenjingError, match="Did you mean 'onnxruntime'"):
        find("onnxruntim")


@EACH
def test_tables_of_ops_hold_ops(name):
    placement = find(name).placement
    ops = [
        *placement.layers, *placement.float_output, *placement.weights_alone, *placement.integer, *placement.same,
        *placement.clips, *placement.bounded, *placement.gates, *placement.dynamic,
    ]  # fmt: skip
    assert all(isinstance(op, torch._ops.OpOverload) or op is operator.getitem for op in ops)


@EACH
def test_parts_of_a_table_lie_within_it(name):
    placement = find(name).placement
    assert placement.dynamic <= placement.layers.keys() and placement.float_output <= placement.layers.keys()
    assert not placement.layers.keys() & (placement.integer.keys() | placement.same.keys() | placement.gates)
    assert placement.gates <= GATED.keys(), "each op that is to be a gate can be written as one"


@EACH
def test_a_target_has_layers_in_integers_where_it_has_integers_for_what_they_read(name):
    able = find(name)
    assert able.has_integers == bool(able.placement.layers) == any(able.numbers.weights.values())
    assert not able.has_integers or find_grid(able.numbers.preferred).entry.name in able.numbers.activations


@EACH
def test_tables_of_grids_hold_grids_with_their_grains_up_to_sizes_that_are_stored(name):
    numbers = find(name).numbers
    for table in (numbers.weights, numbers.weights_alone, numbers.dynamic_weights):
        for grain, largest in table.items():
            for key, number in largest.items():
                assert grain in grids[key].grains
                assert find_grid(_grid(key, number)).bits <= max(numbers.stored)
    assert all(find_grid(_grid(key, number)) for key, number in numbers.activations.items())


@EACH
def test_multiples_of_channels_fall_and_zeros_are_of_granularities(name):
    able = find(name)
    assert list(able.channel_multiples) == sorted(set(able.channel_multiples), reverse=True)
    assert able.zeros.skipped | able.zeros.left_out <= set(granularities) and able.zeros.why.endswith(".")


class SideBySide(nn.Module):
    """As many linear layers as there are grids to try."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(1024, 8) for _ in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([layer(x) for layer in self.layers]).sum(0)


def test_pt2_files_run_weights_of_all_grids_that_they_are_said_to_store(tmp_path):
    name = "torch"  # tests/quantization/placement/test_dynamic.py tries ONNX Runtime's
    grains = {"tensor": "tensor", "channel": "channel", "group": "group:64"}
    choices = [
        f"{_grid(key, number)}/{grains[grain]}"
        for grain, largest in find(name).numbers.weights_alone.items()
        for key, number in largest.items()
    ]
    torch.manual_seed(0)
    graph = pj.capture(SideBySide(len(choices)).eval(), torch.randn(2, 1024))
    small = pj.quantize(
        graph, activations=None, target=name, per_layer={f"layers.{i}": choice for i, choice in enumerate(choices)}
    )
    file = lower(small, name, tmp_path / "small")  # which compares what the file gives with the graph
    assert file.size_bytes < 0.6 * lower(graph, name, tmp_path / "float").size_bytes


@pytest.mark.parametrize(("name", "bits"), [("onnxruntime", 4), ("torch", 8)])
def test_few_bits_take_the_next_size_that_is_said_to_be_stored(name, bits, tmp_path):
    graph = pj.capture(nn.Linear(256, 64).eval(), torch.randn(2, 256))

    def size(grid):
        small = pj.quantize(graph, weights=grid, grain="tensor", activations=None, target=name)
        return lower(small, name, tmp_path / "file").size_bytes

    assert min(stored for stored in find(name).numbers.stored if stored >= 3) == bits
    assert 8 * (size("int16") - size("int3")) / (256 * 64) == pytest.approx(16 - bits, abs=0.3)
