"""Does what docs/howto/measure-on-a-device.md says, with the code that stands there, on this machine behind a server of ssh."""

import re
import subprocess
import sys
from pathlib import Path

import torch
from sshd import WITHOUT
from torch import nn

import penjing as pj

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "measure-on-a-device.md"
OVER_SSH, BY_KIT = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
ADDRESS = "ssh://pi@raspberrypi.local/onnxruntime"


def small():
    torch.manual_seed(0)
    return pj.capture(nn.Sequential(nn.Linear(8, 4), nn.ReLU()).eval(), torch.randn(2, 8))


@WITHOUT
def test_a_device_is_measured_as_the_page_says(reached, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(OVER_SSH.replace(ADDRESS, reached("onnxruntime")), {"graph": small()})
    time, processor = capsys.readouterr().out.splitlines()
    assert float(time) > 0 and processor == pj.targets.machine_of("onnxruntime").processor


def test_a_kit_is_used_as_the_page_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before, after = BY_KIT.split("# python3 kit/measure.pyz\n")
    exec(before, names := {"graph": small(), "pj": pj})
    subprocess.run([sys.executable, "kit/measure.pyz"], check=True, capture_output=True)
    exec(after, names)
    assert float(capsys.readouterr().out.split()[-1]) > 0
