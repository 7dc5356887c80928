"""Data from the user's own image files."""

import math
from pathlib import Path

import numpy as np

from penjing.checks import COUNT, FLAG, PATH, SEED, checked, either, number, optional, whole
from penjing.data._augment import ImageAugment, PaddedCrop, RandomResizedCrop
from penjing.data._data import Data, Split, fingerprint
from penjing.data._digits import image_mode
from penjing.data._layout import ImageSplit, Layout, class_names, read_layout
from penjing.data._memory import BATCH_SIZE, check_room
from penjing.data._preprocess import CHANNELS, IMAGENET_MEAN, IMAGENET_STD, MEAN, SIZE, STD, Preprocess
from penjing.data._source import ImageSource
from penjing.data._stream import FileLoader, ImageFiles
from penjing.data.prepare import PIXELS
from penjing.errors import PenjingError
from penjing.tasks import Classification, Unlabelled

EVALUATED = 64  # images per batch in evaluation
_IN_MEMORY = 512 * 2**20  # bytes; decoded images of up to this size are kept in memory
_CHECKED = 100_000  # images; up to this many are decoded once at the start to find damaged ones, in a minute or two


@checked(
    path=PATH,
    size=optional(SIZE),
    batch_size=BATCH_SIZE,
    resize=optional(SIZE),
    channels=CHANNELS,
    mean=optional(either(number(), MEAN)),
    std=optional(either(number(above=0), STD)),
    flip=FLAG,
    calibration=COUNT,
    num_workers=whole(0, 256),
    seed=SEED,
)
def image_folder(
    path: str | Path,
    size: int | None = None,
    *,
    batch_size: int = 32,
    resize: int | None = None,
    channels: int = 3,
    mean: float | tuple[float, ...] | None = None,
    std: float | tuple[float, ...] | None = None,
    flip: bool = True,
    calibration: int = 512,
    num_workers: int = 0,
    seed: int = 0,
) -> Data:
    """Returns data from image files in a folder or a zip (which is read in place, never extracted).

    These forms are known; classes are numbered in alphabetical order:

    - `train/CLASS/…` and `val/CLASS/…` (also `valid`, `validation`, `test`), with or without `calibration/`;
    - `train/CLASS/…` alone, or `CLASS/…`: a fixed tenth of each class becomes validation data;
    - `val/CLASS/…` alone: a fixed tenth becomes calibration data, and there is no training data;
    - files without class folders, loose or in `calibration/` and `validation/`: unlabelled data (`tasks.Unlabelled`). Half of
      the loose files, but at most `calibration` of them, become calibration data, the rest validation data.

    Without `calibration/`, a fixed random part of the training images, without augmentation, is used for calibration.
    Images of up to 512 MB decoded are kept in memory; larger sets are read again in each epoch. Damaged files are found
    at once, except in sets of more than 100,000 images: there the error that names a file is raised when it is read.

    Args:
        path: the folder or the zip.
        size: height and width of the network's input in pixels: the short side is scaled to `resize`, then the
            centre is cut out; training takes a random resized crop. None keeps the images' own size, which then must
            be the same for all; training moves them by up to an eighth.
        batch_size: samples per training batch; the other loaders use 64.
        resize: the short side before the crop; None means 8/7 of `size` (256 for 224), or `size` where all images are
            of that size already.
        channels: 3, or 1 for grey values.
        mean: mean of each channel (or one number for all), for values in 0..1; None means ImageNet's.
        std: standard deviation of each channel (or one number for all), for values in 0..1; None means ImageNet's.
        flip: mirror training images with probability one half; unsuitable for letters and the like.
        calibration: number of calibration images that are taken from other parts.
        num_workers: processes that read and decode images; with 0 the calling process does.
        seed: seed of the order of the samples and of the augmentation; the splits don't depend on it.

    Raises:
        PenjingError: the path is missing, or holds no images, only one class, a damaged image, an image of more than 67
            million pixels, images of several sizes (with `size=None`), or classes that differ between the parts or have
            names of several lines; or a batch would take more than 4 GB.
    """
    source = ImageSource(path)
    layout = read_layout(source.path, source.names, unwrap=source.is_zip)
    parts = _split(layout, calibration)
    labelled = next((part for part in (parts.train, parts.validation) if part is not None and part.labels), None)
    classes = None if labelled is None else class_names(labelled, source.path)
    number_of = {name: number for number, name in enumerate(classes or ())}
    sizes = _sizes(source, parts, size)
    preprocess = _preprocess(source, sizes, size, resize, channels, mean, std)
    height, width = preprocess.crop or (0, 0)
    check_room("A batch", max(batch_size, EVALUATED), height, width, 4 * channels)  # float32
    pixels = None if sizes is None else sum(max(math.prod(each), height * width) for each in sizes.values())
    keep = pixels is not None and pixels * channels <= _IN_MEMORY
    used = list(
        dict.fromkeys(
            name for part in (parts.train, parts.calibration, parts.validation) if part for name in part.names
        )
    )
    if not keep and len(used) <= _CHECKED:  # images that are kept are decoded anyway
        source.check(used)
    augment: ImageAugment
    if size is None:
        assert preprocess.crop is not None
        augment = PaddedCrop(max(1, min(preprocess.crop) // 8), flip)
    else:
        augment = RandomResizedCrop(size, flip)

    def numbers(part: ImageSplit) -> list[int] | None:
        if part.labels is None or classes is None:
            return None
        return [number_of[label] for label in part.labels]

    def load(part: ImageSplit | None, train: bool = False) -> FileLoader | None:
        if part is None:
            return None
        targets = numbers(part)
        change = augment if train else None
        files = ImageFiles(source, part.names, targets, preprocess, augment=change, seed=seed, keep=keep)
        size_of_batch = batch_size if train else EVALUATED
        return FileLoader(files, batch_size=size_of_batch, shuffle=train, seed=seed, num_workers=num_workers)

    judged = None if parts.validation is None else numbers(parts.validation)
    return Data(
        train=load(parts.train, train=True),
        calibration=load(parts.calibration),
        validation=load(parts.validation),
        task=Unlabelled() if classes is None else Classification(len(classes)),
        name=source.path.resolve().stem,
        classes=classes,
        preprocess=preprocess,
        fingerprint=fingerprint(source.fingerprint, preprocess, batch_size, flip, calibration, seed),
        validation_files=(
            tuple(zip(parts.validation.names, judged, strict=True)) if parts.validation and judged is not None else None
        ),
        split=Split(
            *_counts(parts.train),
            *_counts(parts.validation),
            held_out=parts.train is not None and layout.validation is None,
        ),
    )


def _split(layout: Layout, calibration: int) -> Layout:
    """Returns the layout with its missing parts filled by images of the parts that are there."""
    train, calibrate, validate = layout.train, layout.calibration, layout.validation
    if layout.whole is not None and layout.whole.labels is not None:
        train = layout.whole
    if train is not None and train.labels is None:  # only a teacher could make use of them, and none is known here
        if calibrate is None:
            calibrate = train.pick(_fixed_sample(len(train), calibration))
        train = None
    unlabelled = layout.whole if layout.whole is not None and layout.whole.labels is None else None
    if train is not None and validate is None:
        class_names(train, layout.path)  # an error on a single class is clearer than one on an empty split
        held_out = _tenth(train)
        if not held_out.any():
            raise PenjingError(f"{layout.path} has no validation images and too few to take some: add a val/ folder.")
        train, validate = train.pick(np.flatnonzero(~held_out)), train.pick(np.flatnonzero(held_out))
    if train is not None:
        return Layout(layout.path, train, calibrate or train.pick(_fixed_sample(len(train), calibration)), validate)
    if validate is not None and calibrate is None and validate.labels is not None:
        held_out = _tenth(validate)
        if held_out.any():
            chosen = np.flatnonzero(held_out)
            calibrate = validate.pick(chosen[_fixed_sample(len(chosen), calibration)])
            validate = validate.pick(np.flatnonzero(~held_out))
    if unlabelled is None and (calibrate is None or validate is None):
        unlabelled = calibrate or validate
    if unlabelled is not None:
        chosen = _fixed_sample(len(unlabelled), min(calibration, -(-len(unlabelled) // 2)))
        rest = np.setdiff1d(np.arange(len(unlabelled)), chosen)
        calibrate, validate = unlabelled.pick(chosen), unlabelled.pick(rest if len(rest) else chosen)
    return Layout(layout.path, None, calibrate, validate)


def _counts(part: ImageSplit | None) -> tuple[int, int | None]:
    """Returns how many images a part has, and how many classes these show."""
    if part is None:
        return 0, None
    return len(part), None if part.labels is None else len(set(part.labels))


def _fixed_sample(count: int, wanted: int) -> np.ndarray:
    """Returns up to `wanted` of `count` indices, always the same ones, in order."""
    return np.sort(np.random.default_rng(0).permutation(count)[: max(1, wanted)])


def _tenth(part: ImageSplit) -> np.ndarray:
    """Returns a mask of a tenth of each class, always the same images, at least one where a class has two or more."""
    labels = np.asarray(part.labels)
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        share = max(1, round(len(members) / 10)) if len(members) > 1 else 0
        mask[np.random.default_rng(0).permutation(members)[:share]] = True
    return mask


def _sizes(source: ImageSource, parts: Layout, size: int | None) -> dict[str, tuple[int, int]] | None:
    """Returns the (height, width) of each image; None where sizes aren't needed, as the images don't fit in memory anyway."""
    if size is not None and source.total_bytes > _IN_MEMORY:
        return None
    used = [part for part in (parts.train, parts.calibration, parts.validation) if part is not None]
    return {name: source.size(name) for name in dict.fromkeys(name for part in used for name in part.names)}


def _preprocess(
    source: ImageSource,
    sizes: dict[str, tuple[int, int]] | None,
    size: int | None,
    resize: int | None,
    channels: int,
    mean: float | tuple[float, ...] | None,
    std: float | tuple[float, ...] | None,
) -> Preprocess:
    mode = image_mode(channels)
    if mean is None:
        mean = IMAGENET_MEAN if channels == 3 else (sum(IMAGENET_MEAN) / 3,)
    elif isinstance(mean, int | float):
        mean = (float(mean),) * channels
    if std is None:
        std = IMAGENET_STD if channels == 3 else (sum(IMAGENET_STD) / 3,)
    elif isinstance(std, int | float):
        std = (float(std),) * channels
    if size is not None:
        fits = sizes is not None and all(shape == (size, size) for shape in sizes.values())
        usual = size if fits else min(round(size * 8 / 7), math.isqrt(PIXELS))
        short_side = usual if resize is None else resize
        if short_side < size:
            raise PenjingError(
                f"resize={short_side} is smaller than size={size}: the crop would be larger than the image."
            )
        return Preprocess(mode, short_side, (size, size), tuple(mean), tuple(std))
    if resize is not None:
        raise PenjingError("resize= needs size=: the short side is scaled, then a square of `size` is cut out.")
    assert sizes is not None
    first, shape = next(iter(sizes.items()))
    other = next((name for name, each in sizes.items() if each != shape), None)
    if other is not None:
        raise PenjingError(
            f"The images of {source.path} have different sizes ({first} is {shape[1]}x{shape[0]}, {other} is "
            f"{sizes[other][1]}x{sizes[other][0]}). Say which size the model takes: image_folder(path, size=224), or "
            f"folder:{source.path},size=224 on the command line."
        )
    # The short side changes nothing here, but lets a deployed model take images of other sizes.
    return Preprocess(mode, min(shape), shape, tuple(mean), tuple(std))
