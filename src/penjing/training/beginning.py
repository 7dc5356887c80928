"""Decides the learning rate, the variant and the number of steps of a new run; tries a few steps where that pays."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from torch import nn

from penjing.errors import PenjingError
from penjing.graph.digest import digest
from penjing.training.checkpoint import Standing
from penjing.training.deadline import FOR_TRYING, fitting, left, over
from penjing.training.objective import Objective
from penjing.training.optimizers import default_lr
from penjing.training.randomness import batches
from penjing.training.rates import find_rate, steps_tell
from penjing.training.settings import Variant
from penjing.training.source import batch_size
from penjing.training.speed import MUCH, candidates, fastest, step_seconds, thread_counts

TRIED = 3  # batches that are fetched to try steps on


def first_batches(loader: Any, seed: int) -> tuple[list[Any], float]:
    """Returns the first batches of a loader, and the seconds that fetching one took.

    Raises:
        PenjingError: there are none.
    """
    start = time.perf_counter()
    tried = list(islice(batches(loader, seed, 0, "The training data"), TRIED))
    if not tried:
        raise PenjingError(f"The training data has a length of {len(loader)} batches but gave none.")
    return tried, (time.perf_counter() - start) / len(tried)


def begin(
    graph: nn.Module,
    objective: Objective,
    loader: Any,
    tried: Sequence[Any],
    fetching: float,
    steps: int,
    deadline: float | None,
    log: Callable[[str], None],
    callbacks: Sequence[object] = (),
) -> Standing:
    """Returns the standing of a run before its first step.

    Args:
        graph: the student, on the objective's device.
        objective: gives the losses.
        loader: the training data.
        tried: its first batches, to try steps on.
        fetching: seconds that a batch takes to fetch.
        steps: how many there would be without a deadline.
        deadline: see `recover`.
        log: called with messages for the user.
        callbacks: those of the run.
    """
    settings, total = objective.settings, steps
    lasting = float("inf")  # seconds of a step, measured where there is a deadline
    variants = candidates(graph, settings, total)
    variant = variants[0]
    threads = thread_counts(total, objective.device)
    if over(deadline):
        log("The deadline has passed: no training.")
        total = 0
    elif len(variants) > 1 or len(threads) > 1 or deadline is not None:
        seconds: dict[Variant, float] = {}
        if len(threads) > 1:  # first, as the number of threads decides about the others' times too
            each = [replace(variant, threads=count) for count in threads]
            seconds = step_seconds(graph, objective, settings, tried, each, FOR_TRYING * left(deadline))
            variant = fastest(seconds, MUCH)
            variants = [replace(other, threads=variant.threads) for other in variants]
        if len(variants) > 1 or not seconds:
            more = step_seconds(graph, objective, settings, tried, variants, FOR_TRYING * left(deadline))
            variant = fastest(more)
            seconds = {**seconds, **more}
        times = ", ".join(f"{other} {1000 * value:.0f} ms" for other, value in seconds.items())
        log(f"Training in {variant} (per step: {times}).")
        lasting = seconds[variant] + fetching
    lr = settings.lr
    if lr is None:
        usual = default_lr(settings.optimizer, batch_size(objective.task, tried[0]) * objective.processes)
        trying = fitting(total, deadline, lasting) if steps_tell(callbacks) else 0
        lr = find_rate(graph, objective, loader, tried, variant, usual, trying, log)
    planned, total = total, fitting(total, deadline, lasting)
    if total < planned:
        log(f"Shortening the training from {planned} to {total} steps, to be done in {left(deadline):.0f} s.")
    return Standing(0, total, lr, variant, began_with=digest(graph.state_dict()))
