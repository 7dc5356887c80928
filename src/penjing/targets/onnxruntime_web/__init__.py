"""ONNX Runtime in JavaScript (https://onnxruntime.ai/docs/tutorials/web), which runs ONNX files in browsers and in Node."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from penjing.errors import PenjingError
from penjing.targets._registry import Target, targets
from penjing.targets.onnxruntime import onnxruntime
from penjing.targets.onnxruntime_web._chromium import lacks_chromium
from penjing.targets.onnxruntime_web._package import installed, lacks

if TYPE_CHECKING:
    from penjing.targets.onnxruntime_web._engine import Place

_SOURCE = "https://onnxruntime.ai/docs/tutorials/web"
_PACKAGES = ("onnxruntime", "onnx", "onnx-ir", "onnxscript")


def _lacks_in_browser() -> str:
    return " ".join(filter(None, (lacks(), lacks_chromium())))


def _lacks_webgpu() -> str:
    if lacking := _lacks_in_browser():
        return lacking
    from penjing.targets.onnxruntime_web._in_page import lacks_adapter

    return lacks_adapter()


@targets.register(source=_SOURCE, packages=_PACKAGES, name="onnxruntime-web", lacks=lacks, version=installed)
def onnxruntime_web() -> Target:
    """ONNX Runtime's WebAssembly with SIMD and one thread, as browsers run it; it is measured in Node."""
    _check("onnxruntime-web", lacks())

    from penjing.targets.onnxruntime_web._node import NODE

    return _at(NODE, "node")


@targets.register(
    source=_SOURCE, packages=_PACKAGES, name="onnxruntime-web:chromium", lacks=_lacks_in_browser, version=installed
)
def onnxruntime_web_chromium() -> Target:
    """The same, measured in a Chromium without a window."""
    _check("onnxruntime-web:chromium", _lacks_in_browser())

    from penjing.targets.onnxruntime_web._in_page import CHROMIUM

    return _at(CHROMIUM, "browser")


@targets.register(
    source=_SOURCE, packages=_PACKAGES, name="onnxruntime-web:webgpu", lacks=_lacks_webgpu, version=installed
)
def onnxruntime_web_webgpu() -> Target:
    """ONNX Runtime's kernels for WebGPU, in a Chromium without a window whose machine has a GPU."""
    _check("onnxruntime-web:webgpu", _lacks_webgpu())

    from penjing.targets.onnxruntime_web._in_page import WEBGPU

    return _at(WEBGPU, "gpu")


def _check(name: str, lacking: str) -> None:
    if lacking:
        raise PenjingError(f"The target '{name}' can't be used here. {lacking}")


def _at(place: "Place", device: str) -> Target:
    from penjing.targets.onnxruntime_web._measuring import memory, profile
    from penjing.targets.onnxruntime_web._page import PAGE, write_page
    from penjing.targets.onnxruntime_web._session import WebSession, bench_at

    return replace(
        onnxruntime().renamed(place.target),
        version=place.version(),
        device=device,
        session=partial(WebSession, place=place),
        bench=bench_at(place),
        profile=partial(profile, place=place),
        memory=partial(memory, place=place),
        runner="onnxruntime_web/runner.py.j2",
        filled={},
        beside={PAGE: write_page},
        on_device=None,
        rows=None,
    )
