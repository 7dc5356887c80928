"""Reading the image files of a folder or a zip by name, without extracting anything."""

import io
import os
import stat
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from penjing.data._cache import cached
from penjing.data._data import fingerprint
from penjing.errors import PenjingError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})
_LARGEST_FILE = 512 * 2**20  # bytes; a zip entry that unpacks to more is no photo


class ImageSource:
    """The image files below one folder or inside one zip.

    It can be pickled and used from many threads and processes: each process opens the zip for itself.

    Args:
        path: the folder or the zip.

    Attributes:
        path: the same.
        names: paths of the images, relative to `path`, with forward slashes, sorted; hidden files are left out.
        fingerprint: hash of names, sizes and, for a zip, checksums (for a folder, times of change).
        total_bytes: the sum of the files' sizes (unpacked).

    Raises:
        PenjingError: if there is nothing at `path`, it isn't a folder or a zip, or there are no images in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._lock = threading.Lock()
        self._archive: tuple[int, zipfile.ZipFile] | None = None
        if self.path.is_dir():
            self.is_zip = False
            facts = sorted(_walk(self.path))
        elif self.path.exists():
            self.is_zip = True
            facts = sorted(self._entries())
        else:
            raise PenjingError(f"There is no folder or zip {self.path}.")
        if not facts:
            raise PenjingError(f"There are no images in {self.path} (looked for {', '.join(sorted(SUFFIXES))}).")
        self.names = tuple(fact[0] for fact in facts)
        self.total_bytes = sum(fact[1] for fact in facts)
        self.fingerprint = fingerprint(facts)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what can't go to another process: the open zip."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_archive")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Starts with no open zip."""
        self.__dict__.update(state, _lock=threading.Lock(), _archive=None)

    def read(self, name: str) -> bytes:
        """Returns the bytes of one of `names`.

        Raises:
            PenjingError: if it can't be read.
        """
        try:
            return self._zip().read(name) if self.is_zip else (self.path / name).read_bytes()
        except (
            OSError,
            RuntimeError,
            EOFError,
            KeyError,
            zipfile.BadZipFile,
            zlib.error,
            NotImplementedError,
        ) as error:
            raise PenjingError(f"{self.path / name} can't be read ({error}).") from error

    def image(self, name: str, prepare: Callable[[Image.Image], Image.Image]) -> Image.Image:
        """Returns `prepare` of one opened image.

        Raises:
            PenjingError: naming the file, if it isn't an image that PIL can decode.
        """
        content = self.read(name)
        try:
            with Image.open(io.BytesIO(content)) as image:
                return prepare(image)
        except MemoryError:
            raise
        except Exception as error:  # PIL's decoders raise many types for damaged files
            raise PenjingError(
                f"{self.path / name} is damaged or not an image that Pillow reads "
                f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no details'}). "
                "Replace or remove it."
            ) from error

    def size(self, name: str) -> tuple[int, int]:
        """Returns the (height, width) of one image, upright, from its header."""
        header = self.image(
            name, lambda image: image if _is_upright(image) else image.transpose(Image.Transpose.ROTATE_90)
        )
        return header.height, header.width

    def check(self, names: Sequence[str]) -> None:
        """Decodes images, JPEGs at an eighth of their size, on as many threads as there are cores.

        What was found whole is remembered on disk for as long as no file's name, size or time changes.

        Raises:
            PenjingError: naming the first damaged file.
        """

        def whole() -> np.ndarray:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for _ in pool.map(lambda name: self.image(name, _decoded), names):
                    pass
            return np.ones(1)

        cached(fingerprint("whole", str(self.path.resolve()), self.fingerprint, names), whole)

    def _zip(self) -> zipfile.ZipFile:
        """Returns this process's handle: a forked one would share its file position with the parent's."""
        with self._lock:
            if self._archive is None or self._archive[0] != os.getpid():
                try:
                    self._archive = os.getpid(), zipfile.ZipFile(self.path)
                except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
                    raise PenjingError(f"{self.path} is neither a folder nor a readable zip ({error}).") from error
            return self._archive[1]

    def _entries(self) -> Iterator[tuple[str, int, int]]:
        for entry in self._zip().infolist():
            if entry.is_dir() or not _is_image(entry.filename):
                continue
            parts = PurePosixPath(entry.filename).parts
            if ".." in parts or entry.filename.startswith("/") or "\\" in entry.filename:
                raise PenjingError(f"{self.path} holds an entry that points outside of it: {entry.filename!r}.")
            if entry.file_size > _LARGEST_FILE:
                raise PenjingError(f"{self.path}: {entry.filename} would unpack to {entry.file_size} bytes; refused.")
            yield entry.filename, entry.file_size, entry.CRC


def _decoded(image: Image.Image) -> Image.Image:
    image.draft(None, (1, 1))  # a damaged JPEG shows at any scale
    image.load()
    return image


def _is_upright(image: Image.Image) -> bool:
    return image.getexif().get(0x0112, 1) < 5  # orientations 5 to 8 swap the axes


def _is_image(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return PurePosixPath(name).suffix.lower() in SUFFIXES and not any(
        part == "__MACOSX" or (part.startswith(".") and part != "..") for part in parts
    )


def _walk(root: Path) -> Iterator[tuple[str, int, int]]:
    """Yields name, size and time of change of each image; follows links, but enters each folder once."""
    seen: set[tuple[int, int]] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders.sort()
        for file in files:
            path = Path(folder, file)
            name = path.relative_to(root).as_posix()
            if _is_image(name):
                try:
                    status = path.stat()
                except OSError as error:
                    raise PenjingError(f"{path} can't be read ({error}).") from error
                if stat.S_ISREG(status.st_mode):
                    yield name, status.st_size, status.st_mtime_ns
