"""An earlier run with which another one begins: what it measured and trained serves again where that depends on nothing else.

The samples' evidence serves for the same model and data, and names itself what it depends on. Measured candidates serve on the
same target and machine. Trained weights serve for the same candidate: as they are where the training is the same, and else as
those with which training begins. Files are copied, so that the earlier folder may go.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from penjing.data import Data, Preprocess, comes_from_code
from penjing.data import load as load_data
from penjing.errors import PenjingError
from penjing.files import atomic_path, is_temporary
from penjing.graph import Graph, Option
from penjing.planning import Problem, meeting, read_journal, write_journal
from penjing.planning.assignment import DAMAGE
from penjing.run import stages
from penjing.run.differences import differences
from penjing.run.provenance import environment
from penjing.run.remembered import preprocess_of, source_of
from penjing.run.request import TRAINED_BY, CompressRequest
from penjing.run.workspace import EVIDENCE, INNER, EarlierContent, Workspace, read_json, read_record, writing
from penjing.targets import find_target

OF_THE_FILE = {"target"}  # the settings on which the original's lowered file depends, beside the model
OF_THE_METRIC = OF_THE_FILE | {"data"}  # and its metric
FREE = {
    "budget",
    "solver",
    "techniques",
    "grid",
    "target",
    "threads",
    "batch",
    "keep_float",
}  # the settings on which a candidate's weights don't depend


def facts(
    graph: Graph, asked: CompressRequest, inputs: Mapping[str, str], earlier: "EarlierRun | None"
) -> dict[str, Any]:
    """Returns what is told of a run beside its settings: it names differences, and says where measurements hold.

    Args:
        graph: the original.
        asked: the request.
        inputs: SHA-256 of the files that the model came from.
        earlier: the run with which it begins.
    """
    now = environment()
    return {
        "name": graph.name,
        "inputs": dict(inputs),
        "structure": hashlib.sha256(graph.program.code.encode()).hexdigest(),
        "data_source": asked.data.source,
        "preprocess": None if asked.data.preprocess is None else asked.data.preprocess.to_dict(),
        "started_from": None if earlier is None else str(earlier.out),
        "where": [now["versions"], now["machine"]["processor"], find_target(asked.deployment.target).version],
    }


@dataclass(frozen=True)
class EarlierRun:
    """An earlier run of `compress`.

    Attributes:
        out: its folder.
        settings: its settings, as plain JSON.
        told: what its folder tells beside them.
    """

    out: Path
    settings: Mapping[str, Any]
    told: Mapping[str, Any]

    def model(self) -> Graph:
        """Returns the original that was compressed.

        Raises:
            PenjingError: its file is missing or damaged.
        """
        graph = stages.read_graph(self.out / INNER / stages.ORIGINAL)
        graph.name = self.told.get("name") or graph.name
        return graph

    def data(self, seed: int | None = None) -> Data:
        """Returns the data of the run, prepared as they were.

        Raises:
            PenjingError: nothing names them, they come from code, or they aren't there any more.
        """
        source = self.told.get("data_source") or source_of(self.out)
        if not source or comes_from_code(source):
            named = (
                f"they come from code ({source}), which isn't started on the word of a file"
                if source
                else "nothing names them"
            )
            raise PenjingError(
                f"The data of the run in {self.out} can't be taken from there, since {named}: give data."
            )
        return load_data(source, self.settings["seed"] if seed is None else seed, self.preprocess())

    def preprocess(self) -> Preprocess | None:
        """Returns how images become inputs in the run; None where its folder doesn't say."""
        return preprocess_of(self.out, self.told)

    def inner(self, file: str) -> Path:
        """Returns the path of a stage's file."""
        return self.out / INNER / file


def earlier_run(out: Path | str) -> EarlierRun:
    """Returns the run that a folder holds, finished or not.

    Raises:
        PenjingError: it holds none of `compress`, or its record is damaged.
    """
    out = Path(out)
    record = read_record(out)
    if record is None or "solver" not in record.settings:
        raise PenjingError(f"{out} holds no run of compress, so no other run can begin with it.")
    return EarlierRun(out, record.settings, record.told)


