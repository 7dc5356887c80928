"""How fast a runtime is on this machine at best: measured once, and kept."""

import json
import logging
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers torch.ops.quantized_decomposed
from torch.nn import functional as F

from penjing import records
from penjing.checks import FLAG, TEXT, THREADS, checked
from penjing.errors import PenjingError
from penjing.files import atomic_write, cache_folder
from penjing.graph import capture
from penjing.targets._device import DeviceFacts, Peaks
from penjing.targets._measure import measure
from penjing.targets._registry import find_target, machine_of
from penjing.targets._verbs import integer_macs, lower

ops = torch.ops.quantized_decomposed
# Of a convolution of 3×3: large enough to be bound by multiplying, small enough for the caches.
CHANNELS, PIXELS = 256, 28
FEATURES = 4096  # in and out of a linear layer: its weights take 64 MiB, more than the caches of most cores hold
MOSTLY = 0.5  # share of MACs in integers from which a runtime counts as multiplying integers
SECONDS = 2.0  # of timing each layer


class _Convolution(nn.Module):
    """A convolution, whose input, weight and output are quantised if wished."""

    def __init__(self, integer: bool) -> None:
        super().__init__()
        self.layer = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.integer = integer
        self.register_buffer("scales", self.layer.weight.detach().flatten(1).abs().amax(1) / 127)

    def forward(self, x: Tensor) -> Tensor:
        if not self.integer:
            return self.layer(x)
        zeros = torch.zeros(CHANNELS, dtype=torch.int64)
        of_weight = (self.scales, zeros, 0, -127, 127, torch.int8)
        weight = ops.dequantize_per_channel(ops.quantize_per_channel(self.layer.weight, *of_weight), *of_weight)
        return _rounded(F.conv2d(_rounded(x), weight, self.layer.bias, padding=1))


def _rounded(x: Tensor) -> Tensor:
    grid = (0.03, 128, 0, 255, torch.uint8)
    rounded: Tensor = ops.dequantize_per_tensor(ops.quantize_per_tensor(x, *grid), *grid)
    return rounded


@checked(target=TEXT, threads=THREADS, peaks=FLAG)
def device_facts(target: str = "onnxruntime", threads: int = 1, *, peaks: bool = True) -> DeviceFacts:
    """Returns what the machine is on which a target runs, and how fast its runtime is there at best.

    Peaks are measured once for each processor, runtime, version and number of threads, in some ten seconds, and kept in the
    folder of the cache. They are those of ordinary ops of the runtime, not of the silicon: no layer of a network will be much
    faster.

    Args:
        target: name of the runtime, or the address of a device with one.
        threads: threads within an op.
        peaks: whether to measure them.

    Raises:
        PenjingError: the target is unknown, or its runtime isn't installed.
    """
    facts = machine_of(target)
    return replace(facts, peaks=_peaks(target, threads)) if peaks else facts


@dataclass(frozen=True)
class _Known:
    """Peaks that were measured before, on a processor of that name."""

    processor: str
    peaks: Peaks


def _peaks(target: str, threads: int) -> Peaks:
    chosen = find_target(target)
    device, runtime = machine_of(target).processor, chosen.runtime
    path = cache_folder() / "peaks.json"
    known = _known(path)
    for one in known:
        if (one.processor, one.peaks.runtime, one.peaks.threads) == (device, runtime, threads):
            return one.peaks
    found = _measured(target, threads, runtime)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps([asdict(one) for one in (*known, _Known(device, found))], indent=1))
    except OSError as error:  # a full disk or a read-only home is no reason to fail: only the next call is slower
        logging.getLogger(__name__).info("The peaks can't be kept in %s: %s", path, error)
    return found


def _known(path: Path) -> tuple[_Known, ...]:
    """Returns what was measured before; nothing where the file is missing or damaged, since it can be measured again."""
    try:
        return records.convert(records.read(path), tuple[_Known, ...]) if path.exists() else ()
    except PenjingError:
        return ()


def _measured(target: str, threads: int, runtime: str) -> Peaks:
    torch.manual_seed(0)
    suffix = find_target(target).suffix
    image = torch.randn(1, CHANNELS, PIXELS, PIXELS)
    macs = CHANNELS * CHANNELS * 9 * PIXELS * PIXELS
    with tempfile.TemporaryDirectory() as folder:

        def seconds(name: str, model: nn.Module, *inputs: Tensor) -> tuple[float, float]:
            """Returns the seconds of the fastest tenth of the calls, and the share of MACs in integers."""
            graph = capture(model.eval(), inputs)
            file = lower(graph, target, Path(folder, name + suffix))
            found = measure(file, threads=threads, seconds=SECONDS, memory=False)
            cost = graph.cost()
            return found.latency_ms.p10 / 1e3, integer_macs(file, cost) if cost.macs else 0.0

        in_float, _ = seconds("float", _Convolution(False), image)
        in_integers, share = seconds("integer", _Convolution(True), image)
        reading, _ = seconds("linear", nn.Linear(FEATURES, FEATURES, bias=False), torch.randn(1, FEATURES))
    return Peaks(
        runtime,
        threads,
        float_macs=macs / in_float,
        integer_macs=macs / in_integers if share > MOSTLY else None,
        bytes=4 * FEATURES**2 / reading,
    )
