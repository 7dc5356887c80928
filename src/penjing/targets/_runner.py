"""The script that is delivered beside a lowered model: a target's template, rendered."""

import ast
import inspect
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from penjing.data import prepare
from penjing.targets._registry import Target


def rendered(target: Target, template: str | None = None) -> str:
    """Returns the source of `run.py` for a target, by default of its own template for one file.

    The script holds a copy of the functions with which Penjing itself prepares images, so its inputs are the same bit for bit.
    """
    environment = Environment(
        loader=PackageLoader("penjing", "targets"),
        autoescape=False,  # it is Python source
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    path = Path(template or target.runner)
    found = environment.from_string(path.read_text()) if path.is_absolute() else environment.get_template(str(path))
    return found.render(suffix=target.suffix, preparation=_preparation(), **target.filled)


def _preparation() -> str:
    """Returns the source of `penjing.data.prepare` without docstring and imports: the script has its own."""
    source = inspect.getsource(prepare)
    imports = [step for step in ast.parse(source).body if isinstance(step, ast.Import | ast.ImportFrom)]
    return "\n".join(source.splitlines()[imports[-1].end_lineno :]).strip()
