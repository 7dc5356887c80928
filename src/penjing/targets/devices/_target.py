"""A runtime on a device as a target: files are lowered here, and measured there."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np

from penjing.errors import PenjingError
from penjing.targets._records import Artifact
from penjing.targets._registry import Target, find_target, targets
from penjing.targets.bench import Job
from penjing.targets.devices._adb import Adb
from penjing.targets.devices._address import Address
from penjing.targets.devices._bench import SPARE_SECONDS, DeviceBench
from penjing.targets.devices._connection import Connection
from penjing.targets.devices._ssh import Ssh

CONNECTIONS: dict[str, Callable[[Address], Connection]] = {"ssh": Ssh, "adb": Adb}


@lru_cache(maxsize=16)
def on_device(text: str) -> Target:
    """Returns the target of an address. The device is asked once what it is, and which version of the runtime it has.

    Raises:
        PenjingError: the address has another form, its runtime isn't known, isn't installed here (files are made and compared
            here) or can't be measured elsewhere, or the device doesn't answer.
    """
    address = Address.parse(text)
    local = find_target(address.runtime)
    if local.on_device is None or local.rows is None:
        able = ", ".join(sorted(name for name in targets if _can_be_elsewhere(name)))
        raise PenjingError(f"Files for '{address.runtime}' can't be measured on other devices; those for {able} can.")
    bench = DeviceBench(address, CONNECTIONS[address.scheme](address), local)
    found = bench.ask({}, SPARE_SECONDS)

    def memory(artifact: Artifact, threads: int, inputs: dict[str, np.ndarray]) -> tuple[int, int] | None:
        return bench.memory(Job(artifact, inputs, threads))

    return replace(
        local.renamed(text),
        version=found.runtime,
        profile=bench.profile,
        memory=memory,
        machine=found.machine,
        bench=bench,
    )


def _can_be_elsewhere(name: str) -> bool:
    """Tells whether files for a runtime can be measured on other devices; False where the runtime isn't installed here."""
    try:
        return find_target(name).rows is not None
    except PenjingError:
        return False
