"""The runtimes that models are deployed on: lower a graph to a file, run it, compare it, measure it, profile it.

Each runtime is one subpackage that registers a `Target`; the verbs here know no runtime by name. The subpackage's `__init__`
imports the runtime, and its own modules that need the runtime, only when a caller asks for the target.
"""

from penjing.targets import (  # noqa: F401  registers the targets
    executorch,
    litert,
    onnxruntime,
    onnxruntime_web,
    openvino,
    torch,
)
from penjing.targets._device import DeviceFacts, Peaks, machine_facts, processor
from penjing.targets._fresh_memory import fresh_memory
from penjing.targets._half import check_stores_half
from penjing.targets._layers import layers_of
from penjing.targets._measure import measure, measure_together
from penjing.targets._peaks import device_facts
from penjing.targets._records import Artifact, ExecutedNode, Latency, Measurement, Parity, TensorSpec
from penjing.targets._registry import Availability, Target, available, find_target, machine_of, runtime_of, targets
from penjing.targets._roofline import FAR, RooflineRow, far_from_limit, roofline
from penjing.targets._speedup import Speedup, speedup
from penjing.targets._verbs import (
    Runner,
    check_parity,
    integer_macs,
    lower,
    open_artifact,
    profile,
    run,
    session,
    write_runner,
)
from penjing.targets.bench import Bench, EnergyMeter, FreshProcess, Job, ThisProcess
from penjing.targets.devices import KitResult, import_kit, write_kit

__all__ = [
    "FAR",
    "Artifact",
    "Availability",
    "Bench",
    "DeviceFacts",
    "EnergyMeter",
    "ExecutedNode",
    "FreshProcess",
    "Job",
    "KitResult",
    "Latency",
    "Measurement",
    "Parity",
    "Peaks",
    "RooflineRow",
    "Runner",
    "Speedup",
    "Target",
    "TensorSpec",
    "ThisProcess",
    "available",
    "check_parity",
    "check_stores_half",
    "device_facts",
    "far_from_limit",
    "find_target",
    "fresh_memory",
    "import_kit",
    "integer_macs",
    "layers_of",
    "lower",
    "machine_facts",
    "machine_of",
    "measure",
    "measure_together",
    "open_artifact",
    "processor",
    "profile",
    "roofline",
    "run",
    "runtime_of",
    "session",
    "speedup",
    "targets",
    "write_kit",
    "write_runner",
]
