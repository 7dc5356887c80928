"""Makes data from the text by which the command line names it."""

import ast
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from penjing.checks import SEED, TEXT, Unfit, a, checked, optional
from penjing.data._cifar10 import cifar10
from penjing.data._data import Data
from penjing.data._digits import digits
from penjing.data._image_folder import image_folder
from penjing.data._mnist import mnist
from penjing.data._preprocess import Preprocess
from penjing.errors import PenjingError, unknown_name
from penjing.factory import call_factory

_SETS: dict[str, Callable[..., Data]] = {"digits": digits, "mnist": mnist, "cifar10": cifar10, "folder": image_folder}


@checked(spec=TEXT, seed=optional(SEED), like=optional(a(Preprocess, "a penjing.data.Preprocess")))
def load(spec: str, seed: int | None = None, like: Preprocess | None = None) -> Data:
    """Returns the data that `spec` names.

    Args:
        spec: `digits`, `mnist:PATH.npz`, `cifar10:PATH`, `folder:PATH`, or a function of the user's that takes nothing
            and returns a `Data`: `package.module:factory` or `file.py:factory`. The first four take options of the
            Python function after commas: `folder:photos/,size=224,mean=0:0:0,std=1:1:1`, `digits,channels=1`.
        seed: seed of the order and the augmentation of the first four, where `spec` gives none.
        like: how the images of `folder:PATH` become inputs, where `spec` doesn't say.

    Raises:
        PenjingError: there is no such data set, file or function, or the function doesn't return a `Data`.
    """
    name, _, rest = spec.partition(":")
    name, _, inline = name.partition(",")
    if name not in _SETS:
        if not _may_be_factory(spec):
            raise _unknown(spec, name)
        data = call_factory(spec)
        if not isinstance(data, Data):
            raise PenjingError(f"{spec} returned {type(data).__name__}, but it should return a penjing.Data.")
        return replace(data, source=spec)
    path, options = _options(rest)
    if inline:
        options = _parse(inline.split(",")) | options
    make = _SETS[name]
    parameters = inspect.signature(make).parameters
    for option in options:
        if option not in parameters or option == "path":
            raise unknown_name(f"option of {name}", option, [known for known in parameters if known != "path"])
    if "path" not in parameters:
        if path:
            raise PenjingError(f"{name} takes no path, so write '{name}' instead of '{spec}'.")
        arguments: tuple[str, ...] = ()
    elif not path:
        raise PenjingError(f"{name} needs a path: {name}:PATH.")
    else:
        arguments = (path,)
    if name == "folder" and like is not None:
        options = _as_before(like, options) | options
    if seed is not None:
        options = {"seed": seed} | options
    try:
        return replace(make(*arguments, **options), source=spec)
    except Unfit as error:
        raise PenjingError(f"'{spec}': {error}") from error


def _as_before(like: Preprocess, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of `image_folder` by which images become inputs as before."""
    found: dict[str, Any] = {"channels": 1 if like.mode == "L" else 3, "mean": like.mean, "std": like.std}
    if like.crop is None or like.resize in (None, min(like.crop)) or "size" in given:
        return found  # images of that size already, or of a size that is given
    return found | {"size": like.crop[0], "resize": like.resize}


def _options(rest: str) -> tuple[str, dict[str, Any]]:
    """Splits PATH,option=value,… from the right; a path that exists as it stands has no options."""
    path = rest
    found: list[str] = []
    while "=" in path.rpartition(",")[2] and "," in path and not Path(path).expanduser().exists():
        path, _, option = path.rpartition(",")
        found.insert(0, option)
    return path, _parse(found)


def _parse(options: list[str]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not equals:
            raise PenjingError(f"'{option}' is not an option: write name=value.")
        try:
            values = [ast.literal_eval(part.strip()) for part in text.split(":")]
            parsed[key.strip()] = values[0] if len(values) == 1 else tuple(values)
        except (
            ValueError,
            SyntaxError,
            RecursionError,
            MemoryError,
        ) as error:  # thousands of brackets raise the last two
            raise PenjingError(
                f"'{option}': the value must be a number, True, False or None, or several with colons between them "
                "(mean=0.5:0.5:0.5)."
            ) from error
    return parsed


def comes_from_code(spec: str) -> bool:
    """Tells whether `load` would call a function of the user's, whose file may also register methods, such as signals."""
    return spec.partition(":")[0].partition(",")[0] not in _SETS and _may_be_factory(spec)


def is_there(spec: str) -> bool:
    """Tells whether the file or folder that `spec` names exists, where it names one."""
    name, _, rest = spec.partition(":")
    if name.partition(",")[0] not in _SETS or not rest:
        return True
    return Path(_options(rest)[0]).expanduser().exists()


def _may_be_factory(spec: str) -> bool:
    module, colon, _ = spec.rpartition(":")
    if not colon:
        return False
    if module.endswith(".py") or any(mark in module for mark in "./\\"):
        return True
    return module.isidentifier() and (Path(f"{module}.py").exists() or importlib.util.find_spec(module) is not None)


def _unknown(spec: str, name: str) -> PenjingError:
    if spec and Path(spec).expanduser().exists():
        kind = "mnist" if spec.endswith(".npz") else "folder"
        return PenjingError(f"'{spec}' is a path, but what is in it? Write {kind}:{spec}.")
    return unknown_name("data set", name, [*_SETS, "package.module:factory", "file.py:factory"])
