"""The name of the processor that this machine has."""

import platform
from pathlib import Path


def processor() -> str:
    """Returns the processor's name as the system reports it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