def begun_with(
    start_from: Path | str | None, model: nn.Module | None, data: Data | None, out: Path
) -> tuple[EarlierRun | None, nn.Module, Data]:
    """Returns the earlier run, and the model and the data: those that were given, or else those of the earlier run.

    Args:
        start_from: the folder of the earlier run; None without one.
        model: the model that was given.
        data: the data that were given.
        out: the folder of the later run.

    Raises:
        PenjingError: something is missing, or both runs would have one folder.
    """
    if start_from is None:
        if model is None or data is None:
            raise PenjingError(
                f"compress needs {'a model' if model is None else 'data'}, or an earlier run to begin with."
            )
        return None, model, data
    run = earlier_run(start_from)
    if run.out.resolve() == out.resolve():
        raise PenjingError(f"{out} is the folder of the earlier run itself: name another one for the result.")
    return run, model if model is not None else run.model(), data if data is not None else run.data()


def set_by(options: Iterable[Option]) -> list[dict[str, Any]]:
    """Returns what options set, as plain JSON, without the damage that was measured of them."""
    told = []
    for option in options:
        found = {name: value for name, value in option.found.items() if name != DAMAGE}
        told.append(replace(option, found=found).to_json())
    return told


@dataclass(frozen=True)
class Beginning:
    """What a run takes over from an earlier one.

    Attributes:
        run: the earlier run.
        differ: what differs, in words, by the name of the setting.
        elsewhere: whether the earlier run was made with other versions, or on another machine.
        limited: whether both runs limit the latency, or neither does: that decides which mixtures of numbers are tried.
    """

    run: EarlierRun
    differ: Mapping[str, str]
    elsewhere: bool
    limited: bool

    def _same(self, *settings: str) -> bool:
        return not set(settings) & set(self.differ)

    @property
    def lowered(self) -> bool:
        """Whether the original's lowered file serves again."""
        return self._same(*OF_THE_FILE) and not self.elsewhere

    @property
    def judged(self) -> bool:
        """Whether the original's metric does."""
        return self.lowered and self._same(*OF_THE_METRIC)

    @property
    def measured(self) -> bool:
        """Whether its candidates do: they were measured here, with all choices as they are now."""
        return self.judged and self.limited and set(self.differ) <= {"budget", "solver", *TRAINED_BY}

    @property
    def trained(self) -> bool:
        """Whether weights of the same candidate serve, as those with which training begins."""
        return set(self.differ) <= FREE | set(TRAINED_BY)

    @property
    def finished(self) -> bool:
        """Whether they serve as they are, since they would be trained in the same way."""
        return set(self.differ) <= FREE

    def lend(self, held: EarlierContent, suffixes: tuple[str, ...]) -> EarlierContent:
        """Returns the content of a new run's folder with what it will take over, for an estimate."""
        names = [stages.lowered(suffix) for suffix in suffixes] if self.lowered else []
        names += [stages.BASELINE] if self.judged else []
        lent = {name: self.run.inner(name) for name in names}
        lent |= {stages.CANDIDATES: self.run.inner(stages.CANDIDATES)} if self.measured else {}
        return replace(held, lent={name: path for name, path in lent.items() if path.is_file()})

    def take(self, space: Workspace, suffixes: tuple[str, ...], say: Callable[[str], None]) -> None:
        """Copies what serves again into the folder of a run that has just begun."""
        took: list[str] = []
        with writing(space.out):
            names = [stages.lowered(suffix) for suffix in suffixes]
            if self.lowered and all(self.run.inner(name).is_file() for name in names):
                took += self._copied(space, *names)
            took += self._copied(space, stages.BASELINE) if self.judged else []
            if self._same("data"):
                files = [path.name for path in (self.run.inner(EVIDENCE)).glob("*") if not is_temporary(path)]
                took += self._copied(space, *(f"{EVIDENCE}/{name}" for name in sorted(files)))
            if self.measured and self.run.inner(stages.CANDIDATES).is_file():
                _copy(self.run.inner(stages.CANDIDATES), space.inner / stages.MEASURED_EARLIER)
                took.append(stages.CANDIDATES)
            if self.trained and self.run.inner(stages.TAKEN).is_file():
                took += self._take_trained(space)
        say(f"Beginning with the run in {self.run.out}. {self._words(took)}")

    def _take_trained(self, space: Workspace) -> list[str]:
        """Copies the pruned and the trained graph of the earlier run's candidate; they are dropped if another one is taken."""
        self._copied(space, stages.PRUNED)
        found = []
        if self.finished:
            found = self._copied(space, stages.TRAINING, stages.RECOVERED, stages.CHECKPOINT, stages.CUT)
        elif self.run.inner(stages.RECOVERED).is_file() and _steps(self.run) > 0:
            _copy(self.run.inner(stages.RECOVERED), space.inner / stages.START)
            found = [stages.START]
        _copy(self.run.inner(stages.TAKEN), space.inner / stages.TAKEN)
        return found

    def _copied(self, space: Workspace, *names: str) -> list[str]:
        """Copies those of these files that are there, and returns their names."""
        there = [name for name in names if self.run.inner(name).is_file()]
        for name in there:
            _copy(self.run.inner(name), space.inner / name)
        return there

    def _words(self, took: list[str]) -> str:
        parts = []
        if any(name.startswith(EVIDENCE) for name in took):
            parts.append("what its data told")
        if stages.CANDIDATES in took:
            parts.append("the candidates that it measured")
        if {stages.RECOVERED, stages.START, stages.CHECKPOINT} & set(took):
            parts.append("the weights that it trained, if the same candidate is chosen")
        if stages.BASELINE in took:
            parts.append("the original's file and metric")
        elif any(name.startswith("original") for name in took):
            parts.append("the original's file")
        kept = f"Taken over: {'; '.join(parts)}." if parts else "Nothing of it serves again."
        why = [words for name, words in self.differ.items() if name == "target" or name not in FREE | set(TRAINED_BY)]
        why += (
            []
            if "target" in self.differ or not self.elsewhere
            else ["it wasn't made with these versions on this machine, or doesn't say so"]
        )
        return f"{kept} Not all of it serves: {'; '.join(why)}." if why else kept


