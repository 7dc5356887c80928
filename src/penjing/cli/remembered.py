"""What the folder of a finished run tells a command about its data, so that nothing is typed twice."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from penjing.errors import PenjingError

if TYPE_CHECKING:
    from penjing.data import Data

MODEL = "model.penjing"  # the compressed graph, in the folder of its run


def folder_of(path: Path) -> Path | None:
    """Returns the folder of the finished run that a path names, or that holds the file; None where there is none."""
    folder = path if path.is_dir() else path.parent
    return folder if (folder / "report.json").is_file() else None


def data_of(
    folder: Path | None, spec: str | None, seed: int | None = None, check_names: Callable[[], None] = lambda: None
) -> "Data":
    """Returns the data that a command was given, or else those of the run.

    Images of `folder:PATH` become inputs as in the run, where the command doesn't say how.

    Args:
        folder: that of the finished run, if there is one.
        spec: the data as the command names them; None for those of the run.
        seed: seed of the order and the augmentation; None for that of the run.
        check_names: makes sure that all names are known; see `load_data`.

    Raises:
        PenjingError: there are no data: nothing names them, or the run's are code or aren't there any more; or a file of the
            run is damaged.
    """
    from penjing import report
    from penjing.cli.compressing import load_data
    from penjing.run.remembered import preprocess_of

    like = None if folder is None else preprocess_of(folder)
    if seed is None and folder is not None:
        seed = report.read(folder)["seed"]
    return load_data(_spec(folder) if spec is None else spec, seed, check_names, like)


def _spec(folder: Path | None) -> str:
    """Returns the text that names the run's data.

    Raises:
        PenjingError: nothing tells it, or it names code, which no file may start.
    """
    from penjing.data import comes_from_code
    from penjing.run.remembered import source_of

    told = None if folder is None else source_of(folder)
    if not told:
        where = "" if folder is None else f" {folder / 'report.json'} doesn't name the data of the run."
        raise PenjingError(f"Say which data to take, such as --data folder:photos.{where}")
    if comes_from_code(told):
        raise PenjingError(
            f"The data of the run come from code ({told}), which isn't started on the word of a file: give --data {told}."
        )
    return str(told)
