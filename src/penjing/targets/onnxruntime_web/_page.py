"""The page that is delivered beside a lowered model: it holds the model and the runtime, and classifies dropped photos."""

import base64
import json
from pathlib import Path
from typing import Any

import onnx
from jinja2 import Environment, PackageLoader, StrictUndefined

from penjing.errors import PenjingError
from penjing.files import atomic_write
from penjing.targets.onnxruntime_web._package import PACKAGE, folder, installed

PAGE = "index.html"
_TITLE = "What is on the photo?"
_RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")


def write_page(out: Path) -> None:
    """Writes `index.html` into the folder of a delivered model: one file that works from a disk, without a server.

    It is made of `model.onnx`, `preprocess.json` and `classes.txt` in the folder, and of the installed package. Where
    `preprocess.json` doesn't say how a photo becomes an input, there is no such page, and an old one is removed.

    Args:
        out: the folder.

    Raises:
        PenjingError: a file of the package is missing.
    """
    prepare = json.loads((out / "preprocess.json").read_text())
    if prepare is None:
        (out / PAGE).unlink(missing_ok=True)
        return
    classes = out / "classes.txt"
    names = classes.read_text(encoding="utf-8").splitlines() if classes.exists() else []
    model = out / "model.onnx"
    about = {"prepare": {**prepare, "shape": _shape(model, prepare)}, "classes": names}
    source, wasm = (_base64(_part(name)) for name in _RUNTIME)
    environment = Environment(
        loader=PackageLoader("penjing.targets.onnxruntime_web", "."), autoescape=False, undefined=StrictUndefined
    )
    page = environment.get_template("page.html.j2").render(
        title=_TITLE,
        version=installed(),
        about=json.dumps(about).replace("<", "\\u003c"),  # a class's name could end the script
        ort=source,
        wasm=wasm,
        model=_base64(model),
        images=Path(__file__).with_name("images.mjs").read_text(),
    )
    atomic_write(out / PAGE, page)


def _part(name: str) -> Path:
    path = folder() / "node_modules" / PACKAGE / "dist" / name
    if not path.is_file():
        raise PenjingError(
            f"{PACKAGE} {installed()} has no dist/{name}, which {PAGE} is made of: install version 1.20 or later."
        )
    return path


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _shape(model: Path, prepare: dict[str, Any]) -> list[int]:
    """Returns the shape of one input: as the file fixes it, else as the photos are prepared."""
    given = onnx.load(model, load_external_data=False).graph.input[0].type.tensor_type.shape.dim
    crop = prepare["crop"] or [prepare["resize"] or 1] * 2
    known = [1 if prepare["mode"] == "L" else 3, *crop]
    return [size.dim_value or fallback for size, fallback in zip(list(given)[1:], known, strict=False)]
