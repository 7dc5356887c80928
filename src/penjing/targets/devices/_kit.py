"""A folder that is carried to a device which no network reaches: it measures there, and its result is read here."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from penjing import records
from penjing.checks import BATCH, PATH, THREADS, a, checked
from penjing.errors import PenjingError
from penjing.files import sha256
from penjing.graph import Cost
from penjing.targets._device import DeviceFacts
from penjing.targets._measure import measurement_of
from penjing.targets._records import Artifact, ExecutedNode, Measurement
from penjing.targets._registry import find_target, runtime_of
from penjing.targets._verbs import ARTIFACT, PROFILE_RUNS, named_inputs, open_artifact, random_inputs
from penjing.targets.bench import PROGRAM, REQUEST, RESULT, Job, write_program, write_request
from penjing.targets.devices._answer import Answer
from penjing.targets.devices._bench import check_outputs, rows

RUNS, SECONDS = 200, 20.0  # timed calls, and seconds after which timing ends anyway
LONGEST_SECONDS = 3600.0  # after which the program ends itself there
KIT, README, JOB = "kit.json", "README.txt", "model"
_HOW = """Measures {name} on this device.

It needs Python 3.10 or newer, NumPy and the runtime: {packages}.

    python3 {program}

writes {result} here. Copy that file back into this folder on the machine where the folder was made, and run there:

    penjing profile --import {result}
"""


@dataclass(frozen=True)
class _Kit:
    """What a kit's folder notes for the machine that it comes back to."""

    target: str
    name: str
    main_file: str
    threads: int
    batch: int
    cost: Cost


@dataclass(frozen=True)
class KitResult:
    """What was measured by a kit.

    Attributes:
        name: of the model.
        target: name of the runtime.
        machine: what the device is.
        measurement: latency, size and memory there.
        nodes: what the runtime executed there, in order.
        cost: of the graph that was measured.
    """

    name: str
    target: str
    machine: DeviceFacts
    measurement: Measurement
    nodes: list[ExecutedNode]
    cost: Cost


@checked(folder=PATH, artifact=ARTIFACT, cost=a(Cost, "what graph.cost() returns"), threads=THREADS, batch=BATCH)
def write_kit(
    folder: Path | str, artifact: Artifact, cost: Cost, *, name: str = "the model", threads: int = 1, batch: int = 1
) -> Path:
    """Writes a folder that measures a lowered model on a device without a network: `python3 measure.pyz` runs it there.

    Args:
        folder: where; it must be empty, or not be there.
        artifact: the lowered model.
        cost: of the graph that was lowered.
        name: of the model.
        threads: threads within an op.
        batch: samples per call where the batch is free.

    Raises:
        PenjingError: the folder holds something, can't be written, or the target can't be measured elsewhere.
    """
    from penjing.targets._registry import targets

    folder = Path(folder)
    target = find_target(artifact.target)
    if target.on_device is None or target.rows is None:
        raise PenjingError(f"Files for '{artifact.target}' can't be measured on other devices.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise PenjingError(f"{folder} isn't empty: name a new folder for the kit.")
        job = Job(artifact, named_inputs(artifact, random_inputs(artifact, batch)), threads)
        write_program(folder, target.on_device)
        write_request(
            folder, {JOB: job}, seconds=LONGEST_SECONDS, times=(RUNS, SECONDS), profile_runs=PROFILE_RUNS, memory=True
        )
        main = json.loads((folder / REQUEST).read_text())["jobs"][JOB]["file"]
        kit = _Kit(runtime_of(artifact.target), name, main, threads, batch, cost)
        (folder / KIT).write_text(json.dumps(asdict(kit)))
        packages = ", ".join(targets[runtime_of(artifact.target)].packages[:1])
        (folder / README).write_text(_HOW.format(name=name, packages=packages, program=PROGRAM, result=RESULT))
    except OSError as error:
        raise PenjingError(f"Can't write {folder}: {error.strerror or error}.") from error
    return folder


@checked(result=PATH)
def import_kit(result: Path | str) -> KitResult:
    """Reads what a kit measured; its folder's other files must lie beside the result.

    Raises:
        PenjingError: files are missing or damaged, the result is that of another file than the kit's, or the model gave
            something else there than here.
    """
    result = Path(result)
    folder = result.parent
    for file in (result, folder / KIT):
        if not file.is_file():
            raise PenjingError(f"There is no {file}: put the device's {RESULT} into the folder that --export-kit made.")
    try:
        kit = records.convert(records.read(folder / KIT), _Kit)
    except PenjingError as error:
        raise PenjingError(f"{folder / KIT} is damaged: {error}.") from error
    if Path(kit.main_file).name != kit.main_file:
        raise PenjingError(f"{folder / KIT} names a file outside its folder: {kit.main_file}.")
    target = find_target(kit.target)
    artifact = open_artifact(folder / kit.main_file, kit.target)
    answer = Answer.parse(_content(result), str(result))
    for name, held in {"times": answer.times, "profile": answer.profiles, "hash": answer.files}.items():
        if not held.get(JOB):
            raise PenjingError(f"{result} holds no {name} of the model: measure again.")
    if min(answer.times[JOB]) <= 0:
        raise PenjingError(f"{result} holds times that aren't positive: measure again.")
    if answer.files[JOB] != sha256(artifact.path):
        raise PenjingError(
            f"{result} was measured of another file than {artifact.path}: the two don't belong together."
        )
    inputs = named_inputs(artifact, random_inputs(artifact, kit.batch))
    job = Job(artifact, inputs, kit.threads)
    check_outputs(JOB, job, answer, target, f"the device of {result}")
    measured = measurement_of(job, answer.times[JOB], answer.memory.get(JOB), f"{kit.target} {answer.runtime}")
    nodes = rows(target, artifact, inputs, answer.profiles[JOB], str(result))
    return KitResult(kit.name, kit.target, answer.machine, measured, nodes, kit.cost)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PenjingError(f"{path} can't be read: {error.strerror or error}.") from error
