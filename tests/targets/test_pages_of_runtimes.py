"""The code on the pages of the runtimes works where the runtime is installed, and the README leads to each page."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.targets import available

DOCS = Path(__file__).parents[2] / "docs" / "howto"
PAGES = [*sorted(DOCS.glob("run-on-*.md")), DOCS / "run-in-the-browser.md"]
NAMES = {"run-in-the-browser": "onnxruntime-web"}  # of pages that aren't called after their target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_pages_code_lowers_and_measures(page, tmp_path, monkeypatch, capsys):
    name = NAMES.get(page.stem, page.stem.removeprefix("run-on-"))
    (row,) = [row for row in available() if row.name == name]
    if not row.usable:
        pytest.skip(f"{name} isn't installed. {row.note}")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 30 * 30, 10)).eval()
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    exec(code, {"graph": pj.capture(model, torch.randn(2, 3, 32, 32)), "data": pj.data.digits()})
    assert float(capsys.readouterr().out) > 0 and list(tmp_path.glob("small.*"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_readme_leads_to_the_page(page):
    assert f"docs/howto/{page.name}" in (DOCS.parents[1] / "README.md").read_text()
