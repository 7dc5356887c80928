"""Writes `run.py`: the template beside this file, with the source of Penjing's image preparation pasted in."""

import inspect
from pathlib import Path

from penjing.data import _prepare
from penjing.errors import PenjingError
from penjing.files import atomic_write

TEMPLATE = Path(__file__).with_name("run_template.py")
IMPORT = "from penjing.data._prepare import normalise, open_image, resize_and_crop, to_mode\n"
UNUSED_HERE = "  # noqa: F401"  # behind an import that only the pasted functions use


def write_runner(directory: Path) -> Path:
    """Writes `run.py` into `directory` and returns its path.

    The script makes its inputs with the very functions that Penjing makes them with, so they are the same bit for bit.

    Raises:
        PenjingError: it can't be written there.
    """
    template = TEMPLATE.read_text()
    if template.count(IMPORT) != 1:
        raise AssertionError(f"{TEMPLATE.name} must import the preparation once, on one line.")
    path = Path(directory, "run.py")
    try:
        atomic_write(path, template.replace(IMPORT, _functions()).replace(UNUSED_HERE, ""))
    except OSError as error:
        raise PenjingError(f"Can't write {path}: {error.strerror or error}.") from error
    return path


def _functions() -> str:
    """Returns what the preparation defines without its docstring and imports, which the template has."""
    source = inspect.getsource(_prepare)
    return source.partition("from PIL import Image, ImageOps\n")[2].strip() + "\n\n"
