"""The user's request to `compress`, and checks that model, data and choices fit together before anything is written."""

import hashlib
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, Literal

import torch

import penjing.planning  # noqa: F401  registers the techniques
from penjing.budget import Budget
from penjing.checks import (
    BATCH,
    COUNT,
    EPOCHS,
    FLAG,
    FUNCTION,
    NAME,
    PATH,
    PATTERNS,
    RATE,
    SEED,
    TEXT,
    THREADS,
    a,
    among,
    check,
    either,
    mapping,
    number,
    optional,
    several,
)
from penjing.data import Data
from penjing.distillation import One, Teacher, signals
from penjing.distillation.teachers import TAUGHT_BY
from penjing.errors import PenjingError, unknown_name
from penjing.graph import Graph, channels
from penjing.graph.digest import digest
from penjing.graph.doors import TRAINED
from penjing.loaders import first, read
from penjing.pruning import criteria, prune
from penjing.targets import find_target
from penjing.tasks import evaluate
from penjing.techniques import Scope, Technique
from penjing.techniques import find as find_technique
from penjing.training.judging import check_judged
from penjing.training.label_smoothing import smoothed
from penjing.training.listened import check_teacher
from penjing.training.mixing import Augmenter
from penjing.training.penalty import check_penalty, penalty_of
from penjing.training.settings import (
    BATCH_RULES,
    KEEP,
    PRECISIONS,
    STOP_AT,
    check_augmentations,
    check_distillation,
    check_labels,
)
from penjing.training.source import training_batches
from penjing.training.trackers import check_trackers

RULES = {  # rules for single arguments of `compress`
    "model": TRAINED,
    "data": a(Data, "a penjing.Data"),
    "target": TEXT,
    "budget": optional(a(Budget, "a penjing.Budget")),
    "include": PATTERNS,
    "exclude": PATTERNS,
    "units": TEXT,
    "min_channels": COUNT,
    "out": PATH,
    "epochs": EPOCHS,
    "criterion": optional(TEXT),
    "lr": RATE,
    "signal": TEXT,
    "balance": TEXT,
    "schedule": TEXT,
    "penalty": optional(NAME),
    "penalty_weight": optional(number(0)),
    **BATCH_RULES,
    "augment": either(TEXT, several(TEXT, "names of augmentations")),
    "stop_at": STOP_AT,
    "keep": KEEP,
    "trackers": several(TEXT, "names of trackers"),
    "teacher": TAUGHT_BY,
    "precision": TEXT,
    "channels_last": either(FLAG, among("auto")),
    "threads": THREADS,
    "batch": BATCH,
    "seed": SEED,
    "max_minutes": optional(number(above=0)),
    "began": optional(number()),
    "dry_run": FLAG,
    "progress": FLAG,
    "say": FUNCTION,
    "inputs": optional(mapping(TEXT, "a mapping from names to hashes")),
    "trained": FLAG,
}
CALIBRATION_BATCHES = 8  # batches that serve as calibration data where the data have no calibration part


