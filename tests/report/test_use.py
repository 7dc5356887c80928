"""How the page says that the file is used."""

from pathlib import Path

import pytest
import report_samples
from test_page import page

from penjing.report._use import use

USAGE = {
    "file": "model.onnx",
    "packages": ["onnxruntime", "numpy", "pillow"],
    "photos": True,
    "inputs": [{"name": "image", "shape": [None, 3, 32, 32], "dtype": "float32"}],
}


def test_the_page_gives_the_commands_and_the_inputs(tmp_path: Path) -> None:
    said = page(report_samples.report(usage=USAGE), tmp_path).said("use")
    assert "without Penjing and PyTorch" in said
    assert "pip install onnxruntime numpy pillow python run.py photo.jpg" in said
    assert "model.onnx takes image (any × 3 × 32 × 32, float32)" in said


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({"photos": False}, "python run.py --help"),
        ({"photos": False, "examples": "examples.npz"}, "python run.py examples.npz"),
    ],
)
def test_without_photos_the_script_takes_arrays(changes, command) -> None:
    assert use(report_samples.report(usage={**USAGE, **changes})).commands.splitlines()[1] == command


def test_a_page_beside_the_file_is_named_and_pytorch_is_not_called_unneeded() -> None:
    found = use(report_samples.report(usage={**USAGE, "packages": ["torch"], "beside": ["index.html"]}))
    assert found.where.endswith("without Penjing:")
    assert found.facts[-1][0] == "index.html"


def test_a_report_of_an_earlier_version_tells_nothing() -> None:
    assert use(report_samples.report()) is None
