"""MNIST from the .npz file that Keras made usual."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from penjing.data._augment import random_shift
from penjing.data._data import Data, fingerprint
from penjing.data._digits import image_mode, scale_up
from penjing.data._memory import MemoryLoader
from penjing.data._preprocess import Preprocess
from penjing.errors import PenjingError
from penjing.tasks import Classification

_MEAN, _STD = 0.1307, 0.3081  # of the training images
_KEYS = ("x_train", "y_train", "x_test", "y_test")


def mnist(path: str | Path, *, batch_size: int = 128, channels: int = 1, size: int = 28, seed: int = 0) -> Data:
    """Returns MNIST (LeCun et al. 1998), or anything else in its form, from one file.

    The test images validate; 512 of the training images, without augmentation, calibrate. Training images are moved
    by up to two pixels of 28.

    Args:
        path: a .npz file with `x_train` and `x_test` (N, H, W) uint8 and `y_train`, `y_test` (N,) integers.
        batch_size: of training; the other loaders take 256.
        channels: 3 repeats the grey values, for networks made for colour.
        size: height and width in pixels to which the images are scaled (PIL, bilinear).
        seed: of the order and augmentation.

    Raises:
        PenjingError: if the file is missing or isn't of this form.
    """
    path = Path(path)
    arrays = _read(path)
    x_train, y_train, x_test, y_test = (arrays[key] for key in _KEYS)
    preprocess = Preprocess(image_mode(channels), size, (size, size), (_MEAN,) * channels, (_STD,) * channels)
    train, validation = scale_up(x_train, preprocess), scale_up(x_test, preprocess)
    calibration = np.random.default_rng(0).permutation(len(train))[:512]
    padding = max(1, round(size * 2 / 28))
    classes = int(max(y_train.max(), y_test.max())) + 1
    return Data(
        train=MemoryLoader(
            train,
            y_train,
            preprocess,
            batch_size=batch_size,
            shuffle=True,
            augment=lambda batch, generator: random_shift(batch, padding, generator),
            seed=seed,
        ),
        calibration=MemoryLoader(train[calibration], y_train[calibration], preprocess, batch_size=256),
        validation=MemoryLoader(validation, y_test, preprocess, batch_size=256),
        task=Classification(classes),
        name="mnist",
        classes=tuple(str(label) for label in range(classes)),
        preprocess=preprocess,
        examples={"x": x_test, "y": y_test.astype(np.int64)},
        fingerprint=fingerprint(
            "mnist", *(np.ascontiguousarray(arrays[key]).tobytes() for key in _KEYS), batch_size, channels, size, seed
        ),
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise PenjingError(f"There is no file {path}.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in _KEYS if key not in archive]
            if missing:
                raise PenjingError(f"{path} has no {', '.join(missing)}; it has {', '.join(archive) or 'nothing'}.")
            arrays = {key: archive[key] for key in _KEYS}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        # np.load gives a bare array for a .npy file: that is the TypeError and the AttributeError.
        raise PenjingError(f"{path} isn't a NumPy .npz file of plain arrays ({error}).") from error
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if (
            images.ndim != 3
            or images.dtype != np.uint8
            or labels.shape != images.shape[:1]
            or labels.dtype.kind not in "iu"
        ):
            raise PenjingError(
                f"{path}: x_{part} should be (N, H, W) uint8 and y_{part} (N,) integers, but they are "
                f"{images.shape} {images.dtype} and {labels.shape} {labels.dtype}."
            )
        if not len(images) or labels.min() < 0:
            raise PenjingError(f"{path}: x_{part} holds no images, or y_{part} negative labels.")
    return arrays
