"""The table of targets is read without importing a runtime, and says what to install."""

import subprocess
import sys

import pytest

from penjing.errors import PenjingError
from penjing.targets import Availability, available, find_target, targets

RUNTIMES = {"onnx", "onnx_ir", "onnxruntime", "onnxscript"}  # PyTorch is everywhere in Penjing
OTHERS = {"openvino", "executorch", "ai_edge_litert"}


def test_a_runtime_is_imported_only_once_its_target_is_asked_for():
    code = (
        "import sys\nfrom penjing.targets import available, find_target, targets\n"
        "available(), list(targets.values()), find_target('torch')\nprint(*sys.modules)\n"
        "find_target('onnxruntime')\nprint(*sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after = (set(line.split()) for line in done.stdout.splitlines())
    assert "penjing.targets" in before and not (RUNTIMES | OTHERS) & before
    assert after >= RUNTIMES and not OTHERS & after


@pytest.fixture
def without(monkeypatch):
    """Adds a target whose runtime isn't installed."""

    def absent():
        """A runtime that nobody has."""
        import penjing_has_no_such_runtime  # noqa: F401

    entries = dict(targets._entries)
    monkeypatch.setattr(targets, "_entries", entries)
    targets.register(source="nowhere", packages=("penjing-has-no-such-runtime", "numpy"))(absent)


def test_a_target_whose_runtime_is_missing_says_what_to_install(without):
    install = "Install what it needs: pip install penjing-has-no-such-runtime"
    assert Availability("absent", False, None, install) in available()
    with pytest.raises(PenjingError, match=f"'absent' can't be used here: No module named .*{install}$"):
        find_target("absent")


def test_a_module_that_is_missing_for_another_reason_is_no_advice_to_install(monkeypatch):
    def broken():
        """A target with a mistake."""
        import penjing.targets.no_such_module  # noqa: F401

    monkeypatch.setattr(targets, "_entries", dict(targets._entries))
    targets.register(source="nowhere", packages=("numpy",))(broken)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        find_target("broken")


def test_what_is_not_built_is_not_listed():
    assert [row.name for row in available()] == list(targets)
    with pytest.raises(PenjingError, match=r"Unknown target 'tensorrt'.*Known: .*onnxruntime"):
        find_target("tensorrt")
