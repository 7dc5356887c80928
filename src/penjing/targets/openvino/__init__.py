"""OpenVINO on the CPU (https://docs.openvino.ai), which reads an ONNX file of the same graph and writes its own form of it."""

from penjing.targets._registry import Target, targets


@targets.register(source="https://docs.openvino.ai", packages=("openvino", "onnx", "onnx-ir", "onnxscript"))
def openvino() -> Target:
    """OpenVINO on Intel and other CPUs, which fuses pairs of quantise and dequantise ops into int8 kernels."""
    from penjing.targets.openvino._lower import describe, lower
    from penjing.targets.openvino._memory import memory
    from penjing.targets.openvino._profile import profile
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
        memory=memory,
        runner="openvino/runner.py.j2",
    )
