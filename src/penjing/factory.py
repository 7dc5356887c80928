"""Calling a function that the user names as text: `package.module:factory` or `file.py:factory`."""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from penjing.errors import PenjingError, with_article
from penjing.raised import raised


def call_factory(spec: str) -> Any:
    """Imports the function that `spec` names, calls it without arguments, and returns its result.

    While it is imported and runs, the file's own folder (or, for a module, the current one) is on the import path.

    Args:
        spec: `package.module:factory` or `file.py:factory`; the part behind the colon may have dots.

    Raises:
        PenjingError: if the file, module or function doesn't exist (with the nearest name), it isn't callable without
            arguments, or it raises (with the exception and the line). A PenjingError of the function is passed on.
    """
    where, colon, name = spec.rpartition(":")
    if not colon or not where or not name:
        raise PenjingError(f"'{spec}' names no function: write package.module:factory or file.py:factory.")
    from_file = where.endswith(".py")
    with _on_path(Path(where).expanduser().resolve().parent if from_file else Path.cwd()):
        module = _load_file(spec, Path(where).expanduser()) if from_file else _import(spec, where)
        factory = _find(spec, module, name)
        try:
            inspect.signature(factory).bind()
        except TypeError as error:
            raise PenjingError(
                f"{spec} can't be called without arguments ({error}): write a function that can."
            ) from error
        except ValueError:
            pass  # some built-in callables have no signature; calling tells
        return _guarded(spec, "raised", factory)


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    """Lets the user's module import what lies beside it, as `python file.py` would."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _load_file(spec: str, path: Path) -> ModuleType:
    if not path.is_file():
        beside = [file.name for file in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise PenjingError(f"{spec}: there is no file {path}.{_nearest(path.name, beside)}")
    path = path.resolve()
    # Model and data often come from one file: it must run once, or its classes would exist twice.
    key = hashlib.sha256(repr((path, path.stat().st_mtime_ns, path.stat().st_size)).encode()).hexdigest()[:12]
    name = f"_penjing_{path.stem}_{key}"
    if name in sys.modules:
        return sys.modules[name]
    description = importlib.util.spec_from_file_location(name, path)
    if description is None or description.loader is None:
        raise PenjingError(f"{spec}: {path} can't be imported.")
    module = importlib.util.module_from_spec(description)
    sys.modules[name] = module  # dataclasses and pickle look their module up here
    try:
        _guarded(spec, f"could not be imported: {path.name} raised", description.loader.exec_module, module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _import(spec: str, where: str) -> ModuleType:
    if not all(part.isidentifier() for part in where.split(".")):
        raise PenjingError(f"{spec}: '{where}' is neither a module's name nor a file that ends with .py.")
    importlib.invalidate_caches()
    for depth in range(1, where.count(".") + 2):
        parent, _, last = ".".join(where.split(".")[:depth]).rpartition(".")
        name = f"{parent}.{last}" if parent else last
        if name in sys.modules:
            continue
        package = sys.modules.get(parent)
        if package is not None and not hasattr(package, "__path__"):
            raise PenjingError(f"{spec}: {parent} is not a package, so there is no module {name}.")
        if importlib.util.find_spec(name) is None:
            folders = None if package is None else package.__path__
            known = [module.name for module in pkgutil.iter_modules(folders)]
            raise PenjingError(f"{spec}: there is no module {name}.{_nearest(last, known)}")
        _guarded(spec, f"could not be imported: {name} raised", importlib.import_module, name)
    return sys.modules[where]


def _find(spec: str, module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = (
                [each for each, value in vars(found).items() if callable(value)] if hasattr(found, "__dict__") else []
            )
            raise PenjingError(f"{spec}: there is no '{part}' in {_name_of(found)}.{_nearest(part, known)}")
        found = getattr(found, part)
    if not callable(found):
        raise PenjingError(
            f"{spec} is {with_article(type(found).__name__)}, not a function: name a function that returns it."
        )
    return found


def _name_of(found: Any) -> str:
    """Returns a module's file, or what else has the attribute."""
    return str(getattr(found, "__file__", None) or getattr(found, "__qualname__", type(found).__name__))


def _guarded(spec: str, verb: str, function: Any, *arguments: Any) -> Any:
    """Calls it; turns whatever it raises into an error that names the exception and the user's line."""
    try:
        return function(*arguments)
    except PenjingError:
        raise
    except (Exception, SystemExit) as error:
        raise raised(f"{spec} {verb}", error) from error


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, [each for each in known if not each.startswith("_")], n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""
