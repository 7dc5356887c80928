"""Measures how good a network is, in the same way for PyTorch modules and for functions that call a runtime."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from penjing.checks import COUNT, FUNCTION, checked, optional
from penjing.errors import PenjingError
from penjing.loaders import check_loader, read
from penjing.tasks._compared import parts_of
from penjing.tasks._inputs import run_on, sample_count
from penjing.tasks._likeness import Likeness, Tally
from penjing.tasks._targets import moved
from penjing.tasks._task import Metric, Task
from penjing.tasks.doors import TASK


@checked(run=FUNCTION, task=TASK, limit=optional(COUNT))
def evaluate(run: Callable[..., Any], loader: Iterable[Any], task: Task, limit: int | None = None) -> float | None:
    """Returns the task's metric of `run` over the batches of `loader`.

    Args:
        run: takes a batch's inputs and returns outputs: a module (evaluated in eval mode, on the device of its
            parameters, and put back into its mode afterwards) or any function, such as one that calls a runtime.
        loader: yields batches that `task.split` accepts.
        task: what the network is for.
        limit: number of samples after which to stop, at the end of a batch; None takes all samples.

    Returns:
        The metric, higher is better; None if the task or the batches are unlabelled. A metric that is NaN is returned as
        -infinity, worse than any other value, so that no comparison takes it for a good one.

    Raises:
        PenjingError: the loader yields nothing, or isn't a loader.
    """
    check_loader(loader)
    if not task.labelled:
        return None
    metric = _of_this_process(task.metric())
    samples = 0
    with _inference(run) as device:
        for batch in read(loader):
            inputs, targets = task.split(batch)
            if targets is None:
                return None
            metric.update(run_on(run, moved(inputs, device)), moved(targets, device))
            samples += sample_count(inputs)
            if limit is not None and samples >= limit:
                break
    if samples == 0:
        raise PenjingError("The loader has no batches, so there is nothing to evaluate.")
    value = float(metric.compute())
    return -math.inf if math.isnan(value) else value


def agreement(run_a: Callable[..., Any], run_b: Callable[..., Any], loader: Iterable[Any], task: Task) -> float:
    """Returns how alike two networks answer, from 0 to 1: the `value` of `likeness`, which also names the measure."""
    return likeness(run_a, run_b, loader, task).value


@checked(original=FUNCTION, other=FUNCTION, task=TASK, limit=optional(COUNT), seen=optional(FUNCTION))
def likeness(
    original: Callable[..., Any],
    other: Callable[..., Any],
    loader: Iterable[Any],
    task: Task,
    limit: int | None = None,
    seen: Callable[[tuple[Tensor, ...], Tensor | None, Any, Any], None] | None = None,
) -> Likeness:
    """Compares the answers of two networks, without labels.

    Outputs are taken in the form that the task's `compared` gives them, if it has that method.
    If the task's answers are classes, the answer is the largest entry along axis 1 of the first tensor that a network returns.
    Otherwise every tensor is compared, each by the first measure that suits the original's outputs: classes, if the original
    answers with more than one of them; decisions, if a single column holds probabilities; else the values themselves.

    Args:
        original: a module or a function of the input tensors, as for `evaluate`.
        other: the network to compare with it, in the same form.
        loader: yields batches that `task.split` accepts; labels are not used.
        task: its `split` is used, and its `answers`, if it has any: "classes", "values" or "auto".
        limit: number of samples after which to stop, at the end of a batch; None takes all samples.
        seen: called with the inputs, the targets and both networks' outputs of each batch.

    Raises:
        PenjingError: the loader yields nothing, or the outputs differ in number or shape.
    """
    tallies: list[Tally] = []
    samples = 0
    with _inference(original) as device, _inference(other) as other_device:
        for batch in read(loader):
            inputs, targets = task.split(batch)
            both = run_on(original, moved(inputs, device)), run_on(other, moved(inputs, other_device))
            ours, theirs = (parts_of(task, made) for made in both)
            if len(ours) != len(theirs):
                raise PenjingError(
                    f"The two networks' answers can't be compared: they have {len(ours)} and {len(theirs)} outputs."
                )
            tallies = tallies or [Tally(answers) for answers, _ in ours]
            for tally, (_, own), (_, their) in zip(tallies, ours, theirs, strict=True):
                tally.update(own, their)
            if seen is not None:
                seen(inputs, targets, *both)
            samples += sample_count(inputs)
            if limit is not None and samples >= limit:
                break
    if samples == 0:
        raise PenjingError("The loader has no batches, so there is nothing to compare.")
    found = [tally.likeness() for tally in tallies]
    least = min(range(len(found)), key=lambda index: found[index].value)
    return replace(found[least], output=least, outputs=len(found))


def _of_this_process(metric: Metric) -> Metric:
    """Lets a metric of torchmetrics judge what this process saw.

    By itself it would wait for every other process that trains beside this one, and all of them read the same batches.
    """
    inner: Any = getattr(metric, "inner", metric)
    if hasattr(inner, "distributed_available_fn"):
        inner.distributed_available_fn = lambda: False
    return metric


@contextmanager
def _inference(run: Callable[..., Any]) -> Iterator[torch.device | None]:
    """Turns gradients off and eval mode on; yields the device for the inputs of `run` (None: inputs stay where they are)."""
    if not isinstance(run, nn.Module):
        with torch.no_grad():
            yield None
        return
    parameter = next(run.parameters(), None)
    training = run.training
    run.eval()
    try:
        with torch.no_grad():
            yield None if parameter is None else parameter.device
    finally:
        run.train(training)