@dataclass(frozen=True)
class CompressRequest:
    """The arguments of `compress`, which documents them; `criterion` and the calibration data are resolved already."""

    data: Data
    target: str
    budget: Budget
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    epochs: int
    criterion: str
    lr: float | None
    precision: Literal["auto", "float32", "bfloat16"]
    channels_last: bool | Literal["auto"]
    threads: int
    batch: int
    seed: int
    max_minutes: float | None
    units: str = "auto"
    min_channels: int = 1
    trained: bool = True
    signal: str = "auto"
    balance: str = "fixed"
    schedule: str = "joint"
    penalty: str | None = None
    penalty_weight: float | None = None
    layer_decay: float = 1.0
    ema: float | None = None
    reestimate_norms: bool | Literal["auto"] = "auto"
    augment: tuple[str, ...] = ()
    label_smoothing: float = 0.0
    stop_at: float | None = None
    keep: Literal["last", "best"] = "last"
    trackers: tuple[str, ...] = ()
    teacher: Teacher | None = None

    def __post_init__(self) -> None:
        """Checks the arguments.

        Raises:
            PenjingError: a name is unknown, or a number is out of range.
        """
        check(vars(self), {name: rule for name, rule in RULES.items() if name in vars(self)})
        find_target(self.target)
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        check_distillation(self.signal, self.balance, self.schedule)
        check_labels(self.signal, self.data.task.labelled)
        check_penalty(self.penalty, self.penalty_weight)
        check_augmentations(self.augment)
        smoothed(self.data.task, self.label_smoothing)
        check_judged(self.stop_at, self.keep, self.data)
        check_trackers(self.trackers)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The suffixes of the target's files, the main file's first."""
        return find_target(self.target).suffixes

    @property
    def suffix(self) -> str:
        """The suffix of the target's main file."""
        return self.suffixes[0]

    @property
    def scope(self) -> Scope:
        """Where techniques may work."""
        return Scope(self.include, self.exclude, self.units, self.min_channels)

    def techniques(self) -> dict[str, Technique]:
        """Returns the techniques that may propose, with their choices."""
        return {
            "prune": find_technique("prune", {"criterion": self.criterion, "seed": self.seed}),
            "quantize": find_technique("quantize"),
        }

    def settings(self, graph: Graph) -> dict[str, Any]:
        """Returns, as plain JSON, all settings that affect a run's result: runs with different settings are different runs.

        The time limit isn't included, so that a run that was cut short can go on with more time.
        """
        apart = ("data", "budget", "max_minutes", "trackers", "teacher")
        own = {name: value for name, value in vars(self).items() if name not in apart}
        return {
            **own,
            "include": list(self.include),
            "exclude": list(self.exclude),
            "augment": list(self.augment),
            "model": hash_of(graph),
            "data": self.data.identity(),
            "budget": asdict(self.budget),
            "teacher": None if self.teacher is None else self.teacher.identity(),
        }

    def check(self, graph: Graph) -> None:
        """Makes sure that the model can be judged and ranked on the data, by doing both on one batch.

        Raises:
            PenjingError: a pattern matches nothing, the outputs don't fit the task, the criterion can't be computed
                from this model and data, an augmentation can't change such data, the signal finds nothing in this model to
                compare, the penalty nothing to shape, or the teacher can't teach it.
        """
        groups = channels(graph, include=self.include, exclude=self.exclude, units=self.units).groups
        with torch.random.fork_rng(devices=[]):  # a loader may draw from PyTorch's generator
            for part in ("train", "calibration", "validation"):
                if (loader := getattr(self.data, part)) is not None:
                    first(loader, f"data.{part} of '{self.data.name}'")
            _judge(graph, self.data)
            if groups:
                _rank(graph, self)
            if self.epochs and self.augment:  # now, and not after all candidates are measured
                Augmenter(self.augment, self.data.task, self.seed)(first(training_batches(self.data, graph)), 0, 0)
        if self.epochs and (self.teacher is not None or self.signal in signals):  # now, and not after all the measuring
            teacher, batch = One(graph) if self.teacher is None else self.teacher, None
            if self.teacher is not None:
                with torch.random.fork_rng(devices=[]):
                    batch = first(training_batches(self.data, teacher))
            check_teacher(graph, teacher, self.signal, self.data.task, batch)
        if self.epochs:
            penalty_of(graph, self.penalty, self.penalty_weight)


def settled(criterion: str | None, data: Data) -> tuple[str, Data]:
    """Returns the criterion to use, and the data with a calibration part: their own or a few batches of another part.

    Raises:
        PenjingError: there are no data, or the criterion needs labels that the data don't have.
    """
    if criterion is None:
        criterion = "taylor" if data.task.labelled and data.train is not None else "l2"
    unlabelled = not data.task.labelled or (data.train is None and data.calibration is None)
    if unlabelled and criteria[criterion].needs & {"labels", "gradients"}:
        raise PenjingError(
            f"The criterion '{criterion}' needs labelled data, and {data.name} has none; 'l2' needs no data."
        )
    if data.calibration is None:
        other = data.validation if data.validation is not None else data.train
        if other is None:
            raise PenjingError("The data is empty: give at least one of train, calibration and validation.")
        data = replace(data, calibration=list(islice(read(other), CALIBRATION_BATCHES)))
    return criterion, data


def hash_of(graph: Graph) -> str:
    """Returns a SHA-256 hash of a graph's ops and of its tensors' names, dtypes, shapes and values."""
    return hashlib.sha256((graph.program.code + digest(graph.tensors())).encode()).hexdigest()


def _judge(graph: Graph, data: Data) -> None:
    loader = data.validation if data.validation is not None else data.calibration
    assert loader is not None
    batch = first(loader)
    try:
        evaluate(graph, [batch], data.task)
    except _WRONG as error:
        raise PenjingError(
            f"The model's outputs don't fit the data {data.name} and its task: {error}. "
            "Does the model have as many outputs as the data has classes?"
        ) from error


def _rank(graph: Graph, asked: CompressRequest) -> None:
    try:
        prune(
            graph, 0.0, criterion=asked.criterion, data=asked.data, batches=1, seed=asked.seed,
            include=asked.include, exclude=asked.exclude, units=asked.units, min_channels=asked.min_channels,
        )  # fmt: skip
    except _WRONG as error:
        raise PenjingError(
            f"The criterion '{asked.criterion}' fails on this model and the data {asked.data.name}: {error}. "
            "'l2' needs no data."
        ) from error


_WRONG = (RuntimeError, ValueError, IndexError, TypeError, AttributeError)
