"""What the command line answers without a model, it answers without importing PyTorch."""

import subprocess
import sys

import pytest

from penjing.version import __version__

HEAVY = {"torch", "onnx", "onnxruntime", "scipy", "sklearn", "accelerate", "PIL"}


def ran(*arguments: str) -> tuple[str, set[str]]:
    """Returns what a command printed, and the modules that its process had imported in the end."""
    code = (
        "import atexit, runpy, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
        "sys.argv[0] = 'penjing'; runpy.run_module('penjing', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, set(done.stderr.split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["compress", "--help"], ["list", "--help"], ["recover", "--help"], ["--version"]]
)
def test_help_and_version_need_no_heavy_library(arguments):
    said, modules = ran(*arguments)
    assert not HEAVY & modules
    assert said == f"penjing {__version__}\n" if arguments == ["--version"] else "Usage: penjing" in said


def test_help_names_every_command():
    said, _ = ran("--help")
    making = ("demo", "compress", "prune", "factorize", "quantize", "recover", "export")
    for command in (*making, "verify", "report", "profile", "channels", "list", "targets", "compare"):
        assert f" {command} " in said
