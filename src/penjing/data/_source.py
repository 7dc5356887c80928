"""Reads the image files of a folder or a zip by name, without extracting anything."""

import hashlib
import io
import os
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from penjing.damage import DAMAGE
from penjing.data._cache import cached
from penjing.data._data import fingerprint
from penjing.data._zip import check_entry
from penjing.data.prepare import FORMATS, TooLarge, open_image
from penjing.errors import PenjingError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})
_LARGEST_FILE = 256 * 2**20  # bytes, unpacked; an uncompressed image with the most pixels that are read has 200 MB
_SAMPLE = (
    2048  # bytes that are hashed at the start, in the middle and at the end of each file: three reads for any length
)


class ImageSource:
    """The image files below one folder or inside one zip.

    It can be pickled and used from many threads and processes: each process opens the zip for itself.

    Args:
        path: the folder or the zip.

    Attributes:
        path: the folder or the zip, with "~" expanded.
        names: paths of the images, relative to `path`, with forward slashes, sorted; hidden files are left out.
        fingerprint: hash of the images' names and sizes, and of a zip's checksums. For a folder it hashes times of change
            and samples of each file's bytes instead, which also tell a file that was overwritten within one tick of the
            clock.
        total_bytes: the sum of the files' sizes (unpacked).

    Raises:
        PenjingError: nothing is at `path`, it isn't a folder or a zip, there are no images in it, or one of them is too
            large or has a path that leads outside.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._lock = threading.Lock()
        self._archive: tuple[int, zipfile.ZipFile] | None = None
        if self.path.is_dir():
            self.is_zip = False
            facts: list[tuple[Any, ...]] = sorted(_walk(self.path))
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
        """Leaves out the open zip, which can't go to another process."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_archive")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Starts with no open zip."""
        self.__dict__.update(state, _lock=threading.Lock(), _archive=None)

    def read(self, name: str) -> bytes:
        """Returns the bytes of one of `names`.

        Raises:
            PenjingError: the file can't be read.
        """
        try:
            if self.is_zip:
                return self._zip().read(name)
            with (self.path / name).open("rb") as file:
                content = file.read(_LARGEST_FILE + 1)
            if len(content) > _LARGEST_FILE:  # the file has grown since its size was checked
                raise PenjingError(_too_large(self.path / name, len(content)))
            return content
        except DAMAGE as error:
            raise PenjingError(f"{self.path / name} can't be read ({error}).") from error

    def image(self, name: str, prepare: Callable[[Image.Image], Image.Image]) -> Image.Image:
        """Opens one image and returns what `prepare` makes of it.

        Raises:
            PenjingError: the file, which the message names, isn't an image that PIL can decode.
        """
        content = self.read(name)
        try:
            with open_image(io.BytesIO(content)) as image:
                return prepare(image)
        except MemoryError:
            raise
        except TooLarge as error:
            raise PenjingError(f"{self.path / name} is too large: {error}.") from error
        except UnidentifiedImageError as error:  # its own message names an object in memory, not the file
            raise PenjingError(
                f"{self.path / name} is damaged or not an image in one of the formats that are read: "
                f"{', '.join(FORMATS)}. Replace or remove it."
            ) from error
        except Exception as error:  # PIL's decoders raise many types for damaged files
            raise PenjingError(
                f"{self.path / name} is damaged or can't be decoded "
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
        """Decodes images, JPEGs at an eighth of their size, on as many threads as there are cores, to find damaged ones.

        A check that finds none is remembered on disk for as long as no file's name, size or time changes.

        Raises:
            PenjingError: a file is damaged; the message names the first one.
        """

        def decode_all() -> np.ndarray:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for _ in pool.map(lambda name: self.image(name, _decoded), names):
                    pass
            return np.ones(1)

        cached(fingerprint("whole", str(self.path.resolve()), self.fingerprint, names), decode_all)

    def _zip(self) -> zipfile.ZipFile:
        """Returns this process's own handle: a handle that was open at a fork shares its file position with the parent."""
        with self._lock:
            if self._archive is None or self._archive[0] != os.getpid():
                try:
                    self._archive = os.getpid(), zipfile.ZipFile(self.path)
                except DAMAGE as error:
                    raise PenjingError(f"{self.path} is neither a folder nor a readable zip ({error}).") from error
            return self._archive[1]

    def _entries(self) -> Iterator[tuple[str, int, int]]:
        """Yields name, size and checksum of each image."""
        seen: set[str] = set()
        for entry in self._zip().infolist():
            name = entry.filename
            if entry.is_dir() or not _is_image(name):
                continue
            if ".." in PurePosixPath(name).parts or name.startswith("/") or "\\" in name:
                raise PenjingError(f"{self.path} holds an entry that points outside of it: {name!r}.")
            if name in seen:
                raise PenjingError(f"{self.path} holds {name!r} twice, and only one of the two could be read.")
            seen.add(name)
            check_entry(self.path, entry, _LARGEST_FILE)
            yield name, entry.file_size, entry.CRC


def _too_large(path: Path | str, size: int) -> str:
    return f"{path} has {size:,} bytes, more than the {_LARGEST_FILE:,} that an image may have."


def _decoded(image: Image.Image) -> Image.Image:
    image.draft(None, (1, 1))  # decoding a damaged JPEG fails at any scale, and the smallest is the fastest
    image.load()
    return image


def _is_upright(image: Image.Image) -> bool:
    return image.getexif().get(0x0112, 1) < 5  # orientations 5 to 8 swap the axes


def _is_image(name: str) -> bool:
    parts = name.split("/")
    return os.path.splitext(parts[-1])[1].lower() in SUFFIXES and not any(
        part == "__MACOSX" or (part.startswith(".") and part not in (".", "..")) for part in parts
    )


def _walk(root: Path) -> Iterator[tuple[str, int, int, bytes]]:
    """Yields name, size, time of change and `_sampled` of each image; follows links, but enters each folder once."""
    seen: set[tuple[int, int]] = set()
    above = os.path.join(root, "")
    for folder, subfolders, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders.sort()
        for file in files:
            path = os.path.join(folder, file)
            name = path.removeprefix(above).replace(os.sep, "/")
            if _is_image(name):
                try:
                    status = os.stat(path)
                    if not stat.S_ISREG(status.st_mode):
                        continue
                    if status.st_size > _LARGEST_FILE:
                        raise PenjingError(_too_large(path, status.st_size))
                    yield name, status.st_size, status.st_mtime_ns, _sampled(path, status.st_size)
                except OSError as error:
                    raise PenjingError(f"{path} can't be read ({error}).") from error


def _sampled(path: str, size: int) -> bytes:
    """Returns a hash of a file's start, middle and end; of the whole file where three samples cover it."""
    digest = hashlib.blake2b(digest_size=16)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if size <= 3 * _SAMPLE:
            digest.update(os.read(descriptor, 3 * _SAMPLE))
        else:
            for start in (0, (size - _SAMPLE) // 2, size - _SAMPLE):
                digest.update(os.pread(descriptor, _SAMPLE, start))
    finally:
        os.close(descriptor)
    return digest.digest()
