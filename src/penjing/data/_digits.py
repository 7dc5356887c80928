"""scikit-learn's digits: the data set that is always there."""

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from penjing.checks import SEED, checked
from penjing.data._augment import random_shift
from penjing.data._data import Data, fingerprint
from penjing.data._memory import BATCH_SIZE, MemoryLoader, check_room
from penjing.data._preprocess import CHANNELS, SIZE, Preprocess
from penjing.tasks import Classification

_MEAN, _STD = (
    0.3057,
    0.3235,
)  # mean and standard deviation of the training images at 32 x 32, in units of the full range


@checked(batch_size=BATCH_SIZE, channels=CHANNELS, size=SIZE, seed=SEED)
def digits(batch_size: int = 64, channels: int = 3, size: int = 32, seed: int = 0) -> Data:
    """Returns the 1797 handwritten digits that come with scikit-learn (Alpaydin and Kaynak 1998), scaled up.

    1437 images are training data and 360 validation data (a fixed split with equal shares of each class); 256 of the training
    images, without augmentation, are calibration data. Training images are moved by up to three pixels of 32.

    Args:
        batch_size: samples per training batch; the other loaders use 256.
        channels: 3 repeats the grey values, for networks made for colour.
        size: height and width in pixels to which the 8 x 8 images are scaled (PIL, bilinear).
        seed: seed of the order of the samples and of the augmentation; the split doesn't depend on it.

    Example:
        >>> data = digits()
        >>> images, targets = next(iter(data.train))
        >>> tuple(images.shape), len(data.classes)
        ((64, 3, 32, 32), 10)
    """
    raw = load_digits()
    images = np.round(raw.images * 255 / 16).astype(np.uint8)
    indices = np.arange(len(images))
    train, validation = train_test_split(indices, test_size=360, stratify=raw.target, random_state=0)
    calibration = train[:256]
    preprocess = Preprocess(image_mode(channels), size, (size, size), (_MEAN,) * channels, (_STD,) * channels)
    inputs = scale_up(images, preprocess)
    padding = max(1, round(size * 3 / 32))
    return Data(
        train=MemoryLoader(
            inputs[train],
            raw.target[train],
            preprocess,
            batch_size=batch_size,
            shuffle=True,
            augment=lambda batch, generator: random_shift(batch, padding, generator),
            seed=seed,
        ),
        calibration=MemoryLoader(inputs[calibration], raw.target[calibration], preprocess, batch_size=256),
        validation=MemoryLoader(inputs[validation], raw.target[validation], preprocess, batch_size=256),
        task=Classification(10),
        name="digits",
        classes=tuple(str(digit) for digit in range(10)),
        preprocess=preprocess,
        examples={"x": images[validation], "y": raw.target[validation].astype(np.int64)},
        fingerprint=fingerprint("digits", images.tobytes(), batch_size, channels, size, seed),
    )


def image_mode(channels: int) -> str:
    """Returns the PIL mode with this many channels."""
    return "RGB" if channels == 3 else "L"


def scale_up(images: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Scales grey images (N, H, W) uint8 as `preprocess` says, and returns them before normalisation.

    Raises:
        PenjingError: the scaled images would take too much memory.
    """
    height, width = preprocess.crop or images.shape[1:]
    check_room("A set", len(images), height, width, len(preprocess.mean))
    return np.stack([preprocess.pixels(Image.fromarray(image)) for image in images])
