"""What a training ends with, where that isn't the weights of its last step: averages, and statistics of their own."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from accelerate.utils import send_to_device
from torch import Tensor, nn

from penjing.tasks import each_input
from penjing.training.averaging import Average
from penjing.training.batch_norms import SAMPLES, reestimate, running_statistics
from penjing.training.objective import Objective, channels_last
from penjing.training.randomness import batches
from penjing.training.settings import Variant
from penjing.training.source import batch_size


def finish(
    graph: nn.Module,
    average: Average | None,
    inputs: Iterator[Sequence[Tensor]] | None,
    stop: Callable[[], bool],
    log: Callable[[str], None],
) -> None:
    """Gives a graph the weights and the statistics that its training ends with, in place.

    Args:
        graph: as the last step left it.
        average: of the weights; None where the last ones stay.
        inputs: batches of which batch norms get their statistics; None where they keep theirs.
        stop: asked before each batch whether there is no more time.
        log: called with messages for the user.
    """
    if average is not None:
        average.write_into(graph)
    if getattr(graph, "masks", None):
        graph.apply_masks()  # type: ignore[operator]
    if inputs is not None and running_statistics(graph):
        samples = reestimate(graph, inputs, stop)
        log(f"Batch norms have the statistics of {samples:,} training samples, computed with the final weights."
            if samples else "Batch norms keep the statistics of the training.")  # fmt: skip


def inputs_as_they_are(loader: Any, objective: Objective, variant: Variant) -> Iterator[Sequence[Tensor]]:
    """Yields the student's inputs of as many batches as statistics need, not augmented, of the epoch behind the last."""
    samples, settings = 0, objective.settings
    for batch in batches(loader, settings.seed, settings.epochs, "The training data"):
        inputs, _ = send_to_device(objective.task.split(batch), objective.device)
        if variant.channels_last:
            inputs = each_input(inputs, channels_last)
        yield inputs if objective.teacher is None else objective.teacher.shown(inputs)
        samples += batch_size(objective.task, batch)
        if samples >= SAMPLES:
            return
