"""The stage that trains the pruned graph with the original as teacher; it can be interrupted and resumed."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from penjing.distillation.teachers import taught_by
from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.lines import Lasting
from penjing.run import stages
from penjing.run.request import CompressRequest
from penjing.run.workspace import Workspace, read_json, write_json
from penjing.tasks import agreement, evaluate, metric_words
from penjing.training import Interrupted
from penjing.training.checkpoint import Epoch, discard_damaged, ended_good_enough, epochs_of, steps_of, variant_of
from penjing.training.deadline import over
from penjing.training.display import Show
from penjing.training.divergence import TrainingDiverged
from penjing.training.loop import train
from penjing.training.run import RunOptions
from penjing.training.source import training_batches

SAMPLES = 2000  # validation samples on which training is judged
AGREEMENT_BATCHES = 8  # batches on which agreement with the original is judged where there are no labels
MADE = (stages.CHECKPOINT, stages.TRAINING, stages.RECOVERED)  # the files of this stage


@dataclass(frozen=True)
class _Training:
    """The content of the file that stands beside the graph and describes its training; see `Recovery`."""

    notes: tuple[str, ...]
    variant: dict[str, Any] | None
    short_of_time: bool
    details: tuple[str, ...] = ()
    steps: int = 0
    wanted: int = 0
    epochs: tuple[Epoch, ...] = ()


@dataclass(frozen=True)
class Recovery:
    """The result of training.

    Attributes:
        graph: the graph, trained or unchanged.
        notes: sentences about training that a reader of the report must know.
        variant: precision, memory layout and, where it was measured, number of threads of the training steps; None if
            nothing was trained.
        finished: False after Ctrl-C; training can then be resumed from the checkpoint.
        short_of_time: whether the time limit allowed fewer steps than the user asked for.
        details: what training told while it ran, such as how its steps were computed and its learning rate was chosen.
        steps: the number of steps that were made.
        wanted: the number of steps that the user asked for; 0 where nothing was to be trained.
        epochs: what each finished epoch ended with.
    """

    graph: Graph
    notes: tuple[str, ...] = ()
    variant: dict[str, Any] | None = None
    finished: bool = True
    short_of_time: bool = False
    details: tuple[str, ...] = ()
    steps: int = 0
    wanted: int = 0
    epochs: tuple[Epoch, ...] = ()

    def save(self, path: Path) -> None:
        """Writes the graph to `path`, and everything else to a file beside it."""
        told = _Training(
            self.notes, self.variant, self.short_of_time, self.details, self.steps, self.wanted, self.epochs
        )
        write_json(asdict(told), path.with_name(stages.TRAINING))
        self.graph.save(path)

    @classmethod
    def load(cls, path: Path) -> "Recovery":
        """Reads a recovery that `save` wrote.

        Raises:
            PenjingError: a file is damaged.
        """
        told: _Training = read_json(path.with_name(stages.TRAINING), _Training)
        return cls(
            stages.read_graph(path), told.notes, told.variant, short_of_time=told.short_of_time, details=told.details,
            steps=told.steps, wanted=told.wanted, epochs=told.epochs,
        )  # fmt: skip


def recovered(
    space: Workspace,
    asked: CompressRequest,
    small: Graph,
    original: Graph,
    *,
    pruned: bool,
    deadline: float | None,
    progress: bool | Show,
    say: Callable[[str], None],
) -> Recovery:
    """Trains `small` in place if something was removed from it and the user asked for training.

    Args:
        space: the folder of the run, which keeps the checkpoint.
        asked: the user's request: data, epochs and settings of the training.
        small: the pruned graph.
        original: the original graph, the teacher where the request names no other.
        pruned: whether anything was removed.
        deadline: the value of `time.monotonic()` by which training must end.
        progress: whether to show a progress bar, or a function that is told of each step instead.
        say: receives lines for the user.
    """
    if not pruned or asked.training.epochs == 0:
        return Recovery(small, (f"Not trained: {'no epochs were asked for' if pruned else 'nothing was removed'}.",))
    if over(deadline):  # no time is left to judge the graph before and after
        stages.note_cut(space, asked.max_minutes, MADE, True)
        return Recovery(small, ("The deadline has passed: no training.",), short_of_time=True)
    notes: list[str] = []
    details: list[str] = []
    checkpoint = space.inner / stages.CHECKPOINT
    discard_damaged(checkpoint, say)
    wanted = asked.training.epochs * len(training_batches(asked.data, original))
    if stages.CHECKPOINT in stages.outlived(space.held(), asked.max_minutes):
        planned = steps_of(checkpoint)
        if planned is not None and planned[1] < wanted:
            say(f"There is more time than before: training begins anew, with {wanted} steps instead of {planned[1]}.")
            space.drop(stages.CHECKPOINT)
    if not checkpoint.exists():
        stages.note_cut(space, asked.max_minutes, [stages.CHECKPOINT], deadline is not None)

    def log(line: str) -> None:
        say(line)
        details.append(line)

    def told(epoch: dict[str, Any]) -> None:
        judged = "" if epoch["metric"] is None else f", {metric_words(asked.data.task, epoch['metric'])}"
        say(f"  epoch {epoch['epoch']}: loss {epoch['loss']:.4f}{judged} ({epoch['seconds']:.0f} s)")
        if asked.report is not None:
            asked.report(epoch)

    notes += _begun_trained(space, small, say)
    finished = True
    options = RunOptions(
        checkpoint=checkpoint, deadline=deadline, progress=progress, report=told, log=log, trackers=asked.trackers
    )
    untrained = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    before = _judged(small, original, asked)
    try:
        train(
            small, asked.data, taught_by(original) if asked.teacher is None else asked.teacher, asked.training, options
        )
    except TrainingDiverged as end:  # the folder belongs to a run with this rate
        raise PenjingError(
            f"{end.told} Give a smaller rate, for example lr={end.lower:.2g}, and another folder."
        ) from end
    except Interrupted as stop:
        say(Lasting(f"Interrupted at {stop.progress:.0%} of the training; finishing with the weights so far."))
        notes.append(f"Training was interrupted at {stop.progress:.0%}; the same command goes on with it.")
        finished = False
    if (after := _judged(small, original, asked)) < before:
        small.load_state_dict(untrained)
        notes.append(
            f"Training made the network worse ({before:.4f} before, {after:.4f} after, in PyTorch), so the weights before it "
            "were kept: give it more epochs, more time or another learning rate."
        )
    steps = (steps_of(checkpoint) or (0, 0))[0]
    short = finished and not ended_good_enough(checkpoint) and steps < wanted
    if finished:
        stages.note_cut(space, asked.max_minutes, MADE, short)
    return Recovery(
        small, tuple(notes), _variant(checkpoint), finished, short, tuple(details), steps, wanted,
        tuple(epochs_of(checkpoint)),
    )  # fmt: skip


def _begun_trained(space: Workspace, small: Graph, say: Callable[[str], None]) -> list[str]:
    """Gives a graph the weights that an earlier run trained, where there are any; returns what is to be told of that."""
    path = space.inner / stages.START
    if not path.is_file():
        return []
    small.load_state_dict(stages.read_graph(path).state_dict())
    say("Training begins with the weights that the earlier run trained.")
    return ["Training began with the weights that an earlier run had trained."]


def _variant(checkpoint: Path) -> dict[str, Any] | None:
    """Returns how the steps in a checkpoint were computed, even if an earlier call that was killed has computed them."""
    found = variant_of(checkpoint)
    return None if found is None else {name: value for name, value in asdict(found).items() if value is not None}


def _judged(graph: Graph, original: Graph, asked: CompressRequest) -> float:
    """Returns the metric on a part of the validation data; without labels, the agreement with the original."""
    data = asked.data
    loader = data.validation if data.validation is not None else data.calibration
    assert loader is not None  # `settled` made sure of one of them
    metric = evaluate(graph, loader, data.task, limit=SAMPLES)
    return agreement(original, graph, islice(loader, AGREEMENT_BATCHES), data.task) if metric is None else metric
