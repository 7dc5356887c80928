"""What the machine is that models run on, as its system reports it, and how fast a runtime is on it at best, as measured.

This file needs Python alone, so that it also runs on devices by itself.
"""

import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_CLOCK = Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")  # kHz
_CPUS = Path("/proc/cpuinfo")
_CONTAINER_MEMORY = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
# Instructions that kernels of neural networks use, by the names that Linux gives them.
_X86 = (
    "sse4_1", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni", "avx512_bf16",
    "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
)  # fmt: skip
_ARM = ("asimd", "asimdhp", "fphp", "asimddp", "i8mm", "bf16", "sve", "sve2", "svei8mm", "svebf16", "sme")
INSTRUCTIONS = frozenset((*_X86, *_ARM))


@dataclass(frozen=True)
class Peaks:
    """How fast a runtime is on a device at best, with a number of threads.

    Attributes:
        runtime: name and version of the runtime.
        threads: threads within an op.
        float_macs: multiply-accumulates per second of a large convolution in float32.
        integer_macs: the same in 8-bit integers; None where the runtime multiplies nothing in integers.
        bytes: bytes per second at which the weights of a large linear layer are read, for one row.
    """

    runtime: str
    threads: int
    float_macs: float
    integer_macs: float | None
    bytes: float


@dataclass(frozen=True)
class DeviceFacts:
    """What is known of the machine; None, or empty, where its system doesn't tell.

    Attributes:
        processor: the processor's name.
        architecture: such as "x86_64" or "aarch64".
        system: the operating system.
        cores: cores that this process may use.
        clock_hz: the highest clock, or, where the system doesn't tell that, the clock now.
        memory_bytes: memory that this process may use.
        cache_bytes: sizes of the first core's caches, by their level: "L1", "L2", "L3". L1 is that of data.
        instructions: instruction sets that kernels of neural networks use.
        peaks: what was measured; None if it wasn't asked for.
    """

    processor: str
    architecture: str
    system: str
    cores: int
    clock_hz: float | None
    memory_bytes: int | None
    cache_bytes: dict[str, int] = field(default_factory=dict)
    instructions: tuple[str, ...] = ()
    peaks: Peaks | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the facts as plain JSON values."""
        return asdict(self)


def processor() -> str:
    """Returns the processor's name as the system reports it."""
    return _info().get("model name") or platform.processor() or platform.machine()


def machine_facts() -> DeviceFacts:
    """Returns what the system reports, without measuring anything."""
    info = _info()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return DeviceFacts(
        processor=processor(),
        architecture=platform.machine(),
        system=platform.platform(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        clock_hz=_clock(info),
        memory_bytes=_memory(),
        cache_bytes=_caches(),
        instructions=tuple(sorted(flags & INSTRUCTIONS)),
    )


def _info() -> dict[str, str]:
    """Returns what Linux tells of the first core."""
    found: dict[str, str] = {}
    for line in (_text(_CPUS) or "").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip(), value.strip())
    return found


def _clock(info: dict[str, str]) -> float | None:
    highest = _text(_CLOCK)
    if highest and highest.strip().isdigit():
        return 1e3 * int(highest)
    try:
        return 1e6 * float(info["cpu MHz"])
    except (KeyError, ValueError):
        return None


def _memory() -> int | None:
    """Returns the machine's memory, or the container's limit where that is less."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    limits = [int(text) for path in _CONTAINER_MEMORY if (text := (_text(path) or "").strip()).isdigit()]
    return min([whole, *limits])


def _caches() -> dict[str, int]:
    found = {}
    for folder in sorted(_CACHES.glob("index*")):
        level, kind, size = ((_text(folder / name) or "").strip() for name in ("level", "type", "size"))
        if level.isdigit() and kind in ("Data", "Unified") and size[:-1].isdigit() and size[-1] in _UNITS:
            found[f"L{level}"] = int(size[:-1]) * _UNITS[size[-1]]
    return found


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:  # another system, or a container that hides it
        return None
