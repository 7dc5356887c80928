"""ONNX Runtime on the CPU (https://onnxruntime.ai), through `torch.onnx.export` of the same graph."""

from penjing.targets._registry import Target, targets


@targets.register(source="https://onnxruntime.ai", packages=("onnxruntime", "onnx", "onnx-ir", "onnxscript"))
def onnxruntime() -> Target:
    """ONNX Runtime on the CPU, which fuses pairs of quantise and dequantise nodes into int8 kernels."""
    import onnxruntime as ort

    from penjing.targets.onnxruntime._lower import describe, lower
    from penjing.targets.onnxruntime._memory import memory
    from penjing.targets.onnxruntime._profile import profile
    from penjing.targets.onnxruntime._session import CpuSession

    return Target(
        name="onnxruntime",
        version=ort.__version__,
        device="cpu",
        suffixes=(".onnx",),
        lower=lower,
        open=describe,
        session=CpuSession,
        profile=profile,
        memory=memory,
        runner="onnxruntime/runner.py.j2",
    )
