"""ONNX Runtime in JavaScript (https://onnxruntime.ai/docs/tutorials/web), which runs ONNX files in browsers and in Node."""

from dataclasses import replace

from penjing.targets._registry import Target, targets
from penjing.targets.onnxruntime import onnxruntime
from penjing.targets.onnxruntime_web._package import check_installed, installed, lacks


@targets.register(
    source="https://onnxruntime.ai/docs/tutorials/web", packages=("onnxruntime", "onnx", "onnx-ir", "onnxscript"),
    name="onnxruntime-web", lacks=lacks, version=installed,
)  # fmt: skip
def onnxruntime_web() -> Target:
    """ONNX Runtime's WebAssembly with SIMD and one thread, as browsers run it; it is measured in Node."""
    check_installed()

    from penjing.targets.onnxruntime_web._engine import version
    from penjing.targets.onnxruntime_web._measuring import memory, profile
    from penjing.targets.onnxruntime_web._page import PAGE, write_page
    from penjing.targets.onnxruntime_web._session import BENCH, WebSession

    return replace(
        onnxruntime().renamed("onnxruntime-web"),
        version=version(),
        device="node",
        session=WebSession,
        bench=BENCH,
        profile=profile,
        memory=memory,
        runner="onnxruntime_web/runner.py.j2",
        filled={},
        beside={PAGE: write_page},
        on_device=None,
        rows=None,
    )
