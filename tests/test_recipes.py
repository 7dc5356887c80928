"""Does what the recipes in docs/howto/ say, with the code that stands there: each page prints what it shows."""

import contextlib
import io
import re
from pathlib import Path

import pytest
import torch

HOWTO = Path(__file__).parents[1] / "docs" / "howto"
PAGES = [
    "classify-texts.md",
    "do-several-tasks-at-once.md",
    "easy-inputs.md",
    "find-what-was-lost.md",
    "from-keras.md",
    "from-onnx.md",
    "in-a-notebook.md",
    "one-network-several-widths.md",
    "predict-values.md",
    "quantise-chosen-layers.md",
    "detect-objects.md",
    "segment-images.md",
    "tensorboard.md",
    "use-your-own-loop.md",
]
NEEDS = {"from-keras.md": "keras", "tensorboard.md": "tensorboard"}  # the package that a page is about


@pytest.mark.parametrize("page", PAGES)
def test_the_page_prints_what_it_says(page, tmp_path, monkeypatch):
    if page in NEEDS:
        pytest.importorskip(NEEDS[page], reason=f"{NEEDS[page]} isn't installed")
    monkeypatch.chdir(tmp_path)  # a page may write files
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", (HOWTO / page).read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for language, code in blocks:
            if language == "python":
                exec(code, names)
    assert printed.getvalue() == "".join(code for language, code in blocks if not language)
