"""Runs the model beside this file with ONNX Runtime, NumPy and Pillow alone; nothing else needs to be installed.

python run.py IMAGE...        the most likely classes of each image
python run.py FOLDER_OR_ZIP   the accuracy on images in class folders: CLASS/*.jpg, or val/CLASS/*.jpg, test/CLASS/*.jpg
python run.py examples.npz    the accuracy on arrays: x (N, H, W[, 3]) of bytes and y (N,) of class numbers
"""

import argparse
import io
import json
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import onnxruntime
from PIL import Image, ImageOps  # noqa: F401  the functions below use ImageOps

from penjing.data._prepare import normalise, resize_and_crop, to_mode

HERE = Path(__file__).resolve().parent
IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
TRAINING = {"train", "training", "calibration", "calib"}
VALIDATION = ("val", "valid", "validation", "test", "testing")  # the first of these that is there is used
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
        batch = self.session.get_inputs()[0].shape[0]
        self.batch = batch if isinstance(batch, int) else None

    def name(self, index: int) -> str:
        """Returns the name of a class."""
        return self.classes[index] if index < len(self.classes) else str(index)

    def input_of(self, image: Image.Image) -> np.ndarray:
        """Returns the input of one image: float32 (C, H, W)."""
        upright = to_mode(image, self.prepare["mode"])
        sized = resize_and_crop(upright, self.prepare["resize"], self.prepare["crop"])
        return normalise(np.asarray(sized), self.prepare["mean"], self.prepare["std"])

    def scores(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the first output for some inputs: (N, classes)."""
        count = len(inputs)
        size = self.batch or count
        padded = [*inputs, *[inputs[-1]] * (-count % size)]  # a model with a fixed batch needs it full
        name = self.session.get_inputs()[0].name
        parts = [self.session.run(None, {name: np.stack(padded[i : i + size])})[0] for i in range(0, len(padded), size)]
        return np.concatenate(parts)[:count]


class Files:
    """The files of a folder, or of a zip, by relative name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.archive = None if path.is_dir() else zipfile.ZipFile(path)
        if self.archive is None:
            names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        else:
            names = [name for name in self.archive.namelist() if not name.endswith("/")]
        self.names = sorted(name for name in names if _is_image(PurePosixPath(name)))

    def open(self, name: str) -> Image.Image:
        """Opens one image."""
        content = (self.path / name).read_bytes() if self.archive is None else self.archive.read(name)
        return Image.open(io.BytesIO(content))


def _is_image(name: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.parts)
    return name.suffix.lower() in IMAGES and not hidden


def labelled(names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns (file, class) of the images to judge the model on: the validation part where there are parts."""
    paths = {name: PurePosixPath(name).parts for name in names}
    tops = {parts[0].lower() for parts in paths.values()}
    named = TRAINING | set(VALIDATION)
    if len(tops) == 1 and not tops & named and _holds_parts(paths, named):
        paths = {name: parts[1:] for name, parts in paths.items()}
        tops = {parts[0].lower() for parts in paths.values()}
    part = next((folder for folder in VALIDATION if folder in tops), None)
    if part is not None:
        paths = {name: parts[1:] for name, parts in paths.items() if parts[0].lower() == part}
    return [(name, parts[0]) for name, parts in paths.items() if len(parts) > 1]


def _holds_parts(paths: dict[str, tuple[str, ...]], named: set[str]) -> bool:
    return any(len(parts) > 2 and parts[1].lower() in named for parts in paths.values())


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
    samples = labelled(files.names)
    if not samples:
        sys.exit(f"{path} holds no images in class folders.")
    numbers = {name: index for index, name in enumerate(model.classes)}
    strange = sorted({label for _, label in samples} - set(numbers))
    if strange:
        sys.exit(f"{path} has class folders that classes.txt doesn't name: {', '.join(strange[:5])}.")

    def load(index: int) -> tuple[np.ndarray, int]:
        name, label = samples[index]
        return model.input_of(files.open(name)), numbers[label]

    print(f"accuracy {accuracy(model, len(samples), load):.4f} ({len(samples)} images)")


def judge_arrays(model: Model, path: Path) -> None:
    """Prints the accuracy on the images "x" and labels "y" of an .npz file."""
    with np.load(path) as arrays:
        x, y = arrays["x"], arrays["y"]

    def load(index: int) -> tuple[np.ndarray, int]:
        return model.input_of(Image.fromarray(x[index])), int(y[index])

    print(f"accuracy {accuracy(model, len(x), load):.4f} ({len(x)} images)")


def show(model: Model, paths: Sequence[Path]) -> None:
    """Prints the most likely classes of each image."""
    for path in paths:
        scores = model.scores([model.input_of(Image.open(path))])[0]
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
