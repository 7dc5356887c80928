"""OpenVINO on the CPU (https://docs.openvino.ai), which reads an ONNX file of the same graph and writes its own form of it."""

from functools import partial
from pathlib import Path

from penjing.targets._fresh_memory import fresh_memory
from penjing.targets._registry import Target, targets

ON_DEVICE = Path(__file__).with_name("_on_device.py")


@targets.register(source="https://docs.openvino.ai", packages=("openvino", "onnx", "onnx-ir", "onnxscript"))
def openvino() -> Target:
    """OpenVINO on Intel and other CPUs, which fuses pairs of quantise and dequantise ops into int8 kernels."""
    from penjing.targets.openvino._half import store_half
    from penjing.targets.openvino._lower import describe, lower
    from penjing.targets.openvino._profile import profile, rows
    from penjing.targets.openvino._session import VERSION, CpuSession

    return Target(
        name="openvino",
        version=VERSION,
        device="cpu",
        suffixes=(".xml", ".bin"),
        lower=lower,
        open=describe,
        session=CpuSession,
        profile=profile,
        memory=partial(fresh_memory, ON_DEVICE),
        on_device=ON_DEVICE,
        rows=rows,
        runner="openvino/runner.py.j2",
        store_half=store_half,
    )
