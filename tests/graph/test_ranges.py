"""Random inputs that stand for real ones: they lie within what the example shows, column by column."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import penjing as pj
from penjing.graph import Ranges
from penjing.graph.inputs import Input
from penjing.storage.admission import DTYPES
from penjing.targets._verbs import random_inputs

CATEGORIES = (3, 5, 9, 40)


class Table(nn.Module):
    """Looks categories up whose codes stand beside real values, in one table of floats (or in one of integers)."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, 6) for n in CATEGORIES)
        self.body = nn.Sequential(nn.Linear(len(CATEGORIES) * 6 + 2, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, x: Tensor) -> Tensor:
        known = [table(x[:, i].long()) for i, table in enumerate(self.tables)]
        return self.body(torch.cat([*known, x[:, len(known) :].float()], 1))


def rows(count: int, real: bool = True) -> Tensor:
    codes = torch.stack([torch.randint(0, n, (count,)) for n in CATEGORIES], 1)
    return torch.cat([codes.float(), torch.rand(count, 2) * 1000], 1) if real else torch.cat([codes, codes[:, :2]], 1)


@pytest.mark.parametrize("real", [True, False], ids=["floats", "integers"])
def test_codes_of_categories_stay_codes_wherever_random_inputs_are_used(real: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Table().eval()
    small = pj.prune(pj.capture(net, rows(4, real)), 0.5)
    artifact = pj.lower(small, path=tmp_path / "table.onnx")
    assert pj.targets.check_parity(artifact, small).max_abs_error < 1e-2
    (given,) = random_inputs(artifact, 64)
    small(torch.from_numpy(given))
    for compact in (False, True):
        small.save(tmp_path / "table.penjing", compact=compact)
        loaded = pj.load(tmp_path / "table.penjing")
        assert loaded.signature == small.signature
        (given,) = loaded.example_inputs(500)
        assert (given[:, :4] == given[:, :4].round()).all()
    small.write_into(net)
    x = rows(8, real)
    torch.testing.assert_close(net(x), small(x))


@pytest.mark.parametrize(
    "example",
    [
        torch.rand(2, 3, 8, 8) * 255,
        torch.randint(0, 256, (2, 3, 8, 8)).float(),
        torch.rand(2, 50, 7) * torch.tensor([1.0, 10.0, 1e3, 1e5, 1e-3, 2.0, 5.0]) + 1,
        torch.randint(0, 2, (2, 6)).bool(),
        torch.randint(-3, 1000, (3, 20)),
        torch.tensor([[0.0, -torch.inf], [3.0, 1.0]]),
        torch.randint(1, 9, (5,)),
    ],
    ids=["pixels", "whole pixels", "time series", "mask", "tokens", "infinite", "lengths"],
)
def test_random_values_lie_within_the_examples_ranges(example: Tensor) -> None:
    drawn = Ranges.of(example, frozenset({0})).sample(example.shape, example.dtype, torch.Generator().manual_seed(0))
    assert drawn.dtype == example.dtype and drawn.shape == example.shape
    last = example.dim() - 1 if example.dim() < 4 else 1
    over = [axis for axis in range(example.dim()) if axis != last or not last]
    low, high = example.double().masked_fill(example.isinf(), 0).amin(over), example.double().amax(over)
    moved = drawn.double().movedim(last, -1)
    assert (moved >= low).all() and (moved <= high).all()
    if bool((example.double() == example.double().round()).all()):
        assert bool((drawn.double() == drawn.double().round()).all())


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "example", [normal(2, 3, 8, 8), torch.zeros(1, 3, 8, 8), torch.ones(2, 5), normal(1, 4), torch.zeros(0, 3)]
)
def test_examples_that_show_no_range_stand_for_standard_normal_values(example: Tensor) -> None:
    ranges = Ranges.of(example, frozenset({0}))
    assert ranges == Ranges() and ranges.to_json() == {"range": [0, 0]}
    drawn = ranges.sample((400, 5), torch.float32, torch.Generator().manual_seed(0))
    assert abs(float(drawn.std()) - 1) < 0.1


def test_a_free_axis_has_no_ranges_of_its_own() -> None:
    example = torch.tensor([[0, 5, 9], [1, 6, 8]])
    assert Ranges.of(example, frozenset({0, 1})).columns == ()
    assert Ranges.of(example, frozenset({0})).columns[0].high == (1, 6, 9)


def test_ranges_come_back_from_json_and_old_descriptions_are_read() -> None:
    torch.manual_seed(0)
    ranges = Ranges.of(rows(4), frozenset({0}))
    assert Ranges.from_json(json.loads(json.dumps(ranges.to_json())), (4, 6)) == ranges
    assert Ranges.from_json({"range": [2, 9]}, (4, 6)) == Ranges.from_json({"low": 2, "high": 9}, (4,)) == Ranges(2, 9)


@pytest.mark.parametrize(
    "record",
    [
        {"range": [3, 2]},
        {"range": [float("nan"), 2]},
        {"range": [0, 2**70]},
        {"range": [0, "9"]},
        {"range": [0, 9], "columns": [[1, [0], [1], []]]},
        {"range": [0, 9], "columns": [[7, [0], [1], []]]},
        {"range": [0, 9], "columns": [[1, [0, 5], [1, 4], []]]},
    ],
)
def test_ranges_that_make_no_sense_are_refused(record: dict[str, object]) -> None:
    with pytest.raises(pj.PenjingError, match="range"):
        Ranges.from_json(record, (4, 2))


@pytest.mark.parametrize("dtype", sorted(DTYPES, key=str), ids=str)
def test_every_dtype_that_a_file_may_hold_has_random_examples(dtype):
    given = Input.of("x", torch.zeros(2, 3).to(dtype), frozenset({0}))
    example = given.example(4, 0, torch.Generator().manual_seed(0))
    assert example.shape == (4, 3) and example.dtype == dtype
