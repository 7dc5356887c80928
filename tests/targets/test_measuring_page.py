"""Does what docs/measuring.md says, with the code that stands there."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.targets import _peaks

PAGE = Path(__file__).parents[2] / "docs" / "measuring.md"


def block(of):
    """The block of code that calls a verb."""
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if f"{of}(" in code)
    return code


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 30 * 30, 10)).eval()
    return pj.capture(model, torch.randn(2, 3, 32, 32))


def test_runtimes_are_compared_as_the_page_says(tmp_path, monkeypatch, capsys):
    pytest.importorskip("openvino")
    monkeypatch.chdir(tmp_path)
    exec(block("measure_together"), {"pj": pj, "graph": network(), "data": pj.data.digits()})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["onnxruntime", "openvino"]
    assert all(float(low) <= float(value) <= float(high) for _, value, low, high, _ in lines)


def test_layers_stand_under_the_roofline_as_the_page_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_peaks, "SECONDS", 0.05)
    monkeypatch.setattr(_peaks, "CHANNELS", 32)
    monkeypatch.setattr(_peaks, "FEATURES", 256)
    exec(block("roofline"), {"graph": network()})
    *layers, far = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in layers] == ["0", "3"] and 0 <= float(far) <= 1
