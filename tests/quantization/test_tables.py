"""Embeddings in few bits: in the graph, in the files of runtimes, and where they stay in floating point."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import penjing as pj

ROWS, WIDTH = 400, 48


class Looked(nn.Module):
    """Gives the rows of a table as they are."""

    def __init__(self, rows: int = ROWS, width: int = WIDTH) -> None:
        super().__init__()
        self.words = nn.Embedding(rows, width)

    def forward(self, ids: Tensor) -> Any:
        return self.words(ids)


class Tagged(Looked):
    """Classifies the mean of the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, ids: Tensor) -> Any:
        return self.head(self.words(ids).mean(1))


class Tied(Looked):
    """Looks rows up in a table, and scores all rows by it."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.scores = nn.Linear(WIDTH, ROWS, bias=False)
        self.scores.weight = self.words.weight

    def forward(self, ids: Tensor) -> Any:
        return self.scores(torch.relu(self.hidden(self.words(ids))))


def _graph(kind: type[nn.Module] = Looked, *sizes: int) -> pj.Graph:
    torch.manual_seed(0)
    return pj.capture(kind(*sizes).eval(), _ids(3, sizes[0] if sizes else ROWS))


def _ids(count: int, rows: int = ROWS) -> Tensor:
    return torch.randint(0, rows, (count, 8))


def _batches(count: int = 4) -> list[Tensor]:
    torch.manual_seed(1)
    return [_ids(16) for _ in range(count)]


def _of(graph: pj.Graph, ids: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = graph(ids)
    return output


def _run(file: pj.targets.Artifact, ids: Tensor) -> np.ndarray:
    output: np.ndarray = pj.targets.session(file)(ids).numpy()
    return output


@pytest.mark.parametrize(
    ("grid", "most"),
    [("int8", 0.28), ("int4", 0.17), ("uint8", 0.3), ("uint4/group:16", 0.24), ("int4/group:16", 0.2),
     ("int8/tensor", 0.27), ("int4/tensor", 0.15), ("int4/group:12", 0.22), ("int2", 0.17)],
)  # fmt: skip
def test_a_file_looks_up_what_the_graph_does_bit_for_bit(grid: str, most: float, tmp_path: Path) -> None:
    graph = _graph()
    small = pj.quantize(graph, activations=None, per_layer={"words": grid})
    file = pj.lower(small, path=tmp_path / "small.onnx")
    ids = torch.arange(ROWS).reshape(-1, 8)
    assert np.array_equal(_run(file, ids), _of(small, ids).numpy())
    assert file.size_bytes < most * pj.lower(graph, path=tmp_path / "float.onnx").size_bytes + 1500


def test_rounding_a_row_is_the_nearest_of_its_steps() -> None:
    graph = _graph()
    table = graph.tensor("words.weight").detach()
    step = table.abs().amax(1, keepdim=True) / 127
    got = _of(pj.quantize(graph, activations=None), torch.arange(ROWS).reshape(-1, 8))
    assert torch.allclose(got, ((table / step).round() * step).reshape(-1, 8, WIDTH), atol=1e-6)


def test_only_rows_that_are_asked_for_become_real_numbers(tmp_path: Path) -> None:
    for grid, op, dtype in (
        ("int8", "Gather", onnx.TensorProto.INT8),
        ("int4", "GatherBlockQuantized", onnx.TensorProto.INT4),
    ):
        file = pj.lower(pj.quantize(_graph(), activations=None, weights=grid), path=tmp_path / "small.onnx")
        model = onnx.load(file.path).graph
        table = next(one for one in model.initializer if list(one.dims) == [ROWS, WIDTH])
        readers = [node.op_type for node in model.node if table.name in node.input]
        assert (readers, table.data_type) == ([op], dtype)


def test_rows_with_an_odd_number_of_entries_take_four_bits_in_the_file(tmp_path: Path) -> None:
    small = pj.quantize(_graph(Looked, 301, 33), activations=None, weights="int4")
    file, ids = pj.lower(small, path=tmp_path / "small.onnx"), _ids(9, 301)
    assert np.array_equal(_run(file, ids), _of(small, ids).numpy())
    assert any(one.data_type == onnx.TensorProto.INT4 for one in onnx.load(file.path).graph.initializer)


def test_a_classifier_keeps_its_answers_with_a_table_in_few_bits(tmp_path: Path) -> None:
    graph = _graph(Tagged)
    small = pj.quantize(graph, _batches())
    assert {step.place.path: (step.after, step.found.get("looked_up")) for step in small.plan} == {
        "head": ("int8", None), "words": ("int8", True)
    }  # fmt: skip
    ids = _batches()[0]
    wanted = _of(graph, ids)
    assert float((_of(small, ids) - wanted).norm() / (wanted - wanted.mean(0)).norm()) < 0.05
    file = pj.lower(small, path=tmp_path / "small.onnx")
    assert np.abs(_run(file, ids) - _of(small, ids).numpy()).max() < 1e-5


def test_a_table_that_is_a_layers_weight_too_is_stored_once(tmp_path: Path) -> None:
    graph = _graph(Tied)
    small = pj.quantize(graph, _batches())
    file, ids = pj.lower(small, path=tmp_path / "small.onnx"), _ids(4)
    large = [one for one in onnx.load(file.path).graph.initializer if np.prod(one.dims) >= ROWS * WIDTH]
    assert [numpy_helper.to_array(one).dtype for one in large] == [np.int8]
    wanted = _of(graph, ids)
    assert float((_of(small, ids) - wanted).norm() / wanted.norm()) < 0.03
    assert np.abs(_run(file, ids) - _of(small, ids).numpy()).max() < 0.02 * float(wanted.abs().max())


def test_a_table_that_something_reads_in_float_stays_in_float() -> None:
    class Centred(Tagged):
        def forward(self, ids: Tensor) -> Any:
            return self.head(self.words(ids).mean(1) - self.words.weight.mean(0))

    small = pj.quantize(_graph(Centred), _batches())
    assert {step.place.path: step.found.get("reason") for step in small.plan}["words"] == "table"


def test_a_table_goes_with_the_layer_that_multiplies_by_it() -> None:
    small = pj.quantize(_graph(Tied), _batches(), exclude=["scores"])
    assert [step.place.path for step in small.plan if step.after != "float32"] == ["hidden"]


def test_a_table_stays_in_float_where_asked_and_where_the_grid_cant_be_looked_up_in() -> None:
    asked = pj.quantize(_graph(Tagged), _batches(), exclude=["words"])
    shared = pj.quantize(_graph(Tagged), _batches(), weights="codebook:16", activations=None)
    for small, reason in ((asked, "asked"), (shared, "table")):
        found = {step.place.path: (step.after, step.found.get("reason")) for step in small.plan}
        assert found["words"] == ("float32", reason)


def test_a_grid_that_no_table_can_have_is_refused_with_those_that_it_can() -> None:
    with pytest.raises(pj.PenjingError, match=r"can't look up in a table of codebook:16 weights.*int2…int8"):
        pj.quantize(_graph(Tagged), activations=None, per_layer={"words": "codebook:16"})


def test_groups_for_all_layers_that_dont_divide_the_rows_leave_the_table_in_float() -> None:
    class Wide(Tagged):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 5)

        def forward(self, ids: Tensor) -> Any:
            return self.head(nn.functional.pad(self.words(ids).mean(1), (0, 16)))

    small = pj.quantize(_graph(Wide), activations=None, weights="int4", grain="group:64")
    assert {step.place.path: step.found.get("reason") for step in small.plan} == {"head": None, "words": "table"}


def test_a_group_that_doesnt_divide_the_rows_is_refused() -> None:
    with pytest.raises(pj.PenjingError, match=r"'words' \(48 weights per channel, group:20\)"):
        pj.quantize(_graph(Tagged), _batches(), per_layer={"words": "int4/group:20"})


@pytest.mark.parametrize("target", ["torch", "openvino"])
@pytest.mark.parametrize("grid", ["int8", "int4"])
def test_other_targets_look_up_the_same(target: str, grid: str, tmp_path: Path) -> None:
    pytest.importorskip(target)
    small = pj.quantize(_graph(), activations=None, weights=grid, target=target)
    assert small.plan[0].found == {"looked_up": True}
    file = pj.lower(small, target, tmp_path / f"small{'.xml' if target == 'openvino' else '.pt2'}")
    ids = _ids(9)
    assert np.array_equal(_run(file, ids), _of(small, ids).numpy())
    assert file.size_bytes < 0.45 * 4 * ROWS * WIDTH + 12_000


def test_targets_without_tables_in_few_bits_leave_them_in_float() -> None:
    for target in ("litert", "executorch"):
        small = pj.quantize(_graph(Tagged), _batches(), target=target)
        assert {step.place.path: step.found.get("reason") for step in small.plan}["words"] == "kernel"


def test_a_saved_graph_looks_up_the_same(tmp_path: Path) -> None:
    small = pj.quantize(_graph(Tagged), _batches())
    small.save(tmp_path / "small.penjing")
    ids = _ids(5)
    assert torch.equal(_of(pj.load(tmp_path / "small.penjing"), ids), _of(small, ids))


def test_each_table_is_a_place_whose_noise_is_measured() -> None:
    noise = pj.quantization.sensitivity(_graph(Tagged), _batches(), ["int4", "int8"])
    assert noise["words"]["int4"] > 20 * noise["words"]["int8"] > 0


def test_a_budget_on_size_chooses_the_bits_of_tables_too(tmp_path: Path) -> None:
    graph = _graph(Tagged)
    small = pj.quantize(graph, _batches(), weights=("int4", "int8"), budget=pj.Budget(size="0.25x"))
    assert {step.place.path: step.after for step in small.plan}["words"] == "int4"
    file = pj.lower(small, path=tmp_path / "small.onnx")
    assert file.size_bytes < 0.25 * pj.lower(graph, path=tmp_path / "float.onnx").size_bytes


@pytest.mark.parametrize("kind", [Tagged, Tied])
@pytest.mark.parametrize("grid", ["int8", "int4"])
def test_a_table_is_trained_on_its_grid(kind: type[nn.Module], grid: str, tmp_path: Path) -> None:
    graph = _graph(kind)
    torch.manual_seed(2)
    train = [_ids(8) for _ in range(6)]
    data = pj.Data(train=train, calibration=train, validation=train, task=pj.tasks.Unlabelled())
    small = pj.quantize(graph, data, weights=grid, epochs=1, teacher=graph, progress=False)
    file, ids = pj.lower(small, path=tmp_path / "small.onnx"), _ids(6)
    wanted = _of(graph, ids)
    assert np.abs(_run(file, ids) - _of(small, ids).numpy()).max() < 0.02 * float(wanted.abs().max())
    assert float((_of(small, ids) - wanted).norm() / wanted.norm()) < 0.4
    before, after = graph.tensor("words.weight"), small.tensor("words.weight")
    assert not torch.allclose(before, after)
    assert file.size_bytes < 0.5 * pj.lower(graph, path=tmp_path / "float.onnx").size_bytes
