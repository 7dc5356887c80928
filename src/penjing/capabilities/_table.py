"""The table of targets, and the target that is meant where none is named."""

from urllib.parse import urlsplit

from penjing.capabilities._records import Capabilities
from penjing.capabilities.executorch import EXECUTORCH
from penjing.capabilities.litert import LITERT
from penjing.capabilities.onnxruntime import ONNXRUNTIME
from penjing.capabilities.onnxruntime_providers import PROVIDERS
from penjing.capabilities.onnxruntime_web import IN_CHROMIUM, ONNXRUNTIME_WEB, WEBGPU
from penjing.capabilities.openvino import OPENVINO
from penjing.capabilities.torch import TORCH
from penjing.errors import unknown_name

TARGETS = {
    one.name: one
    for one in (ONNXRUNTIME, *PROVIDERS, ONNXRUNTIME_WEB, IN_CHROMIUM, WEBGPU, OPENVINO, EXECUTORCH, LITERT, TORCH)
}
"""The records of all targets, by name."""

DEFAULT = ONNXRUNTIME.name


def add(capabilities: Capabilities) -> None:
    """Adds the record of a target that isn't Penjing's own; one of the same name is replaced."""
    TARGETS[capabilities.name] = capabilities


def find(target: str | Capabilities) -> Capabilities:
    """Returns what a target can do, by its name or the address of a device with that runtime; a record is returned as it is.

    Raises:
        PenjingError: the name is unknown; the error gives the nearest one.

    Example:
        >>> find("torch").has_integers
        False
    """
    if isinstance(target, Capabilities):
        return target
    runtime = urlsplit(target).path.strip("/") if "://" in target else target
    if runtime not in TARGETS:
        raise unknown_name("target", runtime, TARGETS)
    return TARGETS[runtime]
