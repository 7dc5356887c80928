"""The energy of calls, by the counters of the processor (RAPL: running average power limit), which Linux shows as files.

A counter holds for a whole package of cores, and for the memory beside it where the processor tells that too. So what the machine
takes while nothing is called is measured in turns with the calls, and subtracted; other work still counts.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ZONES = Path("/sys/class/powercap")
_PACKAGES = "intel-rapl:*"  # AMD's counters have the same name
_WHOLE = "package"  # a zone of a package holds its cores; "psys" holds the packages again, and is left out
_MEMORY = "dram"  # a zone within a package's, whose energy the package's doesn't hold
ROUNDS = 8  # turns of each function
TURN_SECONDS = 0.25  # of calls in a turn: the counters step each millisecond, so that a turn is off by less than 1 %
MILLIJOULES = 1e-3  # in a microjoule


@dataclass(frozen=True)
class Zone:
    """One counter of energy.

    Attributes:
        counter: the file that holds microjoules.
        most: the microjoules after which the counter starts again at 0.
    """

    counter: Path
    most: int

    def read(self) -> int:
        """Returns the counter, in microjoules."""
        return int(self.counter.read_text())

    def between(self, before: int, after: int) -> int:
        """Returns the microjoules between two readings, between which the counter started again at most once."""
        return after - before if after >= before else after - before + self.most


def zones() -> list[Zone]:
    """Returns the counters that this process may read; none if it may not read all of them.

    Linux shows them to the superuser alone: `sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj` shows them to all until
    the machine restarts.
    """
    found = []
    try:
        for folder in sorted(_ZONES.glob(_PACKAGES)):
            name = (folder / "name").read_text().strip()
            if name.startswith(_WHOLE) or name == _MEMORY:
                zone = Zone(folder / "energy_uj", int((folder / "max_energy_range_uj").read_text()))
                zone.read()
                found.append(zone)
    except (OSError, ValueError):  # a part of the energy would pass for all of it
        return []
    return found


def energies(
    calls: Mapping[str, Callable[[], Any]],
    zones: Sequence[Zone],
    rounds: int = ROUNDS,
    seconds: float = TURN_SECONDS,
) -> dict[str, float]:
    """Returns the millijoules that a call of each function adds to what the machine takes at rest, by the functions' names.

    The functions and rest take turns. Other work on the machine may make a number wrong, even negative.

    Args:
        calls: the functions, warmed up.
        zones: the counters; at least one.
        rounds: turns of each function.
        seconds: how long a turn takes at least.
    """
    joules = dict.fromkeys(calls, 0.0)
    took = dict.fromkeys(calls, 0.0)
    count = dict.fromkeys(calls, 0)
    resting = rested = 0.0
    order = list(calls)
    for _ in range(rounds):
        spent, waited = _spent(lambda: time.sleep(seconds), zones)
        resting, rested = resting + spent, rested + waited
        for name in order:
            made = 0

            def turn(call: Callable[[], Any] = calls[name]) -> None:
                nonlocal made
                end = time.perf_counter() + seconds
                while time.perf_counter() < end:
                    call()
                    made += 1

            spent, waited = _spent(turn, zones)
            joules[name], took[name], count[name] = joules[name] + spent, took[name] + waited, count[name] + made
        order.reverse()
    return {name: (joules[name] - resting / rested * took[name]) / count[name] * MILLIJOULES for name in calls}


def _spent(work: Callable[[], None], zones: Sequence[Zone]) -> tuple[float, float]:
    """Returns the microjoules and the seconds that some work took."""
    before, start = [zone.read() for zone in zones], time.perf_counter()
    work()
    after, end = [zone.read() for zone in zones], time.perf_counter()
    return float(sum(zone.between(*pair) for zone, *pair in zip(zones, before, after, strict=True))), end - start
