"""The page that is delivered for browsers: its inputs are Pillow's, its answers the model's, and it needs no server."""

import base64
import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import penjing as pj
from page_in_browser import told_by_page
from penjing.data import Preprocess, prepare
from penjing.targets import available, lower, run
from penjing.targets.onnxruntime_web._package import node

IMAGES = Path(pj.__file__).parent / "targets" / "onnxruntime_web" / "images.mjs"
(ROW,) = [row for row in available() if row.name == "onnxruntime-web"]
SIZES = [((40, 60), 32), ((61, 37), 32), ((20, 24), 32), ((32, 48), 32), ((33, 33), None)]


def input_of(image: Image.Image, how: Preprocess) -> np.ndarray:
    sized = prepare.resize_and_crop(prepare.to_mode(image, how.mode), how.resize, how.crop)
    return prepare.normalise(np.asarray(sized), how.mean, how.std)


@pytest.mark.skipif(node() is None, reason="there is no Node")
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_photo_becomes_the_very_input_that_pillow_makes(mode, tmp_path):
    mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if mode == "RGB" else ((0.5,), (0.3,))
    generator, cases = np.random.default_rng(0), []
    for (height, width), resize in SIZES:
        how = Preprocess(mode, resize, (28, 31), mean, std)
        image = Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8))
        rgba = np.asarray(image.convert("RGBA")).ravel().tolist()
        expected = input_of(image, how).ravel().tolist()
        cases.append({"width": width, "height": height, "data": rgba, "how": how.to_dict(), "expected": expected})
    script = tmp_path / "check.mjs"
    script.write_text(
        IMAGES.read_text() + f"const cases = {json.dumps(cases)};\n"
        "const errors = cases.map(({ width, height, data, how, expected }) => {\n"
        "  const { values } = inputOf({ width, height, data: Uint8Array.from(data) }, how);\n"
        "  return values.length - expected.length || Math.max(...values.map((value, at) => Math.abs(value - expected[at])));\n"
        "});\nconsole.log(JSON.stringify(errors));\n"
    )
    done = subprocess.run([str(node()), script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert max(json.loads(done.stdout)) < 1e-6


@pytest.fixture
def delivered(tmp_path):
    """A folder with a page, and the model's scores of a photo, as Python gives them."""
    if not ROW.usable:
        pytest.skip(f"onnxruntime-web isn't installed. {ROW.note}")
    from penjing.targets.onnxruntime_web._page import write_page

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    artifact = lower(pj.capture(model.eval(), torch.randn(2, 3, 24, 24)), "onnxruntime-web", tmp_path / "model.onnx")
    how = Preprocess("RGB", 26, (24, 24), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    (tmp_path / "preprocess.json").write_text(json.dumps(how.to_dict()))
    (tmp_path / "classes.txt").write_text("ant\nbee\n</script><script>\ndog\nelk\n")
    write_page(tmp_path)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    return tmp_path, photo, run(artifact, input_of(photo, how)[None])[0].tolist()


def test_where_nobody_knows_how_inputs_are_made_there_is_no_page(delivered):
    from penjing.targets.onnxruntime_web._page import write_page

    folder, *_ = delivered
    assert (folder / "index.html").exists() and "</script><script>" not in (folder / "index.html").read_text()
    (folder / "preprocess.json").write_text("null")
    write_page(folder)
    assert not (folder / "index.html").exists()


def test_the_page_gives_the_models_scores_in_a_browser_and_asks_no_server(delivered):
    folder, photo, expected = delivered
    content = io.BytesIO()
    photo.save(content, "PNG")

    def write(tell):
        page = (folder / "index.html").read_text()
        (folder / "asked.html").write_text(
            page.replace(
                "</body>",
                f"<script type='module'>const bytes = Uint8Array.from(atob('{base64.b64encode(content.getvalue()).decode()}'), "
                "(one) => one.charCodeAt(0)); let found; try { found = (await classify(new Blob([bytes], { type: 'image/png' })))"
                ".scores; } catch (error) { found = String(error); } "
                f"found = {{ found, fetched: performance.getEntriesByType('resource').map(({{ name }}) => name) }}; {tell};"
                "</script></body>",
            )
        )
        return folder / "asked.html"

    answer = told_by_page(write)
    assert np.abs(np.array(answer["found"]) - expected).max() < 1e-5, answer
    assert [name for name in answer["fetched"] if not name.startswith("blob:")] == []
