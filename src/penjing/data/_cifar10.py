"""CIFAR-10 as an image folder, decoded once into memory."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from penjing.checks import PATH, SEED, checked
from penjing.data._augment import random_flip, random_shift
from penjing.data._cache import cached
from penjing.data._data import Data, fingerprint
from penjing.data._layout import ImageSplit, class_names, read_layout
from penjing.data._memory import BATCH_SIZE, MemoryLoader
from penjing.data._preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from penjing.data._source import ImageSource
from penjing.data.prepare import to_mode
from penjing.errors import PenjingError
from penjing.tasks import Classification

_SIZE = 32


@checked(path=PATH, batch_size=BATCH_SIZE, seed=SEED)
def cifar10(path: str | Path, *, batch_size: int = 128, seed: int = 0) -> Data:
    """Returns CIFAR-10 (Krizhevsky 2009) from `train/CLASS/*` and `test/CLASS/*` in a folder or a zip.

    The classes in alphabetical order are the usual labels 0 to 9. Values are normalised with ImageNet's mean and
    standard deviation. Training images are moved by up to four pixels and mirrored (He et al. 2015). The test images are
    the validation data; 512 of the training images, without augmentation, are the calibration data. The decoded images
    (184 MB) are kept in `$PENJING_CACHE`, by default `~/.cache/penjing`, since decoding takes long.

    Args:
        path: the folder or the zip (it is read in place, never extracted); everything may lie in one more folder.
        batch_size: samples per training batch; the other loaders use 256.
        seed: seed of the order of the samples and of the augmentation.

    Raises:
        PenjingError: nothing is at `path`, or its folders aren't of this form.
    """
    source = ImageSource(path)
    layout = read_layout(source.path, source.names, unwrap=True)
    train, test = layout.train, layout.validation
    if train is None or test is None or train.labels is None or test.labels is None:
        raise PenjingError(f"{source.path} should hold train/CLASS/*.jpg and test/CLASS/*.jpg; try folder:{path}.")
    classes = class_names(train, source.path)
    if len(classes) != 10:
        raise PenjingError(f"{source.path} has {len(classes)} classes, CIFAR-10 has 10; try folder:{path}.")
    preprocess = Preprocess("RGB", _SIZE, (_SIZE, _SIZE), IMAGENET_MEAN, IMAGENET_STD)
    train_images, test_images = _decode(source, train), _decode(source, test)
    train_targets, test_targets = (np.searchsorted(classes, labels) for labels in (train.labels, test.labels))
    calibration = np.random.default_rng(0).permutation(len(train))[:512]
    return Data(
        train=MemoryLoader(
            train_images,
            train_targets,
            preprocess,
            batch_size=batch_size,
            shuffle=True,
            augment=_augment,
            seed=seed,
        ),
        calibration=MemoryLoader(train_images[calibration], train_targets[calibration], preprocess, batch_size=256),
        validation=MemoryLoader(test_images, test_targets, preprocess, batch_size=256),
        task=Classification(10),
        name="cifar10",
        classes=classes,
        preprocess=preprocess,
        fingerprint=fingerprint("cifar10", source.fingerprint, batch_size, seed),
        validation_files=tuple(zip(test.names, test_targets.tolist(), strict=True)),
    )


def _augment(images: Tensor, generator: torch.Generator) -> Tensor:
    return random_flip(random_shift(images, 4, generator), generator)


def _decode(source: ImageSource, part: ImageSplit) -> np.ndarray:
    """Returns the part's images as (N, 32, 32, 3) uint8."""

    def prepare(image: Image.Image) -> Image.Image:
        if image.size != (_SIZE, _SIZE):
            raise ValueError(f"it is {image.width}x{image.height}, CIFAR-10's images are {_SIZE}x{_SIZE}")
        return to_mode(image, "RGB")

    def make() -> np.ndarray:
        return np.stack([np.asarray(source.image(name, prepare)) for name in part.names])

    return cached(fingerprint("cifar10", source.fingerprint, part.names), make)
