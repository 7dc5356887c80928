"""Reads a `.keras` file, which may come from a stranger: none of its code runs, and no class but Keras' own is made."""

import json
import os
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

from penjing.damage import described, refusing
from penjing.errors import PenjingError

MOST_CONFIG = 2**26  # bytes of a network's description: 64 MiB, more than any has


def imported() -> ModuleType:
    """Returns Keras; it computes with PyTorch where nobody chose otherwise.

    Raises:
        PenjingError: it isn't installed.
    """
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import keras
    except ImportError as error:
        raise PenjingError(f"Keras is needed to read its models ({error}): pip install 'penjing[keras]'.") from error
    if not str(getattr(keras, "__version__", "")).startswith("3."):
        raise PenjingError(f"Keras 3 is needed, and {getattr(keras, '__version__', 'an unknown one')} is installed.")
    return keras  # type: ignore[no-any-return]


def load(path: Path) -> Any:
    """Returns the model of a `.keras` file.

    Raises:
        PenjingError: there is no such file, it is damaged, or holds code or classes that aren't Keras' own.
    """
    if not path.is_file():
        raise PenjingError(f"There is no file {path}.")
    with refusing(f"{path} can't be read as a .keras file"), zipfile.ZipFile(path) as archive:
        if archive.getinfo("config.json").file_size > MOST_CONFIG:
            raise ValueError("its description is larger than any network's")
        _check(path, json.loads(archive.read("config.json")))
    try:
        return imported().models.load_model(path, compile=False, safe_mode=True)
    except PenjingError:
        raise
    except Exception as error:  # of whatever kind its readers raise
        raise PenjingError(f"{path} can't be read by Keras: {described(error)}") from error


def _check(path: Path, config: Any) -> None:
    """Raises where a description names code, or a class of another package."""
    waiting = [config]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            waiting += one.values()
            home, kind = one.get("module"), one.get("class_name")
            if kind in ("Lambda", "__lambda__"):
                name = (one.get("config") or {}).get("name", "?") if isinstance(one.get("config"), dict) else "?"
                raise PenjingError(
                    f"{path}: the layer '{name}' is a Lambda, which holds code that would run. Build the model without it, by "
                    "layers of Keras' own."
                )
            foreign = isinstance(home, str) and home not in ("builtins", "keras") and not home.startswith("keras.")
            if kind is not None and foreign:
                raise PenjingError(
                    f"{path}: it names {home}.{kind}, which is no class of Keras' own, and isn't imported. If you trust the "
                    "file, load it yourself with keras.models.load_model, and give the model to penjing.from_keras."
                )
