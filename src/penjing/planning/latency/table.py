"""The latency table: how long kernels take on a target, measured once and kept in a file of SQLite."""

import math
import sqlite3
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from penjing import records
from penjing.capabilities import Capabilities, find
from penjing.errors import PenjingError
from penjing.lines import Lasting
from penjing.planning.latency.interpolation import Counts, Family, counts_of, family_of
from penjing.planning.latency.kernels import Kernel
from penjing.planning.latency.side_by_side import side_by_side
from penjing.planning.problem import Deployment
from penjing.targets import Bench, ThisProcess, machine_of

Measurer = Callable[[Sequence[Kernel], Deployment], Mapping[Kernel, float]]
"""Returns the microseconds of kernels that have the same batch; a kernel that the target refuses is missing."""

# Kernels of one batch, in a file for each kind of numbers. Beside 60 others small kernels took a third longer: a cache holds
# the weights of a small network, and not those of so many kernels.
TOGETHER = 32
REFERENCES = 9  # known kernels of each kind of numbers that are measured again beside each batch
MOST_ELEMENTS = 2**26  # numbers that flow in and out of one batch's kernels: 256 MiB in float32
LARGEST_FILE = 2**28  # bytes; a table of a hundred thousand kernels has 50 MB
WAIT_SECONDS = 30.0  # for another process that writes into the same table
LONGEST_US = 1e9  # a kernel takes less than a quarter of an hour

SCHEMA = (
    "CREATE TABLE latencies (device TEXT NOT NULL, runtime TEXT NOT NULL, threads INTEGER NOT NULL, kernel TEXT NOT NULL, "
    "microseconds REAL NOT NULL, PRIMARY KEY (device, runtime, threads, kernel)) WITHOUT ROWID"
)


