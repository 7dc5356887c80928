"""MNIST from an .npz file of the form that Keras distributes."""

from pathlib import Path

import numpy as np

from penjing.checks import PATH, SEED, checked
from penjing.data._arrays import read_arrays
from penjing.data._augment import random_shift
from penjing.data._data import Data, fingerprint
from penjing.data._digits import image_mode, scale_up
from penjing.data._memory import BATCH_SIZE, MemoryLoader
from penjing.data._preprocess import CHANNELS, SIZE, Preprocess
from penjing.errors import PenjingError
from penjing.tasks import Classification

_MEAN, _STD = 0.1307, 0.3081  # mean and standard deviation of the training images, in units of the full range
_MOST_CLASSES = 2**16  # each class has a name and an output, so a larger label must be an error in the file
_KEYS = ("x_train", "y_train", "x_test", "y_test")


@checked(path=PATH, batch_size=BATCH_SIZE, channels=CHANNELS, size=SIZE, seed=SEED)
def mnist(path: str | Path, *, batch_size: int = 128, channels: int = 1, size: int = 28, seed: int = 0) -> Data:
    """Returns MNIST (LeCun et al. 1998), or other data of the same form, from one file.

    The test images are the validation data; 512 of the training images, without augmentation, are the calibration data.
    Training images are moved by up to two pixels of 28.

    Args:
        path: a .npz file with `x_train` and `x_test` (N, H, W) uint8 and `y_train`, `y_test` (N,) integers.
        batch_size: samples per training batch; the other loaders use 256.
        channels: 3 repeats the grey values, for networks made for colour.
        size: height and width in pixels to which the images are scaled (PIL, bilinear).
        seed: seed of the order of the samples and of the augmentation.

    Raises:
        PenjingError: the file is missing or isn't of this form.
    """
    path = Path(path).expanduser()
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
    arrays = read_arrays(path, _KEYS)
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
        if 0 in images.shape:
            raise PenjingError(f"{path}: x_{part} holds no images: its shape is {images.shape}.")
        least, most = int(labels.min()), int(labels.max())
        if least < 0 or most >= _MOST_CLASSES:
            raise PenjingError(
                f"{path}: y_{part} holds labels from {least} to {most}; classes are numbered from 0, and there may be "
                f"{_MOST_CLASSES:,} of them."
            )
    return arrays
