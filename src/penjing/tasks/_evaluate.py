"""Measuring how good a network is, alike for PyTorch modules and for functions that call a runtime."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from penjing.errors import PenjingError
from penjing.tasks._outputs import first_tensor
from penjing.tasks._task import Task


def evaluate(run: Callable[..., Any], loader: Iterable[Any], task: Task, limit: int | None = None) -> float | None:
    """Returns the task's metric of `run` over the batches of `loader`.

    Args:
        run: takes a batch's input tensors and returns outputs: a module (evaluated in eval mode, on the device of its
            parameters, and put back into its mode afterwards) or any function, such as one that calls a runtime.
        loader: yields batches that `task.split` knows.
        task: what the network is for.
        limit: stop after the batch in which this many samples are reached; None takes them all.

    Returns:
        The metric, higher is better; None if the task or the batches are unlabelled.

    Raises:
        PenjingError: if the loader yields nothing.
    """
    if not task.labelled:
        return None
    metric = task.metric()
    samples = 0
    with _inference(run) as device:
        for batch in loader:
            inputs, targets = task.split(batch)
            if targets is None:
                return None
            metric.update(run(*_on(device, inputs)), targets if device is None else targets.to(device))
            samples += len(targets)
            if limit is not None and samples >= limit:
                break
    if samples == 0:
        raise PenjingError("The loader has no batches, so there is nothing to evaluate.")
    return float(metric.compute())


def agreement(run_a: Callable[..., Any], run_b: Callable[..., Any], loader: Iterable[Any], task: Task) -> float:
    """Returns the share of samples (or pixels) to which both give the same top-1 answer.

    The answer is the largest entry over axis 1 of the first tensor that each returns; for networks with a single
    output per sample there is no such answer, and the share is always 1.

    Args:
        run_a: a module or a function of the input tensors, as for `evaluate`.
        run_b: the other one.
        loader: yields batches that `task.split` knows; labels are not used.
        task: only its `split` is used.

    Raises:
        PenjingError: if the loader yields nothing, or the outputs differ in shape.
    """
    equal = total = 0
    with _inference(run_a) as device_a, _inference(run_b) as device_b:
        for batch in loader:
            inputs, _ = task.split(batch)
            answers_a = _top_one(run_a(*_on(device_a, inputs)))
            answers_b = _top_one(run_b(*_on(device_b, inputs)))
            if answers_a.shape != answers_b.shape:
                shapes = f"{tuple(answers_a.shape)} and {tuple(answers_b.shape)}"
                raise PenjingError(f"The two networks' answers can't be compared: their shapes are {shapes}.")
            equal += int((answers_a == answers_b).sum())
            total += answers_a.numel()
    if total == 0:
        raise PenjingError("The loader has no batches, so there is nothing to compare.")
    return equal / total


@contextmanager
def _inference(run: Callable[..., Any]) -> Iterator[torch.device | None]:
    """Yields the device that `run` wants its inputs on (None: as they are), without gradients and in eval mode."""
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


def _on(device: torch.device | None, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return inputs if device is None else tuple(tensor.to(device) for tensor in inputs)


def _top_one(outputs: Any) -> Tensor:
    answers = first_tensor(outputs)
    if answers.ndim < 2:
        raise PenjingError(f"Agreement needs outputs (N, classes, ...), not {tuple(answers.shape)}.")
    return answers.argmax(1).cpu()
