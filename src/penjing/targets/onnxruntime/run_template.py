"""Runs the model beside this file with ONNX Runtime, NumPy and Pillow alone; nothing else needs to be installed.

python run.py IMAGE...        the most likely classes of each image
python run.py FOLDER_OR_ZIP   the accuracy on images in class folders: CLASS/*.jpg, or val/CLASS/*.jpg, test/CLASS/*.jpg;
                              where validation.csv is beside this file and all its images are there, on these alone
python run.py examples.npz    the accuracy on arrays: x (N, H, W[, 3]) of bytes, or of floats that are ready inputs, and
                              y (N,) of class numbers
"""

import argparse
import csv
import io
import json
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any  # noqa: F401

import numpy as np
import onnxruntime
from PIL import Image, ImageOps  # noqa: F401

from penjing.data._prepare import normalise, open_image, resize_and_crop, to_mode

HERE = Path(__file__).resolve().parent
IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"}
# Folders that hold class folders: the first of these that is there is used.
PARTS = ("val", "valid", "validation", "test", "testing", "train", "training", "calibration", "calib")
DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
BATCH = 64
SHOWN = 5


class Model:
    """The model beside this file, how its inputs are made, and what its outputs mean."""

    def __init__(self, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        path, providers = str(HERE / "model.onnx"), ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(path, options, providers=providers)
        self.prepare = json.loads((HERE / "preprocess.json").read_text(encoding="utf-8"))
        names = HERE / "classes.txt"
        self.classes = names.read_text(encoding="utf-8").splitlines() if names.exists() else []
        given = self.session.get_inputs()[0]
        self.input_name, self.shape = given.name, given.shape
        self.dtype = np.dtype(DTYPES.get(given.type, given.type.removeprefix("tensor(").removesuffix(")")))
        self.batch = given.shape[0] if isinstance(given.shape[0], int) else None

    def name(self, index: int) -> str:
        """Returns the name of a class."""
        return self.classes[index] if index < len(self.classes) else str(index)

    def input_of(self, image: Image.Image) -> np.ndarray:
        """Returns the input of one image: float32 (C, H, W)."""
        if self.prepare is None:
            sys.exit(
                "preprocess.json doesn't say how an image becomes an input of this model, as its data was custom. "
                "Give an .npz file of ready inputs x and labels y instead."
            )
        upright = to_mode(image, self.prepare["mode"])
        sized = resize_and_crop(upright, self.prepare["resize"], self.prepare["crop"])
        return normalise(np.asarray(sized), self.prepare["mean"], self.prepare["std"])

    def scores(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the first output for some inputs: (N, classes)."""
        count = len(inputs)
        size = self.batch or count
        padded = [*inputs, *[inputs[-1]] * (-count % size)]  # a model with a fixed batch needs it full
        batches = [np.stack(padded[start : start + size]) for start in range(0, len(padded), size)]
        return np.concatenate([self.session.run(None, {self.input_name: batch})[0] for batch in batches])[:count]


class Files:
    """The files of a folder, or of a zip, by relative name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.archive = None if path.is_dir() else zipfile.ZipFile(path)
        if self.archive is None:
            names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        else:
            names = [name for name in self.archive.namelist() if not name.endswith("/")]
        self.entries = set(names)
        self.names = sorted(name for name in names if _is_image(PurePosixPath(name)))

    def has(self, name: str) -> bool:
        """Tells whether there is a file of that name."""
        return (self.path / name).is_file() if self.archive is None else name in self.entries

    def open(self, name: str) -> Image.Image:
        """Opens one image."""
        content = (self.path / name).read_bytes() if self.archive is None else self.archive.read(name)
        return open_image(io.BytesIO(content))


def _is_image(name: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.parts)
    return name.suffix.lower() in IMAGES and not hidden


def listed(files: Files) -> list[tuple[str, int]]:
    """Returns (file, class number) as in validation.csv, the images of the reported accuracy; none if one isn't there."""
    path = HERE / "validation.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as table:
        rows = [(row["name"], int(row["label"])) for row in csv.DictReader(table)]
    return rows if all(files.has(name) for name, _ in rows) else []


def labelled(names: Sequence[str], is_zip: bool) -> list[tuple[str, str]]:
    """Returns (file, class) of the images in class folders, of one part where there are parts."""
    paths = {name: PurePosixPath(name).parts for name in names}
    tops = {parts[0].lower() for parts in paths.values()}
    if len(tops) == 1 and not tops & set(PARTS):
        inner = {name: parts[1:] for name, parts in paths.items() if len(parts) > 2}
        if is_zip or any(parts[0].lower() in PARTS for parts in inner.values()):
            paths = inner or paths
    folders = {parts[0].lower() for parts in paths.values() if len(parts) > 1}
    part = next((folder for folder in PARTS if folder in folders), None)
    if part is not None:
        paths = {name: parts[1:] for name, parts in paths.items() if parts[0].lower() == part}
    return [(name, parts[0]) for name, parts in paths.items() if len(parts) > 1]


def accuracy(model: Model, count: int, load: Callable[[int], tuple[np.ndarray, int]]) -> float:
    """Returns the share of `count` samples whose best-scored class is their label."""
    right = 0
    for start in range(0, count, model.batch or BATCH):
        samples = [load(index) for index in range(start, min(start + (model.batch or BATCH), count))]
        best = model.scores([x for x, _ in samples]).argmax(axis=1)
        right += int((best == np.array([label for _, label in samples])).sum())
    return right / count


def judge_files(model: Model, path: Path) -> None:
    """Prints the accuracy on a folder or a zip of class folders."""
    files = Files(path)
    samples = listed(files) or numbered(model, labelled(files.names, files.archive is not None), path)

    def load(index: int) -> tuple[np.ndarray, int]:
        name, label = samples[index]
        return model.input_of(files.open(name)), label

    print(f"accuracy {accuracy(model, len(samples), load):.4f} ({len(samples)} images)")


def numbered(model: Model, samples: Sequence[tuple[str, str]], path: Path) -> list[tuple[str, int]]:
    """Returns the samples with their classes' numbers; ends the program where there are none or a class is unknown."""
    if not samples:
        sys.exit(f"{path} holds no images in class folders.")
    numbers = {name: index for index, name in enumerate(model.classes)}
    strange = sorted({label for _, label in samples} - set(numbers))
    if strange:
        sys.exit(f"{path} has class folders that classes.txt doesn't name: {', '.join(strange[:5])}.")
    return [(name, numbers[label]) for name, label in samples]


def judge_arrays(model: Model, path: Path) -> None:
    """Prints the accuracy on "x" and labels "y" of an .npz file: images as bytes, or inputs as the model takes them."""
    with np.load(path) as arrays:
        if "x" not in arrays or "y" not in arrays:
            sys.exit(f"{path} should hold the arrays x and y; it holds {', '.join(arrays) or 'none'}.")
        x, y = arrays["x"], arrays["y"]
    if len(x) == 0 or y.shape != (len(x),):
        sys.exit(f"{path}: y should hold one class number for each of x, not {y.shape} for {x.shape}.")
    ready = x.dtype.kind == "f" or model.prepare is None
    if ready:
        check_ready(model, x, path)

    def load(index: int) -> tuple[np.ndarray, int]:
        return x[index].astype(model.dtype) if ready else model.input_of(Image.fromarray(x[index])), int(y[index])

    print(f"accuracy {accuracy(model, len(x), load):.4f} ({len(x)} {'inputs' if ready else 'images'})")


def check_ready(model: Model, x: np.ndarray, path: Path) -> None:
    """Ends the program where arrays aren't inputs as the model takes them."""
    wanted = model.shape[1:]
    sizes_fit = x.ndim == len(model.shape) and all(
        not isinstance(size, int) or size == given for size, given in zip(wanted, x.shape[1:], strict=True)
    )
    if (x.dtype.kind == "f") != (model.dtype.kind == "f") or not sizes_fit:
        shape = ", ".join(str(size) for size in ("N", *wanted))
        sys.exit(f"{path}: x should hold ready inputs ({shape}) of {model.dtype}, not {x.shape} of {x.dtype}.")


def show(model: Model, paths: Sequence[Path]) -> None:
    """Prints the most likely classes of each image."""
    for path in paths:
        try:
            image = open_image(path)
        except (OSError, ValueError) as error:
            sys.exit(f"{path} is no image that can be used: {error}")
        scores = model.scores([model.input_of(image)])[0]
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        print(path)
        for index in np.argsort(-shares)[:SHOWN]:
            print(f"  {shares[index]:6.1%}  {model.name(int(index))}")


def images_in(paths: Sequence[Path]) -> Iterator[Path]:
    """Yields the given files; ends the program where one isn't there."""
    for path in paths:
        if not path.is_file():
            sys.exit(f"There is no file {path}.")
        yield path


def main() -> None:
    """Reads the command line and does what it asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="IMAGE_FOLDER_ZIP_OR_NPZ")
    parser.add_argument("--threads", type=int, default=1, help="threads within an op (default: 1)")
    arguments = parser.parse_args()
    model = Model(arguments.threads)
    first = arguments.paths[0]
    if len(arguments.paths) == 1 and (first.is_dir() or first.suffix.lower() == ".zip"):
        if not first.exists():
            sys.exit(f"There is no file {first}.")
        judge_files(model, first)
    elif len(arguments.paths) == 1 and first.suffix.lower() == ".npz":
        if not first.exists():
            sys.exit(f"There is no file {first}.")
        judge_arrays(model, first)
    else:
        show(model, list(images_in(arguments.paths)))


if __name__ == "__main__":
    main()
