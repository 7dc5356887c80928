"""Does what docs/measuring.md says, with the code that stands there."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import penjing as pj

PAGE = Path(__file__).parents[2] / "docs" / "measuring.md"


def test_runtimes_are_compared_as_the_page_says(tmp_path, monkeypatch, capsys):
    pytest.importorskip("openvino")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 30 * 30, 10)).eval()
    exec(code, {"pj": pj, "graph": pj.capture(model, torch.randn(2, 3, 32, 32)), "data": pj.data.digits()})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["onnxruntime", "openvino"]
    assert all(float(low) <= float(value) <= float(high) for _, value, low, high, _ in lines)
