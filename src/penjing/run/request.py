"""The user's request to `compress`, and checks that model, data and choices fit together before anything is written."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from typing import Any

import torch

from penjing.budget import Budget
from penjing.capabilities import find as find_capabilities
from penjing.checks import (
    BATCH,
    COUNT,
    FLAG,
    FUNCTION,
    PATH,
    PATTERNS,
    TEXT,
    THREADS,
    a,
    either,
    mapping,
    number,
    optional,
    several,
)
from penjing.data import Data
from penjing.distillation import One, Teacher, signals
from penjing.distillation.teachers import TAUGHT_BY
from penjing.errors import PenjingError
from penjing.explanation import shown
from penjing.graph import Graph, channels
from penjing.graph.digest import digest
from penjing.graph.doors import TRAINED
from penjing.graph.patterns import check_patterns
from penjing.loaders import first, read
from penjing.planning import Deployment, check_in_compress
from penjing.pruning import criteria, prune
from penjing.quantization import check_weights, weights_by_place
from penjing.targets import find_target
from penjing.tasks import each_input, evaluate
from penjing.techniques import Scope, Technique, techniques
from penjing.techniques import find as find_technique
from penjing.training.judging import check_judged
from penjing.training.label_smoothing import smoothed
from penjing.training.listened import check_teacher
from penjing.training.mixing import Augmenter
from penjing.training.penalty import penalty_of
from penjing.training.settings import RULES as TRAINING_RULES
from penjing.training.settings import TrainingSettings, check_labels
from penjing.training.source import training_batches
from penjing.training.trackers import check_trackers

NOT_EXPOSED = ("optimizer", "momentum", "weight_decay", "warmup", "clip_norm", "temperature", "distill_weight")
"""The settings of training with a rule that `compress` has no argument for."""
TRAINED_BY = ({one.name for one in fields(TrainingSettings)} | {"teacher"}) - {"seed"}
"""The names of the settings on which trained weights depend, beside the candidate that is trained, the data and the seed."""
RULES = {  # rules for single arguments of `compress`
    "model": optional(TRAINED),
    "data": optional(a(Data, "a penjing.Data")),
    "target": TEXT,
    "budget": optional(a(Budget, "a penjing.Budget")),
    "include": PATTERNS,
    "exclude": PATTERNS,
    "keep_channels": PATTERNS,
    "keep_float": PATTERNS,
    "units": TEXT,
    "min_channels": COUNT,
    "out": PATH,
    "start_from": optional(PATH),
    "techniques": several(TEXT, "names of techniques"),
    "grid": TEXT,
    "solver": TEXT,
    "objective": TEXT,
    "criterion": optional(TEXT),
    **{name: rule for name, rule in TRAINING_RULES.items() if name not in NOT_EXPOSED},
    "augment": either(TEXT, several(TEXT, "names of augmentations")),
    "trackers": several(TEXT, "names of trackers"),
    "teacher": TAUGHT_BY,
    "threads": THREADS,
    "batch": BATCH,
    "max_minutes": optional(number(above=0)),
    "began": optional(number()),
    "dry_run": FLAG,
    "progress": FLAG,
    "say": FUNCTION,
    "watch": optional(FUNCTION),
    "on_stage": optional(FUNCTION),
    "report": optional(FUNCTION),
    "inputs": optional(mapping(TEXT, "a mapping from names to hashes")),
    "trained": FLAG,
    "untrained_teachers": several(TEXT, "names of teachers"),
}
CALIBRATION_BATCHES = 8  # batches that serve as calibration data where the data have no calibration part


@dataclass(frozen=True)
class CompressRequest:
    """What a user asked of `compress`, which documents it; `criterion` and the calibration data are resolved already.

    Attributes:
        data: what to calibrate, train and judge on.
        criterion: how channels are ranked.
        budget: the limits.
        deployment: where and how the result runs.
        scope: where techniques may work.
        training: the recovery; its seed is that of everything random.
        teacher: whom the small model learns from instead of the original; None for the original.
        trackers: what else shows the recovery's progress.
        max_minutes: the limit on the time of the whole call.
        trained: whether the model is known to have trained weights.
        untrained_teachers: names of the teachers that may have random weights.
        techniques: names of the techniques that may be used.
        grid: name of the grid to which weights are rounded.
        solver: name of the solver that chooses among what they propose.
        report: called with what is told of each epoch of the recovery.
    """

    data: Data
    criterion: str
    budget: Budget = field(default_factory=Budget)
    deployment: Deployment = field(default_factory=Deployment)
    scope: Scope = field(default_factory=Scope)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    teacher: Teacher | None = None
    trackers: tuple[str, ...] = ()
    max_minutes: float | None = None
    trained: bool = True
    untrained_teachers: tuple[str, ...] = ()
    techniques: tuple[str, ...] = ("prune", "quantize")
    grid: str = "int8"
    solver: str = "milp"
    report: Callable[[dict[str, Any]], None] | None = None

    def __post_init__(self) -> None:
        """Makes sure that names are known, and that the training suits the data.

        Raises:
            PenjingError: a name is unknown, or the data lack what the training needs.
        """
        find_target(self.deployment.target)
        if not self.techniques:
            raise PenjingError("techniques names none: give at least one of those in `penjing list techniques`.")
        for name in self.techniques:
            techniques[name]
        find_technique("quantize", {"weights": self.grid})
        target = find_capabilities(self.deployment.target)
        if "quantize" in self.techniques and target.has_integers:
            check_weights(target, self.grid)
        check_in_compress(self.solver)
        check_labels(self.training.signal, self.data.task.labelled)
        smoothed(self.data.task, self.training.label_smoothing)
        check_judged(self.training.stop_at, self.training.keep, self.data)
        check_trackers(self.trackers)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The suffixes of the target's files, the main file's first."""
        return find_target(self.deployment.target).suffixes

    @property
    def beside(self) -> tuple[str, ...]:
        """The names of the target's own files that are delivered."""
        return tuple(find_target(self.deployment.target).beside)

    @property
    def suffix(self) -> str:
        """The suffix of the target's main file."""
        return self.suffixes[0]

    def proposing(self) -> dict[str, Technique]:
        """Returns the techniques that may propose, with their choices."""
        choices: dict[str, dict[str, Any]] = {
            "prune": {"criterion": self.criterion, "seed": self.training.seed},
            "factorize": {"seed": self.training.seed},
            "merge": {"seed": self.training.seed},
            "quantize": {"weights": self.grid},
        }
        return {name: find_technique(name, choices.get(name)) for name in self.techniques}

    def settings(self, graph: Graph) -> dict[str, Any]:
        """Returns, as plain JSON, all settings that affect a run's result: runs with different settings are different runs.

        The time limit isn't included, so that a run that was cut short can go on with more time.
        """
        return {
            **asdict(self.deployment),
            **asdict(self.scope),
            **{name: list(getattr(self.scope, name)) for name in ("include", "exclude", "keep_channels", "keep_float")},
            **asdict(self.training),
            "augment": list(self.training.augment),
            "criterion": self.criterion,
            "techniques": list(self.techniques),
            "grid": self.grid,
            "solver": self.solver,
            "trained": self.trained,
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
        scope, training = self.scope, self.training
        groups = channels(graph, include=scope.include, exclude=scope.unpruned, units=scope.units).groups
        places = weights_by_place(graph)  # a weight of the network itself has no module path
        check_patterns(graph, [pattern for pattern in scope.keep_float if pattern not in places])
        with torch.random.fork_rng(devices=[]):  # a loader may draw from PyTorch's generator
            for part in ("train", "calibration", "validation"):
                if (loader := getattr(self.data, part)) is not None:
                    first(loader, f"data.{part} of '{self.data.name}'")
            _judge(graph, self.data)
            # Now, and not only when the result is verified.
            if self.data.show is not None and self.data.validation is not None:
                inputs, _ = self.data.task.split(first(self.data.validation))
                shown(each_input(inputs, lambda tensor: tensor[0]), self.data)
            if groups and "prune" in self.techniques:
                _rank(graph, self)
            if training.epochs and training.augment:  # now, and not after all candidates are measured
                batch = first(training_batches(self.data, graph))
                Augmenter(training.augment, self.data.task, training.seed)(batch, 0, 0)
        if training.epochs and (self.teacher is not None or training.signal in signals):  # now, and not after measuring
            teacher, batch = One(graph) if self.teacher is None else self.teacher, None
            if self.teacher is not None:
                with torch.random.fork_rng(devices=[]):
                    batch = first(training_batches(self.data, teacher))
            check_teacher(graph, teacher, training.signal, self.data.task, batch)
        if training.epochs:
            penalty_of(graph, training.penalty, training.penalty_weight)


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
    return criterion, calibrated(data)


def calibrated(data: Data) -> Data:
    """Returns the data with a calibration part: their own or a few batches of another part.

    Raises:
        PenjingError: there are no data.
    """
    if data.calibration is not None:
        return data
    other = data.validation if data.validation is not None else data.train
    if other is None:
        raise PenjingError("The data is empty: give at least one of train, calibration and validation.")
    return replace(data, calibration=list(islice(read(other), CALIBRATION_BATCHES)))


def perhaps_random(teacher: str) -> str:
    """Says that a teacher of this name, which came from a factory, was given no weights."""
    return (
        f"The teacher {teacher} was given no weights: unless its factory reads its own, they are random, and learning from it "
        "makes a network worse."
    )


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
    scope = asked.scope
    try:
        prune(
            graph, 0.0, criterion=asked.criterion, data=asked.data, batches=1, seed=asked.training.seed, units=scope.units,
            include=scope.include, exclude=scope.unpruned, min_channels=scope.min_channels,
        )  # fmt: skip
    except _WRONG as error:
        raise PenjingError(
            f"The criterion '{asked.criterion}' fails on this model and the data {asked.data.name}: {error}. "
            "'l2' needs no data."
        ) from error


_WRONG = (RuntimeError, ValueError, IndexError, TypeError, AttributeError)