class LatencyTable:
    """Latencies of kernels on one device, by one runtime, with a number of threads.

    The file holds them for any number of devices, runtimes and threads. What is read from it is data alone: a file that isn't
    such a table, or that holds anything else, is set aside as damaged, and everything is measured again.

    Attributes:
        path: the file.
        deployment: target, threads and batch.
        device: name of the processor.
        runtime: name and version of the runtime.
    """

    def __init__(
        self,
        path: Path | str,
        deployment: Deployment,
        *,
        device: str | None = None,
        bench: Bench | None = None,
        measurer: Measurer = side_by_side,
        record: Capabilities | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Opens a table, or makes an empty one.

        Args:
            path: the file; it is made where there is none.
            deployment: where and how kernels run.
            device: name of the device; by default that of the processor of the target's machine.
            bench: the place where kernels are measured, which knows the runtime's version; this process by default.
            measurer: measures a batch of kernels; by default, all of them side by side in one lowered file.
            record: the capabilities of a target that isn't in the table of capabilities.
            say: called with a line if the file is damaged.

        Raises:
            PenjingError: the file can't be read or made.
        """
        self.path, self.deployment = Path(path), deployment
        self.device = machine_of(deployment.target).processor if device is None else device
        self.runtime = (bench or ThisProcess()).runtime(deployment.target)
        self._multiples = (record or find(deployment.target)).channel_multiples
        self._measurer, self._say = measurer, say
        self._measured: dict[Kernel, float] = {}
        self._families: dict[Kernel, Family] = {}
        self._asked: dict[Kernel, float] = {}
        self._load()

    def __contains__(self, kernel: Kernel) -> bool:
        """Tells whether a kernel was measured."""
        return kernel in self._measured

    def __len__(self) -> int:
        """How many kernels were measured on this device, by this runtime, with so many threads."""
        return len(self._measured)

    # Asking

    def ms(self, kernel: Kernel) -> float:
        """Returns the milliseconds of a kernel, measured or interpolated between measured ones that differ in channels alone.

        Interpolation keeps the steps of the target's kernels: a number of channels costs what the next measured one up to the
        next multiple costs, and between multiples what lies between their neighbours.

        Raises:
            PenjingError: no kernel was measured that differs in channels alone.
        """
        found = self._asked.get(kernel)
        if found is None:
            found = self._asked[kernel] = self._microseconds(kernel) / 1e3
        return found

    def _microseconds(self, kernel: Kernel) -> float:
        if kernel in self._measured:
            return self._measured[kernel]
        family = self._families.get(family_of(kernel))
        if family is None:
            raise PenjingError(
                f"No kernel like this one was measured on {self.device} by {self.runtime}: {kernel.key}. Call measure first."
            )
        return family.at(counts_of(kernel))

    def knows(self, kernel: Kernel) -> bool:
        """Tells whether `ms` can tell a kernel's latency."""
        return kernel in self._measured or family_of(kernel) in self._families

    # Measuring

    def measure(
        self,
        kernels: Iterable[Kernel],
        *,
        say: Callable[[str], None] | None = None,
        deadline: float | None = None,
    ) -> tuple[Kernel, ...]:
        """Measures those kernels that the table lacks, batch by batch; each batch is kept as soon as it is measured.

        Args:
            kernels: the kernels; those that come first are measured first.
            say: called with a line about each batch.
            deadline: a value of `time.monotonic()` behind which no further batch begins.

        Returns:
            The kernels that still have no latency: the target refuses them, or time ran out.

        Raises:
            PenjingError: the file can't be written.
        """
        say = say or self._say
        missing = [kernel for kernel in dict.fromkeys(kernels) if kernel not in self._measured]
        batches = list(_batches(missing))
        done = 0
        for batch in batches:
            if deadline is not None and time.monotonic() >= deadline:
                say(f"Time is up: {len(missing) - done} of {len(missing)} kernels weren't measured.")
                break
            self._keep(self._measured_beside(batch))
            done += len(batch)
            say(f"{done} of {len(missing)} kernels measured by {self.runtime}.")
        return tuple(kernel for kernel in missing if kernel not in self._measured)

    def _measured_beside(self, batch: Sequence[Kernel]) -> dict[Kernel, float]:
        """Measures kernels, with a few that are known: a shared machine has phases of minutes in which all kernels of a kind
        of numbers take longer, and all latencies of a table should be those of one phase, that of its first batch.
        """
        samples = _samples(batch[0])
        known = [kernel for kernel in self._measured if kernel.weight and _samples(kernel) == samples]
        references: list[Kernel] = []
        for numbers in dict.fromkeys(kernel.numbers for kernel in batch):
            alike = [kernel for kernel in known if kernel.numbers == numbers]
            slow = statistics.median(map(self._measured.__getitem__, alike)) if alike else 0.0
            alike = [kernel for kernel in alike if self._measured[kernel] >= slow]  # of fast ones, a part is noise
            references += alike[:: max(1, len(alike) // REFERENCES)][:REFERENCES]
        found = self._measurer([*batch, *references], self.deployment)
        slower: defaultdict[str, list[float]] = defaultdict(list)
        for kernel in references:
            if found.get(kernel) and self._measured[kernel]:
                slower[kernel.numbers].append(found[kernel] / self._measured[kernel])
        phase = {numbers: statistics.median(ratios) for numbers, ratios in slower.items()}
        return {kernel: found[kernel] / phase.get(kernel.numbers, 1.0) for kernel in batch if kernel in found}

    def _keep(self, found: Mapping[Kernel, float]) -> None:
        good = {kernel: us for kernel, us in found.items() if _sane(us)}
        rows = [(self.device, self.runtime, self.deployment.threads, kernel.key, us) for kernel, us in good.items()]
        try:
            with closing(self._connection()) as connection, connection:
                connection.executemany("INSERT OR REPLACE INTO latencies VALUES (?, ?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise PenjingError(f"Can't write into the latency table {self.path}: {error}.") from error
        self._learn(good)

    def _learn(self, found: Mapping[Kernel, float]) -> None:
        self._measured.update(found)
        by_family: defaultdict[Kernel, dict[Counts, float]] = defaultdict(dict)
        for kernel, us in self._measured.items():
            by_family[family_of(kernel)][counts_of(kernel)] = us
        self._families = {key: Family(points, self._multiples) for key, points in by_family.items()}
        self._asked.clear()

    # The file

    def _connection(self) -> sqlite3.Connection:
        """Opens the file so that nothing in it can run: no functions of triggers, views or indexes are trusted."""
        connection = sqlite3.connect(self.path, timeout=WAIT_SECONDS)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        return connection

    def _load(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_file() and self.path.stat().st_size:
                self._read()
            else:
                self._make()
        except (OSError, sqlite3.OperationalError) as error:
            raise PenjingError(f"Can't open the latency table {self.path}: {error}.") from error

    def _make(self) -> None:
        with closing(self._connection()) as connection, connection:
            connection.execute(SCHEMA.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))

    def _read(self) -> None:
        try:
            found = self._rows()
        except (PenjingError, sqlite3.DatabaseError) as error:
            if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
                raise
            aside = self.path.with_name(self.path.name + ".damaged")
            self.path.replace(aside)
            self._say(
                Lasting(
                    f"The latency table {self.path} is damaged ({error}): it is now {aside.name}, and kernels are measured again."
                )
            )
            self._make()
        else:
            self._learn(found)

    def _rows(self) -> dict[Kernel, float]:
        """Returns the file's latencies of this device, runtime and number of threads.

        Raises:
            PenjingError: the file holds anything but a table of latencies, or a row of it is none.
            sqlite3.DatabaseError: the file is damaged.
        """
        if self.path.stat().st_size > LARGEST_FILE:
            raise PenjingError(f"it has more than {LARGEST_FILE} bytes")
        with closing(self._connection()) as connection:
            schema = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
            if schema != [("table", "latencies", SCHEMA)]:
                raise PenjingError("it isn't a table of latencies, or holds more than that")
            problem = connection.execute("PRAGMA quick_check(1)").fetchone()
            if problem != ("ok",):
                raise PenjingError(str(problem[0])[:200])
            rows = connection.execute(
                "SELECT kernel, microseconds FROM latencies WHERE device = ? AND runtime = ? AND threads = ?",
                (self.device, self.runtime, self.deployment.threads),
            ).fetchall()
        found = {}
        for text, us in rows:
            if not isinstance(text, str) or not _sane(us):
                raise PenjingError("a latency of it is no number of microseconds")
            kernel = Kernel.from_json(records.parse(text.encode(), "a kernel of it"))
            if kernel.key != text:
                raise PenjingError("a kernel of it isn't written as this package writes it")
            found[kernel] = float(us)
        return found


def _sane(us: object) -> bool:
    return isinstance(us, float) and math.isfinite(us) and 0 <= us < LONGEST_US


def _samples(kernel: Kernel) -> int:
    return kernel.output[0] if kernel.output else 1


def _batches(kernels: Sequence[Kernel]) -> Iterable[list[Kernel]]:
    """Yields kernels in lists of which each can be measured in one file: of one batch size, and not too large together."""
    waiting: dict[int, list[Kernel]] = {}
    size: dict[int, int] = {}
    for kernel in kernels:
        samples = _samples(kernel)
        own = kernel.elements + sum(map(math.prod, kernel.inputs))
        if waiting.get(samples) and (len(waiting[samples]) >= TOGETHER or size[samples] + own > MOST_ELEMENTS):
            yield waiting.pop(samples)
            size[samples] = 0
        waiting.setdefault(samples, []).append(kernel)
        size[samples] = size.get(samples, 0) + own
    yield from waiting.values()
