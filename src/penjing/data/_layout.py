"""The layout of an image folder: which images are for training, calibration and validation, and their classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from penjing.data._names import is_one_line
from penjing.errors import PenjingError

_FOLDERS = {
    "train": ("train", "training"),
    "calibration": ("calibration", "calib"),
    "validation": ("val", "valid", "validation", "test", "testing"),
}


@dataclass(frozen=True)
class ImageSplit:
    """The images of one part, in order.

    Attributes:
        names: paths of the images, as in `ImageSource.names`.
        labels: name of each image's class; None if the images lie in no class folders.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.names)

    def pick(self, indices: Sequence[int] | np.ndarray) -> "ImageSplit":
        """Returns some of the images."""
        labels = None if self.labels is None else tuple(self.labels[i] for i in indices)
        return ImageSplit(tuple(self.names[i] for i in indices), labels)


@dataclass(frozen=True)
class Layout:
    """The parts that the folders name; `whole` holds all images where no folder is named after a part."""

    path: Path
    train: ImageSplit | None = None
    calibration: ImageSplit | None = None
    validation: ImageSplit | None = None
    whole: ImageSplit | None = None


def read_layout(path: Path, names: Sequence[str], unwrap: bool) -> Layout:
    """Returns the images of each part, which is told by the names of the folders that they lie in.

    Where there are several folders for one part (`val/` and `test/`), the first of val, valid, validation, test,
    testing is taken. Images beside the folders of the parts are left out.

    Args:
        path: path of the folder or the zip, for error messages.
        names: relative paths of all images, with forward slashes.
        unwrap: whether a single folder around everything, as zips often have, is left out of the paths. Without `unwrap`
            it is left out only if it holds folders of parts.

    Raises:
        PenjingError: a part mixes class folders with loose images, classes differ between the parts, or a class folder
            has a name that can't stand on a line of its own.
    """
    paths = {name: PurePosixPath(name).parts for name in names}
    tops = {parts[0] for parts in paths.values()}
    if len(tops) == 1 and all(len(parts) > 1 for parts in paths.values()) and not _part_of(next(iter(tops))):
        inner = {name: parts[1:] for name, parts in paths.items()}
        if unwrap or any(_part_of(parts[0]) for parts in inner.values() if len(parts) > 1):
            paths = inner
    folders: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, parts in paths.items():
        if len(parts) > 1 and _part_of(parts[0]):
            folders.setdefault(parts[0].lower(), {})[name] = parts[1:]
    if not folders:
        return _checked(Layout(path, whole=_part(path, paths)))
    chosen = {
        part: _part(path / next(alias for alias in aliases if alias in folders), members)
        for part, aliases in _FOLDERS.items()
        if (members := next((folders[alias] for alias in aliases if alias in folders), None))
    }
    _check_classes(path, chosen)
    return _checked(Layout(path, **chosen))


def class_names(part: ImageSplit, path: Path) -> tuple[str, ...]:
    """Returns the classes of a labelled part in alphabetical order.

    Raises:
        PenjingError: there is only one.
    """
    classes = tuple(sorted(set(part.labels or ())))
    if len(classes) < 2:
        raise PenjingError(
            f"{path} holds only one class ({', '.join(classes)}): nothing can be learned from that. Images without "
            "labels lie directly in the folder that you name."
        )
    return classes


def _part_of(folder: str) -> str | None:
    return next((part for part, aliases in _FOLDERS.items() if folder.lower() in aliases), None)


def _part(path: Path, paths: dict[str, tuple[str, ...]]) -> ImageSplit:
    """Returns one part's images from their paths below its folder, which must be all CLASS/…/file, or all plain files."""
    loose = [name for name, parts in paths.items() if len(parts) == 1]
    if loose and len(loose) < len(paths):
        raise PenjingError(
            f"{path} has both class folders and images beside them ({loose[0]}): move or remove the {len(loose)} "
            "loose image(s)."
        )
    return ImageSplit(tuple(paths), None if loose else tuple(parts[0] for parts in paths.values()))


def _checked(layout: Layout) -> Layout:
    """Returns the layout; refuses class folders whose names can't be written, one a line, to `classes.txt`."""
    for part in (layout.train, layout.calibration, layout.validation, layout.whole):
        for name in sorted(set(part.labels or ()) if part is not None else ()):
            if not is_one_line(name):
                raise PenjingError(
                    f"{layout.path} has the class folder {name!r}: a line break, a control character or bytes that aren't "
                    "UTF-8 in its name would shift or break the list of classes. Rename the folder."
                )
    return layout


def _check_classes(path: Path, parts: dict[str, ImageSplit]) -> None:
    train, validation = parts.get("train"), parts.get("validation")
    if train is not None and validation is not None and (train.labels is None) != (validation.labels is None):
        bare, other = ("training", "validation") if train.labels is None else ("validation", "training")
        raise PenjingError(f"{path}: the {bare} images aren't in class folders, but the {other} images are.")
    known = train or validation
    for name, part in parts.items():
        if known is None or known.labels is None or part.labels is None:
            continue
        missing, extra = sorted(set(known.labels) - set(part.labels)), sorted(set(part.labels) - set(known.labels))
        if extra or (missing and name != "calibration"):
            first = "training" if known is train else "validation"
            only = "; ".join(
                f"only in {where}: {', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}"
                for where, classes in ((first, missing), (name, extra))
                if classes
            )
            raise PenjingError(f"{path}: the classes of {first} and {name} differ ({only}).")
