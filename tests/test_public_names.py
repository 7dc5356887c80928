"""`import penjing as pj` gives every public name when it is first used, whatever was imported before."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import penjing as pj

SOURCE = Path(pj.__file__)
PARTS = sorted(
    f"penjing.{path.stem}"
    for path in SOURCE.parent.iterdir()
    if (path.suffix == ".py" or (path / "__init__.py").exists()) and not path.stem.startswith("__")
)

# Runs each statement in a process of its own, forked from one that has imported the libraries and nothing of Penjing.
FORKED = """
import os, sys, traceback
import accelerate, jinja2, onnxruntime, onnxscript, scipy.optimize, sklearn.datasets, torch.onnx, torchmetrics
assert "penjing" not in sys.modules
failed = []
for statement in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        try:
            exec(statement, {})
        except BaseException:
            print(statement, file=sys.stderr)
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(statement)
sys.exit(str(failed) if failed else 0)
"""


def python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_type_checkers_find_each_name_where_it_is_imported_from():
    tree = ast.parse(SOURCE.read_text())
    block = next(
        node for node in tree.body if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    )
    seen = {alias.name: step.module for step in block.body for alias in step.names}
    assert seen == {**dict.fromkeys(pj._PACKAGES, "penjing"), **pj._HOMES}
    assert sorted({*seen, "__version__"}) == sorted(pj.__all__)


def test_nothing_heavy_is_imported_before_a_name_is_used():
    code = "import sys, penjing; assert set(penjing.__all__) <= set(dir(penjing)); print(*sys.modules)"
    assert not {"torch", "numpy", "penjing.graph"} & set(python(code).split())


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'penjing' has no attribute 'compres'"):
        _ = pj.compres
    assert not hasattr(pj, "criteria")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_every_part_can_be_imported_first_and_verbs_stay_functions():
    are_right = (
        "import inspect, penjing\n"
        "for verb in ('capture', 'channels', 'compress', 'load', 'lower', 'measure', 'prune', 'quantize', 'recover'):\n"
        "    assert inspect.isfunction(getattr(penjing, verb)), verb\n"
        "for package in ('data', 'tasks', 'zoo', 'targets', 'graph', 'planning', 'quantization'):\n"
        "    assert inspect.ismodule(getattr(penjing, package)), package\n"
        "from penjing import *\n"
        "assert prune is penjing.prune and inspect.isfunction(prune)\n"
    )
    packages = "import penjing.pruning.criteria, penjing.quantization.grids, penjing.compress\n"
    by_name = "".join(f"from penjing import {name}\n" for name in pj.__all__)
    orders = [packages + are_right, are_right + packages + are_right, by_name + packages + are_right]
    python(FORKED, *orders, *(f"import {part}" for part in PARTS))
