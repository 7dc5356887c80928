"""ONNX Runtime (https://onnxruntime.ai), through `torch.onnx.export` of the same graph: on the CPU, or by another provider."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from penjing.targets._fresh_memory import fresh_memory
from penjing.targets._registry import Target, targets
from penjing.targets.onnxruntime._providers import PROVIDERS, Provider, check_present, lacks

_SOURCE, _PACKAGES = "https://onnxruntime.ai", ("onnxruntime", "onnx", "onnx-ir", "onnxscript")
# Other builds of the same runtime, which are the same module.
_BUILDS = {"onnxruntime": ("onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")}

ON_DEVICE = Path(__file__).with_name("_on_device.py")


@targets.register(source=_SOURCE, packages=_PACKAGES, builds=_BUILDS)
def onnxruntime() -> Target:
    """ONNX Runtime on the CPU, which fuses pairs of quantise and dequantise nodes into int8 kernels."""
    import onnxruntime as ort

    from penjing.targets.onnx import store_half
    from penjing.targets.onnxruntime._lower import describe, lower
    from penjing.targets.onnxruntime._profile import profile, rows
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
        memory=partial(fresh_memory, ON_DEVICE),
        on_device=ON_DEVICE,
        rows=rows,
        runner="onnxruntime/runner.py.j2",
        staged_runner="onnxruntime/staged.py.j2",
        filled={"provider": "CPUExecutionProvider", "plugin": "", "backend": "", "fixed": False},
        store_half=store_half,
    )


@targets.register(source=_SOURCE, packages=_PACKAGES, builds=_BUILDS, name="onnxruntime:cpu")
def onnxruntime_cpu() -> Target:
    """The same as `onnxruntime`."""
    return onnxruntime().renamed("onnxruntime:cpu")


def _by_provider(provider: Provider) -> Target:
    """Returns the target of a provider.

    Raises:
        PenjingError: the installed runtime doesn't have the provider.
    """
    plain = onnxruntime().renamed(provider.target)
    check_present(provider)

    from penjing.targets.onnxruntime._provider_session import ProviderSession, memory, profile

    return replace(
        plain,
        device=provider.device,
        session=partial(ProviderSession, provider=provider),
        profile=partial(profile, provider=provider),
        memory=partial(memory, provider=provider),
        on_device=None,  # it knows the CPU alone
        rows=None,
        staged_runner=None,
        filled={
            "provider": provider.name, "plugin": provider.plugin, "backend": provider.backend, "fixed": provider.whole,
        },
    )  # fmt: skip


def _register(provider: Provider) -> None:
    def target() -> Target:
        return _by_provider(provider)

    target.__doc__ = f"ONNX Runtime through {provider.title}."
    targets.register(
        source=_SOURCE, packages=_PACKAGES, builds=_BUILDS, name=provider.target, lacks=partial(lacks, provider)
    )(target)


for _provider in PROVIDERS:
    _register(_provider)
