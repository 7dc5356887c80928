"""Reads a `.keras` file, which may come from a stranger: none of its code runs, and what it makes is bounded by its size."""

import json
import os
import re
import sys
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import ModuleType
from typing import Any

from penjing.damage import described, refusing
from penjing.errors import PenjingError
from penjing.importing.keras.names import check_names
from penjing.importing.keras.size import bounded

MOST_CONFIG = 2**26  # bytes of a network's description: 64 MiB, more than any has
MOST_EXPANSION = (
    100  # bytes unpacked for each byte of the file: Keras packs nothing, and sparse weights pack to a tenth
)
OLDEST = (3, 15, 1)  # the release tested here: older ones don't check the archive's and the weights' sizes
WEIGHTS = "model.weights.h5"


def imported() -> ModuleType:
    """Returns Keras; it computes with PyTorch where nobody chose otherwise.

    Raises:
        PenjingError: it isn't installed, or too old.
    """
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import keras
    except ImportError as error:
        raise PenjingError(f"Keras is needed to read its models ({error}): pip install 'penjing[keras]'.") from error
    version = str(getattr(keras, "__version__", "of an unknown version"))
    if tuple(int(number) for number in re.findall(r"\d+", version)[:3]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise PenjingError(
            f"Keras {oldest} or newer is needed, and {version} is installed: pip install 'keras>={oldest}'."
        )
    return keras  # type: ignore[no-any-return]


def load(path: Path) -> Any:
    """Returns the model of a `.keras` file.

    Raises:
        PenjingError: there is no such file; it is damaged; it holds code, or classes that have no form here; or it asks for more
            than it holds.
    """
    if not path.is_file():
        raise PenjingError(f"There is no file {path}.")
    keras = imported()
    with refusing(f"{path} can't be read as a .keras file"), zipfile.ZipFile(path) as archive:
        _check_members(archive, path.stat().st_size)
        check_names(path, json.loads(archive.read("config.json")))
        weights = archive.getinfo(WEIGHTS).file_size
    try:
        with bounded(path, weights):
            return keras.models.load_model(path, compile=False, safe_mode=True)
    except PenjingError:
        raise
    except Exception as error:  # of whatever kind its readers raise
        raise PenjingError(f"{path} can't be read by Keras: {described(error)}") from error


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    """Raises where an archive of `size` bytes unpacks to far more, or outside the folder where it is unpacked."""
    for member in archive.infolist():
        posix, windows = PurePosixPath(member.filename), PureWindowsPath(member.filename)
        if posix.is_absolute() or windows.anchor or ".." in windows.parts:
            raise ValueError(f"its member {member.filename!r} would be unpacked elsewhere")
    unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > MOST_EXPANSION * size:
        raise ValueError(f"its {size} bytes unpack to {unpacked}, more than {MOST_EXPANSION} times as many")
    if archive.getinfo("config.json").file_size > MOST_CONFIG:
        raise ValueError("its description is larger than any network's")