def beginning_with(run: EarlierRun, settings: Mapping[str, Any], told: Mapping[str, Any]) -> Beginning:
    """Returns what a run with these settings takes over from an earlier one.

    Args:
        run: the earlier run.
        settings: the settings of the later one.
        told: what is told of the later one beside its settings.

    Raises:
        PenjingError: the models differ, so that nothing of the earlier run serves.
    """
    found = differences(run.settings, settings, run.told, told)
    if "model" in found:
        raise PenjingError(
            f"The model isn't the one of the run in {run.out}: {found['model']}. Nothing of that run serves it: leave the model "
            "out, or begin without an earlier run."
        )
    limits = [(one.get("budget") or {}).get("latency") is not None for one in (run.settings, settings)]
    return Beginning(run, found, run.told.get("where") != told["where"], limits[0] == limits[1])


def judge_anew(space: Workspace, problem: Problem) -> None:
    """Makes candidates of the earlier run this run's own: whether they keep the budget is decided by this run's limits.

    Raises:
        PenjingError: their file is damaged.
    """
    path = space.inner / stages.MEASURED_EARLIER
    if not path.is_file():
        return
    if problem.journal is not None and not problem.journal.is_file():
        levels = read_journal(path)
        write_journal(problem.journal, [[meeting(one, problem) for one in found] for found in levels])
    path.unlink()


def _steps(run: EarlierRun) -> int:
    """Returns how many steps of training an earlier run made."""
    path = run.inner(stages.TRAINING)
    return int(read_json(path).get("steps", 0)) if path.is_file() else 0


def _copy(path: Path, copy: Path) -> None:
    """Copies a file, whole or not at all."""
    copy.parent.mkdir(exist_ok=True)
    with atomic_path(copy) as temporary:
        shutil.copyfile(path, temporary)
