"""ONNX Runtime (https://onnxruntime.ai), through `torch.onnx.export` of the same graph: on the CPU, or by another provider."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from penjing.graph import Graph
from penjing.targets._records import Artifact
from penjing.targets._registry import Target, targets
from penjing.targets.onnxruntime._providers import PROVIDERS, Provider, check_present, lacks

_SOURCE, _PACKAGES = "https://onnxruntime.ai", ("onnxruntime", "onnx", "onnx-ir", "onnxscript")
# Other builds of the same runtime, which are the same module.
_BUILDS = {"onnxruntime": ("onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")}


@targets.register(source=_SOURCE, packages=_PACKAGES, builds=_BUILDS)
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
        filled={"provider": "CPUExecutionProvider", "plugin": "", "backend": "", "fixed": False},
    )


@targets.register(source=_SOURCE, packages=_PACKAGES, builds=_BUILDS, name="onnxruntime:cpu")
def onnxruntime_cpu() -> Target:
    """The same as `onnxruntime`."""
    return named(onnxruntime(), "onnxruntime:cpu")


def named(plain: Target, name: str) -> Target:
    """Returns a target of another name, whose files are the same."""

    def lower(graph: Graph, path: Path) -> Artifact:
        return replace(plain.lower(graph, path), target=name)

    def describe(path: Path) -> Artifact:
        return replace(plain.open(path), target=name)

    return replace(plain, name=name, lower=lower, open=describe)


def _by_provider(provider: Provider) -> Target:
    """Returns the target of a provider.

    Raises:
        PenjingError: the installed runtime doesn't have the provider.
    """
    plain = named(onnxruntime(), provider.target)
    check_present(provider)

    from penjing.targets.onnxruntime._provider_session import ProviderSession, memory, profile

    return replace(
        plain,
        device=provider.device,
        session=partial(ProviderSession, provider=provider),
        profile=partial(profile, provider=provider),
        memory=partial(memory, provider=provider),
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
