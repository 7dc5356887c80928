"""What becomes of a run whose loss isn't finite: the graph goes back to the last checkpoint, and the error says how to go on."""

from torch import nn

from penjing.errors import PenjingError
from penjing.training.checkpoint import Checkpoint, Standing
from penjing.training.step import Diverged


class TrainingDiverged(PenjingError):
    """A training whose loss isn't finite any more, which could be done with a lower learning rate.

    Attributes:
        told: what happened where, a sentence.
        lower: a learning rate that may do.
    """

    def __init__(self, told: str, lower: float, advice: str) -> None:
        """Takes the attributes, and a sentence on how to go on."""
        super().__init__(f"{told} {advice}")
        self.told, self.lower = told, lower


LOWER = 5  # the rate that the error proposes is this many times lower than the one that diverged


def ended(
    end: Diverged, standing: Standing, epoch: int, batch: int, file: Checkpoint | None, graph: nn.Module, *, write: bool
) -> PenjingError:
    """Returns the error with which a run ends whose next step would have been of a loss or a gradient that isn't finite.

    With a checkpoint, the graph gets the weights of that checkpoint back, and the file notes the divergence, so that a call
    with a lower rate goes on from there.

    Args:
        end: the loss and the gradient's norm.
        standing: how far the run had come.
        epoch: number of the epoch, from 0.
        batch: number of the batch within the epoch's batches, from 0.
        file: the run's checkpoint, if it has one.
        graph: the student.
        write: whether this process writes the checkpoint.

    Raises:
        PenjingError: the checkpoint can't be read or written.
    """
    told = f"{end} in step {standing.step + 1} of {standing.total} (epoch {epoch + 1}, batch {batch + 1})"
    if standing.step == 0:
        return PenjingError(
            f"{told}. No step had been taken, so no learning rate is to blame: look for values that are NaN or infinite in this "
            "batch and in the model's weights."
        )
    told, lower = f"{told}: training diverged.", standing.lr / LOWER
    smaller = f"Use a smaller learning rate than lr={standing.lr:.3g}, for example lr={lower:.2g}"
    if file is None:
        return TrainingDiverged(told, lower, f"{smaller}. No checkpoint= was given, so training must start anew.")
    kept = file.go_back(graph, standing, write=write)
    if kept == standing.step:
        return TrainingDiverged(
            told,
            lower,
            f"The weights in {file.path} lead there at once. Delete that file to start anew: use a smaller learning rate from "
            f"the beginning than lr={standing.lr:.3g}, for example lr={lower:.2g}.",
        )
    return TrainingDiverged(
        told,
        lower,
        f"{smaller}: with {file.path}, training goes on behind step {kept}, where this checkpoint was written.",
    )


def going_on(standing: Standing) -> str:
    """Says at which rate a run goes on that diverged, and takes the note of it out of the standing."""
    step, standing.diverged_at = standing.diverged_at, None
    return f"The training diverged behind step {step}; it goes on from step {standing.step} with lr={standing.lr:.3g}."
