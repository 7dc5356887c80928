"""The table of ONNX Runtime's providers that are targets of their own, and which of them the installed runtime has."""

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache

from penjing.errors import PenjingError

# Imports the runtime in a process of its own: who only asks what there is shouldn't have to load it.
_ASK = """
import importlib.util, json, onnxruntime
for module, provider in {plugins}:
    if importlib.util.find_spec(module) is not None:
        library = importlib.import_module(module).get_library_path()
        onnxruntime.register_execution_provider_library(provider, library)
print(json.dumps(onnxruntime.get_available_providers()))
"""


@dataclass(frozen=True)
class Provider:
    """One of ONNX Runtime's ways to execute a file.

    Attributes:
        key: what users type behind "onnxruntime:".
        name: ONNX Runtime's own name.
        title: how its makers write it, with what it runs on.
        device: the kind of device.
        install: advice on how to get a runtime that has the provider.
        whole: whether the provider compiles stretches of a model, for sizes that are all fixed, and executes each stretch as
            one node.
        plugin: the module that brings the provider; "" where it is built into the runtime.
        backend: the function of that module that tells the path of the library to which the provider hands over; "" without one.
        preload: whether the provider's libraries may lie in packages of their own.
    """

    key: str
    name: str
    title: str
    device: str
    install: str
    whole: bool
    plugin: str = ""
    backend: str = ""
    preload: bool = False

    @property
    def target(self) -> str:
        """The target's name."""
        return f"onnxruntime:{self.key}"


_GPU = "pip uninstall onnxruntime, then pip install onnxruntime-gpu"

PROVIDERS = (
    Provider("cuda", "CUDAExecutionProvider", "CUDA on NVIDIA's GPUs", "gpu", _GPU, whole=False, preload=True),
    Provider(
        "tensorrt", "TensorrtExecutionProvider", "TensorRT on NVIDIA's GPUs", "gpu", f"{_GPU}; and pip install tensorrt",
        whole=True, preload=True,
    ),
    Provider(
        "coreml", "CoreMLExecutionProvider", "Core ML on Apple's devices", "apple",
        "on macOS, pip install onnxruntime has it", whole=True,
    ),
    Provider(
        "qnn", "QNNExecutionProvider", "Qualcomm's AI Engine Direct on the NPUs of Snapdragon", "npu",
        "pip install onnxruntime-qnn", whole=True, plugin="onnxruntime_qnn", backend="get_qnn_htp_path",
    ),
)  # fmt: skip


def present() -> tuple[str, ...]:
    """Returns the names of all providers of the installed runtime; none where there is no runtime, or it can't be asked."""
    return _asked()[0]


@cache
def _asked() -> tuple[tuple[str, ...], str]:
    """Returns the names of all providers, and why the runtime can't be asked for them; "" where it can."""
    code = _ASK.format(plugins=[(one.plugin, one.name) for one in PROVIDERS if one.plugin])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return (), (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
    return tuple(json.loads(done.stdout.splitlines()[-1])), ""


def lacks(provider: Provider) -> str:
    """Returns advice on how to get the provider; "" where it is there."""
    providers, why = _asked()
    if why:
        return f"ONNX Runtime can't be asked for its providers: {why}."
    return "" if provider.name in providers else f"To get {provider.name}: {provider.install}."


def check_present(provider: Provider) -> None:
    """Makes sure that the installed runtime has the provider.

    Raises:
        PenjingError: it hasn't; the message says which providers there are and what to install.
    """
    if lacking := lacks(provider):
        here = ", ".join(sorted(present())) or "none"
        raise PenjingError(
            f"The target '{provider.target}' can't be used here: the installed ONNX Runtime has the providers {here}. {lacking}"
        )
