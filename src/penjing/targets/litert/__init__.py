"""LiteRT on the CPU (https://ai.google.dev/edge/litert), formerly TensorFlow Lite: one `.tflite` file.

Penjing writes the file itself, op by op; so all that this target needs is the runtime.
"""

from functools import partial
from pathlib import Path

from penjing.targets._fresh_memory import fresh_memory
from penjing.targets._registry import Target, targets

ON_DEVICE = Path(__file__).with_name("_on_device.py")


@targets.register(source="https://ai.google.dev/edge/litert", packages=("ai-edge-litert",))
def litert() -> Target:
    """LiteRT (TensorFlow Lite) on the CPU, for phones and small boards; files have fixed sizes."""
    import ai_edge_litert

    from penjing.targets.litert._half import store_half
    from penjing.targets.litert._lower import describe, lower
    from penjing.targets.litert._profile import profile, rows
    from penjing.targets.litert._session import CpuSession

    return Target(
        name="litert",
        version=ai_edge_litert.__version__,
        device="cpu",
        suffixes=(".tflite",),
        lower=lower,
        open=describe,
        session=CpuSession,
        profile=profile,
        memory=partial(fresh_memory, ON_DEVICE),
        on_device=ON_DEVICE,
        rows=rows,
        runner="litert/runner.py.j2",
        fixed_sizes=True,
        store_half=store_half,
    )
